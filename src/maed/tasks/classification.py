"""`classification`: one of several classes for each signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import cross_entropy

from maed.data.signals import SignalData
from maed.errors import MaedError
from maed.settings import TrainSettings
from maed.tasks._task import Metric, Task


class Classification(Task):
    """The class of a signal, by cross-entropy; judged by accuracy."""

    metric = Metric("accuracy", "accuracy", scale=100, digits=1, unit=" %", gain_unit="points of per cent")
    answer = "one of several classes"
    needs = "classes"

    @classmethod
    def check(cls, data: SignalData, train: TrainSettings) -> None:
        """Refuse data without labels, and a split in which one of the classes never comes up."""
        if not data.labeled:
            raise MaedError(
                f"train: {data.source} has no labels of at least two classes, which training a Perceiver needs"
            )
        for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
            assert split.labels is not None
            absent = np.flatnonzero(np.bincount(split.labels, minlength=len(data.classes)) == 0)
            if len(absent):
                of = data.source + (", of which whole groups are held out," if "whole groups" in data.held_out else "")
                raise MaedError(
                    f"train: no {name} signal of {of} is of class {data.classes[absent[0]]!r}; raise data.limit or "
                    "change data.seed"
                )

    @classmethod
    def output_names(cls, data: SignalData) -> tuple[str, ...]:
        """The classes."""
        return tuple(str(name) for name in data.classes)

    def loss(self, outputs: Tensor, target: Any, *, training: bool) -> Tensor:
        """Cross-entropy, smoothed in training."""
        return cross_entropy(outputs, target, label_smoothing=self.train.label_smoothing if training else 0.0)

    def answers(self, outputs: Tensor) -> Tensor:
        """Probabilities of the classes."""
        return outputs.softmax(dim=1)

    def metrics(self) -> dict[str, Any]:
        """Accuracy."""
        from torchmetrics.classification import MulticlassAccuracy

        return {"accuracy": MulticlassAccuracy(num_classes=len(self.names), average="micro")}

    def update(self, metrics: Mapping[str, Any], outputs: Tensor, target: Any) -> None:
        """Count a batch."""
        metrics["accuracy"].update(outputs, target)
