"""New positions beside old ones, which stay where they are: placed by what their values have in common."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from maed.data.doubts import refuse_stand_ins
from maed.data.objects import given_source
from maed.errors import MaedError, nearest
from maed.settings import DataSettings

NEIGHBORS = 16
"""Old positions that place a new one. Of 4 to 24, and of ridges from 0.001 to 0.03, the best on held-out tenths of the
positions of twelve sources, with 60 to 4,000 signals. On other tenths, new positions find their true neighbors about as
well as when all are learned together (recall@8): 0.97 and 0.99 of a 16 x 16 field, 0.79 and 0.80 of usps, 0.71 and 0.64
of eeg64, 0.78 and 0.77 of noaa_tmax."""

_RIDGE = 0.003 * NEIGHBORS  # of the squared distance of each neighbor; chosen with their number
_CHUNK = 1_024  # signals


def read_columns(
    X: Any, n: int, known: Sequence[str] | None, names: Sequence[str] | None
) -> tuple[np.ndarray, tuple[str, ...] | None]:
    """The signals of old and new positions, the old ones first and in the order of an embedding.

    Args:
        X: Whatever `maed.learn` takes, with n columns and more.
        n: Old positions.
        known: Names of the known positions, or None.
        names: Names of the new columns, if X does not name its own.

    Returns:
        `(signals, n + M, C)` numbers, NaN where missing; and the names of all positions, None if the old have none.

    Raises:
        MaedError: Token ids, a column that is missing, or names that do not fit.
    """
    source = given_source(X, DataSettings(missing="mask"), np.random.default_rng(0))
    if source.kind != "real":
        raise MaedError(
            "X must be numbers, got token ids, which have no correlation (X.astype(float) treats them as numbers)"
        )
    values, _ = source.train.read(np.arange(source.train.size))
    if values.ndim != 3:
        raise MaedError(f"X must have shape (n, N) or (n, N, C), got signals of shape {values.shape[1:]}")
    if np.isinf(values).any():
        raise MaedError(
            f"X must be finite, or NaN for missing values; {np.isinf(values).sum()} values are infinite or "
            "exceed float32"
        )
    refuse_stand_ins(values)
    count, columns = values.shape[1], source.columns
    if known is None or len(columns) != count:
        if count <= n:
            raise MaedError(
                f"X must have more columns than the {n} positions of the embedding, the new ones last; got {count}"
            )
        if known is None and names is not None:
            raise MaedError("names must be left out, because the positions of the embedding have none")
        if known is not None and len(names or ()) != count - n:
            raise MaedError(
                f"names must hold {count - n} names, one for each new column of X, because the positions of the "
                f"embedding have names; got {len(names or ())}"
            )
        if (empty := np.isnan(values[:, :n]).all(axis=(0, 2))).any():
            raise MaedError(f"X: column {int(np.argmax(empty))} has no values; leave it out, as learning does")
        return values, None if known is None else (*known, *map(str, names or ()))
    if names is not None:
        raise MaedError("names must be left out, because the columns of X have names already; rename those instead")
    place, old = {name: i for i, name in enumerate(columns)}, set(known)
    if missing := [name for name in known if name not in place]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MaedError(
            f"X must have a column for each old position, lacks {missing[0]!r}{more}{nearest(missing[0], columns)}"
        )
    new = [name for name in columns if name not in old]
    if not new:
        raise MaedError(f"X must have at least one new column; all its {count} are positions of the embedding")
    return values[:, [place[name] for name in (*known, *new)]], (*known, *new)


def correlations(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pearson correlation of the columns of a with those of b, over the signals in which both are there.

    Args:
        a: `(n, P, C)` numbers, NaN where missing.
        b: `(n, Q, C)`.

    Returns:
        `(P, Q)` float64, the mean over channels, 0 where one is constant; and the fewest signals behind each, `(P, Q)`.
    """
    channels = a.shape[2]
    total, fewest = np.zeros((a.shape[1], b.shape[1])), np.full((a.shape[1], b.shape[1]), np.inf)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a position without a value
        centers = [np.nan_to_num(np.nanmean(each, axis=0, dtype=np.float64)) for each in (a, b)]  # (P, C), (Q, C)
    for channel in range(channels):
        sums = np.zeros((6, *total.shape))
        for start in range(0, len(a), _CHUNK):
            x, y = (
                each[start : start + _CHUNK, :, channel].astype(np.float64) - center[:, channel]
                for each, center in zip((a, b), centers, strict=True)
            )
            here, there = (~np.isnan(x)).astype(np.float64), (~np.isnan(y)).astype(np.float64)
            x, y = np.nan_to_num(x), np.nan_to_num(y)
            sums += [here.T @ there, x.T @ there, here.T @ y, x.T @ y, (x * x).T @ there, here.T @ (y * y)]
        counts = np.maximum(sums[0], 1)
        mean_x, mean_y, product, square_x, square_y = sums[1:] / counts
        spread_x, spread_y = square_x - mean_x**2, square_y - mean_y**2
        known = (spread_x > 1e-12 * square_x) & (spread_y > 1e-12 * square_y)  # less is rounding: a constant position
        variance = spread_x * spread_y
        total += np.where(known, (product - mean_x * mean_y) / np.sqrt(np.where(known, variance, 1)), 0) / channels
        fewest = np.minimum(fewest, sums[0])
    return np.clip(total, -1, 1), fewest


