"""The probe loss: how well a small masked autoencoder learns when it is given positions. It needs no truth."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from maed.autoencoder.losses import LossName, outputs_of, position_losses
from maed.autoencoder.masking import Draw, make_draw, visible_count
from maed.autoencoder.set import SetAutoencoder
from maed.data.geometry import MEASURED, SAMPLED
from maed.data.signals import SignalData, Signals
from maed.engine.optimization import adamw
from maed.errors import MaedError

WIDTH, LAYERS, HEADS = 64, 1, 2
"""Size of a probe's autoencoder: that of the trials on which the definition rests."""

_BATCH = 32  # signals in a step
_SCORED = 32  # positions that a step scores
_RATE, _WARMUP, _DECAY, _CLIP = 6e-3, 50, 0.01, 1.0
_HELD_OUT = 1_024  # draws of held-out signals
_GROUPS = 32  # of neighboring held-out signals
_VISIBLE, _MOST_VISIBLE = 0.1, 64  # share of the positions shown, and how many at most; tokens excepted

RANDOM = "random"
"""The name of the random vectors that are probed beside all candidates."""


@dataclass(frozen=True)
class Probed:
    """The probe loss of some positions.

    Args:
        probe_loss: Mean over seeds and held-out draws; lower is better.
        probe_loss_above: Difference to the best candidate's probe loss.
        probe_loss_se: Standard error of that difference, over seeds and held-out signals, paired; 0 for the best.
        probe_share: 0 for random vectors, 1 for the best.
    """

    probe_loss: float
    probe_loss_above: float
    probe_loss_se: float
    probe_share: float


def probe(
    candidates: Mapping[str, Tensor],
    data: SignalData,
    *,
    steps: int,
    seeds: int,
    device: torch.device | None = None,
) -> dict[str, Probed]:
    """Probe several position embeddings, and random vectors beside them, on equal terms.

    For each seed and each candidate a small set-style autoencoder is trained with its position vectors frozen at the
    candidate's: same sizes, same weights at the start, same draws, same short schedule. Its loss on held-out signals
    is compared draw by draw. Vectors are scaled to unit mean square, those with fewer channels than the autoencoder is
    wide filled up with 0, and of wider ones the leading principal components are taken.

    Time grows with the number of candidates, seeds and steps, and not with N but for the vectors.

    Args:
        candidates: `(N, d)` each, by name; made from the training signals alone.
        data: `train` is trained on, `validation` is held out.
        steps: Steps of each training.
        seeds: Trainings of each candidate.
        device: Device that computes; None for the CPU.

    Returns:
        Candidates by name, `random` last.

    Raises:
        MaedError: Vectors of another number of positions, or no candidate.
    """
    n, device = data.positions, device or torch.device("cpu")
    for name, vectors in candidates.items():
        if vectors.ndim != 2 or len(vectors) != n:
            raise MaedError(f"candidates: {name} must have shape ({n}, d), got {tuple(vectors.shape)}")
    if not candidates:
        raise MaedError("candidates must hold at least one embedding, got none")
    held_out, names = _held_out(data), [*candidates, RANDOM]
    models = []  # made here, for threads share the state of torch's random numbers
    for seed in range(seeds):
        noise = torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(seed))
        tables = [_table(vectors, WIDTH) for vectors in candidates.values()] + [noise]
        models += [(seed, _model(data, table, seed)) for table in tables]

    def trained(task: tuple[int, SetAutoencoder]) -> np.ndarray:
        seed, model = task
        _train(model.to(device), data, steps, seed, device)
        return _evaluate(model, data, held_out, device)

    with _one_thread_each(device) as workers:
        losses = list(workers.map(trained, models))
    return _compared(names, np.stack(losses).reshape(seeds, len(names), -1), held_out)


@contextmanager
def _one_thread_each(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """Workers that train a small model each, on a thread each: on a CPU several threads gain little for one."""
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads if device.type == "cpu" else 1) as workers:
        try:
            torch.set_num_threads(1)
            yield workers
        finally:
            torch.set_num_threads(threads)


def _loss(data: SignalData) -> LossName:
    """The loss of probes: cross-entropy for tokens, squared error for real channels (blind to joint magnitudes)."""
    return "cross-entropy" if data.kind == "tokens" else "mse"


