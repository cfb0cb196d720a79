"""Files and objects as people have them: each reads as the clean array does, or is refused with its remedy."""

from __future__ import annotations

import gzip
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maed import MaedError, PositionLearner
from maed.cli import main
from maed.data import from_given, load
from maed.data.delimited import find_dialect
from maed.settings import DataSettings

X = np.random.default_rng(0).normal(size=(40, 9)).round(4).astype(np.float32)
NAMES = [f"s{i}" for i in range(9)]
AS_STORED = DataSettings(normalization="none", missing="mask")


def rows(delimiter: str, decimal: str = ".", scale: int = 1) -> str:
    return "".join(delimiter.join(f"{v * scale:.4f}".replace(".", decimal) for v in row) + "\n" for row in X)


def grouped() -> str:
    """10,000 times the values, as a spreadsheet in German writes them."""
    turn = str.maketrans(",.", ".,")
    return "".join(";".join(f"{v * 10_000:,.2f}".translate(turn) for v in row) + "\n" for row in X)


def head(delimiter: str) -> str:
    return delimiter.join(NAMES) + "\n"


FILES: dict[str, str] = {
    "plain.csv": head(",") + rows(","),
    "no header.csv": rows(","),
    "semicolons and decimal commas.csv": head(";") + rows(";", ","),
    "grouped thousands.csv": head(";") + grouped(),
    "tabs.tsv": head("\t") + rows("\t"),
    "tabs.csv": head("\t") + rows("\t"),
    "bars.csv": head("|") + rows("|"),
    "blanks.dat": rows("   "),
    "blanks and names.dat": head(" ") + rows(" "),
    "a comment of names.dat": f"# {head(' ')}" + rows(" "),
    "byte order mark.csv": "\ufeff" + head(",") + rows(","),
    "byte order mark, no header.csv": "\ufeff" + rows(","),
    "lines of Windows.csv": (head(",") + rows(",")).replace("\n", "\r\n"),
    "wavelengths.csv": ",".join(f"{400 + i / 2}" for i in range(9)) + "\n" + rows(","),
    "wavelengths that fall.csv": ",".join(str(900 - i) for i in range(9)) + "\n" + rows(","),
    "numbers of columns.csv": ",".join(map(str, range(9))) + "\n" + rows(","),
    "units.csv": head(",") + ",".join(["mV"] * 9) + "\n" + rows(","),
    "a title.csv": "Recording of 3 May\n\n" + head(",") + rows(","),
    "row names of R.dat": head(" ") + "".join(f'"{i}" {line}\n' for i, line in enumerate(rows(" ").splitlines(), 1)),
    "an index without a name.csv": pd.DataFrame(X, columns=NAMES).to_csv(),
    "numbers of rows.csv": pd.DataFrame(X, columns=NAMES).to_csv(index_label="row.names"),
    "dates.csv": pd.DataFrame(X, columns=NAMES).assign(day=pd.date_range("2020-01-01", periods=40)).to_csv(index=False),
    "classes and speakers.csv": pd.DataFrame(X, columns=NAMES)
    .assign(g=["aa", "sh"] * 20, speaker=[f"dr{i}" for i in range(40)])
    .to_csv(index=False),
    "an empty column.csv": pd.DataFrame(X, columns=NAMES).assign(note=np.nan).to_csv(index=False),
}


def all_values(data: Any) -> np.ndarray:
    """The signals of all splits as a set of rows, sorted."""
    values = np.concatenate([data.train.values, data.validation.values, data.test.values])[..., 0]
    return values[np.lexsort(values.T)]


def read(path: Path, **chosen: Any) -> np.ndarray:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return all_values(load(str(path), DataSettings(normalization="none", **chosen)))


CLEAN = X[np.lexsort(X.T)]


@pytest.mark.parametrize("name", list(FILES))
def test_a_table_reads_as_the_clean_array(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name].encode())
    scale = 10_000 if "thousands" in name else 1
    np.testing.assert_allclose(read(path), scale * CLEAN, atol=1e-4 * scale)


def test_compressed_tables_and_sheets(tmp_path: Path) -> None:
    (tmp_path / "x.csv.gz").write_bytes(gzip.compress(FILES["semicolons and decimal commas.csv"].encode()))
    np.testing.assert_allclose(read(tmp_path / "x.csv.gz"), CLEAN, atol=1e-4)
    (tmp_path / "x.log.gz").write_bytes(gzip.compress(b"1 2 3\n"))
    with pytest.raises(MaedError, match=r"must say \.csv, \.tsv or \.dat"):
        read(tmp_path / "x.log.gz")


def test_what_is_set_aside_or_out_of_the_ordinary_is_said(tmp_path: Path) -> None:
    for name, told in (
        ("no header.csv", "no line of names"),
        ("semicolons and decimal commas.csv", "separated by semicolons; decimal commas"),
        ("wavelengths.csv", r"400.0, 400.5, 401.0, \.\.\.\) are names of columns"),
        ("units.csv", "are left out: 'mV mV"),
        ("classes and speakers.csv", r"'g', 'speaker' \(names\); --data.label g takes one for the labels"),
        ("numbers of rows.csv", r"'row.names' \(numbers of rows\)"),
        ("dates.csv", r"'day' \(dates\)"),
    ):
        (tmp_path / name).write_bytes(FILES[name].encode())
        with pytest.warns(UserWarning, match=told):
            load(str(tmp_path / name), DataSettings())
    (tmp_path / "plain.csv").write_bytes(FILES["plain.csv"].encode())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(str(tmp_path / "plain.csv"), DataSettings())


