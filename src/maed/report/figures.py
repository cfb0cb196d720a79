"""The figures of the report, each usable alone: they take arrays and return a matplotlib Figure.

They use the object-oriented interface (no pyplot, no global state), a transparent background with one grey for text
and axes that reads on light and dark alike, and colours that colour-blind readers can tell apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from maed.files import replacing
from maed.report.layout import align, chart, is_sphere, is_torus, plane, row_major, seen_from, to_grid

INK = "#7a7a7a"
"""Text and axes: readable on white and on near-black."""

BLUE, ORANGE, GREEN, VERMILION, SKY, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7"

COLOURS = {
    "maed": VERMILION,
    "trainable": BLUE,
    "fourier": GREEN,
    "correlation": ORANGE,
    "dependence": ORANGE,
    "sinusoidal": PURPLE,
    "random": SKY,
    "none": INK,
}
"""A colour for each position encoding (Okabe and Ito's palette)."""

WINDOW = 256
"""Positions of a line that are drawn around the one in question: the whole of a long text would show a needle."""


def similarity_maps(
    similarity: np.ndarray, coordinates: np.ndarray | None, shape: Sequence[int], positions: Sequence[int]
) -> Figure:
    """Draw what seeing one position tells about all others: a panel for each of `positions`.

    Args:
        similarity: `(N, N)`; a row is drawn for each position, its own entry left out.
        coordinates: `(N, D)` true coordinates, or None: then the storage order is the axis.
        shape: `(height, width)` of a grid or torus draws images, anything else curves along a line or points.
        positions: which ones, as indices in storage order.
    """
    columns = min(3, len(positions)) if not _is_image(coordinates, shape) else min(6, len(positions))
    figure, axes = _panels(len(positions), columns, _panel_size(coordinates, shape))
    for ax, position in zip(axes, positions, strict=True):
        values = similarity[position].astype(np.float64)
        values[position] = np.nan
        limits = _robust_limits(values)
        draw_values(ax, values, coordinates, shape, cmap="viridis", limits=limits, around=position)
        _mark(ax, position, coordinates, shape)
        ax.set_title(_place_name(position, coordinates, shape), fontsize=9, color=INK)
    _share_labels(axes, columns, coordinates, shape, "similarity")
    return figure


def embedding_channels(
    vectors: np.ndarray, coordinates: np.ndarray | None, shape: Sequence[int], channels: int
) -> Figure:
    """Draw the first `channels` of an embedding `(N, d)` over the true geometry, each on the same scale."""
    count = min(channels, vectors.shape[1])
    columns = min(4 if _is_image(coordinates, shape) else 3, count)
    figure, axes = _panels(count, columns, _panel_size(coordinates, shape))
    for channel, ax in enumerate(axes):
        values = vectors[:, channel]
        most = float(np.abs(values).max()) or 1.0
        draw_values(ax, values, coordinates, shape, cmap="cividis", limits=(-most, most))
        ax.set_title(f"channel {channel + 1}", fontsize=9, color=INK)
    _share_labels(axes, columns, coordinates, shape, "value")
    return figure


def draw_values(
    ax: Axes,
    values: np.ndarray,
    coordinates: np.ndarray | None,
    shape: Sequence[int],
    *,
    cmap: str,
    limits: tuple[float, float],
    around: int | None = None,
) -> None:
    """Draw one value for each position `(N,)`: an image on a grid, a curve on a line, coloured points elsewhere.

    A torus is cut open to an image, a sphere is spread out as a map (`chart`).
    """
    if coordinates is not None and _is_image(coordinates, shape):
        ax.imshow(_image(values, coordinates, shape), cmap=cmap, vmin=limits[0], vmax=limits[1])
        ax.set_axis_off()
    elif coordinates is not None and coordinates.shape[1] > 1:
        x, y = chart(coordinates).T
        ax.scatter(x, y, c=values, cmap=cmap, vmin=limits[0], vmax=limits[1], s=14, linewidths=0)
        ax.set_aspect("equal")
        if is_sphere(coordinates):
            ax.set_axis_off()  # the numbers of a map are not coordinates
        else:
            _style(ax)
    else:
        x = _along(coordinates, len(values))
        order = np.argsort(x)
        ax.plot(x[order], values[order], color=BLUE, linewidth=1.2)
        if around is not None and len(values) > WINDOW:
            ax.set_xlim(*_window(x, around))
        _style(ax)


def recovered_layout_figure(layout: np.ndarray, coordinates: np.ndarray | None, shape: Sequence[int]) -> Figure:
    """Draw the layout `(N, 2)` that the embedding makes, beside the true one where `coordinates` `(N, D)` are known.

    Colours say where a position truly lies (without coordinates: where it is stored). On a grid, true neighbours are
    joined: an even mesh means that the geometry was found.
    """
    if coordinates is None:
        figure, axes = _panels(1, 1, (4.6, 4.2))
        _scatter(axes[0], layout, position_colours(np.arange(len(layout))[:, None]), "laid out by the embedding")
        return figure
    colours, aligned, truth = position_colours(coordinates), align(layout, coordinates), seen_from(layout, coordinates)
    is_line, is_grid = coordinates.shape[1] == 1, len(shape) == 2 and coordinates.shape[1] == 2
    figure, axes = _panels(2, 2, (4.0, 3.8))
    edges = grid_edges(coordinates) if is_grid else np.empty((0, 2), dtype=np.int64)
    _scatter(axes[0], aligned, colours, "laid out by the embedding alone", edges, downwards=is_grid)
    if is_line:
        axes[1].scatter(coordinates[:, 0], aligned[:, 0], c=colours, s=6, linewidths=0)
        axes[1].set_xlabel("true place on the line")
        axes[1].set_ylabel("place in the layout")
        axes[1].set_title("against the truth", fontsize=10, color=INK)
        _style(axes[1])
    else:
        title = "the truth" if coordinates.shape[1] == 2 else "the truth, seen from the same side"
        _scatter(axes[1], truth, colours, title, edges, downwards=is_grid)
    return figure


def unshuffled(
    images: np.ndarray, layout: np.ndarray, coordinates: np.ndarray, shape: Sequence[int], method: str = "maed"
) -> Figure:
    """Draw images as stored, as laid out by the embedding, and as they truly are: three rows.

    Args:
        images: `(S, N, C)` in storage order.
        layout: `(N, 2)`, from the embedding alone; positions take the nearest free places of the grid (`to_grid`).
        coordinates: `(N, 2)`: the set of places, the orientation, and the last row.
        shape: `(height, width)`.
        method: whose embedding it is.
    """
    stored = np.arange(images.shape[1])
    rows = {
        "as stored": stored,
        f"laid out\nby {method}": to_grid(layout, coordinates),
        "truth": row_major(coordinates),
    }
    pictures = to_unit(images, images)
    figure, grid = _image_rows(len(images), list(rows))
    for axes, places in zip(grid, rows.values(), strict=True):
        for ax, picture in zip(axes, pictures, strict=True):
            ax.imshow(_paint(picture, places, shape), interpolation="nearest")
    return figure


def reconstructions(
    original: np.ndarray,
    visible: np.ndarray,
    reconstruction: np.ndarray,
    coordinates: np.ndarray | None,
    shape: Sequence[int],
) -> Figure:
    """Draw what the autoencoder saw, what it made of it, and the original, in the true layout.

    Args:
        original: `(S, N, C)` in stored units.
        visible: `(S, N)` bool.
        reconstruction: `(S, N, C)`; clipped to the range of the originals.
        coordinates: `(N, D)`, or None: then the storage order is the axis.
        shape: `(height, width)` draws images of 1 or 3 channels (of another number, the first); else curves are drawn.
    """
    if coordinates is None or not _is_image(coordinates, shape):
        return _reconstructed_curves(original, visible, reconstruction, coordinates)
    places = row_major(coordinates)
    truth, made = to_unit(original, original), to_unit(reconstruction, original)
    shown = np.where(visible[:, :, None], truth, np.array([0.5, 0.5, 0.5, 0.15]))
    rows = {"shown": shown, "reconstructed": made, "original": truth}
    figure, grid = _image_rows(len(original), list(rows))
    for axes, pictures in zip(grid, rows.values(), strict=True):
        for ax, picture in zip(axes, pictures, strict=True):
            ax.imshow(_paint(picture, places, shape), interpolation="nearest")
    return figure


def training_curves(history: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw training and validation loss over steps; entries of `history` without a value are skipped."""
    figure, (ax,) = _panels(1, 1, (6.4, 3.0))
    for key, label, colour, width in (
        ("train_loss", "training", SKY, 1.0),
        ("validation_loss", "validation", VERMILION, 2.0),
    ):
        steps, values = _curve(history, key)
        if steps:
            ax.plot(steps, values, color=colour, linewidth=width, label=label, marker="o" if len(steps) == 1 else None)
    ax.set_xlabel("step")
    ax.set_ylabel("masked loss")
    _style(ax)
    _legend(ax)
    return figure


def accuracy_curves(perceivers: Sequence[Mapping[str, Any]]) -> Figure:
    """Draw validation accuracy over steps, a line for each trained Perceiver, a colour for each encoding."""
    figure, (ax,) = _panels(1, 1, (6.4, 3.2))
    named: set[str] = set()
    for run in perceivers:
        steps, values = _curve(run.get("history") or [], "validation_accuracy")
        name = str(run["positions"])
        label = None if name in named else plain(name)
        named.add(name)
        ax.plot(steps, [100 * value for value in values], color=colour_of(name), linewidth=1.5, alpha=0.85, label=label)
    ax.set_xlabel("step")
    ax.set_ylabel("validation accuracy, %")
    _style(ax)
    _legend(ax)
    return figure


def accuracy_intervals(summary: Sequence[Mapping[str, Any]], runs: Sequence[Mapping[str, Any]] = ()) -> Figure:
    """Draw mean test accuracy of each encoding with its 95 % interval; small dots are the seeds of `runs`."""
    ordered = sorted(summary, key=lambda entry: entry["mean"])
    figure, (ax,) = _panels(1, 1, (6.4, 0.8 + 0.42 * len(ordered)))
    for height, entry in enumerate(ordered):
        name, mean = str(entry["positions"]), 100 * entry["mean"]
        seeds = [100 * run["test_accuracy"] for run in runs if run["positions"] == entry["positions"]]
        ax.scatter(seeds, [height - 0.24] * len(seeds), s=14, color=colour_of(name), alpha=0.6, linewidths=0)
        if entry.get("low") is not None and entry.get("high") is not None and entry.get("seeds") != 1:
            ax.plot([100 * entry["low"], 100 * entry["high"]], [height] * 2, color=colour_of(name), linewidth=2.2)
        ax.scatter([mean], [height], s=56, color=colour_of(name), zorder=3, linewidths=0)
    ax.set_yticks(range(len(ordered)), [plain(str(entry["positions"])) for entry in ordered])
    ax.set_ylim(-0.6, len(ordered) - 0.4)
    ax.set_xlabel("test accuracy, % (dot: mean over seeds; line: 95 % interval; small dots: seeds)")
    _style(ax)
    ax.grid(axis="x", color=INK, alpha=0.2, linewidth=0.6)
    ax.tick_params(axis="y", length=0, labelsize=10)
    return figure


def save(figure: Figure, path: Path) -> None:
    """Write a figure as its suffix says (`.svg`, `.png`), whole or not at all; equal figures give equal bytes."""
    kind = path.suffix[1:]
    metadata = {"Date": None} if kind == "svg" else {}
    with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "maed"}):
        figure.savefig(temporary, format=kind, dpi=160, transparent=True, metadata=metadata)


def spread_positions(coordinates: np.ndarray | None, n: int, count: int) -> list[int]:
    """Choose `count` of `n` positions that cover the geometry evenly (a low-discrepancy sequence, so no luck)."""
    points = chart(coordinates) if coordinates is not None else plane(np.arange(n)[:, None])
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    steps = np.arange(count)[:, None] * np.array([0.7548776662, 0.5698402910])  # Roberts' R2 sequence
    targets = low + extent * (0.08 + 0.84 * ((0.5 + steps) % 1.0))  # off the rim, where neighbours are few
    nearest = [int(np.argmin(((points - target) ** 2).sum(axis=1))) for target in targets]
    return list(dict.fromkeys(nearest))


def position_colours(coordinates: np.ndarray) -> np.ndarray:
    """A colour `(N, 3)` for each position: viridis along a line, a blend of four corner colours in the plane.

    In space, red, green and blue grow along three coordinates, so that front and back of a sphere differ.
    """
    low, extent = coordinates.min(axis=0), np.ptp(coordinates, axis=0)
    if coordinates.shape[1] == 1:
        return matplotlib.colormaps["viridis"](((coordinates - low) / (extent + 1e-12))[:, 0])[:, :3]
    if coordinates.shape[1] > 2:
        return np.asarray(0.1 + 0.75 * ((coordinates - low) / (extent + 1e-12))[:, :3], dtype=np.float64)
    points = plane(coordinates)
    y, x = ((points - points.min(axis=0)) / (np.ptp(points, axis=0) + 1e-12)).T[:, :, None]
    corners = [np.array(matplotlib.colors.to_rgb(colour)) for colour in (SKY, BLUE, ORANGE, VERMILION)]
    return (1 - y) * ((1 - x) * corners[0] + x * corners[2]) + y * ((1 - x) * corners[1] + x * corners[3])


def grid_edges(coordinates: np.ndarray) -> np.ndarray:
    """Pairs of positions one step apart on the true grid, `(E, 2)`."""
    index = {tuple(place): i for i, place in enumerate(np.rint(coordinates).astype(int).tolist())}
    pairs = [(i, index.get((r + dr, c + dc))) for (r, c), i in index.items() for dr, dc in ((0, 1), (1, 0))]
    return np.array([pair for pair in pairs if pair[1] is not None], dtype=np.int64).reshape(-1, 2)


def to_unit(signals: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Signals `(S, N, C)` as colours `(S, N, 4)`: clipped to the range of `reference`, grey unless C is 3."""
    channels = slice(0, 3) if signals.shape[2] == 3 else slice(0, 1)
    known = reference[:, :, channels].astype(np.float64)
    low, high = float(np.nanmin(known)), float(np.nanmax(known))
    unit = (np.clip(signals[:, :, channels].astype(np.float64), low, high) - low) / ((high - low) or 1.0)
    colours = np.ones((*signals.shape[:2], 4))
    colours[:, :, :3] = np.nan_to_num(unit)  # broadcasts one channel to grey
    return colours


def colour_of(encoding: str) -> str:
    """The colour of an encoding; one for all that are not known by name."""
    return COLOURS.get(encoding, PURPLE)


def plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def _panels(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """A transparent figure with `count` panels in `columns`, each of `size` inches."""
    rows = -(-count // columns)
    figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax in grid[count:]:
        ax.remove()
    return figure, list(grid[:count])


def _image_rows(count: int, labels: Sequence[str]) -> tuple[Figure, np.ndarray]:
    """A figure with a row of `count` frameless images for each label, `(rows, count)` axes."""
    figure = Figure(figsize=(1.5 + 1.3 * count, 1.3 * len(labels)), layout="constrained")
    grid = figure.subplots(len(labels), count, squeeze=False)
    for axes, label in zip(grid, labels, strict=True):
        for ax in axes:
            ax.set(xticks=[], yticks=[])
            for spine in ax.spines.values():
                spine.set_visible(False)
        axes[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=14, color=INK, labelpad=8)
    return figure, grid


def _reconstructed_curves(
    original: np.ndarray, visible: np.ndarray, reconstruction: np.ndarray, coordinates: np.ndarray | None
) -> Figure:
    """A panel for each signal, first channel: the original, its reconstruction, and dots where it was seen."""
    is_line = coordinates is not None and coordinates.shape[1] == 1
    x = _along(coordinates if is_line else None, original.shape[1])
    order = np.argsort(x)
    made = np.clip(reconstruction, np.nanmin(original), np.nanmax(original))
    columns = min(2, len(original))
    figure, axes = _panels(len(original), columns, (4.4, 2.0))
    for i, ax in enumerate(axes):
        ax.plot(x[order], original[i, order, 0], color=INK, linewidth=1.0, label="original")
        ax.plot(x[order], made[i, order, 0], color=VERMILION, linewidth=1.2, label="reconstructed")
        ax.scatter(x[visible[i]], original[i, visible[i], 0], color=BLUE, s=12, zorder=3, linewidths=0, label="shown")
        _style(ax)
    for ax in axes[-columns:]:
        ax.set_xlabel("position" if is_line else "position, as stored")
    for ax in axes[::columns]:
        ax.set_ylabel("value")
    _legend(axes[0])
    return figure


def _scatter(
    ax: Axes,
    points: np.ndarray,
    colours: np.ndarray,
    title: str,
    edges: np.ndarray | None = None,
    downwards: bool = False,
) -> None:
    """Points `(N, 2)` joined by `edges` `(E, 2)`; `downwards` reads them as (row, column), rows growing downwards."""
    points = points[:, ::-1] if downwards else points
    if edges is not None and len(edges):
        ax.add_collection(LineCollection(list(points[edges]), colors=INK, linewidths=0.6, alpha=0.6))
    ax.scatter(
        points[:, 0], points[:, 1], c=colours, s=float(np.clip(9000 / len(points), 5, 60)), linewidths=0, zorder=2
    )
    ax.set_aspect("equal")
    ax.margins(0.04)
    if downwards:
        ax.invert_yaxis()
    ax.set_title(title, fontsize=10, color=INK)
    ax.set_axis_off()  # the layout's scale and orientation mean nothing, so numbers on axes would mislead


def _is_image(coordinates: np.ndarray | None, shape: Sequence[int]) -> bool:
    return coordinates is not None and len(shape) == 2 and (coordinates.shape[1] == 2 or is_torus(coordinates))


def _panel_size(coordinates: np.ndarray | None, shape: Sequence[int]) -> tuple[float, float]:
    """Inches of one panel."""
    if _is_image(coordinates, shape):
        return 1.4, 1.4 * max(0.4, min(2.0, shape[0] / shape[1])) + 0.25
    if coordinates is None or coordinates.shape[1] == 1:
        return 3.2, 1.9
    across, up = np.ptp(chart(coordinates), axis=0)
    return 2.8, 0.3 + 2.4 * float(np.clip(up / (across + 1e-12), 0.3, 1.0))


def _image(values: np.ndarray, coordinates: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Values `(N,)` at their true places of the grid or torus, `(height, width)`."""
    canvas = np.empty(len(values))
    canvas[row_major(coordinates)] = values
    return canvas.reshape(shape[0], shape[1])


def _cell(position: int, coordinates: np.ndarray, shape: Sequence[int]) -> tuple[int, int]:
    """Row and column of a position of a grid or torus."""
    row, column = divmod(int(row_major(coordinates)[position]), shape[1])
    return row, column


def _paint(colours: np.ndarray, places: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Colours `(N, 4)` at the given places of the grid, `(height, width, 4)`."""
    canvas = np.empty_like(colours)
    canvas[places] = colours
    return canvas.reshape(shape[0], shape[1], 4)


def _along(coordinates: np.ndarray | None, count: int) -> np.ndarray:
    """The axis of a curve: the true line, or else the storage order."""
    return coordinates[:, 0].astype(np.float64) if coordinates is not None else np.arange(count, dtype=np.float64)


def _window(x: np.ndarray, around: int) -> tuple[float, float]:
    """Limits of an axis that show the share of a line which holds `WINDOW` positions, around one of them."""
    width = np.ptp(x) * WINDOW / len(x)
    start = float(np.clip(x[around] - width / 2, x.min(), x.max() - width))
    return start, start + float(width)


def _mark(ax: Axes, position: int, coordinates: np.ndarray | None, shape: Sequence[int]) -> None:
    """Mark the position in question: a ring on an image or among points, an upright line on a curve."""
    if coordinates is not None and coordinates.shape[1] > 1:
        place = _cell(position, coordinates, shape) if _is_image(coordinates, shape) else None
        x, y = chart(coordinates)[position] if place is None else place[::-1]
        ax.scatter([x], [y], s=70, facecolors="none", edgecolors="white", linewidths=2.6)
        ax.scatter([x], [y], s=70, facecolors="none", edgecolors=VERMILION, linewidths=1.4)
    else:
        x = _along(coordinates, position + 1)[position]
        ax.axvline(x, color=VERMILION, linewidth=1.2, alpha=0.8, zorder=0)


def _place_name(position: int, coordinates: np.ndarray | None, shape: Sequence[int]) -> str:
    """What the place of a position is called."""
    if coordinates is None:
        return f"stored as {position}"
    if _is_image(coordinates, shape):
        row, column = _cell(position, coordinates, shape)
        return f"row {row}, column {column}"
    return f"at {', '.join(f'{round(float(value), 2):g}' for value in coordinates[position][:3])}"


def _share_labels(
    axes: Sequence[Axes], columns: int, coordinates: np.ndarray | None, shape: Sequence[int], quantity: str
) -> None:
    """Label the outer axes of curve panels; images and points need none."""
    if coordinates is not None and coordinates.shape[1] > 1:
        return
    for ax in axes[-columns:]:
        ax.set_xlabel("position" if coordinates is not None else "position, as stored")
    for ax in axes[::columns]:
        ax.set_ylabel(quantity)


def _robust_limits(values: np.ndarray) -> tuple[float, float]:
    """A colour scale that a few extreme entries cannot flatten."""
    low, high = np.nanpercentile(values, [1, 99.5])
    return float(low), float(high)


def _curve(history: Sequence[Mapping[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of `key`, where there is a value."""
    known = [(entry["step"], entry[key]) for entry in history if entry.get(key) is not None]
    return [step for step, _ in known], [value for _, value in known]


def _style(ax: Axes) -> None:
    """Grey axes, no box, no background."""
    ax.set_facecolor("none")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(INK)
    ax.tick_params(colors=INK, labelsize=8)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(9)


def _legend(ax: Axes) -> None:
    """A frameless legend, where there is anything to tell apart."""
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, labelcolor=INK, fontsize=8)
