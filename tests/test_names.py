"""Names of positions travel with an embedding: from the columns of a table to neighbors, subsets, graphs and maps."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone

from maed import AddPositions, MaedError, PositionEmbedding, PositionLearner
from maed.cli import main
from maed.data import load
from maed.embedding.export import write_csv
from maed.embedding.extension import correlations
from maed.files import read_json
from maed.records import Results
from maed.report.contents import read_contents
from maed.settings import AutoencoderSettings, DataSettings, Settings
from test_learner import ring_signals

SENSORS = [f"S{i:02}" for i in range(20)]


@pytest.fixture(scope="module")
def ring() -> PositionEmbedding:
    """Learned from a table whose columns are shuffled."""
    order = np.random.default_rng(1).permutation(20)
    frame = pd.DataFrame(ring_signals(2_000, 20)[:, order], columns=[SENSORS[i] for i in order])
    return PositionLearner(method="correlation", random_state=0).fit(frame).embedding_


def test_columns_of_a_table_name_positions_and_their_neighbors(ring: PositionEmbedding) -> None:
    assert sorted(ring.names) == SENSORS
    assert {*ring.neighbors("S00", k=2)} == {"S01", "S19"}
    assert [ring.names[i] for i in ring.neighbors(ring.index("S00"), k=2)] == ring.neighbors("S00", k=2)
    with pytest.raises(MaedError, match="'S0'"):
        ring.neighbors("S0")
    with pytest.raises(MaedError, match="no names"):
        PositionEmbedding(torch.randn(4, 2)).index("S00")


def test_names_are_kept_on_disk_and_through_other_channels(ring: PositionEmbedding, tmp_path: Path) -> None:
    ring.save_pretrained(tmp_path)
    again = PositionEmbedding.from_pretrained(tmp_path)
    assert again.names == ring.names == ring.with_dim(3).names
    for names in (["a"] * 20, SENSORS[:3], [1] * 20):
        config = read_json(tmp_path / "config.json")
        (tmp_path / "config.json").write_text(json.dumps({**config, "names": names}))
        with pytest.raises(MaedError, match="names must"):
            PositionEmbedding.from_pretrained(tmp_path)


@pytest.mark.slow
def test_a_run_names_positions_as_they_are_permuted(tmp_path: Path) -> None:
    pd.DataFrame(ring_signals(500, 20), columns=SENSORS).to_csv(tmp_path / "x.csv", index=False)
    short = [
        "--similarity.method=correlation",
        "--autoencoder.steps=2",
        "--similarity.draws=64",
        "--embedding.force=true",
        *("--report.reductions=[]", "--report.positions=2", "--report.channels=2", "--report.signals=2"),
    ]
    arguments = ["run", str(tmp_path / "x.csv"), "--out", str(tmp_path / "run"), "--data.permute=3", *short]
    assert main([*arguments, "--evaluation.probe_steps=0"]) == 0
    found = PositionEmbedding.from_pretrained(tmp_path / "run/baselines/correlation/embedding")
    assert found.names != tuple(SENSORS)
    assert read_contents(tmp_path / "run").names == found.names
    assert "for validation" in Results.read(tmp_path / "run/results.json").held_out
    assert {*found.neighbors("S05", k=2)} == {"S04", "S06"}


def test_names_are_the_first_column_of_a_table_for_others(tmp_path: Path) -> None:
    embedding = PositionEmbedding(torch.randn(3, 2), names=["a,b", 'the "c"', "d"])
    write_csv(embedding, tmp_path / "vectors.csv")
    found = pd.read_csv(tmp_path / "vectors.csv", index_col="position")
    assert tuple(found.index) == embedding.names
    np.testing.assert_array_equal(found.to_numpy(np.float32), embedding.numpy())


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        ({}, "at random"),
        ({"split": "blocks"}, "blocks of neighbor"),
        ({"window": 4}, "blocks of time"),
        ({"group": "rider"}, "rider"),
    ],
)
def test_how_signals_were_held_out_is_recorded(tmp_path: Path, settings: dict[str, Any], way: str) -> None:
    rider = np.repeat(np.arange(20), 10)
    frame = pd.DataFrame(ring_signals(200, 6), columns=SENSORS[:6]).assign(rider=rider)
    frame.to_csv(tmp_path / "x.csv", index=False)
    columns = [*SENSORS[:6], *(["rider"] if "group" in settings else [])]
    data = load(str(tmp_path / "x.csv"), DataSettings(columns=columns, **settings))
    assert way in data.held_out
    for part in (data.train, data.validation, data.test):
        assert f"{len(part)} " in data.held_out


def test_a_subset_has_the_same_vectors_in_the_order_asked_for(ring: PositionEmbedding) -> None:
    some = ring.subset(["S03", "S01", "S02"])
    assert some.names == ("S03", "S01", "S02")
    for name in some.names:
        assert torch.equal(some.vectors[some.index(name)], ring.vectors[ring.index(name)])
    assert torch.equal(ring.subset([4, 2]).vectors, ring.vectors[[4, 2]])
    for wrong in ([], ["S01", "S01"], ["no"], [20], [-1]):
        with pytest.raises(MaedError):
            ring.subset(wrong)


def test_the_graph_holds_the_nearest_and_their_distances(ring: PositionEmbedding) -> None:
    graph = ring.to_graph(k=3)
    assert graph.shape == (20, 20)
    for i in range(20):
        row = graph[[i]].toarray()[0]
        assert {*np.flatnonzero(row)} == {*ring.neighbors(i, k=3).tolist()}
        j = int(np.argmax(row))
        assert row[j] == pytest.approx(float((ring.vectors[i] - ring.vectors[j]).norm()), rel=1e-4)
    with pytest.raises(MaedError, match="between 1 and 19"):
        ring.to_graph(20)


def test_a_map_shows_every_name_once(ring: PositionEmbedding) -> None:
    ax = ring.plot()
    shown = [text.get_text() for part in ax.figure.axes for text in part.texts]
    assert sorted(text for text in shown if text in SENSORS) == SENSORS


def test_coordinates_are_found_by_name_in_tables_as_people_write_them(
    ring: PositionEmbedding, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    angle = 2 * np.pi * np.arange(20) / 20
    places = pd.DataFrame({"sensor": SENSORS, "x": np.cos(angle), "y": np.sin(angle)})
    found = []
    for number, written in enumerate((places, places.iloc[::-1], pd.concat([places, places.assign(sensor="more")]))):
        written.to_csv(tmp_path / f"{number}.csv", index=False, sep=",;\t"[number])
        ring.save_pretrained(tmp_path / "ring")
        more = number == 2
        code = main(["evaluate", str(tmp_path / "ring"), "--coordinates", str(tmp_path / f"{number}.csv")])
        if more:
            assert code == 2  # a name that is there twice names nothing
        else:
            assert code == 0
            found.append(json.loads((tmp_path / "ring/geometry.json").read_text())["knn_recall"])
    assert found[0] == found[1] > 0.9
    stations = np.column_stack([3804 + np.arange(20), np.cos(angle), np.sin(angle)])
    np.savetxt(tmp_path / "stations.dat", stations, fmt="%.7e")
    order = [int(name[1:]) for name in ring.names]
    numbered = PositionEmbedding(ring.vectors[np.argsort(order)][3:], names=[str(i) for i in range(3, 20)])
    numbered.save_pretrained(tmp_path / "numbered")
    assert main(["evaluate", str(tmp_path / "numbered"), "--coordinates", str(tmp_path / "stations.dat")]) == 0
    assert json.loads((tmp_path / "numbered/geometry.json").read_text())["knn_recall"] > 0.8  # the ring is cut


def test_inputs_that_are_named_in_any_order_are_put_in_that_of_the_embedding(ring: PositionEmbedding) -> None:
    add, order = AddPositions(ring, 8), torch.randperm(20)
    named = AddPositions(ring, 8, names=[ring.names[i] for i in order])
    named.load_state_dict(add.state_dict())
    x = torch.randn(3, 20, 8)
    torch.testing.assert_close(named(x[:, order]), add(x))
    with pytest.raises(MaedError) as error:
        named(x[:, order], torch.arange(20))
    assert error.value.argument == "index"
    with pytest.raises(MaedError) as error:
        named(x[:, :19])
    assert error.value.argument == "x"


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (SENSORS[1:], "'S00'"),
        ([*SENSORS, "Cz"], "'Cz'"),
        ([*SENSORS, "S07"], "'S07'"),
        ([*SENSORS[:19], "S1"], "'S19'"),
    ],
)
def test_names_of_inputs_that_are_not_those_of_positions_are_told(
    ring: PositionEmbedding, names: list[str], found: str
) -> None:
    with pytest.raises(MaedError, match=found) as error:
        AddPositions(ring, 8, names=names)
    assert error.value.argument == "names"
    with pytest.raises(MaedError, match="names"):
        AddPositions(PositionEmbedding(torch.randn(20, 2)), 8, names=names)


def test_inputs_may_have_length_first(ring: PositionEmbedding) -> None:
    first = AddPositions(ring, 8)
    turned = AddPositions(ring, 8, batch_first=False)
    turned.load_state_dict(first.state_dict())
    x, index = torch.randn(3, 5, 8), torch.randint(0, 20, (3, 5))
    torch.testing.assert_close(turned(x.transpose(0, 1)).transpose(0, 1), first(x))
    torch.testing.assert_close(turned(x.transpose(0, 1), index).transpose(0, 1), first(x, index))


@pytest.mark.parametrize(
    ("batch_first", "shape", "remedy"),
    [(None, (20, 3, 8), "batch_first=False"), (None, (20, 30, 8), "batch_first=False"), (False, (30, 20, 8), "True")],
)
def test_inputs_of_which_another_axis_has_the_length_are_refused(
    ring: PositionEmbedding, batch_first: bool | None, shape: tuple[int, ...], remedy: str
) -> None:
    with pytest.raises(MaedError, match=remedy) as error:
        AddPositions(ring, 8, batch_first=batch_first)(torch.zeros(shape))
    assert error.value.argument == "x"
    assert AddPositions(ring, 8, batch_first=True)(torch.zeros(20, 3, 8)).shape == (20, 3, 8)


def test_the_edges_are_those_of_the_graph_from_neighbor_to_position(ring: PositionEmbedding) -> None:
    (source, target), weight = ring.edge_index(k=3)
    assert source.dtype == target.dtype == torch.int64
    for i in range(20):
        assert {*source[target == i].tolist()} == {*ring.neighbors(i, k=3).tolist()}
    distances = (ring.vectors[source] - ring.vectors[target]).norm(dim=1)
    torch.testing.assert_close(weight, distances, rtol=1e-4, atol=1e-5)


def test_score_finds_columns_by_name_and_refuses_where_one_is_missing() -> None:
    frame = pd.DataFrame(ring_signals(300, 12) + 5 * np.arange(12), columns=SENSORS[:12]).astype(np.float32)
    settings = Settings(data=DataSettings(permute=2, missing="mask"), autoencoder=AutoencoderSettings(steps=20))
    learner = PositionLearner(method="maed", settings=settings, random_state=0, force=True, budget="2000 draws")
    learner.fit(frame)
    assert [*vars(learner)["feature_names_in_"]] == SENSORS[:12]
    expected = learner.score(frame.to_numpy())
    shuffled = frame[[*reversed(SENSORS[:12])]]
    assert learner.score(shuffled) == pytest.approx(expected, rel=1e-6)
    assert expected > learner.score(shuffled.to_numpy())
    with pytest.warns(UserWarning, match="'more'"):
        assert learner.score(shuffled.assign(more=1.0)) == pytest.approx(expected, rel=1e-6)
    with pytest.raises(MaedError, match="'S03'") as error:
        learner.score(frame.drop(columns="S03"))
    assert error.value.argument == "X"


# --- a new sensor ---------------------------------------------------------------------------------------------------

MORE = [f"S{i:02}" for i in range(60)]
NEW = ["S05", "S13", "S14"]


@pytest.fixture(scope="module")
def together() -> pd.DataFrame:
    """Signals of all sensors, columns shuffled; a fifth of the new ones' values is missing."""
    generator = np.random.default_rng(1)
    frame = pd.DataFrame(ring_signals(1_000, 60), columns=MORE).iloc[:, generator.permutation(60)]
    return frame.mask((generator.random(frame.shape) < 0.2) & frame.columns.isin(NEW))


