"""Turn a stored source into signals: choose rows, read them, check, normalize, permute."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import DTypeLike

from maed.data.doubts import doubt, refuse_stand_ins
from maed.data.geometry import Geometry, grid, permutation
from maed.data.reading import progress
from maed.data.signals import LIMIT, SignalContent, SignalData, Signals
from maed.data.source import PartName, Source
from maed.data.splits import Cut, cut, told
from maed.data.storage import Storage
from maed.errors import MaedError
from maed.settings import DataSettings

_BLOCK = 1 << 20  # values in a block: what is made float64 at a time
_LARGEST_VOCABULARY = 1 << 20
_TAIL = 0.01  # share of the values on either side that may be outliers
_SAMPLED = 1 << 16  # signals that a robust deviation is taken from, at most
_MANY = 1_000  # signals of which one is read first, to tell what all of them take
_PIECE = 1 << 28  # bytes of signals that are read at a time where they do not fit into memory
_DROPPED = 9  # the stream of random numbers that decides what is dropped, beside that of splits and sources


@dataclass
class _Part:
    """One split while it is put together.

    Args:
        values: `(m, N, C)` numbers or `(m, N)` ids.
        mask: `(m, N)` bool, or None.
        labels: `(m,)` int64, or None.
        rows: `(m,)` where the signals are stored, for messages.
        numbers: `(m, K)` float64, or None.
        storage: Where new arrays of it are kept.
    """

    values: np.ndarray
    mask: np.ndarray | None
    labels: np.ndarray | None
    rows: np.ndarray
    numbers: np.ndarray | None = None
    storage: Storage = field(default_factory=Storage)

    def blocks(self) -> Iterator[slice]:
        """Slices of signals of at most `_BLOCK` values together."""
        step = max(1, _BLOCK // max(1, self.values[0].size))
        return (slice(start, start + step) for start in range(0, len(self.values), step))

    def convert(self, dtype: DTypeLike) -> None:
        """Keep the values in another type."""
        if self.values.dtype == dtype:
            return
        values = self.storage.empty(self.values.shape, dtype)
        for block in self.blocks():
            values[block] = self.values[block]
        self.values = values

    def keep_signals(self, rows: np.ndarray) -> None:
        """Keep the signals `rows`, increasing indices; they move up within the arrays that there are."""
        count, step = len(rows), max(1, _BLOCK // max(1, self.values[0].size))
        for start in range(0, count, step):
            block = slice(start, min(start + step, count))
            self.values[block] = self.values[rows[block]]
            if self.mask is not None:
                self.mask[block] = self.mask[rows[block]]
        self.values, self.rows = self.values[:count], self.rows[rows]
        self.mask = None if self.mask is None else self.mask[:count]
        self.labels = None if self.labels is None else self.labels[rows]
        self.numbers = None if self.numbers is None else self.numbers[rows]

    def keep_positions(self, chosen: np.ndarray) -> None:
        """Keep the positions `chosen`, `(N,)` bool, or indices `(P,)`, in their order."""
        count = len(np.arange(self.values.shape[1])[chosen])
        values = self.storage.empty((len(self.values), count, *self.values.shape[2:]), self.values.dtype)
        mask = None if self.mask is None else self.storage.empty((len(self.values), count), bool)
        for block in self.blocks():
            values[block] = self.values[block][:, chosen]
            if mask is not None and self.mask is not None:
                mask[block] = self.mask[block][:, chosen]
        self.values, self.mask = values, mask


def assemble(name: str, source: Source, settings: DataSettings) -> SignalData:
    """Read the rows that the settings choose, and make `SignalData` of them.

    Args:
        name: The name that the user gave the source.
        source: Stored splits.
        settings: `split`, `validation`, `test`, `limit`, `seed`, `missing`, `drop_rate`, `normalization` and `permute`
            are read.

    Raises:
        MaedError: Splits that do not fit together, values that cannot be used, too few signals or positions, or more
            than the disk has room for.
    """
    cuts = cut(source, settings)
    storage = _storage(source, cuts)
    parts = {part: _read(source, chosen, settings, storage) for part, chosen in cuts.items()}
    pixels = _flatten_pixels(parts)
    _check_shapes(parts)
    mean = scale = kept = None
    vocabulary = 0
    if settings.missing_values is None and pixels is None and not source.vocabulary:
        refuse_stand_ins(parts["train"].values)
    if source.kind == "tokens":
        _blank_missing(parts)  # what stands for missing values may be no id
        vocabulary = _check_tokens(parts, source.vocabulary)
        content: SignalContent = "text" if source.vocabulary else "tokens"
        _drop(parts, settings)
        _blank_missing(parts)
    else:
        content = "numbers" if pixels is None else "images"
        _check_numbers(parts, settings)
        kept = _without_empty(parts, source.columns)
        if pixels is None:
            doubt(parts["train"].values, () if kept is not None else source.columns)
        _drop(parts, settings)
        mode = source.normalization if settings.normalization == "auto" else settings.normalization
        mean, scale = _normalization(parts["train"], mode)
        _fill_missing(parts, mean)
    geometry, columns = pixels or source.geometry, source.columns
    if kept is not None:
        geometry = None if geometry is None else geometry.at(np.flatnonzero(kept))
        if len(columns) == len(kept):
            columns = tuple(name for name, stays in zip(columns, kept, strict=True) if stays)
    data = SignalData(
        source=name,
        kind=source.kind,
        train=_signals(parts["train"], mean, scale),
        validation=_signals(parts["validation"], mean, scale),
        test=_signals(parts["test"], mean, scale),
        vocabulary=vocabulary,
        classes=source.classes,
        geometry=geometry,
        content=content,
        columns=columns,
        kept=kept,
        held_out=told(source, cuts, settings),
        label_names=source.label_names if source.train.labels is not None or source.train.numbers is not None else (),
    )
    return data if settings.permute is None else permute(data, settings.permute)


def assemble_like(source: Source, settings: DataSettings, data: SignalData) -> Signals:
    """All signals of another source as one split, normalized as `data` are.

    Raises:
        MaedError: Signals of another kind or shape, or values that cannot be used.
    """
    rows = np.arange(source.train.size)
    cuts: dict[PartName, Cut] = {"train": Cut("train", rows)}
    part = _read(source, cuts["train"], settings, _storage(source, cuts))
    parts: dict[PartName, _Part] = {"train": part}
    _flatten_pixels(parts)
    if data.kept is not None and part.values.shape[1:2] == data.kept.shape:
        part.keep_positions(data.kept)
    wanted = data.train.values.shape[1:]
    if source.kind != data.kind or part.values.shape[1:] != wanted:
        found = f"{source.kind} signals of shape {part.values.shape[1:]}"
        raise MaedError(f"X must be {data.kind} signals of shape {wanted}, as in fit, got {found}")
    if data.permutation is not None:
        part.keep_positions(data.permutation)
    if data.kind == "tokens":
        _blank_missing(parts)
        low, high = part.values.min(), part.values.max()
        if low < 0 or high >= data.vocabulary:
            raise MaedError(f"X must have token ids from 0 to {data.vocabulary - 1}, as in fit, got {low} to {high}")
    else:
        _check_numbers(parts, settings)
        assert data.train.mean is not None
        _fill_missing(parts, data.train.mean)
    return _signals(part, data.train.mean, data.train.scale)


def real_positions(values: np.ndarray, rows: np.ndarray, settings: DataSettings) -> np.ndarray | None:
    """Mark the real positions of numbers `(m, N, C)`, `(m, N)` bool; None if all are.

    Args:
        values: Signals as they were read.
        rows: `(m,)` where they are stored, for messages.
        settings: `missing` is read.

    Raises:
        MaedError: Infinite values, NaN unless `missing` is `mask`, or a signal without a real position.
    """
    part = _Part(values, None, None, rows)
    _check_numbers({"train": part}, settings)
    return part.mask


def permute(data: SignalData, seed: int) -> SignalData:
    """Store the positions in another order: position i then holds what was stored at `permutation[i]`.

    Values and masks are rearranged in place, a block at a time, so that nothing is in memory twice.
    """
    order = permutation(data.positions, seed)
    return replace(
        data,
        train=_permuted(data.train, order),
        validation=_permuted(data.validation, order),
        test=_permuted(data.test, order),
        geometry=None if data.geometry is None else data.geometry.permuted(order),
        permutation=order,
    )


def _permuted(signals: Signals, order: np.ndarray) -> Signals:
    part = _Part(signals.values, signals.mask, None, np.empty(0))
    for block in part.blocks():
        signals.values[block] = signals.values[block][:, order]
        if signals.mask is not None:
            signals.mask[block] = signals.mask[block][:, order]
    if signals.mean is None or signals.scale is None or len(signals.mean) == 1:
        return signals
    return replace(signals, mean=signals.mean[order], scale=signals.scale[order])


def _storage(source: Source, cuts: Mapping[PartName, Cut]) -> Storage:
    """Where the signals have room, by the size of the first of them."""
    count = sum(len(chosen.rows) for chosen in cuts.values())
    if count < _MANY:
        return Storage()
    one, _ = source.train.read(cuts["train"].rows[:1])
    each = one.size * (2 if source.kind == "tokens" else one.itemsize)  # token ids are kept as int16
    return Storage.for_bytes(
        count * each,
        f"inputs: {count:,} signals of {each:,} bytes",
        "take fewer with data.limit (of a field, data.samples), or smaller images with data.image_size",
    )


def _read(source: Source, chosen: Cut, settings: DataSettings, storage: Storage) -> _Part:
    """One split, in one piece where there is memory for it."""
    stored, rows = source.parts[chosen.part], chosen.rows
    numbers = None if stored.numbers is None else stored.numbers[rows]
    labels = stored.labels_at(rows)
    if not storage.on_disk or not len(rows):
        return _Part(*_as_given(source, settings, *stored.read(rows)), labels, rows, numbers, storage)
    first, _ = stored.read(rows[:1])
    step, part = max(1, _PIECE // first.nbytes), None
    with progress(f"reading {len(rows):,} signals", len(rows)) as told:
        for start in range(0, len(rows), step):
            values, mask = _as_given(source, settings, *stored.read(rows[start : start + step]))
            block = slice(start, start + len(values))
            if part is None:
                part = _Part(storage.empty((len(rows), *values.shape[1:]), values.dtype), None, labels, rows, numbers)
                part.storage = storage
            part.values = _fitting(part, values, start)
            part.values[block] = values
            if mask is not None and part.mask is None:
                part.mask = storage.ones((len(rows), values.shape[1]))
            if mask is not None and part.mask is not None:
                part.mask[block] = mask
            told(block.stop)
    assert part is not None
    return part


def _fitting(part: _Part, values: np.ndarray, done: int) -> np.ndarray:
    """The values of a part that is being read, able to take in a further piece.

    The first images may all be grayscale, and have one channel, where a later one has colors; and the first whole
    numbers have none that stands for a missing value.

    Raises:
        MaedError: Signals of several shapes.
    """
    if values.dtype.kind == "f" and part.values.dtype.kind != "f":
        part.convert(values.dtype)
    there, found = part.values.shape[1:], values.shape[1:]
    if there == found or (there[:-1] == found[:-1] and found[-1] == 1):
        return part.values
    if there[:-1] != found[:-1] or there[-1] != 1:
        raise MaedError(f"inputs must have signals of one shape, got {there} and {found}")
    wider = part.storage.empty((len(part.values), *found), part.values.dtype)
    for block in part.blocks():
        wider[block][: max(0, done - block.start)] = part.values[block][: max(0, done - block.start)]
    return wider


def _as_given(
    source: Source, settings: DataSettings, values: np.ndarray, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Values and mask as they were read, with the numbers that stand for missing values out of the way."""
    given = np.asarray(settings.missing_values or [])
    given = given.astype(values.dtype) if values.dtype.kind == "f" else given  # as float32 has them
    if not len(given):
        return values, mask
    missing = np.isin(values, given)
    if not missing.any():
        return values, mask
    if source.kind == "tokens":
        return values, ~missing if mask is None else mask & ~missing
    values = values.astype(np.float32, copy=False)
    values[missing] = np.nan
    return values, mask


