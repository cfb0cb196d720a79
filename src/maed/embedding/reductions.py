"""From an N x N similarity to d channels per position."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor

from maed.embedding.graph import geodesics, join, neighbor_graph, rank_weighted_graph
from maed.embedding.noise import significant, symmetrize, unknown
from maed.embedding.stress import classical_scaling, leading, minimize_stress, scaled_eigenvectors
from maed.errors import MaedError
from maed.settings import EmbeddingSettings

_WITHOUT_NEIGHBORS = ("spectral", "pca")
_FAR_WEIGHT = 10.0
"""Weight of every pair in `heat`, beside (g / mean)^-4 of a pair at distance g: they are equal at half the mean."""

_FINE = 0.8
"""Share of `heat`'s squared distances that tells near places apart; the rest tells how far the far ones are."""


def embedding_dim(n: int, dim: int | None) -> int:
    """The d of an embedding of `n` positions: `dim`, or min(64, n - 1) where not given; `d >= n` is refused."""
    if dim is None:
        return min(64, n - 1)
    if dim >= n:
        raise MaedError(f"embedding.dim: {dim} for {n} positions; it may be at most {n - 1}")
    return dim


def check_reduction(n: int, settings: EmbeddingSettings) -> int:
    """The number of neighbors that a reduction of `n` positions takes; refuses what it could not do.

    Raises:
        MaedError: d or the neighbors are not below N, or umap-learn is not installed.
    """
    embedding_dim(n, settings.dim)
    if settings.reduction == "umap" and find_spec("umap") is None:
        raise MaedError("embedding.reduction: umap needs umap-learn; pip install 'maed[umap]'")
    if settings.neighbors is None:
        return min(8, n - 1)
    if settings.neighbors >= n and settings.reduction not in _WITHOUT_NEIGHBORS:
        raise MaedError(f"embedding.neighbors: {settings.neighbors} for {n} positions; it may be at most {n - 1}")
    return settings.neighbors


def reduce(similarity: Tensor, settings: EmbeddingSettings, standard_error: Tensor | None = None) -> Tensor:
    """Reduce a similarity to a position embedding. The same input gives the same vectors.

    Args:
        similarity: `(N, N)`, higher is more similar; made symmetric here, its diagonal ignored. An entry of exactly 0
            says nothing of a pair: it makes no neighbors. Time grows with N^3, memory with N^2; `heat` takes several
            times as long as `diffusion`, `tsne` beyond 3 channels many times.
        settings: which reduction, d, and its parameters.
        standard_error: `(N, N)`, of the entries; only `denoise` reads it, and does nothing by default without it.

    Returns:
        `(N, d)` float32, each channel centered, unit mean square over all.

    Raises:
        MaedError: d or the number of neighbors is not below N, the similarity is not finite, or something is asked for
            that is not there: umap-learn, or standard errors.
    """
    s = similarity.double().numpy()
    k, d = check_reduction(len(s), settings), embedding_dim(len(s), settings.dim)
    if not np.isfinite(s).all():
        raise MaedError(
            f"similarity: {int((~np.isfinite(s)).sum())} entries are not finite; they may be finite numbers"
        )
    s, error = symmetrize(s, None if standard_error is None else standard_error.double().numpy(), settings.symmetrize)
    if settings.denoise == "significance":
        if error is None:
            raise MaedError("embedding.denoise: significance needs standard errors, and none were given")
        s = significant(s, error)
    elif settings.denoise == "positions" and settings.reduction == "heat" and error is not None:
        nothing = unknown(s, error)
        s[nothing], s[:, nothing] = 0.0, 0.0
    match settings.reduction:
        case "heat":
            vectors = heat(s, d, k, 1.0 if settings.diffusion_steps is None else settings.diffusion_steps)
        case "diffusion":
            steps = 4.0 if settings.diffusion_steps is None else settings.diffusion_steps
            vectors = diffusion(neighbor_graph(s, k), d, steps)
        case "laplacian":
            # Laplacian eigenmaps (Belkin and Niyogi 2003): the walk's eigenvectors, all of one size
            vectors = diffusion(neighbor_graph(s, k), d, 0)
        case "isomap":
            vectors = isomap(s, d, k)
        case "tsne":
            vectors = tsne(s, d, k)
        case "umap":
            vectors = umap(s, d, k)
        case "spectral":
            vectors = spectral(s, d)
        case "pca":
            with np.errstate(invalid="ignore"):  # of the share of the variance, where there is none
                vectors = PCA(d, svd_solver="full").fit_transform(s)
    return standardize(torch.from_numpy(np.ascontiguousarray(vectors)))


def standardize(vectors: Tensor) -> Tensor:
    """Center each channel and scale all of them alike to unit mean square: `(N, d)` to `(N, d)` float32."""
    centered = vectors.double() - vectors.double().mean(dim=0)
    size = centered.square().mean().sqrt()
    if size <= 1e-12 * vectors.abs().max():  # all at one place, but for rounding
        return torch.zeros_like(centered, dtype=torch.float32)
    return (centered / size).float()