@pytest.fixture(scope="module")
def before(together: pd.DataFrame) -> PositionEmbedding:
    """Learned before the new sensors came."""
    return PositionLearner(method="correlation", random_state=0).fit(together.drop(columns=NEW)).embedding_


def test_a_new_sensor_is_placed_among_its_neighbors_and_no_other_moves(
    before: PositionEmbedding, together: pd.DataFrame, tmp_path: Path
) -> None:
    after = before.extend(together)
    assert after.n == 60
    assert {*after.names[57:]} == {*NEW}
    assert torch.equal(after.vectors[:57], before.vectors)
    for name, near in (("S05", {"S04", "S06"}), ("S13", {"S12", "S14"}), ("S14", {"S13", "S15"})):
        assert near <= {*after.neighbors(name, k=4)}
    after.save_pretrained(tmp_path)
    again = PositionEmbedding.from_pretrained(tmp_path)
    assert (again.names, again.provenance["extended_from"]) == (after.names, 57)


def test_new_columns_come_last_where_nothing_names_them(before: PositionEmbedding, together: pd.DataFrame) -> None:
    X = together[[*before.names, *NEW]].to_numpy()
    named = before.extend(X, names=NEW)
    torch.testing.assert_close(named.vectors, before.extend(together[[*before.names, *NEW]]).vectors)
    plain = PositionEmbedding(before.vectors).extend(X)
    assert plain.names is None
    assert torch.equal(plain.vectors, named.vectors)
    with pytest.raises(MaedError) as error:
        PositionEmbedding(before.vectors).extend(X, names=NEW)
    assert error.value.argument == "names"


