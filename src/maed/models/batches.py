"""Labeled signals in batches: the order of a training, each process's share of it, and what is changed at random."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from maed.data.geometry import Geometry
from maed.data.signals import Signals
from maed.errors import MaedError, require_extra
from maed.settings import TrainSettings


class Batch(NamedTuple):
    """Some labeled signals.

    Args:
        values: `(B, N, C)` float32 or `(B, N)` int64.
        mask: `(B, N)` bool, True where real; None if all are.
        labels: `(B,)` int64.
        weight: Weight of this process's mean loss, so that the mean over processes is that of all signals.
    """

    values: Tensor
    mask: Tensor | None
    labels: Tensor
    weight: float = 1.0


def take(signals: Signals, rows: np.ndarray, weight: float = 1.0) -> Batch:
    """Signals `rows`, `(B,)`."""
    return Batch(signals.take(rows), signals.real(rows), signals.targets(rows), weight)


class ShuffledBatches(Dataset[Batch]):
    """Batch number t of a training: a function of the seed and of t alone, whatever the encoding, resumed or not.

    Several processes share each batch: the signals of a step are the same for any number of them.

    Args:
        signals: The training split; every epoch is a permutation of it, its last batch may be smaller.
        batch_size: Signals in a batch, of all processes together.
        seed: Seed of the permutations.
        rank: Number of this process.
        world: Processes in all.
    """

    def __init__(self, signals: Signals, batch_size: int, seed: int, *, rank: int = 0, world: int = 1) -> None:
        self.signals, self.batch_size, self.seed = signals, batch_size, seed
        self.rank, self.world = rank, world
        self.per_epoch = math.ceil(len(signals) / batch_size)
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def rows(self, number: int) -> np.ndarray:
        """The signals of a batch, `(B,)`, those of other processes included."""
        epoch, batch = divmod(number, self.per_epoch)
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.signals))
            self._epoch = epoch
        return self._order[batch * self.batch_size : (batch + 1) * self.batch_size]

    def __getitem__(self, number: int) -> Batch:
        rows = self.rows(number)
        mine = rows[self.rank :: self.world]
        if len(mine) == 0:  # fewer signals than processes: one that counts for nothing, for no process may stay away
            return take(self.signals, rows[:1], weight=0.0)
        return take(self.signals, mine, weight=self.world * len(mine) / len(rows))


class _Chunks(Dataset[Batch]):
    """Given rows, one batch for each entry."""

    def __init__(self, signals: Signals, chunks: list[np.ndarray]) -> None:
        self.signals, self.chunks = signals, chunks

    def __getitem__(self, number: int) -> Batch:
        return take(self.signals, self.chunks[number])

    def __len__(self) -> int:
        return len(self.chunks)


def every_signal(signals: Signals, batch_size: int, *, rank: int = 0, world: int = 1) -> DataLoader[Batch]:
    """Every signal once, in order, `batch_size` at most at a time; every process has as many batches as the others."""
    mine = np.arange(rank, len(signals), world)
    count = math.ceil(math.ceil(len(signals) / world) / max(1, batch_size // world))
    return DataLoader(_Chunks(signals, np.array_split(mine, count)), batch_size=None)


class Augmentation:
    """Augmentation of a training batch by `train.flip`, `train.crop` and `train.hide`, drawn from torch's generator.

    Args:
        train: The settings.
        geometry: Geometry of the data; flips and crops need a grid of pixels.
        permuted: True if the order of the positions hides it.
        kind: `real` or `tokens`.

    Raises:
        MaedError: a flip or crop of what is no image or is permuted, a crop beyond the image, or kornia missing.
    """

    def __init__(self, train: TrainSettings, geometry: Geometry | None, *, permuted: bool, kind: str) -> None:
        self.hide = train.hide
        self._images: Any = None
        if not (train.flip or train.crop):
            return
        name = "train.flip: True" if train.flip else f"train.crop: {train.crop}"
        if permuted:
            raise MaedError(f"{name}, but positions are permuted, so left and right are unknown; leave it out")
        if kind != "real" or geometry is None or geometry.kind != "grid" or len(geometry.shape) != 2:
            raise MaedError(f"{name}, but the signals are not images; leave it out")
        self._sides = tuple(geometry.shape)
        if train.crop >= min(self._sides):
            raise MaedError(
                f"train.crop must be below {min(self._sides)} for images of {self._sides}, got {train.crop}"
            )
        require_extra(name.partition(":")[0], "perceiver", package="kornia")
        from kornia import augmentation

        changes = [augmentation.RandomHorizontalFlip()] if train.flip else []
        # drawn for each image, by cutting it out of the padded one: no interpolation
        crop = augmentation.RandomCrop(self._sides, padding=train.crop, cropping_mode="slice") if train.crop else None
        self._images = torch.nn.Sequential(*changes, *([] if crop is None else [crop]))

    def __call__(self, batch: Batch) -> Batch:
        """The batch as a training step sees it; labels and weight stay."""
        values, mask = batch.values, batch.mask
        if self._images is not None:
            values, mask = self._changed(values, mask)
        if self.hide:
            kept = torch.rand(values.shape[:2], device=values.device) >= self.hide
            kept[:, 0] |= ~kept.any(dim=1)  # a signal with nothing left says nothing
            if mask is not None:
                kept = torch.where((mask & kept).any(dim=1, keepdim=True), mask & kept, mask)
            mask = kept
        return batch._replace(values=values, mask=mask)

    def _changed(self, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Flipped and shifted images, and their masks with them."""
        real = None if mask is None else mask[:, :, None].to(values.dtype)
        pixels = values if real is None else torch.cat([values, real], dim=2)  # (B, N, C)
        images = pixels.transpose(1, 2).unflatten(2, self._sides)  # (B, C, H, W)
        pixels = self._images(images).flatten(2).transpose(1, 2)
        return (pixels, None) if real is None else (pixels[:, :, :-1], pixels[:, :, -1] > 0.5)
