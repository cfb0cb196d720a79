"""Sums over draws from which every estimator is computed: additive, so that partial results merge."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor

from maed.autoencoder.masking import Draw
from maed.tensors import read_tensors, write_tensors


class Sums:
    """Tensors that add up: over batches, processes, machines, and after a stop. Always float64.

    A subclass is a dataclass of tensors, the first of which is `seen`.
    """

    parts: ClassVar[int]
    """Number of cases that `stacked` separates, such as draws with i visible and draws with i hidden."""

    @classmethod
    def empty(cls, n: int, *, padded: bool = False, device: torch.device | str = "cpu") -> Self:
        """No draws yet. `padded`: some signals have positions that are not real."""
        raise NotImplementedError

    def stacked(self) -> dict[str, Tensor]:
        """`counts`, `sums`, `squares`, each `(parts, N, N)` on the CPU: what is written beside a similarity."""
        raise NotImplementedError

    @classmethod
    def unstacked(cls, counts: Tensor, sums: Tensor, squares: Tensor) -> Self:
        """The sums that `stacked` made these tensors of."""
        raise NotImplementedError

    @property
    def seen(self) -> Tensor:
        """`(N, N)`: the number of draws with i visible in which j was scored."""
        return self.tensors()[0]

    def merge(self, other: Self) -> Self:
        """The sums over the draws of both."""
        return type(self)(*(mine + theirs for mine, theirs in zip(self.tensors(), other.tensors(), strict=True)))

    def tensors(self) -> list[Tensor]:
        """The sums, in the order of the fields."""
        return [getattr(self, f.name) for f in fields(self)]  # type: ignore[arg-type]

    def save(self, path: Path) -> None:
        """Write the sums as they are, to go on later or to merge elsewhere."""
        write_tensors(path, {f.name: getattr(self, f.name) for f in fields(self)})  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: Path, device: torch.device | str = "cpu") -> Self:
        """Read what `save` wrote."""
        tensors = read_tensors(path)
        # copies, which start where memory is aligned: products are added up in another order where it is not
        return cls(*(tensors[f.name].to(device, copy=True) for f in fields(cls)))  # type: ignore[arg-type]


@dataclass
class Accumulator(Sums):
    """Number of draws, sum of the losses l_j and sum of their squares, for each pair (i, j).

    Over the draws in which i and j are real, j is hidden and j is scored; once for the draws with i visible, once for
    all of them. If every position of every signal is real, "all" does not depend on i and is kept as one row. Memory
    grows with N squared (24 to 48 bytes a pair).

    Args:
        visible_counts, visible_sums, visible_squares: `(N, N)`, draws with i visible.
        all_counts, all_sums, all_squares: `(1, N)`, or `(N, N)` where padding makes them depend on i.
    """

    visible_counts: Tensor
    visible_sums: Tensor
    visible_squares: Tensor
    all_counts: Tensor
    all_sums: Tensor
    all_squares: Tensor

    parts = 2

    @classmethod
    def empty(cls, n: int, *, padded: bool = False, device: torch.device | str = "cpu") -> Accumulator:
        """No draws yet. `padded`: some signals have positions that are not real."""
        rows = [n, n, n, *([n if padded else 1] * 3)]
        return cls(*(torch.zeros(r, n, dtype=torch.float64, device=device) for r in rows))

    def add(self, losses: Tensor, visible: Tensor, scored: Tensor, real: Tensor | None = None) -> None:
        """Count a batch of draws.

        Args:
            losses: `(B, N)` l_j; ignored where not scored.
            visible: `(B, N)` bool.
            scored: `(B, N)` bool; True only where real and hidden.
            real: `(B, N)` bool; None if all are.
        """
        hit = scored.double()
        loss = torch.where(scored, losses.double(), 0.0)  # not a product: an ignored loss may be infinite
        seen = visible.double().T
        for total, term in (
            (self.visible_counts, hit),
            (self.visible_sums, loss),
            (self.visible_squares, loss * loss),
        ):
            total.addmm_(seen, term)
        there = loss.new_ones(1, len(losses)) if real is None else real.double().T
        for total, term in ((self.all_counts, hit), (self.all_sums, loss), (self.all_squares, loss * loss)):
            total.add_(there @ term)

    def add_draw(self, draw: Draw, losses: Tensor, scored: Tensor) -> None:
        """Count a batch of draws in which all positions were scored.

        Args:
            draw: A draw of B signals.
            losses: `(B, N)` l_j; ignored where not scored.
            scored: `(B, N)` bool; True only where hidden.
        """
        real = torch.ones_like(draw.visible, dtype=torch.bool) if draw.visible_mask is None else draw.visible_mask
        row, place = real.nonzero(as_tuple=True)
        # Contiguous, which `hidden` is not: the order in memory decides in which order a product adds up.
        visible = torch.zeros(draw.hidden.shape, dtype=torch.bool, device=real.device)
        visible[row, draw.visible[row, place]] = True
        everywhere = draw.visible_mask is None
        self.add(losses, visible, scored, None if everywhere else (visible | draw.hidden).contiguous())

    def stacked(self) -> dict[str, Tensor]:
        """`counts`, `sums`, `squares`, each `(2, N, N)` on the CPU: draws with i visible, draws with i hidden."""
        return {
            name: torch.stack(
                [seen := getattr(self, f"visible_{name}").cpu(), getattr(self, f"all_{name}").cpu() - seen]
            )
            for name in ("counts", "sums", "squares")
        }

    @classmethod
    def unstacked(cls, counts: Tensor, sums: Tensor, squares: Tensor) -> Accumulator:
        """The sums of `stacked`, "all" with a row for each i."""
        stacked = (counts, sums, squares)
        return cls(*(total[0] for total in stacked), *(total.sum(dim=0) for total in stacked))


@dataclass
class PairedSums(Sums):
    """Number of draws, sum and sum of squares of the rise of the loss at j when i alone is hidden too, for each pair.

    The rise is l_j(V without i) - l_j(V), over the draws with i visible and j hidden and scored.

    Args:
        counts, sums, squares: `(N, N)`; 24 bytes a pair.
    """

    counts: Tensor
    sums: Tensor
    squares: Tensor

    parts = 1

    @classmethod
    def empty(cls, n: int, *, padded: bool = False, device: torch.device | str = "cpu") -> PairedSums:
        """No draws yet."""
        return cls(*(torch.zeros(n, n, dtype=torch.float64, device=device) for _ in range(3)))

    def add(self, rises: Tensor, dropped: Tensor, scored: Tensor) -> None:
        """Count draws in which one position each was dropped.

        Args:
            rises: `(B, N)` l_j(V without i) - l_j(V); ignored where not scored.
            dropped: `(B,)` the positions i.
            scored: `(B, N)` bool; True only where real and hidden in V.
        """
        rise = torch.where(scored, rises.double(), 0.0)
        for total, term in ((self.counts, scored.double()), (self.sums, rise), (self.squares, rise * rise)):
            total.index_add_(0, dropped, term)

    def stacked(self) -> dict[str, Tensor]:
        """`counts`, `sums`, `squares`, each `(1, N, N)` on the CPU."""
        names = ("counts", "sums", "squares")
        return {name: total.cpu()[None] for name, total in zip(names, self.tensors(), strict=True)}

    @classmethod
    def unstacked(cls, counts: Tensor, sums: Tensor, squares: Tensor) -> PairedSums:
        """The sums of `stacked`."""
        return cls(counts[0], sums[0], squares[0])


def mean_of(counts: Tensor, sums: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the square of its standard error; 0 where nothing was counted."""
    at_least_one = counts.clamp(min=1)
    return sums / at_least_one, variance_of(counts, sums, squares) / at_least_one


def variance_of(counts: Tensor, sums: Tensor, squares: Tensor) -> Tensor:
    """The variance; 0 where it is no more than rounding."""
    at_least_one = counts.clamp(min=1)
    mean = sums / at_least_one
    variance = squares / at_least_one - mean * mean
    # What is left of a difference of nearly equal numbers is rounding, not variance.
    return torch.where(variance > 1e-12 * (squares / at_least_one), variance, 0.0)
