"""Reductions on similarities of known geometry, and the folder that an embedding is kept in."""

import json
import re
import sys
import warnings
from itertools import combinations, pairwise
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist
from scipy.stats import norm, spearmanr
from sklearn.manifold import Isomap
from threadpoolctl import ThreadpoolController

from maed.cli.inspection import describe
from maed.data.geometry import Geometry, grid, line, permutation, points
from maed.embedding import (
    LEAST_SIGNAL_TO_NOISE,
    PositionEmbedding,
    check_reduction,
    embedding_dim,
    reduce,
    signal_to_noise,
)
from maed.embedding.graph import (
    join,
    neighbor_graph,
    rank_weighted_graph,
    without_false_bundles,
    without_false_homes,
    without_false_links,
)
from maed.embedding.maps import isomap
from maed.embedding.noise import significant, symmetrize
from maed.embedding.reduction import standardize
from maed.embedding.reductions.heat import fine_and_far
from maed.embedding.stress import classical_scaling, leading, minimize_stress
from maed.errors import MaedError
from maed.evaluation.geometry import geometry_metrics, knn_recall
from maed.files import read_json
from maed.run_folder import RunFolder
from maed.settings import EmbeddingSettings, EvaluationSettings
from maed.similarity import Similarity, write_similarity
from maed.stages.embed import check_signal, embed_again

EXACT = ("heat", "diffusion", "laplacian", "isomap", "spectral", "pca")
"""Without an order of the positions in them: permuted positions are the same embedding, permuted."""
NEARLY_ALL = (*EXACT, "tsne")
"""But for umap, which takes half a minute to import and compile."""

in_parts = pytest.mark.filterwarnings("ignore:the neighbor graph falls into")


def ring(n: int = 40) -> Geometry:
    angles = np.arange(n) * 2 * np.pi / n
    return points(np.stack([np.cos(angles), np.sin(angles)], axis=1))


def closeness(geometry: Geometry, width: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.exp(-((geometry.distances() / width) ** 2)))


def random_similarity(n: int = 30, seed: int = 0) -> torch.Tensor:
    """Without ties, and not symmetric."""
    places = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    crooked = torch.randn(n, n, generator=torch.Generator().manual_seed(seed + 1), dtype=torch.float64)
    return torch.exp(-torch.cdist(places, places)) + 0.05 * crooked


def bytes_on_a_line(n: int, noise: float = 0.013) -> torch.Tensor:
    """What one byte of a review tells of another, in standard deviations, with the noise of 33,000 draws."""
    clean = np.zeros((n, n))
    for offset, strength in enumerate((0.26, 0.09, 0.03, 0.01, 0.005), start=1):
        clean += strength * (np.eye(n, k=offset) + np.eye(n, k=-offset))
    return torch.from_numpy(clean + noise * np.random.default_rng(0).normal(size=(n, n)))


# -- reductions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 8, None])
@pytest.mark.parametrize("reduction", ["heat", "diffusion", "spectral", "pca", "isomap", "tsne"])
def test_a_ring_is_recovered(reduction, dim):
    vectors = reduce(closeness(ring()), EmbeddingSettings(reduction=reduction, dim=dim))
    metrics = geometry_metrics(vectors, ring(), EvaluationSettings())
    # the four nearest on either side
    assert metrics["knn_recall"] > {"isomap": 0.9, "tsne": 0.85}.get(reduction, 0.99)
    assert metrics["coordinate_r2"] > {"tsne": 0.9, "heat": 0.98}.get(reduction, 0.99)


@pytest.mark.parametrize(
    ("reduction", "recall", "spearman"),
    [
        *(("heat", 0.95, 0.96), ("isomap", 0.9, 0.97), ("tsne", 0.95, 0.97)),
        *(("diffusion", 0.8, 0.9), ("laplacian", 0.8, 0), ("spectral", 0.9, 0), ("pca", 0.9, 0)),
    ],
)
def test_what_is_kept_of_a_grid(reduction, recall, spearman):
    # by chance 8 of 63 are right; the borders cost the rest
    vectors = reduce(closeness(grid(8, 8), 2), EmbeddingSettings(reduction=reduction, dim=8))
    metrics = geometry_metrics(vectors, grid(8, 8), EvaluationSettings())
    assert metrics["knn_recall"] > recall
    assert metrics["spearman"] > spearman
    assert metrics["coordinate_r2"] > 0.9


@pytest.mark.slow
@pytest.mark.xdist_group("numba")
def test_umap_keeps_neighbors_and_large_distances_and_repeats():
    umap, threads = EmbeddingSettings(reduction="umap", dim=8), torch.get_num_threads()
    vectors = reduce(closeness(grid(8, 8), 2), umap)
    metrics = geometry_metrics(vectors, grid(8, 8), EvaluationSettings())
    assert metrics["knn_recall"] > 0.9
    assert metrics["spearman"] > 0.97
    assert torch.equal(reduce(closeness(grid(8, 8), 2), umap), vectors)
    for n in (2, 3, 4, 5, 9):
        few = reduce(random_similarity(n), EmbeddingSettings(reduction="umap"))
        assert few.shape == (n, n - 1)
        assert few.isfinite().all()
    assert torch.get_num_threads() == threads


