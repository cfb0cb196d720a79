"""From a trained autoencoder, or from the data alone, to a similarity between positions."""

from maed.similarity.accumulator import Accumulator
from maed.similarity.baselines import baseline_for, compute_baseline
from maed.similarity.estimators import Similarity, estimate
from maed.similarity.streaming import load_similarity, stream, write_similarity

__all__ = [
    "Accumulator",
    "Similarity",
    "baseline_for",
    "compute_baseline",
    "estimate",
    "load_similarity",
    "stream",
    "write_similarity",
]
