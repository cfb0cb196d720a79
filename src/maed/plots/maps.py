"""One value for each position, drawn where positions lie: maps of the similarity, channels of the embedding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from maed.data.geometry import GeometryKind
from maed.errors import MaedError
from maed.plots.layout import chart, plane, row_major
from maed.plots.palette import BLUE, INK, VERMILION
from maed.plots.style import headline, panels, short, tidy

WINDOW = 256
"""Positions of a line that are drawn around the one in question: the whole of a long text would show a needle."""

_TICKS = 64
"""Most positions that are named at the sides of a matrix."""

_DRAWN = 1024
"""Most rows of a matrix that are drawn; of more, the means of blocks."""


def similarity_map(
    similarity: np.ndarray,
    position: int,
    coordinates: np.ndarray | None = None,
    shape: Sequence[int] = (),
    kind: GeometryKind = "points",
    *,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw what seeing one position tells about all others.

    Args:
        similarity: `(N,)`, that position's row; its own entry is left out. Colors span its percentiles 1 to 99.5.
        position: The position, as an index in storage order; it is marked.
        coordinates: `(N, D)` true coordinates, or None: then the storage order is the axis.
        shape: `(height, width)` of a grid or torus draws an image; else a line draws a curve (of a long one, the
            neighborhood), a sphere a map, and other coordinates draw points, in space where there are three of them.
        kind: Kind of the geometry, if known; `torus` and `sphere` are drawn on maps of their own.
        names: N names of positions; if None, a position is called by its place.
        ax: Axes to draw on; with `projection="3d"`, they show three coordinates in space.

    Returns:
        The Axes that were drawn in.
    """
    places = _Places(coordinates, shape, kind, names)
    width, height = places.panel_size()
    ax, _ = panels(ax, 1, 1, (max(4.0, 1.3 * width), max(3.0, 1.3 * height)), projection=places.projection)
    drawn = _draw_similarity(ax, similarity, position, places)
    if places.are_image:
        ax.set_axis_on()
        tidy(ax)
        ax.set(xlabel="column", ylabel="row")
    if drawn is None:
        label_curves([ax], 1, coordinates, "similarity")
    else:
        _color_bar(ax, drawn, "similarity")
    return ax


