"""`regression`: one or more numbers for each signal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from maed.data.signals import SignalData
from maed.errors import MaedError
from maed.settings import TrainSettings
from maed.tasks._task import Metric, Task, label_numbers, relabeled


class Regression(Task):
    """Target columns, normalized by the labels that are known, by squared error.

    Judged by R² (1 at best, 0 for the mean), averaged over targets; the root mean squared error of each, in its own
    units, stands beside it.
    """

    metric = Metric("r2", "R²")
    answer = "one number or more"
    needs = "columns"

    def __init__(
        self, names: tuple[str, ...], channels: int, facts: Mapping[str, Any], train: TrainSettings | None = None
    ) -> None:
        super().__init__(names, channels, facts, train)
        for part in ("mean", "scale"):
            if np.asarray(self.settings[part], dtype=np.float64).shape != (len(names),):
                raise ValueError(f"facts.{part} must be {len(names)} numbers")

    @classmethod
    def check(cls, data: SignalData, train: TrainSettings) -> None:
        """Refuse labels that are no numbers, and a column that is constant."""
        numbers = label_numbers(data, "regression")
        for name, column in zip(data.label_names, numbers.T, strict=True):
            if (column == column[0]).all():
                raise MaedError(
                    f"data.label: column {name!r} must vary; all {len(column)} training signals have {column[0]:g}"
                )
        for name, split in (("validation", data.validation), ("test", data.test)):
            if len(split) < 2:
                raise MaedError(
                    f"task: regression needs at least two {name} signals, and {data.source} has {len(split)}"
                )

    @classmethod
    def output_names(cls, data: SignalData) -> tuple[str, ...]:
        """The target columns."""
        return data.label_names

    @classmethod
    def facts(cls, data: SignalData, train: TrainSettings) -> dict[str, Any]:
        """Mean and deviation of the targets that are known."""
        numbers = label_numbers(data, "regression")
        scale = numbers.std(axis=0)
        return {"mean": numbers.mean(axis=0).tolist(), "scale": np.where(scale > 0, scale, 1.0).tolist()}

    def prepared(self, data: SignalData) -> SignalData:
        """Targets `(n, K)` of mean 0 and deviation 1 in training."""
        mean, scale = self.settings["mean"], self.settings["scale"]
        return relabeled(data, lambda split: ((np.asarray(split.numbers) - mean) / scale).astype(np.float32))

    def loss(self, outputs: Tensor, target: Any, *, training: bool) -> Tensor:
        """Mean squared error."""
        return mse_loss(outputs, target)

    def metrics(self) -> dict[str, Any]:
        """R², and the root mean squared errors."""
        from torchmetrics.regression import MeanSquaredError, R2Score

        return {"r2": R2Score(), "rmse": MeanSquaredError(squared=False, num_outputs=len(self.names))}

    def update(self, metrics: Mapping[str, Any], outputs: Tensor, target: Any) -> None:
        """Count a batch."""
        metrics["r2"].update(outputs, target)
        metrics["rmse"].update(self.in_units(outputs), self.in_units(target))

    def measured(self, values: dict[str, Any]) -> dict[str, Any]:
        """Errors by the names of the targets."""
        errors = np.atleast_1d(values["rmse"]).tolist()
        return {"r2": values["r2"], **{f"rmse {name}": error for name, error in zip(self.names, errors, strict=True)}}

    def answers(self, outputs: Tensor) -> Tensor:
        """Targets `(B, K)` as they are stored."""
        return self.in_units(outputs)

    def in_units(self, outputs: Tensor) -> Tensor:
        """Numbers `(B, K)` as they are stored, from normalized ones."""
        mean, scale = (torch.tensor(self.settings[name], device=outputs.device) for name in ("mean", "scale"))
        return outputs * scale + mean
