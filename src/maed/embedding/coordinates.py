"""Few coordinates from an embedding: for models that want places, and to tell how many dimensions there are."""

from __future__ import annotations

import warnings

import numpy as np
from scipy.spatial.distance import pdist
from sklearn.manifold import Isomap

from maed.embedding.stress import classical_scaling
from maed.errors import MaedError

MOST = 8
"""Most coordinates that are looked for where none are asked for."""

_NEIGHBORS = 8
_LANDMARKS = 2_000  # beyond, as many positions are laid out and the others placed by their distances to them
_LITTLE = 0.05  # residual variance that another coordinate must take away
_FEWEST = 4


def recovered_coordinates(vectors: np.ndarray, dims: int | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates whose distances are those along the embedding, and how much of these they leave unexplained.

    Distances are taken along the graph of 8 nearest neighbors and laid out by classical scaling (Isomap: Tenenbaum,
    de Silva and Langford 2000); the residual variance of d coordinates is theirs, 1 - R^2 of the two distances. Beyond
    2,000 positions so many, drawn at random, are laid out and the others placed among them (landmarks: de Silva and
    Tenenbaum 2003), so that time and memory grow with N: about 16 kB for each position.

    Args:
        vectors: `(N, d)`.
        dims: Number of coordinates; None for the fewest of which more would take less than 0.05 off the residual
            variance. That is the number that holds the shape without cutting it: 1 for a line, 2 for a grid or a ring,
            3 for a sphere, 4 for a torus.

    Returns:
        Coordinates `(N, dims)` float64 along principal axes, the longest first, centered, and scaled by one number so
        that the largest is 1; and residual variances `(M,)` of 1, 2, ... coordinates.

    Raises:
        MaedError: Fewer than 4 positions, vectors that are all alike, or `dims` that cannot be.
    """
    n = len(vectors)
    if n < _FEWEST:
        raise MaedError(f"vectors must be of at least {_FEWEST} positions, got {n}")
    if dims is not None and (isinstance(dims, bool) or not isinstance(dims, int) or not 1 <= dims < n):
        raise MaedError(f"dims must be an integer from 1 to {n - 1}, or None, got {dims!r}")
    most = max(min(MOST, n - 1), dims or 0)
    laid = np.arange(n)
    if n > max(_LANDMARKS, most):
        laid = np.sort(np.random.default_rng(0).choice(n, max(_LANDMARKS, most + 1), replace=False))
    x = vectors.astype(np.float64)
    isomap = Isomap(n_neighbors=min(_NEIGHBORS, len(laid) - 1), n_components=most, eigen_solver="dense")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            layout = np.nan_to_num(isomap.fit_transform(x[laid]))
        except ValueError:  # paths far from any Euclidean distances, which scikit-learn refuses: their Euclidean part
            layout = classical_scaling(isomap.dist_matrix_, most)
    if not np.ptp(layout[:, 0]) > 0:
        raise MaedError("vectors must differ between positions; all are equal, so there are no coordinates")
    if any("connected components" in str(each.message) for each in said):
        warnings.warn(
            "coordinates: some positions have no connection to the others; their relative placement is "
            "unknown, and the parts are joined at their closest positions",
            stacklevel=3,
        )
    along = isomap.dist_matrix_[np.triu_indices(len(laid), 1)]
    residuals = np.array([_unexplained(along, pdist(layout[:, :d])) for d in range(1, most + 1)])
    if dims is None:
        better = [residuals[d] - residuals[d:].min() < _LITTLE for d in range(most)]
        dims = 1 + better.index(True)
    if len(laid) < n:
        # as Isomap.transform places them, by their distances to the landmarks over the nearest of these
        inverse = layout / np.maximum((layout**2).sum(axis=0), 1e-12 * (layout**2).sum())
        usual, placed = (isomap.dist_matrix_**2).mean(axis=0), np.empty((n, most))
        for part in np.array_split(np.arange(n), -(-n // 256)):
            steps, nearest = isomap.nbrs_.kneighbors(x[part])
            paths = np.min(steps[:, :, None] + isomap.dist_matrix_[nearest], axis=1)
            placed[part] = (usual - paths**2) @ inverse / 2
        layout = placed
    found = layout[:, :dims] - layout[:, :dims].mean(axis=0)
    found *= np.sign(found[np.abs(found).argmax(axis=0), np.arange(dims)])  # one of two mirror images, always the same
    return found / np.abs(found).max(), residuals


def _unexplained(along: np.ndarray, straight: np.ndarray) -> float:
    return float(1 - np.corrcoef(along, straight)[0, 1] ** 2)
