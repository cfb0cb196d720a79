"""`masked`: values or tokens at hidden positions, the task that encoders are pretrained with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maed.autoencoder.losses import LossName, outputs_of, position_losses
from maed.autoencoder.masking import hide_share
from maed.data.signals import SignalData, Signals
from maed.errors import MaedError
from maed.settings import TrainSettings
from maed.tasks._task import Metric, Seen, Task

_STREAM = 47  # of random numbers, which hides positions of validation and test
_BLOCK = 1 << 22  # values drawn at a time


class Masked(Task):
    """Predict hidden positions: values by squared error, tokens by cross-entropy, as in the autoencoder.

    Queries are made from position vectors alone. A share of the real positions of each signal is hidden, anew in each
    training step, and the same in every validation and test, whatever the encoding and the seed. Judged by the loss;
    for tokens, the share that is right is reported too.
    """

    metric = Metric("hidden_loss", "loss of hidden positions", higher=False, digits=4)
    answer = "the values or tokens at hidden positions"
    per_position = True

    @classmethod
    def check(cls, data: SignalData, train: TrainSettings) -> None:
        """Refuse data of which no signal has two real positions, one to hide and one to see."""
        for name, split in (("training", data.train), ("validation", data.validation), ("test", data.test)):
            real = np.full(len(split), data.positions) if split.mask is None else split.mask.sum(axis=1)
            if not (real > 1).any():
                raise MaedError(
                    f"masked needs {name} signals with at least 2 real positions, one to hide and one to see; "
                    f"{data.source} has none; try a larger data.limit or data.length"
                )

    @classmethod
    def facts(cls, data: SignalData, train: TrainSettings) -> dict[str, Any]:
        """The share that is hidden, how many positions are predicted at once, and the number of tokens."""
        share = train.pretrain_hidden or (0.2 if data.kind == "tokens" else 0.5)
        return {"hidden_fraction": share, "scored": train.pretrain_scored, "vocabulary": data.vocabulary}

    def prepared(self, data: SignalData) -> SignalData:
        """Hidden positions `(n, N)` bool of validation and test; none yet of the training."""

        def hiding(split: Signals, stream: int) -> Signals:
            n, positions = split.values.shape[:2]
            hidden, generator = np.empty((n, positions), dtype=bool), np.random.default_rng([_STREAM, stream])
            for start in range(0, n, step := max(1, _BLOCK // positions)):
                rows = np.arange(start, min(start + step, n))
                chance = torch.from_numpy(generator.random((len(rows), positions), dtype=np.float32))
                hidden[rows] = hide_share(chance, split.real(rows), self.settings["hidden_fraction"]).numpy()
            return replace(split, labels=hidden)

        train = replace(data.train, labels=np.empty((len(data.train), 0), dtype=bool))
        return replace(data, train=train, validation=hiding(data.validation, 1), test=hiding(data.test, 2))

    @property
    def loss_name(self) -> LossName:
        """The autoencoder's loss of these signals."""
        return "cross-entropy" if self.settings.get("vocabulary") else "mse"

    @property
    def outputs(self) -> int:
        """Channels of a value, or logits of the tokens."""
        vocabulary = int(self.settings.get("vocabulary") or 0)
        return outputs_of(self.loss_name, channels=self.channels, vocabulary=vocabulary)

    def seen(self, values: Tensor, mask: Tensor | None, labels: Tensor) -> Seen:
        """All but the hidden positions; the target is the content of those asked for, and which of them are hidden."""
        (n, drawn), most = (values.shape[1], labels.shape[1] == 0), self.settings.get("scored")
        chance = torch.rand(values.shape[:2], device=values.device) if drawn else labels
        hidden = hide_share(chance, mask, self.settings["hidden_fraction"]) if drawn else labels
        shown = ~hidden if mask is None else mask & ~hidden
        if most is None or most >= n:
            return Seen(values, shown, (values, hidden))
        generator = None if drawn else torch.Generator().manual_seed(_STREAM)  # the same at every validation
        asked = torch.randperm(n, generator=generator)[:most].to(values.device)  # of all signals, as in the autoencoder
        return Seen(values, shown, (values[:, asked], hidden[:, asked]), asked)

    def loss(self, outputs: Tensor, target: Any, *, training: bool) -> Tensor:
        """Mean over the hidden positions."""
        values, hidden = target
        return (position_losses(outputs, values, self.loss_name) * hidden).sum() / hidden.sum().clamp(min=1)

    def metrics(self) -> dict[str, Any]:
        """The loss, and for tokens the share that is right."""
        from torchmetrics import MeanMetric

        names = ("hidden_loss", "token_accuracy") if self.settings["vocabulary"] else ("hidden_loss",)
        return {name: MeanMetric() for name in names}

    def update(self, metrics: Mapping[str, Any], outputs: Tensor, target: Any) -> None:
        """Count the hidden positions of a batch."""
        values, hidden = target
        metrics["hidden_loss"].update(position_losses(outputs, values, self.loss_name)[hidden])
        if "token_accuracy" in metrics:
            metrics["token_accuracy"].update((outputs.argmax(dim=-1) == values)[hidden].float())
