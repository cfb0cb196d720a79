"""`maed.learn`: from an array to a position embedding, in one call."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from maed.config import Settings
from maed.data import from_arrays
from maed.embedding import PositionEmbedding
from maed.pipeline import Run


def learn(
    X: Any,
    dim: int | None = None,
    *,
    settings: Settings | None = None,
    folder: str | Path | None = None,
) -> PositionEmbedding:
    """Learn a position embedding from unlabelled signals.

    Args:
        X: `(n, N)` or `(n, N, C)` numbers, or `(n, N)` integer token ids. NaN marks a missing value.
        dim: channels d of the embedding; min(64, N - 1) where not given.
        settings: everything else; the defaults suit a few hundred to a few thousand positions.
        folder: keeps the autoencoder, the similarity and the embedding, and goes on from them; a temporary one where
            not given.

    Returns:
        The embedding. Time grows with N times the draws, plus N^3 for the reduction; memory with N^2.

    Raises:
        MaedError: X or a setting cannot be used.
    """
    settings = settings or Settings()
    settings = replace(
        settings,
        data=replace(settings.data, missing="mask"),
        embedding=replace(settings.embedding, dim=dim if dim is not None else settings.embedding.dim),
        trainer=replace(settings.trainer, progress="none"),
    )
    data = from_arrays(X, settings=settings.data)
    with tempfile.TemporaryDirectory() as temporary:
        run = Run(Path(folder or temporary), settings, data)
        run.check_similarity()
        run.check_reduction()
        run.pretrain()
        run.similarity()
        return run.embed()
