"""Graphs of neighbors: who is joined to whom, which links are false, and distances along the links.

In a similarity 0 means that nothing is known of a pair: it is never a neighbor, however few others there are.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree, shortest_path

from maed.embedding import sparse

_CLOSE = 2
"""A position is close to those that have it among so many most similar."""

_ENOUGH = 6
"""Fewest neighbors of a position: with fewer, there are too few links to tell places apart."""


def neighbor_graph(similarity: np.ndarray, k: int) -> np.ndarray:
    """The `(N, N)` 0/1 graph that joins i and j where either is among the other's k most similar.

    Parts that nothing joins are warned about, and joined (`join`).
    """
    nearest, there = _nearest(similarity, k)
    graph = np.zeros_like(similarity)
    np.put_along_axis(graph, nearest, there.astype(float), axis=1)
    return join(np.maximum(graph, graph.T), similarity, k)


def rank_weighted_graph(similarity: np.ndarray, k: int) -> np.ndarray:
    """The `(N, N)` symmetric graph of the 2k most similar, the r-th of them with weight exp(-2 r / k).

    Ranks and not values, so that every position has the same hold on its neighbors. False links are left out, parts
    that nothing joins are warned about, and joined.
    """
    nearest, there = _nearest(similarity, min(2 * k, len(similarity) - 1))
    weights = np.exp(-2 * np.arange(1, nearest.shape[1] + 1) / k)
    graph = np.zeros_like(similarity)
    np.put_along_axis(graph, nearest, there * weights, axis=1)
    graph = without_false_links((graph + graph.T) / 2)
    if k >= _ENOUGH:
        closest = nearest[:, :_CLOSE]
        graph = without_false_homes(without_false_bundles(graph, closest), closest)
    return join(graph, similarity, k, weight=float(weights[0]))


def without_false_links(graph: np.ndarray) -> np.ndarray:
    """Leave out links whose ends share hardly any neighbors (`maed.embedding.sparse.without_false_links`)."""
    return sparse.without_false_links(csr_matrix(graph)).toarray()


def without_false_bundles(graph: np.ndarray, closest: np.ndarray) -> np.ndarray:
    """Leave out bundles of links between two places of which none is close.

    Positions beside each other have like noise, so false links come in bundles, whose links support each other. In a
    bundle with a link is any other from one of its ends to a position that its other end is linked to as closely as
    the two or more so. Where two places belong together, some link of the bundle is close. Time grows with the sum of
    squared numbers of links, memory with the links.

    Args:
        graph: `(N, N)` symmetric weights, 0 for no link.
        closest: `(N, 2)` the most similar positions of each; a link is close if either end is among the other's.
    """
    i, j = np.nonzero(np.triu(graph))
    if len(i) == 0:
        return graph
    number = np.zeros(graph.shape, dtype=np.int64)
    number[i, j] = number[j, i] = np.arange(len(i))
    pairs = []
    for position, weights in enumerate(graph):
        around = np.flatnonzero(weights)
        among = graph[np.ix_(around, around)]
        together = (among > 0) & (among >= np.maximum(weights[around], weights[around][:, None]))
        _, group = connected_components(csr_matrix(together), directed=False)
        _, first = np.unique(group, return_index=True)
        pairs.append(np.stack([number[position, around], number[position, around[first[group]]]]))
    one, other = np.concatenate(pairs, axis=1)
    alike = csr_matrix((np.ones(len(one)), (one, other)), shape=(len(i), len(i)))
    _, bundle = connected_components(alike, directed=False)
    close = (closest[i] == j[:, None]).any(axis=1) | (closest[j] == i[:, None]).any(axis=1)
    away = ~(np.bincount(bundle, close) > 0)[bundle]
    left = graph.copy()
    left[i[away], j[away]] = left[j[away], i[away]] = 0.0
    return left


def without_false_homes(graph: np.ndarray, closest: np.ndarray) -> np.ndarray:
    """Leave out a position's links to places where it is only a guest: it would be a short cut between them.

    Its neighbors are at several places where the links among them leave them in groups. It is at home in a group that
    has a member to which it is close, and a guest in others; one that is at home nowhere stays with the group to which
    its links are strongest. A link goes if it does at either end.

    Args:
        graph: `(N, N)` symmetric weights, 0 for no link.
        closest: `(N, 2)` the most similar positions of each.
    """
    left = graph.copy()
    for position, weights in enumerate(graph):
        around = np.flatnonzero(weights)
        groups, group = connected_components(csr_matrix(graph[np.ix_(around, around)]), directed=False)
        if groups < 2:
            continue
        home = np.bincount(group, (closest[around] == position).any(axis=1)) > 0
        if not home.any():
            home[np.bincount(group, weights[around]).argmax()] = True
        away = around[~home[group]]
        left[position, away] = left[away, position] = 0.0
    return left


def join(graph: np.ndarray, similarity: np.ndarray, k: int | None = None, weight: float = 1.0) -> np.ndarray:
    """Join the parts of a graph by their most similar pairs: a minimum spanning tree over the parts.

    Args:
        graph: `(N, N)` symmetric weights, 0 for no link.
        similarity: `(N, N)` symmetric, -inf where a link is the last resort.
        k: Neighbors, for a warning that names the parts; none by default.
        weight: Weight of the added links.
    """
    parts, part = connected_components(csr_matrix(graph), directed=False)
    if parts == 1:
        return graph
    if k is not None:
        sparse.warn_of_parts(part, k)
    finite = similarity[np.isfinite(similarity)]
    low, high = finite.min(), finite.max()
    # 1 to 2, and 3 for the last resort; links that are there cost least, so the tree takes all of those it can
    cost = 1 + np.where(np.isfinite(similarity), (high - similarity) / ((high - low) or 1.0), 2.0)
    cost[graph > 0] = 0.5
    np.fill_diagonal(cost, 0.0)
    tree = minimum_spanning_tree(csr_matrix(cost)).tocoo()
    i, j = tree.row[tree.data >= 1], tree.col[tree.data >= 1]
    joined = graph.copy()
    joined[i, j] = joined[j, i] = weight
    return joined


def geodesics(graph: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Shortest paths `(N, N)` over the links of a connected graph. Time grows with N^2 (k + log N) for k links each."""
    i, j = np.nonzero(graph)
    # a link of length 0 would be none
    weights = np.maximum(lengths[i, j], 1e-9 * (lengths[i, j].max() or 1.0))
    return shortest_path(csr_matrix((weights, (i, j)), shape=graph.shape), method="D", directed=False)


def _nearest(similarity: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k most similar of each position, most similar first, `(N, k)`, and which of them are known at all."""
    ranked = np.where(similarity == 0, -np.inf, similarity)
    np.fill_diagonal(ranked, -np.inf)
    nearest = np.argsort(-ranked, axis=1, kind="stable")[:, :k]
    return nearest, np.isfinite(np.take_along_axis(ranked, nearest, axis=1))
