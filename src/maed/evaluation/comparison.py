"""Comparing encodings over seeds: means with t-intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import stats

from maed.errors import MaedError
from maed.records import Paired, Score, Summary
from maed.registry import ENCODINGS
from maed.tasks import metric_of


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None, float | None]:
    """Mean of `values` and its t-interval.

    The ends are mean -+ t * s / sqrt(n), with s the standard deviation (n - 1 below) and t the quantile of Student's
    distribution with n - 1 degrees of freedom. One value has no interval: its ends are None.

    Args:
        values: One number for each seed, at least one.
        confidence: Share of such intervals that cover the true mean.

    Returns:
        Mean, low end, high end.
    """
    if len(values) == 0:
        raise MaedError("values must hold at least one number, got none")
    if not 0 < confidence < 1:
        raise MaedError(f"confidence must be above 0 and below 1, got {confidence}")
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) == 1:
        return mean, None, None
    quantile = stats.t.ppf((1 + confidence) / 2, df=len(array) - 1)
    half = float(quantile * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, mean - half, mean + half


def summarize(scores: Iterable[Score]) -> list[Summary]:
    """Mean of each encoding, pretrained or not, with its interval over seeds, in the order of first appearance.

    Args:
        scores: Scores; of several with the same task, number of labels, arm and seed, the last counts.

    Returns:
        One row for each arm, task, number of labels and metric.
    """
    found = []
    for (task, labels, metric), group in _groups(scores).items():
        for rows in _by_arm(group).values():
            mean, low, high = interval([float(row.value or 0.0) for row in rows.values()])
            of = _first(rows)
            found.append(Summary(of.positions, mean, low, high, len(rows), task, labels, metric, of.pretrained))
    return found


def paired(scores: Iterable[Score], a: str, b: str) -> Paired:
    """Interval of the per-seed differences `a` - `b`, over the seeds that both have.

    `a` is above `b` where `low` is above 0, whether more or less of the metric is better.

    Args:
        scores: Scores of one task and number of labels.
        a: An arm: an encoding, or `ENCODING, pretrained`.
        b: Another arm.

    Returns:
        The mean difference and the ends of its 95 % interval.

    Raises:
        MaedError: No seed is common to both.
    """
    found = _by_arm(scores)
    first, second = found.get(a, {}), found.get(b, {})
    common = sorted(first.keys() & second.keys())
    if not common:
        raise MaedError(f"paired: {a} and {b} have no seed in common; a paired difference needs at least one")
    row = _first(first)
    better = metric_of(row.task, row.metric).better
    mean, low, high = interval([better(first[seed].value or 0.0, second[seed].value or 0.0) for seed in common])
    return Paired(a, b, mean, low, high, len(common), task=row.task, labels=row.labels, metric=row.metric)


def compare_all(scores: Iterable[Score]) -> list[Paired]:
    """Each reference (`maed`, then `maed-resampled` and `fourier`) against every other encoding, pretrained as it is.

    Then every encoding that was pretrained against itself from random weights. Pairs without a common seed are left
    out; those of different tasks or numbers of labels are none.

    Returns:
        One row for each pair that has a seed in common.
    """
    made = []
    for rows in _groups(scores).values():
        found = _by_arm(rows)
        of = {arm: _first(seeds) for arm, seeds in found.items()}
        pairs: list[tuple[str, str]] = []
        ranks = {
            arm: ENCODINGS.get(row.positions).reference for arm, row in of.items() if row.positions in ENCODINGS.names
        }
        for _, a in sorted((rank, arm) for arm, rank in ranks.items() if rank is not None):
            alike = [b for b in found if b != a and of[b].pretrained == of[a].pretrained]
            pairs += [(a, b) for b in alike if (b, a) not in pairs]
        pairs += [(arm, row.positions) for arm, row in of.items() if arm != row.positions and row.positions in found]
        made += [paired(rows, a, b) for a, b in pairs if found[a].keys() & found[b].keys()]
    return made


def _groups(scores: Iterable[Score]) -> dict[tuple[str, int | None, str], list[Score]]:
    """Scores that may be compared: of one task, number of labels and metric."""
    found: dict[tuple[str, int | None, str], list[Score]] = {}
    for row in scores:
        found.setdefault((row.task, row.labels, row.metric), []).append(row)
    return found


def _by_arm(scores: Iterable[Score]) -> dict[str, dict[int, Score]]:
    """Arm -> seed -> score, of those that were measured."""
    found: dict[str, dict[int, Score]] = {}
    for row in scores:
        if row.value is not None:
            found.setdefault(row.arm, {})[row.seed] = row
    return found


def _first(rows: dict[int, Score]) -> Score:
    return next(iter(rows.values()))
