"""Streaming draws through a trained autoencoder into the sums that similarities are made of."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from maed import ranks
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
    shared: bool = False,
) -> Streamed:
    """Draw signals with random visible positions, score every hidden position, and sum.

    Batch t depends on the seed and on t alone, and even and odd batches go to different sums. Time of a draw grows
    with N (V + width) for V visible positions, plus N^2 for the sums; of `ablation` V + 1 times as much.

    Where it is `shared`, the other processes of the command call `share_stream`. They take batches from one another
    until the next look at the sums, at the latest after a minute; then all sums are added up here. The result is that
    of one process, but for the order in which float64 numbers are added.

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
        watch: Given the sums now and then; it changes nothing of them, and its time is not counted, unless others draw
            meanwhile.
        shared: Whether other processes help.

    Returns:
        Sums of the even and of the odd batches, the number of draws, and how it went.

    Raises:
        MaedError: a transform that the loss has no use for, or one visible position to ablate.
    """
    score = _Scoring(model, signals, settings, visible, loss, outputs, device, half_precision)
    state = _resume(folder, score.empty(), settings)
    batches = max(2, -(-settings.draws // settings.batch_size))
    legs, own = (ranks.Legs(), score.empty()) if shared else (None, state.halves)
    started = saved = now = time.monotonic()

    def told(number: int) -> None:
        if progress is not None:
            progress(min((number + 1) * settings.batch_size, settings.draws), settings.draws)

    def next_leg() -> range | None:
        """The batches until the sums are needed; None if there are to be no more."""
        if state.done >= batches or state.stable:
            return None
        seconds = state.seconds + now - started
        if settings.seconds is not None and state.done > 1 and seconds > settings.seconds:
            return None
        if legs is None:
            return range(state.done, state.done + 1)
        pace = state.done / seconds if seconds else 0.0  # of all processes, those of a session before too
        left = _SAVE_EVERY if settings.seconds is None else min(_SAVE_EVERY, settings.seconds - seconds)
        most = min(batches, state.done + max(2 * ranks.world(), int(pace * left)))
        size, looked = settings.batch_size, settings.until == "stable"
        for end in range(state.done + 1, most):
            if (watch is not None and _is_watched(end * size, size)) or (looked and end * size >= state.next_look()):
                return range(state.done, end)
        return range(state.done, most)

    leg = next_leg()
    if legs is not None:
        legs.begin(leg)
    while leg is not None:
        for number in leg if legs is None else legs.taken(leg):
            score.add(number, own)
            told(number)
        if legs is not None:
            try:
                _collect(own, state.halves)
            except RuntimeError:  # a process was lost, and with it what this leg has added
                if folder is not None:
                    _save_partial(folder, state, now - started)
                raise
        state.done = leg.stop
        drawn = state.done * settings.batch_size
        if settings.until == "stable":
            _look(state, drawn, settings)
        now = time.monotonic()
        leg = next_leg()
        if legs is not None:
            legs.begin(leg)  # the others need not wait for what is measured and written here
        if watch is not None and _is_watched(drawn, settings.batch_size):
            state.note(drawn, now - started, watch)
            if legs is None:  # otherwise draws are made meanwhile
                started += time.monotonic() - now
            now = time.monotonic()
        if folder is not None and now - saved > _SAVE_EVERY:
            _save_partial(folder, state, now - started)
            saved = started = now
    took, drawn = time.monotonic() - started, state.done * settings.batch_size
    if watch is not None and [entry["draws"] for entry in state.history[-1:]] != [drawn]:
        state.note(drawn, took, watch)
    return Streamed(state.halves, drawn, state.seconds + took, state.changed, state.history)


def share_stream(
    model: MaskedAutoencoder,
    signals: Signals,
    settings: SimilaritySettings,
    *,
    visible: int,
    loss: LossName,
    outputs: int,
    device: torch.device,
    half_precision: bool = False,
) -> None:
    """The part of another process in a `stream` that is shared, with the same arguments."""
    score = _Scoring(model, signals, settings, visible, loss, outputs, device, half_precision)
    legs, own = ranks.Legs(), score.empty()
    for leg in legs.follow():
        for number in legs.taken(leg):
            score.add(number, own)
        _collect(own, None)


@dataclass(frozen=True)
class _Scoring:
    """The arguments of `stream` that decide what a batch of draws adds to the sums."""

    model: MaskedAutoencoder
    signals: Signals
    settings: SimilaritySettings
    visible: int
    loss: LossName
    outputs: int
    device: torch.device
    half_precision: bool

    def __post_init__(self) -> None:
        self.estimator.check(self.settings, visible=self.visible, loss=self.loss)

    @cached_property
    def estimator(self) -> Estimator:
        """The estimator of the settings."""
        estimator: Estimator = ESTIMATORS.get(self.settings.estimator, "similarity.estimator")()
        return estimator

    def empty(self) -> Halves:
        """The sums of no draws."""
        n, padded = self.signals.values.shape[1], self.signals.mask is not None
        first, second = (self.estimator.sums.empty(n, padded=padded, device=self.device) for _ in range(2))
        return first, second

    def losses(self, draw: Draw) -> Tensor:
        """The losses `(B, N)` of a draw, transformed."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half_precision):
            found = draw_losses(self.model, draw, self.loss, self.outputs)
            return _transformed(found, transform_of(self.settings, self.loss))

    def add(self, number: int, halves: Halves) -> None:
        """Add the batch with a number."""
        repeats = self.settings.repeats if self.estimator.repeated else 1
        generator = np.random.default_rng((self.settings.seed, number))
        rows = generator.integers(0, len(self.signals), size=self.settings.batch_size // repeats).repeat(repeats)
        draw = make_draw(self.signals, generator, rows=rows, visible=self.visible, scored=None).to(self.device)
        self.estimator.add(halves[number % 2], draw, self.losses, repeats)


def _collect(own: Halves, total: Halves | None) -> None:
    """Add what the processes have summed to the `total`, in process 0, and begin anew."""
    mine = [tensor for half in own for tensor in half.tensors()]
    found = ranks.add_up(mine)
    for tensor in mine:
        tensor.zero_()
    if total is not None:
        for tensor, added in zip((t for half in total for t in half.tensors()), found, strict=True):
            tensor += added.to(tensor.device)


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

    def next_look(self) -> float:
        """The draws after which neighbor lists are compared again."""
        return max(_FIRST_LOOK, (self.changed[-1][0] if self.changed else 0) * _GROWTH)

    def note(self, draws: int, seconds: float, watch: Watch) -> None:
        """Add to the history what is made of the sums, `seconds` after they were begun or taken up again."""
        self.history.append({"draws": draws, "seconds": round(self.seconds + seconds, 3), **watch(self.halves)})


def _look(state: _State, drawn: int, settings: SimilaritySettings) -> None:
    """Compare the neighbor lists with those of a quarter fewer draws; stable where hardly any changed."""
    if drawn < state.next_look():
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
