"""Absolute correlation between the magnitudes of the values at two positions."""

from __future__ import annotations

import torch

from maed.data.signals import SignalData
from maed.similarity.baseline import Baseline
from maed.similarity.moments import absolute_correlation
from maed.similarity.pairs import SparseSimilarity, correlated_pairs
from maed.similarity.similarity import Similarity


class Magnitude(Baseline):
    """Absolute Pearson correlation of |x - mean|, the mean over channels: for values whose sizes go together.

    Sounds, muscles and prices are such: loud here is loud there, whatever the signs. The means are those of the
    normalization. Values, standard error and costs are those of `correlation`.
    """

    kinds = ("real",)
    sparse = True
    made = "made from the correlation of magnitudes, without training"

    def similarity(self, data: SignalData) -> Similarity:
        """The mean over channels of |r| between magnitudes."""
        return absolute_correlation(data.train, torch.abs)

    def pairs(self, data: SignalData) -> SparseSimilarity:
        """The same of 32 candidates for each position; time grows with N log N, memory with N."""
        return correlated_pairs(data.train, torch.abs)