def _flatten_pixels(parts: dict[PartName, _Part]) -> Geometry | None:
    """Pixels `(m, height, width, C)` to `(m, height * width, C)`, and their grid; None if there are no pixels."""
    if parts["train"].values.ndim != 4:
        return None
    sizes = {part.values.shape[1:3] for part in parts.values()}
    if len(sizes) > 1:
        (height, width), (other_height, other_width) = sorted(sizes)[:2]
        found = f"{width} x {height} and {other_width} x {other_height}"
        raise MaedError(f"images must have one size in all splits, got {found}; --data.image_size resizes them")
    channels = max(part.values.shape[3] for part in parts.values())
    for part in parts.values():
        part.values = part.values.reshape(len(part.values), -1, part.values.shape[3])
        if part.values.shape[2] != channels:  # a split of grayscale images alone, where others have colors
            colors = part.storage.empty((*part.values.shape[:2], channels), part.values.dtype)
            for block in part.blocks():
                colors[block] = part.values[block]
            part.values = colors
    return grid(*sizes.pop())


def _check_shapes(parts: dict[PartName, _Part]) -> None:
    shapes = {name: part.values.shape[1:] for name, part in parts.items()}
    for name, shape in shapes.items():
        if shape != shapes["train"]:
            raise MaedError(
                f"inputs must have signals of one shape, got {shapes['train']} for training and {shape} for {name}"
            )
    if shapes["train"][0] < 2:
        raise MaedError(f"inputs must have at least 2 positions, got {shapes['train'][0]}")
    if len(parts["train"].values) < 2:
        raise MaedError(f"inputs must have at least 2 training signals, got {len(parts['train'].values)}")


