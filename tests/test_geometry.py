"""Geometry metrics on cases that can be computed by hand."""

import numpy as np
import pytest
import torch

from maed.data.geometry import Geometry, grid, line, permutation, points
from maed.data.geometry_spec import parse_geometry
from maed.errors import MaedError
from maed.evaluation.geometry import agreement, coordinate_r2, geometry_metrics, knn_recall, similarity_metrics
from maed.settings import EvaluationSettings

DEFAULTS = EvaluationSettings()


def as_vectors(geometry: Geometry) -> torch.Tensor:
    return torch.from_numpy(geometry.coordinates).float()


def noise(n: int, d: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


# -- the geometry itself ------------------------------------------------------------------------------------------


def test_a_grid_is_stored_row_by_row():
    assert grid(2, 3).coordinates.tolist() == [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]
    assert grid(2, 3).distances()[0].tolist() == pytest.approx([0, 1, 2, 1, 2**0.5, 5**0.5])


def test_a_line_has_four_neighbors_and_everything_else_eight():
    assert [g.neighbors for g in (line(9), grid(3, 3), points(np.zeros((9, 1))), points(np.zeros((9, 3))))] == [
        4, 8, 4, 8,
    ]  # fmt: skip


def test_a_permuted_geometry_goes_with_its_positions():
    order = permutation(6, seed=0)
    assert sorted(order) == list(range(6))
    assert order.tolist() != list(range(6))
    assert grid(2, 3).permuted(order).coordinates.tolist() == [grid(2, 3).coordinates[i].tolist() for i in order]


def test_geometries_are_read_from_their_names_and_from_files(tmp_path):
    assert np.array_equal(parse_geometry("grid:4x8").coordinates, grid(4, 8).coordinates)
    assert parse_geometry("grid:4x8").shape == (4, 8)
    assert parse_geometry("line:5").coordinates.ravel().tolist() == [0, 1, 2, 3, 4]
    for name, kind, shape in (
        ("ring:5", "ring", (5, 2)),
        ("torus:2x3", "torus", (6, 4)),
        ("sphere:7", "sphere", (7, 3)),
    ):
        assert (parse_geometry(name).kind, parse_geometry(name).coordinates.shape) == (kind, shape)
    np.save(tmp_path / "c.npy", np.arange(6).reshape(3, 2))
    (tmp_path / "c.csv").write_text("0,1\n2,3\n4,5\n")
    (tmp_path / "one.csv").write_text("0\n2\n4\n")
    for name in ("c.npy", "c.csv"):
        read = parse_geometry(str(tmp_path / name))
        assert (read.kind, read.coordinates.tolist()) == ("points", [[0, 1], [2, 3], [4, 5]])
    assert parse_geometry(str(tmp_path / "one.csv")).kind == "line"


@pytest.mark.parametrize(
    "text",
    [
        *("grid:4", "grid:4x", "grid:0x3", "grid:4x4x4", "grid", "line", "line:", "line:-3", "line:3x3", "line:a"),
        *("ring", "ring:3x3", "torus:9", "sphere:0"),
    ],
)
def test_a_geometry_that_is_none_is_named(text):
    with pytest.raises(MaedError, match=f"coordinates: '{text}'.*grid:HEIGHTxWIDTH, line:LENGTH, ring:N"):
        parse_geometry(text)


def test_files_without_coordinates_are_named(tmp_path):
    with pytest.raises(MaedError, match="'cube:9'"):
        parse_geometry("cube:9")
    (tmp_path / "words.csv").write_text("x,y\na,b\n")
    with pytest.raises(MaedError, match=r"words.csv' cannot be read as \(N, D\) numbers"):
        parse_geometry(str(tmp_path / "words.csv"))
    (tmp_path / "broken.npy").write_bytes(b"no array")
    with pytest.raises(MaedError, match=r"coordinates.*not a \.npy file"):
        parse_geometry(str(tmp_path / "broken.npy"))
    np.save(tmp_path / "flat.npy", np.zeros(4))
    with pytest.raises(MaedError, match=r"\(N, D\).*float64 of shape \(4,\)"):
        parse_geometry(str(tmp_path / "flat.npy"))
    np.save(tmp_path / "nan.npy", np.full((4, 2), np.nan))
    with pytest.raises(MaedError, match="4 of 4") as error:
        parse_geometry(str(tmp_path / "nan.npy"))
    assert error.value.argument == "coordinates"


# -- kNN recall ---------------------------------------------------------------------------------------------------


def apart(*places: float) -> np.ndarray:
    return np.abs(np.subtract.outer(places, places))


def test_recall_by_hand():
    # truly 0 1 2 3 apart by growing gaps; found with 2 and 3 far away from the rest and close to each other
    true, found = apart(0, 1, 3, 6), apart(0, 1, 11, 11.5)
    # k = 1: the nearest are 1, 0, 1, 2 in truth and 1, 0, 3, 2 as found
    assert knn_recall(found, true, 1) == 3 / 4
    # k = 2: {1,2}, {0,2}, {1,0 or 3: both 3 away}, {2,1} in truth; {1,2}, {0,2}, {3,1}, {2,1} as found
    assert knn_recall(found, true, 2) == 1


def test_whoever_is_as_near_as_the_true_kth_is_right():
    # the center of a 3 x 3 grid has 4 neighbors at 1 and 4 at sqrt 2: with k = 5 any corner is as good as another
    true = grid(3, 3).distances()
    for corner in (0, 2, 6, 8):
        found = true.copy()
        found[4, corner] = 0.5
        assert knn_recall(found, true, 5) == 1
    # with k = 4 a corner is wrong
    assert knn_recall(found, true, 4) == pytest.approx(1 - 1 / 36)


def test_the_diagonal_is_nobodys_neighbor():
    true = apart(0, 1, 3, 6)
    found = true.copy()
    np.fill_diagonal(found, -100)
    assert knn_recall(found, true, 1) == 1
    assert found[0, 0] == -100  # and what is given is left as it was


def test_too_many_neighbors_are_refused():
    assert knn_recall(apart(0, 1, 3, 6), apart(0, 1, 3, 6), 3) == 1
    with pytest.raises(MaedError) as refused:
        knn_recall(apart(0, 1, 3, 6), apart(0, 1, 3, 6), 4)
    assert refused.value.argument == "evaluation.n_neighbors"
    with pytest.raises(MaedError) as refused:
        geometry_metrics(noise(6), grid(2, 3), DEFAULTS)
    assert refused.value.argument == "evaluation.n_neighbors"


# -- all metrics --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("geometry", [line(30), grid(6, 5), points(noise(40, 3).numpy())], ids=lambda g: g.kind)
def test_the_truth_is_perfect(geometry):
    metrics = geometry_metrics(3 * as_vectors(geometry) + 7, geometry, DEFAULTS)
    # scikit-learn's trustworthiness decides ties by rounding
    assert metrics.pop("trustworthiness") == pytest.approx(1, abs=0.02)
    assert metrics == pytest.approx({"knn_recall": 1, "spearman": 1, "coordinate_r2": 1}, abs=1e-4)


def test_a_random_embedding_is_near_chance():
    # 8 of 399 others by chance, and a little more where the true 8th nearest is tied
    geometry = grid(20, 20)
    metrics = geometry_metrics(noise(400), geometry, DEFAULTS)
    assert 0.01 < metrics["knn_recall"] < 0.05
    assert abs(metrics["spearman"]) < 0.05
    assert -0.1 < metrics["coordinate_r2"] < 0.05
    assert 0.4 < metrics["trustworthiness"] < 0.6


def test_spearman_by_hand():
    # distances of 0-1, 0-2, 1-2: found 1, 3, 2, truly 3, 1, 2 (sides 3, 1, 2.5): ranks are reversed
    true = points(np.array([[0, 0], [3, 0], [0.25, np.sqrt(1 - 0.0625)]]))
    found = torch.tensor([[0.0], [1.0], [3.0]])
    settings = EvaluationSettings(n_neighbors=1, folds=2)
    similarity = -torch.cdist(found, found)
    assert similarity_metrics(similarity, true, settings)["entries_spearman"] == pytest.approx(-1)


def test_a_constant_embedding_ranks_nothing():
    assert geometry_metrics(torch.zeros(30, 2), line(30), DEFAULTS)["spearman"] == 0


def test_the_regression_is_scored_on_positions_it_did_not_see():
    # 30 random channels could fit 40 positions by heart
    coordinates = noise(40, 1, seed=1).double().numpy()
    assert coordinate_r2(noise(40, 30).double().numpy(), coordinates, 5) < 0.3
    # of two coordinates of equal spread, one known, one not
    known = noise(400, 2).double().numpy()
    known /= known.std(axis=0)
    assert coordinate_r2(known[:, :1], known, 5) == pytest.approx(0.5, abs=0.05)
    with pytest.raises(MaedError, match=r"evaluation\.folds.*must be at most 4"):
        coordinate_r2(known[:9], known[:9], 5)


def test_few_positions_have_a_trustworthiness_too():
    # scikit-learn defines it below N / 2 neighbors: 8 of 12 are cut to 5
    metrics = geometry_metrics(as_vectors(grid(3, 4)), grid(3, 4), DEFAULTS)
    assert metrics["trustworthiness"] == pytest.approx(1, abs=0.02)


def test_a_similarity_is_measured_by_its_largest_entries_and_made_symmetric():
    geometry = grid(5, 5)
    similarity = torch.from_numpy(np.exp(-geometry.distances()))
    skew = 3 * noise(25, 25).double()
    crooked = similarity + (skew - skew.T)  # the mean with its transpose is the straight one
    straight = similarity_metrics(similarity, geometry, DEFAULTS)
    assert straight == pytest.approx({"entries_knn_recall": 1, "entries_spearman": 1})
    assert similarity_metrics(crooked, geometry, DEFAULTS) == pytest.approx(straight, abs=0.01)  # rounding cuts ties
    assert similarity_metrics(-similarity, geometry, DEFAULTS)["entries_spearman"] == pytest.approx(-1)


def test_a_line_is_asked_for_four_neighbors_and_others_on_request():
    # every second position of the line is its own cluster: i +- 2, i +- 4 are nearest
    vectors = torch.stack([torch.arange(40) % 2 * 100.0, torch.arange(40).float()], dim=1)
    recall = geometry_metrics(vectors, line(40), DEFAULTS)["knn_recall"]
    assert recall == pytest.approx(0.5, abs=0.05)  # i +- 2 of i +- 1, i +- 2
    one = geometry_metrics(vectors, line(40), EvaluationSettings(n_neighbors=1))["knn_recall"]
    assert one == 0


def test_agreement_with_itself_is_full_and_of_noise_is_chance():
    vectors = noise(300)
    turned = vectors @ torch.linalg.qr(noise(4, seed=1)[:, :4]).Q * 5 + 1
    assert agreement(vectors, vectors, 8) == 1
    assert agreement(vectors, turned, 8) > 0.999  # neither place, size nor direction counts
    assert agreement(vectors, noise(300, seed=2), 8) == pytest.approx(8 / 299, abs=0.02)