def heat(similarity: np.ndarray, d: int, k: int, steps: float) -> np.ndarray:
    """Keep neighbors and large distances: heat gives the near, shortest paths the far ones, stress fits both.

    Heat that spreads from i for a short time t reaches j in proportion to exp(-distance^2 / 4 t) (Varadhan 1967; used
    for distances on meshes by Crane, Weischedel and Wardetzky 2013). It averages over all short ways, which a single
    noisy entry does not. Paths over the k nearest add these distances up to far ones, g. Placed at those distances,
    positions on a plane would fill two channels and leave the others empty, and whoever reads them would find fine
    differences faint beside coarse ones. So they are placed at distances that grow with g all the same, but fast at
    first: `fine_and_far`. Of all pairs, the d channels keep near ones most exactly: squared deviations weigh by
    distance^-4 (^-2 in Kamada and Kawai 1989) plus a constant.
    Positions of which nothing is known are put equally far from all others, as nearly as d channels allow, with a
    warning.

    Args:
        similarity: `(N, N)` symmetric; rows of 0 of positions of which nothing is known.
        d: channels, below N.
        k: neighbors.
        steps: how long heat spreads, in steps of the walk, rounded to halves; at least a half.
    """
    known = np.asarray(similarity.any(axis=1))
    distances = np.ones((len(known), len(known)))
    if known.any():
        there = np.ix_(known, known)
        local = _heat_distances(rank_weighted_graph(similarity[there], k), steps)
        # Every link of the graph has a finite distance, so joining by them keeps to it.
        among = geodesics(join(_nearest_in(local, k), -local), local)
        distances *= max(among.mean(), among.max() / 2)  # nothing can be nearer to both ends than half way
        distances[there] = among
    np.fill_diagonal(distances, 0.0)
    if not known.all():
        _warn_of_unknown(np.flatnonzero(~known))
    distances = fine_and_far(distances, d)
    start = classical_scaling(distances, d)
    if not start.any():
        return start
    nearest = np.where(np.eye(len(known), dtype=bool), np.inf, distances).min(axis=1)
    # places that heat cannot tell apart would outweigh all others
    least = max(0.1 * float(np.median(nearest)), 1e-6 * distances.max())
    mean = distances.mean()
    weights = (np.maximum(distances, least) / mean) ** -4 + _FAR_WEIGHT
    return minimize_stress(distances, weights, start)


def fine_and_far(distances: np.ndarray, d: int) -> np.ndarray:
    """Distances D with D, D^2 = 0.8 f / mean(f) + 0.2 g^2 / mean(g^2) with f = 1 - exp(-g^2 / 2 s^2), `(N, N)` from g.

    The first part is the distance in the feature space of a Gaussian kernel, whose channels are waves over the
    positions, long and short ones; the second keeps far places from being all equally far. Both grow with g, so nearest
    neighbors and ranks stay. The width s is the least at which the kernel has at most d / 2 effective dimensions, the
    squared sum of its eigenvalues over the sum of their squares: as fine as d channels can hold. Where no width has so
    few, as with d = 1, D is g up to scale.
    """
    squares = distances**2
    if not squares.any():
        return distances
    low, high = np.log(distances[distances > 0].min() / 2), np.log(10 * distances.max())
    for _ in range(20):
        middle = (low + high) / 2
        kernel = np.exp(-squares / (2 * np.exp(2 * middle)))
        kernel -= kernel.mean(axis=0) + kernel.mean(axis=1)[:, None] - kernel.mean()
        fits = np.trace(kernel) ** 2 <= d / 2 * (kernel**2).sum()
        low, high = (low, middle) if fits else (middle, high)
    near = -np.expm1(-squares / (2 * np.exp(2 * high)))
    # a kernel of any width has its share
    return np.sqrt(_FINE * near / near.mean() + (1 - _FINE) * squares / squares.mean())


def diffusion(graph: np.ndarray, d: int, steps: float) -> np.ndarray:
    """Diffusion map (Coifman and Lafon 2006): eigenvectors of the walk on `graph`, times eigenvalue^steps.

    Args:
        graph: `(N, N)` symmetric weights, none of the rows empty.
        d: channels, below N.
        steps: steps of the walk; distances in the result are those between its distributions after so many.

    Returns:
        `(N, d)` up to scale, the constant eigenvector left out.
    """
    values, vectors = leading(_lazy_walk(graph), d + 1)
    # The walk's own eigenvectors: those of the symmetric form, divided by that of eigenvalue 1.
    degree = graph.sum(axis=1)
    vectors = vectors * np.sqrt(degree.sum() / degree)[:, None]
    values = np.clip(values[1:], 0, 1)
    shares = values / values[0] if values[0] > 0 else np.ones_like(values)  # of any length, they do not vanish
    return vectors[:, 1:] * shares ** (2 * steps)  # two lazy steps make one


