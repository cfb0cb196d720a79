"""Metric multidimensional scaling: points whose distances are those that are given."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock

import numpy as np
from scipy.linalg import LinAlgError, cholesky, eigh, solve_triangular
from scipy.optimize import minimize
from threadpoolctl import ThreadpoolController

_ITERATIONS = 200
_TOLERANCE = 1e-6
"""Relative decrease of the stress in an iteration, below which it stops; usually after some 50."""

_ROWS = 128
"""Rows of distances that are made together: what is made of them stays in the cache."""

_limiting = Lock()
"""Held while each BLAS has one thread: of two limits at once, the first to end would be what the second restores."""


def classical_scaling(distances: np.ndarray, d: int) -> np.ndarray:
    """Points `(N, d)` whose inner products are nearest to those that the distances `(N, N)` imply (Torgerson 1952)."""
    squared = -(distances**2) / 2
    return scaled_eigenvectors(squared - squared.mean(axis=0) - squared.mean(axis=1)[:, None] + squared.mean(), d)


def scaled_eigenvectors(matrix: np.ndarray, d: int) -> np.ndarray:
    """The d leading eigenvectors of a symmetric matrix, times the root of their eigenvalue, or 0 if it is negative."""
    values, vectors = leading(matrix, d)
    return vectors * np.sqrt(np.clip(values, 0, None))


def leading(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest eigenvalues and their vectors, largest first, signs fixed so that results repeat."""
    n = len(matrix)
    try:
        values, vectors = eigh(matrix, subset_by_index=(n - count, n - 1))
    except LinAlgError:
        values = np.empty(0)
    if len(values) < count:  # some matrices of many equal eigenvalues are too much for the solver of a few of them
        values, vectors = (found[..., n - count :] for found in np.linalg.eigh(matrix))
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    return values, vectors * np.sign(vectors[largest, np.arange(count)])


def minimize_stress(distances: np.ndarray, weights: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Points that minimize sum_ij w_ij (|x_i - x_j| - g_ij)^2 from a start: `(N, d)` to `(N, d)`.

    SMACOF (de Leeuw 1977) steps along V^+ times the gradient, V being the Laplacian of the weights, which makes up for
    weights that span many orders of magnitude. Here L-BFGS does so too, as it sees coordinates y = L'x with V = L L',
    and needs a fifth of the iterations. Time grows with N^3 once and N^2 d an iteration, memory with N^2.

    Args:
        distances: `(N, N)` g, symmetric.
        weights: `(N, N)` w, symmetric and positive; its diagonal is ignored.
        start: `(N, d)`, not all at one point.
    """
    n, d = start.shape
    w = weights / (weights * distances**2).sum()  # so that stress is a share
    np.fill_diagonal(w, 0.0)
    laplacian = np.diag(w.sum(axis=1)) - w
    # The constant that distances do not see; any positive multiple of it makes V definite.
    root = cholesky(laplacian + laplacian.trace() / n**2, lower=True)

    def of_rows(x: np.ndarray, start: int) -> tuple[float, np.ndarray]:
        """The stress of some rows of pairs, and its gradient with respect to their points."""
        rows = slice(start, start + _ROWS)
        found = pairwise(x, rows)
        off = found - distances[rows]
        pull = w[rows] * off
        total = float(np.vdot(pull, off))
        found[found == 0] = np.inf  # a pair at one point has no direction
        pull /= found
        return total, 4 * (pull.sum(axis=1)[:, None] * x[rows] - pull @ x)

    def stress(y: np.ndarray) -> tuple[float, np.ndarray]:
        x = solve_triangular(root, y.reshape(n, d), lower=True, trans="T", check_finite=False)
        totals, gradients = zip(*pool.map(partial(of_rows, x), range(0, n, _ROWS)), strict=True)
        gradient = solve_triangular(root, np.concatenate(gradients), lower=True, check_finite=False)
        return sum(totals), gradient.ravel()

    found = pairwise(start)
    x = start * ((w * distances * found).sum() / (w * found * found).sum())  # the best size of the start
    # NumPy and SciPy bring a BLAS each, whose threads wait in loops and so keep cores from one another: called in turn,
    # they take several times as long. Here each has one, and the rows are divided among threads.
    libraries = ThreadpoolController().select(user_api="blas")
    threads = max((library["num_threads"] for library in libraries.info()), default=1)
    with _limiting, libraries.limit(limits=1), ThreadPoolExecutor(threads) as pool:
        result = minimize(
            stress,
            (root.T @ x).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": _ITERATIONS, "maxfun": 2 * _ITERATIONS, "ftol": _TOLERANCE, "gtol": 0.0},
        )
    return solve_triangular(root, result.x.reshape(n, d), lower=True, trans="T")


def pairwise(x: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
    """Euclidean distances of some points, by default of all, to all points `(N, d)`: `(rows, N)`, by one product."""
    squares = np.einsum("nd,nd->n", x, x)
    found: np.ndarray = x[rows] @ x.T
    found *= -2
    found += squares[rows, None]
    found += squares
    np.maximum(found, 0.0, out=found)
    found[np.arange(len(found)), np.arange(len(x))[rows]] = 0.0
    return np.sqrt(found, out=found)
