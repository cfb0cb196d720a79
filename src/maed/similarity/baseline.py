"""Training-free similarities: what a user gets without any autoencoder, and what it has to beat."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import ClassVar

import numpy as np

from maed.data.signals import SignalData, SignalKind
from maed.errors import MaedError
from maed.registry import BASELINES
from maed.similarity.pairs import SparseSimilarity
from maed.similarity.similarity import Similarity


class Baseline(ABC):
    """Makes a similarity of the signals alone.

    One file of `maed/similarity/baselines` for each, or one entry point `maed.baselines` of another package.

    Attributes:
        kinds: Kinds of signals that it accepts: `real`, `tokens`.
        made: Phrase for model cards that says how positions were made.
        sparse: True if it has `pairs`, and so takes any number of positions.
    """

    kinds: ClassVar[tuple[SignalKind, ...]]
    sparse: ClassVar[bool] = False
    made: ClassVar[str] = "made from the signals, without training"

    @abstractmethod
    def similarity(self, data: SignalData) -> Similarity:
        """The similarity between the positions of the training signals."""

    def pairs(self, data: SignalData) -> SparseSimilarity:
        """The similarity of candidate pairs alone, of a method that is `sparse`."""
        raise TypeError(f"{type(self).__name__} computes only similarities of all pairs")


def baselines_for(data: SignalData, *, sparse: bool = False) -> tuple[str, ...]:
    """The names of all baselines for signals of this kind; of those alone that are `sparse`, if that is asked for."""
    fitting = [name for name in BASELINES.names if data.kind in BASELINES.get(name).kinds]
    return tuple(name for name in fitting if BASELINES.get(name).sparse or not sparse)


def baseline_for(data: SignalData) -> str:
    """The baseline that every run is measured against: `correlation` for real channels, `dependence` for tokens."""
    return "dependence" if data.kind == "tokens" else "correlation"


def compute_baseline(
    name: str, data: SignalData, signals: int | None = None, *, sparse: bool = False
) -> Similarity | SparseSimilarity:
    """Make a baseline of the training signals, or of the first `signals` of a fixed shuffle of them.

    Args:
        name: Name of the baseline.
        data: The signals.
        signals: Largest number of signals to read.
        sparse: True to measure only candidate pairs.

    Returns:
        The similarity `(N, N)`, or that of candidate pairs with `sparse`.

    Raises:
        MaedError: The baseline is not for this kind of signal.
    """
    if name not in (fitting := baselines_for(data, sparse=sparse)):
        raise MaedError(f"similarity must be {' or '.join(fitting)} for {data.kind} signals, got {name!r}")
    train = data.train
    if signals is not None and signals < len(train):
        rows = np.sort(np.random.default_rng(0).permutation(len(train))[:signals])
        data = replace(data, train=train.rows(rows))
    baseline: Baseline = BASELINES.get(name)()
    return baseline.pairs(data) if sparse else baseline.similarity(data)
