"""`image`: transformers' `PerceiverForImageClassificationLearned`, whose position table is replaced."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import PerceiverConfig, PerceiverForImageClassificationLearned, PreTrainedModel
from transformers.models.perceiver.modeling_perceiver import (
    PerceiverImagePreprocessor,
    PerceiverModel,
    PerceiverPreTrainedModel,
)

from maed.data.signals import SignalData
from maed.errors import MaedError
from maed.integrations.replacing import root_mean_square
from maed.models.architectures._transformers import TransformersClassifier
from maed.models.config import ClassifierConfig
from maed.models.perceivers import check_heads, classification_decoder
from maed.settings import PerceiverSettings

_WIDTH = 256
"""Channels of content and positions in `PerceiverForImageClassificationLearned`."""


class Image(TransformersClassifier):
    """A classifier of images that concatenates projected positions to its pixels."""

    kinds = ("real",)
    options = frozenset({"checkpoint", "image_size", "input_width", "position_width"})
    table_key = "perceiver.input_preprocessor.position_embeddings.position_embeddings"

    @classmethod
    def check(cls, data: SignalData, settings: PerceiverSettings) -> None:
        """Refuse data that the architecture, or a resizing of images, is not for."""
        super().check(data, settings)
        size = settings.image_size
        if size is None:
            return
        if data.permutation is not None:
            raise MaedError(f"perceiver.image_size must be null if positions are permuted (data.permute), got {size}")
        sides = () if data.geometry is None or data.geometry.kind != "grid" else data.geometry.shape
        if len(sides) != 2 or sides[0] != sides[1]:
            there = f"images of {sides[0]} x {sides[1]}" if len(sides) == 2 else "no images"
            raise MaedError(f"perceiver.image_size needs square images, and {data.source} has {there}; got {size}")

    @classmethod
    def width(cls, dim: int, settings: PerceiverSettings) -> int:
        """`perceiver.input_width`, or that of transformers."""
        return settings.input_width or _WIDTH

    @classmethod
    def checkpoint_width(cls, there: PerceiverConfig, width: int, settings: PerceiverSettings) -> int:
        """The width without a checkpoint, because its config does not contain it."""
        return width

    @staticmethod
    def plain_model(config: ClassifierConfig, built: PerceiverConfig) -> PreTrainedModel:
        """Transformers' classifier of images with random weights."""
        position_width = config.perceiver.position_width or config.dim
        check_heads(config.perceiver, config.dim + position_width)
        positions = config.table_shape[0]
        built.image_size = round(positions**0.5)
        return ImageClassifier(
            built, positions=positions, channels=config.channels, width=config.dim, position_width=position_width
        )

    @property
    def content(self) -> nn.Conv2d:
        """The 1 x 1 convolution of pixels."""
        convolution: nn.Conv2d = self.perceiver.input_preprocessor.convnet_1x1
        return convolution

    def inputs(self, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Images `(B, C, height, width)`, and the mask of their pixels.

        Pixels whose order nobody knows, or need know, make an image of one column: the convolution is 1 x 1.
        """
        images, size = values.transpose(1, 2), self.config.perceiver.image_size  # (B, C, N)
        if size is None:
            return images.unsqueeze(3), mask
        resized = resized_images(images.unflatten(2, self.config.sides), size)
        if mask is not None:  # each new pixel is real where the nearest old one is
            small = mask.unflatten(1, self.config.sides)[:, None].to(values.dtype)
            mask = interpolate(small, size=(size, size), mode="nearest-exact").flatten(1) > 0.5
        return resized, mask

    def joining(self, content: float, table: Tensor) -> float:
        """The scale at which the projected table is as loud as the content."""
        projection = self.perceiver.input_preprocessor.positions_projection.weight.detach()
        unit = root_mean_square(table)
        gain = root_mean_square(table.to(projection) @ projection.T) / unit if unit else 0.0
        return content / gain if gain else content


class ImageClassifier(PerceiverForImageClassificationLearned):
    """transformers' `PerceiverForImageClassificationLearned` at other widths, and for any number of positions.

    With widths of 256, N = `config.image_size` squared and 3 channels it is just that class: names and shapes are the
    same.

    Args:
        config: Transformers' config.
        positions: N.
        channels: Channels of the images.
        width: Channels of the pixels' 1 x 1 convolution, and of the position table.
        position_width: Channels that positions are projected to.
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
        decoder = classification_decoder(config)
        self.perceiver = PerceiverModel(config, input_preprocessor=preprocessor, decoder=decoder)
        self.post_init()


def resized_images(images: Tensor, size: int) -> Tensor:
    """Images `(B, C, height, width)` as `(B, C, size, size)`: bicubic, as Pillow does it, averaged where smaller."""
    return interpolate(images, size=(size, size), mode="bicubic", align_corners=False, antialias=True)
