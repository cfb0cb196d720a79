"""Training-free similarities: what a user gets without any autoencoder, and what it has to beat."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

import numpy as np

from maed.data.signals import SignalData, SignalKind
from maed.errors import MaedError
from maed.registry import BASELINES
from maed.similarity.similarity import Similarity


class Baseline(ABC):
    """Makes a similarity of the signals alone.

    One file of `maed/similarity/baselines` for each, or one entry point `maed.baselines` of another package.

    Attributes:
        kinds: of signals that it is for: `real`, `tokens`.
        made: how a model card says that positions were made by it.
    """

    kinds: ClassVar[tuple[SignalKind, ...]]
    made: ClassVar[str] = "made from the signals, without training"

    @abstractmethod
    def similarity(self, data: SignalData) -> Similarity:
        """The similarity between the positions of the training signals."""


def baselines_for(data: SignalData) -> tuple[str, ...]:
    """The names of all baselines for signals of this kind."""
    return tuple(name for name in BASELINES.names if data.kind in BASELINES.get(name).kinds)


def baseline_for(data: SignalData) -> str:
    """The baseline that every run is measured against: `correlation` for real channels, `dependence` for tokens."""
    return "dependence" if data.kind == "tokens" else "correlation"


def compute_baseline(name: str, data: SignalData, signals: int | None = None) -> Similarity:
    """Make a baseline of the training signals, or of the first `signals` of a fixed shuffle of them.

    Raises:
        MaedError: the baseline is not for this kind of signal.
    """
    if name not in (fitting := baselines_for(data)):
        raise MaedError(f"similarity: must be {' or '.join(fitting)} for {data.kind} signals, got {name!r}")
    train = data.train
    if signals is not None and signals < len(train):
        rows = np.sort(np.random.default_rng(0).permutation(len(train))[:signals])
        data = replace(data, train=train.rows(rows))
    return BASELINES.get(name)().similarity(data)
