"""Streaming draws through a trained autoencoder into the sums that similarities are made of."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from maed.autoencoder.losses import LossName, position_losses
from maed.autoencoder.masking import Draw, MaskedAutoencoder, make_draw
from maed.data.signals import Signals
from maed.data.source import first_line
from maed.errors import MaedError
from maed.files import read_json, replacing, write_json
from maed.settings import SimilaritySettings
from maed.similarity.estimators import Similarity, estimate
from maed.similarity.sums import Accumulator, PairedSums

Progress = Callable[[int, int], None]
"""Told how many draws are done, of how many."""

Halves = tuple[Accumulator, Accumulator] | tuple[PairedSums, PairedSums]

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
    """What came of a stream of draws.

    Args:
        halves: the sums of two disjoint halves of the draws.
        draws: how many were made.
        seconds: what they took, before a stop too.
        changed: after how many draws the neighbor lists were looked at, and the share that had changed since the
            look before; empty unless `until` is `stable`.
        history: what was `watch`ed, an entry for each power of two of the draws from 1,024 on, and for the last.
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
        model: the trained autoencoder.
        signals: where draws are taken from.
        settings: estimator, number of draws and when to stop, batch size, seed.
        visible: positions shown.
        loss: what a position's loss is.
        outputs: numbers that the model puts out for a position; bounds the memory of a batch.
        device: where to compute.
        half_precision: reconstruct under bf16 autocast; losses and sums stay float32 and float64.
        folder: keeps partial sums here every minute, and goes on from them.
        progress: told of every batch.
        watch: given the sums now and then; it changes nothing of them, and its time is not counted.

    Raises:
        MaedError: a transform that the loss has no use for, or one visible position to ablate.
    """
    n = signals.values.shape[1]
    check_estimator(settings, visible=visible, loss=loss)
    transform = transform_of(settings, loss)
    repeats = settings.repeats if settings.estimator == "contrast" else 1
    state = _resume(folder, settings, n, signals.mask is not None, device)
    batches = max(2, -(-settings.draws // settings.batch_size))
    started = saved = now = time.monotonic()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=half_precision)
    while state.done < batches and not state.stable:
        if settings.seconds is not None and state.done > 1 and state.seconds + now - started > settings.seconds:
            break
        generator = np.random.default_rng((settings.seed, state.done))
        rows = generator.integers(0, len(signals), size=settings.batch_size // repeats).repeat(repeats)
        draw = make_draw(signals, generator, rows=rows, visible=visible, scored=None).to(device)
        half = state.halves[state.done % 2]
        if isinstance(half, PairedSums):
            with autocast:
                _add_ablations(half, model, draw, loss, transform, outputs)
        else:
            with autocast:
                losses = _transformed(draw_losses(model, draw, loss, outputs), transform)
            scored = draw.hidden
            if repeats > 1:
                losses, scored = centered(losses, scored, repeats)
            real = signals.real(rows)
            half.add(losses, shown(draw, n), scored, None if real is None else real.to(device))
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
    """Whether the last batch of draws reached a power of two, from the first on that is watched."""
    return drawn >= _FIRST_WATCHED and drawn.bit_length() > (drawn - batch).bit_length()


Transform = Literal["none", "root", "log"]


def check_estimator(settings: SimilaritySettings, *, visible: int, loss: LossName) -> None:
    """Refuse what the estimator cannot do with this loss and so many positions `visible`."""
    if settings.estimator == "ablation" and visible < 2:
        raise MaedError("similarity.visible_fraction: shows 1 position; ablation needs 2 or more, to hide one of them")
    if settings.transform in ("root", "log") and loss == "gaussian":
        raise MaedError(
            f"similarity.transform: {settings.transform!r} of a likelihood, which may be negative; it may be none"
        )


def transform_of(settings: SimilaritySettings, loss: LossName) -> Transform:
    """What is taken of each loss: as set, or the root of squared errors, whose tail is heavy.

    A few hard signals would otherwise carry most of the variance. The original's `mean-loss` is left as it was.
    """
    if settings.transform == "auto":
        return "root" if loss == "mse" and settings.estimator != "mean-loss" else "none"
    return settings.transform


def _transformed(losses: Tensor, transform: Transform) -> Tensor:
    if transform == "root":
        return losses.sqrt()
    return (losses + _LOG_FLOOR).log() if transform == "log" else losses


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
        repeats: draws of each signal.

    Returns:
        The residuals `(B, N)`, and `(B, N)` bool: scored in two draws of the signal at least.
    """
    shape = (-1, repeats, losses.shape[1])
    loss, hit = losses.reshape(shape).double(), scored.reshape(shape)
    count = hit.sum(dim=1, keepdim=True).double()
    mean = torch.where(hit, loss, 0.0).sum(dim=1, keepdim=True) / count.clamp(min=1)
    scale = (count / (count - 1).clamp(min=1)).sqrt()
    return ((loss - mean) * scale).reshape(losses.shape), (hit & (count > 1)).reshape(scored.shape)


