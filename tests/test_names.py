"""Names of positions travel with an embedding: from the columns of a table to neighbors, subsets, graphs and maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from maed import AddPositions, MaedError, PositionEmbedding, PositionLearner
from maed.cli import main
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
    with pytest.raises(MaedError, match="'S0' is the name of none, did you mean"):
        ring.neighbors("S0")
    with pytest.raises(MaedError, match="no names"):
        PositionEmbedding(torch.randn(4, 2)).index("S00")


def test_names_are_kept_on_disk_and_through_other_channels(ring: PositionEmbedding, tmp_path: Path) -> None:
    ring.save_pretrained(tmp_path)
    again = PositionEmbedding.from_pretrained(tmp_path)
    assert again.names == ring.names == ring.with_dim(3).names
    for names in (["a"] * 20, SENSORS[:3], [1] * 20):
        config = json.loads((tmp_path / "config.json").read_text())
        (tmp_path / "config.json").write_text(json.dumps({**config, "names": names}))
        with pytest.raises(MaedError, match="names are"):
            PositionEmbedding.from_pretrained(tmp_path)


def test_a_run_names_positions_as_they_are_permuted(tmp_path: Path) -> None:
    pd.DataFrame(ring_signals(500, 20), columns=SENSORS).to_csv(tmp_path / "x.csv", index=False)
    short = [
        "--similarity.method=correlation",
        "--autoencoder.steps=2",
        "--similarity.draws=64",
        "--embedding.force=true",
    ]
    arguments = ["run", str(tmp_path / "x.csv"), "--out", str(tmp_path / "run"), "--data.permute=3", *short]
    assert main([*arguments, "--evaluation.probe_steps=0"]) == 0
    found = PositionEmbedding.from_pretrained(tmp_path / "run/baselines/correlation/embedding")
    assert found.names != tuple(SENSORS)
    assert {*found.neighbors("S05", k=2)} == {"S04", "S06"}


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
    with pytest.raises(MaedError, match="none"):
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