def place(values: np.ndarray, vectors: np.ndarray, names: Sequence[str] | None = None) -> np.ndarray:
    """Vectors of new positions: each as its nearest old ones make up its values, so they make up its vector.

    The values of a position are a point in the space of signals; standardized, and of either sign, two are
    2 (1 - |r|) apart, squared. The k old ones that correlate most with a new x get weights w that sum to 1 and bring
    their mean nearest to it, |x - sum_i w_i y_i|^2 (locally linear embedding: Roweis and Saul, Science 2000; of points
    that come later, Saul and Roweis, JMLR 2003, section 6.1). Some may be negative: a position at the rim lies outside
    of the others. Beside that stands a ridge, w_i^2 times a share of the squared distance of y_i: nothing of a twin.
    A mean of vectors is shorter than these, nearer to the center of all and so to everybody: its length is made theirs.

    Time grows with n C M (N + k^2), memory with n C (N + M) and M N, of n signals, N old and M new positions.

    Args:
        values: `(n, N + M, C)`, the old positions first, NaN where missing.
        vectors: `(N, d)` of the old ones.
        names: N + M names, for messages.

    Returns:
        `(M, d)` float32.

    Raises:
        MaedError: a new position that correlates with no old one.
    """
    n = len(vectors)
    k = min(NEIGHBORS, n)
    r, counts = correlations(values[:, n:], values[:, :n])  # (M, N)
    placed = np.empty((len(r), vectors.shape[1]), dtype=np.float32)
    unsure = []
    # the largest of N correlations that mean nothing is below this, at 95 %
    chance = norm.isf(0.025 / n) / np.sqrt(np.maximum(counts, 1))
    for i, row in enumerate(r):
        name = f"column {n + i}" if names is None else repr(names[n + i])
        if not row.any():
            raise MaedError(
                f"X: {name} is constant, or was never measured together with another position; leave it out"
            )
        if (np.abs(row) <= chance[i]).all():
            unsure.append(name)
        near = np.argsort(-np.abs(row), kind="stable")[:k]
        sign, close = np.sign(row[near]), np.abs(row[near])
        among = correlations(values[:, near], values[:, near])[0] * np.outer(sign, sign)
        apart = 1 - close[:, None] - close + among  # (k, k): (x - y_i) . (x - y_j), of length 1 each
        apart[np.diag_indices(k)] = (1 + _RIDGE) * 2 * (1 - close)
        spread, axes = np.linalg.eigh(apart)  # of correlations over different signals, some may be negative
        weights = axes @ (axes.sum(axis=0) / np.maximum(spread, 1e-9))
        mean, lengths = weights @ vectors[near].astype(np.float64), np.linalg.norm(vectors[near], axis=1)
        length = np.abs(weights) @ lengths / np.abs(weights).sum()
        placed[i] = mean * (length / max(float(np.linalg.norm(mean)), 1e-12))
    if unsure:
        warnings.warn(
            f"{len(unsure)} of {len(r)} new positions correlate with old ones no better than chance, so their "
            f"places are arbitrary: {', '.join(unsure[:8])}{(', ...' if len(unsure) > 8 else '')}",
            stacklevel=3,
        )
    return placed
