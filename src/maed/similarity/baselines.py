"""Training-free similarities: what a user gets without any autoencoder, and what it has to beat."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maed.data.signals import SignalData, Signals
from maed.errors import MaedError
from maed.settings import Baseline
from maed.similarity.estimators import Similarity

_CHUNK = 1_024  # signals
_BLOCK = 64  # positions
_CLASSES = 32


def baselines_for(data: SignalData) -> tuple[str, ...]:
    """Names of the baselines that fit the kind of the data."""
    return (baseline_for(data),)


def baseline_for(data: SignalData) -> Baseline:
    """The baseline that fits the data: `correlation` for real channels, `dependence` for tokens."""
    return "dependence" if data.kind == "tokens" else "correlation"


def compute_baseline(name: Baseline, data: SignalData, signals: int | None = None) -> Similarity:
    """A baseline from the training signals, or from the first `signals` of a fixed shuffle of them.

    Raises:
        MaedError: where the baseline is not made for this kind of signal.
    """
    if name != baseline_for(data):
        raise MaedError(f"similarity: {name!r} is not defined for {data.kind} signals; it may be {baseline_for(data)}")
    train = data.train
    if signals is not None and signals < len(train):
        train = train.rows(np.sort(np.random.default_rng(0).permutation(len(train))[:signals]))
    return correlation(train) if name == "correlation" else dependence(train, data.vocabulary)


def correlation(signals: Signals) -> Similarity:
    """Absolute Pearson correlation between positions, the mean over channels (Le Roux et al., NIPS 2007).

    Over the signals in which both positions are real. Time grows with n C N^2, memory with N^2.

    Returns:
        values in [0, 1]; the standard error is that of r at independence-free normality, (1 - r^2) / sqrt(n).
    """
    _, n, channels = signals.values.shape
    total, error = torch.zeros(n, n, dtype=torch.float64), torch.zeros(n, n, dtype=torch.float64)
    for channel in range(channels):
        r, count = _pearson(signals, channel)
        total += r.abs() / channels
        error += (1 - r * r) / count.clamp(min=1).sqrt() / channels
    return Similarity(total.float().fill_diagonal_(0.0), error.float().fill_diagonal_(0.0))


def _pearson(signals: Signals, channel: int) -> tuple[Tensor, Tensor]:
    """Pearson correlation of one channel over pairwise complete signals, `(N, N)`, and their number.

    Where all positions are real, their number, sums and squares do not depend on the other position: one column.
    """
    n = signals.values.shape[1]
    product = torch.zeros(n, n, dtype=torch.float64)
    sums, squares, counts = (torch.zeros(1, dtype=torch.float64) for _ in range(3))
    for start in range(0, len(signals), _CHUNK):
        rows = np.arange(start, min(start + _CHUNK, len(signals)))
        x = signals.take(rows)[..., channel].double()  # (B, N)
        real = signals.real(rows)
        there = x.new_ones(len(x), 1) if real is None else real.double()
        x = x * there
        product += x.T @ x
        sums = sums + x.T @ there
        squares = squares + (x * x).T @ there
        counts = counts + there.T @ there
    at_least_one = counts.clamp(min=1)
    covariance = product / at_least_one - sums * sums.T / at_least_one**2
    mean_square = squares / at_least_one
    variance = mean_square - (sums / at_least_one) ** 2
    # What is left of a difference of nearly equal numbers is rounding: a constant position correlates with none.
    variance = torch.where(variance > 1e-12 * mean_square, variance, 0.0)
    scale = (variance * variance.T).sqrt()
    return torch.where(scale > 0, covariance / torch.where(scale > 0, scale, 1.0), 0.0).clamp(-1, 1), counts


def dependence(signals: Signals, vocabulary: int) -> Similarity:
    """Bias-corrected Cramer's V between the tokens of two positions (Bergsma 2013): chi-square of class indicators.

    The 31 most frequent tokens are classes of their own, the rest share one. Contingency tables hold only the signals
    in which both positions are real, and the correction takes away what chance alone would give, so that the length
    of a text does not become dependence. Time grows with n N^2 32^2 (exact 8-bit integer products, blocks of
    positions), memory with n N + 64 N 32^2.

    Returns:
        values in [0, 1]; the standard error is that under independence.
    """
    classes = _pooled(signals, vocabulary)  # (n, N), -1 where not real
    k = int(classes.max()) + 1
    n = classes.shape[1]
    values, error = torch.zeros(n, n), torch.zeros(n, n)
    blocks = range(0, n, _BLOCK)
    for start in blocks:
        left = _indicators(classes[:, start : start + _BLOCK], k).T.contiguous()
        for other in range(start, n, _BLOCK):
            tables = _integer_product(left, _indicators(classes[:, other : other + _BLOCK], k))
            a, b = left.shape[0] // k, tables.shape[1] // k
            v, e = _cramers_v(tables.view(a, k, b, k).permute(0, 2, 1, 3).float())
            for matrix, block in ((values, v.float()), (error, e.float())):
                matrix[start : start + a, other : other + b] = block
                matrix[other : other + b, start : start + a] = block.T
    return Similarity(values.fill_diagonal_(0.0), error.fill_diagonal_(0.0))


def _pooled(signals: Signals, vocabulary: int) -> Tensor:
    """Class of each token, `(n, N)` int8: the most frequent tokens first, all others pooled, -1 where not real."""
    ids = torch.from_numpy(
        signals.values.astype(np.int64, copy=False) if signals.values.dtype != np.int16 else signals.values
    )
    mask = None if signals.mask is None else torch.from_numpy(signals.mask)
    counts = torch.zeros(vocabulary, dtype=torch.int64)
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK].long()
        counts += torch.bincount(
            (chunk if mask is None else chunk[mask[start : start + _CHUNK]]).flatten(), minlength=vocabulary
        )
    order = counts.argsort(descending=True)
    table = torch.full((vocabulary,), _CLASSES - 1, dtype=torch.int8)
    kept = min(_CLASSES if int((counts > 0).sum()) <= _CLASSES else _CLASSES - 1, vocabulary)
    table[order[:kept]] = torch.arange(kept, dtype=torch.int8)
    pooled = torch.empty(ids.shape, dtype=torch.int8)
    for start in range(0, len(ids), _CHUNK):
        pooled[start : start + _CHUNK] = table[ids[start : start + _CHUNK].long()]
    return pooled if mask is None else pooled.masked_fill_(~mask, -1)


def _indicators(classes: Tensor, k: int) -> Tensor:
    """One-hot, `(n, positions)` to `(n, positions * k)` int8; class -1 has no indicator."""
    return (classes[..., None] == torch.arange(k, dtype=torch.int8)).to(torch.int8).flatten(1)


def _integer_product(left: Tensor, right: Tensor) -> Tensor:
    """Exact product of 0/1 matrices `(a, n) @ (n, b)`.

    torch._int_mm multiplies 8-bit integers about five times as fast as float32 on CPUs with VNNI; where a build or a
    shape lacks it, float32 is exact too below 2^24 signals.
    """
    try:
        return torch._int_mm(left, right)
    except (AttributeError, RuntimeError):
        return left.float() @ right.float()


def _cramers_v(tables: Tensor) -> tuple[Tensor, Tensor]:
    """Bias-corrected Cramer's V of contingency tables `(..., k, k)`, and its standard error under independence."""
    count = tables.sum(dim=(-2, -1)).clamp(min=2)
    rows, columns = tables.sum(dim=-1), tables.sum(dim=-2)
    # sum (O - E)^2 / E = sum O^2 / E - n with E = row * column / n; empty rows and columns add nothing
    by_row, by_column = (torch.where(total > 0, 1 / total.clamp(min=1), 0.0) for total in (rows, columns))
    phi2 = ((tables.square() @ by_column[..., None]).squeeze(-1) * by_row).sum(dim=-1) - 1
    r, c = (rows > 0).sum(dim=-1).double(), (columns > 0).sum(dim=-1).double()
    freedom = (r - 1).clamp(min=0) * (c - 1).clamp(min=0)
    corrected = (phi2 - freedom / (count - 1)).clamp(min=0)
    least = torch.minimum(r - (r - 1) ** 2 / (count - 1), c - (c - 1) ** 2 / (count - 1)) - 1
    usable = least > 0
    least = torch.where(usable, least, 1.0)
    v = torch.where(usable, (corrected / least).clamp(max=1).sqrt(), 0.0)
    error = torch.where(usable, ((2 * freedom).sqrt() / (count * least)).sqrt(), 0.0)
    return v, error
