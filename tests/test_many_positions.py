"""Positions too many for every pair to be measured: candidates, sparse reductions, and the whole way."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.distance import cdist

import maed
from maed.autoencoder import placing
from maed.cli import main
from maed.data.geometry import Geometry, ring, torus
from maed.data.signals import Signals
from maed.data.sources.field import covariance, square_root, waves
from maed.embedding import reduce
from maed.embedding.card import model_card
from maed.evaluation import geometry as geometry_module
from maed.evaluation.geometry import geometry_metrics
from maed.records import Results
from maed.settings import EmbeddingSettings, EvaluationSettings
from maed.similarity import Similarity, load_similarity, pairs, placed_pairs
from maed.similarity.moments import absolute_correlation
from maed.similarity.pairs import SparseSimilarity, correlated_pairs

SHAPE = torus(14, 14)


@pytest.fixture(scope="module")
def readings() -> np.ndarray:
    """`(600, 196)`: a noisy field on a torus."""
    generator = np.random.default_rng(0)
    field = waves(SHAPE, 0.4)(generator.standard_normal((600, 196)).astype(np.float32))
    return field + 0.3 * generator.standard_normal(field.shape).astype(np.float32)


def signals(values: np.ndarray, mask: np.ndarray | None = None) -> Signals:
    mean, scale = np.zeros((1, values.shape[2]), np.float32), np.ones((1, values.shape[2]), np.float32)
    return Signals(values, mask=mask, mean=mean, scale=scale)


def reduced(similarity: Similarity | SparseSimilarity) -> torch.Tensor:
    values, error = similarity.arrays()
    return reduce(values, EmbeddingSettings(), error)


@pytest.mark.parametrize("shape", [torus(6, 9), ring(40)])
def test_waves_make_the_field_that_the_whole_covariance_makes(shape: Geometry) -> None:
    white = np.random.default_rng(0).standard_normal((3, len(shape.coordinates))).astype(np.float32)

    np.testing.assert_allclose(waves(shape, 0.3)(white), white @ square_root(covariance(shape, 0.3)), atol=1e-5)


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_pairs_have_the_correlation_of_all_pairs_and_are_the_strongest(readings: np.ndarray, missing: float) -> None:
    two = np.stack([readings, -np.roll(readings, 1, axis=0)], axis=2)
    mask = None if missing == 0 else np.random.default_rng(1).random(readings.shape) > missing
    given = signals(two if mask is None else np.where(mask[..., None], two, 0.0), mask)

    found, whole = correlated_pairs(given), absolute_correlation(given)

    i, j = found.pairs
    torch.testing.assert_close(found.values, whole.values[i, j], atol=2e-5, rtol=0)
    torch.testing.assert_close(found.standard_error, whole.standard_error[i, j], atol=2e-5, rtol=0)
    known = found.arrays()[0].toarray() > 0
    strongest = whole.values.topk(8, dim=1).indices.numpy()
    assert np.take_along_axis(known, strongest, axis=1).mean() > 0.98
    assert found.facts["candidate_recall"] > 0.98


def test_a_sensor_with_crossed_wires_keeps_its_neighbors(readings: np.ndarray) -> None:
    signs = np.where(np.arange(196) % 3 == 0, -1.0, 1.0).astype(np.float32)
    plain, crossed = (correlated_pairs(signals(x[..., None])) for x in (readings, readings * signs))

    one, other = (found.arrays()[0].toarray() for found in (plain, crossed))
    np.testing.assert_allclose(one[(one > 0) & (other > 0)], other[(one > 0) & (other > 0)], atol=1e-5)
    assert (((one > 0) & (other > 0)).sum()) > 0.95 * (one > 0).sum()


@pytest.mark.slow
@pytest.mark.xdist_group("numba")  # compiles for half a minute, in each process anew
@pytest.mark.parametrize("crossed", [False, True])
@pytest.mark.parametrize("library", ["pynndescent", "faiss"])
def test_an_approximate_search_finds_nearly_all(library: str, crossed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip(library)
    generator = np.random.default_rng(0)
    values = waves(torus(20, 20), 0.4)(generator.standard_normal((500, 400)).astype(np.float32))
    values += 0.3 * generator.standard_normal(values.shape).astype(np.float32)
    if crossed:
        values[:, ::3] *= -1
    given = signals(values[..., None])
    monkeypatch.setattr(pairs, "_EXACT", 100)
    find, other = importlib.util.find_spec, "faiss" if library == "pynndescent" else "pynndescent"
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *rest: None if name == other else find(name, *rest))

    found = correlated_pairs(given)

    assert found.facts["candidate_recall"] > 0.95
    i, j = found.pairs
    torch.testing.assert_close(found.values, absolute_correlation(given).values[i, j], atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "reduction",
    [
        *("heat", "isomap", "laplacian", "diffusion"),
        pytest.param("umap", marks=[pytest.mark.slow, pytest.mark.xdist_group("numba")]),
    ],
)
def test_the_sparse_reduction_finds_what_the_dense_one_finds(readings: np.ndarray, reduction: str) -> None:
    if reduction == "umap":
        pytest.importorskip("umap")
    given, chosen = signals(readings[..., None]), EmbeddingSettings(reduction=reduction)

    dense, some = (
        reduce(values, chosen, error)
        for values, error in (absolute_correlation(given).arrays(), correlated_pairs(given).arrays())
    )

    assert some.shape == dense.shape == (196, 64)
    measured = [geometry_metrics(vectors, SHAPE, EvaluationSettings()) for vectors in (dense, some)]
    assert measured[1]["knn_recall"] > measured[0]["knn_recall"] - 0.02
    assert measured[1]["coordinate_r2"] > measured[0]["coordinate_r2"] - 0.01
    assert measured[1]["spearman"] > measured[0]["spearman"] - 0.03


def test_positions_that_nothing_depends_on_and_parts_that_nothing_joins_are_told(readings: np.ndarray) -> None:
    noise = np.random.default_rng(2).standard_normal((600, 200)).astype(np.float32)
    apart = waves(SHAPE, 0.4)(noise[:, :196]) + 0.3 * noise[:, 4:]
    constant = np.concatenate([readings, apart, np.ones((600, 1), np.float32)], axis=1)
    found = correlated_pairs(signals(constant[..., None]))

    with pytest.warns(UserWarning, match="nothing is known") as said:
        vectors = reduced(found)

    assert torch.isfinite(vectors).all()
    lines = [str(each.message) for each in said]
    assert any("nothing is known of 1 position (392)" in line and "equally far" in line for line in lines)
    distances = cdist(vectors, vectors)
    assert distances[392, :392].std() < 0.2 * distances[392, :392].mean()
    assert distances[392, :392].min() > np.median(np.sort(distances[:392, :392], axis=1)[:, 8])
    assert np.median(distances[:196, 196:]) > np.median(distances[:196, :196])


@pytest.mark.slow
def test_a_run_of_many_positions_goes_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--data.samples", "400", "--data.permute", "0", "--evaluation.probe_steps", "4", "--positions", ""]
    command = ["run", "field:torus:12x12", *few, "--similarity.dense_positions", "100", "--out", str(tmp_path)]

    assert main(command) == 0

    results = Results.read(tmp_path / "results.json")
    assert results.chosen in ("correlation", "magnitude")
    assert results.geometry is not None
    assert results.geometry["correlation"]["knn_recall"] > 0.9
    found = load_similarity(tmp_path / "baselines" / "correlation" / "similarity")
    assert isinstance(found, SparseSimilarity)
    assert found.n == 144
    assert (tmp_path / "report.html").is_file()


@pytest.mark.slow
def test_an_autoencoder_of_some_positions_places_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(placing, "LANDMARKS", 100)
    few = ["--data.samples", "1500", "--data.permute", "0", "--evaluation.probe_steps", "4", "--positions", ""]
    made = ["--similarity.method", "maed", "--autoencoder.steps", "500", "--autoencoder.warmup", "50"]
    made += ["--autoencoder.layers", "1", "--autoencoder.readout", "linear", "--autoencoder.scored", "64"]
    command = ["run", "field:torus:14x14", *few, *made, "--similarity.dense_positions", "100", "--out", str(tmp_path)]

    assert main(command) == 0

    results = Results.read(tmp_path / "results.json")
    assert results.chosen == "maed"
    assert results.geometry is not None
    assert results.geometry["maed"]["knn_recall"] > 0.5  # chance: 0.04
    assert results.geometry["maed"]["coordinate_r2"] > 0.8
    assert results.split_half is not None
    assert results.split_half["maed"] > 0.3
    found = load_similarity(tmp_path / "similarity")
    assert isinstance(found, SparseSimilarity)
    assert found.n == 196
    assert len(load_file(tmp_path / "autoencoder" / "model.safetensors")["position_vectors"]) == 100
    capsys.readouterr()
    assert main([*command[:-4], "--out", str(tmp_path)]) == 2  # all pairs, with the autoencoder of some positions
    assert "landmarks" in capsys.readouterr().err
    assert main([*command, "--similarity.estimator", "ablation", "--overwrite"]) == 2
    assert "similarity.estimator" in capsys.readouterr().err


@pytest.mark.slow
def test_the_originals_u_net_places_all_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data_folder: Path) -> None:
    """Its Perceiver takes the table as it is, of as many positions as the images have pixels."""
    monkeypatch.setenv("MAED_DATA", str(data_folder))
    monkeypatch.setattr(placing, "LANDMARKS", 100)
    images = ["cifar10", "--config", "original-cifar10-small", "--data.image_size", "16", "--data.limit", "200"]
    model = ["--perceiver.image_size", "16", "--train.steps", "3", "--train.epochs", "1"]
    path = ["--similarity.method", "maed", "--similarity.estimator", "contrast", "--similarity.dense_positions", "100"]
    more = ["--autoencoder.steps", "30", "--embedding.reduction", "heat", "--evaluation.probe_steps", "4"]
    command = ["run", *images, *model, *path, *more, "--report.reductions", "[]", "--positions", "maed"]

    assert main([*command, "--out", str(tmp_path)]) == 0

    results = Results.read(tmp_path / "results.json")
    assert results.positions == 256
    assert results.geometry is not None
    assert results.geometry["maed"]["knn_recall"] > 0.2  # chance: 0.03
    assert results.scores is not None
    assert [score.positions for score in results.scores] == ["maed"]


@pytest.mark.parametrize("missing", [False, True])
def test_positions_are_placed_by_what_goes_with_reconstructions(readings: np.ndarray, missing: bool) -> None:
    """Of an ideal autoencoder: the conditional mean of the field, given what is visible."""
    at = np.sort(np.random.default_rng(3).permutation(196)[:98])
    law = torch.from_numpy(covariance(SHAPE, 0.4)[np.ix_(at, at)]).float()

    class Ideal:
        def predict(self, values, visible, scored, visible_mask=None):
            known = law[visible[:, :, None], visible[:, None, :]] + 0.09 * torch.eye(visible.shape[1])
            weights = torch.linalg.solve(known, law[visible][:, :, scored])  # (B, V, S)
            shown = values if visible_mask is None else values * visible_mask[..., None]
            return torch.einsum("bvs,bvc->bsc", weights, shown)

    mask = np.random.default_rng(1).random(readings.shape) > 0.1 if missing else None
    given = signals(readings[..., None] if mask is None else (readings * mask)[..., None], mask)

    placed = placing.place(Ideal(), at, given, visible=12, loss="mse", dim=32, device=torch.device("cpu"))
    recalls = [
        geometry_metrics(vectors, SHAPE, EvaluationSettings())["knn_recall"]
        for vectors in (placed.vectors, *placed.halves)
    ]

    assert recalls[0] > 0.7
    assert max(recalls[1:]) < recalls[0]
    found = placed_pairs(placed)
    assert (found.values.abs() <= 1 + 1e-6).all()
    assert reduced(found).shape == (196, 64)


def test_noise_is_not_placed(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal((600, 196)).astype(np.float32)
    settings = maed.Settings()
    settings.similarity.dense_positions, settings.autoencoder.steps = 100, 20
    settings.evaluation.probe_steps = 4
    with pytest.raises(maed.MaedError, match="no dependence"):
        maed.learn(noise, method="maed", settings=settings)


def test_a_card_says_that_metrics_are_of_a_sample() -> None:
    few, many = (maed.PositionEmbedding(torch.randn(n, 2)) for n in (100, 10_001))
    assert "sample" not in str(model_card(few, {"spearman": 0.5}, figure=False, where="x"))
    assert "fixed random sample" in str(model_card(many, {"spearman": 0.5}, figure=False, where="x"))
    assert "fixed random sample" not in str(model_card(many, {}, figure=False, where="x"))


def test_agreement_of_many_is_that_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(600, 4, generator=generator)
    other = one + 0.3 * torch.randn(one.shape, generator=generator)
    whole = geometry_module.agreement(one, other, 8)
    monkeypatch.setattr(geometry_module, "MEASURED", 500)
    monkeypatch.setattr(geometry_module, "SAMPLED", 600)
    assert geometry_module.agreement(one, other, 8) == pytest.approx(whole)
    monkeypatch.setattr(geometry_module, "SAMPLED", 300)
    assert geometry_module.agreement(one, other, 8) == pytest.approx(whole, abs=0.05)


def test_the_learner_keeps_a_sparse_similarity(readings: np.ndarray) -> None:
    settings = maed.Settings()
    settings.similarity.dense_positions = 100
    learner = maed.PositionLearner(method="correlation", settings=settings).fit(readings)

    assert learner.similarity_.shape == (196, 196)
    assert learner.similarity_.nnz < 196 * 195
    assert geometry_metrics(learner.embedding_.vectors, SHAPE, EvaluationSettings())["knn_recall"] > 0.9


def test_more_positions_than_memory_holds_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("maed.stages.similarity.memory", lambda: 1 << 20)
    many = ["--similarity.dense_positions", "100", "--positions", "", "--out", str(tmp_path / "out")]

    assert main(["run", "field:ring:400", "--data.samples", "40", *many]) == 2

    assert "candidate pairs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_another_reduction_names_those_that_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--embedding.reduction", "tsne", "--similarity.dense_positions", "100", "--out", str(tmp_path)]

    assert main(["run", "field:ring:144", "--data.samples", "60", "--positions", "", *asked]) == 2
    assert "heat" in capsys.readouterr().err


def test_a_broken_file_of_pairs_is_refused(tmp_path: Path, readings: np.ndarray) -> None:
    from safetensors.torch import save_file

    from maed.similarity import write_similarity

    write_similarity(tmp_path, correlated_pairs(signals(readings[..., None])), None, {})
    there = load_file(tmp_path / "model.safetensors")
    save_file({**there, "pairs": there["pairs"] + 100}, tmp_path / "model.safetensors")

    with pytest.raises(maed.MaedError, match="pairs"):
        load_similarity(tmp_path)
