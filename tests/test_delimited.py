"""How tables are written is found out; what stands for missing values is asked about. Kinds: files_people_have.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from files_people_have import NAMES, X
from maed import MaedError, PositionLearner
from maed.cli import main
from maed.data import from_given, load
from maed.data.delimited import find_dialect
from maed.settings import DataSettings

AS_STORED = DataSettings(normalization="none", missing="mask")


@given(
    values=st.lists(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3), min_size=4, max_size=12),
    delimiter=st.sampled_from([",", ";", "\t", "|", " "]),
    named=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_the_delimiter_and_the_header_are_found(values: list[list[float]], delimiter: str, named: bool) -> None:
    text = ("a,b,c\n".replace(",", delimiter) if named else "") + "".join(
        delimiter.join(f"{value:.3f}" for value in row) + "\n" for row in values
    )
    found = find_dialect(text)
    assert found.delimiter == delimiter
    assert found.names == (("a", "b", "c") if named else None)
    assert found.skipped == int(named)


@pytest.mark.parametrize("value", [-9999.0, -999.0, 1e37])
def test_numbers_that_stand_for_missing_ones_are_named_and_asked_about(value: float) -> None:
    holes = np.random.default_rng(1).random(X.shape) < 0.2
    holes[:, 4] = True
    stored = np.where(holes, value, X).astype(np.float32)
    with pytest.raises(MaedError, match="missing_values") as error:
        PositionLearner(method="correlation").fit(stored)
    assert f"{value:g}" in str(error.value)
    for given_, missing_values in ((stored, value), (np.where(holes, np.nan, X), None)):
        learner = PositionLearner(method="correlation", missing_values=missing_values, force=True, random_state=0)
        with pytest.warns(UserWarning, match="1 of 9 positions have no"):
            learner.fit(given_, coordinates=np.arange(9.0)[:, None])
        assert (learner.embedding_.n, learner.n_features_in_) == (8, 9)
        assert learner.embedding_.coordinates[:, 0].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    as_they_are = PositionLearner(method="correlation", missing_values=[], force=True).fit(stored)
    assert as_they_are.embedding_.n == 9


def test_numbers_that_are_far_but_rare_or_near_are_left_alone() -> None:
    for values in (X * 1_000, np.where(X > 3, 99, X), np.clip(X * 40, -99, 99)):
        assert from_given(values, settings=AS_STORED).positions == 9


@pytest.mark.parametrize("values", [[-1, 1], [-1, 0, 1], [0, 100, 200, 255], [-2, -1, 0, 1, 2]])
@pytest.mark.parametrize("dtype", ["int8", "int64", "float32"])
def test_whole_numbers_that_are_as_they_seem_are_left_alone(values: list[int], dtype: str) -> None:
    if dtype == "int8" and max(values) > 127:
        dtype = "uint8"
    drawn = np.random.default_rng(0).choice(values, size=(60, 5)).astype(dtype)
    data = from_given(drawn, settings=DataSettings(type="real", normalization="none"))
    assert set(np.unique(data.train.values)) == set(values)


# --- as published -------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_raw_files_of_real_sensors_read_as_they_were_published(data_folder: Path) -> None:
    folder = data_folder / "sensors"
    if not folder.is_dir():
        pytest.skip("no sensors among the data")
    with pytest.raises(MaedError, match="-9999"):
        load(str(folder / "noaa_tmax/Tmax_1990.dat"), DataSettings())
    stations = load(str(folder / "noaa_tmax/Tmax_1990.dat"), DataSettings(missing_values=[-9999], normalization="none"))
    with np.load(folder / "noaa_tmax/noaa_tmax.npz") as stored:
        assert stations.positions == stored["inputs"].shape[1] == 137
        total = sum(
            np.where(p.mask, p.values[..., 0], 0).sum() for p in (stations.train, stations.validation, stations.test)
        )
        assert total == pytest.approx(np.nansum(stored["inputs"]), rel=1e-4)
    speech = load(str(folder / "phoneme/phoneme-600.csv"), DataSettings(label="g"))
    assert (speech.positions, len(speech.classes)) == (256, 5)
    assert speech.columns[:2] == ("x.1", "x.2")


def test_info_says_what_was_understood_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pd.DataFrame(X, columns=NAMES).assign(day="Monday")
    frame.iloc[:4, 0] = np.nan
    frame.to_csv(tmp_path / "x.csv", index=False, sep=";", decimal=",")
    assert main(["info", str(tmp_path / "x.csv")]) == 0
    shown = capsys.readouterr()
    assert "positions: s0, s1, s2" in shown.out
    assert "missing values: 1.1 %" in shown.out
    assert "semicolons; decimal commas" in shown.err
    assert "'day' (names)" in shown.err
