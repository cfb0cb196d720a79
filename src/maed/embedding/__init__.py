"""Turn a similarity into a position embedding, and keep it in a folder."""

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.embedding.noise import LEAST_SIGNAL_TO_NOISE, signal_to_noise, signal_to_noise_of_pairs
    from maed.embedding.position_embedding import PositionEmbedding, open_embedding
    from maed.embedding.reduction import Reduction, check_reduction, embedding_dim, reduce

__all__ = [
    "LEAST_SIGNAL_TO_NOISE",
    "PositionEmbedding",
    "Reduction",
    "check_reduction",
    "embedding_dim",
    "open_embedding",
    "reduce",
    "signal_to_noise",
    "signal_to_noise_of_pairs",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "noise": ("LEAST_SIGNAL_TO_NOISE", "signal_to_noise", "signal_to_noise_of_pairs"),
        "position_embedding": ("PositionEmbedding", "open_embedding"),
        "reduction": ("Reduction", "check_reduction", "embedding_dim", "reduce"),
    },
)
