"""Recordings become signals: rows that are moments, cut into windows in which moments are channels."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np

from maed.data.source import Reader, Source, Stored
from maed.errors import MaedError
from maed.settings import DataSettings


def windowed(source: Source, settings: DataSettings) -> Source:
    """A recording, a row for each moment, as signals of N positions with `data.window` moments as channels.

    A window begins every `data.stride` rows; none goes over the border between two groups. Of several channels each
    moment has all. A window has the class of its rows; one whose rows differ is left out, with a line. Labels that are
    numbers, and no classes, are those of its last row. Only the rows of the windows that are asked for are read.

    Args:
        source: A source with real channels.
        settings: `window` and `stride` are read.

    Raises:
        MaedError: Tokens, or a split shorter than a window.
    """
    width = settings.window
    if width is None:
        return source
    if source.kind == "tokens":
        raise MaedError("data.window must be left out for tokens; it cuts recordings of numbers")
    parts = {name: _cut(stored, width, settings.stride or width, name) for name, stored in source.parts.items()}
    return replace(source, parts=parts)


def _cut(stored: Stored, width: int, stride: int, name: str) -> Stored:
    """The windows of one split."""
    starts = np.arange(0, stored.size - width + 1, stride)
    if not len(starts):
        raise MaedError(f"data.window must be at most {stored.size}, the rows of the {name} split, got {width}")
    within = np.ones(len(starts), dtype=bool)
    for what, column in (("group", stored.groups), ("label", stored.labels)):
        if column is not None:
            changes = np.concatenate([[0], np.cumsum(column[1:] != column[:-1])])  # how often until a row
            same = changes[starts] == changes[starts + width - 1]
            if not same.all():
                found = f"{(~same).sum()} of {len(starts)} {name} windows"
                warnings.warn(f"{found} contain rows of more than one {what} and are left out", stacklevel=4)
            within &= same
    if not within.any():
        raise MaedError(f"data.window must be shorter, got {width}: no {name} window lies within one group and label")
    starts = starts[within]
    labels, groups = (None if column is None else column[starts] for column in (stored.labels, stored.groups))
    numbers = None if stored.numbers is None else stored.numbers[starts + width - 1]
    return Stored(len(starts), _reader(stored.read, starts, width), labels, groups, numbers)


def _reader(read: Reader, starts: np.ndarray, width: int) -> Reader:
    def windows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        moments = starts[rows][:, None] + np.arange(width)  # (m, T)
        needed, places = np.unique(moments, return_inverse=True)
        values, mask = read(needed)  # (k, N, C)
        places = places.reshape(moments.shape)
        cut = values[places].transpose(0, 2, 1, 3)  # (m, N, T, C)
        real = None if mask is None else np.logical_and.reduce(mask[places], axis=1)
        return np.ascontiguousarray(cut).reshape(*cut.shape[:2], -1), real

    return windows
