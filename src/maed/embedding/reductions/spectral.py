"""Leading eigenvectors of the similarity itself."""

from __future__ import annotations

import numpy as np

from maed.embedding.reduction import Reduction
from maed.embedding.stress import scaled_eigenvectors


class Spectral(Reduction):
    """Leading eigenvectors of the centered similarity, times the root of their eigenvalue (classical scaling).

    Where fewer than d eigenvalues are positive, the remaining channels are 0.
    """

    needs_neighbors = False

    def reduce(self, similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
        """The points whose inner products are nearest to the centered similarity."""
        centered = similarity - similarity.mean(axis=0) - similarity.mean(axis=1)[:, None] + similarity.mean()
        return scaled_eigenvectors(centered, d)