def isomap(similarity: np.ndarray, d: int, k: int) -> np.ndarray:
    """Classical scaling of shortest paths over k neighbors (Tenenbaum, de Silva and Langford 2000).

    scikit-learn's Isomap of the same distances, but for parts that nothing joins: here they are joined by one pair.
    """
    return classical_scaling(geodesics(neighbor_graph(similarity, k), _distances(similarity)), d)


def tsne(similarity: np.ndarray, d: int, k: int) -> np.ndarray:
    """t-SNE (van der Maaten and Hinton 2008; scikit-learn's), from Isomap: exact beyond 3 channels.

    In many channels its kernel is nearly Gaussian and its maps are small: scikit-learn's steps and exaggeration, made
    for 2, tear them apart or collapse them, so they are smaller there. Time grows with N^2 d a step where it is exact,
    with N log N otherwise.
    """
    n = len(similarity)
    start = isomap(similarity, d, k)
    start = (start / (start[:, 0].std() or 1.0)).astype(np.float32)
    few = {"init": 1e-4 * start}
    many = {"init": start, "method": "exact", "max_iter": 500, "early_exaggeration": 8.0, "learning_rate": n / 48}
    model = TSNE(
        d,
        metric="precomputed",
        perplexity=min(float(k), max(1.0, (n - 1) / 3)),
        random_state=0,
        n_jobs=1,  # threads add up in another order
        **(few if d <= 3 else many),
    )
    return model.fit_transform(_distances(similarity) ** 2)  # the similarity, turned round, keeps more neighbors


def umap(similarity: np.ndarray, d: int, k: int) -> np.ndarray:
    """UMAP (McInnes, Healy and Melville 2018; umap-learn's), from Isomap."""
    n = len(similarity)
    start = isomap(similarity, d, k)
    if n <= 3:  # too few for umap-learn
        return start
    # It stretches every channel to the same width, and those where Isomap found nothing have none.
    start = start + 1e-4 * (start.std() or 1.0) * np.random.default_rng(0).normal(size=start.shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one thread with a seed, of distances that are given, of lacking extras
        from umap import UMAP

        model = UMAP(
            n_neighbors=min(k + 1, n - 1),  # itself among them
            n_components=d,
            metric="precomputed",
            init=start.astype(np.float32),
            random_state=0,
            n_jobs=1,
        )
        return model.fit_transform(_distances(similarity))


def spectral(similarity: np.ndarray, d: int) -> np.ndarray:
    """Leading eigenvectors of the centered similarity, times the root of their eigenvalue (classical scaling).

    Where fewer than d eigenvalues are positive, the remaining channels are 0.
    """
    centered = similarity - similarity.mean(axis=0) - similarity.mean(axis=1)[:, None] + similarity.mean()
    return scaled_eigenvectors(centered, d)


def _distances(similarity: np.ndarray) -> np.ndarray:
    """The distances that a similarity has as inner products of unit vectors, up to scale; its largest entry is 0."""
    distances = np.sqrt(np.maximum(similarity.max() - similarity, 0.0))
    np.fill_diagonal(distances, 0.0)
    return distances


def _lazy_walk(graph: np.ndarray) -> np.ndarray:
    """The random walk on a graph, half its steps staying, in its symmetric form.

    It is lazy so that no eigenvalue is negative and alternation between two sides of the graph is not closeness.
    """
    scale = 1 / np.sqrt(graph.sum(axis=1))
    return (scale[:, None] * graph * scale + np.eye(len(graph))) / 2


def _heat_distances(graph: np.ndarray, steps: float) -> np.ndarray:
    """Distances `(N, N)` from heat after so many steps of the walk; infinite where none arrives."""
    arrived = np.linalg.matrix_power(_lazy_walk(graph), max(1, round(2 * steps)))
    stayed = np.sqrt(arrived.diagonal())
    with np.errstate(divide="ignore"):
        local = np.sqrt(np.maximum(-np.log(arrived / stayed[:, None] / stayed), 0.0))
    np.fill_diagonal(local, 0.0)
    return (local + local.T) / 2  # alike but for rounding


def _warn_of_unknown(positions: np.ndarray) -> None:
    shown = f"{', '.join(map(str, positions[:8].tolist()))}{' ...' if len(positions) > 8 else ''}"
    warnings.warn(
        f"nothing is known of {len(positions)} position{'s' if len(positions) > 1 else ''} ({shown}), which no other "
        "depends on beyond noise; put equally far from all others",
        stacklevel=4,
    )


def _nearest_in(distances: np.ndarray, k: int) -> np.ndarray:
    """The `(N, N)` 0/1 graph that joins i and j where either is among the other's k nearest at a finite distance."""
    n = len(distances)
    far = np.where(np.eye(n, dtype=bool), np.inf, distances)
    nearest = np.argsort(far, axis=1, kind="stable")[:, :k]
    graph = np.zeros_like(distances)
    np.put_along_axis(graph, nearest, 1.0, axis=1)
    graph[np.isinf(far)] = 0.0
    return np.maximum(graph, graph.T)
