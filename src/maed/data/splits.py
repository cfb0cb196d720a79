"""Splits of signals: stratified, by blocks or groups, the original's IMDB split, and the limit."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np

from maed.data.source import PartName, Source
from maed.errors import MaedError
from maed.settings import DataSettings

_MANY = 50  # classes
_RUNS = 100  # of neighboring signals that are held out together, in blocks


class Cut(NamedTuple):
    """Rows of one stored split that make up a split in use.

    Args:
        part: The stored split that they come from.
        rows: `(m,)` increasing int64.
    """

    part: PartName
    rows: np.ndarray


def cut(source: Source, settings: DataSettings) -> dict[PartName, Cut]:
    """Choose the rows of training, validation and test, without reading a signal.

    Stored validation and test splits are used as they are; a missing one is cut from the stored training split, by
    label where there are labels, or in blocks of neighbors if `settings.split` says so. `settings.limit` then draws
    from the training rows, and shrinks the other splits by the same factor, down to one signal a class.

    Raises:
        MaedError: Too few signals; no test split for `original-imdb`; a class without a training signal.
    """
    generator = np.random.default_rng(settings.seed)
    cuts = _original_imdb(source) if settings.split == "original-imdb" else _stratified(source, settings, generator)
    if settings.limit is not None and settings.limit < len(cuts["train"].rows):
        factor = settings.limit / len(cuts["train"].rows)
        for name, (part, rows) in cuts.items():
            count = max(round(factor * len(rows)), 1)
            kept = stratified_rows(source.parts[part].labels_at(rows), len(rows), count, generator)
            cuts[name] = Cut(part, rows[kept])
    _check_classes(source, cuts, settings)
    return cuts


def told(source: Source, cuts: dict[PartName, Cut], settings: DataSettings) -> str:
    """Describe in a sentence how signals were held out."""
    if source.train.groups is not None:
        way = f"whole groups of {settings.group or 'signals'}, none of which is in two splits"
    elif settings.window is not None:
        way = "blocks of time, and no window shares a moment with one of them"
    elif settings.split == "blocks":
        way = "blocks of neighboring signals"
    else:
        way = "drawn at random" + (", each class by its share" if source.train.labels is not None else "")
    if settings.split == "original-imdb":
        way = "cut from the stored test split, as in the original"
    sizes = {name: f"{len(chosen.rows):,}" for name, chosen in cuts.items()}
    words: dict[PartName, str] = {"validation": f"{sizes['validation']} for validation"}
    words["test"] = f"{sizes['test']} for the test"
    cut_here = [name for name in words if cuts[name].part != name or settings.split == "original-imdb"]
    parts = [f"{' and '.join(words[name] for name in cut_here)}: {way}"] if cut_here else []
    if stored := [words[name] for name in words if name not in cut_here]:
        parts.append(f"{' and '.join(stored)}: stored apart in the source")
    return f"{sizes['train']} signals to train on; {'; '.join(parts)}"


def stratified_rows(
    labels: np.ndarray | None, size: int, count: int, generator: np.random.Generator, spare: int = 0
) -> np.ndarray:
    """Draw `count` of `size` rows so that every class keeps its share, and has one row at least where `count` allows.

    Args:
        labels: `(size,)` class indices, or None for a plain draw.
        size: Number of rows to draw from.
        count: Number of rows to draw; fewer come back where `spare` forbids more.
        generator: Makes the choice.
        spare: Rows of each class that are never drawn.

    Returns:
        Increasing row numbers.
    """
    if labels is None:
        return np.sort(generator.permutation(size)[:count])
    order = generator.permutation(size)
    order = order[np.argsort(labels[order], kind="stable")]  # by class, shuffled within it
    _, starts, sizes = np.unique(labels[order], return_index=True, return_counts=True)
    shares = _shares(sizes, count, spare)
    rank = np.arange(size) - np.repeat(starts, sizes)
    return np.sort(order[rank < np.repeat(shares, sizes)])


def nested_order(labels: np.ndarray | None, size: int, generator: np.random.Generator) -> np.ndarray:
    """Rows in an order whose beginnings are subsets: each holds the one before, and classes keep their shares in all.

    One row of each class comes first; then each place goes to the class that is the furthest behind its share (the
    method of Sainte-Laguë), so that no class is ever one row or more off it for long.

    Args:
        labels: `(size,)` class indices, or None for a plain shuffle.
        size: Number of rows.
        generator: Makes the choice.

    Returns:
        `(size,)`, every row once.
    """
    order = generator.permutation(size)
    if labels is None:
        return order
    by_class = order[np.argsort(labels[order], kind="stable")]
    _, starts, sizes = np.unique(labels[by_class], return_index=True, return_counts=True)
    rank = np.arange(size) - np.repeat(starts, sizes)  # within the class
    due = np.where(rank == 0, -1.0, (rank + 0.5) / np.repeat(sizes, sizes))
    mixed = generator.permutation(size)  # which of those that are due at once goes first
    return by_class[mixed][np.argsort(due[mixed], kind="stable")]


def _shares(sizes: np.ndarray, count: int, spare: int) -> np.ndarray:
    """Whole numbers near `count * sizes / sizes.sum()` that add up to `count`, at least 1 where `count` allows."""
    room = np.maximum(sizes - spare, 0)
    exact = count * sizes / sizes.sum()
    least = np.minimum(1 if count >= len(sizes) else 0, room)
    shares = np.clip(np.floor(exact).astype(np.int64), least, room)
    while shares.sum() < min(count, room.sum()):
        shares[np.argmax(np.where(shares < room, exact - shares, -np.inf))] += 1
    while shares.sum() > count:
        shares[np.argmax(np.where(shares > least, shares - exact, -np.inf))] -= 1
    return shares


def _stratified(source: Source, settings: DataSettings, generator: np.random.Generator) -> dict[PartName, Cut]:
    """Stored splits as they are, missing ones cut from the training split: the test first, then the validation."""
    left = np.arange(source.train.size)
    cuts: dict[PartName, Cut] = {}
    wanted: tuple[tuple[PartName, float], ...] = (("test", settings.test), ("validation", settings.validation))
    missing = [name for name, _ in wanted if name not in source.parts]
    if source.train.size < 2 + len(missing):
        needed = f"{2 + len(missing)} signals, for training{''.join(f', {name}' for name in missing)}"
        raise MaedError(f"inputs must have at least {needed}; got {source.train.size}")
    for name, share in wanted:
        if name in missing:
            count = min(max(round(share * len(left)), 1), len(left) - 2)
            if source.train.groups is not None:
                held_out = _in_groups(source.train.groups[left], count, generator, name)
            elif settings.split == "blocks" or settings.window is not None:
                held_out = _in_runs(len(left), count, generator, longer=10 * _sharing(settings))
            else:
                held_out = stratified_rows(source.train.labels_at(left), len(left), count, generator, spare=1)
            if not len(held_out):
                raise MaedError(
                    f"labels must have at least 2 signals of some class; otherwise none can be kept for {name}"
                )
            cuts[name] = Cut("train", left[held_out])
            left = np.delete(left, held_out)
            if settings.window is not None and source.train.groups is None:
                left = _apart(left, cuts[name].rows, settings)
        else:
            cuts[name] = Cut(name, np.arange(source.parts[name].size))
    return {"train": Cut("train", left), "validation": cuts["validation"], "test": cuts["test"]}


def _in_runs(size: int, count: int, generator: np.random.Generator, longer: int) -> np.ndarray:
    """Draw `count` of `size` rows in runs of neighbors, which in a recording are much the same signal.

    Runs are `longer` than so many rows, where there are enough for two.
    """
    runs = np.array_split(np.arange(size), max(2, size // max(longer + 1, -(-size // _RUNS))))
    drawn = np.concatenate([runs[run] for run in generator.permutation(len(runs))])
    return np.sort(drawn[:count])


def _in_groups(groups: np.ndarray, count: int, generator: np.random.Generator, name: str) -> np.ndarray:
    """Rows of whole groups, drawn until they are `count` or more; one group at least stays.

    Raises:
        MaedError: There are too few groups.
    """
    found, of = np.unique(groups.astype(str), return_inverse=True)
    if len(found) < 2:
        raise MaedError(f"data.group must leave a group for each split, {name} too; {len(found)} is left")
    order, sizes = generator.permutation(len(found))[:-1], np.bincount(of)
    taken = order[: 1 + int(np.searchsorted(np.cumsum(sizes[order]), count))]
    return np.flatnonzero(np.isin(of, taken))


def _sharing(settings: DataSettings) -> int:
    """Number of windows on either side that share a row with a window."""
    width = settings.window or 1
    return -(-width // (settings.stride or width)) - 1


def _apart(left: np.ndarray, held_out: np.ndarray, settings: DataSettings) -> np.ndarray:
    """The windows that share no row with those held out."""
    shared = _sharing(settings)
    near = np.concatenate([held_out + shift for shift in range(-shared, shared + 1)])
    return np.setdiff1d(left, near)


def _original_imdb(source: Source) -> dict[PartName, Cut]:
    """The original's split: the middle half of the stored test split validates, its first and last quarter test."""
    if "test" not in source.parts:
        raise MaedError("data.split must not be original-imdb for a source without a stored test split")
    size = source.parts["test"].size
    if size < 4:
        raise MaedError(f"data.split: original-imdb needs at least 4 signals in the stored test split, got {size}")
    quarter, rows = size // 4, np.arange(size)
    outer = np.concatenate([rows[:quarter], rows[size - quarter :]])
    return {
        "train": Cut("train", np.arange(source.train.size)),
        "validation": Cut("test", rows[quarter : size - quarter]),
        "test": Cut("test", outer),
    }


def _check_classes(source: Source, cuts: dict[PartName, Cut], settings: DataSettings) -> None:
    """A class must not go missing unnoticed: refused in the training split, warned about in the others."""
    if source.train.labels is None:
        return
    labels = {
        name: np.unique(found)
        for name, (part, rows) in cuts.items()
        if (found := source.parts[part].labels_at(rows)) is not None
    }
    known = np.unique(np.concatenate([*labels.values(), source.train.labels]))
    if len(known) > _MANY and source.train.numbers is not None:  # they may as well be measurements
        return
    for name, present in labels.items():
        absent = [source.classes[index] for index in np.setdiff1d(known, present)]
        if absent and name == "train":
            remedy = f"; data.limit is {settings.limit} and must be {len(known)} or more" if settings.limit else ""
            if source.train.groups is not None:
                remedy = f"; whole groups of {settings.group} are held out, and another data.seed may leave it some"
            raise MaedError(f"labels: no training signal of class {', '.join(absent[:5])}{remedy}")
        if absent:
            warnings.warn(f"the {name} split has no signal of class {', '.join(absent[:5])}", stacklevel=2)
