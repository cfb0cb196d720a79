"""Comparing encodings over seeds: means with t-intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from scipy import stats

from maed.errors import MaedError
from maed.records import Paired, Score, Summary
from maed.registry import ENCODINGS


def interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float | None, float | None]:
    """Mean of `values` and its t-interval.

    The ends are mean -+ t * s / sqrt(n), with s the standard deviation (n - 1 below) and t the quantile of Student's
    distribution with n - 1 degrees of freedom. One value has no interval: its ends are None.

    Args:
        values: one number for each seed, at least one.
        confidence: share of such intervals that cover the true mean.

    Returns:
        Mean, low end, high end.
    """
    if len(values) == 0:
        raise MaedError("values: there are none; an interval takes one number or more")
    if not 0 < confidence < 1:
        raise MaedError(f"confidence: {confidence}; it must be above 0 and below 1")
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) == 1:
        return mean, None, None
    quantile = stats.t.ppf((1 + confidence) / 2, df=len(array) - 1)
    half = float(quantile * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, mean - half, mean + half


def summarize(scores: Iterable[Score]) -> list[Summary]:
    """Mean of each encoding with its interval over seeds, in the order of first appearance.

    Args:
        scores: of one task and number of labels; of equal position and seed the last counts.
    """
    found = []
    for rows in _by_encoding(scores).values():
        first, (mean, low, high) = _first(rows), interval([float(row.value or 0.0) for row in rows.values()])
        found.append(Summary(first.positions, mean, low, high, len(rows), first.task, first.labels, first.metric))
    return found


def paired(scores: Iterable[Score], a: str, b: str) -> Paired:
    """How much better `a` is than `b`: the interval of the per-seed differences over the seeds both have.

    `a` is above `b` where `low` is above 0.

    Raises:
        MaedError: no seed is common to both.
    """
    found = _by_encoding(scores)
    first, second = found.get(a, {}), found.get(b, {})
    common = sorted(first.keys() & second.keys())
    if not common:
        raise MaedError(f"paired: {a} and {b} share no seed; a paired difference needs one or more")
    differences = [float(first[seed].value or 0.0) - float(second[seed].value or 0.0) for seed in common]
    mean, low, high = interval(differences)
    row = _first(first)
    return Paired(a, b, mean, low, high, len(common), task=row.task, labels=row.labels, metric=row.metric)


def compare_all(scores: Iterable[Score]) -> list[Paired]:
    """Each reference (`maed`, then `maed-resampled` and `fourier`) against every other encoding.

    Pairs without a common seed are left out.
    """
    rows = list(scores)
    found = _by_encoding(rows)
    pairs: list[tuple[str, str]] = []
    ranks = {name: ENCODINGS.get(name).reference for name in found if name in ENCODINGS.names}
    for _, a in sorted((rank, name) for name, rank in ranks.items() if rank is not None):
        pairs += [(a, b) for b in found if b != a and (b, a) not in pairs]
    return [paired(rows, a, b) for a, b in pairs if found[a].keys() & found[b].keys()]


def _by_encoding(scores: Iterable[Score]) -> dict[str, dict[int, Score]]:
    """encoding -> seed -> score, of those that were measured."""
    found: dict[str, dict[int, Score]] = {}
    for row in scores:
        if row.value is not None:
            found.setdefault(row.positions, {})[row.seed] = row
    return found


def _first(rows: dict[int, Score]) -> Score:
    return next(iter(rows.values()))
