"""Positions too many for every pair to be measured: candidates, sparse reductions, and the whole way."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

import maed
from maed.autoencoder import SetAutoencoder
from maed.autoencoder.masking import make_draw
from maed.autoencoder.regions import few_positions, placed, regions
from maed.cli import main
from maed.data.geometry import Geometry, ring, torus
from maed.data.signals import Signals
from maed.data.sources.field import covariance, square_root, waves
from maed.embedding import reduce
from maed.evaluation.geometry import geometry_metrics
from maed.records import Results
from maed.registry import ESTIMATORS
from maed.settings import EmbeddingSettings, EvaluationSettings, SimilaritySettings
from maed.similarity import Similarity, load_similarity, pairs, regional, stream_regions
from maed.similarity import estimate as estimate_all
from maed.similarity.moments import absolute_correlation
from maed.similarity.pairs import SparseSimilarity, correlated_pairs
from maed.similarity.regional import shrunk
from maed.similarity.streaming import draw_losses

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


def test_the_sparse_reduction_finds_what_the_dense_one_finds(readings: np.ndarray) -> None:
    given = signals(readings[..., None])
    whole, some = absolute_correlation(given), correlated_pairs(given)

    dense = reduced(whole)
    sparse = reduced(some)

    assert sparse.shape == dense.shape == (196, 64)
    measured = [geometry_metrics(vectors, SHAPE, EvaluationSettings()) for vectors in (dense, sparse)]
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
    assert any("nothing is known of 1 position (392)" in line and "in the middle" in line for line in lines)
    assert vectors[392].norm() < vectors.norm(dim=1).median()
    distances = cdist(vectors[:392], vectors[:392])
    assert np.median(distances[:196, 196:]) > np.median(distances[:196, :196])


def test_a_run_of_many_positions_goes_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--data.samples", "400", "--data.permute", "0", "--evaluation.probe_steps", "4", "--positions", ""]
    short = ["--autoencoder.steps", "20", "--similarity.draws", "1024", "--embedding.force", "true"]
    command = ["run", "field:torus:12x12", *few, *short, "--similarity.dense_positions", "100", "--out", str(tmp_path)]

    assert main(command) == 0

    results = Results.read(tmp_path / "results.json")
    assert results.geometry is not None
    assert set(results.geometry) == {"maed", "correlation", "magnitude"}
    assert results.split_half is not None
    assert 0 <= results.split_half["maed"] <= 1
    assert results.geometry["correlation"]["knn_recall"] > 0.9
    for folder in (tmp_path / "baselines" / "correlation" / "similarity", tmp_path / "similarity"):
        found = load_similarity(folder)
        assert isinstance(found, SparseSimilarity)
        assert found.n == 144
    assert (tmp_path / "report.html").is_file()
    capsys.readouterr()
    assert main([*command, "--similarity.method", "partial", "--overwrite"]) == 2
    assert "similarity.dense_positions" in capsys.readouterr().err


def test_the_learner_keeps_a_sparse_similarity(readings: np.ndarray) -> None:
    settings = maed.Settings()
    settings.similarity.dense_positions = 100
    learner = maed.PositionLearner(method="correlation", settings=settings).fit(readings)

    assert learner.similarity_.shape == (196, 196)
    assert learner.similarity_.nnz < 196 * 195
    assert geometry_metrics(learner.embedding_.vectors, SHAPE, EvaluationSettings())["knn_recall"] > 0.9


@pytest.fixture
def small_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Regions of 64 positions with cores of 24, and 100 positions that are trained on first."""
    monkeypatch.setattr("maed.autoencoder.regions.REGION", 64)
    monkeypatch.setattr("maed.autoencoder.regions.CORE", 24)
    monkeypatch.setattr("maed.autoencoder.regions.FEW", 100)


def test_cores_divide_the_positions_and_regions_hold_what_is_near(small_regions: None) -> None:
    vectors = torch.from_numpy(SHAPE.coordinates).float()  # cosines and sines of both angles

    found = regions(vectors)

    assert sorted(np.concatenate([region.positions[: region.core] for region in found])) == list(range(196))
    assert all(region.core <= 24 and len(set(region.positions)) == 64 for region in found)
    nearest = torch.cdist(vectors, vectors).topk(5, largest=False).indices.numpy()
    inside = [np.isin(nearest[region.positions[: region.core]], region.positions).mean() for region in found]
    assert min(inside) > 0.95