def _add_ablations(
    sums: PairedSums, model: MaskedAutoencoder, draw: Draw, loss: LossName, transform: Transform, outputs: int
) -> None:
    """Hide each visible position of every signal in turn, and add by how much the losses rise."""
    before = _transformed(draw_losses(model, draw, loss, outputs), transform)
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
        after = _transformed(draw_losses(model, without, loss, outputs), transform)
        sums.add(after - before[usable], draw.visible[usable, place], without.hidden)


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


def write_similarity(
    folder: Path, similarity: Similarity, sums: Accumulator | PairedSums | None, config: dict[str, object]
) -> None:
    """Write `config.json` and `model.safetensors` {similarity, standard_error, counts, sums, squares}.

    A baseline has no sums; of `ablation` they are `(1, N, N)` float64, of the other estimators `(2, N, N)`: draws with
    i visible, with i hidden.
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
    """Read what `write_similarity` wrote.

    Raises:
        MaedError: nothing is there, or something else than a similarity and its standard error, `(N, N)` and finite.
    """
    path = folder / "model.safetensors"
    if not path.is_file():
        raise MaedError(f"run: {folder} holds no similarity; `maed similarity` writes one")
    try:
        tensors = load_file(path)
        values, error = tensors["similarity"], tensors["standard_error"]
    except (SafetensorError, KeyError) as problem:
        raise MaedError(f"{path}: not the file of a similarity ({first_line(problem)})") from None
    if values.ndim != 2 or values.shape[0] != values.shape[1] or error.shape != values.shape:
        shapes = f"{tuple(values.shape)} and {tuple(error.shape)}"
        raise MaedError(f"{path}: similarity and standard_error of shapes {shapes}; they may be (N, N)")
    if not values.is_floating_point() or not values.float().isfinite().all():
        raise MaedError(f"{path}: similarity of {values.dtype}, or not finite; it may be finite floats")
    return Similarity(values, error)


_PARTIAL = ("partial.json", "partial-0.safetensors", "partial-1.safetensors")


@dataclass
class _State:
    """How far a stream is: batches done, their sums, seconds taken, neighbor lists as they were last looked at."""

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
    ranked = (similarity + similarity.T).fill_diagonal_(-torch.inf)
    lists = torch.zeros_like(ranked, dtype=torch.bool)
    return lists.scatter_(1, ranked.topk(k, dim=1).indices, True)


def merged(halves: Halves) -> Accumulator | PairedSums:
    """The sums over all draws."""
    first, second = halves
    return first.merge(second)  # type: ignore[arg-type]


def _size(sums: Accumulator | PairedSums) -> float:
    return float((sums.counts if isinstance(sums, PairedSums) else sums.all_counts).sum())


def _save_partial(folder: Path, state: _State, seconds: float) -> None:
    """Keep the sums so far. Their sizes are written too: a stop between two writes must not go unnoticed."""
    state.seconds += seconds
    for half, name in zip(state.halves, _PARTIAL[1:], strict=True):
        half.save(folder / name)
    sizes = [_size(half) for half in state.halves]
    lists = None if state.neighbors is None else state.neighbors.nonzero()[:, 1].view(len(state.neighbors), -1)
    content = {
        "done": state.done,
        "counts": sizes,
        "seconds": state.seconds,
        "changed": state.changed,
        "history": state.history,
        "neighbors": None if lists is None else lists.tolist(),  # as they were looked at, not as they are now
    }
    write_json(folder / _PARTIAL[0], content)


def _resume(folder: Path | None, settings: SimilaritySettings, n: int, padded: bool, device: torch.device) -> _State:
    """Where a stopped stream was; the beginning where a stop left the partial files broken or disagreeing."""
    start: Halves
    if settings.estimator == "ablation":
        start = PairedSums.empty(n, device=device), PairedSums.empty(n, device=device)
    else:
        first, second = (Accumulator.empty(n, padded=padded, device=device) for _ in range(2))
        start = first, second
    if folder is None or not (folder / _PARTIAL[0]).is_file():
        return _State(0, start)
    try:
        return _resumed(folder, start, settings, n, device) or _State(0, start)
    except Exception:  # cut short, or not what `_save_partial` writes: readers raise many kinds
        return _State(0, start)


def _resumed(folder: Path, start: Halves, settings: SimilaritySettings, n: int, device: torch.device) -> _State | None:
    """What the partial files hold; None where they disagree, or are of other sums than `start` has."""
    there = read_json(folder / _PARTIAL[0])
    halves = tuple(type(start[0]).load(folder / name, device) for name in _PARTIAL[1:])
    shapes = [[tensor.shape for tensor in half.tensors()] for half in (*halves, *start)]
    if [_size(half) for half in halves] != there["counts"] or shapes[:2] != shapes[2:]:
        return None
    state = _State(int(there["done"]), halves, float(there["seconds"]))  # type: ignore[arg-type]
    state.changed = [(int(drawn), float(share)) for drawn, share in there["changed"]]
    state.history = list(there.get("history") or [])
    if there["neighbors"] is not None:
        lists = torch.zeros(n, n, dtype=torch.bool)
        state.neighbors = lists.scatter_(1, torch.tensor(there["neighbors"]), True)
        state.stable = state.changed[-1][1] <= settings.tolerance
    return state