def _check_tokens(parts: dict[PartName, _Part], vocabulary: int) -> int:
    """The number of token ids; ids are kept in the smallest of int16, int32 and int64 that holds them."""
    if vocabulary:
        return vocabulary
    hint = "--data.type real reads whole numbers as such"
    for part in parts.values():
        lowest = part.values.min()
        if lowest < 0:
            row, position = np.argwhere(part.values == lowest)[0]
            where = f"signal {part.rows[row]}, position {position}"
            raise MaedError(f"inputs must have token ids of at least 0, got {lowest} in {where} ({hint})")
    largest = max(int(part.values.max()) for part in parts.values())
    if largest >= _LARGEST_VOCABULARY:
        raise MaedError(f"inputs must have token ids below {_LARGEST_VOCABULARY}, got {largest} ({hint})")
    for part in parts.values():
        part.convert(np.int16 if largest < 1 << 15 else np.int32)
    return largest + 1


def _without_empty(parts: dict[PartName, _Part], columns: tuple[str, ...]) -> np.ndarray | None:
    """Leave out positions of which no signal has a value; returns which stay, `(N,)` bool, or None where all do."""
    if parts["train"].mask is None:
        return None
    kept = np.any([part.mask.any(axis=0) for part in parts.values() if part.mask is not None], axis=0)
    if kept.all():
        return None
    gone = np.flatnonzero(~kept)
    names = columns if len(columns) == len(kept) else [str(i) for i in range(len(kept))]
    told = ", ".join(names[i] for i in gone[:8]) + (", ..." if len(gone) > 8 else "")
    if kept.sum() < 2:
        raise MaedError(f"inputs must have at least 2 positions with values; {len(gone)} of {len(kept)} have none")
    warnings.warn(f"{len(gone)} of {len(kept)} positions have no values and are left out: {told}", stacklevel=3)
    for part in parts.values():
        part.keep_positions(kept)
    return kept


