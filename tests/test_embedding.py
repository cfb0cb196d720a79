"""Reductions on similarities of known geometry, and the folder that an embedding is kept in."""

import json
import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from maed.config import EmbeddingSettings, EvaluationSettings
from maed.data.geometry import Geometry, grid, line, permutation, points
from maed.embedding import PositionEmbedding, embedding_dim, reduce
from maed.embedding.reductions import standardise
from maed.errors import MaedError
from maed.evaluation.geometry import geometry_metrics
from maed.files import read_json
from maed.inspection import describe

REDUCTIONS = ("diffusion", "spectral", "pca")


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


# -- reductions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 8, None])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_a_ring_is_recovered(reduction, dim):
    vectors = reduce(closeness(ring()), EmbeddingSettings(reduction=reduction, dim=dim))
    metrics = geometry_metrics(vectors, ring(), EvaluationSettings())
    assert metrics["knn_recall"] == 1  # the four nearest on either side
    assert metrics["coordinate_r2"] > 0.99


@pytest.mark.parametrize(("reduction", "recall"), [("diffusion", 0.8), ("spectral", 0.9), ("pca", 0.9)])
def test_a_grid_is_recovered(reduction, recall):
    # by chance 8 of 63 are right; the borders cost the rest
    vectors = reduce(closeness(grid(8, 8), 2), EmbeddingSettings(reduction=reduction, dim=8))
    metrics = geometry_metrics(vectors, grid(8, 8), EvaluationSettings())
    assert metrics["knn_recall"] > recall
    assert metrics["coordinate_r2"] > 0.9


def test_diffusion_keeps_large_distances_of_a_line_in_one_channel():
    vectors = reduce(closeness(line(30), 2), EmbeddingSettings(dim=1, neighbours=4))
    steps = vectors[:, 0].diff() * torch.sign(vectors[-1, 0])
    assert steps.min() > -1e-4  # the outermost have the same neighbours, hence the same place
    assert steps[3:-3].min() > 0.01


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("n", "dim", "expected"), [(30, None, 29), (70, None, 64), (30, 29, 29), (30, 1, 1)])
def test_embeddings_are_centred_float32_of_unit_mean_square(reduction, n, dim, expected):
    vectors = reduce(random_similarity(n), EmbeddingSettings(reduction=reduction, dim=dim))
    assert vectors.shape == (n, expected)
    assert vectors.dtype == torch.float32
    assert vectors.mean(dim=0).abs().max() < 1e-5
    assert float(vectors.square().mean()) == pytest.approx(1, abs=1e-5)


def test_standardising_by_hand():
    # means 2 and 0, then (-1, -3), (1, 3): the mean square is 5
    expected = torch.tensor([[-1.0, -3.0], [1.0, 3.0]]) / 5**0.5
    assert torch.allclose(standardise(torch.tensor([[1.0, -3.0], [3.0, 3.0]])), expected)
    assert torch.equal(standardise(torch.ones(3, 2)), torch.zeros(3, 2))


def test_spectral_is_classical_scaling():
    # the Gram matrix of centred points; its diagonal is lost, so these lie on a circle: it is the same for all
    places = torch.from_numpy(ring(12).coordinates).double()
    vectors = reduce(places @ places.T, EmbeddingSettings(reduction="spectral", dim=2))
    ratio = torch.cdist(vectors, vectors) / torch.cdist(places, places).float()
    off = ~torch.eye(12, dtype=torch.bool)
    assert torch.allclose(ratio[off], ratio[0, 1], rtol=1e-4)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_only_the_symmetric_part_off_the_diagonal_counts(reduction):
    similarity, settings = random_similarity(), EmbeddingSettings(reduction=reduction, dim=5)
    expected = reduce(similarity, settings)
    before = similarity.clone()
    loud = (similarity + similarity.T) / 2 + 100 * torch.eye(30, dtype=torch.float64)
    assert torch.allclose(reduce(loud, settings), expected, atol=1e-5)
    assert torch.equal(similarity, before)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_permuting_positions_permutes_the_embedding(reduction):
    similarity, settings = random_similarity(), EmbeddingSettings(reduction=reduction, dim=6)
    order = torch.from_numpy(permutation(30, seed=0))
    expected = reduce(similarity, settings).double()[order]
    vectors = reduce(similarity[order][:, order], settings).double()
    assert torch.allclose(torch.cdist(vectors, vectors), torch.cdist(expected, expected), atol=1e-4)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_reductions_repeat_bit_for_bit(reduction):
    settings = EmbeddingSettings(reduction=reduction)
    assert torch.equal(reduce(random_similarity(), settings), reduce(random_similarity(), settings))


