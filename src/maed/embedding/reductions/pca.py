"""Principal components of the rows of the similarity."""

from __future__ import annotations

import numpy as np
from sklearn.decomposition import PCA

from maed.embedding.reduction import Reduction


class Pca(Reduction):
    """Principal components of the rows of the similarity."""

    needs_neighbors = False

    def reduce(self, similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
        """The rows in their principal components."""
        with np.errstate(invalid="ignore"):  # of the share of the variance, where there is none
            return PCA(d, svd_solver="full").fit_transform(similarity)
