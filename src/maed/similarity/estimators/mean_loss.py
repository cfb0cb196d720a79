"""The original's estimator: the loss at a position in the draws that show another."""

from __future__ import annotations

import torch
from torch import Tensor

from maed.autoencoder.masking import Draw
from maed.similarity.estimator import Estimator, Losses
from maed.similarity.similarity import Similarity
from maed.similarity.sums import Accumulator, mean_of


class MeanLoss(Estimator[Accumulator]):
    """S_ij = - mean of l_j over the draws with i visible, columns then scaled to unit length.

    The original's estimator with its faults mended; squared errors are taken as they are, as it did.
    """

    sums = Accumulator
    transform = "none"

    def add(self, sums: Accumulator, draw: Draw, losses: Losses, repeats: int) -> None:
        """Add the losses."""
        sums.add_draw(draw, losses(draw), draw.hidden)

    def estimate(self, sums: Accumulator) -> tuple[Tensor, Tensor]:
        """Minus the means, columns of unit length."""
        mean, error = mean_of(sums.visible_counts, sums.visible_sums, sums.visible_squares)
        # A pair that was never drawn says nothing: 0 would make it the most similar of its column, the mean is neutral.
        known = sums.visible_counts > 0
        column = mean.sum(dim=0, keepdim=True) / known.sum(dim=0, keepdim=True).clamp(min=1)
        mean = torch.where(known, mean, column).fill_diagonal_(0.0)
        length = mean.norm(dim=0, keepdim=True)
        scale = torch.where(length > 0, length, torch.inf)
        return -mean / scale, error.sqrt() / scale

    def dependence(self, similarity: Similarity) -> Tensor:
        """The values less the mean of their column: what is seen helps or harms by comparison with it."""
        values, known = similarity.values, similarity.standard_error > 0
        column = (values * known).sum(dim=0) / known.sum(dim=0).clamp(min=1)
        return torch.where(known, values - column, 0.0)
