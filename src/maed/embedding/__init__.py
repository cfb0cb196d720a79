"""From a similarity to a position embedding, and the folder that holds it."""

from maed.embedding.artifact import PositionEmbedding
from maed.embedding.reductions import embedding_dim, reduce

__all__ = ["PositionEmbedding", "embedding_dim", "reduce"]
