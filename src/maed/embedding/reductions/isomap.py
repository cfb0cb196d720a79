"""Classical scaling of shortest paths."""

from __future__ import annotations

import numpy as np

from maed.embedding.maps import isomap
from maed.embedding.reduction import Reduction


class Isomap(Reduction):
    """Classical scaling of shortest paths over k neighbors: keeps large distances and blurs neighbors."""

    def reduce(self, similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
        """Isomap's points."""
        return isomap(similarity, d, k)
