"""Absolute correlation between the values at two positions."""

from __future__ import annotations

from maed.data.signals import SignalData
from maed.similarity.baseline import Baseline
from maed.similarity.moments import absolute_correlation
from maed.similarity.pairs import SparseSimilarity, correlated_pairs
from maed.similarity.similarity import Similarity


class Correlation(Baseline):
    """Absolute Pearson correlation between positions, the mean over channels (Le Roux et al., NIPS 2007).

    Over the signals in which both positions are real. Values lie in [0, 1]; the standard error is that of r at
    independence-free normality, (1 - r^2) / sqrt(n). Time grows with n C N^2, memory with N^2.
    """

    kinds = ("real",)
    sparse = True
    made = "made from the absolute correlation of values, without training"

    def similarity(self, data: SignalData) -> Similarity:
        """The mean over channels of |r|."""
        return absolute_correlation(data.train)

    def pairs(self, data: SignalData) -> SparseSimilarity:
        """The same of 32 candidates for each position; time grows with N log N, memory with N."""
        return correlated_pairs(data.train)
