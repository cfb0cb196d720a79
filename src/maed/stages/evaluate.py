"""Measuring embeddings, and the similarities that they were made of, against a known geometry."""

from __future__ import annotations

from maed.embedding import PositionEmbedding
from maed.evaluation.geometry import check_folds, check_neighbors, geometry_metrics, similarity_metrics
from maed.registry import BASELINES
from maed.similarity import Similarity, load_similarity
from maed.stages.base import Context
from maed.stages.pretrain import start_embedding


def check_evaluation(context: Context) -> None:
    """Refuse a known geometry of too few positions to be measured.

    Raises:
        MaedError: They are too few.
    """
    geometry, settings = context.data.geometry, context.settings.evaluation
    if geometry is not None:
        placed = int(geometry.placed.sum())
        check_neighbors(settings.n_neighbors or geometry.neighbors, placed)
        check_folds(settings.folds, placed)


def evaluate(context: Context, method: str) -> dict[str, float] | None:
    """Metrics of the embedding of a method and of its similarity; None without a known geometry."""
    geometry, settings = context.data.geometry, context.settings.evaluation
    if geometry is None:
        return None
    embedding = PositionEmbedding.from_pretrained(context.folder.embedding(method).path)
    similarity = load_similarity(context.folder.earlier.similarity(method).path)
    found = geometry_metrics(embedding.vectors, geometry, settings)
    if isinstance(similarity, Similarity):
        found |= similarity_metrics(similarity.values, geometry, settings)
    return found


def evaluate_start(context: Context) -> dict[str, float] | None:
    """Metrics of the embedding in the folder that the autoencoder started from; None if there is no such one."""
    if context.data.geometry is None or context.settings.autoencoder.init in ("random", *BASELINES.names):
        return None
    return geometry_metrics(start_embedding(context).vectors, context.data.geometry, context.settings.evaluation)
