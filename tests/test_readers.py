"""Readers of files and objects, beyond what each kind becomes: axes with names, containers, recordings, long tables."""

from __future__ import annotations

import json
import pickle
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import xarray as xr
import zarr

from files_people_have import LAT, LON, X, all_values, gridded, ordered, recording
from maed import MaedError, PositionEmbedding
from maed.cli import main
from maed.data import Geometry, from_given, load
from maed.data.delimited import read_delimited
from maed.data.geometry import points
from maed.data.long_tables import MixedColumnError, gathered
from maed.data.reading import progress
from maed.data.tables import read_parquet
from maed.encodings import position_table
from maed.evaluation.geometry import geometry_metrics, similarity_metrics
from maed.settings import DataSettings, EvaluationSettings

AS_STORED = DataSettings(normalization="none", missing="mask")


# --- axes with names -------------------------------------------------------------------------------------------------


def test_latitudes_and_longitudes_are_places_on_the_sphere() -> None:
    found = from_given(gridded(), settings=AS_STORED).geometry
    assert found is not None
    angles = found.distances()
    assert found.kind == "sphere"
    assert angles[0, 3] == pytest.approx(np.radians(1), rel=1e-4)  # one degree of latitude
    assert angles[0, 1] == pytest.approx(np.radians(1) * np.cos(np.radians(LAT[0])), rel=1e-3)