def test_more_diffusion_steps_keep_larger_distances():
    def share_of_the_slowest(steps: float) -> float:
        vectors = reduce(closeness(ring()), EmbeddingSettings(diffusion_steps=steps))
        power = vectors.square().sum(dim=0)
        return float(power[:2].sum() / power.sum())  # once around the ring, cosine and sine

    assert share_of_the_slowest(0) < 0.1 < share_of_the_slowest(4) < share_of_the_slowest(16)


def test_a_dimension_that_is_not_below_n_is_refused():
    assert (embedding_dim(10, None), embedding_dim(100, None), embedding_dim(10, 9)) == (9, 64, 9)
    with pytest.raises(MaedError, match=r"embedding.dim: 30 for 30 positions; it may be at most 29"):
        reduce(random_similarity(), EmbeddingSettings(dim=30))


def test_too_many_neighbours_are_refused():
    with pytest.raises(MaedError, match=r"embedding.neighbours: 30 for 30 positions; it may be at most 29"):
        reduce(random_similarity(), EmbeddingSettings(neighbours=30))
    assert reduce(random_similarity(), EmbeddingSettings(neighbours=29)).isfinite().all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_similarity_that_is_not_finite_is_refused(value):
    similarity = random_similarity()
    similarity[3, 4] = similarity[5, 4] = value
    with pytest.raises(MaedError, match="similarity: 2 entries are not finite"):
        reduce(similarity, EmbeddingSettings())


def test_a_graph_in_parts_is_warned_about_with_their_sizes():
    similarity = torch.block_diag(*(closeness(line(n), 2) for n in (12, 20, 10)))
    with pytest.warns(UserWarning, match=r"3 parts of 20, 12, 10 positions; .*embedding.neighbours, now 4"):
        vectors = reduce(similarity, EmbeddingSettings(neighbours=4))
    assert vectors.isfinite().all()
    assert float(vectors.square().mean()) == pytest.approx(1, abs=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reduce(closeness(line(42), 2), EmbeddingSettings(neighbours=4))


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
    assert "6 positions, 3 channels" in (tmp_path / "README.md").read_text()


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
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    def tensors(**given: torch.Tensor) -> None:
        embedding().save_pretrained(tmp_path)
        save_file(given, tmp_path / "model.safetensors")

    vectors = embedding().vectors
    refused("config.json: no such file")
    config(schema=2)
    refused("schema 2; it may be a position embedding of schema 1")
    (tmp_path / "config.json").write_text("[1]")
    refused("schema None")
    (tmp_path / "config.json").write_text("{")
    refused("not a JSON file")
    config(n=7)
    refused(r"vectors of shape \(6, 3\), config.json says \(7, 3\)")
    config(d=2)
    refused(r"vectors of shape \(6, 3\), config.json says \(6, 2\)")
    config(geometry={"kind": "line", "shape": [6]})
    refused(r"holds \['vectors'\]; it may hold \['coordinates', 'vectors'\]")
    tensors(vectors=vectors, more=vectors.clone())
    refused(r"holds \['more', 'vectors'\]; it may hold \['vectors'\]")
    tensors(vectors=torch.full((6, 3), torch.inf))
    refused("they may be finite floats")
    tensors(vectors=torch.ones(6, 3, dtype=torch.int32))
    refused("int32 of shape")
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
    config = json.loads(path.read_text())
    del config[missing]
    path.write_text(json.dumps(config))
    with pytest.raises(MaedError, match=rf"config.json: lacks {missing}; .*position embedding of schema 1"):
        PositionEmbedding.from_pretrained(tmp_path)


def test_vectors_that_are_none_are_refused():
    for vectors in (torch.zeros(6), torch.zeros(6, 3, dtype=torch.int64), torch.full((6, 3), torch.nan)):
        with pytest.raises(MaedError, match="they may be finite floats"):
            PositionEmbedding(vectors)
    with pytest.raises(MaedError, match="geometry: 5 positions; it may have 6"):
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
    with pytest.raises(MaedError, match="coordinates: not given, and the embedding holds none"):
        embedding().true_geometry()
    with pytest.raises(MaedError, match="coordinates: 5 positions; the embedding has 6"):
        positions.true_geometry(line(5))
