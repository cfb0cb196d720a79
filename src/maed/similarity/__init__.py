"""Measure the similarity between positions, with a trained autoencoder or from the data alone."""

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.similarity.baseline import Baseline, baseline_for, baselines_for, compute_baseline
    from maed.similarity.estimator import Estimator, check_estimator, estimate, never_drawn
    from maed.similarity.pairs import SparseSimilarity, placed_pairs
    from maed.similarity.similarity import Similarity, load_similarity, write_similarity
    from maed.similarity.streaming import Halves, Streamed, Watch, merged, neighbor_lists, share_stream, stream
    from maed.similarity.sums import Accumulator, PairedSums, Sums, mean_of

__all__ = [
    "Accumulator",
    "Baseline",
    "Estimator",
    "Halves",
    "PairedSums",
    "Similarity",
    "SparseSimilarity",
    "Streamed",
    "Sums",
    "Watch",
    "baseline_for",
    "baselines_for",
    "check_estimator",
    "compute_baseline",
    "estimate",
    "load_similarity",
    "mean_of",
    "merged",
    "neighbor_lists",
    "never_drawn",
    "placed_pairs",
    "share_stream",
    "stream",
    "write_similarity",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "baseline": ("Baseline", "baseline_for", "baselines_for", "compute_baseline"),
        "estimator": ("Estimator", "check_estimator", "estimate", "never_drawn"),
        "pairs": ("SparseSimilarity", "placed_pairs"),
        "similarity": ("Similarity", "load_similarity", "write_similarity"),
        "streaming": ("Halves", "Streamed", "Watch", "merged", "neighbor_lists", "share_stream", "stream"),
        "sums": ("Accumulator", "PairedSums", "Sums", "mean_of"),
    },
)
