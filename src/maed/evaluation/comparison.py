"""Comparing encodings over seeds: means with t-intervals, and paired differences."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import stats

from maed.errors import MaedError
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
        raise MaedError(f"confidence: {confidence}; it may be above 0 and below 1")
    array = np.asarray(values, dtype=np.float64)
    mean = float(array.mean())
    if len(array) == 1:
        return mean, None, None
    quantile = stats.t.ppf((1 + confidence) / 2, df=len(array) - 1)
    half = float(quantile * array.std(ddof=1) / np.sqrt(len(array)))
    return mean, mean - half, mean + half


def summarize(classification: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean test accuracy of each encoding with its interval over seeds, in the order of first appearance.

    Args:
        classification: rows with `positions`, `seed` and `test_accuracy`; of equal position and seed the last counts.

    Returns:
        Rows `{"positions", "mean", "low", "high", "seeds"}`.
    """
    rows = []
    for encoding, accuracies in _by_encoding(classification).items():
        mean, low, high = interval(list(accuracies.values()))
        rows.append({"positions": encoding, "mean": mean, "low": low, "high": high, "seeds": len(accuracies)})
    return rows


def paired(classification: Iterable[dict[str, Any]], a: str, b: str) -> dict[str, Any]:
    """How much more accurate `a` is than `b`: the interval of the per-seed differences over the seeds both have.

    Returns:
        `{"a", "b", "mean", "low", "high", "seeds"}`; `a` is above `b` where `low` is above 0.

    Raises:
        MaedError: no seed is common to both.
    """
    accuracies = _by_encoding(classification)
    first, second = accuracies.get(a, {}), accuracies.get(b, {})
    common = sorted(first.keys() & second.keys())
    if not common:
        raise MaedError(f"paired: {a} and {b} share no seed; a paired difference needs one or more")
    mean, low, high = interval([first[seed] - second[seed] for seed in common])
    return {"a": a, "b": b, "mean": mean, "low": low, "high": high, "seeds": len(common)}


def compare_all(classification: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each reference (`maed`, then `maed-resampled` and `fourier`) against every other encoding: rows of `paired`.

    Pairs without a common seed are left out.
    """
    rows = list(classification)
    accuracies = _by_encoding(rows)
    ranks = {name: ENCODINGS.get(name).reference for name in accuracies if name in ENCODINGS.names}
    pairs: list[tuple[str, str]] = []
    for _, a in sorted((rank, name) for name, rank in ranks.items() if rank is not None):
        pairs += [(a, b) for b in accuracies if b != a and (b, a) not in pairs]
    return [paired(rows, a, b) for a, b in pairs if accuracies[a].keys() & accuracies[b].keys()]


def _by_encoding(classification: Iterable[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Test accuracies: encoding -> seed -> accuracy."""
    accuracies: dict[str, dict[int, float]] = {}
    for row in classification:
        accuracies.setdefault(row["positions"], {})[row["seed"]] = row["test_accuracy"]
    return accuracies
