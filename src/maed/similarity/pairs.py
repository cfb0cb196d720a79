"""Similarities of candidate pairs alone: what large numbers of positions have in the place of an N x N matrix."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from maed.autoencoder.placing import Placed
from maed.data.signals import Signals

CANDIDATES = 32
"""Positions that each is compared with; a reduction by 8 neighbors looks at 16 of them."""

_COMPONENTS = 128  # principal components in which candidates are looked for
_OVERSAMPLED = 16
_EXACT = 100_000  # positions up to which every pair is looked at, a block at a time
_CHUNK = 1 << 24  # numbers that are worked on together
_Chunk = tuple[Tensor, Tensor | None]
_SAMPLE = 256  # positions of which all neighbors are known, to tell how many are found; fewer of half a million or more


@dataclass(frozen=True)
class SparseSimilarity:
    """A symmetric similarity of some pairs of positions. Nothing is known of the others.

    Args:
        n: Positions N.
        pairs: `(2, E)` int64, the first position below the second, each pair once.
        values: `(E,)` float32.
        standard_error: `(E,)` float32.
        facts: Facts found on the way, which are written into its config.json.
    """

    n: int
    pairs: Tensor
    values: Tensor
    standard_error: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)

    def arrays(self) -> tuple[csr_matrix, csr_matrix]:
        """Similarity and standard error as `maed.embedding.reduce` takes them, both directions of each pair."""
        i, j = self.pairs.numpy()
        values, error = (
            csr_matrix((np.r_[x, x], (np.r_[i, j], np.r_[j, i])), shape=(self.n, self.n))
            for x in (self.values.double().numpy(), self.standard_error.double().numpy())
        )
        return values, error


def correlated_pairs(signals: Signals, transform: Callable[[Tensor], Tensor] | None = None) -> SparseSimilarity:
    """The mean over channels of |r| between each position and the 32 that correlate most with it.

    Candidates are looked for among the loadings of the 128 leading principal components, where noise of single
    positions is left out: among all pairs up to 100,000 positions (a minute), beyond by faiss or pynndescent, where one
    of them is installed (nearest-neighbor descent: Dong, Charikar and Li, WWW 2011). Of each candidate the correlation
    itself is then summed over all signals, as `maed.similarity.moments.absolute_correlation` does for all pairs. With n
    signals of C channels time grows with n C N (and N log N for the search), memory with N: about 6 kB for each
    position and channel.

    Args:
        signals: Real ones.
        transform: Taken of each normalized value first.

    Returns:
        The pairs; its fact `candidate_recall` is the share of the 8 most correlated of 256 positions, by all pairs,
        that are among their candidates.
    """
    _, n, channels = signals.values.shape
    rows = [_Channel(signals, channel, transform) for channel in range(channels)]
    loadings = np.concatenate([channel.loadings() for channel in rows], axis=1)  # (N, C * r)
    found = _nearest(loadings, channels, min(CANDIDATES, n - 1))
    i, j = _both_ways(found)
    values, error = np.zeros(len(i)), np.zeros(len(i))
    for channel in rows:
        r, count = channel.correlation(i, j)
        values += np.abs(r) / channels
        error += (1 - r * r) / np.sqrt(np.maximum(count, 1)) / channels
    facts = {"candidates": int(found.shape[1]), "candidate_recall": _recall(rows, found)}
    pairs, strength, spread = (torch.from_numpy(x) for x in (np.stack([i, j]), values, error))
    return SparseSimilarity(n, pairs, strength.float(), spread.float(), facts)


def placed_pairs(placed: Placed) -> SparseSimilarity:
    """The cosine between the vectors of each position and the 32 nearest, by what an autoencoder says of their places.

    The standard error, the same for all pairs, is how far one half of the signals is from the mean of both: the root
    mean square over pairs of their difference, by the root of 2. That of all signals is below it, but where there is
    nothing but noise, whose directions do not average out. Time and memory grow as for `correlated_pairs`.
    """
    whole, *halves = (torch.nn.functional.normalize(vectors, dim=1) for vectors in (placed.vectors, *placed.halves))
    n = len(whole)
    # a constant channel makes opposite vectors orthogonal, for the search is of large |cosine|
    raised = torch.cat([whole, torch.ones(n, 1)], dim=1) / 2**0.5
    i, j = _both_ways(_nearest(raised.numpy(), 1, min(CANDIDATES, n - 1)))
    first, second = torch.from_numpy(i), torch.from_numpy(j)
    cosine, a, b = (_products_of(x, first, second) for x in (whole, *halves))
    error = float((a - b).square().mean().sqrt()) / 2**0.5
    return SparseSimilarity(n, torch.stack([first, second]), cosine, torch.full_like(cosine, error))


def _both_ways(found: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of positions, each once and the smaller first, from lists of neighbors `(N, k)`."""
    n, k = found.shape
    i, j = np.repeat(np.arange(n), k), found.ravel()
    both = np.unique(np.minimum(i, j) * np.int64(n) + np.maximum(i, j))
    return both // n, both % n


