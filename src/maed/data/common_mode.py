"""The common mode: what all positions of a signal go through together."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from maed.data.signals import SignalData, Signals

_BLOCK = 1_024  # signals


def common_mode(signals: Signals) -> np.ndarray:
    """The mean over the real positions of each normalized signal, `(n, C)` float32. Time grows with n N C."""
    found = np.empty((len(signals), signals.values.shape[2]), dtype=np.float32)
    for start in range(0, len(signals), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(signals)))
        x, real = signals.take(rows).numpy(), signals.real(rows)
        if real is None:
            found[rows] = x.mean(axis=1)
        else:
            there = real.numpy()[..., None]
            found[rows] = (x * there).sum(axis=1) / there.sum(axis=1)
    return found


def common_share(signals: Signals) -> float:
    """The share of the variance of normalized signals that their common mode is, the mean over channels.

    1 / N of positions that have nothing to do with one another.
    """
    return float(common_mode(signals).var(axis=0).mean())


def without_common_mode(data: SignalData) -> SignalData:
    """Take the mean over positions off each normalized signal, and scale each position to unit deviation again.

    A reference electrode, the weather of a season or the baseline of a spectrum moves all positions alike. Where it is
    nearly all there is, every position predicts every other almost perfectly, and near from far cannot be told.
    """
    common = common_mode(data.train)
    n, channels = data.positions, data.channels
    ones = np.ones((n, channels), dtype=np.float32)
    train, squares, counts = replace(data.train, common=common, rest=ones), np.zeros((n, channels)), np.zeros((n, 1))
    for start in range(0, len(train), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(train)))
        x, real = train.take(rows).numpy().astype(np.float64), train.real(rows)
        there = np.ones((*x.shape[:2], 1)) if real is None else real.numpy()[..., None]
        squares, counts = squares + (x * x * there).sum(axis=0), counts + there.sum(axis=0)
    rest = np.sqrt(squares / np.maximum(counts, 1))
    rest[rest < 1e-6] = 1.0
    kept = rest.astype(np.float32)
    validation, test = (like_training(signals, kept) for signals in (data.validation, data.test))
    return replace(data, train=replace(train, rest=kept), validation=validation, test=test)


def like_training(signals: Signals, rest: np.ndarray) -> Signals:
    """Other signals without their common mode, scaled as the training signals are."""
    return replace(signals, common=common_mode(signals), rest=rest)