def _table(vectors: Tensor, width: int) -> Tensor:
    """`(N, width)` of unit mean square."""
    x = vectors.detach().double().cpu()
    x = x - x.mean(dim=0)
    if x.shape[1] > width:
        x = x @ torch.linalg.svd(x, full_matrices=False)[2][:width].T
    x = nn.functional.pad(x, (0, width - x.shape[1]))
    return (x / x.square().mean().sqrt().clamp(min=1e-12)).float()


def _model(data: SignalData, table: Tensor, seed: int) -> SetAutoencoder:
    """The autoencoder of a seed, whose position vectors are `table` and stay so."""
    sizes = {"channels": data.channels, "vocabulary": data.vocabulary}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = 0 if data.kind == "tokens" else LAYERS  # as the defaults for tokens have it, and why
        outputs = outputs_of(_loss(data), **sizes)
        shape = {"width": WIDTH, "layers": layers, "heads": HEADS}
        model = SetAutoencoder(len(table), **sizes, **shape, outputs=outputs, readout="linear")
    model.position_vectors = nn.Parameter(table, requires_grad=False)
    return model


def _visible(data: SignalData) -> int:
    if data.kind == "tokens":
        return visible_count(data.positions, "tokens", None)
    return min(max(2, round(_VISIBLE * data.positions)), _MOST_VISIBLE, data.positions - 1)


