"""Compare the loss at a position between draws that hide another position and draws that show it."""

from __future__ import annotations

import torch
from torch import Tensor

from maed.autoencoder.masking import Draw
from maed.similarity.estimator import Estimator, Losses
from maed.similarity.sums import Accumulator, mean_of, variance_of


class Contrast(Estimator[Accumulator]):
    """S_ij = (mean of l_j with i hidden - mean of l_j with i visible) / standard deviation of l_j.

    Each signal is drawn several times, and its losses are compared with one another.
    """

    sums = Accumulator
    repeated = True

    def add(self, sums: Accumulator, draw: Draw, losses: Losses, repeats: int) -> None:
        """Add the losses less their mean over the draws of the same signal."""
        found, scored = losses(draw), draw.hidden
        if repeats > 1:
            found, scored = centered(found, scored, repeats)
        sums.add_draw(draw, found, scored)

    def estimate(self, sums: Accumulator) -> tuple[Tensor, Tensor]:
        """The difference of the two means, in standard deviations; 0 where one of them is unknown."""
        seen_mean, seen_error = mean_of(sums.visible_counts, sums.visible_sums, sums.visible_squares)
        hidden_mean, hidden_error = mean_of(
            sums.all_counts - sums.visible_counts,
            sums.all_sums - sums.visible_sums,
            sums.all_squares - sums.visible_squares,
        )
        deviation = variance_of(sums.all_counts, sums.all_sums, sums.all_squares).sqrt()
        known = (sums.visible_counts > 0) & (sums.all_counts > sums.visible_counts) & (deviation > 0)
        scale = torch.where(known, deviation, torch.inf)
        return (hidden_mean - seen_mean) / scale, (seen_error + hidden_error).sqrt() / scale


def centered(losses: Tensor, scored: Tensor, repeats: int) -> tuple[Tensor, Tensor]:
    """Take from each loss the mean loss at the same position over all draws of the same signal.

    What is hard about a signal then cancels, and only what the visible positions change is left: a control variate.
    Each residual is scaled by sqrt(c / (c - 1)) for the c draws that its mean is of, so that their variance is that
    of the loss within a signal, and the standard errors hold: residuals of one signal are correlated by -1 / (c - 1),
    which takes from the variance of a difference of means just what the scale adds. The difference itself comes out
    as sqrt((c - 1) / c) of what it is, 0.94 for 8 draws, alike for all pairs. Where what i tells differs from signal
    to signal as much as the loss does within one, the standard errors are too small by about a seventh (8 draws).

    Args:
        losses: `(B, N)`; `repeats` consecutive draws are of one signal.
        scored: `(B, N)` bool.
        repeats: Draws of each signal.

    Returns:
        The residuals `(B, N)`, and `(B, N)` bool: scored in two draws of the signal at least.
    """
    shape = (-1, repeats, losses.shape[1])
    loss, hit = losses.reshape(shape).double(), scored.reshape(shape)
    count = hit.sum(dim=1, keepdim=True).double()
    mean = torch.where(hit, loss, 0.0).sum(dim=1, keepdim=True) / count.clamp(min=1)
    scale = (count / (count - 1).clamp(min=1)).sqrt()
    return ((loss - mean) * scale).reshape(losses.shape), (hit & (count > 1)).reshape(scored.shape)
