"""Hide one visible position more, and see by how much the loss at the others rises."""

from __future__ import annotations

import torch
from torch import Tensor

from maed.autoencoder.losses import LossName
from maed.autoencoder.masking import Draw
from maed.errors import MaedError
from maed.settings import SimilaritySettings
from maed.similarity.estimator import Estimator, Losses
from maed.similarity.sums import PairedSums, mean_of


class Ablation(Estimator[PairedSums]):
    """S_ij = mean of l_j(V without i) - l_j(V), over draws of V with i visible.

    The two losses are of one signal, so what is hard about it cancels. A draw takes V + 1 passes.
    """

    sums = PairedSums

    def check(self, settings: SimilaritySettings, *, visible: int, loss: LossName) -> None:
        """Refuse one visible position, of which none is left."""
        super().check(settings, visible=visible, loss=loss)
        if visible < 2:
            raise MaedError("similarity.visible_fraction must show at least 2 positions for ablation, shows 1")

    def add(self, sums: PairedSums, draw: Draw, losses: Losses, repeats: int) -> None:
        """Hide each visible position of every signal in turn, and add by how much the losses rise."""
        before = losses(draw)  # (B, N)
        places = draw.visible.shape[1]
        mask = torch.ones_like(draw.visible, dtype=torch.bool) if draw.visible_mask is None else draw.visible_mask
        for place in range(places):
            kept = [i for i in range(places) if i != place]
            usable = mask[:, place] & mask[:, kept].any(dim=1)  # a signal that shows nothing else cannot be judged
            if not usable.any():
                continue
            without = Draw(
                draw.values[usable][:, kept],
                draw.visible[usable][:, kept],
                None if draw.visible_mask is None else draw.visible_mask[usable][:, kept],
                draw.scored,
                draw.targets[usable],
                draw.hidden[usable],
            )
            sums.add(losses(without) - before[usable], draw.visible[usable, place], without.hidden)

    def estimate(self, sums: PairedSums) -> tuple[Tensor, Tensor]:
        """The mean rise."""
        mean, error = mean_of(sums.counts, sums.sums, sums.squares)
        return mean, error.sqrt()
