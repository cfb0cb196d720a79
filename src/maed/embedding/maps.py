"""Maps that reductions share, as results or to start from: the diffusion map of a graph, and Isomap."""

from __future__ import annotations

import numpy as np

from maed.embedding.graph import geodesics, neighbor_graph
from maed.embedding.stress import classical_scaling, leading


def diffusion_map(graph: np.ndarray, d: int, steps: float) -> np.ndarray:
    """Diffusion map (Coifman and Lafon 2006): eigenvectors of the random walk on `graph`, times eigenvalue^steps.

    Args:
        graph: `(N, N)` symmetric weights, none of the rows empty.
        d: Channels, below N.
        steps: Steps of the walk; distances in the result are those between its distributions after so many.

    Returns:
        `(N, d)` up to scale, the constant eigenvector left out.
    """
    values, vectors = leading(lazy_walk(graph), d + 1)
    # The walk's own eigenvectors: those of the symmetric form, divided by that of eigenvalue 1.
    degree = graph.sum(axis=1)
    vectors = vectors * np.sqrt(degree.sum() / degree)[:, None]
    values = np.clip(values[1:], 0, 1)
    shares = values / values[0] if values[0] > 0 else np.ones_like(values)  # of any length, they do not vanish
    return vectors[:, 1:] * shares ** (2 * steps)  # two lazy steps make one


def lazy_walk(graph: np.ndarray) -> np.ndarray:
    """The random walk on a graph, half its steps staying, in its symmetric form.

    It is lazy so that no eigenvalue is negative and alternation between two sides of the graph is not closeness.
    """
    scale = 1 / np.sqrt(graph.sum(axis=1))
    return (scale[:, None] * graph * scale + np.eye(len(graph))) / 2


def isomap(similarity: np.ndarray, d: int, k: int) -> np.ndarray:
    """Classical scaling of shortest paths over k neighbors (Tenenbaum, de Silva and Langford 2000).

    scikit-learn's Isomap of the same distances, but for parts that nothing joins: here they are joined by one pair.
    """
    return classical_scaling(geodesics(neighbor_graph(similarity, k), distances_of(similarity)), d)


def distances_of(similarity: np.ndarray) -> np.ndarray:
    """The distances that a similarity has as inner products of unit vectors, up to scale; its largest entry is 0."""
    distances = np.sqrt(np.maximum(similarity.max() - similarity, 0.0))
    np.fill_diagonal(distances, 0.0)
    return distances
