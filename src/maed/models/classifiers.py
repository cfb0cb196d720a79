"""A classifier for data: described, given its table, built, and read again, of whatever architecture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from maed.data.geometry import Geometry, grid
from maed.data.signals import SignalData
from maed.embedding.fitting import project
from maed.encodings import position_table
from maed.errors import MaedError
from maed.models.config import ClassifierConfig
from maed.models.target import TargetModel
from maed.registry import ARCHITECTURES, TASKS
from maed.run_folder import CONFIG
from maed.settings import PerceiverSettings, TrainSettings


def describe_classifier(
    data: SignalData,
    encoding: str,
    dim: int,
    settings: PerceiverSettings,
    *,
    task: str = "classification",
    train: TrainSettings | None = None,
    option: str = "task",
) -> ClassifierConfig:
    """The configuration of a classifier for `data`, with the sizes of the checkpoint that it is to start from.

    Args:
        data: Labeled signals.
        encoding: One of `maed.registry.ENCODINGS`.
        dim: Channels d of the embedding, and of positions and content where the architecture does not fix them.
        settings: The Perceiver's.
        task: One of `maed.registry.TASKS`, which these data have passed.
        train: Settings of the training, of which the task may keep some.
        option: The command-line option that chose the task, for messages.

    Raises:
        MaedError: The architecture is not for these data, settings or task, or the checkpoint cannot be had.
    """
    architecture = architecture_of(settings)
    architecture.check(data, settings)
    kind = TASKS.get(task, "task")
    if kind.per_position and not architecture.per_position:
        able = [name for name in ARCHITECTURES.names if ARCHITECTURES.get(name).per_position]
        raise MaedError(
            f"perceiver.architecture must be {' or '.join(able)} with --{option} {task}, which predicts a value "
            f"for each position, got {settings.architecture}"
        )
    config = architecture.describe(data, encoding, dim, settings)
    return replace(config, task=task, classes=kind.output_names(data), facts=kind.facts(data, train or TrainSettings()))


def architecture_of(settings: PerceiverSettings) -> type[TargetModel]:
    """The class of `perceiver.architecture`."""
    return ARCHITECTURES.get(settings.architecture, "perceiver.architecture")


def resized_grid(data: SignalData, settings: PerceiverSettings) -> Geometry | None:
    """The positions of the images as the model sees them; None if those are the positions of the data."""
    size = settings.image_size
    return None if size is None or size**2 == data.positions else grid(size, size)


def table_for(config: ClassifierConfig, data: SignalData, *, seed: int, vectors: Tensor | None) -> Tensor:
    """The position table that a classifier is given, `config.table_shape`, of unit mean square.

    Args:
        config: Configuration, from `describe_classifier`.
        data: The same; `fourier` reads its geometry.
        seed: Seed of `trainable` and `random`.
        vectors: `(N, d)`, the embedding; with other channels than the table it is projected, distances unchanged where
            there are more (`maed.embedding.fitting.project`), if the architecture has it so.
    """
    n, width = config.table_shape
    if vectors is not None and vectors.shape[1] != width and architecture_of(config.perceiver).projects:
        vectors = project(vectors, width)
    geometry = resized_grid(data, config.perceiver) or data.geometry
    return position_table(config.encoding, n, width, seed=seed, geometry=geometry, vectors=vectors)


def build_classifier(config: ClassifierConfig, table: Tensor, *, seed: int) -> TargetModel:
    """A classifier with random weights, or those of its checkpoint, given its position table.

    Raises:
        MaedError: a checkpoint that cannot be had, or whose tensors do not fit: the first is named, with both shapes.
    """
    return architecture_of(config.perceiver).build(config, table, seed=seed)


def load_classifier(folder: Path) -> TargetModel:
    """Read the folder of a trained classifier; it is in evaluation mode."""
    return architecture_of(ClassifierConfig.load(folder / CONFIG).perceiver).from_pretrained(folder)
