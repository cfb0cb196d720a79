"""All of a classifier but its weights: what `config.json` holds, and how stored signals are fed to it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from maed.data.signals import SignalContent, SignalData, SignalKind, Signals
from maed.data.source import first_line
from maed.errors import MaedError
from maed.files import read_json, write_json
from maed.registry import ENCODINGS, TASKS
from maed.settings import PerceiverSettings, TrainSettings
from maed.tasks import Task


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything but the weights: what `config.json` holds, enough to build the classifier and to feed it.

    Args:
        kind: `real` channels or `tokens`.
        positions: N.
        classes: Names of the outputs: classes in the order of the logits, or target columns.
        encoding: The position encoding.
        dim: d, the channels of content and position embeddings.
        channels: C of real signals, otherwise 0.
        vocabulary: Number of token ids, otherwise 0.
        perceiver: The model's settings.
        sides: Height and width of images whose pixels, row by row, are the positions before `permutation`; otherwise
            empty.
        transformers: Settings that transformers' config of a checkpoint has beyond `perceiver`.
        source: The data set it was trained on.
        mean, scale: The normalization of the training signals, `(1, C)` or `(N, C)`; None for tokens.
        permutation: The fixed order the positions were put in, or None.
        content: What kind of content the signals were made of; None if unknown.
        columns: Columns of the table that the signals were read from, if it was one.
        task: Name of the task.
        facts: Facts about data and settings that the task keeps.
    """

    kind: SignalKind
    positions: int
    classes: tuple[str, ...]
    encoding: str
    dim: int
    channels: int = 0
    vocabulary: int = 0
    perceiver: PerceiverSettings = field(default_factory=PerceiverSettings)
    sides: tuple[int, ...] = ()
    transformers: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    permutation: np.ndarray | None = None
    content: SignalContent | None = None
    columns: tuple[str, ...] = ()
    task: str = "classification"
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: SignalData, encoding: str, dim: int, perceiver: PerceiverSettings) -> ClassifierConfig:
        """The configuration of a classifier for `data`."""
        return cls(
            kind=data.kind,
            positions=data.positions,
            classes=tuple(str(name) for name in data.classes),
            encoding=encoding,
            dim=dim,
            channels=data.channels,
            vocabulary=data.vocabulary,
            perceiver=perceiver,
            sides=tuple(data.geometry.shape) if data.geometry is not None and data.geometry.kind == "grid" else (),
            source=data.source,
            mean=data.train.mean,
            scale=data.train.scale,
            permutation=data.permutation,
            content=data.content,
            columns=data.columns,
        )

    @classmethod
    def load(cls, path: Path) -> ClassifierConfig:
        """Read `config.json`."""
        stored = read_json(path)
        try:
            stored = {name: value for name, value in stored.items() if name not in ("schema", "architecture")}
            for name, dtype in (("mean", np.float32), ("scale", np.float32), ("permutation", np.int64)):
                if stored[name] is not None:
                    stored[name] = np.asarray(stored[name], dtype=dtype)
            stored["classes"] = tuple(stored["classes"])
            stored["sides"] = tuple(int(side) for side in stored.get("sides") or ())
            stored["columns"] = tuple(stored.get("columns") or ())
            stored["perceiver"] = PerceiverSettings(**stored["perceiver"])
            found = cls(**stored)
            assert found.outputs >= 0  # the facts are such as the task notes
            return found
        except MaedError as error:  # no such task
            raise MaedError(f"{path}: not the config.json of a Perceiver of maed ({error})") from None
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise MaedError(f"{path}: not the config.json of a Perceiver of maed ({first_line(error)})") from None

    def save(self, path: Path) -> None:
        """Write `config.json`."""
        write_json(path, {"schema": 1, "architecture": "perceiver", **asdict(self)}, sealed=True)

    def learned(self, train: TrainSettings | None = None) -> Task:
        """The task, as this data and a training have it."""
        task: Task = TASKS.get(self.task)(self.classes, self.channels, self.facts, train)
        return task

    @property
    def outputs(self) -> int:
        """Numbers that the model tells of a signal, or of each position."""
        return self.learned().outputs

    @property
    def inputs(self) -> int:
        """Channels that the model reads; 0 for tokens."""
        return self.learned().inputs

    @property
    def table_shape(self) -> tuple[int, int]:
        """Positions and channels of the position table: the signals', or those of the images as the model sees them."""
        size = self.perceiver.image_size
        return (self.positions if size is None else size**2), self.dim

    @property
    def trains_table(self) -> bool:
        """True if the position table is trained."""
        trained: bool = ENCODINGS.get(self.encoding, "encoding").trains_table(self.perceiver.fine_tune)
        return trained

    def check_table(self, table: Tensor) -> None:
        """Refuse a position table of another shape."""
        if tuple(table.shape) != self.table_shape:
            raise MaedError(f"table must have shape {self.table_shape}, got {tuple(table.shape)}")

    def prepare(self, values: np.ndarray) -> Tensor:
        """Signals as their source stores them, `(n, N, inputs)` or `(n, N)`: in order and normalized for `forward`."""
        shape = (self.positions,) if self.kind == "tokens" else (self.positions, self.inputs)
        if values.shape[1:] != shape:
            raise MaedError(f"input must be signals of shape {shape}, got {values.shape[1:]}")
        if self.permutation is not None:
            values = values[:, self.permutation]
        mean, scale = (None if part is None else part[:, : self.inputs] for part in (self.mean, self.scale))
        return Signals(values, mean=mean, scale=scale).take(np.arange(len(values)))

    def restored(self, values: np.ndarray) -> np.ndarray:
        """Normalized values `(n, N, c)` of the last c channels as a source stores them: in its units and its order."""
        if self.mean is None or self.scale is None:
            return values
        last = slice(self.channels - values.shape[2], None)
        stored = np.empty_like(values)
        order = slice(None) if self.permutation is None else self.permutation
        stored[:, order] = values * self.scale[:, last] + self.mean[:, last]
        return stored
