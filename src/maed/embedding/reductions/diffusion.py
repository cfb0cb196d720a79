"""Diffusion map of the graph of neighbors."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from maed.embedding import sparse
from maed.embedding.graph import neighbor_graph
from maed.embedding.maps import diffusion_map
from maed.embedding.reduction import Reduction


class Diffusion(Reduction):
    """Diffusion map (Coifman and Lafon 2006): keeps neighbors and, with more steps, larger distances."""

    steps = 4.0

    sparse = True

    def reduce(self, similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
        """The eigenvectors of the walk, times eigenvalue^steps."""
        return diffusion_map(neighbor_graph(similarity, k), d, steps)

    def reduce_sparse(self, similarity: csr_matrix, d: int, k: int, steps: float) -> np.ndarray:
        """The same of the sparse graph."""
        return sparse.diffusion_map(sparse.neighbors(similarity, k), d, steps)
