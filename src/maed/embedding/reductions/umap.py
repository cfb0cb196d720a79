"""UMAP, of the extra `umap`."""

from __future__ import annotations

import warnings

import numpy as np
import torch

from maed.embedding.maps import distances_of, isomap
from maed.embedding.reduction import Reduction
from maed.errors import require_extra


class Umap(Reduction):
    """UMAP (McInnes, Healy and Melville 2018; umap-learn's), from Isomap: keeps groups, and large distances roughly."""

    def check(self) -> None:
        """Refuse where umap-learn is not installed."""
        require_extra("embedding.reduction", "umap")

    def reduce(self, similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
        """The map of k neighbors, the same at every call."""
        n = len(similarity)
        start = isomap(similarity, d, k)
        if n <= 3:  # too few for umap-learn
            return start
        # It stretches every channel to the same width, and those where Isomap found nothing have none.
        start = start + 1e-4 * (start.std() or 1.0) * np.random.default_rng(0).normal(size=start.shape)
        threads = torch.get_num_threads()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of one thread with a seed, of distances that are given, of lacking extras
            from umap import UMAP

            model = UMAP(
                n_neighbors=min(k + 1, n - 1),  # itself among them
                n_components=d,
                metric="precomputed",
                init=start.astype(np.float32),
                random_state=0,
                n_jobs=1,
            )
            vectors = model.fit_transform(distances_of(similarity))
        torch.set_num_threads(threads)  # numba leaves OpenMP as many as there are cores, whatever was asked for
        return vectors
