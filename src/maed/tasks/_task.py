"""What a task is: the loss, the outputs, the metrics and their direction, and what it needs of the data."""

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
    """How the number that a task is judged by is called and read.

    Args:
        name: as files have it: `accuracy`.
        title: as readers have it.
        higher: whether more is better.
        scale: what it is multiplied by for readers.
        digits: decimals.
        unit: put behind.
        gain_unit: what a difference of two is counted in.
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
        """How much better `a` is than `b`: above 0 where it is."""
        return a - b if self.higher else b - a


def metric_of(task: str, name: str) -> Metric:
    """The metric of a row of results; of a task or metric that nobody here knows, a number of which more is better."""
    known: Metric | None = TASKS.get(task).metric if task in TASKS.names else None
    return known if known is not None and known.name == name else Metric(name, name)


class Seen(NamedTuple):
    """A batch as a task shows it to a model.

    Args:
        values: `(B, N, C)` or `(B, N)`, what the model reads.
        mask: `(B, N)` bool, True where it may; None where everywhere.
        target: what it is to tell; of the shape that `loss` of the same task takes.
        asked: `(Q,)` positions that are asked for, of a task `per_position`; None for all.
    """

    values: Tensor
    mask: Tensor | None
    target: Any
    asked: Tensor | None = None


def label_numbers(data: SignalData, task: str) -> np.ndarray:
    """The labels of the training signals as numbers, `(n, K)`.

    Raises:
        MaedError: there are none, or they are names.
    """
    if data.train.numbers is None and data.train.labels is None:
        raise MaedError(
            f"task: {task} needs labels, and {data.source} has none; --data.label NAME takes a column of a table"
        )
    if data.train.numbers is None:
        names = ", ".join(map(str, data.classes[:3]))
        raise MaedError(
            f"task: {task} needs labels that are numbers, and those of {data.source} are names ({names}, ...); --task "
            "classification takes them"
        )
    return data.train.numbers


def check_real(data: SignalData, task: str) -> None:
    """Refuse tokens."""
    if data.kind != "real":
        raise MaedError(f"task: {task} is of real channels, and {data.source} holds tokens; classification takes them")


def relabeled(data: SignalData, labels: Callable[[Signals], np.ndarray]) -> SignalData:
    """Data whose splits have others for `labels`, one row a signal."""
    train, validation, test = (
        replace(split, labels=labels(split)) for split in (data.train, data.validation, data.test)
    )
    return replace(data, train=train, validation=validation, test=test)


class Task(ABC):
    """What a model is trained to tell of signals.

    A built-in task is a file of `maed/tasks`; another package adds one by an entry point of the group `maed.tasks`.

    Args:
        names: of the outputs: classes, or target columns.
        channels: C of the signals.
        facts: what `facts` has noted.
        train: settings of the training; None where there is none.

    Attributes:
        metric: what models are chosen and compared by.
        answer: what a model tells, in words.
        needs: of the data's labels: `classes`, `columns` of numbers, or nothing (empty).
        per_position: whether outputs are asked of each position, by queries made of the position vectors.
        own_content: whether these queries also have what the model reads of the position itself.
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
        """Names of the outputs, in their order; empty where they are those of the positions."""
        return ()

    @classmethod
    def facts(cls, data: SignalData, train: TrainSettings) -> dict[str, Any]:
        """What config.json is to keep of data and settings, plain values: a trained model is used with it."""
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
        """What a model is shown of a batch, and what it is to tell.

        Args:
            values: `(B, N, C)` or `(B, N)`.
            mask: `(B, N)` bool, True where real.
            labels: of `prepared` data.
        """
        return Seen(values, mask, labels)

    @abstractmethod
    def loss(self, outputs: Tensor, target: Any, *, training: bool) -> Tensor:
        """The mean loss of a batch."""

    @abstractmethod
    def metrics(self) -> dict[str, Any]:
        """torchmetrics' metrics by name, `metric` first."""

    @abstractmethod
    def update(self, metrics: Mapping[str, Any], outputs: Tensor, target: Any) -> None:
        """Let `metrics` count a batch of float32 outputs."""

    def answers(self, outputs: Tensor) -> Tensor:
        """What float32 outputs say of new signals: probabilities, numbers in their units; normalized values as such."""
        return outputs

    def measured(self, values: dict[str, Any]) -> dict[str, Any]:
        """What `metrics` came to in the test, under the names that results have: `metric` first."""
        return values
