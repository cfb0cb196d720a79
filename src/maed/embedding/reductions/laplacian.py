"""Laplacian eigenmaps of the graph of neighbors."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from maed.embedding import sparse
from maed.embedding.graph import neighbor_graph
from maed.embedding.maps import diffusion_map
from maed.embedding.reduction import Reduction


class Laplacian(Reduction):
    """Laplacian eigenmaps (Belkin and Niyogi 2003): the walk's eigenvectors, all of one size; keeps neighbors alone."""

    sparse = True

    def reduce(self, similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
        """The eigenvectors of the walk."""
        return diffusion_map(neighbor_graph(similarity, k), d, 0)

    def reduce_sparse(self, similarity: csr_matrix, d: int, k: int, steps: float) -> np.ndarray:
        """The same of the sparse graph."""
        return sparse.diffusion_map(sparse.neighbors(similarity, k), d, 0)