def test_umap_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "umap", None)
    expected = re.escape("maed[umap]")
    with pytest.raises(MaedError, match=expected):
        reduce(random_similarity(), EmbeddingSettings(reduction="umap"))
    with pytest.raises(MaedError, match=expected):
        check_reduction(30, EmbeddingSettings(reduction="umap"))
    assert reduce(random_similarity(), EmbeddingSettings()).isfinite().all()  # imported only when asked for


def test_heat_is_the_default_and_chains_neighbors_to_a_line():
    # beyond offset 3 all is noise: a single false link would tie the ends together
    vectors = reduce(bytes_on_a_line(256), EmbeddingSettings())
    metrics = geometry_metrics(vectors, line(256), EvaluationSettings())
    assert metrics["knn_recall"] > 0.98
    assert metrics["spearman"] > 0.99


def test_heat_averages_noise_out():
    noisy = closeness(grid(12, 12), 2) + 0.25 * torch.from_numpy(np.random.default_rng(0).normal(size=(144, 144)))
    entries = knn_recall(-symmetrize(noisy.numpy(), None, "mean")[0], grid(12, 12).distances(), 8)
    metrics = geometry_metrics(reduce(noisy, EmbeddingSettings()), grid(12, 12), EvaluationSettings())
    assert metrics["knn_recall"] > entries + 0.05
    assert metrics["spearman"] > 0.95


def test_diffusion_keeps_large_distances_of_a_line_in_one_channel():
    vectors = reduce(closeness(line(30), 2), EmbeddingSettings(reduction="diffusion", dim=1, n_neighbors=4))
    steps = vectors[:, 0].diff() * torch.sign(vectors[-1, 0])
    assert steps.min() > -1e-4  # the outermost have the same neighbors, hence the same place
    assert steps[3:-3].min() > 0.01


def test_more_diffusion_steps_keep_larger_distances():
    def share_of_the_slowest(steps: float) -> float:
        vectors = reduce(closeness(ring()), EmbeddingSettings(reduction="diffusion", diffusion_steps=steps))
        power = vectors.square().sum(dim=0)
        return float(power[:2].sum() / power.sum())  # once around the ring, cosine and sine

    assert share_of_the_slowest(0) < 0.1 < share_of_the_slowest(4) < share_of_the_slowest(16)


def test_laplacian_eigenmaps_are_a_diffusion_of_no_steps():
    laplacian = reduce(random_similarity(), EmbeddingSettings(reduction="laplacian", dim=5))
    none = reduce(random_similarity(), EmbeddingSettings(reduction="diffusion", dim=5, diffusion_steps=0))
    assert torch.equal(laplacian, none)
    # of the random walk on the graph: they are orthogonal where positions weigh by their degree
    graph = neighbor_graph(symmetrize(random_similarity().numpy(), None, "mean")[0], 8)
    degree = graph.sum(axis=1)
    x = laplacian.double().numpy()
    x = x - (degree @ x) / degree.sum()
    gram = x.T @ (degree[:, None] * x)
    assert np.allclose(gram / gram[0, 0], np.eye(5), atol=1e-5)


def test_isomap_is_that_of_scikit_learn():
    similarity = symmetrize(closeness(grid(6, 7), 2).numpy(), None, "mean")[0] + 1e-6 * random_symmetric(42)
    distances = np.sqrt(similarity.max() - similarity)
    np.fill_diagonal(distances, 0)
    expected = Isomap(n_neighbors=6, n_components=3, metric="precomputed", eigen_solver="dense").fit_transform(
        distances
    )
    found = isomap(similarity, 3, 6)
    assert np.allclose(cdist(found, found), cdist(expected, expected), atol=1e-6)


def random_symmetric(n: int) -> np.ndarray:
    x = np.random.default_rng(0).normal(size=(n, n))
    x = x + x.T
    np.fill_diagonal(x, 0)
    return x


def test_spectral_is_classical_scaling():
    # the Gram matrix of centered points; its diagonal is lost, so these lie on a circle: it is the same for all
    places = torch.from_numpy(ring(12).coordinates).double()
    vectors = reduce(places @ places.T, EmbeddingSettings(reduction="spectral", dim=2))
    ratio = torch.cdist(vectors, vectors) / torch.cdist(places, places).float()
    off = ~torch.eye(12, dtype=torch.bool)
    assert torch.allclose(ratio[off], ratio[0, 1], rtol=1e-4)


@pytest.mark.parametrize("reduction", EXACT)
@pytest.mark.parametrize(("n", "dim", "expected"), [(30, None, 29), (70, None, 64), (30, 29, 29), (30, 1, 1)])
def test_embeddings_are_centered_float32_of_unit_mean_square(reduction, n, dim, expected):
    vectors = reduce(random_similarity(n), EmbeddingSettings(reduction=reduction, dim=dim))
    assert vectors.shape == (n, expected)
    assert vectors.dtype == torch.float32
    assert vectors.mean(dim=0).abs().max() < 1e-5
    assert float(vectors.square().mean()) == pytest.approx(1, abs=1e-5)


def test_standardising_by_hand():
    # means 2 and 0, then (-1, -3), (1, 3): the mean square is 5
    expected = torch.tensor([[-1.0, -3.0], [1.0, 3.0]]) / 5**0.5
    assert torch.allclose(standardize(torch.tensor([[1.0, -3.0], [3.0, 3.0]])), expected)
    assert torch.equal(standardize(torch.ones(3, 2)), torch.zeros(3, 2))


