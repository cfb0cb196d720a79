"""`imputation`: values at hidden positions from those at the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from maed.data.signals import SignalData
from maed.errors import MaedError
from maed.settings import TrainSettings
from maed.tasks._task import Metric, check_real
from maed.tasks.masked import Masked


class Imputation(Masked):
    """Normalized values at hidden positions, by squared error; the model is asked by their position vectors alone.

    Positions are hidden as in `masked`, and all are predicted. Judged by R² over all hidden values (1 at best, 0 for
    the mean of each position); the root mean squared error, in deviations of each position, stands beside it.
    """

    metric = Metric("r2", "R²")
    answer = "the values at hidden positions"

    @classmethod
    def check(cls, data: SignalData, train: TrainSettings) -> None:
        """Refuse tokens."""
        check_real(data, "imputation")

        for name, split in (("validation", data.validation), ("test", data.test)):
            if len(split) < 2:
                raise MaedError(f"task: imputation needs at least two {name} signals; {data.source} has {len(split)}")

    @classmethod
    def facts(cls, data: SignalData, train: TrainSettings) -> dict[str, Any]:
        """The share that is hidden."""
        return {"hidden_fraction": train.hidden_fraction}

    def metrics(self) -> dict[str, Any]:
        """R² and relative error."""
        from torchmetrics.regression import MeanSquaredError, R2Score

        return {"r2": R2Score(), "relative rmse": MeanSquaredError(squared=False)}

    def update(self, metrics: Mapping[str, Any], outputs: Tensor, target: Any) -> None:
        """Count the hidden values of a batch."""
        values, hidden = target
        for metric in metrics.values():
            metric.update(outputs[hidden].flatten(), values[hidden].flatten())
