"""UMAP, of the extra `umap`."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from maed.embedding import sparse
from maed.embedding.maps import distances_of, isomap
from maed.embedding.reduction import Reduction
from maed.errors import require_extra


class Umap(Reduction):
    """UMAP (McInnes, Healy and Melville 2018; umap-learn's), from Isomap: keeps groups, and large distances roughly."""

    sparse = True

    def check(self) -> None:
        """Refuse where umap-learn is not installed."""
        require_extra("embedding.reduction", "umap")

    def reduce(self, similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
        """The map of k neighbors, the same at every call."""
        start = isomap(similarity, d, k)
        if len(start) <= 3:  # too few for umap-learn
            return start
        return _fit(start, k, distances_of(similarity), metric="precomputed")

    def reduce_sparse(self, similarity: csr_matrix, d: int, k: int, steps: float) -> np.ndarray:
        """The map of the k most similar of each that are known, from Isomap by landmarks."""
        start, n = sparse.isomap(similarity, d, k), similarity.shape[0]
        if n <= 3:
            return start
        i, j, rank = sparse.strongest(similarity, k)
        nearest, lengths = np.full((n, k + 1), -1), np.full((n, k + 1), np.inf, dtype=np.float32)
        nearest[:, 0], lengths[:, 0] = np.arange(n), 0.0  # itself among them
        nearest[i, rank + 1] = j
        lengths[i, rank + 1] = np.sqrt(np.maximum(similarity.data.max() - np.asarray(similarity[i, j]).ravel(), 0.0))
        # of the vectors that it is given it reads how many there are
        return _fit(start, k, start, precomputed_knn=(nearest, lengths), force_approximation_algorithm=True)


def _fit(start: np.ndarray, k: int, given: np.ndarray, **how: Any) -> np.ndarray:
    """umap-learn's vectors from a start `(N, d)`, the same at every call."""
    n, d = start.shape
    # It stretches every channel to the same width, and those where Isomap found nothing have none.
    start = start + 1e-4 * (start.std() or 1.0) * np.random.default_rng(0).normal(size=start.shape)
    threads = torch.get_num_threads()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one thread with a seed, of distances that are given, of lacking extras
        from umap import UMAP

        own = {"n_neighbors": min(k + 1, n - 1), "n_components": d, "init": start.astype(np.float32)}  # itself too
        vectors = UMAP(**own, random_state=0, n_jobs=1, **how).fit_transform(given)
    torch.set_num_threads(threads)  # numba leaves OpenMP as many as there are cores, whatever was asked for
    return vectors
