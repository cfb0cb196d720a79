"""Absolute correlation between the values at two positions."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maed.data.signals import SignalData, Signals
from maed.similarity.baseline import Baseline
from maed.similarity.similarity import Similarity

_CHUNK = 1_024  # signals


class Correlation(Baseline):
    """Absolute Pearson correlation between positions, the mean over channels (Le Roux et al., NIPS 2007).

    Over the signals in which both positions are real. Values lie in [0, 1]; the standard error is that of r at
    independence-free normality, (1 - r^2) / sqrt(n). Time grows with n C N^2, memory with N^2.
    """

    kinds = ("real",)
    made = "made from the absolute correlation of values, without training"

    def similarity(self, data: SignalData) -> Similarity:
        """The mean over channels of |r|."""
        signals = data.train
        _, n, channels = signals.values.shape
        total, error = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
        for channel in range(channels):
            r, count = _pearson(signals, channel)
            total += r.abs() / channels
            error += (1 - r * r) / count.clamp(min=1).sqrt() / channels
        return Similarity(total.float().fill_diagonal_(0.0), error.float().fill_diagonal_(0.0))


def _pearson(signals: Signals, channel: int) -> tuple[Tensor, Tensor]:
    """Pearson correlation of one channel over pairwise complete signals, `(N, N)`, and their number.

    Where all positions are real, their number, sums and squares do not depend on the other position: one column.
    """
    n = signals.values.shape[1]
    product = torch.zeros(n, n, dtype=torch.float64)
    sums, squares, counts = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
    for start in range(0, len(signals), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(signals)))
        x = signals.take(rows)[..., channel].double()  # (B, N)
        real = signals.real(rows)
        there = x.new_ones(len(x), 1) if real is None else real.double()
        x = x * there
        product += x.T @ x
        sums = sums + x.T @ there
        squares = squares + (x * x).T @ there
        counts = counts + there.T @ there
    at_least_one = counts.clamp(min=1)
    covariance = product / at_least_one - sums * sums.T / at_least_one**2
    mean_square = squares / at_least_one
    variance = mean_square - (sums / at_least_one) ** 2
    # What is left of a difference of nearly equal numbers is rounding: a constant position correlates with none.
    variance = torch.where(variance > 1e-12 * mean_square, variance, 0.0)
    scale = (variance * variance.T).sqrt()
    return torch.where(scale > 0, covariance / torch.where(scale > 0, scale, 1.0), 0.0).clamp(-1, 1), counts
