"""Draw an embedding: a layout in the plane, turned to match the truth, and places on the true grid."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.linalg import orthogonal_procrustes
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA
from sklearn.manifold import Isomap

from maed.data.geometry import GeometryKind
from maed.errors import MaedError

ASSIGNABLE = 2304
"""Most positions that are laid out and assigned to places: both take time N cubed (48 x 48 takes seconds)."""

FEWEST = 4
"""Fewest positions of which a layout says anything."""


def recovered_layout(vectors: np.ndarray, channels: int = 2) -> np.ndarray:
    """Lay positions out in the plane by their embedding alone (scikit-learn's Isomap, 8 neighbors).

    Args:
        vectors: `(N, d)`, the embedding.
        channels: 2 for the plane, 3 for space; the first two are the same.

    Returns:
        `(N, channels)` float64; its orientation and scale mean nothing. Where the graph of neighbors falls apart, its
        parts are joined at their closest positions.

    Raises:
        MaedError: There are fewer than 4 positions, or vectors have fewer than 1 channel.
    """
    count, width = vectors.shape
    if count < FEWEST or width < 1:
        raise MaedError(f"vectors must have at least {FEWEST} positions and 1 channel, got shape {vectors.shape}")
    isomap = Isomap(n_neighbors=min(8, count - 1), n_components=channels, eigen_solver="dense")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a graph in several parts is warned about, then joined: what we want
        layout = np.asarray(isomap.fit_transform(vectors.astype(np.float64)))
    return np.nan_to_num(layout)


def align(layout: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Move, turn, mirror and scale a layout so that it lies over the true coordinates.

    This is all that a picture takes from the truth: no data can tell which way is up, which side is left, or how
    large a step is. The shape is left as it is: one orthogonal matrix (Procrustes) and one scale, which gives both
    the same spread.

    Args:
        layout: `(N, 2)` or `(N, 3)`.
        coordinates: `(N, D)`, see `seen_from`.

    Returns:
        float64, as `layout`.
    """
    return _laid_over(layout, seen_from(layout, coordinates))


def align_in_space(layout: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """The same for a layout `(N, 3)` in space; lines and planes lie flat in it, of more than three the principal three.

    Returns:
        `(N, 3)` float64.
    """
    target = np.asarray(coordinates, dtype=np.float64)
    if target.shape[1] > 3:
        target = np.asarray(PCA(3, svd_solver="full").fit_transform(target))
    return _laid_over(layout, np.pad(target, ((0, 0), (0, 3 - target.shape[1]))))


def _laid_over(layout: np.ndarray, target: np.ndarray) -> np.ndarray:
    """A layout by one orthogonal matrix and one scale as near as can be to a target of as many columns."""
    center = target.mean(axis=0)
    source = layout - layout.mean(axis=0)
    rotation, _ = orthogonal_procrustes(source, target - center)
    spread = np.linalg.norm(source)
    scale = np.linalg.norm(target - center) / spread if spread > 0 else 0.0
    return source @ rotation * scale + center


def seen_from(layout: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """True coordinates `(N, D)` in the plane, `(N, 2)`; more than two are seen from the side that the layout shows.

    The layout of a sphere is one view of it out of many, and no data can tell which. The truth is turned likewise: its
    orthogonal projection to the plane is the one whose sum of products with the layout `(N, 2)` is largest. Likewise
    in space, with a layout `(N, 3)`. Missing columns are zeros.
    """
    lacking = layout.shape[1] - coordinates.shape[1]
    if lacking >= 0:
        return np.pad(np.asarray(coordinates, dtype=np.float64), ((0, 0), (0, lacking)))
    centered = coordinates - coordinates.mean(axis=0, dtype=np.float64)
    left, _, right = np.linalg.svd(centered.T @ (layout - layout.mean(axis=0)), full_matrices=False)
    return np.asarray(centered @ left @ right)


def to_grid(layout: np.ndarray, coordinates: np.ndarray) -> np.ndarray:
    """Give every position a place of its own on the true grid, so that all lie as near their layout as possible.

    Args:
        layout: `(N, 2)`; aligned here.
        coordinates: `(N, D)`; used for the orientation and as the set of places.

    Returns:
        `(N,)` int64: the place of each position, counted through the grid row by row, so that
        `image[places] = values` un-shuffles values in storage order. Compare with `row_major`.

    Raises:
        MaedError: There are more than `ASSIGNABLE` positions.
    """
    if len(layout) > ASSIGNABLE:
        raise MaedError(f"layout must have at most {ASSIGNABLE} positions to be assigned to places, got {len(layout)}")
    # Places go in row by row, not in storage order: an assignment breaks ties by index, and in storage order a
    # layout that knows nothing would then come out as the truth.
    places = plane(coordinates)[_row_by_row(coordinates)]
    return linear_sum_assignment(cdist(align(layout, coordinates), places, "sqeuclidean"))[1]


def row_major(coordinates: np.ndarray, kind: GeometryKind = "points") -> np.ndarray:
    """The true place of each position, `(N,)` int64, counting coordinates `(N, D)` (of a torus, angles) row by row."""
    places = np.empty(len(coordinates), dtype=np.int64)
    places[_row_by_row(coordinates, kind)] = np.arange(len(coordinates))
    return places


def plane(coordinates: np.ndarray) -> np.ndarray:
    """Coordinates `(N, D)` as `(N, 2)`: a line gets a second column of zeros, more than two become principal two."""
    coordinates = np.asarray(coordinates, dtype=np.float64)
    if coordinates.shape[1] == 1:
        return np.concatenate([coordinates, np.zeros_like(coordinates)], axis=1)
    if coordinates.shape[1] > 2:
        return np.asarray(PCA(2, svd_solver="full").fit_transform(coordinates))
    return coordinates


def chart(coordinates: np.ndarray, kind: GeometryKind = "points") -> np.ndarray:
    """Map positions to the plane for drawing, `(N, 2)`, so that no two places coincide.

    Coordinates `(N, 4)` of a `torus` become its two angles, `(N, 6)` those of pictures side by side; `(N, 3)` of a
    `sphere` become the equal-area map of Hammer 1892 (Lambert's of half the longitudes, stretched twofold); those of
    other kinds are as `plane` has them.
    """
    if kind == "torus":
        angles = _angles(coordinates)
        if angles.shape[1] == 3:  # one picture beside the other
            _, picture = np.unique(angles[:, 0].round(6), return_inverse=True)
            angles = np.stack([angles[:, 1], angles[:, 2] + 2.2 * np.pi * picture], axis=1)
        return angles
    if kind != "sphere":
        return plane(coordinates)
    x, y, z = np.asarray(coordinates, dtype=np.float64).T
    across, half = np.hypot(x, y), np.arctan2(y, x) / 2
    scale = np.sqrt(2 / (1 + across * np.cos(half)))
    return np.stack([2 * scale * across * np.sin(half), scale * z], axis=1)


def _row_by_row(coordinates: np.ndarray, kind: GeometryKind = "points") -> np.ndarray:
    """The order that sorts coordinates (of a torus, its angles) by their first column, then by the next, `(N,)`."""
    columns = _angles(coordinates) if kind == "torus" else coordinates
    return np.lexsort(columns.T[::-1])


def _angles(coordinates: np.ndarray) -> np.ndarray:
    """The angles of positions on a torus, `(N, sides)` radians from 0 to 2 pi."""
    return np.arctan2(coordinates[:, 1::2], coordinates[:, ::2]) % (2 * np.pi)
