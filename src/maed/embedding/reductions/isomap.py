"""Classical scaling of shortest paths."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from maed.embedding import sparse
from maed.embedding.maps import isomap
from maed.embedding.reduction import Reduction


class Isomap(Reduction):
    """Classical scaling of shortest paths over k neighbors: keeps large distances and blurs neighbors."""

    sparse = True

    def reduce(self, similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
        """Isomap's points."""
        return isomap(similarity, d, k)

    def reduce_sparse(self, similarity: csr_matrix, d: int, k: int, steps: float) -> np.ndarray:
        """The same by paths from landmarks."""
        return sparse.isomap(similarity, d, k)