def _check_numbers(parts: dict[PartName, _Part], settings: DataSettings, columns: tuple[str, ...] = ()) -> None:
    """Refuse infinity always, and NaN unless `data.missing` is `mask`: then it makes the mask.

    `columns` names positions, where each is a column of a table.
    """
    if parts["train"].values.dtype.kind != "f":
        return
    for kind, test in (("infinite (or beyond float32)", np.isinf), ("NaN", np.isnan)):
        count, first = 0, ""
        for name, part in parts.items():
            for block in part.blocks():
                bad = test(part.values[block])
                if bad.any() and not first:
                    row, position, channel = np.argwhere(bad)[0]
                    stored = part.rows[block][row]
                    split = f" (a {name} signal)" if len(parts) > 1 else ""
                    named = f" ({columns[position]!r})" if len(columns) == part.values.shape[1] else ""
                    first = f"signal {stored}, position {position}{named}, channel {channel}{split}"
                count += int(bad.sum())
        masked = settings.missing == "mask" or bool(settings.missing_values)
        if count and (kind != "NaN" or not masked):
            remedy = "; --data.missing mask treats NaN as missing" if kind == "NaN" else ""
            raise MaedError(f"inputs: {count} values are {kind}, the first in {first}{remedy}")
        if count:
            _mask_missing(parts)