def similarity_maps(
    similarity: np.ndarray,
    positions: Sequence[int],
    coordinates: np.ndarray | None = None,
    shape: Sequence[int] = (),
    kind: GeometryKind = "points",
    *,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw `similarity_map` for each of `positions`, as panels with a scale each.

    Args:
        similarity: `(N, N)`; a row is drawn for each position.
        positions: Positions to show, as indices in storage order (`spread_positions` chooses some).
        coordinates: See `similarity_map`.
        shape: See `similarity_map`.
        kind: See `similarity_map`.
        names: See `similarity_map`.
        ax: See `similarity_map`.

    Returns:
        The Axes that were drawn in.
    """
    places = _Places(coordinates, shape, kind, names)
    columns = min(6 if places.are_image else 3, len(positions))
    ax, parts = panels(ax, len(positions), columns, places.panel_size(), projection=places.projection)
    for part, position in zip(parts, positions, strict=True):
        _draw_similarity(part, similarity[position], position, places)
    label_curves(parts, columns, coordinates, "similarity")
    return ax


def similarity_matrix(
    similarity: np.ndarray,
    coordinates: np.ndarray | None = None,
    shape: Sequence[int] = (),
    kind: GeometryKind = "points",
    *,
    order: np.ndarray | None = None,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the whole matrix, positions in an order that shows its structure; the diagonal is left out.

    Args:
        similarity: `(N, N)`: what position i (down) tells about position j (across). Above 1,024 positions, the means
            of blocks are drawn.
        coordinates: `(N, D)`: positions go by them, the first column before the next: a grid row by row.
        shape: Shape of a grid or torus, for the names of the axes.
        kind: Kind of the geometry, if known; a `torus` goes by its angles.
        order: `(N,)`: positions in another order, such as along a channel of an embedding.
        names: N names of positions, written at the sides where there are few enough to be read.
        ax: Axes to draw on.

    Returns:
        The Axes that were drawn in.

    Raises:
        MaedError: `order` that does not hold every position once.
    """
    n = len(similarity)
    if order is not None and not np.array_equal(np.sort(order), np.arange(n)):
        raise MaedError(f"order must be a permutation of the {n} positions")
    name = "as stored" if coordinates is None else "along the line"
    if order is not None:
        name = "in the given order"
    elif coordinates is not None:
        order = np.argsort(row_major(coordinates, kind))
        if coordinates.shape[1] > 1:
            name = "row by row" if len(shape) == 2 else "by their coordinates"
    values = similarity.astype(np.float64)
    np.fill_diagonal(values, np.nan)
    values = _in_blocks(values if order is None else values[np.ix_(order, order)])
    ax, _ = panels(ax, 1, 1, (4.6, 4.0))
    low, high = _robust_limits(values)
    edges = (-0.5, n - 0.5, n - 0.5, -0.5)
    drawn = ax.imshow(values, cmap="viridis", vmin=low, vmax=high, extent=edges, interpolation="nearest")
    tidy(ax)
    ax.set(xlabel=f"position told about, {name}", ylabel=f"position seen, {name}")
    if names is not None and n <= _TICKS:
        shown = [short(names[i]) for i in (range(n) if order is None else order)]
        ax.set_xticks(range(n), shown, rotation=90, fontsize=5)
        ax.set_yticks(range(n), shown, fontsize=5)
    _color_bar(ax, drawn, "similarity")
    return ax


def embedding_channels(
    vectors: np.ndarray,
    coordinates: np.ndarray | None = None,
    shape: Sequence[int] = (),
    kind: GeometryKind = "points",
    *,
    channels: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """Draw the first `channels` of an embedding `(N, d)` where positions truly lie, each on its own scale about 0.

    Args:
        vectors: `(N, d)`.
        coordinates: See `similarity_map`.
        shape: See `similarity_map`.
        kind: See `similarity_map`.
        channels: Number of channels to show; fewer if d is less.
        ax: Axes to draw on.

    Returns:
        The Axes that were drawn in.
    """
    places, count = _Places(coordinates, shape, kind), min(channels, vectors.shape[1])
    columns = min(4 if places.are_image else 3, count)
    ax, parts = panels(ax, count, columns, places.panel_size(), projection=places.projection)
    for channel, part in enumerate(parts):
        values = vectors[:, channel]
        most = float(np.abs(values).max()) or 1.0
        places.draw(part, values, cmap="cividis", limits=(-most, most))
        headline(part, f"channel {channel + 1}")
    label_curves(parts, columns, coordinates, "value")
    return ax


def spread_positions(coordinates: np.ndarray | None, n: int, count: int, kind: GeometryKind = "points") -> list[int]:
    """Choose `count` of `n` positions that cover the geometry evenly (a low-discrepancy sequence, so no luck)."""
    points = chart(coordinates, kind) if coordinates is not None else plane(np.arange(n)[:, None])
    low, extent = points.min(axis=0), np.ptp(points, axis=0)
    steps = np.arange(count)[:, None] * np.array([0.7548776662, 0.5698402910])  # Roberts' R2 sequence
    targets = low + extent * (0.08 + 0.84 * ((0.5 + steps) % 1.0))  # off the rim, where neighbors are few
    nearest = [int(np.argmin(((points - target) ** 2).sum(axis=1))) for target in targets]
    return list(dict.fromkeys(nearest))


def along(coordinates: np.ndarray | None, count: int) -> np.ndarray:
    """The axis of a curve: the true line, or else the storage order."""
    return coordinates[:, 0].astype(np.float64) if coordinates is not None else np.arange(count, dtype=np.float64)


@dataclass(frozen=True)
class _Places:
    """The true places of positions, as far as they are known, and the way to draw values there."""

    coordinates: np.ndarray | None
    shape: Sequence[int]
    kind: GeometryKind
    names: Sequence[str] | None = None

    @property
    def are_image(self) -> bool:
        """True if they fill a grid, or a torus, which is cut open."""
        width = 0 if self.coordinates is None else self.coordinates.shape[1]
        return len(self.shape) == 2 and (width == 2 or (width > 0 and self.kind == "torus"))

    @property
    def projection(self) -> str | None:
        """`3d` where coordinates are three, of no shape that has a map."""
        in_space = self.coordinates is not None and self.coordinates.shape[1] == 3 and self.kind != "sphere"
        return "3d" if in_space else None

    def panel_size(self) -> tuple[float, float]:
        """Inches of one panel."""
        if self.are_image:
            return 1.4, 1.4 * max(0.4, min(2.0, self.shape[0] / self.shape[1])) + 0.25
        if self.coordinates is None or self.coordinates.shape[1] == 1:
            return 3.2, 1.9
        if self.projection:
            return 2.8, 2.7
        across, up = np.ptp(chart(self.coordinates, self.kind), axis=0)
        return 2.8, 0.3 + 2.4 * float(np.clip(up / (across + 1e-12), 0.3, 1.0))

    def draw(
        self, ax: Axes, values: np.ndarray, *, cmap: str, limits: tuple[float, float], around: int | None = None
    ) -> Any:
        """Draw one value for each position `(N,)`: an image on a grid, a curve on a line, colored points elsewhere.

        A torus is cut open to an image, a sphere is spread out as a map (`chart`). Of a long line, what is drawn is
        `around` a position.

        Returns:
            The image or the points, for a color bar; None for a curve.
        """
        colors: dict[str, Any] = {"cmap": cmap, "vmin": limits[0], "vmax": limits[1]}
        if self.coordinates is None or self.coordinates.shape[1] == 1:
            x = along(self.coordinates, len(values))
            order = np.argsort(x)
            ax.plot(x[order], values[order], color=BLUE, linewidth=1.2)
            if around is not None and len(values) > WINDOW:
                width = float(np.ptp(x)) * WINDOW / len(x)
                start = float(np.clip(x[around] - width / 2, x.min(), x.max() - width))
                ax.set_xlim(start, start + width)
            tidy(ax)
            return None
        if ax.name == "3d" and self.coordinates.shape[1] >= 3:
            drawn = _dots(ax, self.coordinates[:, :3], c=values, s=14, linewidths=0, depthshade=False, **colors)
            tidy(ax)
            return drawn
        if self.are_image:
            image = np.empty(len(values))
            image[row_major(self.coordinates, self.kind)] = values
            ax.set_axis_off()
            return ax.imshow(image.reshape(self.shape[0], self.shape[1]), interpolation="nearest", **colors)
        drawn = _dots(ax, chart(self.coordinates, self.kind), c=values, s=14, linewidths=0, **colors)
        ax.set_aspect("equal")
        if self.kind == "sphere":
            ax.set_axis_off()  # the numbers of a map are not coordinates
        else:
            tidy(ax)
        return drawn

    def mark(self, ax: Axes, position: int) -> None:
        """Mark the position in question, and name it or its place: a ring, or an upright line on a curve."""
        if self.coordinates is None or self.coordinates.shape[1] == 1:
            x = along(self.coordinates, position + 1)[position]
            ax.axvline(x, color=VERMILION, linewidth=1.2, alpha=0.8, zorder=0)
        name = f"stored as {position}"
        if self.coordinates is not None:
            name = f"at {', '.join(f'{round(float(value), 2):g}' for value in self.coordinates[position][:3])}"
        if self.coordinates is not None and self.coordinates.shape[1] > 1:
            place = chart(self.coordinates, self.kind)[position]
            if self.are_image:
                row, column = divmod(int(row_major(self.coordinates, self.kind)[position]), self.shape[1])
                name, place = f"row {row}, column {column}", np.array([column, row])
            if ax.name == "3d" and self.coordinates.shape[1] >= 3:
                place = self.coordinates[position, :3]
            for color, width in (("white", 2.6), (VERMILION, 1.4)):
                _dots(ax, place[None], s=70, facecolors="none", edgecolors=color, linewidths=width)
        headline(ax, name if self.names is None else short(self.names[position]))


def _draw_similarity(ax: Axes, values: np.ndarray, position: int, places: _Places) -> Any:
    values = values.astype(np.float64)
    values[position] = np.nan
    drawn = places.draw(ax, values, cmap="viridis", limits=_robust_limits(values), around=position)
    places.mark(ax, position)
    return drawn


def _dots(ax: Axes, places: np.ndarray, **options: Any) -> Any:
    """Points in the plane `(M, 2)`, or in space `(M, 3)`."""
    scatter: Any = ax.scatter  # its stub knows of the plane alone
    return scatter(*places.T, **options)


def _color_bar(ax: Axes, drawn: Any, name: str) -> None:
    bar = ax.figure.colorbar(drawn, ax=ax, shrink=0.8)
    bar.set_label(name, color=INK, fontsize=9)
    bar.ax.tick_params(colors=INK, labelsize=8)
    bar.outline.set_visible(False)


def _in_blocks(matrix: np.ndarray) -> np.ndarray:
    """The means of square blocks of `(N, N)`, at most `_DRAWN` of them to a side; NaN counts as absent."""
    size = -(-len(matrix) // _DRAWN)
    if size == 1:
        return matrix
    starts = np.arange(0, len(matrix), size)
    known = np.isfinite(matrix)
    sums = np.add.reduceat(np.add.reduceat(np.where(known, matrix, 0.0), starts, axis=0), starts, axis=1)
    counts = np.add.reduceat(np.add.reduceat(known.astype(np.float64), starts, axis=0), starts, axis=1)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def label_curves(axes: Sequence[Axes], columns: int, coordinates: np.ndarray | None, quantity: str) -> None:
    """Label the outer axes of curve panels; images and points need none."""
    if coordinates is not None and coordinates.shape[1] > 1:
        return
    for ax in axes[-columns:]:
        ax.set_xlabel("position" if coordinates is not None else "position, as stored")
    for ax in axes[::columns]:
        ax.set_ylabel(quantity)


def _robust_limits(values: np.ndarray) -> tuple[float, float]:
    """A color scale that a few extreme entries cannot flatten."""
    low, high = np.nanpercentile(values, [1, 99.5])
    return float(low), float(high)
