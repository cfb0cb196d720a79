"""`forecast`: the last channels of every position from the channels before them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from maed.data.signals import SignalData
from maed.errors import MaedError
from maed.settings import TrainSettings
from maed.tasks._task import Metric, Seen, Task, check_real, relabeled


class Forecast(Task):
    """The last channels of a signal whose channels are moments (`data.window`), by squared error.

    The model reads the moments before them, and is asked by each position's vector together with what is known of that
    position. Judged by R² over all values to come (1 at best, 0 for their mean); the root mean squared error, in
    deviations, stands beside it, and both of persistence: each position's last deviation from its mean stays.
    """

    metric = Metric("r2", "R²")
    answer = "the moments to come at every position"
    per_position = True
    own_content = True

    @classmethod
    def check(cls, data: SignalData, train: TrainSettings) -> None:
        """Refuse tokens, and signals without channels to forecast from."""
        check_real(data, "forecast")
        if data.channels <= train.horizon:
            raise MaedError(
                f"task: forecast needs more channels than train.horizon ({train.horizon}), and {data.source} has "
                f"{data.channels}; --data.window {train.horizon + 7} makes channels of that many moments of a "
                "recording"
            )

    @classmethod
    def facts(cls, data: SignalData, train: TrainSettings) -> dict[str, Any]:
        """The number of channels to forecast."""
        return {"horizon": train.horizon}

    def prepared(self, data: SignalData) -> SignalData:
        """No labels: the target is in the values."""
        return relabeled(data, lambda split: np.empty((len(split), 0), dtype=np.float32))

    @property
    def outputs(self) -> int:
        """Channels to come."""
        horizon = int(self.settings["horizon"])
        if not 0 < horizon < self.channels:
            raise ValueError(f"facts.horizon must be from 1 to {self.channels - 1}")
        return horizon

    @property
    def inputs(self) -> int:
        """Channels before them."""
        return self.channels - self.outputs

    def seen(self, values: Tensor, mask: Tensor | None, labels: Tensor) -> Seen:
        """The channels before; the target is what comes, where it is real, and the last value known."""
        real = values.new_ones(values.shape[:2]).bool() if mask is None else mask
        before, after = values[..., : self.inputs], values[..., self.inputs :]
        return Seen(before, mask, (after, real, before[..., -1:]))

    def loss(self, outputs: Tensor, target: Any, *, training: bool) -> Tensor:
        """Mean squared error of what comes."""
        after, real, _ = target
        errors = (outputs - after).square().mean(dim=2)  # (B, N)
        return (errors * real).sum() / real.sum().clamp(min=1)

    def metrics(self) -> dict[str, Any]:
        """R² and relative error, of the forecast and of persistence."""
        from torchmetrics.regression import MeanSquaredError, R2Score

        names = ("r2", "relative rmse", "persistence r2", "persistence relative rmse")
        return {name: MeanSquaredError(squared=False) if name.endswith("rmse") else R2Score() for name in names}

    def update(self, metrics: Mapping[str, Any], outputs: Tensor, target: Any) -> None:
        """Count a batch."""
        after, real, last = target
        for name, metric in metrics.items():
            told = last.expand_as(after) if name.startswith("persistence") else outputs
            metric.update(told[real].flatten(), after[real].flatten())