def _mask_missing(parts: dict[PartName, _Part]) -> None:
    """A mask that is False where any channel is NaN."""
    for name, part in parts.items():
        part.mask = part.storage.ones(part.values.shape[:2])
        for block in part.blocks():
            part.mask[block] = ~np.isnan(part.values[block]).any(axis=2)
        empty = ~part.mask.any(axis=1)
        if not empty.any():
            continue
        first = f"the first is signal {part.rows[np.argmax(empty)]}"
        if len(parts) == 1:  # each of them is to be answered
            raise MaedError(f"inputs must have a value in every signal; {empty.sum()} have none, {first}")
        if (~empty).sum() < 2:
            raise MaedError(
                f"inputs must have values; {empty.sum()} of {len(part.values)} {name} signals have none, {first}"
            )
        warnings.warn(
            f"{name} signals without any value are left out: {empty.sum()} of {len(part.values)}; {first}", stacklevel=2
        )
        there = np.flatnonzero(~empty)
        part.keep_signals(there)


def _drop(parts: dict[PartName, _Part], settings: DataSettings) -> None:
    """Make the share `data.drop_rate` of the positions missing, at random, each signal's last real one excepted.

    Before anything is measured, so that no dropped value enters the normalization, and before the permutation, so that
    the same values are dropped in any storage order.
    """
    if not settings.drop_rate:
        return
    for stream, part in enumerate(parts.values()):
        generator = np.random.default_rng([settings.seed, _DROPPED, stream])
        if part.mask is None:
            part.mask = part.storage.ones(part.values.shape[:2])
        for block in part.blocks():
            real = part.mask[block]
            chance = np.where(real, generator.random(real.shape), -1)
            kept = chance >= settings.drop_rate
            bare = ~kept.any(axis=1)
            kept[bare, chance[bare].argmax(axis=1)] = True
            part.mask[block] = kept & real


def _blank_missing(parts: dict[PartName, _Part]) -> None:
    """Missing tokens become id 0, which is what text is padded with."""
    for part in parts.values():
        if part.mask is not None:
            for block in part.blocks():
                part.values[block] *= part.mask[block]


def _fill_missing(parts: dict[PartName, _Part], mean: np.ndarray) -> None:
    """Missing values become the mean, which a batch sees as 0; whole numbers become float32, which can hold it."""
    for part in parts.values():
        if part.mask is not None:
            part.convert(np.float32)
            for block in part.blocks():
                np.copyto(part.values[block], mean, where=~part.mask[block][..., None])


