"""From an N x N similarity to d channels per position."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from scipy.linalg import eigh
from scipy.sparse.csgraph import connected_components
from sklearn.decomposition import PCA
from torch import Tensor

from maed.config import EmbeddingSettings
from maed.errors import MaedError


def embedding_dim(n: int, dim: int | None) -> int:
    """The d of an embedding of `n` positions: `dim`, or min(64, n - 1) where not given; `d >= n` is refused."""
    if dim is None:
        return min(64, n - 1)
    if dim >= n:
        raise MaedError(f"embedding.dim: {dim} for {n} positions; it may be at most {n - 1}")
    return dim


def reduce(similarity: Tensor, settings: EmbeddingSettings) -> Tensor:
    """Reduce a similarity to a position embedding.

    Args:
        similarity: `(N, N)`, higher is more similar; symmetrised here by its mean with its transpose, its diagonal
            ignored. Time grows with N^3 (a dense symmetric eigendecomposition: 1 s at 2,048), memory with N^2.
        settings: which reduction, d, and its parameters.

    Returns:
        `(N, d)` float32, each channel centred, unit mean square over all.

    Raises:
        MaedError: d or the number of neighbours is not below N, or the similarity is not finite.
    """
    s = similarity.double().numpy()
    n = len(s)
    d = embedding_dim(n, settings.dim)
    if not np.isfinite(s).all():
        raise MaedError(
            f"similarity: {int((~np.isfinite(s)).sum())} entries are not finite; they may be finite numbers"
        )
    s = (s + s.T) / 2
    np.fill_diagonal(s, 0.0)
    if settings.reduction == "diffusion":
        vectors = diffusion(neighbour_graph(s, settings.neighbours), d, settings.diffusion_steps)
    elif settings.reduction == "spectral":
        vectors = spectral(s, d)
    else:
        vectors = PCA(d, svd_solver="full").fit_transform(s)
    return standardise(torch.from_numpy(np.ascontiguousarray(vectors)))


def standardise(vectors: Tensor) -> Tensor:
    """Centre each channel and scale all of them alike to unit mean square: `(N, d)` to `(N, d)` float32."""
    centred = vectors.double() - vectors.double().mean(dim=0)
    size = centred.square().mean().sqrt()
    return (centred / size if size > 0 else centred).float()


def neighbour_graph(similarity: np.ndarray, k: int) -> np.ndarray:
    """The `(N, N)` 0/1 graph that joins i and j where either is among the other's k most similar.

    A graph in several parts is warned about, with their sizes.
    """
    n = len(similarity)
    if k >= n:
        raise MaedError(f"embedding.neighbours: {k} for {n} positions; it may be at most {n - 1}")
    ranked = similarity.copy()
    np.fill_diagonal(ranked, -np.inf)
    nearest = np.argpartition(-ranked, k - 1, axis=1)[:, :k]
    graph = np.zeros_like(similarity)
    np.put_along_axis(graph, nearest, 1.0, axis=1)
    graph = np.maximum(graph, graph.T)
    parts, part = connected_components(graph, directed=False)
    if parts > 1:
        sizes = sorted(np.bincount(part).tolist(), reverse=True)
        warnings.warn(
            f"the neighbour graph falls into {parts} parts of {', '.join(map(str, sizes[:8]))} positions"
            f"{' ...' if parts > 8 else ''}; distances between parts mean little "
            f"(more embedding.neighbours, now {k}, may join them)",
            stacklevel=3,
        )
    return graph


def diffusion(graph: np.ndarray, d: int, steps: float) -> np.ndarray:
    """Diffusion map (Coifman and Lafon 2006): eigenvectors of the random walk on `graph`, times eigenvalue^steps.

    Self-loops of half a position's degree make the walk lazy, so that no eigenvalue is negative and alternation
    between two sides of the graph does not count as closeness.

    Args:
        graph: `(N, N)` symmetric weights, none of the rows empty.
        d: channels, below N.
        steps: steps of the walk; distances in the result are those between its distributions after so many.

    Returns:
        `(N, d)`, the constant eigenvector left out.
    """
    degree = graph.sum(axis=1)
    scale = 1 / np.sqrt(degree)
    walk = scale[:, None] * graph * scale
    walk = (walk + np.eye(len(walk))) / 2
    values, vectors = _leading(walk, d + 1)
    # The walk's own eigenvectors: those of the symmetric form, divided by that of eigenvalue 1.
    vectors = vectors * scale[:, None] * np.sqrt(degree.sum())
    return vectors[:, 1:] * np.clip(values[1:], 0, 1) ** (2 * steps)  # two lazy steps make one


def spectral(similarity: np.ndarray, d: int) -> np.ndarray:
    """Leading eigenvectors of the centred similarity, times the root of their eigenvalue (classical scaling).

    Where fewer than d eigenvalues are positive, the remaining channels are 0.
    """
    centred = similarity - similarity.mean(axis=0) - similarity.mean(axis=1)[:, None] + similarity.mean()
    values, vectors = _leading(centred, d)
    return vectors * np.sqrt(np.clip(values, 0, None))


def _leading(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The `count` largest eigenvalues and their vectors, largest first, signs fixed so that results repeat."""
    n = len(matrix)
    values, vectors = eigh(matrix, subset_by_index=(n - count, n - 1))
    values, vectors = values[::-1], vectors[:, ::-1]
    largest = np.abs(vectors).argmax(axis=0)
    return values, vectors * np.sign(vectors[largest, np.arange(count)])
