"""Signals: what the autoencoder was shown, what it made of it, and the original."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from maed.errors import MaedError
from maed.plots.layout import row_major
from maed.plots.maps import along, label_curves
from maed.plots.palette import BLUE, INK, VERMILION
from maed.plots.style import headline, legend, panels, tidy

_HIDDEN = np.array([0.5, 0.5, 0.5, 0.15])
"""The color of what is not shown: it reads on light and dark."""

_ROW = 8
"""Most images that stand in one row, a kind below the other; of more, each kind becomes a block."""


def reconstructions(
    original: np.ndarray,
    visible: np.ndarray,
    reconstruction: np.ndarray,
    coordinates: np.ndarray | None = None,
    shape: Sequence[int] = (),
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw what the autoencoder was shown, what it made of it, and the original.

    Up to 8 images stand in rows below one another; more, such as the 32 that the original drew, in three blocks.

    Args:
        original: `(S, N, C)` in stored units.
        visible: `(S, N)` bool.
        reconstruction: `(S, N, C)`; clipped to the range of the originals.
        coordinates: `(N, D)`, or None: then the storage order is the axis.
        shape: `(height, width)` draws images of 1 or 3 channels (of another number, the first); else curves are drawn.
        ax: Axes to draw on.

    Returns:
        The Axes that were drawn in.

    Raises:
        MaedError: Token ids `(S, N)`, which are text: `maed report` shows them.
    """
    _check_values(original)
    if not _are_images(coordinates, shape):
        columns = min(2 if len(original) <= _ROW else 4, len(original))
        ax, parts = panels(ax, len(original), columns, (4.4, 2.0) if columns < 4 else (2.4, 1.5))
        for part, values, seen, guess in zip(parts, original, visible, reconstruction, strict=True):
            _draw_curve(part, values, seen, guess, coordinates)
        label_curves(parts, columns, _line(coordinates), "value")
        legend(parts[0])
        return ax
    assert coordinates is not None
    truth, made = to_unit(original, original), to_unit(reconstruction, original)
    share = 100 * float(visible.mean())
    kinds = {
        f"{share:.2g} % shown": np.where(visible[:, :, None], truth, _HIDDEN),
        "reconstructed": made,
        "original": truth,
    }
    return _blocks(kinds, row_major(coordinates), shape, ax)


def reconstructions_by_fraction(
    original: np.ndarray,
    fractions: np.ndarray,
    visible: np.ndarray,
    reconstruction: np.ndarray,
    coordinates: np.ndarray | None = None,
    shape: Sequence[int] = (),
    *,
    ax: Axes | None = None,
) -> Axes:
    """Draw each signal as it is shown in part, and what is made of that, from the smallest part to the largest.

    Args:
        original: `(S, N, C)` in stored units; a few signals read best.
        fractions: `(F,)`: the shares that are shown.
        visible: `(F, S, N)` bool.
        reconstruction: `(F, S, N, C)`; clipped to the range of the originals.
        coordinates: `(N, D)`, or None: then the storage order is the axis.
        shape: `(height, width)` draws two rows of images for each signal, the original last; else curves are drawn, a
            column for each signal.
        ax: Axes to draw on.

    Returns:
        The Axes that were drawn in.

    Raises:
        MaedError: Token ids, which are text: `maed report` shows them.
    """
    _check_values(original)
    names = [f"{100 * float(fraction):.2g} % shown" for fraction in fractions]
    if not _are_images(coordinates, shape):
        ax, parts = panels(ax, len(names) * len(original), len(original), (3.4, 1.7))
        for index, part in enumerate(parts):
            at, signal = divmod(index, len(original))
            _draw_curve(part, original[signal], visible[at, signal], reconstruction[at, signal], coordinates)
            headline(part, names[at])
        label_curves(parts, len(original), _line(coordinates), "value")
        legend(parts[0])
        return ax
    assert coordinates is not None
    places, truth = row_major(coordinates), to_unit(original, original)
    ax, parts = panels(ax, len(names) + 1, len(names) + 1, (1.15, 0.3 + 2.3 * len(original) * shape[0] / shape[1]))
    for part, name, seen, made in zip(parts, names, visible, reconstruction, strict=False):
        shown = np.where(seen[:, :, None], truth, _HIDDEN)
        pairs = np.stack([shown, to_unit(made, original)], axis=1).reshape(-1, *truth.shape[1:])
        draw_images(part, pairs, places, shape, columns=1)
        headline(part, name)
    blank = np.zeros_like(truth)
    draw_images(parts[-1], np.stack([blank, truth], 1).reshape(-1, *truth.shape[1:]), places, shape, columns=1)
    headline(parts[-1], "original")
    return ax


