"""Many positions: an autoencoder of few of them, where it says that all others lie, and regions of near ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maed.autoencoder.losses import LossName
from maed.autoencoder.masking import MaskedAutoencoder, make_draw
from maed.data.signals import Signals

FEW = 2_048
"""Positions that an autoencoder is trained on first, drawn at random: all pairs of so many meet in its draws."""

REGION, CORE = 1_024, 256
"""Positions of a region, and how many of them are its core: around it lies all that is near to any of these."""

_SIGNALS, _PASSES = 8_192, 3
"""Signals that tell where positions lie, at the most, and reconstructions of each, which are averaged."""

_BATCH, _BLOCK = 128, 8_192  # signals, and positions, at a time


@dataclass(frozen=True)
class Region:
    """A place among many positions, in which draws are made as if there were no others.

    Args:
        positions: `(R,)` int64, the core first.
        core: how many positions are in no other region's core: those that a similarity scores here.
    """

    positions: np.ndarray
    core: int


def regions(vectors: Tensor) -> list[Region]:
    """Divide positions into cores of 256 at the most, and give each the 1,024 that are nearest to its middle.

    Cores are halves of halves, across the longest extent of each (a principal-axis tree), so that they are compact and
    about equally large. Time grows with N log N for these, and with N^2 / 256 multiplications of vectors for what is
    around them, 1/256 of an exact search of neighbors; memory with N.

    Args:
        vectors: `(N, d)`: near positions have near ones.
    """
    x = vectors.detach().float().cpu()
    squares, cores, parts = x.square().sum(dim=1), [], [torch.arange(len(x))]
    while parts:
        part = parts.pop()
        if len(part) <= CORE:
            cores.append(part)
            continue
        centered = x[part] - x[part].mean(dim=0)
        axis = torch.linalg.eigh(centered.T @ centered)[1][:, -1]
        order = part[(centered @ axis).argsort(stable=True)]
        parts += [order[len(order) // 2 :], order[: len(order) // 2]]
    found = []
    for core in cores:
        distance = squares - 2 * (x @ x[core].mean(dim=0))
        distance[core] = torch.inf
        around = distance.topk(min(REGION, len(x)) - len(core), largest=False).indices
        found.append(Region(torch.cat([core, around]).numpy(), len(core)))
    return found


def few_positions(n: int, seed: int) -> np.ndarray:
    """The positions that an autoencoder is trained on first, ascending `(2048,)`; all where there are no more."""
    return np.sort(np.random.default_rng((seed, n)).permutation(n)[:FEW])


@torch.inference_mode()
def placed(
    model: MaskedAutoencoder,
    few: np.ndarray,
    signals: Signals,
    *,
    visible: int,
    loss: LossName,
    dim: int,
    device: torch.device,
) -> Tensor:
    """Where all positions lie by what an autoencoder of a few of them reconstructs.

    A position whose values go with what is reconstructed at another lies near to it. So K_jm, the size of the
    covariance of what signals hold at j with what is made of them at m, from other positions, is a kernel of the
    places of j and m, and hardly any noise is in it: that of a reconstruction is averaged out, that of position j over
    all signals. Vectors are the leading principal components of its rows, each divided by the root of its deviation,
    so that their products are those of the kernel (Nystroem's features: Williams and Seeger, NIPS 2000). Nothing but
    the autoencoder is asked how near two positions are.

    For n signals time grows with 3 n M (V + width) for the reconstructions, of M positions of which V are visible, and
    with n M N for the products; memory with N, and n M.

    Args:
        model: trained on the positions `few` alone, in evaluation mode, on the device.
        few: `(M,)` positions.
        signals: of all positions, real ones.
        visible: positions shown.
        loss: what the model puts out.
        dim: channels of the vectors, below M.
        device: where to compute.

    Returns:
        `(N, dim)` float32.
    """
    generator, n = np.random.default_rng(0), signals.values.shape[1]
    rows = np.sort(generator.permutation(len(signals))[:_SIGNALS])
    some = signals.at(few, rows)
    made = []
    for start in range(0, len(rows), _BATCH):
        part = np.arange(start, min(start + _BATCH, len(rows)))
        passes = []
        for _ in range(_PASSES):
            draw = make_draw(some, generator, rows=part, visible=visible, scored=None).to(device)
            output = model.predict(draw.values, draw.visible, draw.scored, draw.visible_mask).float()
            if loss == "gaussian":  # what is expected of a value, and of its square
                mean, log_variance = output.chunk(2, dim=-1)
                output = torch.cat([mean, mean.square() + log_variance.exp()], dim=-1)
            passes.append(output)
        made.append(torch.stack(passes).mean(dim=0))
    found = torch.cat(made)
    found = found - found.mean(dim=0)  # (n, M, channels)

    def kernel(positions: np.ndarray) -> Tensor:
        """Rows of K, `(P, M)`, the mean over channels, without the means of rows."""
        total = torch.zeros(1, device=device)
        count = torch.full((len(positions), 1), float(len(rows)) if signals.mask is None else 0.0, device=device)
        for start in range(0, len(rows), _BATCH):
            part = rows[start : start + _BATCH]
            x = signals.gather(part, positions).to(device)
            x = torch.cat([x, x.square()], dim=-1) if loss == "gaussian" else x
            real = signals.real(part)
            if real is not None:
                there = real[:, torch.from_numpy(positions)].to(device)
                x, count = x * there[..., None], count + there.sum(dim=0)[:, None]
            total = total + torch.einsum("bpc,bmc->cpm", x, found[start : start + len(part)])
        size = (total / count.clamp(min=1)).abs().mean(dim=0)
        return size - size.mean(dim=1, keepdim=True)

    own = kernel(few)
    middle = own.mean(dim=0)
    spread, axes = torch.linalg.eigh((own - middle).T.double() @ (own - middle).double())
    scale = (spread[-dim:].clamp(min=1e-12 * float(spread[-1])) / len(few)) ** 0.25  # the root of a deviation
    basis = (axes[:, -dim:] / scale).float()
    blocks = [np.arange(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]
    return torch.cat([((kernel(block) - middle) @ basis).cpu() for block in blocks])
