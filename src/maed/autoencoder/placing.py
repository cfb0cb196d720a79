"""Many positions: an autoencoder of some of them, the landmarks, and where it says that all others lie."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from maed.autoencoder.losses import LossName
from maed.autoencoder.masking import MaskedAutoencoder, make_draw
from maed.data.signals import Signals

LANDMARKS = 2_048
"""Positions that the autoencoder is trained on where all are too many: all pairs of so many meet in its draws."""

_SIGNALS, _PASSES = 8_192, 3
"""Signals that tell where positions lie, at the most, and reconstructions of each, which are averaged."""

_BATCH, _BLOCK = 128, 8_192  # signals, and positions, at a time


def landmarks(n: int, seed: int) -> np.ndarray:
    """2,048 of `n` positions, drawn at random, ascending; all where there are no more."""
    return np.sort(np.random.default_rng((seed, n)).permutation(n)[:LANDMARKS])


class Placed(NamedTuple):
    """Vectors of all positions, `(N, d)` float32 each.

    Args:
        vectors: Vectors from all signals that were read.
        halves: Vectors from each of two disjoint halves of these signals.
    """

    vectors: Tensor
    halves: tuple[Tensor, Tensor]


@torch.inference_mode()
def place(
    model: MaskedAutoencoder,
    at: np.ndarray,
    signals: Signals,
    *,
    visible: int,
    loss: LossName,
    dim: int,
    device: torch.device,
) -> Placed:
    """Place all positions by what an autoencoder of the landmarks reconstructs.

    A position whose values go with what is reconstructed at a landmark lies near it. So K_jm, the size of the
    covariance over signals of the values at j with the reconstruction of m from other positions, is a kernel of the
    places of j and m. It holds hardly any noise: that of a reconstruction is averaged out by the model, that of
    position j over all signals. Vectors are the leading principal components of the rows of K, each divided by the root
    of its standard deviation, so that inner products of vectors approximate the kernel (Nystroem features: Williams and
    Seeger, NIPS 2000). Nothing but the autoencoder is asked how near two positions are.

    With n signals and M landmarks of which V are visible, time grows with 3 n M (V + width) for the reconstructions
    and n M N for the products, memory with n M + N d.

    Args:
        model: Trained on the landmarks, in evaluation mode, on the device.
        at: `(M,)` positions, the landmarks.
        signals: Signals of all N positions, with real channels. At most 8,192 of them are read.
        visible: Landmarks that each signal shows.
        loss: The loss, which says what the model's outputs mean.
        dim: Channels d of the vectors, below M.
        device: Device that computes.
    """
    generator, n = np.random.default_rng(0), signals.values.shape[1]
    rows = np.sort(generator.permutation(len(signals))[:_SIGNALS])
    made = _reconstructed(model, signals.at(at, rows), generator, visible, loss, device)

    def half(which: int, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        """Sums `(C, P, M)` of values times reconstructions over every other signal, and counts `(P, 1)`."""
        own, total = np.arange(which, len(rows), 2), torch.zeros(1, device=device)
        count = torch.zeros(len(positions), 1, device=device)
        for start in range(0, len(own), _BATCH):
            part = own[start : start + _BATCH]
            x = signals.gather(rows[part], positions).to(device)  # (B, P, C)
            x = torch.cat([x, x.square()], dim=-1) if loss == "gaussian" else x
            real = signals.real(rows[part])
            if real is None:
                count += len(part)
            else:
                there = real[:, torch.from_numpy(positions)].to(device)
                x, count = x * there[..., None], count + there.sum(dim=0)[:, None]
            total = total + torch.einsum("bpc,bmc->cpm", x, made[torch.from_numpy(part).to(device)])
        return total, count

    def kernels(positions: np.ndarray) -> list[Tensor]:
        """Rows of K `(P, M)` by all signals and by either half: the mean over channels, without the means of rows."""
        (a, count_a), (b, count_b) = half(0, positions), half(1, positions)
        sums = ((a + b, count_a + count_b), (a, count_a), (b, count_b))
        sizes = [(total / count.clamp(min=1)).abs().mean(dim=0) for total, count in sums]
        return [size - size.mean(dim=1, keepdim=True) for size in sizes]

    bases = []
    for own in kernels(at):
        middle = own.mean(dim=0)
        variances, axes = torch.linalg.eigh((own - middle).T.double() @ (own - middle).double())
        scale = (variances[-dim:].clamp(min=1e-12 * float(variances[-1])) / len(at)) ** 0.25  # the root of a deviation
        bases.append((middle, (axes[:, -dim:] / scale).float()))
    vectors = torch.empty(3, n, dim)
    for start in range(0, n, _BLOCK):
        block = np.arange(start, min(start + _BLOCK, n))
        for which, (rows_of_kernel, (middle, basis)) in enumerate(zip(kernels(block), bases, strict=True)):
            vectors[which, start : start + len(block)] = ((rows_of_kernel - middle) @ basis).cpu()
    return Placed(vectors[0], (vectors[1], vectors[2]))


def _reconstructed(
    model: MaskedAutoencoder,
    signals: Signals,
    generator: np.random.Generator,
    visible: int,
    loss: LossName,
    device: torch.device,
) -> Tensor:
    """Reconstructions of positions from other ones, without the mean over signals: `(n, M, channels)`.

    Of `gaussian` outputs these are the expected value and the expected square.
    """
    found = []
    for start in range(0, len(signals), _BATCH):
        part = np.arange(start, min(start + _BATCH, len(signals)))
        total, passes = torch.zeros(1, device=device), torch.zeros(1, device=device)
        for _ in range(_PASSES):
            draw = make_draw(signals, generator, rows=part, visible=visible, scored=None).to(device)
            output = model.predict(draw.values, draw.visible, draw.scored, draw.visible_mask).float()
            if loss == "gaussian":
                mean, log_variance = output.chunk(2, dim=-1)
                output = torch.cat([mean, mean.square() + log_variance.exp()], dim=-1)
            hidden = draw.hidden[..., None].float()
            total, passes = total + output * hidden, passes + hidden
        found.append(total / passes.clamp(min=1))
    whole = torch.cat(found)
    return whole - whole.mean(dim=0)
