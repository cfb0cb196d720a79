"""Signals in memory: compact arrays, indexed a batch at a time, normalized only when a batch is made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from maed.data.geometry import Geometry

SignalKind = Literal["real", "tokens"]

LIMIT = 10.0
"""Deviations from the mean that a value counts at most where each position has its own: one false value, or a
position that hardly ever moves, would outweigh all others in a squared error."""

SignalContent = Literal["numbers", "tokens", "text", "images"]
"""Original content of signals: `numbers` or pixels of `images` for real ones, ids (`tokens`) or bytes of `text`."""


@dataclass(frozen=True)
class Signals:
    """One split of a data set.

    Args:
        values: `(n, N, C)` numbers as stored (`uint8`, `int16`, `float32`; memory-mapped is fine), or `(n, N)`
            integer token ids.
        labels: `(n,)` int64 class indices, or None. In a training, what the task reads for each signal.
        numbers: `(n, K)` float64, the labels where they are numbers, or None.
        mask: `(n, N)` bool, True where a position is real; None if all are.
        mean, scale: `(1, C)` or `(N, C)` float32; a batch is `(values - mean) / scale`, and with `(N, C)` of them
            between -`LIMIT` and `LIMIT`. None for tokens.
        common: `(n, C)` float32, what each normalized signal has in common at all positions, which a batch is without;
            None where it is kept (`without_common_mode`).
        rest: `(N, C)` float32, the deviation of what is left, to which a batch is scaled again; None with `common`.
    """

    values: np.ndarray
    labels: np.ndarray | None = None
    mask: np.ndarray | None = None
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    common: np.ndarray | None = None
    rest: np.ndarray | None = None
    numbers: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values)

    def rows(self, rows: np.ndarray) -> Signals:
        """The signals at `rows`, as a smaller `Signals` (a copy)."""
        return replace(
            self,
            values=self.values[rows],
            labels=None if self.labels is None else self.labels[rows],
            mask=None if self.mask is None else self.mask[rows],
            common=None if self.common is None else self.common[rows],
            numbers=None if self.numbers is None else self.numbers[rows],
        )

    def at(self, positions: np.ndarray, rows: np.ndarray | None = None) -> Signals:
        """The signals at positions `(P,)` alone, all of them or those at `rows`, as a smaller `Signals` (a copy)."""

        def cut(values: np.ndarray) -> np.ndarray:
            return values[:, positions] if rows is None else values[rows[:, None], positions]

        def each(numbers: np.ndarray | None) -> np.ndarray | None:
            return numbers if numbers is None or len(numbers) == 1 else numbers[positions]

        kept = slice(None) if rows is None else rows
        return replace(
            self,
            values=cut(self.values),
            labels=None if self.labels is None else self.labels[kept],
            mask=None if self.mask is None else cut(self.mask),
            mean=each(self.mean),
            scale=each(self.scale),
            common=None if self.common is None else self.common[kept],
            rest=None if self.rest is None else self.rest[positions],
            numbers=None if self.numbers is None else self.numbers[kept],
        )

    def take(self, rows: np.ndarray) -> Tensor:
        """Whole signals: `(B, N, C)` normalized float32, or `(B, N)` int64 token ids."""
        return self._batch(self.values[rows], rows, slice(None))

    def gather(self, rows: np.ndarray, positions: np.ndarray) -> Tensor:
        """Signals `rows` `(B,)` at `positions` `(B, V)` of their own or `(S,)` shared: costs what it returns, not N.

        Returns:
            `(B, V, C)` normalized float32, or `(B, V)` int64 token ids.
        """
        return self._batch(self.values[rows[:, None], positions], rows, positions)

    def real(self, rows: np.ndarray) -> Tensor | None:
        """Mark the real positions of signals `rows`, `(B, N)` bool; None if all are real."""
        return None if self.mask is None else torch.from_numpy(self.mask[rows])

    def targets(self, rows: np.ndarray) -> Tensor:
        """The labels of signals `rows`: `(B,)` int64 classes, or what else the task reads."""
        assert self.labels is not None
        return torch.from_numpy(self.labels[rows])

    def _batch(self, values: np.ndarray, rows: np.ndarray, positions: np.ndarray | slice) -> Tensor:
        if self.mean is None or self.scale is None:
            return torch.from_numpy(values.astype(np.int64))
        mean, scale = self.mean, self.scale
        each = len(mean) > 1  # one per position
        if each:
            mean, scale = mean[positions], scale[positions]
        batch = values.astype(np.float32)
        batch -= mean
        batch /= scale
        if each:
            np.clip(batch, -LIMIT, LIMIT, out=batch)
        if self.common is not None and self.rest is not None:
            batch -= self.common[rows][:, None]
            batch /= self.rest[positions]
        return torch.from_numpy(batch)


@dataclass(frozen=True)
class SignalData:
    """A data set as every stage meets it: three splits of equal shape, and what is known about them.

    Args:
        source: The name it was asked for by.
        kind: `real` channels or `tokens`.
        train, validation, test: The splits. Those who learn positions read `train` and `validation` only.
        vocabulary: Number of token ids, 0 for real channels.
        classes: Class names, in the order of the labels; empty without labels.
        geometry: The true geometry, or None. Nothing that learns reads it.
        permutation: The order that `--data.permute` put the positions in, or None: position i holds what was
            stored at `permutation[i]`.
        content: What kind of content the signals were made of; None if unknown.
        columns: Columns of the table they were read from; empty if there was none.
        kept: `(stored N,)` bool, which of the stored positions these are, where some have no value at all; None where
            all are.
        held_out: How many signals each split has, and how they were chosen, in words.
        label_names: Names of the columns that labels come from; empty without labels.
    """

    source: str
    kind: SignalKind
    train: Signals
    validation: Signals
    test: Signals
    vocabulary: int = 0
    classes: tuple[str, ...] = ()
    geometry: Geometry | None = None
    permutation: np.ndarray | None = None
    content: SignalContent | None = None
    columns: tuple[str, ...] = ()
    kept: np.ndarray | None = None
    held_out: str = ""
    label_names: tuple[str, ...] = ()

    def at(self, positions: np.ndarray) -> SignalData:
        """The same signals at positions `(P,)` alone (a copy), of whose places nothing is known."""
        train, validation, test = (split.at(positions) for split in (self.train, self.validation, self.test))
        unknown: dict[str, Any] = {"geometry": None, "permutation": None, "columns": (), "kept": None}
        return replace(self, train=train, validation=validation, test=test, **unknown)

    @property
    def positions(self) -> int:
        """N."""
        return self.train.values.shape[1]

    @property
    def channels(self) -> int:
        """C of real signals, 0 for tokens."""
        return 0 if self.kind == "tokens" else self.train.values.shape[2]

    @property
    def names(self) -> tuple[str, ...] | None:
        """The names of the positions as they are stored here, where each is a column of a table; None otherwise."""
        if len(self.columns) != self.positions:
            return None
        order = range(self.positions) if self.permutation is None else self.permutation
        return tuple(self.columns[i] for i in order)

    @property
    def labeled(self) -> bool:
        """True if every split has labels of at least two classes."""
        return len(self.classes) > 1
