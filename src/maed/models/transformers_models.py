"""transformers' own Perceiver classifiers of texts and images, with a position table that arrives as it was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import PerceiverForImageClassificationLearned, PerceiverForSequenceClassification, PreTrainedModel
from transformers.models.perceiver.modeling_perceiver import (
    PerceiverClassificationDecoder,
    PerceiverImagePreprocessor,
    PerceiverModel,
    PerceiverPreTrainedModel,
)

from maed.data.source import first_line
from maed.embedding import PositionEmbedding
from maed.errors import MaedError
from maed.files import replacing
from maed.integrations import replace_positions
from maed.models.checkpoints import SIZES, built_config, start_from
from maed.models.fused import fuse
from maed.models.model import (
    ClassifierConfig,
    blanked,
    check_heads,
    latent_logits,
    load_weights,
    working_dtype,
)

_CALIBRATED = 8
"""Signals that calibration looks at: enough for a mean over all their positions, few enough for 50,176 of these."""

_TABLES = {
    "text": "perceiver.input_preprocessor.position_embeddings.weight",
    "image": "perceiver.input_preprocessor.position_embeddings.position_embeddings",
}
"""Where the position table of an architecture is."""


class ImageClassifier(PerceiverForImageClassificationLearned):
    """transformers' `PerceiverForImageClassificationLearned` at other widths, and for any number of positions.

    With widths of 256, N = `config.image_size` squared and 3 channels it is just that class: names and shapes are the
    same.

    Args:
        config: transformers' config.
        positions: N.
        channels: of the images.
        width: channels of the pixels' 1 x 1 convolution, and of the position table.
        position_width: channels that positions are projected to.
    """

    def __init__(self, config: Any, *, positions: int, channels: int, width: int, position_width: int) -> None:
        PerceiverPreTrainedModel.__init__(self, config)  # not that of the class between, which fixes the widths
        self.num_labels = config.num_labels
        preprocessor = PerceiverImagePreprocessor(
            config,
            prep_type="conv1x1",
            spatial_downsample=1,
            in_channels=channels,
            out_channels=width,
            position_encoding_type="trainable",
            concat_or_add_pos="concat",
            project_pos_dim=position_width,
            trainable_position_encoding_kwargs={"num_channels": width, "index_dims": positions},
        )
        decoder = PerceiverClassificationDecoder(
            config,
            num_channels=config.d_latents,
            trainable_position_encoding_kwargs={"num_channels": config.d_latents, "index_dims": 1},
            use_query_residual=True,
        )
        self.perceiver = PerceiverModel(config, input_preprocessor=preprocessor, decoder=decoder)
        self.post_init()


class TransformersClassifier(nn.Module):
    """transformers' Perceiver of architecture `text` or `image` as a classifier of signals.

    Weights depend on `seed` (and the checkpoint) alone, so classifiers that differ in their position encoding start
    from equal weights. The table takes the place of the model's own when that is complete, for its construction ends in
    `post_init()`, which draws every embedding anew. It is as loud as the content that it joins (`calibrate`), or as the
    table of the checkpoint that it replaces, and frozen unless it is to be trained.

    Args:
        config: sizes, encoding and settings.
        table: `config.table_shape`, position vectors from `maed.encodings.position_table`.
        seed: seed of the weights.
        weights: tensors of a checkpoint to start from (`maed.models.checkpoints`).

    Attributes:
        model: the plain module of transformers.
        rms: root mean square that the table was given.
    """

    def __init__(
        self, config: ClassifierConfig, table: Tensor, *, seed: int = 0, weights: dict[str, Tensor] | None = None
    ) -> None:
        super().__init__()
        config.check_table(table)
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = fuse(_model(config))
        self._given: Tensor | None = table.detach()
        replaced = 0.0
        if weights is not None:
            key = _TABLES[config.perceiver.architecture]
            start_from(self.model, weights, str(config.perceiver.checkpoint), table=key)
            replaced = _size(weights[key]) if key in weights else 0.0
        self._settled = replaced > 0
        self.rms = replaced if self._settled else self._joining(self._expected_content(), table)
        self._put(table)

    @property
    def perceiver(self) -> Any:
        """transformers' PerceiverModel."""
        return self.model.perceiver

    @property
    def position_table(self) -> Tensor:
        """The vectors in use, `(N, d)`."""
        table: Tensor = self.model.get_parameter(_TABLES[self.config.perceiver.architecture])
        return table.detach()

    @torch.no_grad()
    def calibrate(self, values: Tensor, mask: Tensor | None = None) -> None:
        """Make positions as loud as the content of a batch of signals; what a checkpoint has settled stays.

        Args:
            values: `(B, N, C)` float32 or `(B, N)` int64; the first 8 signals are looked at.
            mask: `(B, N)` bool, True where real.
        """
        if self._settled:
            return
        values, mask = values[:_CALIBRATED], None if mask is None else mask[:_CALIBRATED]
        inputs, mask = self._inputs(values, mask)
        content = self._content(inputs)  # (B, N, width)
        size = _size(content if mask is None else content[mask])
        if size > 0 and np.isfinite(size):
            given = self.position_table.clone() if self._given is None else self._given
            self.rms, self._given = self._joining(size, given), None
            self._put(given)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Class logits.

        Args:
            values: `(B, N, C)` float32, of `perceiver.image_size` in row-major order, or `(B, N)` int64.
            mask: `(B, N)` bool, True where a position is real; what is stored elsewhere is never read.

        Returns:
            `(B, classes)`.
        """
        inputs, mask = self._inputs(values, mask)
        preprocessor = self.perceiver.input_preprocessor
        return latent_logits(self.perceiver, preprocessor(inputs), mask, working_dtype(self._content_weight()))

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        self.config.save(folder / "config.json")
        with replacing(folder / "model.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in self.state_dict().items()}, temporary)

    @classmethod
    def from_pretrained(cls, folder: Path) -> TransformersClassifier:
        """Read a folder of `save_pretrained`; the classifier is in evaluation mode."""
        path = folder / "config.json"
        config = ClassifierConfig.load(path)
        try:
            classifier = cls(config, torch.zeros(config.table_shape))
        except MaedError:
            raise
        except (LookupError, TypeError, ValueError, RuntimeError) as error:
            raise MaedError(f"{path}: not the config.json of a Perceiver of maed ({first_line(error)})") from None
        load_weights(classifier, folder / "model.safetensors")
        classifier._given, classifier.rms = None, _size(classifier.position_table)
        return classifier.eval()

    # The inputs.

    def _inputs(self, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """What transformers' preprocessor takes, ids or images `(B, C, height, width)`, and the mask of its positions.

        Pixels whose order nobody knows, or need know, make an image of one column: the convolution is 1 x 1.
        """
        values = blanked(values, mask)
        if self.config.perceiver.architecture == "text":
            return values, mask
        images, size = values.transpose(1, 2), self.config.perceiver.image_size  # (B, C, N)
        if size is None:
            return images.unsqueeze(3), mask
        resized = resized_images(images.unflatten(2, self.config.sides), size)
        if mask is not None:  # each new pixel is real where the nearest old one is
            small = mask.unflatten(1, self.config.sides)[:, None].to(values.dtype)
            mask = interpolate(small, size=(size, size), mode="nearest-exact").flatten(1) > 0.5
        return resized, mask

    def _content(self, inputs: Tensor) -> Tensor:
        """The content embedding without positions, `(B, N, width)`."""
        preprocessor = self.perceiver.input_preprocessor
        if self.config.perceiver.architecture == "text":
            return preprocessor.embeddings(inputs)
        return preprocessor.convnet_1x1(inputs).flatten(2).transpose(1, 2)

    def _content_weight(self) -> Tensor:
        preprocessor = self.perceiver.input_preprocessor
        text = self.config.perceiver.architecture == "text"
        return preprocessor.embeddings.weight if text else preprocessor.convnet_1x1.weight

    # The table.

    def _expected_content(self) -> float:
        """Root mean square of the content embedding; of images whose channels are independent and of unit variance."""
        weight = self._content_weight()
        fan_in = weight.shape[1] if self.config.perceiver.architecture == "image" else 1
        return _size(weight) * fan_in**0.5

    def _joining(self, content: float, table: Tensor) -> float:
        """Root mean square of the table at which positions join the content as loud as that is."""
        if self.config.perceiver.architecture == "text":
            return content
        projection = self.perceiver.input_preprocessor.positions_projection.weight.detach()
        unit = _size(table)
        gain = _size(table.to(projection) @ projection.T) / unit if unit else 0.0
        return content / gain if gain else content

    def _put(self, table: Tensor) -> None:
        embedding = PositionEmbedding(table, source=self.config.source, provenance={"label": self.config.encoding})
        replace_positions(self.model, embedding, trainable=self.config.trains_table, rms=self.rms)


def resized_images(images: Tensor, size: int) -> Tensor:
    """Images `(B, C, height, width)` as `(B, C, size, size)`: bicubic, as Pillow does it, averaged where smaller."""
    return interpolate(images, size=(size, size), mode="bicubic", align_corners=False, antialias=True)


def _model(config: ClassifierConfig) -> PreTrainedModel:
    """transformers' classifier with random weights."""
    settings = config.perceiver
    facts = {name: getattr(settings, ours) for ours, name in SIZES.items()}
    # transformers' 0.02 at its 1,280 channels, and the same share of the fan-in at others: narrow latents stall at 0.02
    facts["initializer_range"] = 0.02 * (1280 / settings.latent_width) ** 0.5
    built = built_config({**facts, **config.transformers, "d_model": config.dim}, "config.json")
    built.num_labels = len(config.classes)
    built.attention_probs_dropout_prob = settings.dropout
    if settings.architecture == "text":
        check_heads(settings, config.dim)
        built.vocab_size, built.max_position_embeddings = config.vocabulary, config.positions
        return PerceiverForSequenceClassification(built)
    position_width = settings.position_width or config.dim
    check_heads(settings, config.dim + position_width)
    positions = config.table_shape[0]
    built.image_size = round(positions**0.5)
    return ImageClassifier(
        built, positions=positions, channels=config.channels, width=config.dim, position_width=position_width
    )


def _size(values: Tensor) -> float:
    """Root mean square."""
    return float(values.detach().double().square().mean().sqrt())