@pytest.mark.parametrize("reduction", EXACT)
def test_only_the_symmetric_part_off_the_diagonal_counts(reduction):
    similarity, chosen = random_similarity(), EmbeddingSettings(reduction=reduction, dim=5)
    expected = reduce(similarity, chosen)
    before = similarity.clone()
    loud = (similarity + similarity.T) / 2 + 100 * torch.eye(30, dtype=torch.float64)
    assert torch.allclose(reduce(loud, chosen), expected, atol=1e-5)
    assert torch.equal(similarity, before)


@pytest.mark.parametrize("reduction", EXACT)
def test_permuting_positions_permutes_the_embedding(reduction):
    similarity, chosen = random_similarity(), EmbeddingSettings(reduction=reduction, dim=6)
    order = torch.from_numpy(permutation(30, seed=0))
    expected = reduce(similarity, chosen).double()[order]
    vectors = reduce(similarity[order][:, order], chosen).double()
    # rounding decides where an iteration stops
    tolerance = 0.02 if reduction == "heat" else 1e-4
    assert torch.allclose(torch.cdist(vectors, vectors), torch.cdist(expected, expected), atol=tolerance)


@pytest.mark.parametrize("reduction", NEARLY_ALL)
def test_reductions_repeat_bit_for_bit(reduction):
    chosen = EmbeddingSettings(reduction=reduction)
    assert torch.equal(reduce(random_similarity(), chosen), reduce(random_similarity(), chosen))


@in_parts
@pytest.mark.filterwarnings("ignore:nothing is known of")
@pytest.mark.parametrize("reduction", EXACT)
@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 12), kind=st.sampled_from(["noise", "sparse", "rounded", "constant", "negative"]), data=st.data()
)
def test_any_similarity_gives_finite_vectors(reduction, n, kind, data):
    generator = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    similarity = generator.normal(size=(n, n))
    if kind == "sparse":
        similarity *= generator.random((n, n)) < 0.2
    elif kind == "rounded":
        similarity = similarity.round()
    elif kind == "constant":
        similarity = np.full((n, n), similarity[0, 0])
    elif kind == "negative":
        similarity = -np.abs(similarity) - 1
    dim = data.draw(st.none() | st.integers(1, n - 1))
    vectors = reduce(torch.from_numpy(similarity), EmbeddingSettings(reduction=reduction, dim=dim))
    assert vectors.shape == (n, dim or n - 1)
    assert vectors.isfinite().all()
    assert vectors.mean(dim=0).abs().max() < 1e-4
    if vectors.any():  # spectral finds nothing in some
        assert float(vectors.square().mean()) == pytest.approx(1, abs=1e-4)
    else:
        assert reduction in ("spectral", "pca")


@in_parts
@pytest.mark.parametrize("n", [2, 3, 7, 12])
@pytest.mark.parametrize("similarity", ["random", "constant"])
def test_tsne_of_few_positions(n, similarity):
    given_one = random_similarity(n) if similarity == "random" else torch.ones(n, n)
    for dim in {1, n - 1}:
        vectors = reduce(given_one, EmbeddingSettings(reduction="tsne", dim=dim))
        assert vectors.shape == (n, dim)
        assert vectors.isfinite().all()


def test_eigenvectors_of_equal_eigenvalues():
    values, vectors = leading(np.zeros((30, 30)), 30)
    assert np.allclose(values, 0)
    assert np.allclose(vectors.T @ vectors, np.eye(30))


# -- what a reduction refuses ---------------------------------------------------------------------------------------


def test_a_dimension_that_is_not_below_n_is_refused():
    assert (embedding_dim(10, None), embedding_dim(100, None), embedding_dim(10, 9)) == (9, 64, 9)
    with pytest.raises(MaedError) as refused:
        reduce(random_similarity(), EmbeddingSettings(dim=30))
    assert refused.value.argument == "embedding.dim"


@pytest.mark.parametrize("reduction", ["heat", "diffusion", "laplacian", "isomap", "tsne"])
def test_too_many_neighbors_are_refused(reduction):
    with pytest.raises(MaedError) as refused:
        reduce(random_similarity(), EmbeddingSettings(reduction=reduction, n_neighbors=30))
    assert refused.value.argument == "embedding.n_neighbors"
    assert reduce(random_similarity(), EmbeddingSettings(reduction=reduction, n_neighbors=29)).isfinite().all()


def test_neighbors_that_are_not_set_fit_any_n():
    assert [check_reduction(n, EmbeddingSettings()) for n in (2, 8, 9, 10)] == [1, 7, 8, 8]
    assert check_reduction(5, EmbeddingSettings(reduction="pca", n_neighbors=8)) == 8  # which has none


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_similarity_that_is_not_finite_is_refused(value):
    similarity = random_similarity()
    similarity[3, 4] = similarity[5, 4] = value
    with pytest.raises(MaedError) as refused:
        reduce(similarity, EmbeddingSettings())
    assert refused.value.argument == "similarity"


