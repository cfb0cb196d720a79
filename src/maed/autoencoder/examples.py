"""Examples of what an autoencoder makes of signals that it is shown ever more of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maed.autoencoder.losses import LossName, outputs_of, reconstruction_of
from maed.autoencoder.masking import Draw, MaskedAutoencoder, nested_draws
from maed.data.signals import SignalData
from maed.run_folder import EXAMPLES
from maed.tensors import write_tensors

FRACTIONS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 0.75)
"""Shares of the positions that are shown, beside the one of the training."""

_SIGNALS = 32  # as the original drew
_POOL = 8  # times as many are looked at
_NUMBERS = 2**24  # in all reconstructions
_MEMORY = 2**26  # bytes of reconstruction at a time
_MOST_SHOWN = 4096  # positions: attention among them takes their number squared


def shown_counts(n: int, trained: int) -> list[int]:
    """Numbers of positions that examples show, ascending and distinct: the `FRACTIONS` of `n`, and `trained`.

    At least one is shown and one hidden; not more than 4,096 are, unless the training showed more.
    """
    counts = {count for fraction in FRACTIONS if 0 < (count := round(n * fraction)) < n and count <= _MOST_SHOWN}
    return sorted(counts | {trained})


def write_examples(folder: Path, model: MaskedAutoencoder, data: SignalData, visible: int, loss: LossName) -> None:
    """Write `examples.safetensors`: a few held-out signals, what was shown of them, and their reconstructions.

    `original (S, N, C)` in stored units, or `(S, N)` token ids; `fractions (F,)` float32, ascending; `visible
    (F, S, N)` bool, what a smaller fraction shows a larger one shows too; `reconstruction (F, S, N, C)` or `(F, S, N)`.
    S is 32, or as many as make 2**24 numbers; memory is that of the file. Of eight times as many real signals those of
    the most contrast are taken, for an even one shows nothing.

    Args:
        folder: Folder of the autoencoder.
        model: Trained.
        data: The data whose held-out signals are taken.
        visible: Number of positions that the training showed.
        loss: The loss, which says what the model's outputs mean.
    """
    n, counts = data.positions, shown_counts(data.positions, visible)
    generator = np.random.default_rng(0)
    most = max(1, _NUMBERS // (len(counts) * n * (data.channels or 1)))
    count = min(_SIGNALS, most, len(data.validation))
    rows = generator.permutation(len(data.validation))[: count if data.kind == "tokens" else _POOL * count]
    if data.kind == "real":
        spread = data.validation.take(rows).std(dim=1, correction=0).mean(dim=1)
        rows = rows[np.argsort(-spread.numpy(), kind="stable")[:count]]
    draws = list(nested_draws(data.validation, generator, rows=rows, counts=counts))
    outputs = outputs_of(loss, channels=data.channels, vocabulary=data.vocabulary)
    at_once = max(1, _MEMORY // (4 * outputs * n))
    tensors = {
        "original": draws[0].targets,
        "visible": torch.stack([_shown(draw) for draw in draws]),
        "reconstruction": torch.stack([torch.cat([*_predicted(model, draw, loss, at_once)]) for draw in draws]),
    }
    if data.kind == "real":
        held_out = data.validation
        for name in ("original", "reconstruction"):
            if held_out.common is not None:
                tensors[name] = tensors[name] * torch.from_numpy(held_out.rest)
                tensors[name] += torch.from_numpy(held_out.common[rows])[:, None]
            tensors[name] = tensors[name] * torch.from_numpy(held_out.scale) + torch.from_numpy(held_out.mean)
    tensors["fractions"] = torch.tensor(counts, dtype=torch.float32) / n
    write_tensors(folder / EXAMPLES, tensors)


@torch.no_grad()
def _predicted(model: MaskedAutoencoder, draw: Draw, loss: LossName, at_once: int) -> Iterator[Tensor]:
    """The reconstructions of a draw, a few signals at a time: over a vocabulary, each takes N times as much."""
    for start in range(0, len(draw.visible), at_once):
        part = slice(start, start + at_once)
        mask = None if draw.visible_mask is None else draw.visible_mask[part]
        yield reconstruction_of(model.predict(draw.values[part], draw.visible[part], draw.scored, mask), loss)


def _shown(draw: Draw) -> Tensor:
    """`(S, N)` bool."""
    shown = torch.zeros(draw.hidden.shape, dtype=torch.bool)
    filler = torch.ones_like(draw.visible, dtype=torch.bool) if draw.visible_mask is None else draw.visible_mask
    return shown.scatter_(1, draw.visible, filler)