@pytest.mark.parametrize(
    ("text", "reason"),
    [("a;b\n" + "1,234;5,678\n" * 9, "may be a fraction or a thousand"), ("a;b\n1,5;2\n2.5;3\n" * 9, "not both")],
)
def test_numbers_that_may_mean_two_things_are_refused(text: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(MaedError, match=reason):
        load(str(tmp_path / "x.csv"), DataSettings())


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


# --- objects ------------------------------------------------------------------------------------------------------


def test_masked_values_are_missing_ones() -> None:
    hidden = np.random.default_rng(1).random(X.shape) < 0.2
    masked = np.ma.masked_array(np.where(hidden, 1e37, X), hidden)
    clean = np.where(hidden, np.nan, X).astype(np.float32)
    objects = clean.astype(object)
    objects[hidden] = pd.NA
    objects[0, hidden[0]] = None
    for given_ in (masked, iter([masked[:20], masked[20:]]), objects, pd.DataFrame(clean).convert_dtypes()):
        data, wanted = (from_given(x, settings=AS_STORED) for x in (given_, clean))
        for part, other in ((data.train, wanted.train), (data.validation, wanted.validation)):
            np.testing.assert_array_equal(part.mask, other.mask)
            np.testing.assert_allclose(part.values[part.mask], other.values[other.mask], rtol=1e-6)


def test_a_list_that_is_missing_is_left_out(tmp_path: Path) -> None:
    table = pa.table({"x": [None if i == 3 else row.tolist() for i, row in enumerate(X)]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.warns(UserWarning, match="miss all positions, and are left out; the first is signal 3"):
        data = load(str(tmp_path / "x.parquet"), AS_STORED)
    np.testing.assert_allclose(all_values(data), np.delete(X, 3, axis=0)[np.lexsort(np.delete(X, 3, axis=0).T)])


class MapStyle(torch.utils.data.Dataset[Any]):
    """A data set of torch's kind, which is asked for one signal after another."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, number: int) -> Any:
        if number >= len(X):
            raise IndexError
        return self.of(torch.from_numpy(X[number]), number)


@pytest.mark.parametrize(
    "handed",
    [
        MapStyle(lambda x, i: (x, i % 2)),
        MapStyle(lambda x, i: {"inputs": x, "labels": i % 2}),
        MapStyle(lambda x, i: {"eeg": x, "subject": i}),
        torch.utils.data.TensorDataset(torch.from_numpy(X), torch.arange(len(X))),
        torch.utils.data.DataLoader(MapStyle(lambda x, i: {"x": x, "y": i}), batch_size=8),
        torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(X)), batch_size=8),
    ],
)
def test_data_sets_and_loaders_of_torch(handed: Any) -> None:
    np.testing.assert_array_equal(all_values(from_given(handed, settings=AS_STORED)), CLEAN)


def test_batches_that_may_mean_two_things_are_refused() -> None:
    loader: Any = torch.utils.data.DataLoader(MapStyle(lambda x, i: {"a": x, "b": x}), batch_size=8)
    with pytest.raises(MaedError, match="'a', 'b'; one of them must be called inputs"):
        from_given(loader)


def test_archives_with_usual_names_are_read_and_it_is_said(tmp_path: Path) -> None:
    classes = np.arange(len(X)) % 2
    for arrays, told in (
        ({"X": X, "y": classes, "more": classes}, "takes 'X' for inputs, 'y' for labels; not read: more"),
        ({"eeg": X}, "takes 'eeg' for inputs"),
        ({"data": X, "coords": np.arange(9.0)[:, None]}, "takes 'data' for inputs, 'coords' for coordinates"),
    ):
        np.savez(tmp_path / "x.npz", **arrays)
        with pytest.warns(UserWarning, match=told):
            data = load(str(tmp_path / "x.npz"), AS_STORED)
        np.testing.assert_array_equal(all_values(data), CLEAN)
        assert data.labeled == ("y" in arrays)
        assert (data.geometry is not None) == ("coords" in arrays)


def test_what_looks_wrong_with_an_array_is_said() -> None:
    with pytest.warns(UserWarning, match="200 positions and only 13 signals to train on; rows must be signals"):
        from_given(np.random.default_rng(0).normal(size=(18, 200)))
    frame = pd.DataFrame(X, columns=NAMES)
    with pytest.warns(UserWarning, match="1 of 10 positions repeat another one: again is the same as s3"):
        from_given(frame.assign(again=frame["s3"]))


@pytest.mark.parametrize("value", [-9999.0, -999.0, 1e37])
def test_numbers_that_stand_for_missing_ones_are_named_and_asked_about(value: float) -> None:
    holes = np.random.default_rng(1).random(X.shape) < 0.2
    holes[:, 4] = True
    stored = np.where(holes, value, X).astype(np.float32)
    with pytest.raises(MaedError, match=r"far from all others .* missing_values"):
        PositionLearner(method="correlation").fit(stored)
    for given_, missing_values in ((stored, value), (np.where(holes, np.nan, X), None)):
        learner = PositionLearner(method="correlation", missing_values=missing_values, force=True, random_state=0)
        with pytest.warns(UserWarning, match="1 of 9 positions have no value at all, and are left out: 4"):
            learner.fit(given_, coordinates=np.arange(9.0)[:, None])
        assert (learner.embedding_.n, learner.n_features_in_) == (8, 9)
        assert learner.embedding_.coordinates[:, 0].tolist() == [0, 1, 2, 3, 5, 6, 7, 8]
    as_they_are = PositionLearner(method="correlation", missing_values=[], force=True).fit(stored)
    assert as_they_are.embedding_.n == 9


def test_numbers_that_are_far_but_rare_or_near_are_left_alone() -> None:
    for values in (X * 1_000, np.where(X > 3, 99, X), np.clip(X * 40, -99, 99)):
        assert from_given(values, settings=AS_STORED).positions == 9


# --- as published -------------------------------------------------------------------------------------------------


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
