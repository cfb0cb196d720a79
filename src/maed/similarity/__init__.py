"""From a trained autoencoder, or from the data alone, to a similarity between positions."""

from maed.similarity.baselines import baseline_for, baselines_for, compute_baseline
from maed.similarity.estimators import Similarity, estimate, never_drawn
from maed.similarity.stream import (
    Halves,
    Streamed,
    Watch,
    check_estimator,
    load_similarity,
    merged,
    neighbor_lists,
    stream,
    write_similarity,
)
from maed.similarity.sums import Accumulator, PairedSums

__all__ = [
    "Accumulator",
    "Halves",
    "PairedSums",
    "Similarity",
    "Streamed",
    "Watch",
    "baseline_for",
    "baselines_for",
    "check_estimator",
    "compute_baseline",
    "estimate",
    "load_similarity",
    "merged",
    "neighbor_lists",
    "never_drawn",
    "stream",
    "write_similarity",
]