def test_correlations_leave_out_what_is_missing_on_either_side() -> None:
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1_500, 7)) + generator.normal(size=(1_500, 1)) + 1e4
    x[generator.random(x.shape) < 0.3] = np.nan
    found, counts = correlations(x[:, :3, None], x[:, 3:, None])
    np.testing.assert_allclose(found, pd.DataFrame(x).corr().to_numpy()[:3, 3:], atol=1e-9)
    assert counts[0, 1] == (~np.isnan(x[:, 0]) & ~np.isnan(x[:, 4])).sum()


def test_a_twin_lies_where_its_twin_lies_whatever_its_sign(before: PositionEmbedding, together: pd.DataFrame) -> None:
    after = before.extend(together.drop(columns=NEW).assign(twin=5 - 2 * together["S08"]))
    torch.testing.assert_close(after.vectors[57], before.vectors[before.index("S08")], rtol=1e-4, atol=1e-4)


def test_a_position_that_tells_of_no_other_is_said(before: PositionEmbedding, together: pd.DataFrame) -> None:
    noise = np.random.default_rng(5).normal(size=len(together))
    with pytest.warns(UserWarning, match="noise"):
        before.extend(together.drop(columns=NEW).assign(noise=noise))


@pytest.mark.parametrize("change", ["an old one missing", "none new", "constant", "never measured", "tokens", "names"])
def test_what_cannot_be_placed_is_refused(before: PositionEmbedding, together: pd.DataFrame, change: str) -> None:
    known = together.drop(columns=NEW)
    X, names = {
        "an old one missing": (together.drop(columns="S03"), None),
        "none new": (known, None),
        "constant": (known.assign(dead=0.1), None),
        "never measured": (known.assign(dead=np.nan), None),
        "tokens": (np.ones((9, 58), dtype=np.int64), None),
        "names": (together.to_numpy(), ["too", "few"]),
    }[change]
    with pytest.raises(MaedError) as error:
        before.extend(X, names)
    assert error.value.argument == ("names" if change == "names" else "X")


