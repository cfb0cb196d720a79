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

_AT_ONCE = 2**22  # pairs of links that are looked at together

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
    the two or more so. Where two places belong together, some link of the bundle is close. Time and memory grow with
    the sum of squared numbers of links.

    Args:
        graph: `(N, N)` symmetric weights, 0 for no link.
        closest: `(N, 2)` the most similar positions of each; a link is close if either end is among the other's.
    """
    i, j = np.nonzero(graph)
    if len(i) == 0:
        return graph
    one, other = _around(graph, i, j)
    as_close = graph[j[one], j[other]] >= np.maximum(graph[i[one], j[one]], graph[i[other], j[other]])
    back = np.lexsort((i, j))  # links in the order of the same ones from their other ends
    alike = (np.r_[one[as_close], back], np.r_[other[as_close], np.arange(len(i))])
    bundle = _parts(len(i), *alike)
    close = (closest[i] == j[:, None]).any(axis=1)
    away = ~(np.bincount(bundle, close) > 0)[bundle]
    left = graph.copy()
    left[i[away], j[away]] = 0.0
    return left


def without_false_homes(graph: np.ndarray, closest: np.ndarray) -> np.ndarray:
    """Leave out a position's links to places where it is only a guest: it would be a short cut between them.

    Its neighbors are at several places where the links among them leave them in groups. It is at home in a group that
    has a member to which it is close, and a guest in others; one that is at home nowhere stays with the group to which
    its links are strongest. A link goes if it does at either end. Time and memory grow with the sum of squared numbers
    of links.

    Args:
        graph: `(N, N)` symmetric weights, 0 for no link.
        closest: `(N, 2)` the most similar positions of each.
    """
    i, j = np.nonzero(graph)
    if len(i) == 0:
        return graph
    group = _parts(len(i), *_around(graph, i, j))  # numbered by position, then by their first neighbor
    of = np.zeros(group.max() + 1, dtype=np.int64)
    of[group] = i
    home = np.bincount(group, (closest[j] == i[:, None]).any(axis=1)) > 0
    strongest = np.lexsort((-np.bincount(group, graph[i, j]), of))
    first = strongest[np.unique(of[strongest], return_index=True)[1]]
    home[first[np.bincount(of, home, len(graph))[of[first]] == 0]] = True
    away = ~home[group]
    left = graph.copy()
    left[i[away], j[away]] = left[j[away], i[away]] = 0.0
    return left


def _around(graph: np.ndarray, i: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of links `(i, j)`, by number, of one position to two that are linked to each other."""
    start = np.searchsorted(i, np.arange(len(graph) + 1))
    count = np.diff(start)[j]
    number = np.full(graph.shape, -1)
    number[i, j] = np.arange(len(i))
    parts, ends = [], np.cumsum(count)
    for begin in range(0, int(ends[-1]), _AT_ONCE):  # each link beside all those of its far end
        links = slice(*np.searchsorted(ends, [begin, begin + _AT_ONCE], side="right"))
        one = np.repeat(np.arange(len(i))[links], count[links])
        far = np.arange(len(one)) - np.repeat(np.cumsum(count[links]) - count[links], count[links]) + start[j[one]]
        other = number[i[one], j[far]]
        kept = other > one
        parts.append(np.stack([one[kept], other[kept]]))
    one, other = np.concatenate(parts, axis=1)
    return one, other


def _parts(n: int, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The number of the part, `(n,)`, that each of n things is in where pairs of them belong together."""
    found: np.ndarray = connected_components(csr_matrix((np.ones(len(one)), (one, other)), shape=(n, n)), False)[1]
    return found


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
