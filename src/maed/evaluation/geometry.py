"""Metrics of an embedding or a similarity against the true geometry, and the agreement of two halves of the draws."""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import spearmanr
from sklearn.linear_model import RidgeCV
from sklearn.manifold import trustworthiness
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from torch import Tensor

from maed.data.geometry import MEASURED, SAMPLED, Geometry
from maed.errors import MaedError
from maed.settings import EvaluationSettings

_TOLERANCE = 1e-6

_CHUNK = 1 << 24  # distances at a time


def knn_recall(distances: np.ndarray, true_distances: np.ndarray, k: int) -> float:
    """The share of each position's k nearest that are no farther in true distance than its true k-th nearest.

    Args:
        distances: `(N, N)`, smaller is nearer; the diagonal is ignored.
        true_distances: `(N, N)`.
        k: Neighbors, below N.

    Returns:
        Between 0 and 1, averaged over positions.
    """
    check_neighbors(k, len(distances))
    true = true_distances.astype(np.float64, copy=True)
    np.fill_diagonal(true, np.inf)
    found = distances.astype(np.float64, copy=True)
    np.fill_diagonal(found, np.inf)
    return _reached(found, true, k)


def _squares(x: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Squared Euclidean distances of some rows of `(N, d)` to all, `(m, N)`, but for what is the same along a row.

    By one matrix product, some twenty times as fast as `cdist` in 64 channels; rows are ordered as by distances.
    """
    return np.einsum("nd,nd->n", x, x) - 2 * (x[rows] @ x.T)


def _blocks(rows: np.ndarray, n: int) -> list[np.ndarray]:
    """Some positions in parts, so that the distances of each to all n take 128 MiB."""
    return np.array_split(rows, -(-len(rows) * n // _CHUNK))


def _reached(distances: np.ndarray, true: np.ndarray, k: int) -> float:
    """`knn_recall` of some rows, whose own entries are infinite."""
    farthest = np.partition(true, k - 1, axis=1)[:, k - 1]
    nearest = np.take_along_axis(true, np.argpartition(distances, k - 1, axis=1)[:, :k], axis=1)
    return float((nearest <= farthest[:, None] * (1 + _TOLERANCE)).mean())


def geometry_metrics(vectors: Tensor, geometry: Geometry, settings: EvaluationSettings) -> dict[str, float]:
    """Metrics of an embedding against the true geometry: knn_recall, spearman, coordinate_r2, trustworthiness.

    Args:
        vectors: `(N, d)`. Time and memory grow with N^2 up to 10,000 positions. Of more, 2,000 are drawn, always the
            same: their recall is among all positions, Spearman and trustworthiness are among themselves, and the
            regression is on 10,000.
        geometry: Where the positions truly lie; those without a place are left out.
        settings: k and the folds of the regression.

    Returns:
        The metrics by name, each at most 1; higher is better.
    """
    x, placed = vectors.double().numpy(), geometry.placed
    if not placed.all():
        x, geometry = x[placed], geometry.at(np.flatnonzero(placed))
    k = settings.n_neighbors or geometry.neighbors
    if len(x) > MEASURED:
        return _sampled_metrics(x, geometry, k, settings.folds)
    distances, true = cdist(x, x), geometry.distances()
    return {
        "knn_recall": knn_recall(distances, true, k),
        "spearman": _spearman(distances, true),
        "coordinate_r2": coordinate_r2(x, geometry.coordinates, settings.folds),
        "trustworthiness": _trustworthiness(x, geometry, true, k),
    }


def _sampled_metrics(x: np.ndarray, geometry: Geometry, k: int, folds: int) -> dict[str, float]:
    """The metrics of `geometry_metrics` over a sample, a block of its positions at a time."""
    order = np.random.default_rng(0).permutation(len(x))
    rows, fitted = order[:SAMPLED], order[:MEASURED]
    recall = 0.0
    for block in _blocks(rows, len(x)):
        own = np.arange(len(block)), block
        distances, true = _squares(x, block), geometry.distances(block)
        distances[own], true[own] = np.inf, np.inf
        recall += _reached(distances, true, k) * len(block) / len(rows)
    some = geometry.at(rows)
    true = some.distances()
    return {
        "knn_recall": recall,
        "spearman": _spearman(cdist(x[rows], x[rows]), true),
        "coordinate_r2": coordinate_r2(x[fitted], geometry.coordinates[fitted], folds),
        "trustworthiness": _trustworthiness(x[rows], some, true, k),
    }


def similarity_metrics(
    similarity: Tensor, geometry: Geometry, settings: EvaluationSettings, true: np.ndarray | None = None
) -> dict[str, float]:
    """Metrics of a similarity's own entries, symmetrized: entries_knn_recall and entries_spearman.

    Args:
        similarity: `(N, N)`. Time and memory grow with N^2.
        geometry: Where the positions truly lie; those without a place are left out.
        settings: k.
        true: `(N, N)`, the geometry's distances, where they have been computed before.

    Returns:
        The metrics by name, each at most 1; higher is better.
    """
    s, placed = similarity.double().numpy(), np.flatnonzero(geometry.placed)
    distances = -(s + s.T) / 2
    if len(placed) < len(s):
        distances = distances[np.ix_(placed, placed)]
        true = geometry.at(placed).distances() if true is None else true[np.ix_(placed, placed)]
    true = geometry.distances() if true is None else true
    k = settings.n_neighbors or geometry.neighbors
    return {"entries_knn_recall": knn_recall(distances, true, k), "entries_spearman": _spearman(distances, true)}


def agreement(a: Tensor, b: Tensor, k: int) -> float:
    """Recall@k of embedding `a` against embedding `b`, both `(N, d)`: needs no geometry.

    Made from two disjoint halves of the draws it says how far an embedding is signal: 1 if they agree on every
    neighbor, about k / N if they are noise. Of more than 10,000 positions it is of the neighbors of 2,000.

    Returns:
        A share between 0 and 1.
    """
    x, y = a.double().numpy(), b.double().numpy()
    if len(x) <= MEASURED:
        return knn_recall(cdist(x, x), cdist(y, y), k)
    rows, total = np.random.default_rng(0).permutation(len(x))[:SAMPLED], 0.0
    for block in _blocks(rows, len(x)):
        own, found, wanted = (np.arange(len(block)), block), _squares(x, block), cdist(y[block], y)
        found[own], wanted[own] = np.inf, np.inf
        total += len(block) * _reached(found, wanted, k)
    return total / len(rows)


def coordinate_r2(x: np.ndarray, coordinates: np.ndarray, folds: int) -> float:
    """R2 of ridge regression from embedding `(N, d)` to coordinates `(N, D)`, cross-validated over positions."""
    check_folds(folds, len(x))
    model = RidgeCV(alphas=np.logspace(-4, 4, 9))
    predicted = cross_val_predict(model, x, coordinates, cv=KFold(folds, shuffle=True, random_state=0))
    return float(r2_score(coordinates, predicted.reshape(coordinates.shape), multioutput="variance_weighted"))


def check_folds(folds: int, n: int) -> None:
    """Refuse more folds than `n` positions are enough for: two in each."""
    if n < 2 * folds:
        raise MaedError(f"evaluation.folds must be at most {n // 2} for {n} positions, got {folds}")


def check_neighbors(k: int, n: int) -> None:
    """Refuse a k that `n` positions are too few for."""
    if k >= n:
        raise MaedError(f"evaluation.n_neighbors must be at most {n - 1} for {n} positions, got {k}")


def _trustworthiness(x: np.ndarray, geometry: Geometry, true: np.ndarray, k: int) -> float:
    """scikit-learn's, which is defined below N / 2 neighbors only."""
    k = min(k, (len(x) - 1) // 2)
    if geometry.is_euclidean:  # its own distances: others decide ties by another rounding
        return float(trustworthiness(geometry.coordinates, x, n_neighbors=k))
    return float(trustworthiness(true, x, n_neighbors=k, metric="precomputed"))


def _spearman(distances: np.ndarray, true: np.ndarray) -> float:
    pairs = np.triu_indices(len(distances), k=1)
    found, wanted = distances[pairs], true[pairs]
    if np.ptp(found) == 0 or np.ptp(wanted) == 0:
        return 0.0  # a constant ranks nothing
    return float(spearmanr(found, wanted).statistic)