def test_a_draw_of_a_region_shows_and_scores_its_positions_alone(readings: np.ndarray) -> None:
    mask = np.random.default_rng(1).random(readings.shape) > 0.2
    for given in (signals(readings[..., None]), signals(readings[..., None], mask)):
        rows, among = np.arange(5, 9), np.array([7, 3, 150, 12, 99, 42])

        draw = make_draw(given, np.random.default_rng(0), rows=rows, visible=2, scored=np.array([0, 2, 3]), among=among)

        assert draw.scored.tolist() == [7, 150, 12]
        torch.testing.assert_close(draw.targets, given.take(rows)[:, [7, 150, 12]])
        shown = torch.ones_like(draw.visible).bool() if draw.visible_mask is None else draw.visible_mask
        assert np.isin(draw.visible[shown], among).all()
        torch.testing.assert_close(draw.values[shown], given.take(rows).gather(1, draw.visible[..., None])[shown])


def untrained() -> SetAutoencoder:
    return SetAutoencoder(196, channels=1, vocabulary=0, width=64, layers=1, heads=2).eval()


class Kriging:
    """The best autoencoder of a field there is: what its visible values let expect of the others."""

    def __init__(self, few: np.ndarray) -> None:
        self.covariance = torch.from_numpy(covariance(SHAPE, 0.4)[np.ix_(few, few)]).float()

    def predict(
        self,
        values: torch.Tensor,
        visible: torch.Tensor,
        scored: torch.Tensor,
        visible_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        known = self.covariance[visible[:, :, None], visible[:, None, :]] + 0.09 * torch.eye(visible.shape[1])
        toward = self.covariance[scored[None, :, None], visible[:, None, :]]
        return toward @ torch.linalg.solve(known, values)


@pytest.mark.parametrize("crossed", [False, True])
def test_all_positions_are_placed_by_what_an_autoencoder_of_few_reconstructs(
    readings: np.ndarray, crossed: bool, small_regions: None
) -> None:
    values = readings * np.where(np.arange(196) % 3 == 0, -1, 1) if crossed else readings
    few = few_positions(196, 0)
    assert len(few) == 100
    model = Kriging(few)
    if crossed:  # as an autoencoder of these would have it
        signs = torch.where(torch.from_numpy(few) % 3 == 0, -1.0, 1.0)
        model.covariance *= signs * signs[:, None]

    vectors = placed(
        model,
        few,
        signals(values.astype(np.float32)[..., None]),
        visible=30,
        loss="mse",
        dim=48,
        device=torch.device("cpu"),
    )

    assert vectors.shape == (196, 48)
    assert geometry_metrics(vectors, SHAPE, EvaluationSettings())["knn_recall"] > 0.9


@pytest.mark.parametrize("estimator", ["contrast", "ablation"])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_pairs_of_a_region_have_the_estimate_of_all_pairs(
    readings: np.ndarray, estimator: str, missing: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask = None if missing == 0 else np.random.default_rng(1).random(readings.shape) > missing
    given = signals(readings[..., None] if mask is None else np.where(mask, readings, 0)[..., None], mask)
    monkeypatch.setattr(regional, "shrunk", lambda values, error, *_: (values, error, 1.0))
    model = untrained()
    settings = SimilaritySettings(estimator=estimator, draws=16 * 512, batch_size=64)
    how: dict[str, Any] = {"visible": 4, "loss": "mse", "outputs": 1, "device": torch.device("cpu")}
    found = stream_regions(model, given, settings, **how)
    sums = ESTIMATORS.get(estimator).sums.empty(196, padded=mask is not None)
    repeats = 8 if estimator == "contrast" else 1
    order = regions(torch.nn.functional.normalize(model.position_vectors.detach() - model.position_vectors.mean(dim=0)))
    assert len(order) == 1  # of 196 positions, all of which are its core
    for batch in range(8):
        generator = np.random.default_rng((0, 0, batch))
        rows = generator.integers(0, len(given), size=64 // repeats).repeat(repeats)
        place = order[0].positions
        draw = make_draw(given, generator, rows=rows, visible=4, scored=np.arange(196), among=place)
        ESTIMATORS.get(estimator)().add(sums, draw, lambda d: draw_losses(model, d, "mse", 1).sqrt(), repeats)
    whole = estimate_all(sums, estimator)

    values, error = found.similarity.arrays()
    known = (values.toarray() != 0) & ~np.isnan(values.toarray())  # a single draw of a pair says nothing
    assert known.sum() > 196 * 25
    both = (whole.values + whole.values.T).numpy() / 2
    spread = (whole.standard_error**2 + whole.standard_error.T**2).sqrt().numpy() / 2
    np.testing.assert_allclose(values.toarray()[known], both[known], atol=1e-5)
    np.testing.assert_allclose(error.toarray()[known], spread[known], atol=1e-5)


def test_few_draws_leave_the_word_to_the_vectors_and_many_take_it() -> None:
    generator = torch.Generator().manual_seed(0)
    likeness = torch.rand(4_000, generator=generator, dtype=torch.float64)
    truth = 2 * likeness + 0.1 * torch.randn(4_000, generator=generator, dtype=torch.float64)

    found = {}
    for noise in (1e-3, 3.0):
        error = torch.full_like(truth, noise)
        halves = truth + 2**0.5 * noise * torch.randn(2, 4_000, generator=generator, dtype=torch.float64)
        halves[:, 0] = torch.nan
        found[noise] = shrunk(halves.mean(dim=0), error, likeness, halves)

    values, error, share = found[1e-3]
    assert share > 0.99
    assert (values - truth)[1:].abs().max() < 0.01
    assert values[0] == pytest.approx(2 * likeness[0], abs=0.01)
    assert error[0] == pytest.approx(0.1, abs=0.01)
    values, error, share = found[3.0]
    assert share < 0.1
    assert torch.corrcoef(torch.stack([values, truth]))[0, 1] > 0.9


def test_noise_stays_noise_however_alike_vectors_are() -> None:
    generator = torch.Generator().manual_seed(1)
    likeness = torch.rand(10_000, generator=generator, dtype=torch.float64)
    halves = 2**0.5 * torch.randn(2, 10_000, generator=generator, dtype=torch.float64)

    values, error, _ = shrunk(halves.mean(dim=0), torch.ones_like(likeness), likeness, halves)

    assert (values / error).abs().max() < 5


def test_a_stopped_stream_of_regions_goes_on(
    readings: np.ndarray, tmp_path: Path, small_regions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, settings = signals(readings[..., None]), SimilaritySettings(draws=4096, batch_size=64)
    model = untrained()
    how: dict[str, Any] = {"visible": 4, "loss": "mse", "outputs": 1, "device": torch.device("cpu")}
    whole = stream_regions(model, given, settings, **how)
    monkeypatch.setattr(regional, "_SAVE_EVERY", 0.0)

    def stop(done: int, total: int) -> None:
        if 2 * done > total:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stream_regions(model, given, settings, folder=tmp_path, progress=stop, **how)
    told: list[int] = []
    again = stream_regions(model, given, settings, folder=tmp_path, progress=lambda d, _: told.append(d), **how)

    assert 0 < len(told) < len(regions(model.position_vectors))
    torch.testing.assert_close(again.similarity.values, whole.similarity.values)


@pytest.mark.slow
def test_the_autoencoder_finds_the_neighbors_of_many_positions(
    readings: np.ndarray, small_regions: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maed.stages.base.REGION", 64)
    settings = maed.Settings()
    settings.similarity.dense_positions, settings.similarity.draws = 100, 32_768
    settings.autoencoder.steps = 1_000
    learner = maed.PositionLearner(method="maed", settings=settings, random_state=0).fit(readings)

    assert learner.similarity_.nnz < 196 * 195
    found = geometry_metrics(learner.embedding_.vectors, SHAPE, EvaluationSettings())
    assert found["knn_recall"] > 0.8
    assert found["coordinate_r2"] > 0.95


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--similarity.estimator", "mean-loss"], "similarity.estimator"),
        (["--autoencoder.kind", "unet"], "autoencoder.kind set"),
        (["--autoencoder.visible_fraction", "0.0001"], "autoencoder.visible_fraction"),
    ],
)
def test_what_many_positions_cannot_have_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: list[str], named: str
) -> None:
    command = ["run", "field:ring:144", "--data.samples", "60", "--positions", "", "--similarity.method", "maed"]

    assert main([*command, *flags, "--similarity.dense_positions", "100", "--out", str(tmp_path)]) == 2

    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert named in said


def test_another_reduction_names_those_that_can(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--embedding.reduction", "tsne", "--similarity.dense_positions", "100", "--out", str(tmp_path)]

    assert main(["run", "field:ring:144", "--data.samples", "60", "--positions", "", *asked]) == 2
    assert "heat" in capsys.readouterr().err


def test_a_broken_file_of_pairs_is_refused(tmp_path: Path, readings: np.ndarray) -> None:
    from safetensors.torch import load_file, save_file

    from maed.similarity import write_similarity

    write_similarity(tmp_path, correlated_pairs(signals(readings[..., None])), None, {})
    there = load_file(tmp_path / "model.safetensors")
    save_file({**there, "pairs": there["pairs"] + 100}, tmp_path / "model.safetensors")

    with pytest.raises(maed.MaedError, match="pairs"):
        load_similarity(tmp_path)