def _normalization(part: _Part, mode: str) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of the real values of the training split, `(1, C)` or `(N, C)` float32.

    Two passes in float64, a block at a time. Channels pool their positions: the squares within positions and the
    squares between their means add up. Of single positions with values beyond `LIMIT` deviations, those are taken
    without the outermost values, where these make up most of the variance.
    """
    positions, channels = part.values.shape[1:]
    if mode == "none":
        return np.zeros((1, channels), np.float32), np.ones((1, channels), np.float32)
    counts, mean, squares, furthest = _moments(part)
    constant = _is_constant(counts, mean, squares).all(axis=1)
    if constant.any():
        warnings.warn(
            f"{constant.sum()} of {positions} positions are constant in the training signals; they are kept",
            stacklevel=2,
        )
    if mode == "channel":
        total = counts.sum()
        pooled = (counts * mean).sum(axis=0, keepdims=True) / total
        squares = (squares + counts * (mean - pooled) ** 2).sum(axis=0, keepdims=True)
        counts, mean = np.full((1, 1), total), pooled
    scale = np.sqrt(squares / np.maximum(counts, 1))
    scale[_is_constant(counts, mean, squares)] = 1
    if mode == "position" and (far := (furthest > LIMIT * scale).any(axis=1)).any():
        mean[far], scale[far] = _without_tails(part, far, mean[far], scale[far])
        warnings.warn(
            f"{far.sum()} of {positions} positions have values more than {LIMIT:g} standard deviations from "
            f"their mean, which are clipped to {LIMIT:g}",
            stacklevel=2,
        )
    return mean.astype(np.float32), scale.astype(np.float32)


def _without_tails(part: _Part, far: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of some positions `(F, C)`, winsorized where outliers are most of the variance.

    A position of which no more than the tails ever move keeps its own: it is one that hardly ever moves.
    """
    rows = np.arange(len(part.values))
    if len(rows) > _SAMPLED:
        rows = np.random.default_rng(0).choice(rows, _SAMPLED, replace=False)
    for found, position in enumerate(np.flatnonzero(far)):
        x = part.values[rows, position].astype(np.float64)  # (m, C)
        x = x if part.mask is None else x[part.mask[rows, position]]
        if not len(x):
            continue
        low, high = np.quantile(x, _TAIL, axis=0, method="higher"), np.quantile(x, 1 - _TAIL, axis=0, method="lower")
        x = x.clip(low, np.maximum(low, high))
        deviation = x.std(axis=0)
        mostly = (deviation > 0) & (scale[found] > 2 * deviation)
        mean[found], scale[found] = np.where(mostly, [x.mean(axis=0), deviation], [mean[found], scale[found]])
    return mean, scale


def _moments(part: _Part) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Moments of the real values: count `(N, 1)`; mean, sum of squared deviations, largest deviation `(N, C)`."""
    shape = part.values.shape[1:]
    mask = part.mask
    counts = (
        np.full((shape[0], 1), float(len(part.values))) if mask is None else mask.sum(axis=0)[:, None].astype(float)
    )
    total, squares, furthest = np.zeros(shape), np.zeros(shape), np.zeros(shape)
    for block in part.blocks():
        total += _real(part, block, part.values[block]).sum(axis=0, dtype=np.float64)
    mean = total / np.maximum(counts, 1)
    for block in part.blocks():
        deviations = _real(part, block, np.abs(part.values[block] - mean))
        squares += (deviations**2).sum(axis=0)
        np.maximum(furthest, deviations.max(axis=0), out=furthest)
    return counts, mean, squares, furthest


def _real(part: _Part, block: slice, values: np.ndarray) -> np.ndarray:
    """`values` with 0 at positions that are not real."""
    return values if part.mask is None else np.where(part.mask[block][..., None], values, 0)


def _is_constant(counts: np.ndarray, mean: np.ndarray, squares: np.ndarray) -> np.ndarray:
    """Mark channels whose deviation is 0 up to rounding of the mean."""
    return np.sqrt(squares / np.maximum(counts, 1)) <= 1e-9 * np.abs(mean)


def _signals(part: _Part, mean: np.ndarray | None, scale: np.ndarray | None) -> Signals:
    return Signals(part.values, part.labels, part.mask, mean, scale, numbers=part.numbers)
