"""Figures of the layout of an embedding, and of shuffled images put back in order."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from maed.errors import MaedError
from maed.plots.layout import ASSIGNABLE, align, plane, seen_from, to_grid
from maed.plots.layout import recovered_layout as lay_out
from maed.plots.palette import BLUE, INK, ORANGE, SKY, VERMILION
from maed.plots.signals import draw_images, to_unit
from maed.plots.style import headline, panels, short, tidy


def recovered_layout(
    vectors: np.ndarray,
    coordinates: np.ndarray | None = None,
    shape: Sequence[int] = (),
    *,
    names: Sequence[str] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Draw the layout that an embedding makes, beside the true one if it is known.

    Colors say where a position truly lies (without coordinates: where it is stored). On a grid, true neighbors are
    joined: an even mesh means that the geometry was found. The layout is moved, turned, mirrored and scaled to lie
    over the truth (Procrustes), no more.

    Args:
        vectors: `(N, d)`, laid out by `maed.plots.layout.recovered_layout`, in time N^3; or a layout `(N, 2)`.
        coordinates: `(N, D)` true coordinates, or None.
        shape: `(height, width)` of a grid.
        names: Names of the positions, written beside them in the layout; None if they have none.
        ax: Axes to draw on.

    Returns:
        The Axes that were drawn in.

    Raises:
        MaedError: More positions than can be laid out, in vectors of more than two channels.
    """
    layout = _as_layout(vectors)
    if coordinates is None:
        ax, (part,) = panels(ax, 1, 1, (4.6, 4.2))
        _scatter(part, layout, position_colors(np.arange(len(layout))[:, None]))
        _write_names(part, layout, names)
        headline(part, "laid out by the embedding, colored by place in storage")
        return ax
    ax, (left, right) = panels(ax, 2, 2, (4.0, 3.8))
    colors, aligned = position_colors(coordinates), align(layout, coordinates)
    _draw_aligned(left, aligned, coordinates, shape)
    is_grid = len(shape) == 2 and coordinates.shape[1] == 2
    _write_names(left, aligned[:, ::-1] if is_grid else aligned, names)
    headline(left, "laid out by the embedding alone")
    if coordinates.shape[1] == 1:
        right.scatter(coordinates[:, 0], aligned[:, 0], c=colors, s=6, linewidths=0)
        right.set(xlabel="true place on the line", ylabel="place in the layout")
        headline(right, "against the truth")
        tidy(right)
    else:
        _draw_aligned(right, seen_from(layout, coordinates), coordinates, shape)
        headline(right, "the truth" if coordinates.shape[1] == 2 else "the truth, seen from the same side")
    return ax


def _write_names(ax: Axes, layout: np.ndarray, names: Sequence[str] | None) -> None:
    """Names beside the points of a layout; small, for many of them overlap."""
    for name, (x, y) in zip(names or (), layout, strict=False):
        ax.annotate(short(name), (x, y), xytext=(2, 2), textcoords="offset points", fontsize=5, color=INK)


def unshuffled(
    images: np.ndarray,
    vectors: np.ndarray,
    coordinates: np.ndarray,
    shape: Sequence[int],
    *,
    method: str = "maed",
    ax: Axes | None = None,
) -> Axes:
    """Draw images as they are stored, as the embedding puts them in order, and the layout by which it does.

    Args:
        images: `(S, N, C)` in storage order.
        vectors: `(N, d)`, or a layout `(N, 2)`; positions take the nearest free places of the grid (`to_grid`).
        coordinates: `(N, 2)`: the set of places and the orientation, and true neighbors, which are joined.
        shape: `(height, width)`.
        method: Whose embedding it is.
        ax: Axes to draw on.

    Returns:
        The Axes that were drawn in.

    Raises:
        MaedError: More positions than can be given places.
    """
    layout = _as_layout(vectors)
    ax, (stored, ordered, mesh) = panels(ax, 3, 3, (3.6, 3.85))
    pictures = to_unit(images, images)
    draw_images(stored, pictures, np.arange(images.shape[1]), shape)
    headline(stored, "as stored")
    draw_images(ordered, pictures, to_grid(layout, coordinates), shape)
    headline(ordered, f"put in order by {method}")
    _draw_aligned(mesh, align(layout, coordinates), coordinates, shape)
    headline(mesh, "the recovered layout, true neighbors joined")
    return ax


def position_colors(coordinates: np.ndarray) -> np.ndarray:
    """A color `(N, 3)` for each position: viridis along a line, a blend of four corner colors in the plane.

    In space, red, green and blue grow along three coordinates, so that front and back of a sphere differ.
    """
    low, extent = coordinates.min(axis=0), np.ptp(coordinates, axis=0)
    if coordinates.shape[1] == 1:
        return matplotlib.colormaps["viridis"](((coordinates - low) / (extent + 1e-12))[:, 0])[:, :3]
    if coordinates.shape[1] > 2:
        return np.asarray(0.1 + 0.75 * ((coordinates - low) / (extent + 1e-12))[:, :3], dtype=np.float64)
    points = plane(coordinates)
    y, x = ((points - points.min(axis=0)) / (np.ptp(points, axis=0) + 1e-12)).T[:, :, None]
    corners = [np.array(matplotlib.colors.to_rgb(color)) for color in (SKY, BLUE, ORANGE, VERMILION)]
    return (1 - y) * ((1 - x) * corners[0] + x * corners[2]) + y * ((1 - x) * corners[1] + x * corners[3])


def grid_edges(coordinates: np.ndarray) -> np.ndarray:
    """Pairs of positions one step apart on the true grid, `(E, 2)`."""
    index = {tuple(place): i for i, place in enumerate(np.rint(coordinates).astype(int).tolist())}
    pairs = [(i, index.get((r + dr, c + dc))) for (r, c), i in index.items() for dr, dc in ((0, 1), (1, 0))]
    return np.array([pair for pair in pairs if pair[1] is not None], dtype=np.int64).reshape(-1, 2)


def _as_layout(vectors: np.ndarray) -> np.ndarray:
    if vectors.shape[1] == 2:
        return np.asarray(vectors, dtype=np.float64)
    if len(vectors) > ASSIGNABLE:
        raise MaedError(
            f"vectors must have at most {ASSIGNABLE} positions to be laid out here, got {len(vectors)}; pass "
            "a layout (N, 2), such as the first two channels"
        )
    return lay_out(vectors)


def _draw_aligned(ax: Axes, layout: np.ndarray, coordinates: np.ndarray, shape: Sequence[int]) -> None:
    """A layout that lies over the truth; a grid as (row, column), rows growing downwards, its neighbors joined."""
    is_grid = len(shape) == 2 and coordinates.shape[1] == 2
    edges = grid_edges(coordinates) if is_grid else None
    _scatter(ax, layout[:, ::-1] if is_grid else layout, position_colors(coordinates), edges)
    if is_grid:
        ax.invert_yaxis()


def _scatter(ax: Axes, points: np.ndarray, colors: np.ndarray, edges: np.ndarray | None = None) -> None:
    """Points `(N, 2)` joined by `edges` `(E, 2)`."""
    if edges is not None and len(edges):
        ax.add_collection(LineCollection(list(points[edges]), colors=INK, linewidths=0.6, alpha=0.6))
    size = float(np.clip(9000 / len(points), 5, 60))
    ax.scatter(points[:, 0], points[:, 1], c=colors, s=size, linewidths=0, zorder=2, clip_on=False)
    ax.set_aspect("equal")
    ax.margins(0.04)
    ax.set_axis_off()  # the layout's scale and orientation mean nothing, so numbers on axes would mislead