def test_coordinates_of_axes_are_places_where_they_mean_one_thing() -> None:
    def geometry(**coordinates: Any) -> Geometry | None:
        axes = [name for name in coordinates if name != "time"]
        data = xr.DataArray(X.reshape(40, *[9 // 3 ** (len(axes) - 1)] * len(axes)), dims=("time", *axes))
        return from_given(data.assign_coords(coordinates), settings=AS_STORED).geometry

    line = geometry(wavelength=("wavelength", 400 + 2.5 * np.arange(9)))
    assert line is not None
    assert line.coordinates[:, 0].tolist() == (400 + 2.5 * np.arange(9)).tolist()
    plane = geometry(y=("y", [0, 1, 2]), x=("x", [0, 10, 20]))
    assert plane is not None
    assert plane.coordinates[[1, 3]].tolist() == [[0, 10], [1, 0]]
    assert geometry(station=("station", np.arange(9))) is None  # may be mere numbers
    assert geometry(y=("y", [0.0, 1, 2], {"units": "m"}), x=("x", [0.0, 1, 2], {"units": "s"})) is None


def test_stations_have_latitudes_of_their_own_and_one_may_have_none() -> None:
    lat = np.where(np.arange(9) == 4, np.nan, 50 + np.arange(9.0))
    data = xr.DataArray(X, dims=("time", "station")).assign_coords(
        lat=("station", lat), lon=("station", np.full(9, LON[0])), who=("time", ["a", "b"] * 20)
    )
    with pytest.warns(UserWarning, match="lat, lon, which 1"):
        found = from_given(data, settings=AS_STORED)
    assert found.geometry is not None
    assert found.geometry.placed.tolist() == [i != 4 for i in range(9)]
    with pytest.raises(MaedError, match="'whom'") as error:
        from_given(data, settings=DataSettings(label="whom"))
    assert error.value.argument == "data.label"


def test_labels_and_groups_lie_along_the_signals(tmp_path: Path) -> None:
    data = xr.Dataset({"v": (("sample", "s"), X), "class": ("sample", np.arange(40) % 2)})
    data = data.assign(subject=("sample", np.arange(40) // 4))
    data.to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    found = load(str(tmp_path / "x.nc"), DataSettings(label="class", group="subject", normalization="none"))
    assert found.classes == ("0", "1")
    of = {row.tobytes(): number // 4 for number, row in enumerate(X)}
    subjects = [
        {of[row.tobytes()] for row in part.values[..., 0]} for part in (found.train, found.validation, found.test)
    ]
    assert sum(map(len, subjects)) == 10


def test_several_axes_of_signals_count_every_combination() -> None:
    data = xr.DataArray(X.reshape(5, 8, 9), dims=("member", "time", "s")).transpose("s", "time", "member")
    np.testing.assert_array_equal(all_values(from_given(data, settings=AS_STORED)), ordered(X.astype(float)))


def test_token_ids_with_named_axes() -> None:
    ids = np.random.default_rng(0).integers(0, 5, size=(40, 9))
    data = from_given(xr.DataArray(ids, dims=("sample", "s")), settings=DataSettings(type="tokens"))
    assert (data.kind, data.vocabulary) == ("tokens", 5)
    for chosen in (DataSettings(type="tokens"), DataSettings(type="image")):
        with pytest.raises(MaedError) as error:
            from_given(xr.DataArray(X, dims=("sample", "s")), settings=chosen)
        assert error.value.argument == "data.type"


# --- containers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "package"), [("x.nc", "xarray"), ("x.h5", "h5py"), ("x.xlsx", "openpyxl")])
def test_what_is_not_installed_is_named(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MaedError, match=rf"{package}.*'maed\["):
        load(str(tmp_path / name))


@pytest.mark.parametrize("axes", [["time", "x"], None])
def test_zarr_unpickles_nothing(axes: list[str] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where numcodecs was told that it may, and whichever array it is."""
    monkeypatch.setattr("numcodecs.pickles.ALLOW_UNSAFE_PICKLE_DECODE", True, raising=False)
    folder, ran = tmp_path / "x.zarr", tmp_path / "ran"
    zarr.create_group(folder, zarr_format=2).create_array("inputs", data=X, compressors=None)

    class Runs:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    (folder / "x").mkdir()
    (folder / "x" / "0").write_bytes(pickle.dumps(Runs()))
    codec = '{"id": "pick\\u006ce"}'
    (folder / "x" / ".zarray").write_text(
        f'{{"zarr_format": 2, "shape": [9], "chunks": [9], "dtype": "|O", "compressor": {codec}, "fill_value": "",'
        ' "order": "C", "filters": [{"id": "vlen-utf8"}]}'
    )
    for name, dims in (("inputs", axes), ("x", axes and axes[1:])):
        (folder / name / ".zattrs").write_text(json.dumps({"_ARRAY_DIMENSIONS": dims} if dims else {}))
    with pytest.raises(MaedError, match="pickle"):
        load(str(folder))
    assert not ran.exists()


def test_hdf5_opens_no_other_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("a", shape=(40, 9), dtype="f4", external=[(str(tmp_path / "secret"), 0, 40 * 9 * 4)])
    (tmp_path / "secret").write_bytes(X.tobytes())
    with pytest.raises(MaedError, match="other files"):
        load(str(tmp_path / "x.h5"))
    with h5py.File(tmp_path / "y.h5", "w") as file:
        file["there"] = h5py.ExternalLink("other.h5", "a")
    with pytest.raises(MaedError, match=r"y\.h5"):
        load(str(tmp_path / "y.h5"))


@pytest.mark.parametrize("name", ["x.nc", "x.h5", "x.mat", "x.xlsx"])
def test_broken_containers_are_refused_in_one_line(name: str, tmp_path: Path) -> None:
    for content in (b"", b"\x89HDF\r\n\x1a\n" + bytes(600), b"\x00\xff garbage \x00\n\xfe" * 60):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MaedError, match=name) as error:
            load(str(tmp_path / name))
        assert "\n" not in str(error.value)


def test_a_folder_that_is_no_zarr(tmp_path: Path) -> None:
    (tmp_path / "x.zarr").mkdir()
    with pytest.raises(MaedError, match=r"x\.zarr"):
        load(str(tmp_path / "x.zarr"))


def test_info_says_what_was_understood_of_a_container(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gridded().to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    assert main(["info", str(tmp_path / "x.nc")]) == 0
    shown = capsys.readouterr()
    assert "9 positions" in shown.out
    assert "t2m" in shown.err
    gridded().to_dataset().assign(tp=gridded()).to_netcdf(tmp_path / "two.nc", engine="h5netcdf")
    assert main(["info", str(tmp_path / "two.nc")]) == 2
    assert "tp" in capsys.readouterr().err


# --- recordings and cells (stand-ins with the attributes of MNE's and AnnData's objects) ------------------------------


def test_no_epoch_is_in_two_splits_and_no_window_spans_two() -> None:
    found = from_given(recording(8), settings=DataSettings(normalization="none"))
    of = {row.tobytes(): number // 5 for number, row in enumerate(X)}
    epochs = [
        {of[row.tobytes()] for row in part.values[..., 0]} for part in (found.train, found.validation, found.test)
    ]
    assert sum(map(len, epochs)) == 8
    with pytest.warns(UserWarning, match="group"):
        windows = from_given(recording(8), settings=DataSettings(window=4, stride=1, normalization="none"))
    assert sum(len(part) for part in (windows.train, windows.validation, windows.test)) <= 8 * 2
    assert windows.channels == 4


def test_bad_channels_are_left_out() -> None:
    raw = recording(1)
    raw.info = {"bads": ["s0", "s3"]}
    with pytest.warns(UserWarning, match=r"s0 \(bad\), s3 \(bad\)"):
        assert from_given(raw, settings=AS_STORED).names == ("s1", "s2", "s4", "s5", "s6", "s7", "s8")
    raw.info = {"bads": [f"s{i}" for i in range(8)]}
    with pytest.raises(MaedError) as error:
        from_given(raw)
    assert error.value.argument == "X"


def test_cells_without_a_matrix_or_with_a_layer_that_is_not_there() -> None:
    names = {"obs_names": range(40), "var_names": [f"g{i}" for i in range(9)]}
    with pytest.raises(MaedError) as error:
        from_given(SimpleNamespace(X=None, layers={}, **names))
    assert error.value.argument == "X"
    with pytest.raises(MaedError, match="counts") as error:
        from_given(SimpleNamespace(X=X, layers={"counts": X}, **names), settings=DataSettings(columns=["count"]))
    assert error.value.argument == "data.columns"


# --- positions without a place ----------------------------------------------------------------------------------------


def test_positions_without_a_place_are_left_out_of_metrics(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    places = generator.normal(size=(40, 2))
    noisy = np.concatenate([places, generator.normal(size=(40, 2)) / 9], axis=1)
    vectors = PositionEmbedding(torch.from_numpy(noisy).float()).vectors.detach()
    lost = np.array([3, 17, 30])
    with pytest.warns(UserWarning, match=r"3 of 40 .*: 3, 17, 30"):
        some = points(np.where(np.isin(np.arange(40), lost)[:, None], np.nan, places))
    rest = np.delete(np.arange(40), lost)
    settings = EvaluationSettings()
    assert geometry_metrics(vectors, some, settings) == geometry_metrics(vectors[rest], points(places[rest]), settings)
    whole = -torch.cdist(vectors, vectors)
    expected = similarity_metrics(whole[rest][:, rest], points(places[rest]), settings)
    assert similarity_metrics(whole, some, settings) == expected
    with pytest.raises(MaedError, match="fourier"):
        position_table("fourier", 40, 8, seed=0, geometry=some)
    PositionEmbedding(vectors, geometry=some).save_pretrained(tmp_path)
    again = PositionEmbedding.from_pretrained(tmp_path)
    assert again.geometry is not None
    assert np.flatnonzero(~again.geometry.placed).tolist() == lost.tolist()
    with pytest.raises(MaedError) as error:
        again.resampled("line:20")
    assert error.value.argument == "resample"


def test_places_that_a_file_does_not_have_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    places, names = generator.normal(size=(40, 2)), [f"s{i}" for i in range(40)]
    PositionEmbedding(torch.from_numpy(places).float(), names=names).save_pretrained(tmp_path / "embedding")
    table = pd.DataFrame({"name": names, "x": places[:, 0], "y": places[:, 1]})
    table.loc[5, "x"] = np.nan  # a row without a place; two rows are not there at all
    table.drop(index=[0, 39]).sample(frac=1, random_state=0).to_csv(tmp_path / "places.csv", index=False)
    code = main(["evaluate", str(tmp_path / "embedding"), "--coordinates", str(tmp_path / "places.csv")])
    shown = capsys.readouterr()
    assert code == 0
    assert "0, 5, 39" in shown.err
    assert "knn_recall@8: 1.0000" in shown.out
    for wrong in (np.full((9, 1), np.nan), np.full((9, 1), np.inf)):
        with pytest.raises(MaedError) as error:
            points(wrong)
        assert error.value.argument == "coordinates"


# --- long tables ------------------------------------------------------------------------------------------------------


def pieces(table: pa.Table, rows: int = 7) -> list[pa.RecordBatch]:
    return table.to_batches(max_chunksize=rows)


def test_columns_of_pieces_are_those_of_the_whole() -> None:
    large = np.arange(40) + (1 << 40)
    large[:20] = np.arange(20)  # small in the first pieces
    table = pa.table(
        {
            "real": pa.array([None, *X[1:, 0].tolist()]),
            "whole": np.arange(40),
            "large": large,
            "holed": pa.array([None, *range(39)]),
            "text": [str(i) for i in range(40)],
            "late": [None] * 20 + ["a"] * 20,
            "list": X.astype(np.float64).tolist(),
            "day": pd.date_range("2020-01-01", periods=40),
            "nothing": pa.nulls(40),
        }
    )
    found = gathered(pieces(table), 50, table.column_names, "x")
    assert found.num_rows == 40
    assert [str(found[name].type) for name in ("real", "whole", "large", "holed")] == [
        "float",
        "int32",
        "int64",
        "float",
    ]
    np.testing.assert_array_equal(found["real"].to_numpy(), np.where(np.arange(40) == 0, np.nan, X[:, 0]))
    assert found["large"].to_pylist() == large.tolist()
    for name in ("whole", "text", "late", "day", "nothing"):
        assert found[name].to_pylist() == table[name].to_pylist()
    np.testing.assert_array_equal(np.array(found["list"].to_pylist(), np.float32), X)


def test_numbers_beyond_a_share_of_the_memory_lie_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maed.machine.memory", lambda: 1_000)
    table = pa.table({f"s{i}": X[:, i] for i in range(9)})
    with pytest.warns(UserWarning, match="temporary file"):
        found = gathered(pieces(table), 40, table.column_names, "x")
    np.testing.assert_array_equal(np.stack([column.to_numpy() for column in found.columns], axis=1), X)


@pytest.mark.parametrize("later", ["a text", f"{(1 << 40) + 1}"])
def test_a_column_that_changes_its_kind_is_read_as_a_whole(
    later: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pd.DataFrame(X, columns=list("abcdefghi")).assign(last=np.arange(40)).astype({"last": object})
    frame.loc[39, "last"] = later
    frame.to_csv(tmp_path / "x.csv", index=False)
    whole = read_delimited(tmp_path / "x.csv")
    monkeypatch.setattr("maed.data.delimited.LONG", 0)
    monkeypatch.setattr("maed.data.delimited.PIECE", 1 << 9)
    assert read_delimited(tmp_path / "x.csv").equals(whole)
    texts = pa.table({"a": ["x"] * 9})
    with pytest.raises(MixedColumnError):
        gathered([*pieces(pa.table({"a": X[:9, 0]})), *pieces(texts)], 18, ["a"], "x")


def test_long_shards_keep_the_names_of_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maed.data.tables.LONG", 0)
    table = pa.table({"a": X[:, 0], "b": X[:, 1]}).replace_schema_metadata({"huggingface": "{}"})
    paths = [tmp_path / "0.parquet", tmp_path / "1.parquet"]
    for path in paths:
        pq.write_table(table, path)
    found = read_parquet(paths)
    assert found.schema.metadata[b"huggingface"] == b"{}"
    np.testing.assert_array_equal(found["b"].to_numpy(), np.tile(X[:, 1], 2))


def test_long_work_tells_of_its_progress(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("maed.data.reading._LINES", 0.0)
    with progress("reading x.csv", 200) as told:
        told(50)
    assert "50 %" not in (shown := capsys.readouterr().err)
    assert "25 %" in shown
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with progress("reading x.csv", 200) as told:
            told(200)
    assert "reading x.csv" in capsys.readouterr().err


def test_the_remedy_of_several_variables_is_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gridded().to_dataset().assign(tp=gridded()).to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    command = ["pretrain", str(tmp_path / "x.nc"), "--out", str(tmp_path / "run"), "--autoencoder.steps", "2"]
    assert main(command) == 2
    assert "[t2m]" in capsys.readouterr().err
    assert main([*command, "--data.columns", "[t2m]"]) == 0
