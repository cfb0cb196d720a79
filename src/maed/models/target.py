"""The interface of models that can be given positions, trained and saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from maed.data.signals import SignalData, SignalKind
from maed.data.source import first_line
from maed.errors import MaedError
from maed.models.config import ClassifierConfig
from maed.registry import ARCHITECTURES
from maed.run_folder import CONFIG, MODEL
from maed.settings import PerceiverSettings
from maed.tasks import Seen
from maed.tensors import check_layers, read_tensors, write_tensors

_OPTIONS = ("checkpoint", "image_size", "input_width", "position_width")
"""Settings of `perceiver` that not every architecture has."""


class TargetModel(nn.Module, ABC):
    """A classifier of signals that is given a table of position vectors.

    A built-in architecture is a file of `maed/models/architectures`; another package adds one by an entry point of the
    group `maed.architectures` (see `maed.registry.Registry`).

    Args:
        config: Sizes, encoding and settings.
        table: `config.table_shape`, position vectors from `maed.encodings.position_table`.
        seed: Seed of the weights; models that differ in their position encoding start from equal weights.

    Attributes:
        kinds: Signals that it is for.
        options: Settings that it has of those that not every architecture has.
        projects: An embedding of other channels than its table is projected to it.
        per_position: True if the model can answer for each position, and `forward` takes `asked`.
        of_task: Prefixes of the names of tensors that belong to the task; all others are the encoder's.
    """

    kinds: ClassVar[tuple[SignalKind, ...]] = ("real", "tokens")
    options: ClassVar[frozenset[str]] = frozenset()
    projects: ClassVar[bool] = False
    per_position: ClassVar[bool] = False
    of_task: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: ClassifierConfig, table: Tensor, *, seed: int = 0) -> None:
        super().__init__()
        config.check_table(table)
        self.config = config

    @classmethod
    def check_settings(cls, settings: PerceiverSettings) -> None:
        """Refuse settings that the architecture does not have."""
        for name in _OPTIONS:
            if getattr(settings, name) is not None and name not in cls.options:
                having = [other for other in ARCHITECTURES.names if name in ARCHITECTURES.get(other).options]
                raise MaedError(
                    f"perceiver.{name} must be left out with perceiver.architecture {settings.architecture}, got "
                    f"{getattr(settings, name)}; it applies to {' and '.join(having)} only"
                )

    @classmethod
    def check(cls, data: SignalData, settings: PerceiverSettings) -> None:
        """Refuse data, or settings, that the architecture is not for."""
        cls.check_settings(settings)
        if data.kind not in cls.kinds:
            fitting = [name for name in ARCHITECTURES.names if data.kind in ARCHITECTURES.get(name).kinds]
            raise MaedError(
                f"perceiver.architecture must be {' or '.join(fitting)} for {data.kind} signals, got "
                f"{settings.architecture}"
            )

    @classmethod
    def describe(cls, data: SignalData, encoding: str, dim: int, settings: PerceiverSettings) -> ClassifierConfig:
        """The configuration of a model for `data`; `dim` is the channels of the embedding."""
        return ClassifierConfig.of(data, encoding, dim, settings)

    @classmethod
    def build(cls, config: ClassifierConfig, table: Tensor, *, seed: int) -> Self:
        """A model to train, with random weights or those of its checkpoint."""
        return cls(config, table, seed=seed)

    @property
    @abstractmethod
    def position_table(self) -> Tensor:
        """The vectors in use, `(N, d)`."""

    @abstractmethod
    def calibrate(self, values: Tensor, mask: Tensor | None = None) -> None:
        """Make positions as loud as the content of a batch of signals.

        Args:
            values: `(B, N, C)` float32 or `(B, N)` int64.
            mask: `(B, N)` bool, True where real.
        """

    @abstractmethod
    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Compute the outputs of the task: class logits, or other numbers.

        Args:
            values: `(B, N, config.inputs)` float32 or `(B, N)` int64.
            mask: `(B, N)` bool, True where a position is real; what is stored elsewhere is never read.

        Returns:
            `(B, config.outputs)`; `(B, N, config.outputs)` where the task asks it of each position.
        """

    def tell(self, seen: Seen) -> Tensor:
        """Outputs for a batch as a task shows it, for `loss` of that task."""
        return self(*seen[:2]) if seen.asked is None else self(*seen[:2], asked=seen.asked)

    def encoder_state(self) -> dict[str, Tensor]:
        """Tensors of the encoder, which a pretraining passes on."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith(self.of_task)}

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        self.config.save(folder / CONFIG)
        write_tensors(folder / MODEL, self.state_dict())

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """Read a folder of `save_pretrained`; the model is in evaluation mode."""
        path = folder / CONFIG
        config, weights = ClassifierConfig.load(path), read_tensors(folder / MODEL)
        try:
            cls.check_settings(config.perceiver)
            check_layers(config.perceiver.layers, weights)
            model = cls(config, torch.zeros(config.table_shape))
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise MaedError(f"{path}: not the config.json of a Perceiver of maed ({first_line(error)})") from None
        load_weights(model, weights, folder / MODEL)
        return model.eval()


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Fill a model with the tensors of a safetensors file, which are to be just its own.

    Raises:
        MaedError: A tensor is missing, one too many or of another shape, which is named.
    """
    try:
        wrong = misfit(model.state_dict(), weights)
        if wrong is None:
            model.load_state_dict(weights)
    except RuntimeError as error:
        wrong = first_line(error)
    if wrong is not None:
        raise MaedError(f"{path}: not the weights of this Perceiver ({wrong})")


def misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first tensor in which `found` is not what is `wanted`, with both shapes; None if all fit."""
    for name, tensor in wanted.items():
        if name not in found:
            return f"{name}, of shape {tuple(tensor.shape)}, is not among them"
        if found[name].shape != tensor.shape:
            return f"{name} has the shape {tuple(found[name].shape)} there and {tuple(tensor.shape)} in the model"
    more = next((name for name in found if name not in wanted), None)
    return None if more is None else f"{more} is no tensor of the model"


def blanked(values: Tensor, mask: Tensor | None) -> Tensor:
    """Values with zeros where they are not real: NaN times 0 would be NaN."""
    if mask is None:
        return values
    return values.masked_fill(~mask.view(*mask.shape, *[1] * (values.ndim - 2)), 0)


def working_dtype(weight: Tensor) -> torch.dtype:
    """The dtype in which autocast computes on the device of `weight`; without autocast, that of `weight`."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
