"""`imputation`: values at hidden positions from those at the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maed.data.signals import SignalData, Signals
from maed.errors import MaedError
from maed.settings import TrainSettings
from maed.tasks._task import Metric, Seen, Task, check_real

_STREAM = 47  # of random numbers, which hides positions of validation and test
_BLOCK = 1 << 22  # values drawn at a time


class Imputation(Task):
    """Normalized values at hidden positions, by squared error; the model is asked by their position vectors alone.

    A share of the real positions of each signal is hidden, anew in each training step, and the same in every
    validation and test, whatever the encoding and the seed. Judged by R² over all hidden values (1 at best, 0 for the
    mean of each position); the root mean squared error, in deviations of each position, stands beside it.
    """

    metric = Metric("r2", "R²")
    answer = "the values at hidden positions"
    per_position = True

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

    def prepared(self, data: SignalData) -> SignalData:
        """Hidden positions `(n, N)` bool of validation and test; none yet of the training."""

        def hiding(split: Signals, stream: int) -> Signals:
            n, positions = split.values.shape[:2]
            hidden, generator = np.empty((n, positions), dtype=bool), np.random.default_rng([_STREAM, stream])
            for start in range(0, n, step := max(1, _BLOCK // positions)):
                rows = np.arange(start, min(start + step, n))
                chance = torch.from_numpy(generator.random((len(rows), positions), dtype=np.float32))
                hidden[rows] = self._hidden(chance, split.real(rows)).numpy()
            return replace(split, labels=hidden)

        train = replace(data.train, labels=np.empty((len(data.train), 0), dtype=bool))
        return replace(data, train=train, validation=hiding(data.validation, 1), test=hiding(data.test, 2))

    @property
    def outputs(self) -> int:
        """Channels of a value."""
        return self.channels

    def _hidden(self, chance: Tensor, mask: Tensor | None) -> Tensor:
        """The positions of least chance among the real ones, a share of them: one at least is hidden and one seen."""
        chance = chance if mask is None else chance.masked_fill(~mask, 2.0)
        real = torch.full_like(chance[:, :1], chance.shape[1]) if mask is None else mask.sum(dim=1, keepdim=True)
        count = (real * self.settings["hidden_fraction"]).round().clamp(min=1).minimum(real - 1)  # (B, 1)
        return chance.argsort(dim=1).argsort(dim=1) < count

    def seen(self, values: Tensor, mask: Tensor | None, labels: Tensor) -> Seen:
        """All but the hidden positions; the target is all values, and where they are hidden."""
        drawn = labels.shape[1] == 0
        hidden = self._hidden(torch.rand(values.shape[:2], device=values.device), mask) if drawn else labels
        return Seen(values, ~hidden if mask is None else mask & ~hidden, (values, hidden))

    def loss(self, outputs: Tensor, target: Any, *, training: bool) -> Tensor:
        """Mean squared error of the hidden values."""
        values, hidden = target
        errors = (outputs - values).square().mean(dim=2)  # (B, N)
        return (errors * hidden).sum() / hidden.sum().clamp(min=1)

    def metrics(self) -> dict[str, Any]:
        """R² and relative error."""
        from torchmetrics.regression import MeanSquaredError, R2Score

        return {"r2": R2Score(), "relative rmse": MeanSquaredError(squared=False)}

    def update(self, metrics: Mapping[str, Any], outputs: Tensor, target: Any) -> None:
        """Count the hidden values of a batch."""
        values, hidden = target
        for metric in metrics.values():
            metric.update(outputs[hidden].flatten(), values[hidden].flatten())
