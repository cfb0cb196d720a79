"""Which Perceiver: ours or transformers' own, what data each is for, and what its position table looks like."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from maed.data.geometry import Geometry, grid
from maed.data.signals import SignalData
from maed.embedding.fitting import project
from maed.encodings import position_table
from maed.errors import MaedError
from maed.models.checkpoints import BEYOND, SIZES, checkpoint_config, checkpoint_weights
from maed.models.model import ClassifierConfig, PerceiverClassifier
from maed.models.transformers_models import TransformersClassifier
from maed.settings import PerceiverSettings

Classifier = PerceiverClassifier | TransformersClassifier

_IMAGE_WIDTH = 256
"""Channels of content and positions in transformers' `PerceiverForImageClassificationLearned`."""


def describe_classifier(data: SignalData, encoding: str, dim: int, settings: PerceiverSettings) -> ClassifierConfig:
    """The configuration of a classifier for `data`, with the sizes of the checkpoint that it is to start from.

    Args:
        data: labeled signals.
        encoding: one of `maed.registry.ENCODINGS`.
        dim: channels d of the embedding, and of positions and content where the architecture does not fix them.
        settings: the Perceiver's.

    Raises:
        MaedError: the architecture is not for these data, or the checkpoint cannot be had.
    """
    check_architecture(data, settings)
    config = ClassifierConfig.of(data, encoding, dim, settings)
    if settings.architecture == "maed":
        return config
    width = settings.input_width or (_IMAGE_WIDTH if settings.architecture == "image" else dim)
    if settings.checkpoint is None:
        return replace(config, dim=width)
    there = checkpoint_config(settings.checkpoint)
    if settings.architecture == "text":
        if settings.input_width not in (None, there.d_model):
            raise MaedError(
                f"perceiver.input_width: {settings.input_width}; with {settings.checkpoint} it may be {there.d_model}"
            )
        width = there.d_model
    sizes = {ours: getattr(there, name) for ours, name in SIZES.items()}
    facts = {name: getattr(there, name) for name in BEYOND}
    return replace(config, dim=width, perceiver=replace(settings, **sizes), transformers=facts)


def check_architecture(data: SignalData, settings: PerceiverSettings) -> None:
    """Refuse an architecture, or a size of images, that these data are not for."""
    architecture, size = settings.architecture, settings.image_size
    suits = {"maed": data.kind, "text": "tokens", "image": "real"}[architecture]
    if suits != data.kind:
        fitting = "image" if data.kind == "real" else "text"
        raise MaedError(
            f"perceiver.architecture: {architecture} is not for {data.kind} signals; it may be {fitting} or maed"
        )
    if size is None:
        return
    if data.permutation is not None:
        raise MaedError(
            f"perceiver.image_size: {size}, but positions are permuted, and such images cannot be resized; it may be "
            "null, or data.permute may"
        )
    sides = () if data.geometry is None or data.geometry.kind != "grid" else data.geometry.shape
    if len(sides) != 2 or sides[0] != sides[1]:
        there = f"images of {sides[0]} x {sides[1]}" if len(sides) == 2 else "no images"
        raise MaedError(f"perceiver.image_size: {size}, but {data.source} has {there}; they may be square, or it null")


def resized_grid(data: SignalData, settings: PerceiverSettings) -> Geometry | None:
    """The positions of the images as the model sees them, where those are not the positions of the data."""
    size = settings.image_size
    return None if size is None or size**2 == data.positions else grid(size, size)


def table_for(config: ClassifierConfig, data: SignalData, *, seed: int, vectors: Tensor | None) -> Tensor:
    """The position table that a classifier is given, `config.table_shape`, of unit mean square.

    Args:
        config: from `describe_classifier`.
        data: the same; `fourier` reads its geometry.
        seed: seed of `trainable` and `random`.
        vectors: `(N, d)`, the embedding; with other channels than the table it is projected, distances unchanged where
            there are more (`maed.embedding.fitting.project`).
    """
    n, width = config.table_shape
    if vectors is not None and vectors.shape[1] != width and config.perceiver.architecture != "maed":
        vectors = project(vectors, width)
    geometry = resized_grid(data, config.perceiver) or data.geometry
    return position_table(config.encoding, n, width, seed=seed, geometry=geometry, vectors=vectors)


def build_classifier(config: ClassifierConfig, table: Tensor, *, seed: int) -> Classifier:
    """A classifier with random weights, or those of its checkpoint, given its position table.

    Raises:
        MaedError: a checkpoint that cannot be had, or whose tensors do not fit: the first is named, with both shapes.
    """
    if config.perceiver.architecture == "maed":
        return PerceiverClassifier(config, table, seed=seed)
    name = config.perceiver.checkpoint
    weights = None if name is None else checkpoint_weights(name)
    return TransformersClassifier(config, table, seed=seed, weights=weights)


def load_classifier(folder: Path) -> Classifier:
    """Read the folder of a trained classifier; it is in evaluation mode."""
    if ClassifierConfig.load(folder / "config.json").perceiver.architecture == "maed":
        return PerceiverClassifier.from_pretrained(folder)
    return TransformersClassifier.from_pretrained(folder)
