"""Draws of visible and scored positions, and the interface of masked autoencoders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from maed.data.signals import SignalKind, Signals
from maed.errors import MaedError


class MaskedAutoencoder(Protocol):
    """The interface of a masked autoencoder that the stages after training use."""

    def predict(self, values: Tensor, visible: Tensor, scored: Tensor, visible_mask: Tensor | None = None) -> Tensor:
        """Reconstruct the positions `scored` `(S,)` from the values seen at `visible` `(B, V)`: `(B, S, outputs)`."""
        ...


def visible_count(n: int, kind: SignalKind, fraction: float | None, group: str = "autoencoder") -> int:
    """Number of visible positions out of `n`.

    Without a fraction: 3/4 of sqrt(n) positions of real channels (24 of 1,024: sparse enough that single positions
    matter, dense enough that neighbors meet), a fifth of the positions of tokens, whose dependence dies after a few.

    Returns:
        A number from 1 to n - 1.

    Raises:
        MaedError: The fraction leaves none or all; the error names the fraction of the settings' `group`.
    """
    if fraction is None:
        fraction = 0.2 if kind == "tokens" else 0.75 / np.sqrt(n)
        return min(max(2, round(n * fraction)), n - 1)
    count = round(n * fraction)
    if not 0 < count < n:
        left = "none" if count == 0 else "all"
        raise MaedError(
            f"{group}.visible_fraction must be between {1 / n:.2g} and {1 - 1 / n:.6g} for {n} positions, got "
            f"{fraction}, which shows {left}"
        )
    return count


def draw_subsets(generator: np.random.Generator, rows: int, n: int, k: int) -> np.ndarray:
    """`k` of `n` positions for each row, without replacement, every subset equally likely.

    Floyd's algorithm (Bentley and Floyd, 1987), over all rows at once: time grows with `rows * k * k`, not with `n`.

    Returns:
        `(rows, k)` int64; the order within a row is not random.
    """
    chosen = np.empty((rows, k), dtype=np.int64)
    for i in range(k):
        last = n - k + i
        pick = generator.integers(0, last + 1, size=rows)
        taken = (chosen[:, :i] == pick[:, None]).any(axis=1)
        chosen[:, i] = np.where(taken, last, pick)
    return chosen


def draw_real_subsets(generator: np.random.Generator, real: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """`k[b]` of the real positions of each row b, without replacement. Time grows with `B * N`.

    Args:
        generator: Source of randomness.
        real: `(B, N)` bool.
        k: `(B,)` int64, at least 1 and at most the row's number of real positions.

    Returns:
        Positions `(B, max(k))` int64 and a `(B, max(k))` bool mask, False where a row has fewer.
    """
    most = int(k.max())
    keys = generator.random(real.shape, dtype=np.float32)
    keys[~real] = 2.0  # behind every real position
    chosen = np.argpartition(keys, most - 1, axis=1)[:, :most]
    chosen = np.take_along_axis(chosen, np.take_along_axis(keys, chosen, axis=1).argsort(axis=1), axis=1)
    return chosen, np.arange(most) < k[:, None]


def hide_share(chance: Tensor, real: Tensor | None, share: float) -> Tensor:
    """Hide a share of the real positions of each signal, at least one, and leave at least one visible.

    Args:
        chance: `(B, N)` random numbers between 0 and 1; the positions with the lowest are hidden.
        real: `(B, N)` bool, True at real positions; None if all are.
        share: Share of the real positions to hide, above 0 and below 1.

    Returns:
        `(B, N)` bool, True where hidden; nowhere in a signal with a single real position.
    """
    chance = chance if real is None else chance.masked_fill(~real, 2.0)
    count = torch.full_like(chance[:, :1], chance.shape[1]) if real is None else real.sum(dim=1, keepdim=True)
    hidden = (count * share).round().clamp(min=1).minimum(count - 1)  # (B, 1)
    return chance.argsort(dim=1).argsort(dim=1) < hidden


@dataclass(frozen=True)
class Draw:
    """A batch of signals, each with its visible positions, and the positions all of them are scored on.

    Args:
        values: `(B, V, C)` float32 or `(B, V)` int64: the signals at their visible positions.
        visible: `(B, V)` int64 positions.
        visible_mask: `(B, V)` bool, False where `visible` is filler; None if nothing is.
        scored: `(S,)` int64 positions.
        targets: `(B, S, C)` float32 or `(B, S)` int64: the signals at the scored positions.
        hidden: `(B, S)` bool: scored there, that is, real and not visible.
        weight: What its mean loss counts for, so that the mean over processes is that of the whole draw.
    """

    values: Tensor
    visible: Tensor
    visible_mask: Tensor | None
    scored: Tensor
    targets: Tensor
    hidden: Tensor
    weight: float = 1.0

    def to(self, device: torch.device) -> Draw:
        """The same draw on another device."""
        mask = None if self.visible_mask is None else self.visible_mask.to(device)
        moved = [t.to(device) for t in (self.values, self.visible, self.scored, self.targets, self.hidden)]
        return Draw(moved[0], moved[1], mask, moved[2], moved[3], moved[4], self.weight)

    def share(self, rank: int, world: int) -> Draw:
        """The signals of one of `world` processes; with fewer signals than processes, some count for nothing."""
        if world == 1:
            return self
        own = slice(rank, None, world) if rank < len(self.hidden) else slice(0, 1)
        hidden, mask = self.hidden[own], None if self.visible_mask is None else self.visible_mask[own]
        weight = world * float(hidden.sum() / self.hidden.sum().clamp(min=1)) if rank < len(self.hidden) else 0.0
        return Draw(self.values[own], self.visible[own], mask, self.scored, self.targets[own], hidden, weight)


def make_draw(
    signals: Signals, generator: np.random.Generator, *, rows: np.ndarray, visible: int, scored: int | None
) -> Draw:
    """Hide all but `visible` positions of the signals `rows`.

    Args:
        signals: The split to draw from.
        generator: Source of randomness.
        rows: `(B,)` int64.
        visible: Number of the N positions that a signal shows; a signal with fewer real positions shows the same share
            of them, at least one, and always hides one if it has two.
        scored: Number of positions to score, at random, the same for the whole batch, so that the cost of a draw
            does not grow with N; None scores all.

    Returns:
        The draw of B signals.
    """
    n = signals.values.shape[1]
    positions = np.arange(n) if scored is None or scored >= n else generator.choice(n, scored, replace=False)
    real = None if signals.mask is None else signals.mask[rows]
    if real is None:
        return _draw(signals, rows, draw_subsets(generator, len(rows), n, visible), None, positions)
    return _draw(signals, rows, *draw_real_subsets(generator, real, _shares(real, visible)), positions)


def nested_draws(
    signals: Signals, generator: np.random.Generator, *, rows: np.ndarray, counts: Sequence[int]
) -> Iterator[Draw]:
    """Draws that show ever more of the same signals, all positions scored: what one shows, the next shows too.

    Args:
        signals: The split to draw from.
        generator: Source of randomness.
        rows: `(B,)` int64.
        counts: Ascending: how many of N positions each draw shows; of a signal with fewer real ones, as `make_draw`.

    Returns:
        One draw after another.
    """
    n = signals.values.shape[1]
    real = np.ones((len(rows), n), dtype=bool) if signals.mask is None else signals.mask[rows]
    keys = generator.random(real.shape)
    order = np.where(real, keys, 2.0).argsort(axis=1)  # padding behind every real position
    for visible in counts:
        shares = _shares(real, visible)
        shown, mask = order[:, : shares.max()], np.arange(shares.max()) < shares[:, None]
        yield _draw(signals, rows, shown, None if signals.mask is None else mask, np.arange(n))


def _shares(real: np.ndarray, visible: int) -> np.ndarray:
    """Number of visible positions of each signal, `(B,)`: the share of its real ones that `visible` is of all."""
    lengths = real.sum(axis=1)
    k = np.rint(lengths * (visible / real.shape[1])).astype(np.int64)
    return np.clip(k, 1, np.maximum(lengths - 1, 1))


def _draw(
    signals: Signals, rows: np.ndarray, shown: np.ndarray, shown_mask: np.ndarray | None, positions: np.ndarray
) -> Draw:
    """The draw that shows positions `(B, V)` where the mask does not say filler, and scores `(S,)`."""
    real = None if signals.mask is None else signals.mask[rows]
    return Draw(
        signals.gather(rows, shown),
        torch.from_numpy(shown),
        None if shown_mask is None else torch.from_numpy(shown_mask),
        torch.from_numpy(positions),
        signals.gather(rows, positions),
        torch.from_numpy(_hidden(positions, shown, shown_mask, real, signals.values.shape[1])),
    )


def _hidden(
    scored: np.ndarray, shown: np.ndarray, shown_mask: np.ndarray | None, real: np.ndarray | None, n: int
) -> np.ndarray:
    """`(B, S)` bool: which scored positions are real and not visible. Time and memory grow with B (V + S) + N."""
    column = np.full(n, -1)
    column[scored] = np.arange(len(scored))
    at = column[shown]  # (B, V)
    row, which = np.nonzero(at >= 0 if shown_mask is None else (at >= 0) & shown_mask)
    hidden = np.ones((len(shown), len(scored)), dtype=bool) if real is None else real[:, scored]
    hidden[row, at[row, which]] = False
    return hidden
