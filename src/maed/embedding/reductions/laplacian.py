"""Laplacian eigenmaps of the graph of neighbors."""

from __future__ import annotations

import numpy as np

from maed.embedding.graph import neighbor_graph
from maed.embedding.maps import diffusion_map
from maed.embedding.reduction import Reduction


class Laplacian(Reduction):
    """Laplacian eigenmaps (Belkin and Niyogi 2003): the walk's eigenvectors, all of one size; keeps neighbors alone."""

    def reduce(self, similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
        """The eigenvectors of the walk."""
        return diffusion_map(neighbor_graph(similarity, k), d, 0)