# -- graphs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["heat", "diffusion", "laplacian", "isomap", "tsne"])
def test_a_graph_in_parts_is_warned_about_with_their_sizes_and_joined(reduction):
    similarity = torch.block_diag(*(closeness(line(n), 2) for n in (12, 20, 10)))
    similarity[11, 12] = similarity[12, 11] = 1e-9  # hardly anything, but more than nothing
    chosen = EmbeddingSettings(reduction=reduction, n_neighbors=4)
    with pytest.warns(UserWarning, match=r"parts of 20, 12, 10 positions; .*joined .*embedding.n_neighbors, now 4"):
        vectors = reduce(similarity, chosen)
    assert vectors.isfinite().all()
    assert float(vectors.square().mean()) == pytest.approx(1, abs=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reduce(closeness(line(42), 2), chosen)


def test_parts_are_joined_by_their_most_similar_pairs():
    similarity = np.full((6, 6), 0.1)
    similarity[1, 2] = similarity[2, 1] = similarity[4, 5] = similarity[5, 4] = 0.4
    similarity[0, 3] = similarity[3, 0] = 0.3
    graph = np.zeros((6, 6))
    for i, j in ((0, 1), (2, 3), (3, 4)):
        graph[i, j] = graph[j, i] = 1
    joined = join(graph, similarity, weight=0.5)
    assert {(int(i), int(j)) for i, j in np.argwhere(np.triu(joined - graph))} == {(1, 2), (4, 5)}
    assert joined[1, 2] == joined[5, 4] == 0.5
    assert np.array_equal(join(joined, similarity), joined)


def test_an_entry_of_0_makes_no_neighbors():
    similarity = np.zeros((6, 6))
    for i, j in pairwise(range(6)):
        similarity[i, j] = similarity[j, i] = -0.1 if i == 3 else 0.5  # the rest is not known
    expected = np.eye(6, k=1) + np.eye(6, k=-1)
    assert np.array_equal(neighbor_graph(similarity, 4), expected)
    assert np.array_equal(rank_weighted_graph(similarity, 4) > 0, expected > 0)


def test_false_links_are_left_out_and_true_ones_stay():
    chain = np.abs(np.subtract.outer(np.arange(30), np.arange(30)))
    graph = np.where((chain > 0) & (chain <= 3), np.exp(-chain / 2.0), 0)
    wrong = graph.copy()
    for i, j in ((2, 27), (5, 16)):
        wrong[i, j] = wrong[j, i] = 0.5
    assert np.array_equal(without_false_links(wrong), graph)
    assert np.array_equal(without_false_links(graph), graph)
    alternating = np.eye(8, k=1) + np.eye(8, k=-1)  # no two ends share a neighbor
    assert np.array_equal(without_false_links(alternating), alternating)
    assert not without_false_links(np.zeros((4, 4))).any()


def test_a_false_link_with_one_poor_end_is_left_out():
    # the last position knows nothing: what it is linked to by chance is in one place, and shares that with it
    chain = np.abs(np.subtract.outer(np.arange(31), np.arange(31)))
    graph = np.where((chain > 0) & (chain <= 3), np.exp(-chain / 2.0), 0)
    graph[30], graph[:, 30] = 0, 0
    wrong = graph.copy()
    wrong[0, 15] = wrong[15, 0] = wrong[0, 18] = wrong[18, 0] = 0.05
    assert np.array_equal(without_false_links(wrong), graph)


def test_a_bundle_of_links_between_two_places_needs_a_close_one():
    chain = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    graph = np.where((chain > 0) & (chain <= 3), np.exp(-chain / 2.0), 0)
    nearest = np.argsort(-graph, axis=1, kind="stable")[:, :2]
    assert np.array_equal(without_false_bundles(graph, nearest), graph)
    wrong = graph.copy()
    for i in (9, 10, 11):
        for j in (30, 31):  # they support each other
            wrong[i, j] = wrong[j, i] = 0.15
    assert np.array_equal(without_false_bundles(wrong, nearest), graph)
    close = nearest.copy()
    close[10] = 9, 30  # one that is among the two most similar: the places belong together
    assert np.array_equal(without_false_bundles(wrong, close), wrong)
    places = grid(8, 8).coordinates
    plane = (cdist(places, places) < 1.5) - np.eye(64)
    assert np.array_equal(without_false_bundles(plane, np.argsort(-plane, axis=1, kind="stable")[:, :2]), plane)
    assert not without_false_bundles(np.zeros((4, 4)), np.zeros((4, 2), dtype=int)).any()


def test_a_guest_at_several_places_stays_at_one():
    chain = np.abs(np.subtract.outer(np.arange(31), np.arange(31)))
    graph = np.where((chain > 0) & (chain <= 3), np.exp(-chain / 2.0), 0)
    graph[30], graph[:, 30] = 0, 0
    nearest = np.argsort(-graph, axis=1, kind="stable")[:, :2]
    assert np.array_equal(without_false_homes(graph, nearest), graph)
    # the last one is tied to two places, to neither of them closely
    tied, expected = graph.copy(), graph.copy()
    for i, weight in ((3, 0.1), (4, 0.2), (5, 0.1), (20, 0.2), (21, 0.3), (22, 0.1)):
        tied[i, 30] = tied[30, i] = weight
        if i >= 20:
            expected[i, 30] = expected[30, i] = weight
    assert np.array_equal(without_false_homes(tied, nearest), expected)
    # a ring without any triangle: every position is at home on both sides
    ring = np.roll(np.eye(12), 1, axis=1) + np.roll(np.eye(12), -1, axis=1)
    assert np.array_equal(without_false_homes(ring, np.argsort(-ring, axis=1, kind="stable")[:, :2]), ring)


@given(st.integers(0, 2**32 - 1), st.integers(4, 30), st.sampled_from([0.1, 0.3, 0.6]), st.booleans())
@settings(max_examples=60)
def test_bundles_and_homes_are_those_of_one_position_after_the_other(seed, n, density, ties):
    rng = np.random.default_rng(seed)
    graph = np.triu(rng.random((n, n)) * (rng.random((n, n)) < density), 1)
    graph = np.ceil(3 * (graph + graph.T)) if ties else graph + graph.T
    closest = rng.integers(0, n, (n, 2))
    bundle, homes = {frozenset(pair): {frozenset(pair)} for pair in np.argwhere(graph).tolist()}, graph.copy()
    for at, weights in enumerate(graph):
        around = np.flatnonzero(weights)
        for a, b in combinations(around.tolist(), 2):
            if graph[a, b] and graph[a, b] >= max(weights[a], weights[b]):
                both = bundle[frozenset((at, a))] | bundle[frozenset((at, b))]
                bundle |= dict.fromkeys(both, both)
        count, group = connected_components(csr_matrix(graph[np.ix_(around, around)]), directed=False)
        groups = [around[group == each] for each in range(count)]
        home = [each for each in groups if (closest[each] == at).any()]
        home = home or sorted(groups, key=lambda each: -weights[each].sum())[:1]
        away = sorted(set(around) - {i for each in home for i in each})
        homes[at, away] = homes[away, at] = 0
    bundles = graph.copy()
    for i, j in np.argwhere(graph).tolist():
        ends = [tuple(link) for link in bundle[frozenset((i, j))]]
        bundles[i, j] *= any(b in closest[a] or a in closest[b] for a, b in ends)
    assert np.array_equal(without_false_bundles(graph, closest), bundles)
    assert np.array_equal(without_false_homes(graph, closest), homes)


def test_fine_and_far_distances_grow_with_those_that_are_given():
    points = np.random.default_rng(0).normal(size=(50, 3))
    before = cdist(points, points)
    for d in (1, 8, 49):
        after = fine_and_far(before, d)
        assert np.array_equal(np.argsort(after.ravel(), kind="stable"), np.argsort(before.ravel(), kind="stable"))
        assert (after.diagonal() == 0).all()
    assert not fine_and_far(np.zeros((4, 4)), 2).any()


def test_heat_fills_the_channels_that_it_is_given():
    filled = [
        effective_dimensions(reduce(closeness(grid(16, 16), 2), EmbeddingSettings(reduction="heat", dim=d)))
        for d in (4, 64)
    ]
    assert filled[0] > 2
    assert filled[1] > 12  # of two channels alone where distances are kept as they are


def effective_dimensions(vectors: torch.Tensor) -> float:
    """Effective dimensions: (sum of variances)^2 / (sum of their squares) of the principal components."""
    variances = torch.linalg.svdvals(vectors - vectors.mean(dim=0)) ** 2
    return float(variances.sum() ** 2 / (variances**2).sum())


def test_a_position_of_which_nothing_is_known_is_far_from_all_alike():
    similarity = closeness(line(40), 2)
    similarity[:, [0, 25]] = 0.01 * torch.rand(40, 2, generator=torch.manual_seed(0)).to(similarity)
    similarity[[0, 25]] = similarity[:, [0, 25]].T
    with pytest.warns(UserWarning, match=re.escape("nothing is known of 2 positions (0, 25)")):
        vectors = reduce(similarity, EmbeddingSettings(), torch.full((40, 40), 0.01))
    distances = torch.cdist(vectors, vectors)
    known = [i for i in range(40) if i not in (0, 25)]
    for i in (0, 25):
        assert distances[i, known].std() < 0.2 * distances[i, known].mean()
    among = line(40).distances()[np.ix_(known, known)]
    assert spearmanr(distances[known][:, known].ravel(), among.ravel()).statistic > 0.98
    # others have no place for it
    laplacian = EmbeddingSettings(reduction="laplacian")
    assert torch.equal(reduce(similarity, laplacian, torch.full((40, 40), 0.01)), reduce(similarity, laplacian))
    # without standard errors, or where 0 means nothing, or where most are so, none is left out
    noise = random_similarity()
    chosen = EmbeddingSettings(denoise="none")
    assert torch.equal(reduce(noise, EmbeddingSettings(), 10 * torch.ones(30, 30)), reduce(noise, chosen))
    assert torch.equal(reduce(noise - 10, EmbeddingSettings(), 10 * torch.ones(30, 30)), reduce(noise - 10, chosen))
    assert torch.equal(reduce(similarity, EmbeddingSettings()), reduce(similarity, chosen))


# -- stress -----------------------------------------------------------------------------------------------------------


def test_stress_finds_points_again_from_their_distances():
    places = np.random.default_rng(0).normal(size=(25, 3))
    distances = cdist(places, places)
    weights = 1 / np.maximum(distances, 0.1) ** 2
    start = places + 0.1 * np.random.default_rng(1).normal(size=(25, 3))
    found = minimize_stress(distances, weights, start)
    assert np.abs(cdist(found, found) - distances).max() < 0.01
    scaled = classical_scaling(distances, 3)
    assert np.allclose(cdist(scaled, scaled), distances)


def test_stress_falls_from_its_start_and_weights_say_where():
    distances = 1 + norm.cdf(random_symmetric(20))  # from 1 to 2: those of any three points, but not of 20
    np.fill_diagonal(distances, 0)
    pairs = np.triu_indices(20, 1)
    heavy = np.ones((20, 20))
    heavy[:3, :3] = 1e4

    def misses(x: np.ndarray) -> np.ndarray:
        return np.abs(cdist(x, x) - distances)

    start = classical_scaling(distances, 4)
    even, uneven = (minimize_stress(distances, w, start) for w in (np.ones((20, 20)), heavy))
    assert (misses(even)[pairs] ** 2).sum() < (misses(start)[pairs] ** 2).sum()
    assert misses(uneven)[:3, :3].max() < 0.01 < misses(even)[:3, :3].max()


@pytest.mark.parametrize("n", [100, 300])  # of one block of rows and of several, the last of them smaller
def test_stress_is_least_where_it_ends_and_threads_are_left_as_they_were(n):
    blas = ThreadpoolController().select(user_api="blas")
    distances = 1 + norm.cdf(random_symmetric(n))
    np.fill_diagonal(distances, 0)
    weights, start = distances + np.eye(n), classical_scaling(distances, 4)
    with blas.limit(limits=2):
        found = minimize_stress(distances, weights, start)
        assert {library["num_threads"] for library in blas.info()} == {2}
    with blas.limit(limits=1):
        assert np.allclose(minimize_stress(distances, weights, start), found, atol=1e-6)

    def stress(x: np.ndarray) -> float:
        return float((weights * (cdist(x, x) - distances) ** 2).sum())

    rng = np.random.default_rng(0)
    assert all(stress(found) < stress(found + 0.02 * rng.normal(size=found.shape)) for _ in range(10))
    assert stress(found) < stress(start)


# -- noise ------------------------------------------------------------------------------------------------------------


def test_two_directions_become_one_by_hand():
    similarity, error = np.array([[9.0, 1.0], [3.0, 9.0]]), np.array([[0.0, 0.3], [0.4, 0.0]])
    by_hand: dict[Literal["mean", "max", "min"], tuple[float, float]] = {
        "mean": (2.0, 0.25),
        "max": (3.0, 0.4),
        "min": (1.0, 0.3),
    }
    for how, (value, deviation) in by_hand.items():
        values, errors = symmetrize(similarity, error, how)
        assert np.array_equal(values, [[0, value], [value, 0]])
        assert errors[0, 1] == errors[1, 0] == pytest.approx(deviation)
    once = np.array([[0.0, 2.0], [2.0, 0.0]])
    assert np.array_equal(symmetrize(once, once / 4, "mean")[1], once / 4)  # measured once, not twice
    assert symmetrize(similarity, None, "max")[1] is None


def test_each_way_of_symmetrising_is_another_embedding():
    ways = [
        reduce(random_similarity(), EmbeddingSettings(reduction="pca", symmetrize=how))
        for how in ("mean", "max", "min")
    ]
    assert all(not torch.allclose(a, b, atol=1e-3) for a, b in pairwise(ways))


def test_entries_that_may_be_noise_become_0_but_each_position_keeps_one():
    level = float(norm.isf(0.05 / 4))  # 2.24 standard errors
    similarity = np.zeros((4, 4))
    for i, j, z in ((0, 1, 5.0), (0, 2, level - 0.01), (1, 2, level + 0.01), (0, 3, 0.5), (1, 3, -1.0), (2, 3, 0.4)):
        similarity[i, j] = similarity[j, i] = 0.1 * z
    kept = significant(similarity, np.full((4, 4), 0.1))
    expected = {(0, 1), (1, 2), (0, 3)}  # the last is the best of a lonely one
    assert {(int(i), int(j)) for i, j in np.argwhere(np.triu(kept))} == expected
    assert np.array_equal(kept, kept.T)
    assert all(kept[i, j] == similarity[i, j] for i, j in expected)


@in_parts
def test_denoising_helps_where_noise_is_uneven():
    # far pairs with ten times the noise: they are never trusted, but some are large
    generator, true = np.random.default_rng(0), line(60).distances()
    error = torch.from_numpy(np.where(true > 3, 1.0, 0.05))
    similarity = closeness(line(60), 2) + error * torch.from_numpy(generator.normal(size=(60, 60)))

    def recall(denoise: Literal["none", "positions", "significance"]) -> float:
        vectors = reduce(similarity, EmbeddingSettings(denoise=denoise, n_neighbors=4), error)
        return geometry_metrics(vectors, line(60), EvaluationSettings())["knn_recall"]

    assert recall("none") < 0.5 < 0.9 < recall("significance")


def test_what_cannot_be_denoised_is_refused():
    chosen = EmbeddingSettings(denoise="significance")
    with pytest.raises(MaedError, match="significance needs standard errors, and none were given"):
        reduce(random_similarity(), chosen)
    with pytest.raises(MaedError, match="above 0"):
        reduce(-random_similarity().abs(), chosen, torch.ones(30, 30))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("n", [8, 32, 128])
def test_pure_noise_has_a_signal_to_noise_ratio_of_about_1(n, symmetric):
    ratios = []
    for seed in range(20):
        generator = np.random.default_rng(seed)
        error, z = np.exp(generator.normal(size=(n, n))), generator.normal(size=(n, n))
        if symmetric:
            error, z = (np.triu(x, 1) + np.triu(x, 1).T for x in (error, z))
        ratios.append(signal_to_noise(torch.from_numpy(error * z), torch.from_numpy(error)))
    assert 0.7 < np.median(ratios) < 1.2
    assert np.mean(np.array(ratios) < LEAST_SIGNAL_TO_NOISE) >= 0.9


@settings(max_examples=30, deadline=None)
@given(n=st.integers(16, 60), seed=st.integers(0, 10**6), kind=st.sampled_from(["few", "band", "weak"]))
def test_structure_is_told_from_noise(n, seed, kind):
    generator = np.random.default_rng(seed)
    z, signal = generator.normal(size=(n, n)), np.zeros((n, n))
    if kind == "few":
        i, j = generator.choice(n, 2, replace=False)
        signal[i, j] = signal[j, i] = 10  # one pair of all
    elif kind == "band":
        signal = 6.0 * (np.eye(n, k=1) + np.eye(n, k=-1))  # each position's next
    else:
        side = generator.permutation(np.arange(n) % 2 * 2 - 1)
        signal = 10 / n**0.5 * np.outer(side, side)  # 1.3 to 2.5 standard errors: none of them stands out
    assert signal_to_noise(torch.from_numpy(z + signal), torch.ones(n, n)) > LEAST_SIGNAL_TO_NOISE


def test_what_is_not_mutual_is_noise():
    # an untrained autoencoder: what it is shown changes its losses at random, by far more than draws do
    haphazard = torch.from_numpy(20 * np.random.default_rng(0).normal(size=(64, 64)))
    assert signal_to_noise(haphazard, torch.ones(64, 64)) < LEAST_SIGNAL_TO_NOISE
    assert signal_to_noise(haphazard + haphazard.T, torch.ones(64, 64)) > LEAST_SIGNAL_TO_NOISE


def test_nothing_measured_is_no_signal_and_certainty_is_one():
    assert signal_to_noise(torch.zeros(6, 6), torch.zeros(6, 6)) == 0
    twins = torch.zeros(6, 6)
    twins[0, 1] = twins[1, 0] = 1  # without any error
    assert signal_to_noise(twins, torch.zeros(6, 6)) > 100
    assert signal_to_noise(-torch.ones(6, 6), torch.ones(6, 6)) < LEAST_SIGNAL_TO_NOISE


def test_an_embedding_of_noise_is_refused_for_estimators_and_named_for_baselines():
    generator, said = torch.Generator().manual_seed(0), list[str]()
    noise = Similarity(torch.randn(40, 40, generator=generator), torch.ones(40, 40))
    with pytest.raises(MaedError, match=r"similarity: no dependence found \(signal-to-noise ratio"):
        check_signal(noise, "ablation")
    # losses are all below 0; only differences within a column count
    with pytest.raises(MaedError, match=re.escape("--embedding.force true")):
        check_signal(Similarity(noise.values - 50, noise.standard_error), "mean-loss")
    assert not said
    check_signal(noise, "correlation", said.append)
    assert len(said) == 1
    assert said[0].endswith("its embedding is noise")
    found = Similarity(noise.values + 9 * closeness(line(40), 2).float(), noise.standard_error)
    check_signal(found, "contrast", said.append)
    check_signal(Similarity(found.values - 50, noise.standard_error), "mean-loss", said.append)
    assert len(said) == 1


def test_an_embedding_of_noise_is_written_by_force_alone(tmp_path):
    noise = Similarity(torch.randn(40, 40, generator=torch.Generator().manual_seed(0)), torch.ones(40, 40))
    made_with = {"source": "noise", "similarity": {"estimator": "contrast"}}
    write_similarity(tmp_path / "similarity", noise, None, {"made_with": made_with})
    with pytest.raises(MaedError, match="no dependence found"):
        embed_again(RunFolder(tmp_path), "maed", EmbeddingSettings(), print)
    assert not (tmp_path / "embedding").exists()
    embed_again(RunFolder(tmp_path), "maed", EmbeddingSettings(force=True), print)
    forced = PositionEmbedding.from_pretrained(tmp_path / "embedding")
    assert (forced.n, forced.provenance["reduction"]) == (40, "heat")


# -- the artifact -------------------------------------------------------------------------------------------------


def embedding(geometry: Geometry | None = None, **provenance) -> PositionEmbedding:
    vectors = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    return PositionEmbedding(vectors, source="digits", geometry=geometry, provenance=provenance)


def test_forward_repeats_the_vectors_without_a_copy():
    positions = embedding()
    batch = positions(4)
    assert batch.shape == (4, 6, 3)
    assert all(torch.equal(signal, positions.vectors) for signal in batch)
    assert batch.data_ptr() == positions.vectors.data_ptr()
    assert not list(positions.parameters())  # learned already
    assert (positions.n, positions.dim) == (6, 3)


def test_vectors_are_kept_as_they_were_given():
    given = torch.randn(6, 3, dtype=torch.float64)
    positions = PositionEmbedding(given)
    given.zero_()
    assert positions.vectors.dtype == torch.float32
    assert positions.vectors.any()


@pytest.mark.parametrize("geometry", [None, grid(2, 3), line(6)], ids=["unknown", "grid", "line"])
def test_save_and_load_give_back_every_bit(geometry, tmp_path):
    made_with = {"source": "digits", "data": {"permute": 4}}
    saved = embedding(geometry, estimator="contrast", split_half=0.5, made_with=made_with)
    saved.save_pretrained(tmp_path)
    loaded = PositionEmbedding.from_pretrained(tmp_path)
    assert torch.equal(loaded.vectors, saved.vectors)
    assert (loaded.source, loaded.provenance) == (saved.source, saved.provenance)
    if geometry is None:
        assert loaded.geometry is None
    else:
        assert (loaded.geometry.kind, loaded.geometry.shape) == (geometry.kind, geometry.shape)
        assert np.array_equal(loaded.geometry.coordinates, geometry.coordinates)
    loaded.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors", "README.md"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()


def test_the_folder_is_what_the_design_names(tmp_path):
    embedding(grid(2, 3), estimator="contrast").save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    config = read_json(tmp_path / "config.json")
    assert (config["schema"], config["n"], config["d"], config["source"]) == (1, 6, 3, "digits")
    assert config["provenance"] == {"estimator": "contrast"}
    assert load_file(tmp_path / "model.safetensors").keys() == {"vectors", "coordinates"}
    assert "A vector for each of 6 positions, in 3 channels" in (tmp_path / "README.md").read_text()


def test_an_embedding_made_by_hand_can_be_described(tmp_path):
    embedding().save_pretrained(tmp_path)
    assert "a position embedding of 6 positions, 3 channels" in "\n".join(describe(tmp_path))


def test_broken_folders_are_named(tmp_path):
    def refused(match: str) -> None:
        with pytest.raises(MaedError, match=match):
            PositionEmbedding.from_pretrained(tmp_path)

    def config(**changes) -> None:
        embedding().save_pretrained(tmp_path)
        path = tmp_path / "config.json"
        path.write_text(json.dumps({**read_json(path), **changes}))

    def tensors(**given: torch.Tensor) -> None:
        embedding().save_pretrained(tmp_path)
        save_file(given, tmp_path / "model.safetensors")

    vectors = embedding().vectors
    refused("config.json: no such file")
    config(schema=2)
    refused("must be a position embedding of schema 1")
    (tmp_path / "config.json").write_text("[1]")
    refused("schema None")
    (tmp_path / "config.json").write_text("{")
    refused("not a JSON file")
    config(n=7)
    refused(r"config\.json says")
    config(d=2)
    refused(r"\(6, 2\).*\(6, 3\)")
    config(geometry={"kind": "line", "shape": [6]})
    refused(r"\['coordinates', 'vectors'\].*\['vectors'\]")
    tensors(vectors=vectors, more=vectors.clone())
    refused(r"\['vectors'\].*\['more', 'vectors'\]")
    tensors(vectors=torch.full((6, 3), torch.inf))
    refused("vectors must be finite floats")
    tensors(vectors=vectors + 1)
    refused("not those that config.json was written with")
    tensors(vectors=torch.ones(6, 3, dtype=torch.int32))
    refused("torch.int32")
    embedding().save_pretrained(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-5])
    refused("not a safetensors file")
    (tmp_path / "model.safetensors").unlink()
    refused("model.safetensors: no such file")


