"""Streaming draws through a trained autoencoder into the sums that similarities are made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from maed.autoencoder.masking import Draw, make_draw
from maed.autoencoder.model import LossName, MaskedAutoencoder, position_losses
from maed.config import SimilaritySettings
from maed.data.signals import Signals
from maed.errors import MaedError
from maed.files import read_json, replacing, write_json
from maed.similarity.accumulator import Accumulator
from maed.similarity.estimators import Similarity

Progress = Callable[[int, int], None]
"""Told how many draws are done, of how many."""

_SAVE_EVERY = 60.0  # seconds
_MEMORY = 1 << 26  # bytes of reconstruction at a time


def stream(
    model: MaskedAutoencoder,
    signals: Signals,
    settings: SimilaritySettings,
    *,
    visible: int,
    loss: LossName,
    outputs: int,
    device: torch.device,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> tuple[Accumulator, Accumulator]:
    """Draw signals with random visible positions, score every hidden position, and sum.

    Batch t depends on the seed and on t alone, and even and odd batches go to different sums. Time of a draw grows
    with N (V + width) for V visible positions, plus N^2 for the sums.

    Args:
        model: the trained autoencoder.
        signals: where draws are taken from.
        settings: number of draws, batch size, seed.
        visible: positions shown.
        loss: what a position's loss is.
        outputs: channels or logits that the model puts out for a position; bounds the memory of a batch.
        device: where to compute.
        folder: keeps partial sums here every minute, and goes on from them.
        progress: told of every batch.

    Returns:
        The sums of two disjoint halves of the draws.
    """
    n = signals.values.shape[1]
    done, halves = _resume(folder, n, signals.mask is not None, device)
    saved = time.monotonic()
    batches = -(-settings.draws // settings.batch_size)
    for step in range(done, max(2, batches)):
        generator = np.random.default_rng((settings.seed, step))
        rows = generator.integers(0, len(signals), size=settings.batch_size)
        draw = make_draw(signals, generator, rows=rows, visible=visible, scored=None).to(device)
        real = signals.real(rows)
        losses = draw_losses(model, draw, loss, outputs)
        halves[step % 2].add(losses, shown(draw, n), draw.hidden, None if real is None else real.to(device))
        if progress is not None:
            progress(min((step + 1) * settings.batch_size, settings.draws), settings.draws)
        if folder is not None and time.monotonic() - saved > _SAVE_EVERY:
            _save_partial(folder, step + 1, halves)
            saved = time.monotonic()
    return halves


@torch.inference_mode()
def draw_losses(model: MaskedAutoencoder, draw: Draw, loss: LossName, outputs: int) -> Tensor:
    """l_j of every scored position of a draw, `(B, S)`, a few signals at a time so that memory stays bounded."""
    at_once = max(1, _MEMORY // (4 * outputs * len(draw.scored)))
    parts = []
    for start in range(0, len(draw.visible), at_once):
        part = slice(start, start + at_once)
        mask = None if draw.visible_mask is None else draw.visible_mask[part]
        reconstruction = model.predict(draw.values[part], draw.visible[part], draw.scored, mask)
        parts.append(position_losses(reconstruction, draw.targets[part], loss))
    return torch.cat(parts)


def shown(draw: Draw, n: int) -> Tensor:
    """The visible positions of a draw as `(B, N)` bool."""
    marks = torch.zeros(len(draw.visible), n, dtype=torch.bool, device=draw.visible.device)
    real = torch.ones_like(draw.visible, dtype=torch.bool) if draw.visible_mask is None else draw.visible_mask
    rows = torch.arange(len(marks), device=marks.device)[:, None].expand_as(draw.visible)
    marks[rows[real], draw.visible[real]] = True
    return marks


def write_similarity(folder: Path, similarity: Similarity, sums: Accumulator | None, config: dict[str, object]) -> None:
    """Write `config.json` and `model.safetensors` {similarity, standard_error, counts, sums, squares}.

    A baseline has no sums; of an estimator they are `(2, N, N)` float64: draws with i visible, with i hidden.
    """
    tensors = {"similarity": similarity.values, "standard_error": similarity.standard_error}
    if sums is not None:
        tensors |= sums.stacked()
    write_json(folder / "config.json", {"schema": 1, "n": len(similarity.values), **config})
    with replacing(folder / "model.safetensors") as temporary:  # last: it marks the stage as finished
        save_file(tensors, temporary)
    for name in _PARTIAL:
        (folder / name).unlink(missing_ok=True)


def load_similarity(folder: Path) -> Similarity:
    """Read what `write_similarity` wrote."""
    if not (folder / "model.safetensors").is_file():
        raise MaedError(f"run: {folder} holds no similarity; `maed similarity` writes one")
    tensors = load_file(folder / "model.safetensors")
    return Similarity(tensors["similarity"], tensors["standard_error"])


_PARTIAL = ("partial.json", "partial-0.safetensors", "partial-1.safetensors")


def _save_partial(folder: Path, done: int, halves: tuple[Accumulator, Accumulator]) -> None:
    """Keep the sums so far. `done` is written with each half too: a stop between two writes must not go unnoticed."""
    for i, half in enumerate(halves):
        half.save(folder / _PARTIAL[1 + i])
    sizes = [float(half.all_counts.sum()) for half in halves]
    write_json(folder / _PARTIAL[0], {"done": done, "counts": sizes})


def _resume(
    folder: Path | None, n: int, padded: bool, device: torch.device
) -> tuple[int, tuple[Accumulator, Accumulator]]:
    """How many batches are done, and their sums; nothing where a stop left the partial files disagreeing."""
    if folder is not None and (folder / _PARTIAL[0]).is_file():
        state = read_json(folder / _PARTIAL[0])
        first, second = (Accumulator.load(folder / name, device) for name in _PARTIAL[1:])
        if [float(half.all_counts.sum()) for half in (first, second)] == state["counts"]:
            return state["done"], (first, second)
    first, second = (Accumulator.empty(n, padded=padded, device=device) for _ in range(2))
    return 0, (first, second)
