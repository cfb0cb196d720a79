"""Random fields on known shapes, the distances within those shapes, and values that are dropped on purpose."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from scipy.integrate import quad

from maed import PositionEmbedding
from maed.data import SignalData, Signals, from_arrays, load
from maed.data.geometry import ROLL, Geometry, arc_length, grid, line, ring, sphere, swissroll, torus, unrolled
from maed.data.sources.field import KINDS, covariance, square_root
from maed.embedding import reduce
from maed.encodings import position_table
from maed.errors import MaedError
from maed.evaluation.geometry import geometry_metrics
from maed.files import read_json
from maed.plots.layout import align, chart, row_major, seen_from
from maed.report import write_report
from maed.settings import DataSettings, EmbeddingSettings, EvaluationSettings, ReportSettings
from maed.similarity import compute_baseline

pytestmark = pytest.mark.filterwarnings("ignore:.*positions are constant")

SMALL = ("line:40", "ring:40", "grid:6x7", "torus:6x7", "sphere:40", "swissroll:40")


def splits(data: SignalData) -> tuple[Signals, Signals, Signals]:
    return data.train, data.validation, data.test


def roll(n: int = 40, seed: int = 0) -> Geometry:
    return swissroll(n, np.random.default_rng(seed))


def shapes() -> st.SearchStrategy[Geometry]:
    """Any geometry of a few positions."""
    side = st.integers(1, 6)
    return st.one_of(
        st.builds(line, st.integers(2, 30)),
        st.builds(ring, st.integers(2, 30)),
        st.builds(grid, side, side),
        st.builds(torus, side, side),
        st.builds(sphere, st.integers(2, 40)),
        st.builds(roll, st.integers(2, 30), st.integers(0, 99)),
    )


# --- distances within the shapes ----------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(shapes())
def test_true_distances_are_metrics(geometry: Geometry) -> None:
    d = geometry.distances()
    assert d.shape == (len(geometry.coordinates),) * 2
    assert np.array_equal(d, d.T)
    assert not d.diagonal().any()
    others = ~np.eye(len(d), dtype=bool)
    assert (d[others] > 0).all()
    assert (d[:, None, :] <= d[:, :, None] + d[None, :, :] + 1e-9).all()


def test_along_a_ring() -> None:
    d = ring(12).distances()
    steps = np.abs(np.subtract.outer(np.arange(12), np.arange(12)))
    np.testing.assert_allclose(d, np.minimum(steps, 12 - steps) * 2 * np.pi / 12, atol=1e-12)
    assert d[0, 6] == pytest.approx(np.pi)


def test_on_a_torus_of_three_sides(tmp_path: Path) -> None:
    d = torus(4, 6, 5).distances()
    assert d[0].reshape(4, 6, 5)[2, 3, 0] == pytest.approx(2**0.5 * np.pi)
    assert d[0, 1] == pytest.approx(2 * np.pi / 5)
    assert load("field:torus:3x4x5", DataSettings(samples=20)).positions == 60
    places = chart(torus(4, 6, 5).coordinates, "torus")
    assert len(np.unique(places.round(6), axis=0)) == 120
    embedding = PositionEmbedding(torch.randn(120, 3), geometry=torus(4, 6, 5))
    embedding.save_pretrained(tmp_path)
    read = PositionEmbedding.from_pretrained(tmp_path).geometry
    assert read is not None
    assert read.shape == (4, 6, 5)
    assert embedding.plot() is not None
    with pytest.raises(MaedError, match="DEPTHxHEIGHTxWIDTH"):
        load("field:torus:3x4x5x6")


def test_on_a_torus() -> None:
    d = torus(4, 6).distances()
    assert d[0, [1, 5]].tolist() == pytest.approx([2 * np.pi / 6] * 2)  # columns 1 and 5 of the same row
    assert d[0, [6, 18]].tolist() == pytest.approx([2 * np.pi / 4] * 2)  # rows 1 and 3 of the same column
    assert d[0, 2 * 6 + 3] == pytest.approx(2**0.5 * np.pi)  # half way around both
    assert d[0, 7] == pytest.approx(np.hypot(2 * np.pi / 6, 2 * np.pi / 4))


def test_on_a_sphere() -> None:
    axes = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, 0, 1], [np.cos(1e-6), np.sin(1e-6), 0]])
    d = Geometry("sphere", axes).distances()
    assert d[0].tolist() == pytest.approx([0, np.pi, np.pi / 2, np.pi / 2, 1e-6], rel=1e-9)


def test_positions_of_a_sphere_are_spread_evenly() -> None:
    geometry = sphere(500)
    np.testing.assert_allclose(np.linalg.norm(geometry.coordinates, axis=1), 1, atol=1e-12)
    d = geometry.distances() + 9 * np.eye(500)
    nearest = d.min(axis=1) / np.sqrt(4 * np.pi / 500)  # in units of the side of each one's share of the surface
    assert nearest.min() > 0.75
    assert nearest.max() < 1.1


def test_along_a_swiss_roll() -> None:
    for end in (ROLL[0], 7.0, ROLL[1]):
        assert arc_length(np.array(end)) == pytest.approx(quad(lambda t: np.sqrt(1 + t * t), 0, end)[0])
    turn = np.array([2 * np.pi, 4 * np.pi])  # one turn apart: near in space, far along the sheet
    places = np.stack([turn * np.cos(turn), np.array([3.0, 5.0]), turn * np.sin(turn)], axis=1)
    along = quad(lambda t: np.sqrt(1 + t * t), *turn)[0]
    assert Geometry("swissroll", places).distances()[0, 1] == pytest.approx(np.hypot(along, 2))
    assert np.linalg.norm(places[0] - places[1]) < 7 < along


def test_a_swiss_roll_is_filled_evenly() -> None:
    length, height = unrolled(roll(4_000).coordinates).T
    ends = arc_length(np.array(ROLL))
    for values, low, high in ((length, *ends), (height, 0, 21)):
        counts = np.histogram(values, bins=5, range=(low, high))[0]
        assert counts.sum() == 4_000
        assert np.abs(counts - 800).max() < 120  # nearly 5 standard deviations


def test_neighbors_of_each_kind() -> None:
    known = [g.neighbors for g in (line(9), ring(9), grid(3, 3), torus(3, 3), sphere(9), roll(9))]
    assert known == [4, 4, 8, 8, 8, 8]


def test_trustworthiness_is_that_of_the_distances_within_the_shape() -> None:
    # unrolled, every neighborhood is right; as the sheet lies in space, some reach over to the next turn
    geometry, chosen = roll(300), EvaluationSettings()
    flat, rolled = torch.from_numpy(unrolled(geometry.coordinates)), torch.from_numpy(geometry.coordinates)
    assert geometry_metrics(flat, geometry, chosen)["trustworthiness"] == 1
    assert geometry_metrics(rolled, geometry, chosen)["trustworthiness"] < 0.998


@pytest.mark.parametrize("geometry", [ring(40), torus(6, 6), sphere(40)], ids=lambda g: g.kind)
def test_the_truth_is_perfect(geometry: Geometry) -> None:
    found = geometry_metrics(torch.from_numpy(geometry.coordinates), geometry, EvaluationSettings())
    assert found["knn_recall"] == 1
    assert found["coordinate_r2"] > 0.999
    assert found["spearman"] > 0.9  # chords of a torus rank far pairs otherwise
    assert found["trustworthiness"] > 0.98


# --- the field ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SMALL)
def test_a_gaussian_field_has_the_covariance_of_its_kernel(kind: str) -> None:
    # entries of a sample covariance of 20,000 signals have standard deviations of 1.25 sqrt(2 / 20,000) at the most
    data = load(f"field:{kind}", DataSettings(samples=20_000, normalization="none", noise=0.5, length_scale=0.6))
    x = np.concatenate([part.values[..., 0] for part in splits(data)])
    assert data.geometry is not None
    expected = covariance(data.geometry, 0.6) + 0.25 * np.eye(x.shape[1])
    assert np.abs(x.T @ x / len(x) - expected).max() < 0.065
    assert np.abs(x.mean(axis=0)).max() < 0.04


def test_the_length_scale_is_a_share_of_the_largest_distance() -> None:
    at = {"ring": ring(8), "sphere": sphere(50), "torus": torus(8, 8), "line": line(9), "grid": grid(5, 5)}
    largest = {"ring": np.pi, "sphere": np.pi, "torus": 2**0.5 * np.pi, "line": 8, "grid": 4 * 2**0.5}
    for name, geometry in at.items():
        d = geometry.distances()[0, 1] * np.pi / largest[name]
        assert covariance(geometry, 0.3)[0, 1] == pytest.approx(np.exp(-(d**2) / (2 * 0.3**2)))


def test_negative_eigenvalues_are_left_out() -> None:
    root = square_root(np.array([[1.0, 2.0], [2.0, 1.0]]))  # eigenvalues 3 and -1
    np.testing.assert_allclose(root @ root, np.full((2, 2), 1.5))
    long = covariance(ring(40), 2.0)
    assert np.linalg.eigvalsh(long).min() < -0.1
    assert np.isfinite(square_root(long)).all()


def test_a_magnitude_field_is_uncorrelated_and_its_sizes_are_not() -> None:
    data = load("field:ring:60", DataSettings(samples=20_000, variant="magnitude", normalization="none"))
    x = data.train.values[..., 0]
    plain, sizes = np.corrcoef(x, rowvar=False), np.corrcoef(np.abs(x), rowvar=False)
    others = ~np.eye(60, dtype=bool)
    neighbors = np.roll(np.eye(60, dtype=bool), 1, axis=1)
    assert np.abs(plain[others]).max() < 0.06
    assert sizes[neighbors].min() > 0.2
    assert np.abs(sizes[0, 20:41]).max() < 0.06  # a third of the ring away


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_every_bit(kind: str) -> None:
    first, again, other = (load(f"field:{kind}:36", DataSettings(samples=50, seed=seed)) for seed in (1, 1, 2))
    for one, two, three in zip(splits(first), splits(again), splits(other), strict=True):
        assert np.array_equal(one.values, two.values)
        assert not np.array_equal(one.values, three.values)
    assert first.geometry is not None
    assert other.geometry is not None
    assert np.array_equal(first.geometry.coordinates, other.geometry.coordinates) == (kind != "swissroll")


def test_sizes_of_the_splits() -> None:
    data = load("field:line:20", DataSettings(samples=3_000))
    assert [len(part) for part in splits(data)] == [2_700, 300, 600]
    assert (data.kind, data.channels, data.labeled) == ("real", 1, False)
    assert [len(part) for part in splits(load("field:line:20", DataSettings(samples=4)))] == [3, 1, 2]
    together = np.concatenate([part.values[..., 0] for part in splits(data)])
    assert len(np.unique(together, axis=0)) == 3_600  # no signal twice


def test_a_signal_does_not_depend_on_how_many_are_asked_for() -> None:
    chosen: dict[str, Any] = {"normalization": "none", "seed": 3}
    whole, limited = (load("field:ring:20", DataSettings(samples=2_500, limit=n, **chosen)) for n in (None, 100))
    assert len(limited.train) == 100
    known = {row.tobytes() for row in whole.train.values}
    assert all(row.tobytes() in known for row in limited.train.values)
    assert np.array_equal(load("field:ring:20", DataSettings(samples=50, **chosen)).test.values, whole.test.values[:10])


@pytest.mark.parametrize(
    ("source", "kind", "shape", "n"),
    [
        ("field:line", "line", (256,), 256),
        ("field:ring", "ring", (), 256),
        ("field:grid", "grid", (16, 16), 256),
        ("field:torus", "torus", (16, 16), 256),
        ("field:sphere", "sphere", (), 500),
        ("field:swissroll", "swissroll", (), 500),
        ("field:grid:24", "grid", (4, 6), 24),
        ("field:torus:5x3", "torus", (5, 3), 15),
        ("field:grid:3", "grid", (1, 3), 3),
    ],
)
def test_names_of_fields(source: str, kind: str, shape: tuple[int, ...], n: int) -> None:
    data = load(source, DataSettings(samples=10))
    assert data.geometry is not None
    assert (data.source, data.positions) == (source, n)
    assert (data.geometry.kind, data.geometry.shape) == (kind, shape)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("field:blob", "source: 'field:blob' is of unknown kind"),
        ("field:torsu:9", "'field:torsu:9' is of unknown kind"),
        ("field:", "source: 'field:' is of unknown kind"),
        ("feild:ring", "source.*unknown source 'feild:ring'"),
        ("field:ring:", "source.*must be field:ring:N, of 2 to 16,777,216 positions"),
        ("field:ring:1", "must be field:ring:N, of 2 to"),
        ("field:ring:4x4", "must be field:ring:N, of 2 to"),
        ("field:line:-4", "must be field:line:N"),
        ("field:sphere:a", "must be field:sphere:N"),
        ("field:sphere:10001", "of 2 to 10,000 positions"),
        ("field:grid:4x4x4", "must be field:grid:N or field:grid:HEIGHTxWIDTH, of"),
        ("field:torus:99999999999x99999999999", "of 2 to 16,777,216 positions"),
        ("field:torus:17", "prime number of positions; .* two sides, such as field:torus:16 or field:torus:18"),
    ],
)
def test_fields_that_do_not_exist(source: str, said: str) -> None:
    with pytest.raises(MaedError, match=said) as error:
        load(source, DataSettings(samples=10))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"noise": -1}, r"data\.noise"),
        ({"length_scale": 0}, r"data\.length_scale"),
        ({"drop_rate": 1}, r"data\.drop_rate"),
        ({"drop_rate": -0.1}, "data.drop_rate"),
        ({"drop_rate": float("nan")}, "data.drop_rate"),
    ],
)
def test_settings_that_cannot_be(chosen: dict[str, Any], said: str) -> None:
    with pytest.raises(MaedError, match=said):
        DataSettings(**chosen)


def test_too_few_samples_are_refused() -> None:
    with pytest.raises(MaedError, match=r"data\.samples.*must be at least 3,"):
        load("field:ring:9", DataSettings(samples=2))


def test_correlation_finds_a_sphere() -> None:
    data = load("field:sphere:200", DataSettings(samples=2_000, permute=1))
    assert data.geometry is not None
    vectors = reduce(compute_baseline("correlation", data).values, EmbeddingSettings())
    found = geometry_metrics(vectors, data.geometry, EvaluationSettings())
    assert found["coordinate_r2"] > 0.9
    assert found["knn_recall"] > 0.8


# --- dropped values -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_the_share_that_is_dropped(rate: float) -> None:
    data = load("field:ring:64", DataSettings(samples=1_000, drop_rate=rate))
    for part in splits(data):
        assert part.mask is not None
        assert 1 - part.mask.mean() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / part.mask.size) ** 0.5)
        assert not part.take(np.arange(len(part))).numpy()[~part.mask].any()  # the mean, which a batch sees as 0


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.floats(0, 0.999), st.integers(0, 99), st.booleans())
def test_a_signal_keeps_a_position_and_gains_none(n: int, rate: float, seed: int, tokens: bool) -> None:
    generator = np.random.default_rng(seed)
    X = generator.integers(1, 9, (40, n)) if tokens else generator.normal(size=(40, n, 2))
    if not tokens:
        X[generator.random((40, n)) < 0.3] = np.nan
        X[np.isnan(X).all(axis=(1, 2)), 0] = 1
    whole, dropped = (
        from_arrays(X, settings=DataSettings(missing="mask", drop_rate=r, seed=seed)) for r in (0.0, rate)
    )
    for before, after in zip(splits(whole), splits(dropped), strict=True):
        if rate == 0:
            assert (before.mask is None) == (after.mask is None)
            continue
        assert after.mask is not None
        assert after.mask.any(axis=1).all()
        assert before.mask is None or not (after.mask & ~before.mask).any()
        assert np.array_equal(before.values[after.mask], after.values[after.mask])


def test_dropped_values_leave_no_trace() -> None:
    # whatever stands where values are dropped, the signals are the same, and their normalization too
    X = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    numbered = from_arrays(np.repeat(np.arange(200.0)[:, None], 6, axis=1), settings=DataSettings(normalization="none"))
    first = from_arrays(X, settings=DataSettings(drop_rate=0.3))
    changed = X.copy()
    for part, rows in zip(splits(first), splits(numbered), strict=True):
        assert part.mask is not None
        changed[rows.values[:, 0, 0].astype(int)[:, None], np.arange(6)] = np.where(part.mask, part.values[..., 0], 1e6)
    assert np.array_equal(changed[changed < 1e6], X[changed < 1e6])
    assert (changed == 1e6).mean() == pytest.approx(0.3, abs=0.07)
    second = from_arrays(changed, settings=DataSettings(drop_rate=0.3))
    for one, two in zip(splits(first), splits(second), strict=True):
        assert np.array_equal(one.values, two.values)
        assert np.array_equal(one.mean, two.mean)
        assert np.array_equal(one.scale, two.scale)


def test_the_same_values_are_dropped_in_any_storage_order() -> None:
    plain, permuted = (
        load("field:ring:30", DataSettings(samples=100, drop_rate=0.4, permute=seed)) for seed in (None, 5)
    )
    assert plain.train.mask is not None
    assert permuted.train.mask is not None
    assert np.array_equal(plain.train.mask[:, permuted.permutation], permuted.train.mask)
    assert np.array_equal(plain.train.values[:, permuted.permutation], permuted.train.values)


def test_tokens_and_images_are_dropped_too(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,label\n" + "a film to see,0\nno film,1\n" * 20)
    text = load(str(tmp_path / "x.csv"), DataSettings(length=16, drop_rate=0.5))
    whole = load(str(tmp_path / "x.csv"), DataSettings(length=16))
    assert text.vocabulary == whole.vocabulary
    assert text.train.mask is not None
    assert whole.train.mask is not None
    assert not (text.train.mask & ~whole.train.mask).any()
    assert text.train.mask.sum() < 0.7 * whole.train.mask.sum()
    assert not text.train.values[~text.train.mask].any()
    ids = from_arrays(np.full((30, 4), 7), settings=DataSettings(drop_rate=0.5))
    assert (ids.kind, ids.vocabulary) == ("tokens", 8)  # what is dropped was there once
    digits = load("digits", DataSettings(drop_rate=0.5, limit=100))
    assert digits.train.mask is not None
    assert not digits.train.take(np.arange(100)).numpy()[~digits.train.mask].any()


# --- what is kept and drawn of a shape ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "geometry", [ring(12), torus(3, 4), sphere(12), roll(12)], ids=["ring", "torus", "sphere", "swissroll"]
)
def test_an_embedding_keeps_its_shape(geometry: Geometry, tmp_path: Path) -> None:
    vectors = torch.randn(12, 5, generator=torch.Generator().manual_seed(0))
    PositionEmbedding(vectors, geometry=geometry).save_pretrained(tmp_path)
    kept = PositionEmbedding.from_pretrained(tmp_path).geometry
    assert kept is not None
    assert (kept.kind, kept.shape) == (geometry.kind, geometry.shape)
    assert np.array_equal(kept.distances(), geometry.distances())


@pytest.mark.parametrize("geometry", [ring(20), torus(4, 5), sphere(20), roll(20)], ids=lambda g: g.kind)
def test_fourier_features_of_shapes_differ_between_positions(geometry: Geometry) -> None:
    table = position_table("fourier", 20, 16, seed=0, geometry=geometry)
    assert table.isfinite().all()
    assert (torch.cdist(table, table) + 9 * torch.eye(20)).min() > 0.1


def test_a_torus_is_drawn_row_by_row_and_a_sphere_as_a_map() -> None:
    order = np.random.default_rng(0).permutation(20)
    assert np.array_equal(row_major(torus(4, 5).permuted(order).coordinates, "torus"), order)
    # Hammer's map: the poles are sqrt 2 up and down, the middle is (0, 0), the rims are 2 sqrt 2 away
    places = np.array([[1, 0, 0], [0, 0, 1], [0, 0, -1], [-1, 1e-9, 0], [0, 1, 0]], dtype=float)
    expected = np.array([[0, 0], [0, 2**0.5], [0, -(2**0.5)], [8**0.5, 0], [2 / (1 + 0.5**0.5) ** 0.5, 0]])
    np.testing.assert_allclose(chart(places / np.linalg.norm(places, axis=1)[:, None], "sphere"), expected, atol=1e-8)


def test_a_view_of_a_solid_is_compared_with_the_same_view_of_the_truth() -> None:
    places = np.concatenate([np.eye(3), -np.eye(3)])
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    view = (places @ turn)[:, :2]
    np.testing.assert_allclose(seen_from(3 * view + 1, places), view, atol=1e-9)
    np.testing.assert_allclose(align(3 * view + 1, places), view, atol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["torus:6x6", "sphere:36", "ring:36", "swissroll:36"])
def test_a_report_of_each_shape(kind: str, tmp_path: Path) -> None:
    data = load(f"field:{kind}", DataSettings(samples=2_000, permute=1))
    assert data.geometry is not None
    similarity = compute_baseline("correlation", data).values
    vectors = reduce(similarity, EmbeddingSettings(dim=8))
    PositionEmbedding(vectors, source=data.source, geometry=data.geometry).save_pretrained(tmp_path / "embedding")
    signals = data.test.values[:2]
    shown = np.random.default_rng(0).random(signals.shape[:2]) < 0.3
    for part, tensors in (
        ("similarity/model", {"similarity": similarity.numpy()}),
        ("autoencoder/examples", {"original": signals, "visible": shown, "reconstruction": signals * 0.5}),
    ):
        (tmp_path / part).parent.mkdir()
        save_file(tensors, tmp_path / f"{part}.safetensors")
    page = write_report(tmp_path, ReportSettings(channels=2, positions=2)).read_text()
    facts = json.loads(page.split('id="data">')[1].split("</script>")[0])["explorer"]
    assert facts["positions"]["drawn"]["kind"] == ("image" if kind.startswith("torus") else "points")
    assert facts["signals"]["kind"] == ("images" if kind.startswith("torus") else "curves")
    assert {figure.stem for figure in (tmp_path / "figures").iterdir()} == {
        *("similarity", "matrix", "channels", "layout", "reconstructions")
    }
    assert ("storage order tells nothing" in page) == kind.startswith("torus")
    assert read_json(tmp_path / "embedding/config.json")["geometry"]["kind"] == data.geometry.kind
