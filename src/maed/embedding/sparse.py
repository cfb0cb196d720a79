"""Reducing a similarity of which only some pairs are known: nothing here is N x N, so that N may be a million.

Every function takes and gives sparse matrices `(N, N)`, symmetric, in which 0 means that nothing is known of a pair.
With m links for each position time and memory grow with N m^2 at most.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix, diags
from scipy.sparse.csgraph import connected_components, dijkstra, minimum_spanning_tree
from sklearn.manifold import spectral_embedding

from maed.embedding.stress import classical_scaling

_SUPPORT = 0.4
"""A link is false if its ends share less than this part of what the links of either share on average ..."""

_FIRM = 0.6
"""Links are firm if they share this part of the mean of both (see above)."""

_ROUNDS = 5
"""False links support each other; without the first ones, others are found."""

LANDMARKS = 320
"""Positions whose distances to all others place these: five for each of 64 channels."""

_FACTORIZED = 20_000  # positions up to which a graph is factorized, though a preconditioner is at hand

_BLOCK = 8_192  # positions, or as many links times 16, that are looked at together


def strongest(similarity: csr_matrix, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k largest entries of each row, fewer where there are fewer.

    Returns:
        Rows, columns and ranks from 0, `(E,)` each, by row and from the largest on.
    """
    row = np.repeat(np.arange(similarity.shape[0]), np.diff(similarity.indptr))
    order = np.lexsort((-similarity.data, row))
    rank = np.arange(len(row)) - similarity.indptr[row]
    kept = rank < k
    return row[kept], similarity.indices[order][kept].astype(np.int64), rank[kept]


def neighbors(similarity: csr_matrix, k: int) -> csr_matrix:
    """The 0/1 graph of `maed.embedding.graph.neighbor_graph`: either is among the other's k most similar."""
    i, j, _ = strongest(similarity, k)
    one_way = csr_matrix((np.ones(len(i)), (i, j)), shape=similarity.shape)
    return join(one_way.maximum(one_way.T).tocsr(), similarity, k)


def rank_weighted(similarity: csr_matrix, k: int) -> csr_matrix:
    """The graph of the 2k most similar, the r-th of them with weight exp(-2 r / k), without false links.

    As `maed.embedding.graph.rank_weighted_graph`, but that bundles and homes of false links are not looked for.
    """
    i, j, rank = strongest(similarity, 2 * k)
    one_way = csr_matrix((np.exp(-2 * (rank + 1) / k), (i, j)), shape=similarity.shape)
    graph = without_false_links((one_way + one_way.T).tocsr() / 2)
    return join(graph, similarity, k, weight=float(np.exp(-2 / k)))


def without_false_links(graph: csr_matrix) -> csr_matrix:
    """Leave out links whose ends share hardly any neighbors: short cuts through noise, which ruin long distances.

    Neighbors of one place know each other (shared nearest neighbors: Jarvis and Patrick 1973); two places that chance
    has linked do not. How much two ends share is the cosine of their rows of weights, and little is measured against
    the links of the two, so that in a graph without any shared neighbors every link stays. False ones go in
    rounds. Of what is left, some may be false at one end only, so the firm links have the last word: a link stays if it
    bridges no more than two of them, as it cuts nothing short (two thresholds, as for edges by Canny 1986), or if it is
    the strongest of a position.
    """
    if not graph.nnz:
        return graph
    weights = graph
    for _ in range(_ROUNDS):
        i, j, w, shared, usual = _support(weights)
        stays = shared >= _SUPPORT * np.minimum(usual[i], usual[j])
        if stays.all():
            break
        weights = csr_matrix((w[stays], (i[stays], j[stays])), shape=graph.shape)
    i, j, w, shared, usual = _support(weights)
    firm = shared >= _FIRM * (usual[i] + usual[j]) / 2
    firmly = csr_matrix((np.ones(firm.sum()), (i[firm], j[firm])), shape=graph.shape)
    i, j, w = _links(graph)
    known = np.asarray(firmly[i, j]).ravel() > 0
    bridged = _products(firmly, i, j) > 0
    best = np.full(graph.shape[0], -1)
    row, column, _ = strongest(graph, 1)
    best[row] = column
    stays = known | bridged | (best[i] == j) | (best[j] == i)
    return csr_matrix((w[stays], (i[stays], j[stays])), shape=graph.shape)