def _products_of(x: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Inner products of rows i and j `(E,)`."""
    at_once = max(1, _CHUNK // x.shape[1])
    parts = (slice(start, start + at_once) for start in range(0, len(i), at_once))
    return torch.cat([(x[i[part]] * x[j[part]]).sum(dim=1) for part in parts])


class _Channel:
    """One channel of all signals, standardized, a chunk of signals at a time.

    Args:
        signals, transform: See `correlated_pairs`.
        channel: Index of the channel.
    """

    def __init__(self, signals: Signals, channel: int, transform: Callable[[Tensor], Tensor] | None) -> None:
        self.signals, self.channel, self.transform = signals, channel, transform
        self.n = signals.values.shape[1]
        self.at_once = max(1, _CHUNK // self.n)
        total, squares, count = torch.zeros(3, self.n, dtype=torch.float64)
        self.mean, self.deviation = torch.zeros(self.n), torch.ones(self.n)
        for x, real in self._raw():
            total += x.sum(dim=0, dtype=torch.float64)
            squares += (x * x).sum(dim=0, dtype=torch.float64)
            count += len(x) if real is None else real.sum(dim=0, dtype=torch.float64)
        count = count.clamp(min=1)
        variance = squares / count - (total / count) ** 2
        # what is left of a difference of nearly equal numbers is rounding: a constant position correlates with none
        variance = torch.where(variance > 1e-12 * squares / count, variance, torch.inf)
        self.mean, self.deviation = (total / count).float(), variance.sqrt().float()

    def _raw(self) -> Iterator[_Chunk]:
        """Chunks `(B, N)` with 0 where missing, and which values are real; None if all are."""
        for start in range(0, len(self.signals), self.at_once):
            rows = np.arange(start, min(start + self.at_once, len(self.signals)))
            x = self.signals.take(rows)[..., self.channel]
            x = x if self.transform is None else self.transform(x)
            real = self.signals.real(rows)
            yield (x, None) if real is None else (x * real, real)

    def standardized(self) -> Iterator[_Chunk]:
        """Chunks `(B, N)` of mean 0 and deviation 1, 0 where missing; and which values are real."""
        for x, real in self._raw():
            x = (x - self.mean) / self.deviation
            yield (x, None) if real is None else (x * real, real)

    def loadings(self) -> np.ndarray:
        """Positions by leading principal components, `(N, r)` float32, each row of length 1, or 0.

        By a randomized range finder with one power iteration (Halko, Martinsson and Tropp 2011).
        """
        size = min(_COMPONENTS + _OVERSAMPLED, self.n, len(self.signals))
        basis = torch.randn(self.n, size, generator=torch.Generator().manual_seed(0))
        for _ in range(2):
            basis = torch.linalg.qr(sum(x.T @ (x @ basis) for x, _ in self.standardized()))[0]
        small = sum(y.T @ y for y in (x @ basis for x, _ in self.standardized()))
        values, vectors = torch.linalg.eigh(torch.as_tensor(small).double())
        kept = min(_COMPONENTS, size)
        scale = values[-kept:].clamp(min=0).sqrt()
        found = basis @ (vectors[:, -kept:] * scale).float()
        return torch.nn.functional.normalize(found, dim=1).numpy()

    def correlation(self, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pearson's r of pairs of positions `(E,)` over the signals in which both are real, and how many these are."""
        first, second = torch.from_numpy(i), torch.from_numpy(j)
        # products, and of signals with gaps both means and squares, and signals
        sums = torch.zeros(1 if self.signals.mask is None else 6, len(i), dtype=torch.float64)
        for x, real in self.standardized():
            x = x.T.contiguous()  # (N, B): what a pair needs lies together
            there = None if real is None else real.T.float().contiguous()
            at_once = max(1, _CHUNK // x.shape[1])
            for start in range(0, len(i), at_once):
                part = slice(start, start + at_once)
                a, b = x[first[part]], x[second[part]]
                sums[0, part] += (a * b).sum(dim=1)
                if there is None:
                    continue
                one, other = there[first[part]], there[second[part]]
                for row, term in enumerate((a * other, b * one, a * a * other, b * b * one, one * other), 1):
                    sums[row, part] += term.sum(dim=1)
        if len(sums) == 1:
            count = np.full(len(i), len(self.signals))
            return np.clip(sums[0].numpy() / count, -1, 1), count
        product, mean_a, mean_b, square_a, square_b, count = sums.numpy()
        at_least = np.maximum(count, 1)
        covariance = product / at_least - mean_a * mean_b / at_least**2
        variances = (square_a / at_least - (mean_a / at_least) ** 2) * (square_b / at_least - (mean_b / at_least) ** 2)
        scale = np.sqrt(np.maximum(variances, 0.0))
        return np.clip(np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 1e-12), -1, 1), count


def _nearest(loadings: np.ndarray, channels: int, k: int) -> np.ndarray:
    """The k positions with the largest mean over channels of |cosine|, `(N, k)`."""
    n = len(loadings)
    if n > _EXACT:
        if any(importlib.util.find_spec(name) is not None for name in ("faiss", "pynndescent")):
            return _approximate(loadings, k)
        warnings.warn(
            f"similarity: all pairs of {n} positions are compared, which takes time that grows with N^2; "
            "install faiss-cpu or pynndescent (extra `umap`) for N log N",
            stacklevel=4,
        )
    found = np.empty((n, k), dtype=np.int64)
    x = torch.from_numpy(loadings)
    at_once = max(1, 4 * _CHUNK // n)
    for start in range(0, n, at_once):
        rows = torch.arange(start, min(start + at_once, n))
        cosine = sum((x[rows][:, part] @ x[:, part].T).abs() for part in _parts(x.shape[1], channels))
        assert isinstance(cosine, Tensor)
        cosine[torch.arange(len(rows)), rows] = -torch.inf
        found[start : start + at_once] = cosine.topk(k, dim=1).indices.numpy()
    return found


def _parts(width: int, channels: int) -> list[slice]:
    each = width // channels
    return [slice(channel * each, (channel + 1) * each) for channel in range(channels)]


def _approximate(loadings: np.ndarray, k: int) -> np.ndarray:
    """The k nearest by cosine, approximately, positions and their mirror images alike: `(N, k)`.

    A sensor with its wires crossed is as near to its neighbors, by |r|, as any other; so a sample is looked at, and
    mirror images are among those that are looked for where they are anybody's neighbors.
    """
    n = len(loadings)
    some = torch.from_numpy(loadings[_sample(n, seed=0)])
    cosine = some @ torch.from_numpy(loadings).T
    nearest = cosine.abs().topk(min(9, n), dim=1).indices
    mirrored = bool((cosine.gather(1, nearest) < 0).float().mean() > 0.01)
    del cosine  # of a million positions a quarter of a gigabyte
    points = np.concatenate([loadings, -loadings]) if mirrored else loadings
    graph = _by_cells if importlib.util.find_spec("faiss") is not None else _by_descent
    found, own = graph(points, n, k + 2) % n, np.arange(n)[:, None]
    order = np.argsort(found == own, axis=1, kind="stable")[:, :k]  # itself comes last, and is left out
    kept = np.take_along_axis(found, order, axis=1).astype(np.int64)
    return np.where(kept == own, (own + 1) % n, kept)  # of fewer than k: some position, whose correlation will tell


def _by_cells(points: np.ndarray, n: int, k: int) -> np.ndarray:
    """The k nearest of the first n points, `(n, k)`, looked for in the nearest cells of a partition (faiss)."""
    import faiss

    cells = int(4 * np.sqrt(len(points)))
    index = faiss.IndexIVFFlat(faiss.IndexFlatIP(points.shape[1]), points.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.nprobe = 0, 16
    index.train(points[np.random.default_rng(0).choice(len(points), min(len(points), 64 * cells), replace=False)])
    index.add(points)
    found = index.search(points[:n], k)[1]
    return np.where(found < 0, np.arange(n)[:, None], found)


def _by_descent(points: np.ndarray, n: int, k: int) -> np.ndarray:
    """The k nearest of the first n points, `(n, k)`, by nearest-neighbor descent (pynndescent)."""
    from pynndescent import NNDescent

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of points with fewer neighbors than were asked for
        index = NNDescent(points, metric="cosine", n_neighbors=k, random_state=0, low_memory=True)
    found = index.neighbor_graph[0][:n]
    return np.where(found < 0, np.arange(n)[:, None], found)


def _sample(n: int, seed: int) -> np.ndarray:
    """256 positions, or as many as have 2**26 numbers for all n positions."""
    return np.random.default_rng(seed).choice(n, min(_SAMPLE, n, max(32, (1 << 26) // n)), replace=False)


def _recall(rows: list[_Channel], found: np.ndarray) -> float:
    """The share of the 8 most correlated of a sample of positions that are among their candidates."""
    n = len(found)
    some = _sample(n, seed=1)
    total = torch.zeros(len(some), n, dtype=torch.float32)
    for channel in rows:
        product = torch.zeros_like(total)
        for x, _ in channel.standardized():
            product += x[:, some].T @ x
        total += product.abs()
    total[torch.arange(len(some)), torch.from_numpy(some)] = -torch.inf
    nearest = total.topk(min(8, n - 1), dim=1).indices.numpy()
    among = (nearest[:, :, None] == found[some][:, None, :]).any(axis=2)
    return float(among.mean())
