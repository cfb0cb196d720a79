"""`text`: transformers' `PerceiverForSequenceClassification`, whose position table is replaced."""

from __future__ import annotations

from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverForSequenceClassification, PreTrainedModel

from maed.errors import MaedError
from maed.models.architectures._transformers import TransformersClassifier
from maed.models.config import ClassifierConfig
from maed.models.perceivers import check_heads
from maed.settings import PerceiverSettings


class Text(TransformersClassifier):
    """A classifier of tokens that adds positions to their embeddings."""

    kinds = ("tokens",)
    options = frozenset({"checkpoint", "input_width"})
    table_key = "perceiver.input_preprocessor.position_embeddings.weight"

    @classmethod
    def check_settings(cls, settings: PerceiverSettings) -> None:
        """Refuse settings that the architecture does not have."""
        super().check_settings(settings)
        if settings.combine != "add":
            raise MaedError(f"perceiver.combine must be add with perceiver.architecture text, got {settings.combine}")

    @classmethod
    def width(cls, dim: int, settings: PerceiverSettings) -> int:
        """`perceiver.input_width`, or channels of the embedding."""
        return settings.input_width or dim

    @classmethod
    def checkpoint_width(cls, there: PerceiverConfig, width: int, settings: PerceiverSettings) -> int:
        """The checkpoint's own."""
        own = int(there.d_model)
        if settings.input_width not in (None, own):
            raise MaedError(
                f"perceiver.input_width must be {own} with {settings.checkpoint}, got {settings.input_width}"
            )
        return own

    @staticmethod
    def plain_model(config: ClassifierConfig, built: PerceiverConfig) -> PreTrainedModel:
        """Transformers' classifier of texts with random weights."""
        check_heads(config.perceiver, config.dim)
        built.vocab_size, built.max_position_embeddings = config.vocabulary, config.positions
        return PerceiverForSequenceClassification(built)

    @property
    def content(self) -> nn.Embedding:
        """The embedding of token ids."""
        embeddings: nn.Embedding = self.perceiver.input_preprocessor.embeddings
        return embeddings

    def inputs(self, values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Token ids `(B, N)` and their mask, as they are."""
        return values, mask

    def joining(self, content: float, table: Tensor) -> float:
        """The content's own: positions are added to it."""
        return content
