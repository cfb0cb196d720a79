"""Reductions from an N x N similarity to d channels per position: what each of them is, and what all share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor

from maed.embedding.noise import known_pairs, significant, symmetrize, unknown, warn_of_unknown
from maed.errors import MaedError
from maed.registry import REDUCTIONS
from maed.settings import EmbeddingSettings


class Reduction(ABC):
    """Makes vectors of a similarity.

    One file of `maed/embedding/reductions` for each, or one entry point `maed.reductions` of another package.

    Attributes:
        needs_neighbors: True if the reduction reads k, which must then be below N.
        steps: `embedding.diffusion_steps` where not set.
        places_unknown: True if rows of 0 may stand for positions of which nothing is known (`embedding.denoise`
            `positions`).
        sparse: True if the reduction has `reduce_sparse`, which takes any number of positions.
        shown_dim: Channels that the explorer makes of it; those of the run's embedding where None.
    """

    needs_neighbors: ClassVar[bool] = True
    steps: ClassVar[float] = 0.0
    places_unknown: ClassVar[bool] = False
    sparse: ClassVar[bool] = False
    shown_dim: ClassVar[int | None] = None

    def check(self) -> None:  # noqa: B027  most need nothing
        """Refuse where something that it needs is not installed."""

    @abstractmethod
    def reduce(self, similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
        """Vectors `(N, d)`, of any place and size; the same input gives the same ones.

        Args:
            similarity: `(N, N)` symmetric and finite, its diagonal 0; an entry of 0 says nothing of a pair.
            d: Channels, below N.
            k: Neighbors.
            steps: `embedding.diffusion_steps`.

        Returns:
            `(N, d)` floats.
        """

    def reduce_sparse(self, similarity: csr_matrix, d: int, k: int, steps: float) -> np.ndarray:
        """The same of a similarity of which some pairs are known, at least one of each position; if `sparse`."""
        raise TypeError(f"{type(self).__name__} reduces only similarities of all pairs")


def embedding_dim(n: int, dim: int | None) -> int:
    """The d of an embedding of `n` positions: `dim`, or min(64, n - 1) by default; `d >= n` is refused."""
    if dim is None:
        return min(64, n - 1)
    if dim >= n:
        raise MaedError(f"embedding.dim must be at most {n - 1} for {n} positions, got {dim}")
    return dim


def check_reduction(n: int, settings: EmbeddingSettings, *, sparse: bool = False) -> int:
    """The number of neighbors that a reduction of `n` positions takes; refuses what it could not do.

    Args:
        n: Positions.
        settings: The reduction and its parameters.
        sparse: True if only candidate pairs are known.

    Returns:
        The number of neighbors.

    Raises:
        MaedError: d or the neighbors are not below N, or the reduction needs what is not installed.
    """
    embedding_dim(n, settings.dim)
    reduction: Reduction = REDUCTIONS.get(settings.reduction, "embedding.reduction")()
    reduction.check()
    if sparse and not reduction.sparse:
        able = [name for name in REDUCTIONS.names if REDUCTIONS.get(name).sparse]
        raise MaedError(
            f"embedding.reduction: {settings.reduction} needs the similarity of all pairs of {n} positions; "
            f"choose {' or '.join(able)}, or raise similarity.dense_positions"
        )
    if settings.n_neighbors is None:
        return min(8, n - 1)
    if settings.n_neighbors >= n and reduction.needs_neighbors:
        raise MaedError(f"embedding.n_neighbors must be at most {n - 1} for {n} positions, got {settings.n_neighbors}")
    return settings.n_neighbors


def reduce(
    similarity: Tensor | csr_matrix, settings: EmbeddingSettings, standard_error: Tensor | csr_matrix | None = None
) -> Tensor:
    """Reduce a similarity to a position embedding. The same input gives the same vectors.

    Args:
        similarity: `(N, N)`, higher is more similar; its diagonal is ignored, and an entry of exactly 0 says nothing of
            a pair: it makes no neighbors. A tensor holds all pairs, and is made symmetric here: time grows with N^3,
            memory with N^2; `heat` takes several times as long as `diffusion`, `tsne` beyond 3 channels many times. A
            sparse matrix holds those that are known, both directions of each: time grows with N log N, memory with N.
        settings: The reduction, d, and the reduction's parameters.
        standard_error: Standard errors of the same entries; only `denoise` reads them, and does nothing by
            default without them.

    Returns:
        `(N, d)` float32, each channel centered, unit mean square over all.

    Raises:
        MaedError: d or the number of neighbors is not below N, the similarity is not finite, or something is asked for
            that is not there: umap-learn, all pairs, or standard errors.
    """
    n = similarity.shape[0]
    k, d = check_reduction(n, settings, sparse=isinstance(similarity, csr_matrix)), embedding_dim(n, settings.dim)
    if bad := int((~np.isfinite(similarity.data if isinstance(similarity, csr_matrix) else similarity.numpy())).sum()):
        raise MaedError(f"similarity must be finite, got {bad} entries that are not")
    if settings.denoise == "significance" and standard_error is None:
        raise MaedError("embedding.denoise: significance needs standard errors, and none were given")
    reduction: Reduction = REDUCTIONS.get(settings.reduction, "embedding.reduction")()
    steps = reduction.steps if settings.diffusion_steps is None else settings.diffusion_steps
    if isinstance(similarity, csr_matrix):
        if settings.denoise != "none" and isinstance(standard_error, csr_matrix):
            similarity = known_pairs(similarity, standard_error, all_of_them=settings.denoise == "significance")
        known, vectors = np.diff(similarity.indptr) > 0, np.zeros((n, d))
        if not known.all():
            where = "equally far from all others" if reduction.places_unknown else "in the middle"
            warn_of_unknown(np.flatnonzero(~known), where)
        if (count := int(known.sum())) > 1:
            made = reduction.reduce_sparse(similarity[known][:, known].tocsr(), min(d, count - 1), k, steps)
            vectors[known, : made.shape[1]] = made
            if reduction.places_unknown:
                vectors[~known] = _far_from_all(vectors[known], n - count)
    else:
        error = standard_error.double().numpy() if isinstance(standard_error, Tensor) else None
        s, error = symmetrize(similarity.double().numpy(), error, settings.symmetrize)
        if settings.denoise == "significance" and error is not None:
            s = significant(s, error)
        elif settings.denoise == "positions" and reduction.places_unknown and error is not None:
            nothing = unknown(s, error)
            s[nothing], s[:, nothing] = 0.0, 0.0
        vectors = reduction.reduce(s, d, k, steps)
    return standardize(torch.from_numpy(np.ascontiguousarray(vectors)))


def _far_from_all(vectors: np.ndarray, count: int) -> np.ndarray:
    """So many places that are about equally far from all of `vectors` `(m, d)`, and from one another: `(count, d)`.

    Directions at random, always the same, which in many channels are nearly at right angles to all others; as far from
    the mean as the vectors are.
    """
    mean = vectors.mean(axis=0)
    directions = np.random.default_rng(0).standard_normal((count, vectors.shape[1]))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    return np.asarray(mean + directions * np.sqrt(np.square(vectors - mean).sum(axis=1).mean()))


def standardize(vectors: Tensor) -> Tensor:
    """Center each channel and scale all equally to unit mean square: `(N, d)` to `(N, d)` float32."""
    centered = vectors.double() - vectors.double().mean(dim=0)
    size = centered.square().mean().sqrt()
    if size <= 1e-12 * vectors.abs().max():  # all at one place, but for rounding
        return torch.zeros_like(centered, dtype=torch.float32)
    return (centered / size).float()