@pytest.mark.parametrize("missing", ["n", "d", "source"])
def test_a_config_that_lacks_something_is_named(missing, tmp_path):
    embedding().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = read_json(path)
    del config[missing]
    path.write_text(json.dumps(config))
    with pytest.raises(MaedError, match=rf"config.json: lacks {missing}; .*position embedding of schema 1"):
        PositionEmbedding.from_pretrained(tmp_path)


def test_vectors_that_are_none_are_refused():
    for vectors in (torch.zeros(6), torch.zeros(6, 3, dtype=torch.int64), torch.full((6, 3), torch.nan)):
        with pytest.raises(MaedError, match="must be finite floats"):
            PositionEmbedding(vectors)
    with pytest.raises(MaedError, match=r"geometry.*have 6"):
        embedding(line(5))


def test_a_given_geometry_is_permuted_as_the_data_were(tmp_path):
    permuted = embedding(made_with={"data": {"permute": 4}})
    permuted.save_pretrained(tmp_path)
    expected = line(6).coordinates[permutation(6, 4)]
    for positions in (permuted, PositionEmbedding.from_pretrained(tmp_path)):
        assert np.array_equal(positions.true_geometry(line(6)).coordinates, expected)
    straight = embedding(made_with={"data": {"permute": None}})
    assert np.array_equal(straight.true_geometry(line(6)).coordinates, line(6).coordinates)


def test_its_own_geometry_is_the_true_one_and_others_must_fit():
    own = line(6).permuted(permutation(6, 4))
    positions = embedding(own, made_with={"data": {"permute": 4}})
    assert positions.true_geometry() is own  # permuted already
    with pytest.raises(MaedError, match=r"coordinates.*the embedding"):
        embedding().true_geometry()
    with pytest.raises(MaedError, match=r"coordinates.*5"):
        positions.true_geometry(line(5))
