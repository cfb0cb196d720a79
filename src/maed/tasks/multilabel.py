"""`multilabel`: which of several labels a signal has, each of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from maed.data.signals import SignalData
from maed.errors import MaedError
from maed.settings import TrainSettings
from maed.tasks._task import Metric, Task, label_numbers, relabeled


class Multilabel(Task):
    """Columns of 0 and 1, each by binary cross-entropy.

    Judged by the area under the ROC curve (0.5 for chance), averaged over labels; average precision and F1, averaged
    likewise, stand beside it.
    """

    metric = Metric("auroc", "AUROC")
    answer = "which of several labels"
    needs = "columns"

    @classmethod
    def check(cls, data: SignalData, train: TrainSettings) -> None:
        """Refuse all but several columns of 0 and 1, both of which come up in every split."""
        numbers = label_numbers(data, "multilabel")
        if numbers.shape[1] < 2:
            raise MaedError(
                f"task: multilabel needs at least two label columns, and {data.source} has 1; use --task "
                "classification, or name several with --data.label A,B"
            )
        for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
            assert split.numbers is not None
            for label, column in zip(data.label_names, split.numbers.T, strict=True):
                odd = column[(column != 0) & (column != 1)]
                if len(odd):
                    raise MaedError(
                        f"task: multilabel needs labels of 0 and 1, and column {label!r} holds {odd[0]:g}; use --task "
                        "regression for other numbers"
                    )
                if (column == column[0]).all():
                    raise MaedError(
                        f"data.label: column {label!r} must have both 0 and 1 in each split; all {len(column)} {name} "
                        f"signals have {column[0]:g}"
                    )

    @classmethod
    def output_names(cls, data: SignalData) -> tuple[str, ...]:
        """The label columns."""
        return data.label_names

    def prepared(self, data: SignalData) -> SignalData:
        """Labels `(n, K)` float32."""
        return relabeled(data, lambda split: np.asarray(split.numbers, dtype=np.float32))

    def loss(self, outputs: Tensor, target: Any, *, training: bool) -> Tensor:
        """Binary cross-entropy, mean over labels."""
        return binary_cross_entropy_with_logits(outputs, target)

    def answers(self, outputs: Tensor) -> Tensor:
        """The probability of each label."""
        return outputs.sigmoid()

    def metrics(self) -> dict[str, Any]:
        """AUROC, average precision and F1 at a probability of 1/2, means over labels."""
        from torchmetrics.classification import MultilabelAUROC, MultilabelAveragePrecision, MultilabelF1Score

        kinds = {"auroc": MultilabelAUROC, "average precision": MultilabelAveragePrecision, "f1": MultilabelF1Score}
        return {name: kind(num_labels=len(self.names), average="macro") for name, kind in kinds.items()}

    def update(self, metrics: Mapping[str, Any], outputs: Tensor, target: Any) -> None:
        """Count a batch."""
        for metric in metrics.values():
            metric.update(outputs.sigmoid(), target.int())