def test_held_out_positions_find_nearly_the_neighbors_that_they_have_when_learned_together() -> None:
    data = load("field:grid:144", DataSettings(limit=1_000))
    X, true = data.train.values[..., 0], data.geometry.distances()
    new = np.random.default_rng(0).permutation(144)[:14]
    old = np.setdiff1d(np.arange(144), new)
    learner = PositionLearner(method="correlation", random_state=0)
    placed = clone(learner).fit(X[:, old]).embedding_.extend(X[:, [*old, *new]])
    whole = clone(learner).fit(X).embedding_.subset([*old.tolist(), *new.tolist()])

    def recall(vectors: torch.Tensor) -> float:
        near = torch.cdist(vectors[len(old) :], vectors[: len(old)]).argsort(dim=1)[:, :8].numpy()
        there = true[np.ix_(new, old)]
        eighth = np.sort(there, axis=1)[:, 7:8]
        return float((np.take_along_axis(there, near, axis=1) <= eighth + 1e-6).mean())

    assert recall(placed.vectors) > recall(whole.vectors) - 0.08


# --- claimed geometry -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["digits", "field:grid:64"])
def test_sides_under_which_neighbors_are_far_are_doubted(source: str) -> None:
    data = load(source, DataSettings(limit=800))
    learned = PositionLearner(method="correlation", random_state=0).fit(data.train.values).embedding_
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned.resampled("grid:4x4", "grid:8x8")
    for sides in ("4x16", "16x4", "2x32", "32x2"):
        with pytest.warns(UserWarning, match="8 x 8"):
            learned.resampled("grid:4x4", f"grid:{sides}")
    shuffled = learned.subset(np.random.default_rng(0).permutation(64).tolist())
    for target, claimed in (("grid:4x4", "grid:8x8"), ("line:9", "line:64")):
        with pytest.warns(UserWarning, match="neighbors"):
            shuffled.resampled(target, claimed)
