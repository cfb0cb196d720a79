"""A position embedding that people keep, share and fit to their models."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from huggingface_hub import HfApi, ModelCard, PyTorchModelHubMixin
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from safetensors.torch import load_file, save_file

from maed import MaedError, PositionEmbedding
from maed.data.geometry import Geometry, grid, line, permutation, ring
from maed.embedding import reduce
from maed.embedding.fitting import project, resample
from maed.embedding.reduction import standardize
from maed.evaluation.geometry import geometry_metrics
from maed.files import read_json
from maed.settings import EmbeddingSettings, EvaluationSettings


def embedding(n: int = 12, d: int = 5, geometry: Geometry | None = None, **provenance) -> PositionEmbedding:
    vectors = standardize(torch.randn(n, d, generator=torch.Generator().manual_seed(0)))
    return PositionEmbedding(vectors, source="mine", geometry=geometry, provenance=provenance)


# --- what it says of itself ---------------------------------------------------------------------------------------


def test_neighbors_are_the_nearest_vectors():
    on_a_line = PositionEmbedding(torch.tensor([[0.0], [1.0], [3.0], [7.0], [2.9]]))
    assert on_a_line.neighbors(0, k=3).tolist() == [1, 4, 2]
    assert on_a_line.neighbors(3, k=1).tolist() == [2]
    for position, k, said in (
        (5, 1, "position.*must be between 0 and 4"),
        (0, 5, "k.*must be between 1 and"),
    ):
        with pytest.raises(MaedError, match=said):
            on_a_line.neighbors(position, k)


def test_similarity_is_the_cosine_or_a_row_of_the_run(tmp_path):
    three = PositionEmbedding(torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]))
    assert torch.allclose(three.similarity_to(0), torch.tensor([1.0, 0.0, -1.0]))
    table = torch.arange(9.0).view(3, 3)
    save_file({"similarity": table, "counts": table.clone()}, tmp_path / "model.safetensors")
    assert torch.equal(three.similarity_to(1, tmp_path), table[1])
    with pytest.raises(MaedError, match="of 4 x 4 positions"):
        embedding(4).similarity_to(1, tmp_path)
    with pytest.raises(MaedError, match=r"model.safetensors: no such file"):
        three.similarity_to(1, tmp_path / "nowhere")


def test_it_is_frozen_or_trainable(tmp_path):
    frozen = embedding()
    assert not list(frozen.parameters())
    trainable = PositionEmbedding(frozen.vectors, trainable=True)
    trainable(2).sum().backward()
    torch.optim.SGD(trainable.parameters(), lr=0.1).step()
    assert torch.allclose(trainable.vectors, frozen.vectors - 0.2)
    trainable.save_pretrained(tmp_path)
    again = PositionEmbedding.from_pretrained(tmp_path, trainable=True)
    assert again.trainable
    assert torch.equal(again.vectors, trainable.vectors)
    assert not PositionEmbedding.from_pretrained(tmp_path).trainable


def test_it_moves_with_the_model_that_holds_it():
    model = torch.nn.Sequential(embedding()).double()
    assert model[0].vectors.dtype == torch.float64
    assert list(model.state_dict()) == ["0.vectors"]


def test_coordinates_are_there_if_known():
    assert embedding().coordinates is None
    assert torch.equal(embedding(6, 3, grid(2, 3)).coordinates, torch.from_numpy(grid(2, 3).coordinates))


@pytest.mark.parametrize(
    ("provenance", "label"),
    [
        ({}, "maed"),
        ({"estimator": "contrast"}, "maed"),
        ({"estimator": "correlation"}, "correlation"),
        ({"estimator": "contrast", "resampled": "a line of 4"}, "maed-resampled"),
        ({"label": "seed"}, "seed"),
    ],
)
def test_its_label_tells_what_it_is(provenance, label):
    assert embedding(**provenance).label == label


# --- keeping and sharing it ---------------------------------------------------------------------------------------


def test_the_card_is_written_for_a_reader(tmp_path):
    made_with = {"data": {"permute": 3}, "autoencoder": {"kind": "set", "init": "random", "seed": 0}}
    figure = Figure()
    figure.subplots().plot([1, 2])
    saved = embedding(6, 3, grid(2, 3), estimator="contrast", reduction="heat", split_half=0.75, made_with=made_with)
    saved.save_pretrained(tmp_path, metrics={"knn_recall": 0.5, "own": 2.0}, figure=figure)
    card = (tmp_path / "README.md").read_text()
    for said in (
        "A vector for each of 6 positions, in 3 channels: learned by a masked autoencoder",
        "![The positions, laid out by this embedding alone](figure.png)",
        "- positions permuted: 3\n",
        "- seed: 0\n",
        "- estimator: contrast\n",
        "| kNN recall | 0.5000 |",
        "| own | 2.0000 |",
        "| split-half agreement | 0.7500 |",
        "The true geometry (grid) is stored",
    ):
        assert said in card
    assert ModelCard.load(tmp_path / "README.md").data.library_name == "maed"
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert read_json(tmp_path / "config.json")["provenance"]["metrics"] == {"knn_recall": 0.5, "own": 2.0}
    again = PositionEmbedding.from_pretrained(tmp_path)
    assert again.provenance["metrics"]["knn_recall"] == 0.5
    again.save_pretrained(tmp_path / "copy", figure=tmp_path / "figure.png")
    for name in ("README.md", "config.json", "model.safetensors", "figure.png"):
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / name).read_bytes()
    with pytest.raises(MaedError, match="a PNG file"):
        again.save_pretrained(tmp_path, figure=tmp_path / "config.json")


def test_what_a_source_is_called_stays_text_in_the_card(tmp_path):
    hostile = PositionEmbedding(torch.randn(4, 2), source="<script>alert(1)</script> {{ 7 * 7 }} | x\n# title")
    hostile.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "<script>" not in card
    assert "{{ 7 * 7 }}" in card
    assert "\n# title" not in card


def test_it_is_pushed_to_the_hub_with_its_card(tmp_path, monkeypatch):
    class Created:
        repo_id = "me/positions"

    def upload(self, *, folder_path, **told):
        shutil.copytree(folder_path, tmp_path / "hub")
        return f"https://huggingface.co/{told['repo_id']}/commit/1"

    monkeypatch.setattr(HfApi, "create_repo", lambda self, **told: Created())
    monkeypatch.setattr(HfApi, "upload_folder", upload)
    mine = embedding()
    assert isinstance(mine, PyTorchModelHubMixin)
    assert mine.push_to_hub("me/positions", metrics={"spearman": 0.9}).endswith("me/positions/commit/1")
    card = (tmp_path / "hub" / "README.md").read_text()
    assert 'from_pretrained("me/positions")' in card
    assert "| Spearman | 0.9000 |" in card
    assert torch.equal(PositionEmbedding.from_pretrained(tmp_path / "hub").vectors, mine.vectors)


def test_vectors_of_another_save_are_refused(tmp_path):
    embedding().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    save_file({"vectors": tensors["vectors"].flip(0).contiguous()}, tmp_path / "model.safetensors")
    with pytest.raises(MaedError, match=r"not those that config.json was written with"):
        PositionEmbedding.from_pretrained(tmp_path)


def test_what_is_no_folder_is_named():
    for name in ("nowhere", "a/b/c", "./a", "/nowhere/at/all"):
        with pytest.raises(MaedError, match="that maed wrote, or OWNER/NAME of the hub"):
            PositionEmbedding.from_pretrained(name)


# --- the original's file ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_seeds_file_is_read_and_holds_next_to_no_geometry(original_file):
    seed = PositionEmbedding.from_legacy(original_file)
    assert (seed.n, seed.dim, seed.label) == (2048, 64, "seed")
    metrics = geometry_metrics(seed.vectors, line(2048), EvaluationSettings(n_neighbors=10))
    assert metrics["knn_recall"] == pytest.approx(0.024, abs=0.001)  # 2.4 % of the 10 nearest are true ones
    assert abs(metrics["spearman"]) < 0.05


def test_what_torch_saves_of_an_array_is_read(tmp_path):
    for array in (np.random.default_rng(0).normal(size=(7, 3)), np.ones((4, 2), dtype=np.float32, order="F")):
        array[0] += 1
        torch.save(array, tmp_path / "array.pth")
        read = PositionEmbedding.from_legacy(tmp_path / "array.pth")
        assert torch.equal(read.vectors, standardize(torch.from_numpy(array.astype(np.float32))))


@pytest.mark.parametrize(
    "content", [torch.zeros(3, 2), {"a": 1}, np.zeros((3, 2), dtype=int), np.zeros(4), [np.eye(2)]]
)
def test_anything_else_that_torch_saves_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(MaedError, match=r"it must be a file of torch.save that holds one numpy array of finite floats"):
        PositionEmbedding.from_legacy(tmp_path / "other.pth")


# --- another number of channels -----------------------------------------------------------------------------------


@given(n=st.integers(2, 30), d=st.integers(1, 12), more=st.integers(0, 40), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_more_channels_change_no_distance_but_for_the_scale(n, d, more, seed):
    vectors = standardize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))
    wide = project(vectors, d + more)
    assert wide.shape == (n, d + more)
    assert wide.mean(dim=0).abs().max() < 1e-5
    assert wide.square().mean() == pytest.approx(1, abs=1e-4)
    before, after = torch.cdist(vectors, vectors), torch.cdist(wide, wide)
    assert torch.allclose(after, before * ((d + more) / d) ** 0.5, atol=1e-3 * float(before.max()) * (1 + more) ** 0.5)


def test_fewer_channels_are_the_leading_principal_components():
    vectors = standardize(torch.randn(40, 6) * torch.tensor([5.0, 3.0, 1.0, 0.1, 0.1, 0.1]))
    two = project(vectors, 2)
    _, _, directions = torch.linalg.svd(vectors.double())
    expected = standardize(vectors.double() @ directions[:2].T)
    assert torch.allclose(two.abs(), expected.abs(), atol=1e-4)  # signs mean nothing
    with pytest.raises(MaedError, match=r"dim.*0"):
        project(vectors, 0)


def test_with_dim_projects_or_makes_the_reduction_again(tmp_path):
    walk = torch.randn(200, 20, generator=torch.Generator().manual_seed(0)).cumsum(dim=1)
    similarity = torch.corrcoef(walk.T).abs().fill_diagonal_(0)
    save_file({"similarity": similarity, "standard_error": torch.full((20, 20), 0.05)}, tmp_path / "model.safetensors")
    chosen = EmbeddingSettings(dim=6, reduction="diffusion")
    vectors = reduce(similarity, chosen)
    made = PositionEmbedding(vectors, provenance={"made_with": {"embedding": vars(chosen)}, "split_half": 0.9})
    wide = made.with_dim(12)
    assert (wide.dim, wide.provenance["projected"], wide.provenance["split_half"]) == (12, 6, 0.9)
    again = made.with_dim(12, similarity=tmp_path)
    assert torch.equal(again.vectors, reduce(similarity, EmbeddingSettings(dim=12, reduction="diffusion")))
    assert "split_half" not in again.provenance  # that of another reduction
    with pytest.raises(MaedError, match="must be of 12"):
        embedding().with_dim(3, similarity=tmp_path)


@given(dim=st.integers(1, 20), rms=st.floats(1e-3, 1e3))
@settings(max_examples=40, deadline=None)
def test_a_table_has_the_size_that_is_asked_for(dim, rms):
    table = embedding().table(dim, rms)
    assert table.shape == (12, dim)
    assert float(table.square().mean().sqrt()) == pytest.approx(rms, rel=1e-4)


# --- another number of positions ----------------------------------------------------------------------------------


def smooth(places: np.ndarray) -> torch.Tensor:
    """Two waves along each coordinate, scaled to [0, 1]."""
    x = torch.from_numpy(places).double()
    return torch.cat([torch.sin(3 * x), torch.cos(2 * x)], dim=1)


def centers(geometry: Geometry) -> np.ndarray:
    """Coordinates as shares of the sides, of the middle of each cell."""
    return (geometry.coordinates + 0.5) / np.array(geometry.shape)


@pytest.mark.parametrize(("small", "large"), [(line(20), line(57)), (grid(12, 9), grid(24, 31)), (line(60), line(20))])
def test_smooth_vectors_are_met_between_the_positions(small, large):
    found = resample(standardize(smooth(centers(small))), small, large)
    expected = standardize(smooth(centers(large)))
    inside = torch.from_numpy((np.abs(centers(large) - 0.5) < 0.35).all(axis=1))  # nothing lies beyond the edges
    assert (found - expected)[inside].abs().max() < 0.1
    assert (found - expected).abs().max() < 0.25


@given(n=st.integers(4, 30), seed=st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_the_order_of_storage_does_not_matter(n, seed):
    vectors = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))
    order = permutation(n, seed)
    straight = resample(vectors, line(n), line(2 * n))
    assert torch.allclose(resample(vectors[order], line(n).permuted(order), line(2 * n)), straight, atol=1e-6)
    assert torch.allclose(resample(vectors, line(n), line(n)), standardize(vectors), atol=1e-5)


def test_a_resampled_embedding_is_labeled_wherever_it_goes(tmp_path):
    order = permutation(12, 4)
    made = embedding(12, 3, grid(3, 4).permuted(order), made_with={"data": {"permute": 4}, "autoencoder": {"seed": 1}})
    large = made.resampled("grid:6x8")
    assert (large.n, large.dim, large.label) == (48, 3, "maed-resampled")
    assert torch.equal(large.coordinates, torch.from_numpy(grid(6, 8).coordinates))
    large.with_dim(7).save_pretrained(tmp_path)
    again = PositionEmbedding.from_pretrained(tmp_path)
    assert again.label == "maed-resampled"
    assert "**Resampled** from a grid of 3 x 4" in (tmp_path / "README.md").read_text()
    # what was stored shuffled comes out in the order of the grid
    straight = PositionEmbedding(made.vectors[np.argsort(order)], geometry=grid(3, 4)).resampled("grid:6x8")
    assert torch.allclose(large.vectors, straight.vectors, atol=1e-6)


def test_what_cannot_be_resampled_is_named():
    with pytest.raises(MaedError, match=r"coordinates.*the embedding"):
        embedding().resampled("line:20")
    assert embedding().resampled("line:20", geometry="line:12").n == 20
    with pytest.raises(MaedError, match=r"coordinates.*11"):
        embedding().resampled("line:20", geometry="line:11")
    with pytest.raises(MaedError, match="grid to line"):
        embedding(12, 3, grid(3, 4)).resampled("line:20")
    with pytest.raises(MaedError, match="ring"):
        embedding(12, 3, ring(12)).resampled("line:20")
    twice = Geometry("grid", np.zeros((12, 2), dtype=np.float32), (3, 4))
    with pytest.raises(MaedError, match="3 x 4"):
        embedding(12, 3, twice).resampled("grid:6x8")
