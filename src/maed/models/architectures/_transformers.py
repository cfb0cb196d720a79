"""Base of transformers' own classifiers: their position table is used as given."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PerceiverConfig, PreTrainedModel

from maed.data.signals import SignalData
from maed.embedding import PositionEmbedding
from maed.integrations import replace_positions
from maed.integrations.replacing import root_mean_square
from maed.models.checkpoints import BEYOND, SIZES, built_config, checkpoint_config, checkpoint_weights, start_from
from maed.models.config import ClassifierConfig
from maed.models.fused import fuse
from maed.models.perceivers import latent_logits
from maed.models.target import TargetModel, blanked, working_dtype
from maed.settings import PerceiverSettings

_CALIBRATED = 8
"""Signals that calibration looks at: enough for a mean over all their positions, few enough for 50,176 of these."""


class TransformersClassifier(TargetModel):
    """A classifier of transformers as a classifier of signals.

    Weights depend on `seed` (and the checkpoint) alone, so classifiers that differ in their position encoding start
    from equal weights. The table takes the place of the model's own when that is complete, for its construction ends in
    `post_init()`, which draws every embedding anew. It is as loud as the content that it joins (`calibrate`), or as the
    table of the checkpoint that it replaces, and frozen unless it is to be trained.

    Args:
        config: Sizes, encoding and settings.
        table: `config.table_shape`, position vectors from `maed.encodings.position_table`.
        seed: Seed of the weights.
        weights: Tensors of a checkpoint to start from (`maed.models.checkpoints`).

    Attributes:
        table_key: Name of the position table in `model`.
        model: The plain module of transformers.
        rms: Root mean square that the table was given.
    """

    projects = True
    table_key: ClassVar[str]

    def __init__(
        self, config: ClassifierConfig, table: Tensor, *, seed: int = 0, weights: dict[str, Tensor] | None = None
    ) -> None:
        super().__init__(config, table)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = fuse(self.plain_model(config, transformers_config(config)))
        self._given: Tensor | None = table.detach()
        replaced = 0.0
        if weights is not None:
            start_from(self.model, weights, str(config.perceiver.checkpoint), table=self.table_key)
            replaced = root_mean_square(weights[self.table_key]) if self.table_key in weights else 0.0
        self._settled = replaced > 0
        # of a content embedding of images whose channels are independent and of unit variance
        fan_in = self.content.weight.shape[1] if isinstance(self.content, nn.Conv2d) else 1
        expected = root_mean_square(self.content.weight) * fan_in**0.5
        self.rms = replaced if self._settled else self.joining(expected, table)
        self._put(table)

    @property
    def perceiver(self) -> Any:
        """Transformers' PerceiverModel."""
        return self.model.perceiver

    @property
    def position_table(self) -> Tensor:
        """The vectors in use, `(N, d)`."""
        table: Tensor = self.model.get_parameter(self.table_key)
        return table.detach()

    @torch.no_grad()
    def calibrate(self, values: Tensor, mask: Tensor | None = None) -> None:
        """Make positions as loud as the content of the first 8 of some signals; what a checkpoint has settled stays."""
        if self._settled:
            return
        values, mask = values[:_CALIBRATED], None if mask is None else mask[:_CALIBRATED]
        inputs, mask = self.inputs(blanked(values, mask), mask)
        content = self.content(inputs)
        content = content if content.ndim == 3 else content.flatten(2).transpose(1, 2)  # (B, N, width)
        size = root_mean_square(content if mask is None else content[mask])
        if size > 0 and np.isfinite(size):
            given = self.position_table.clone() if self._given is None else self._given
            self.rms, self._given = self.joining(size, given), None
            self._put(given)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Class logits, `(B, classes)`; images in row-major order are resized to `perceiver.image_size`."""
        inputs, mask = self.inputs(blanked(values, mask), mask)
        preprocessed = self.perceiver.input_preprocessor(inputs)
        return latent_logits(self.perceiver, preprocessed, mask, working_dtype(self.content.weight))

    @classmethod
    def describe(cls, data: SignalData, encoding: str, dim: int, settings: PerceiverSettings) -> ClassifierConfig:
        """The configuration of a model for `data`, with the sizes of the checkpoint that it is to start from.

        Raises:
            MaedError: The checkpoint cannot be had, or has another width.
        """
        config = ClassifierConfig.of(data, encoding, cls.width(dim, settings), settings)
        if settings.checkpoint is None:
            return config
        there = checkpoint_config(settings.checkpoint)
        sizes = {ours: getattr(there, name) for ours, name in SIZES.items()}
        facts = {name: getattr(there, name) for name in BEYOND}
        width = cls.checkpoint_width(there, config.dim, settings)
        return replace(config, dim=width, perceiver=replace(settings, **sizes), transformers=facts)

    @classmethod
    def build(cls, config: ClassifierConfig, table: Tensor, *, seed: int) -> Self:
        """A model to train, with random weights or those of its checkpoint.

        Raises:
            MaedError: a checkpoint that cannot be had, or whose tensors do not fit: the first is named, with both
                shapes.
        """
        name = config.perceiver.checkpoint
        return cls(config, table, seed=seed, weights=None if name is None else checkpoint_weights(name))

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """Read a folder of `save_pretrained`; the model is in evaluation mode."""
        model = super().from_pretrained(folder)
        model._given, model.rms = None, root_mean_square(model.position_table)
        return model

    # What each of them has its own of.

    @classmethod
    @abstractmethod
    def width(cls, dim: int, settings: PerceiverSettings) -> int:
        """Channels of content and position table; `dim` is those of the embedding."""

    @classmethod
    @abstractmethod
    def checkpoint_width(cls, there: PerceiverConfig, width: int, settings: PerceiverSettings) -> int:
        """The same with a checkpoint, of whose config not all is known; `width` without one."""

    @staticmethod
    @abstractmethod
    def plain_model(config: ClassifierConfig, built: PerceiverConfig) -> PreTrainedModel:
        """Transformers' classifier with random weights; `built` is its config."""

    @property
    @abstractmethod
    def content(self) -> nn.Embedding | nn.Conv2d:
        """The layer that embeds content."""

    @abstractmethod
    def inputs(self, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The inputs of transformers' preprocessor, and the mask of their positions; values that are not real are 0."""

    @abstractmethod
    def joining(self, content: float, table: Tensor) -> float:
        """Root mean square of the table at which positions join the content as loud as that is."""

    def _put(self, table: Tensor) -> None:
        embedding = PositionEmbedding(table, source=self.config.source, provenance={"label": self.config.encoding})
        replace_positions(self.model, embedding, trainable=self.config.trains_table, rms=self.rms)


def transformers_config(config: ClassifierConfig) -> PerceiverConfig:
    """Transformers' config of a classifier."""
    settings = config.perceiver
    facts = {name: getattr(settings, ours) for ours, name in SIZES.items()}
    # transformers' 0.02 at its 1,280 channels, and the same share of the fan-in at others: narrow latents stall at 0.02
    facts["initializer_range"] = 0.02 * (1280 / settings.latent_width) ** 0.5
    built = built_config({**facts, **config.transformers, "d_model": config.dim}, "config.json")
    built.num_labels = config.outputs
    built.attention_probs_dropout_prob = settings.dropout
    return built
