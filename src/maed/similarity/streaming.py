"""Streaming draws through a trained autoencoder into the sums that similarities are made of."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maed.autoencoder.losses import LossName, position_losses
from maed.autoencoder.masking import Draw, MaskedAutoencoder, make_draw
from maed.data.signals import Signals
from maed.data.source import first_line
from maed.files import read_json, write_json
from maed.registry import ESTIMATORS
from maed.run_folder import PARTIAL
from maed.settings import SimilaritySettings
from maed.similarity.estimator import Estimator, Transform, estimate
from maed.similarity.moments import nearest
from maed.similarity.sums import Sums

Progress = Callable[[int, int], None]
"""Told how many draws are done, of how many."""

Halves = tuple[Sums, Sums]
"""The sums of two disjoint halves of the draws."""

Watch = Callable[[Halves], dict[str, float]]
"""Given the sums of two halves of the draws so far; what it makes of them is kept in the history."""

_SAVE_EVERY = 60.0  # seconds
_MEMORY = 1 << 26  # bytes of reconstruction at a time
_LOG_FLOOR = 0.01  # what is added to a loss before its logarithm
_GROWTH = 1.25  # draws between two looks at the neighbor lists
_FIRST_LOOK = 4_096  # draws
_NEIGHBORS = 8  # in the lists that are looked at
_FIRST_WATCHED = 1_024  # draws; then every power of two


@dataclass(frozen=True)
class Streamed:
    """The result of a stream of draws.

    Args:
        halves: The sums of two disjoint halves of the draws.
        draws: Number of draws made.
        seconds: Time that they took, including time before an interruption.
        changed: Numbers of draws at which the neighbor lists were looked at, and the share that had changed since the
            look before; empty unless `until` is `stable`.
        history: What was `watch`ed, an entry for each power of two of the draws from 1,024 on, and for the last.
    """

    halves: Halves
    draws: int
    seconds: float
    changed: list[tuple[int, float]]
    history: list[dict[str, float]]


def stream(
    model: MaskedAutoencoder,
    signals: Signals,
    settings: SimilaritySettings,
    *,
    visible: int,
    loss: LossName,
    outputs: int,
    device: torch.device,
    half_precision: bool = False,
    folder: Path | None = None,
    progress: Progress | None = None,
    watch: Watch | None = None,
) -> Streamed:
    """Draw signals with random visible positions, score every hidden position, and sum.

    Batch t depends on the seed and on t alone, and even and odd batches go to different sums. Time of a draw grows
    with N (V + width) for V visible positions, plus N^2 for the sums; of `ablation` V + 1 times as much.

    Args:
        model: The trained autoencoder.
        signals: Signals that draws are taken from.
        settings: Estimator, number of draws and when to stop, batch size, seed.
        visible: Positions shown.
        loss: The loss of a position.
        outputs: Numbers in the model's output for a position; bounds the memory of a batch.
        device: Device that computes.
        half_precision: True to reconstruct under bf16 autocast; losses and sums stay float32 and float64.
        folder: Keeps partial sums here every minute, and continues from them.
        progress: Told of every batch.
        watch: Given the sums now and then; it changes nothing of them, and its time is not counted.

    Returns:
        Sums of the even and of the odd batches, the number of draws, and how it went.

    Raises:
        MaedError: a transform that the loss has no use for, or one visible position to ablate.
    """
    n = signals.values.shape[1]
    estimator: Estimator = ESTIMATORS.get(settings.estimator, "similarity.estimator")()
    estimator.check(settings, visible=visible, loss=loss)
    transform = transform_of(settings, loss)
    repeats = settings.repeats if estimator.repeated else 1
    padded = signals.mask is not None
    first, second = (estimator.sums.empty(n, padded=padded, device=device) for _ in range(2))
    state = _resume(folder, (first, second), settings)
    batches = max(2, -(-settings.draws // settings.batch_size))
    started = saved = now = time.monotonic()

    def losses(draw: Draw) -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=half_precision):
            return _transformed(draw_losses(model, draw, loss, outputs), transform)

    while state.done < batches and not state.stable:
        if settings.seconds is not None and state.done > 1 and state.seconds + now - started > settings.seconds:
            break
        generator = np.random.default_rng((settings.seed, state.done))
        rows = generator.integers(0, len(signals), size=settings.batch_size // repeats).repeat(repeats)
        draw = make_draw(signals, generator, rows=rows, visible=visible, scored=None).to(device)
        estimator.add(state.halves[state.done % 2], draw, losses, repeats)
        state.done += 1
        drawn = state.done * settings.batch_size
        if progress is not None:
            progress(min(drawn, settings.draws), settings.draws)
        if settings.until == "stable":
            _look(state, drawn, settings)
        now = time.monotonic()
        if watch is not None and _is_watched(drawn, settings.batch_size):
            state.note(drawn, now - started, watch)
            started += time.monotonic() - now
            now = time.monotonic()
        if folder is not None and now - saved > _SAVE_EVERY:
            _save_partial(folder, state, now - started)
            saved = started = now
    seconds, drawn = state.seconds + time.monotonic() - started, state.done * settings.batch_size
    if watch is not None and [entry["draws"] for entry in state.history[-1:]] != [drawn]:
        state.note(drawn, time.monotonic() - started, watch)
    return Streamed(state.halves, drawn, seconds, state.changed, state.history)


def _is_watched(drawn: int, batch: int) -> bool:
    """True if the last batch of draws reached a power of two, from the first on that is watched."""
    return drawn >= _FIRST_WATCHED and drawn.bit_length() > (drawn - batch).bit_length()


def transform_of(settings: SimilaritySettings, loss: LossName) -> Transform:
    """The transform of losses: as set, or the estimator's choice for squared errors, mostly the root.

    Their tail is heavy: a few hard signals would otherwise carry most of the variance.
    """
    if settings.transform != "auto":
        return settings.transform
    default: Transform = ESTIMATORS.get(settings.estimator).transform
    return default if loss == "mse" else "none"


def _transformed(losses: Tensor, transform: Transform) -> Tensor:
    if transform == "root":
        return losses.sqrt()
    return (losses + _LOG_FLOOR).log() if transform == "log" else losses


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


@dataclass
class _State:
    """The state of a stream: batches done, their sums, seconds taken, and the last neighbor lists."""

    done: int
    halves: Halves
    seconds: float = 0.0
    changed: list[tuple[int, float]] = field(default_factory=list)
    history: list[dict[str, float]] = field(default_factory=list)
    neighbors: Tensor | None = None
    stable: bool = False

    def note(self, draws: int, seconds: float, watch: Watch) -> None:
        """Add to the history what is made of the sums, `seconds` after they were begun or taken up again."""
        self.history.append({"draws": draws, "seconds": round(self.seconds + seconds, 3), **watch(self.halves)})


def _look(state: _State, drawn: int, settings: SimilaritySettings) -> None:
    """Compare the neighbor lists with those of a quarter fewer draws; stable where hardly any changed."""
    last = state.changed[-1][0] if state.changed else 0
    if drawn < max(_FIRST_LOOK, last * _GROWTH):
        return
    similarity = estimate(merged(state.halves), settings.estimator).values
    now = neighbor_lists(similarity, min(_NEIGHBORS, len(similarity) - 1))
    if state.neighbors is not None:
        share = float((now != state.neighbors).sum()) / float(2 * now.sum())
        state.changed.append((drawn, share))
        state.stable = share <= settings.tolerance
    else:
        state.changed.append((drawn, 1.0))
    state.neighbors = now


def neighbor_lists(similarity: Tensor, k: int) -> Tensor:
    """`(N, N)` bool: the k most similar positions of each, by the mean with the transpose."""
    return nearest(similarity + similarity.T, k)


def merged(halves: Halves) -> Sums:
    """The sums over all draws."""
    return halves[0].merge(halves[1])


def _save_partial(folder: Path, state: _State, seconds: float) -> None:
    """Keep the sums so far. Their sizes are written too: a stop between two writes must not go unnoticed."""
    state.seconds += seconds
    for half, name in zip(state.halves, PARTIAL[1:], strict=True):
        half.save(folder / name)
    sizes = [float(half.seen.sum()) for half in state.halves]
    lists = None if state.neighbors is None else state.neighbors.nonzero()[:, 1].view(len(state.neighbors), -1)
    content = {
        "done": state.done,
        "counts": sizes,
        "seconds": state.seconds,
        "changed": state.changed,
        "history": state.history,
        "neighbors": None if lists is None else lists.tolist(),  # as they were looked at, not as they are now
    }
    write_json(folder / PARTIAL[0], content, sealed=True)


def _resume(folder: Path | None, start: Halves, settings: SimilaritySettings) -> _State:
    """The state of an interrupted stream; a new one if its partial files are broken or inconsistent."""
    if folder is None or not (folder / PARTIAL[0]).is_file():
        return _State(0, start)
    try:
        return _resumed(folder, start, settings) or _State(0, start)
    except Exception as error:  # damaged, or not what `_save_partial` writes: readers raise many kinds
        warnings.warn(f"similarity: {first_line(error)}; the draws are made again", stacklevel=3)
        return _State(0, start)


def _resumed(folder: Path, start: Halves, settings: SimilaritySettings) -> _State | None:
    """The state in the partial files; None if they are inconsistent or do not fit the sums of `start`."""
    there, device, n = read_json(folder / PARTIAL[0]), start[0].seen.device, start[0].seen.shape[1]
    first, second = (type(start[0]).load(folder / name, device) for name in PARTIAL[1:])
    shapes = [[tensor.shape for tensor in half.tensors()] for half in (first, second, *start)]
    if [float(half.seen.sum()) for half in (first, second)] != there["counts"] or shapes[:2] != shapes[2:]:
        return None
    state = _State(int(there["done"]), (first, second), float(there["seconds"]))
    state.changed = [(int(drawn), float(share)) for drawn, share in there["changed"]]
    state.history = list(there.get("history") or [])
    if there["neighbors"] is not None:
        lists = torch.zeros(n, n, dtype=torch.bool)
        state.neighbors = lists.scatter_(1, torch.tensor(there["neighbors"]), True)
        state.stable = state.changed[-1][1] <= settings.tolerance
    return state