def to_unit(signals: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Signals `(S, N, C)` as colors `(S, N, 4)`: clipped to the range of `reference`, gray unless C is 3."""
    channels = slice(0, 3) if signals.shape[2] == 3 else slice(0, 1)
    known = reference[:, :, channels].astype(np.float64)
    low, high = float(np.nanmin(known)), float(np.nanmax(known))
    unit = (np.clip(signals[:, :, channels].astype(np.float64), low, high) - low) / ((high - low) or 1.0)
    colors = np.ones((*signals.shape[:2], 4))
    colors[:, :, :3] = np.nan_to_num(unit)  # broadcasts one channel to gray
    return colors


def draw_images(
    ax: Axes, colors: np.ndarray, places: np.ndarray, shape: Sequence[int], *, columns: int | None = None
) -> None:
    """Draw images `(S, N, 4)` as a mosaic with narrow gaps, position i of each at place `places[i]` of the grid.

    Args:
        ax: Axes to draw on.
        colors: Colors, as from `to_unit`.
        places: `(N,)`, counted row by row.
        shape: `(height, width)`.
        columns: Number of panels in a row; about a square by default.
    """
    count, (height, width) = len(colors), shape
    columns = columns or math.ceil(math.sqrt(count))
    rows, gap = -(-count // columns), max(1, round(width / 16))
    mosaic = np.zeros((rows * (height + gap) - gap, columns * (width + gap) - gap, 4))
    for index, image in enumerate(colors):
        canvas = np.empty_like(image)
        canvas[places] = image
        row, column = divmod(index, columns)
        top, left = row * (height + gap), column * (width + gap)
        mosaic[top : top + height, left : left + width] = canvas.reshape(height, width, 4)
    ax.imshow(mosaic, interpolation="nearest")
    ax.set_axis_off()


def _check_values(original: np.ndarray) -> None:
    if original.ndim != 3:
        raise MaedError(
            f"original must have shape (S, N, C), got {original.shape}; token ids are text, which the report shows"
        )


def _are_images(coordinates: np.ndarray | None, shape: Sequence[int]) -> bool:
    return coordinates is not None and len(shape) == 2 and coordinates.shape[1] == 2


def _blocks(kinds: Mapping[str, np.ndarray], places: np.ndarray, shape: Sequence[int], ax: Axes | None) -> Axes:
    """Images of several kinds: a row for each kind of a few, else a block for each."""
    count = len(next(iter(kinds.values())))
    tall = shape[0] / shape[1]
    if count <= _ROW:
        ax, parts = panels(ax, len(kinds), 1, (1.0 + 1.1 * count, 1.15 * tall + 0.05))
    else:
        across = math.ceil(math.sqrt(count / 2))
        ax, parts = panels(ax, len(kinds), len(kinds), (0.75 * across, 0.75 * tall * -(-count // across) + 0.3))
    for part, (name, pictures) in zip(parts, kinds.items(), strict=True):
        draw_images(part, pictures, places, shape, columns=count if count <= _ROW else across)
        if count <= _ROW:
            part.text(-0.01, 0.5, name, transform=part.transAxes, ha="right", va="center", color=INK, fontsize=11)
        else:
            headline(part, name)
    return ax


def _draw_curve(
    ax: Axes, original: np.ndarray, visible: np.ndarray, made: np.ndarray, coordinates: np.ndarray | None
) -> None:
    """The first channel of a signal `(N, C)`, its reconstruction, and dots where it was seen."""
    x = along(_line(coordinates), len(original))
    order = np.argsort(x)
    known, clipped = original[:, 0], np.clip(made[:, 0], np.nanmin(original[:, 0]), np.nanmax(original[:, 0]))
    ax.plot(x[order], known[order], color=INK, linewidth=1.0, label="original")
    ax.plot(x[order], clipped[order], color=VERMILION, linewidth=1.2, label="reconstructed")
    ax.scatter(x[visible], known[visible], color=BLUE, s=12, zorder=3, linewidths=0, label="shown")
    tidy(ax)


def _line(coordinates: np.ndarray | None) -> np.ndarray | None:
    """Coordinates that can be the axis of a curve."""
    return coordinates if coordinates is not None and coordinates.shape[1] == 1 else None
