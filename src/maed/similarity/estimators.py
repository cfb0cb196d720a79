"""How accumulated losses become a similarity, with a standard error for every entry."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from maed.settings import Estimator
from maed.similarity.sums import Accumulator, PairedSums


@dataclass(frozen=True)
class Similarity:
    """A similarity between positions.

    Args:
        values: `(N, N)` float32; row i, column j: how much seeing i helps to predict j. The diagonal is 0.
        standard_error: `(N, N)` float32, of each entry.
    """

    values: Tensor
    standard_error: Tensor


def estimate(sums: Accumulator | PairedSums, estimator: Estimator) -> Similarity:
    """The similarity that `estimator` makes of the sums: `PairedSums` for `ablation`, an `Accumulator` otherwise."""
    if isinstance(sums, PairedSums):
        values, error = _ablation(sums)
    else:
        values, error = _contrast(sums) if estimator == "contrast" else _mean_loss(sums)
    return Similarity(_finish(values), _finish(error))


def never_drawn(sums: Accumulator | PairedSums, among: Tensor) -> int:
    """Number of ordered pairs (i, j) that no draw says anything about: j never scored with i visible.

    Args:
        sums: over the draws.
        among: `(N,)` bool: the positions that are looked at.
    """
    counts = (sums.counts if isinstance(sums, PairedSums) else sums.visible_counts).cpu()
    missing = (counts == 0) & among & among[:, None]
    return int(missing.sum()) - int(missing.diagonal().sum())


def _contrast(sums: Accumulator) -> tuple[Tensor, Tensor]:
    """(mean of l_j with i hidden - mean of l_j with i visible) / standard deviation of l_j."""
    seen_mean, seen_error = _mean(sums.visible_counts, sums.visible_sums, sums.visible_squares)
    hidden_mean, hidden_error = _mean(
        sums.all_counts - sums.visible_counts,
        sums.all_sums - sums.visible_sums,
        sums.all_squares - sums.visible_squares,
    )
    deviation = _variance(sums.all_counts, sums.all_sums, sums.all_squares).sqrt()
    known = (sums.visible_counts > 0) & (sums.all_counts > sums.visible_counts) & (deviation > 0)
    scale = torch.where(known, deviation, torch.inf)
    return (hidden_mean - seen_mean) / scale, (seen_error + hidden_error).sqrt() / scale


def _mean_loss(sums: Accumulator) -> tuple[Tensor, Tensor]:
    """Minus the mean of l_j with i visible, columns scaled to unit length: the original's estimator, its faults mended."""
    mean, error = _mean(sums.visible_counts, sums.visible_sums, sums.visible_squares)
    # A pair that was never drawn says nothing: 0 would make it the most similar of its column, the mean is neutral.
    known = sums.visible_counts > 0
    column = mean.sum(dim=0, keepdim=True) / known.sum(dim=0, keepdim=True).clamp(min=1)
    mean = torch.where(known, mean, column).fill_diagonal_(0.0)
    length = mean.norm(dim=0, keepdim=True)
    scale = torch.where(length > 0, length, torch.inf)
    return -mean / scale, error.sqrt() / scale


def _ablation(sums: PairedSums) -> tuple[Tensor, Tensor]:
    """Mean of l_j(V without i) - l_j(V): paired, so that what is hard about a signal cancels."""
    mean, error = _mean(sums.counts, sums.sums, sums.squares)
    return mean, error.sqrt()


def _mean(counts: Tensor, sums: Tensor, squares: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and the square of its standard error; 0 where nothing was counted."""
    at_least_one = counts.clamp(min=1)
    return sums / at_least_one, _variance(counts, sums, squares) / at_least_one


def _variance(counts: Tensor, sums: Tensor, squares: Tensor) -> Tensor:
    at_least_one = counts.clamp(min=1)
    mean = sums / at_least_one
    variance = squares / at_least_one - mean * mean
    # What is left of a difference of nearly equal numbers is rounding, not variance.
    return torch.where(variance > 1e-12 * (squares / at_least_one), variance, 0.0)


def _finish(values: Tensor) -> Tensor:
    result = values.float().cpu().contiguous()
    return result.fill_diagonal_(0.0)