def _train(model: SetAutoencoder, data: SignalData, steps: int, seed: int, device: torch.device) -> None:
    """Train on the draws of the seed."""
    loss, visible = _loss(data), _visible(data)
    weights = [p for p in model.parameters() if p.requires_grad]
    groups = [{"params": weights, "weight_decay": _DECAY}]
    warmup = min(_WARMUP, steps // 4)
    optimizer, schedule = adamw(groups, learning_rate=_RATE, warmup=warmup, steps=steps, schedule="cosine")
    for step in range(steps):
        generator = np.random.default_rng((seed, step))
        rows = generator.integers(0, len(data.train), size=_BATCH)
        draw = make_draw(data.train, generator, rows=rows, visible=visible, scored=_SCORED).to(device)
        optimizer.zero_grad()
        (_losses(model, draw, loss).sum() / draw.hidden.sum().clamp(min=1)).backward()
        nn.utils.clip_grad_norm_(weights, _CLIP)
        optimizer.step()
        schedule.step()


def _losses(model: SetAutoencoder, draw: Draw, loss: LossName) -> Tensor:
    """l_j of the hidden scored positions, 0 elsewhere, `(B, S)`."""
    output = model.predict(draw.values, draw.visible, draw.scored, draw.visible_mask)
    return position_losses(output, draw.targets, loss) * draw.hidden


def _held_out(data: SignalData) -> np.ndarray:
    """Rows of the held-out signals, `(m,)`: each about equally often."""
    n = len(data.validation)
    times = -(-_HELD_OUT // n) if n < _HELD_OUT else 1
    generator = np.random.default_rng(0)
    return np.concatenate([generator.permutation(n) for _ in range(times)])[:_HELD_OUT]


@torch.inference_mode()
def _evaluate(model: SetAutoencoder, data: SignalData, held_out: np.ndarray, device: torch.device) -> np.ndarray:
    """Mean loss of each held-out draw, `(m,)`; the same draws for every model."""
    generator, loss, found = np.random.default_rng(1), _loss(data), []
    for start in range(0, len(held_out), 64):
        rows = held_out[start : start + 64]
        draw = make_draw(data.validation, generator, rows=rows, visible=_visible(data), scored=64).to(device)
        found.append((_losses(model, draw, loss).sum(dim=1) / draw.hidden.sum(dim=1).clamp(min=1)).cpu())
    return torch.cat(found).double().numpy()


def _compared(names: Sequence[str], losses: np.ndarray, held_out: np.ndarray) -> dict[str, Probed]:
    """Compare `(R, K, m)` losses: R seeds, K candidates of which the last is random, m draws.

    A difference has two errors: of the held-out signals, and of the trainings, which start from R seeds. Two seeds
    say little about the second, so it is pooled over the candidates: the mean square of what is left of the mean
    losses `(R, K - 1)` without the means of seeds and of candidates. The first is taken from groups of neighboring
    signals, for those of one recording are not independent.
    """
    means, known = losses.mean(axis=(0, 2)), np.bincount(held_out)
    best = int(means[:-1].argmin())
    seeds, candidates = len(losses), len(names) - 1
    between = 0.0
    if seeds > 1 and candidates > 1:
        each = losses[:, :-1].mean(axis=2)
        rest = each - each.mean(axis=0) - each.mean(axis=1, keepdims=True) + each.mean()
        between = 2 * float((rest**2).sum()) / ((seeds - 1) * (candidates - 1)) / seeds
    found = {}
    for i, name in enumerate(names):
        differences = (losses[:, i] - losses[:, best]).mean(axis=0)  # (m,)
        by_signal = (np.bincount(held_out, differences) / np.maximum(known, 1))[known > 0]
        groups = [group.mean() for group in np.array_split(by_signal, min(_GROUPS, len(by_signal)))]
        within = np.var(groups, ddof=1) / len(groups) if len(groups) > 1 else 0.0
        se = 0.0 if i == best else math.sqrt(within + between)
        share = (means[-1] - means[i]) / (means[-1] - means[best]) if means[-1] > means[best] else float(i == best)
        found[name] = Probed(float(means[i]), float(means[i] - means[best]), se, float(share))
    return found


def neighbor_error(vectors: Tensor, train: Signals, held_out: Signals, k: int) -> np.ndarray:
    """Error at each position of predicting held-out signals from its k nearest in an embedding, `(N,)`.

    Beyond 10,000 positions it is measured of a fixed sample of 2,000, and NaN of the others.

    By ridge regression, fitted to the training signals, of the normalized channels: the mean squared error over
    channels. Of tokens the k classes most frequent at the position, and whether it is one of them, are regressed on the
    same of its neighbors (a linear probability model), and the error is their Brier score as a share of that of the
    frequencies. Missing values count as the mean. Which positions are tied to their neighbors, and which are not; not
    for choosing, for it prefers the best predictors, near or not.

    Args:
        vectors: `(N, d)`.
        train: Training signals, of which at most 4,096 are read.
        held_out: Held-out signals, of which at most 1,024 are read.
        k: Neighbors.

    Returns:
        `(N,)` float64: squared error of normalized channels, or a share of the Brier score (tokens).
    """
    n = len(vectors)
    chosen = np.arange(n) if n <= MEASURED else np.sort(np.random.default_rng(0).choice(n, SAMPLED, replace=False))
    found, everywhere = [], vectors.double()
    for block in np.array_split(chosen, -(-len(chosen) * n // _CHUNK)):
        distances = torch.cdist(everywhere[block], everywhere)
        distances[torch.arange(len(block)), torch.from_numpy(block)] = torch.inf
        found.append(distances.topk(k, largest=False).indices.numpy())
    nearest = np.concatenate(found)
    read, places = np.unique(np.concatenate([chosen[:, None], nearest], axis=1), return_inverse=True)
    places = places.reshape(len(chosen), -1)
    x, y = (_features(part, most, read) for part, most in ((train, 4_096), (held_out, 1_024)))
    errors = np.full(n, np.nan)
    for position, (own, *neighbors) in zip(chosen, places, strict=True):
        target, others = [own], neighbors
        a, b = x[:, others].flatten(1), x[:, target].flatten(1)
        mean_a, mean_b = a.mean(dim=0), b.mean(dim=0)
        a, b = a - mean_a, b - mean_b
        gram = a.T @ a
        ridge = 1e-3 * gram.diagonal().mean().clamp(min=1e-12)
        weights = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), a.T @ b)
        predicted = (y[:, others].flatten(1) - mean_a) @ weights + mean_b
        errors[position] = float((predicted - y[:, target].flatten(1)).square().mean())
    return errors


_CHUNK = 1 << 25  # distances at a time

_CLASSES = 16
"""Most frequent token ids whose indicators a regression on tokens reads; all others are one more."""


def _features(signals: Signals, most: int, positions: np.ndarray) -> Tensor:
    """`(m, P, F)` float64: normalized channels, 0 where missing; or indicators of the most frequent token ids."""
    rows = np.sort(np.random.default_rng(0).permutation(len(signals))[:most])
    values, real = signals.gather(rows, positions), signals.real(rows)
    if values.dtype == torch.int64:
        counts = torch.bincount(values.flatten())
        kept = counts.topk(min(_CLASSES, len(counts))).indices.sort().values
        values = (values[..., None] == kept).double()
    else:
        values = values.double()
    return values if real is None else values * real[:, torch.from_numpy(positions), None]
