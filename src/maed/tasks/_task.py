"""The base class of tasks: loss, outputs, metrics with their direction, and requirements on the data."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from torch import Tensor

from maed.data.signals import SignalData, Signals
from maed.errors import MaedError
from maed.registry import TASKS
from maed.settings import TrainSettings


@dataclass(frozen=True)
class Metric:
    """The name, direction and format of a task's metric.

    Args:
        name: Name in files: `accuracy`.
        title: Name in tables and figures.
        higher: True if more is better.
        scale: Factor for display.
        digits: Decimals.
        unit: Put behind.
        gain_unit: Unit of a difference.
    """

    name: str
    title: str
    higher: bool = True
    scale: float = 1.0
    digits: int = 3
    unit: str = ""
    gain_unit: str = ""

    def text(self, value: float, digits: int | None = None) -> str:
        """One value: `93.1 %`."""
        return f"{self.scale * value:.{self.digits if digits is None else digits}f}{self.unit}".replace("-", "−")

    def better(self, a: float, b: float) -> float:
        """Difference of `a` and `b`, positive if `a` is better."""
        return a - b if self.higher else b - a


def metric_of(task: str, name: str) -> Metric:
    """The metric of a row of results; of a task or metric that nobody here knows, a number of which more is better."""
    known: Metric | None = TASKS.get(task).metric if task in TASKS.names else None
    return known if known is not None and known.name == name else Metric(name, name)


class Seen(NamedTuple):
    """A batch as a task shows it to a model.

    Args:
        values: `(B, N, C)` or `(B, N)`, what the model reads.
        mask: `(B, N)` bool, True where it may; None if everywhere.
        target: The true answer, in the shape that `loss` of the same task takes.
        asked: `(Q,)` positions to predict, for tasks `per_position`; None for all.
    """

    values: Tensor
    mask: Tensor | None
    target: Any
    asked: Tensor | None = None


def label_numbers(data: SignalData, task: str) -> np.ndarray:
    """The labels of the training signals as numbers, `(n, K)`.

    Raises:
        MaedError: There are none, or they are names.
    """
    if data.train.numbers is None and data.train.labels is None:
        raise MaedError(
            f"task: {task} needs labels, and {data.source} has none; name a column of a table with --data.label NAME"
        )
    if data.train.numbers is None:
        names = ", ".join(map(str, data.classes[:3]))
        raise MaedError(
            f"task: {task} needs labels that are numbers, and those of {data.source} are names ({names}, "
            "...); use --task classification"
        )
    return data.train.numbers


def check_real(data: SignalData, task: str) -> None:
    """Refuse tokens."""
    if data.kind != "real":
        raise MaedError(f"task: {task} needs real channels, and {data.source} holds tokens; use --task classification")


def relabeled(data: SignalData, labels: Callable[[Signals], np.ndarray]) -> SignalData:
    """Data whose splits have others for `labels`, one row a signal."""
    train, validation, test = (
        replace(split, labels=labels(split)) for split in (data.train, data.validation, data.test)
    )
    return replace(data, train=train, validation=validation, test=test)


class Task(ABC):
    """Base class of tasks: the target that a model is trained to predict.

    A built-in task is a file of `maed/tasks`; another package adds one by an entry point of the group `maed.tasks`.

    Args:
        names: Names of the outputs: classes, or target columns.
        channels: C of the signals.
        facts: Facts that `facts` has noted.
        train: Settings of the training; None if there is none.

    Attributes:
        metric: Metric that models are chosen and compared by.
        answer: What a model answers, in words.
        needs: Kind of labels that the task needs: `classes`, `columns` of numbers, or nothing (empty).
        per_position: True if outputs are asked of each position, by queries made of the position vectors.
        own_content: True if these queries also have what the model reads of the position itself.
    """

    metric: ClassVar[Metric]
    answer: ClassVar[str]
    needs: ClassVar[str] = ""
    per_position: ClassVar[bool] = False
    own_content: ClassVar[bool] = False

    def __init__(
        self, names: tuple[str, ...], channels: int, facts: Mapping[str, Any], train: TrainSettings | None = None
    ) -> None:
        self.names, self.channels, self.settings = names, channels, dict(facts)
        self.train = train or TrainSettings()

    # What it needs of data, and makes of them.

    @classmethod
    @abstractmethod
    def check(cls, data: SignalData, train: TrainSettings) -> None:
        """Refuse data that it cannot be learned from, in a line that names what would do."""

    @classmethod
    def output_names(cls, data: SignalData) -> tuple[str, ...]:
        """Names of the outputs, in their order; empty if they are those of the positions."""
        return ()

    @classmethod
    def facts(cls, data: SignalData, train: TrainSettings) -> dict[str, Any]:
        """Plain values of data and settings that config.json keeps for using the trained model."""
        return {}

    def prepared(self, data: SignalData) -> SignalData:
        """Data whose splits have as `labels` what `seen` reads, one row a signal."""
        return data

    # What it makes of a model.

    @property
    def outputs(self) -> int:
        """Numbers that a model tells of a signal, or of each of its positions."""
        return len(self.names)

    @property
    def inputs(self) -> int:
        """Channels that a model reads."""
        return self.channels

    def seen(self, values: Tensor, mask: Tensor | None, labels: Tensor) -> Seen:
        """The visible part of a batch and its target.

        Args:
            values: `(B, N, C)` or `(B, N)`.
            mask: `(B, N)` bool, True where real.
            labels: Labels of `prepared` data.
        """
        return Seen(values, mask, labels)

    @abstractmethod
    def loss(self, outputs: Tensor, target: Any, *, training: bool) -> Tensor:
        """The mean loss of a batch."""

    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """Torchmetrics' metrics by name, `metric` first."""

    @abstractmethod
    def update(self, metrics: Mapping[str, Any], outputs: Tensor, target: Any) -> None:
        """Let `metrics` count a batch of float32 outputs."""

    def answers(self, outputs: Tensor) -> Tensor:
        """Turn float32 outputs into answers: probabilities, or numbers in their units; normalized values are kept."""
        return outputs

    def measured(self, values: dict[str, Any]) -> dict[str, Any]:
        """The test metrics under their names in results, `metric` first."""
        return values
