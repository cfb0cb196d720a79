"""From a similarity to a position embedding, and the folder that holds it."""

from maed.embedding.noise import LEAST_SIGNAL_TO_NOISE, signal_to_noise
from maed.embedding.position_embedding import PositionEmbedding, open_embedding
from maed.embedding.reductions import check_reduction, embedding_dim, reduce

__all__ = [
    "LEAST_SIGNAL_TO_NOISE",
    "PositionEmbedding",
    "check_reduction",
    "embedding_dim",
    "open_embedding",
    "reduce",
    "signal_to_noise",
]
