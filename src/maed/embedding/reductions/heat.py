"""Distances by the heat that spreads between neighbors."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from maed.embedding import sparse
from maed.embedding.graph import geodesics, join, rank_weighted_graph
from maed.embedding.maps import lazy_walk
from maed.embedding.noise import warn_of_unknown
from maed.embedding.reduction import Reduction
from maed.embedding.stress import classical_scaling, minimize_stress

_FAR_WEIGHT = 10.0
"""Weight of every pair, beside (g / mean)^-4 of a pair at distance g: they are equal at half the mean."""

_FINE = 0.8
"""Share of the squared distances that tells near places apart; the rest tells how far the far ones are."""


class Heat(Reduction):
    """Keeps neighbors and large distances: heat gives the near, shortest paths the far ones, stress fits both.

    Heat that spreads from i for a short time t reaches j in proportion to exp(-distance^2 / 4 t) (Varadhan 1967; used
    for distances on meshes by Crane, Weischedel and Wardetzky 2013). It averages over all short ways, which a single
    noisy entry does not. Paths over the k nearest add these distances up to far ones, g. Placed at those distances,
    positions on a plane would fill two channels and leave the others empty, and anyone who reads them would find fine
    differences faint beside coarse ones. So they are placed at distances that grow with g all the same, but fast at
    first: `fine_and_far`. Of all pairs, the d channels keep near ones most exactly: squared deviations weigh by
    distance^-4 (^-2 in Kamada and Kawai 1989) plus a constant.
    """

    steps = 1.0
    places_unknown = True
    sparse = True

    def reduce(self, similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
        """Place positions by heat after so many steps of the walk, rounded to halves; at least a half.

        Positions of which nothing is known, rows of 0, are put equally far from all others, as nearly as d channels
        allow, with a warning.
        """
        known = np.asarray(similarity.any(axis=1))
        distances = np.ones((len(known), len(known)))
        if known.any():
            there = np.ix_(known, known)
            local = _heat_distances(rank_weighted_graph(similarity[there], k), steps)
            # Every link of the graph has a finite distance, so joining by them keeps to it.
            among = geodesics(join(_nearest_in(local, k), -local), local)
            distances *= max(among.mean(), among.max() / 2)  # nothing can be nearer to both ends than half way
            distances[there] = among
        np.fill_diagonal(distances, 0.0)
        if not known.all():
            warn_of_unknown(np.flatnonzero(~known), "equally far from all others")
        distances = fine_and_far(distances, d)
        start = classical_scaling(distances, d)
        if not start.any():
            return start
        nearest = np.where(np.eye(len(known), dtype=bool), np.inf, distances).min(axis=1)
        # places that heat cannot tell apart would outweigh all others
        least = max(0.1 * float(np.median(nearest)), 1e-6 * distances.max())
        mean = distances.mean()
        weights = (np.maximum(distances, least) / mean) ** -4 + _FAR_WEIGHT
        return minimize_stress(distances, weights, start)

    def reduce_sparse(self, similarity: csr_matrix, d: int, k: int, steps: float) -> np.ndarray:
        """Place landmarks at those distances, and all others among them by theirs (`sparse.landmark_scaling`).

        Distances are paths along the links of heat; there is no stress to fit, for landmarks are many for d channels.
        """
        links = sparse.heat_links(sparse.rank_weighted(similarity, k), k, steps)
        landmarks, distances = sparse.landmark_distances(sparse.joined_links(links), sparse.LANDMARKS)
        between = distances[:, landmarks].astype(np.float64)
        return sparse.landmark_scaling(landmarks, distances, _Squares((between + between.T) / 2, d), d)


class _Squares:
    """The squares D^2 of `fine_and_far`, its width and means taken from some distances, as a function of any.

    Args:
        distances: `(L, L)`.
        d: Channels.
    """

    def __init__(self, distances: np.ndarray, d: int) -> None:
        self.distances, squares = distances, distances**2
        self.width = 0.0
        if not squares.any():
            return
        low, high = np.log(distances[distances > 0].min() / 2), np.log(10 * distances.max())
        for _ in range(20):
            middle = (low + high) / 2
            kernel = squares / (-2 * np.exp(2 * middle))
            np.exp(kernel, out=kernel)
            # of the kernel whose rows and columns are centered, without making it
            sums, n = kernel.sum(axis=1), len(kernel)
            trace = kernel.trace() - sums.mean()
            norm = np.vdot(kernel, kernel) - 2 / n * (sums @ sums) + sums.mean() ** 2
            fits = trace**2 <= d / 2 * norm
            low, high = (low, middle) if fits else (middle, high)
        self.width = np.exp(high)
        self.near, self.far = self._near(squares).mean(), squares.mean()

    def __call__(self, distances: np.ndarray) -> np.ndarray:
        squares = distances**2
        if self.width == 0:
            return squares
        # a kernel of any width has its share
        return _FINE * self._near(squares) / self.near + (1 - _FINE) * squares / self.far

    def _near(self, squares: np.ndarray) -> np.ndarray:
        return -np.expm1(-squares / (2 * self.width**2))


def fine_and_far(distances: np.ndarray, d: int) -> np.ndarray:
    """Distances D with D, D^2 = 0.8 f / mean(f) + 0.2 g^2 / mean(g^2) with f = 1 - exp(-g^2 / 2 s^2), `(N, N)` from g.

    The first part is the distance in the feature space of a Gaussian kernel, whose channels are waves over the
    positions, long and short ones; the second keeps far places from being all equally far. Both grow with g, so nearest
    neighbors and ranks stay. The width s is the least at which the kernel has at most d / 2 effective dimensions, the
    squared sum of its eigenvalues over the sum of their squares: as fine as d channels can hold. Where no width has so
    few, as with d = 1, D is g up to scale.
    """
    return np.sqrt(_Squares(distances, d)(distances))


def _heat_distances(graph: np.ndarray, steps: float) -> np.ndarray:
    """Distances `(N, N)` from heat after so many steps of the walk; infinite where none arrives."""
    arrived = np.linalg.matrix_power(lazy_walk(graph), max(1, round(2 * steps)))
    stayed = np.sqrt(arrived.diagonal())
    with np.errstate(divide="ignore"):
        local = np.sqrt(np.maximum(-np.log(arrived / stayed[:, None] / stayed), 0.0))
    np.fill_diagonal(local, 0.0)
    return (local + local.T) / 2  # alike but for rounding


def _nearest_in(distances: np.ndarray, k: int) -> np.ndarray:
    """The `(N, N)` 0/1 graph that joins i and j where either is among the other's k nearest at a finite distance."""
    n = len(distances)
    far = np.where(np.eye(n, dtype=bool), np.inf, distances)
    nearest = np.argsort(far, axis=1, kind="stable")[:, :k]
    graph = np.zeros_like(distances)
    np.put_along_axis(graph, nearest, 1.0, axis=1)
    graph[np.isinf(far)] = 0.0
    return np.maximum(graph, graph.T)
