"""Streaming draws of many positions, a region at a time, into the similarity of candidate pairs."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from maed.autoencoder.losses import LossName
from maed.autoencoder.masking import Draw, make_draw
from maed.autoencoder.regions import REGION, Region, regions
from maed.autoencoder.set import SetAutoencoder
from maed.data.signals import Signals
from maed.files import read_json, replacing, write_json
from maed.registry import ESTIMATORS
from maed.run_folder import PARTIAL
from maed.settings import SimilaritySettings
from maed.similarity.estimator import Estimator
from maed.similarity.pairs import CANDIDATES, SparseSimilarity, nearest_by_cosine
from maed.similarity.streaming import Progress, draw_losses, transform_of, transformed
from maed.similarity.sums import Sums

_SHARE = 16
"""Each region is drawn a sixteenth as often as `similarity.draws` says: what few draws leave open, vectors tell."""

_SAVE_EVERY = 60.0  # seconds


@dataclass(frozen=True)
class Regional:
    """What came of draws in all regions.

    Args:
        similarity: by all draws.
        halves: by two disjoint halves of the draws.
        draws: how many were made, in all regions.
        seconds: what they took, before a stop too.
        never: ordered pairs of candidates that no draw tells of.
    """

    similarity: SparseSimilarity
    halves: tuple[SparseSimilarity, SparseSimilarity]
    draws: int
    seconds: float
    never: int


def stream_regions(
    model: SetAutoencoder,
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
) -> Regional:
    """Draw signals region by region, and sum for the 32 candidates of each position alone.

    Candidates are the nearest by the autoencoder's own vectors. In each region `visible` of its positions are shown,
    and its core is scored; the sums are those of `stream`, of the region's positions by its core, and of these only
    candidate pairs are kept. Then `shrunk` weighs them against the vectors. With D draws of each region time grows with
    N D (V + width), memory with N.

    Args:
        model: the trained autoencoder.
        signals: where draws are taken from.
        settings: estimator, number of draws and time, batch size, seed; `until` is `draws`.
        visible: positions shown.
        loss, outputs, device, half_precision, progress: as for `stream`.
        folder: keeps the pairs so far here every minute, and goes on from them.

    Raises:
        MaedError: an estimator or a transform that is not for these draws.
    """
    estimator: Estimator = ESTIMATORS.get(settings.estimator, "similarity.estimator")()
    estimator.check(settings, visible=visible, loss=loss)
    n, transform = signals.values.shape[1], transform_of(settings, loss)
    repeats = settings.repeats if estimator.repeated else 1
    vectors = model.position_vectors.detach().float().cpu()
    vectors = torch.nn.functional.normalize(vectors - vectors.mean(dim=0), dim=1)
    places = regions(vectors)
    candidates = nearest_by_cosine(vectors.numpy(), 1, min(CANDIDATES, n - 1))
    i, j = _both_directions(candidates)
    owner = np.empty(n, dtype=np.int64)
    for number, place in enumerate(places):
        owner[place.positions[: place.core]] = number
    order = np.argsort(owner[j], kind="stable")
    ends = np.searchsorted(owner[j][order], np.arange(len(places) + 1))
    # by all draws and by either half: values and standard errors of the ordered pairs; not-a-number where unknown
    found = torch.full((3, 2, len(i)), torch.nan, dtype=torch.float64)
    batches = max(2, round(settings.draws / _SHARE / settings.batch_size))
    done, seconds = _resumed(folder, found)
    started = saved = time.monotonic()

    for number in range(done, len(places)):
        place, pairs, began = places[number], order[ends[number] : ends[number + 1]], time.monotonic()
        where = np.full(n, -1)
        where[place.positions] = np.arange(len(place.positions))
        pairs = pairs[where[i[pairs]] >= 0]
        of = torch.from_numpy(where[i[pairs]]), torch.from_numpy(where[j[pairs]])
        halves = _halves(estimator, signals, place, device)
        for batch in range(batches):
            if settings.seconds is not None and batch > 1 and time.monotonic() - began > settings.seconds / len(places):
                break
            generator = np.random.default_rng((settings.seed, number, batch))
            rows = generator.integers(0, len(signals), size=settings.batch_size // repeats).repeat(repeats)
            own, core = np.arange(len(rows)), np.arange(place.core)
            some = signals.at(place.positions, rows)
            draw = make_draw(some, generator, rows=own, visible=visible, scored=core).to(device)
            global_ = torch.from_numpy(place.positions).to(device)

            def losses(draw: Draw, global_: Tensor = global_) -> Tensor:
                there = replace(draw, visible=global_[draw.visible], scored=global_[draw.scored])
                with torch.autocast(device.type, torch.bfloat16, enabled=half_precision):
                    return transformed(draw_losses(model, there, loss, outputs), transform)

            estimator.add(halves[batch % 2], draw, losses, repeats)
        for which, sums in enumerate((halves[0].merge(halves[1]), *halves)):
            kept = type(sums)(*(t.cpu()[of if len(t) > 1 else (0, of[1])][None] for t in sums.tensors()))
            values, error = estimator.estimate(kept)
            told = (kept.seen[0] > 0) & (error[0] > 0)
            found[which, 0, pairs] = torch.where(told, values[0], torch.nan)
            found[which, 1, pairs] = torch.where(told, error[0], torch.nan)
        if progress is not None:
            progress((number + 1) * batches * settings.batch_size, len(places) * batches * settings.batch_size)
        if folder is not None and time.monotonic() - saved > _SAVE_EVERY:
            saved = time.monotonic()
            _save(folder, found, number + 1, seconds + saved - started)
    likeness = torch.from_numpy((vectors.numpy()[i] * vectors.numpy()[j]).sum(axis=1)).double()
    facts = {"candidates": candidates.shape[1], "regions": len(places), "region": min(REGION, n)}
    made = [_similarity(n, i, j, each[0], each[1], likeness, found[1:, 0], facts) for each in found]
    drawn, never = len(places) * batches * settings.batch_size, int(found[0, 0].isnan().sum())
    return Regional(made[0], (made[1], made[2]), drawn, seconds + time.monotonic() - started, never)


def shrunk(values: Tensor, error: Tensor, likeness: Tensor, halves: Tensor) -> tuple[Tensor, Tensor, float]:
    """Weigh noisy entries against what the likeness of vectors lets expect of them.

    Expected is a line through all pairs, by least squares. How far entries are from it beyond their noise, tau, is
    what the vectors do not know: tau^2 is the mean product of how far two halves of the draws are from it, whose noise
    is independent. Each entry then counts by tau^2 / (tau^2 + error^2), and the line for the rest (empirical Bayes:
    Efron and Morris 1975). Of many draws this is the entry, of few the line. Were draws to decide alone, telling 8
    nearest among 32 candidates would take thousands of each pair.

    Args:
        values, error: `(E,)`; not-a-number where no draw tells of a pair, which then is as the line has it.
        likeness: `(E,)` of the vectors.
        halves: `(2, E)` values by two disjoint halves of the draws.

    Returns:
        Values and standard errors `(E,)`, and the mean weight of the entries.
    """
    known = ~values.isnan()
    if not known.any():
        return torch.zeros_like(values), torch.zeros_like(values), 0.0
    error = error.clamp(min=error[known].median() / 2)  # what few draws say of their own error is a guess itself
    x, y, weight = likeness[known], values[known], error[known] ** -2
    middle, total = (weight * x).sum() / weight.sum(), weight.sum()
    extent = (weight * (x - middle) ** 2).sum()
    slope = (weight * (x - middle) * y).sum() / extent if extent > 1e-12 * total else torch.zeros_like(total)
    slope = slope.clamp(min=0)  # the alike are near, if anything
    line = (weight * y).sum() / total + slope * (likeness - middle)
    line_error = 1 / total + ((likeness - middle) ** 2 / extent if slope > 0 else 0.0)
    products = ((halves[0] - line) * (halves[1] - line)).nan_to_num(0.0)
    beyond = products.sum() / (~halves.isnan()).all(dim=0).sum().clamp(min=1)
    beyond = beyond.clamp(min=0)  # tau^2; of standard errors it would take what these are too small by for knowledge
    noise = torch.where(known, error, torch.inf) ** 2
    share = beyond / (beyond + noise)
    left = torch.where(known, share * noise, beyond)
    shown = torch.where(known, values, 0.0)
    return line + share * (shown - line), (left + (1 - share) ** 2 * line_error).sqrt(), float(share.mean())


def _similarity(
    n: int,
    i: np.ndarray,
    j: np.ndarray,
    values: Tensor,
    error: Tensor,
    likeness: Tensor,
    halves: Tensor,
    facts: dict[str, int],
) -> SparseSimilarity:
    """The mean of both directions of each pair: the first half of the ordered pairs, and the second."""
    value, spread, share = shrunk(values, error, likeness, halves)
    half = len(i) // 2
    one = (value[:half] + value[half:]) / 2
    both = (spread[:half] ** 2 + spread[half:] ** 2).sqrt() / 2
    pairs = torch.from_numpy(np.stack([i[:half], j[:half]]))
    return SparseSimilarity(n, pairs, one.float(), both.float(), {**facts, "weight_of_draws": round(share, 4)})


def _both_directions(candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ordered pairs i, j of candidates `(N, k)`: each unordered one once with i below j, then all the other way."""
    n, k = candidates.shape
    i, j = np.repeat(np.arange(n), k), candidates.ravel()
    both = np.unique(np.minimum(i, j) * np.int64(n) + np.maximum(i, j))
    low, high = both // n, both % n
    return np.r_[low, high], np.r_[high, low]


