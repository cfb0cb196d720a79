"""Pearson correlation of signals with missing values, a few signals at a time, in double precision."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from maed.data.signals import Signals
from maed.similarity.similarity import Similarity

_CHUNK = 1_024  # signals


def pearson(
    signals: Signals, channel: int, transform: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    """Pearson correlation of one channel between positions, over the signals in which both are real.

    Time grows with n N^2, memory with N^2.

    Args:
        signals: Normalized as they are handed over.
        channel: Index of the channel.
        transform: Transform of each value, applied first.

    Returns:
        `(N, N)` float64 correlations, 0 where a position is constant; and the number of signals behind each, `(N, N)`,
        or `(1, 1)` where all positions are real.
    """
    n = signals.values.shape[1]
    product = torch.zeros(n, n, dtype=torch.float64)
    # Where all positions are real, number, sums and squares do not depend on the other position: one column.
    sums, squares, counts = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
    for start in range(0, len(signals), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(signals)))
        x = signals.take(rows)[..., channel].double()  # (B, N)
        x = x if transform is None else transform(x)
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


def absolute_correlation(signals: Signals, transform: Callable[[Tensor], Tensor] | None = None) -> Similarity:
    """The mean over channels of |r| between positions, with its standard error, (1 - r^2) / sqrt(n)."""
    _, n, channels = signals.values.shape
    total, error = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    for channel in range(channels):
        r, count = pearson(signals, channel, transform)
        total += r.abs() / channels
        error += (1 - r * r) / count.clamp(min=1).sqrt() / channels
    return Similarity(total.float().fill_diagonal_(0.0), error.float().fill_diagonal_(0.0))


def nearest(values: Tensor, k: int) -> Tensor:
    """`(N, N)` bool: the k largest entries of each row, its own left out."""
    ranked = values.clone().fill_diagonal_(-torch.inf)
    return torch.zeros_like(ranked, dtype=torch.bool).scatter_(1, ranked.topk(k, dim=1).indices, True)


def reciprocity(one: Tensor, other: Tensor, k: int) -> float:
    """The share of nearest neighbors that is mutual across two measurements of the same similarity, `(N, N)` each.

    If i counts j among its k nearest by one half of the signals, does j count i among its own by the other half? Among
    places that lie evenly it does, so this falls both with noise, which the halves do not share, and where a few
    positions are everybody's nearest ("hubs", Radovanovic et al., JMLR 2010), which no geometry has. Chance gives
    k / (N - 1).
    """
    a, b = nearest(one, k), nearest(other, k)
    return float((a & b.T).sum() / a.sum())