def _links(graph: csr_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = graph.tocoo()
    return found.row.astype(np.int64), found.col.astype(np.int64), found.data


def _products(rows: csr_matrix, i: np.ndarray, j: np.ndarray) -> np.ndarray:
    """The inner products of rows i and j, `(E,)`: entries of `rows @ rows.T`, no others of which are made."""
    found = np.empty(len(i))
    for start in range(0, len(i), 16 * _BLOCK):
        part = slice(start, start + 16 * _BLOCK)
        found[part] = np.asarray(rows[i[part]].multiply(rows[j[part]]).sum(axis=1)).ravel()
    return found


def _support(weights: csr_matrix) -> tuple[np.ndarray, ...]:
    """The ends i and j, weight and shared neighbors of each link; the sum over its links for each position."""
    n = weights.shape[0]
    i, j, w = _links(weights)
    length = np.sqrt(np.asarray(weights.multiply(weights).sum(axis=1)).ravel())
    shared = _products(weights, i, j) / (length[i] * length[j])
    usual = np.bincount(i, w * shared, n) / np.maximum(np.bincount(i, w, n), 1e-300)
    return i, j, w, shared, usual


def join(graph: csr_matrix, similarity: csr_matrix, k: int | None = None, weight: float = 1.0) -> csr_matrix:
    """Join the parts of a graph by their most similar known pairs, and by any pair where none is known.

    Args:
        graph: Symmetric weights.
        similarity: Symmetric; larger is more similar.
        k: Neighbors, for a warning that names the parts; none by default.
        weight: Weight of the added links.
    """
    parts, part = connected_components(graph, directed=False)
    if parts == 1:
        return graph
    if k is not None:
        warn_of_parts(part, k)
    i, j, s = _links(similarity)
    between = part[i] != part[j]
    i, j, s = i[between], j[between], s[between]
    # parts are few, so the tree is over them; the most similar pair of any two parts stands for both
    order = np.argsort(-s, kind="stable")
    _, first = np.unique(part[i[order]] * np.int64(parts) + part[j[order]], return_index=True)
    i, j, s = (each[order][first] for each in (i, j, s))
    cost = 1 + (s.max() - s) / ((np.ptp(s)) or 1.0) if len(s) else s
    tree = minimum_spanning_tree(csr_matrix((cost, (part[i], part[j])), shape=(parts, parts))).tocoo()
    ends = {(a, b): (x, y) for a, b, x, y in zip(part[i], part[j], i, j, strict=True)}
    added = [ends[a, b] for a, b in zip(tree.row, tree.col, strict=True)]
    left, group = connected_components(tree, directed=False)
    if left > 1:  # of these nothing at all is known
        home = np.flatnonzero(group == np.bincount(group).argmax())[0]
        some = [np.flatnonzero(part == np.flatnonzero(group == other)[0])[0] for other in range(left)]
        hub = np.flatnonzero(part == home)[0]
        added += [(hub, one) for one in some if group[part[one]] != group[home]]
    x, y = np.array(added).T
    both = coo_matrix((np.full(2 * len(x), weight), (np.r_[x, y], np.r_[y, x])), shape=graph.shape)
    return (graph + both.tocsr()).tocsr()


def warn_of_parts(part: np.ndarray, k: int) -> None:
    """Say that a graph of k neighbors falls into parts, `(N,)` the number of each position's."""
    sizes = sorted(np.bincount(part).tolist(), reverse=True)
    warnings.warn(
        f"the neighbor graph has {len(sizes)} separate parts of {', '.join(map(str, sizes[:8]))} "
        f"positions{(' ...' if len(sizes) > 8 else '')}; they are joined by their most similar pairs, on "
        f"which distances between parts rest (more embedding.n_neighbors, now {k}, may connect them)",
        stacklevel=5,
    )


def lazy_walk(graph: csr_matrix) -> csr_matrix:
    """The random walk on a graph, half its steps staying, in its symmetric form."""
    scale = diags(1 / np.sqrt(np.asarray(graph.sum(axis=1)).ravel()))
    return ((scale @ graph @ scale + diags(np.ones(graph.shape[0]))) / 2).tocsr()


def heat_links(graph: csr_matrix, k: int, steps: float) -> csr_matrix:
    """The links to the k nearest by heat after so many steps of the walk, with their distances as lengths.

    Heat that spreads from i for a short time reaches j in proportion to exp(-distance^2 / 4 t) (Varadhan 1967). Rows
    are made a block at a time, and of each only the k nearest are kept.
    """
    walk, times = lazy_walk(graph), max(1, round(2 * steps))
    stayed = np.concatenate([rows.diagonal(k=start) for start, rows in _powers(walk, times)])
    parts = []
    for start, rows in _powers(walk, times):
        found = rows.tocoo()
        i, j = found.row.astype(np.int64) + start, found.col.astype(np.int64)
        length = np.sqrt(np.maximum(-np.log(found.data / np.sqrt(stayed[i] * stayed[j])), 0.0))
        off = i != j
        i, j, length = i[off], j[off], length[off]
        order = np.lexsort((length, i))
        i, j, length = i[order], j[order], length[order]
        rank = np.arange(len(i)) - np.searchsorted(i, i)
        kept = rank < k
        parts.append((i[kept], j[kept], length[kept]))
    i, j, length = (np.concatenate(each) for each in zip(*parts, strict=True))
    length = np.maximum(length, 1e-9 * (length.max() or 1.0))  # a link of length 0 would be none
    one_way = csr_matrix((length, (i, j)), shape=graph.shape)
    return one_way.maximum(one_way.T).tocsr()


def _powers(walk: csr_matrix, times: int) -> Iterator[tuple[int, csr_matrix]]:
    """Blocks of rows of the walk's power: where they start, and the rows."""
    for start in range(0, walk.shape[0], _BLOCK):
        rows = walk[start : start + _BLOCK]
        for _ in range(times - 1):
            rows = rows @ walk
        yield start, rows


def joined_links(links: csr_matrix) -> csr_matrix:
    """The links, and the longest of them all between parts that nothing joins."""
    parts, part = connected_components(links, directed=False)
    if parts == 1:
        return links
    first = np.unique(part, return_index=True)[1]
    hub, others = np.full(parts - 1, first[np.bincount(part).argmax()]), np.delete(first, np.bincount(part).argmax())
    far = np.full(2 * len(others), links.data.max())
    return (links + csr_matrix((far, (np.r_[hub, others], np.r_[others, hub])), shape=links.shape)).tocsr()


def landmark_distances(links: csr_matrix, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Shortest paths from positions that lie as far from one another as can be, each the farthest from those before.

    Time grows with `count` N log N, memory with `count` N.

    Returns:
        The landmarks `(count,)` and distances `(count, N)` float32.
    """
    n = links.shape[0]
    chosen, distances = np.empty(min(count, n), dtype=np.int64), np.empty((min(count, n), n), dtype=np.float32)
    nearest, at = np.full(n, np.inf), 0
    for which in range(len(chosen)):
        chosen[which] = at
        distances[which] = dijkstra(links, directed=False, indices=np.array(at))
        np.minimum(nearest, distances[which], out=nearest)
        at = int(nearest.argmax())
    return chosen, distances


def landmark_scaling(
    landmarks: np.ndarray, distances: np.ndarray, squares: Callable[[np.ndarray], np.ndarray], d: int
) -> np.ndarray:
    """Place landmarks by classical scaling, and all others among them by their distances to these.

    De Silva and Tenenbaum 2003. Time grows with L^2 N for L landmarks, memory with N d.

    Args:
        landmarks: `(L,)` positions.
        distances: `(L, N)` from these to all.
        squares: The squared distances that are wanted, of those that are given.
        d: Channels; those beyond L are 0.

    Returns:
        `(N, d)`.
    """
    between, n = distances[:, landmarks].astype(np.float64), distances.shape[1]
    among = squares((between + between.T) / 2)
    points = classical_scaling(np.sqrt(among), min(d, len(landmarks)))
    inverse = points / np.maximum((points**2).sum(axis=0), 1e-12 * (points**2).sum())
    vectors = np.zeros((n, d))
    for start in range(0, n, _BLOCK):
        far = squares(distances[:, start : start + _BLOCK].T.astype(np.float64))
        vectors[start : start + _BLOCK, : points.shape[1]] = (among.mean(axis=0) - far) @ inverse / 2
    return vectors


def diffusion_map(graph: csr_matrix, d: int, steps: float) -> np.ndarray:
    """`maed.embedding.maps.diffusion_map` of a sparse graph, by scikit-learn's `spectral_embedding`.

    Where pyamg is installed, more than 20,000 positions are solved by LOBPCG with its multigrid as preconditioner, in
    time that grows with N d^2; else by Lanczos' method, for which the graph is factorized once: on a plane time grows
    with N^1.5, in more dimensions faster.
    """
    many = graph.shape[0] > _FACTORIZED and importlib.util.find_spec("pyamg") is not None
    found = spectral_embedding(graph, n_components=d, eigen_solver="amg" if many else "arpack", random_state=0)
    root = np.sqrt(np.asarray(graph.sum(axis=1)))
    x = found * root  # eigenvectors of the symmetric form
    values = np.clip((x * (lazy_walk(graph) @ x)).sum(axis=0) / (x * x).sum(axis=0), 0, 1)
    vectors = found / np.sqrt((x * x).sum(axis=0))
    shares = values / values[0] if values[0] > 0 else np.ones_like(values)
    return vectors * shares ** (2 * steps)


def isomap(similarity: csr_matrix, d: int, k: int) -> np.ndarray:
    """`maed.embedding.maps.isomap` by paths from landmarks (de Silva and Tenenbaum 2003)."""
    graph, most = neighbors(similarity, k), similarity.data.max()
    i, j, _ = _links(graph)
    s = np.asarray(similarity[i, j]).ravel()
    length = np.sqrt(np.maximum(most - np.where(s == 0, similarity.data.min(), s), 0.0))
    length = np.maximum(length, 1e-9 * (length.max() or 1.0))  # a link of length 0 would be none
    links = csr_matrix((length, (i, j)), shape=graph.shape)
    return landmark_scaling(*landmark_distances(links, LANDMARKS), np.square, d)