def _halves(estimator: Estimator, signals: Signals, place: Region, device: torch.device) -> tuple[Sums, Sums]:
    size, padded = len(place.positions), signals.mask is not None
    first, second = (estimator.sums.empty(size, padded=padded, scored=place.core, device=device) for _ in range(2))
    return first, second


def _save(folder: Path, found: Tensor, done: int, seconds: float) -> None:
    with replacing(folder / PARTIAL[1]) as temporary:
        save_file({"found": found, "done": torch.tensor(done)}, temporary)
    write_json(folder / PARTIAL[0], {"done": done, "seconds": seconds})


def _resumed(folder: Path | None, found: Tensor) -> tuple[int, float]:
    """Regions that a stopped stream had done, and its seconds; their pairs are put into `found`, `(3, 2, E)`."""
    if folder is None or not (folder / PARTIAL[0]).is_file():
        return 0, 0.0
    try:
        there, tensors = read_json(folder / PARTIAL[0]), load_file(folder / PARTIAL[1])
        if tensors["found"].shape != found.shape or int(tensors["done"]) != there["done"]:
            return 0, 0.0
        found.copy_(tensors["found"])
        return int(there["done"]), float(there["seconds"])
    except Exception:  # cut short, or not what `_save` writes: readers raise many kinds
        return 0, 0.0
