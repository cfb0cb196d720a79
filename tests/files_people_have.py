"""Files and objects as people have them, what each becomes, and the table of them in docs/files.md.

    python tests/files_people_have.py   # writes the table anew

MNE's and AnnData's objects are stand-ins that have the attributes of theirs: neither package is needed to read them.
"""

from __future__ import annotations

import gzip
import pickle
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import scipy.io
import torch
import xarray as xr
import zarr
from scipy.sparse import csr_matrix

from maed import MaedError
from maed.data import SignalData, from_given, load
from maed.settings import DataSettings

DOCS = Path(__file__).parents[1] / "docs" / "files.md"

X = np.random.default_rng(0).normal(size=(40, 9)).round(4).astype(np.float32)
NAMES = [f"s{i}" for i in range(9)]
HOLES = np.random.default_rng(1).random(X.shape) < 0.2
HOLED = np.where(HOLES, np.nan, X).astype(np.float32)
COUNTS = np.random.default_rng(2).integers(0, 7, size=(40, 9))
COUNTS_HOLED = np.where(HOLES, np.nan, COUNTS)
CLASSES = np.arange(40) % 2
FRAME = pd.DataFrame(X, columns=NAMES)
LAT, LON = [50.0, 51.0, 52.0], [7.0, 8.0, 9.0]


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
    "an index without a name.csv": FRAME.to_csv(),
    "numbers of rows.csv": FRAME.to_csv(index_label="row.names"),
    "dates.csv": FRAME.assign(day=pd.date_range("2020-01-01", periods=40)).to_csv(index=False),
    "classes and speakers.csv": FRAME.assign(g=["aa", "sh"] * 20, speaker=[f"dr{i}" for i in range(40)]).to_csv(
        index=False
    ),
    "an empty column.csv": FRAME.assign(note=np.nan).to_csv(index=False),
}
"""Tables in text that read as the clean array does."""

_FACTS = {
    "no header.csv": ("no header",),
    "semicolons and decimal commas.csv": ("semicolons", "decimal commas"),
    "wavelengths.csv": ("400.0, 400.5, 401.0",),
    "units.csv": ("mV mV",),
    "a title.csv": ("Recording of 3 May",),
    "classes and speakers.csv": ("'g', 'speaker'", "--data.label g"),
    "numbers of rows.csv": ("'row.names'",),
    "dates.csv": ("'day'",),
    "an empty column.csv": ("'note'",),
}
_NAMELESS = ("no header.csv", "blanks.dat", "byte order mark, no header.csv", "numbers of columns.csv")


@dataclass(frozen=True)
class Case:
    """A file or object, and what it becomes.

    Args:
        what: how the table calls it.
        make: writes a file into a folder and returns its path, or returns an object.
        clean: `(n, N)` what is read, NaN where it is missing; None where it is refused.
        names: of positions.
        facts: what lines or the refusal must name.
        argument: of the refusal; `path` where it begins with the file.
        settings: of the reading, that are not the defaults.
        labeled: whether there are labels.
        placed: how many positions have a true place.
    """

    what: str
    make: Callable[[Path], Any]
    clean: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    facts: tuple[str, ...] = ()
    argument: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    labeled: bool = False
    placed: int = 0

    @property
    def is_file(self) -> bool:
        """Whether it is a file; objects are called by their package."""
        return bool(re.search(r"\.\w+$", self.what))


def written(name: str, content: str | bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def by(name: str, write: Callable[[Path], Any]) -> Callable[[Path], Path]:
    """A file that some library writes."""

    def make(folder: Path) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the writer
            write(folder / name)
        return folder / name

    return make


def npz(**arrays: Any) -> Callable[[Path], Path]:
    return by("x.npz", lambda path: np.savez(path, **arrays))


def hdf5(name: str, turned: bool = False, **arrays: np.ndarray) -> Callable[[Path], Path]:
    def write(path: Path) -> None:
        with h5py.File(path, "w", userblock_size=512 if turned else 0) as file:
            for key, value in arrays.items():
                file[key.replace("__", "/")] = value.T if turned else value

    return by(name, write)


def zarr_group(path: Path) -> None:
    group = zarr.open_group(path, mode="w")
    for name, values in {"X": X, "y": CLASSES}.items():
        group.create_array(name, data=values)


def sheets(path: Path) -> None:
    with pd.ExcelWriter(path) as book:
        FRAME.to_excel(book, sheet_name="signals", index=False)
        FRAME.to_excel(book, sheet_name="notes")


def gridded(values: np.ndarray = X, **attributes: Any) -> xr.DataArray:
    """The signals on a grid of 3 x 3 places."""
    return xr.DataArray(
        values.reshape(40, 3, 3),
        dims=("time", "lat", "lon"),
        coords={"time": pd.date_range("2020-01-01", periods=40), "lat": LAT, "lon": LON},
        name="t2m",
        attrs=attributes,
    )


def stations() -> xr.DataArray:
    return xr.DataArray(X, dims=("time", "station"), coords={"station": NAMES}, name="tmax")


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


def loader(of: Any) -> Any:
    return torch.utils.data.DataLoader(of, batch_size=8)


class Recording:
    """A stand-in for MNE's `Raw` and `Epochs`: the same attributes and methods, as far as they are read."""

    def __init__(self, values: np.ndarray) -> None:
        self.values = values
        self.ch_names = [*NAMES, "EOG", "STI"]
        self.info: dict[str, list[str]] = {"bads": []}

    def get_data(self) -> np.ndarray:
        return self.values

    def get_channel_types(self) -> list[str]:
        return ["eeg"] * 9 + ["eog", "stim"]

    def get_montage(self) -> Any:
        places = {name: np.array([i, 0.0, 1.0]) for i, name in enumerate(NAMES[:8])}
        return SimpleNamespace(get_positions=lambda: {"ch_pos": places})


def recording(epochs: int) -> Recording:
    channels = np.concatenate([X, np.zeros((40, 2))], axis=1)  # (moments, channels)
    values = channels.reshape(epochs, -1, 11).swapaxes(1, 2)
    return Recording(values if epochs > 1 else values[0])


def cells(matrix: Any) -> Any:
    """A stand-in for `AnnData`."""
    names = {"obs_names": pd.Index(range(40)), "var_names": pd.Index(NAMES)}
    return SimpleNamespace(X=matrix, layers={"counts": COUNTS}, shape=(40, 9), **names)


def _text_tables() -> Iterator[Case]:
    for name, content in FILES.items():
        clean = X * 10_000 if "thousands" in name else X
        names = tuple(str(i) for i in range(9)) if name in _NAMELESS else tuple(NAMES)
        if "wavelengths" in name:
            names = tuple(content.split("\n")[0].split(","))
        yield Case(name, written(name, content), clean, names, _FACTS.get(name, ()))
    ambiguous, both = "a;b\n" + "1,234;5,678\n" * 9, "a;b\n1,5;2\n2.5;3\n" * 9
    holed, small = pd.DataFrame(HOLED, columns=NAMES), pd.DataFrame(COUNTS, columns=NAMES)
    filled = holed.fillna(-9999.0)
    yield from (
        Case("compressed.csv.gz", written("x.csv.gz", gzip.compress(FILES["tabs.csv"].encode())), X, tuple(NAMES)),
        Case("`1,234` everywhere.csv", written("x.csv", ambiguous), argument="path", facts=("1,234",)),
        Case("points and commas.csv", written("x.csv", both), argument="path", facts=("1,5", "2.5")),
        Case("compressed.log.gz", written("x.log.gz", gzip.compress(b"1 2 3\n")), argument="path", facts=(".csv",)),
        Case("a table.txt", written("x.txt", FILES["plain.csv"]), argument="source", facts=(".csv",)),
        Case("empty.csv", written("x.csv", b""), argument="source"),
        Case(
            "empty cells.csv", written("x.csv", holed.to_csv(index=False)), argument="inputs", facts=("missing mask",)
        ),
        Case(
            "empty cells.csv",
            written("x.csv", holed.to_csv(index=False)),
            HOLED,
            tuple(NAMES),
            settings={"missing": "mask"},
        ),
        Case(
            "NA of R.csv",
            written("x.csv", holed.to_csv(index=False, na_rep="NA")),
            HOLED,
            tuple(NAMES),
            settings={"missing": "mask"},
        ),
        Case(
            "-9999 for missing.csv", written("x.csv", filled.to_csv(index=False)), argument="inputs", facts=("-9999",)
        ),
        Case(
            "-9999 for missing.csv",
            written("x.csv", filled.to_csv(index=False)),
            HOLED,
            tuple(NAMES),
            settings={"missing_values": [-9999.0]},
        ),
        Case("counts.csv", written("x.csv", small.to_csv(index=False)), COUNTS, facts=("numbers", "tokens")),
        Case(
            "counts.csv",
            written("x.csv", small.to_csv(index=False)),
            COUNTS,
            settings={"type": "tokens"},
        ),
        Case(
            "counts, -1 for missing.csv",
            written("x.csv", small.mask(HOLES, -1).to_csv(index=False)),
            argument="inputs",
            facts=("-1",),
        ),
        Case(
            "classes as numbers.csv",
            written("x.csv", FRAME.assign(target=CLASSES).to_csv(index=False)),
            X,
            tuple(NAMES),
            ("'target'", "--data.label target"),
        ),
        Case(
            "a label of another name.csv",
            written("x.csv", FRAME.assign(diagnosis=np.where(CLASSES, "ill", "well")).to_csv(index=False)),
            X,
            tuple(NAMES),
            settings={"label": "diagnosis"},
            labeled=True,
        ),
        Case(
            "a column twice.csv",
            written("x.csv", FRAME.assign(again=FRAME["s3"]).to_csv(index=False)),
            np.concatenate([X, X[:, 3:4]], axis=1),
            facts=("again", "s3"),
        ),
    )


def _tables() -> Iterator[Case]:
    lists = pa.table({"x": X.tolist()})
    lost = pa.table({"x": [None if i == 3 else row.tolist() for i, row in enumerate(X)]})
    yield from (
        Case("columns.parquet", by("x.parquet", FRAME.to_parquet), X, tuple(NAMES)),
        Case(
            "columns and an index with gaps.parquet",
            by("x.parquet", FRAME.set_index(pd.Index(np.arange(40) ** 2)).to_parquet),
            X,
            tuple(NAMES),
            ("__index_level_0__",),
        ),
        Case("a column of lists.parquet", by("x.parquet", lambda path: pq.write_table(lists, path)), X),
        Case(
            "a list that is null.parquet",
            by("x.parquet", lambda path: pq.write_table(lost, path)),
            np.delete(X, 3, axis=0),
            facts=("signal 3",),
            settings={"missing": "mask"},
        ),
        Case("a sheet.xlsx", by("x.xlsx", lambda path: FRAME.to_excel(path, index=False)), X, tuple(NAMES)),
        Case(
            "a sheet without names.xlsx",
            by("x.xlsx", lambda path: FRAME.to_excel(path, index=False, header=False)),
            X,
            facts=("no header",),
        ),
        Case("several sheets.xlsx", by("x.xlsx", sheets), X, tuple(NAMES), ("'signals'", "notes")),
        Case(
            "an index and dates.xlsx",
            by("x.xlsx", FRAME.assign(day=pd.date_range("2020-01-01", periods=40)).to_excel),
            X,
            tuple(NAMES),
            ("'day'",),
        ),
        Case(
            "an index with gaps.csv",
            written("x.csv", FRAME.set_index(pd.Index(np.arange(40) ** 2)).to_csv()),
            X,
            tuple(NAMES),
            ("'' (row numbers)",),
        ),
        Case("a broken sheet.xlsx", written("x.xlsx", b"PK\x03\x04 nothing"), argument="path"),
    )


def _arrays() -> Iterator[Case]:
    short = np.random.default_rng(3).normal(size=(18, 200)).astype(np.float32)
    small = COUNTS.astype(np.int16)
    yield from (
        Case("fractions.npy", by("x.npy", lambda path: np.save(path, X)), X),
        Case("fractions, in Fortran's order.npy", by("x.npy", lambda path: np.save(path, np.asfortranarray(X))), X),
        Case("on its side.npy", by("x.npy", lambda path: np.save(path, short)), short, facts=("200 positions",)),
        Case("counts (int16).npy", by("x.npy", lambda path: np.save(path, small)), COUNTS, facts=("token", "real")),
        Case("counts (int16).npy", by("x.npy", lambda path: np.save(path, small)), COUNTS, settings={"type": "real"}),
        Case(
            "bytes (uint8).npy", by("x.npy", lambda p: np.save(p, COUNTS.astype(np.uint8))), COUNTS, facts=("numbers",)
        ),
        Case(
            "counts, -1 for missing.npy",
            by("x.npy", lambda path: np.save(path, np.where(HOLES, -1, COUNTS))),
            argument="inputs",
            facts=("-1",),
        ),
        Case(
            "counts, -1 for missing.npy",
            by("x.npy", lambda path: np.save(path, np.where(HOLES, -1, COUNTS))),
            COUNTS_HOLED,
            settings={"missing_values": [-1.0]},
        ),
        Case(
            "bytes, 255 for missing.npy",
            by("x.npy", lambda path: np.save(path, np.where(HOLES, 255, COUNTS).astype(np.uint8))),
            argument="inputs",
            facts=("255",),
        ),
        Case(
            "bytes, 255 for missing.npy",
            by("x.npy", lambda path: np.save(path, np.where(HOLES, 255, COUNTS).astype(np.uint8))),
            COUNTS_HOLED,
            settings={"missing_values": [255.0]},
        ),
        Case("one axis.npy", by("x.npy", lambda path: np.save(path, X[0])), argument="inputs"),
        Case(
            "Python objects.npy",
            by("x.npy", lambda path: np.save(path, np.array([{}, None], dtype=object), allow_pickle=True)),
            argument="path",
        ),
        Case("inputs and labels.npz", npz(inputs=X, labels=CLASSES), X, labeled=True),
        Case("X and y.npz", npz(X=X, y=CLASSES), X, facts=("'X'", "'y'"), labeled=True),
        Case("one array.npz", npz(eeg=X), X, facts=("'eeg'",)),
        Case("two arrays.npz", npz(a=X, b=X), argument="path", facts=("a, b", "--data.columns")),
        Case("two arrays.npz", npz(a=X, b=X), X, settings={"columns": ["b"]}),
        Case(
            "data and coords.npz",
            npz(data=X, coords=np.arange(9.0)[:, None]),
            X,
            facts=("'data'", "'coords'"),
            placed=9,
        ),
        Case(
            "coordinates of which one is missing.npz",
            npz(inputs=X, coordinates=np.where(np.arange(9.0) == 4, np.nan, np.arange(9.0))[:, None]),
            X,
            facts=("1 of 9", "4"),
            placed=8,
        ),
    )


def _containers() -> Iterator[Case]:
    two = gridded().to_dataset().assign(tp=gridded() * 2)
    filled = gridded(np.where(HOLES, 1e37, X).astype(np.float32), _FillValue=np.float32(1e37))
    said = ("time", "lat", "lon")
    grid = tuple(f"{lat:g},{lon:g}" for lat in LAT for lon in LON)
    engine: Any = "h5netcdf"
    yield from (
        Case("a grid.nc", by("x.nc", lambda p: gridded().to_netcdf(p, engine=engine)), X, grid, said, placed=9),
        Case(
            "a grid, in the format of 1989.nc",
            by("x.nc", lambda path: gridded().to_netcdf(path, engine="scipy")),
            X,
            grid,
            said,
            placed=9,
        ),
        Case(
            "stations.nc", by("x.nc", lambda p: stations().to_netcdf(p, engine=engine)), X, tuple(NAMES), ("station",)
        ),
        Case(
            "fill values.nc",
            by("x.nc", lambda path: filled.to_netcdf(path, engine=engine)),
            HOLED,
            facts=("fill values",),
            settings={"missing": "mask"},
            placed=9,
        ),
        Case(
            "two variables.nc",
            by("x.nc", lambda path: two.to_netcdf(path, engine=engine)),
            argument="data.columns",
            facts=("t2m", "tp"),
        ),
        Case(
            "two variables.nc",
            by("x.nc", lambda path: two.to_netcdf(path, engine=engine)),
            X,
            facts=("tp",),
            settings={"columns": ["t2m"]},
            placed=9,
        ),
        Case(
            "axes of unknown meaning.nc",
            by("x.nc", lambda p: xr.DataArray(X, dims=("a", "b"), name="v").to_netcdf(p, engine=engine)),
            argument="path",
            facts=("a 40 x b 9", "sample"),
        ),
        Case("a broken file.nc", written("x.nc", b"CDF\x01 nothing"), argument="path"),
        Case("one array.h5", hdf5("x.h5", run__eeg=X), X, facts=("run/eeg",)),
        Case("several arrays.h5", hdf5("x.h5", a=X, b=X), argument="path", facts=("a, b", "--data.columns")),
        Case("several arrays.h5", hdf5("x.h5", a=X, b=X), X, settings={"columns": ["a"]}),
        Case("X and y.hdf5", hdf5("x.hdf5", X=X, y=CLASSES), X, facts=("'X'", "'y'"), labeled=True),
        Case("a grid.zarr", by("x.zarr", lambda path: gridded().to_dataset().to_zarr(path)), X, grid, said, placed=9),
        Case("an array.zarr", by("x.zarr", lambda path: zarr.save_array(path, X)), X),
        Case("X and y.zarr", by("x.zarr", zarr_group), X, facts=("'X'", "'y'"), labeled=True),
        Case(
            "X and y.mat",
            by("x.mat", lambda path: scipy.io.savemat(path, {"X": X, "y": CLASSES, "note": "a text"})),
            X,
            facts=("'X'", "'y'"),
            labeled=True,
        ),
        Case(
            "several matrices.mat",
            by("x.mat", lambda path: scipy.io.savemat(path, {"a": X, "b": X})),
            argument="path",
            facts=("a, b", "--data.columns"),
        ),
        Case(
            "several matrices.mat",
            by("x.mat", lambda path: scipy.io.savemat(path, {"a": X, "b": X})),
            X,
            settings={"columns": ["b"]},
        ),
        Case("version 7.3.mat", hdf5("x.mat", turned=True, X=X), X, facts=("'X'",)),
        Case(
            "a sparse matrix.mat",
            by("x.mat", lambda path: scipy.io.savemat(path, {"X": csr_matrix(COUNTS.astype(float))})),
            COUNTS,
            facts=("sparse", "0"),
        ),
        Case("a pickle.pkl", written("x.pkl", pickle.dumps(X)), argument="source", facts=(".npy",)),
        Case("cells.h5ad", written("x.h5ad", b"\x89HDF"), argument="source", facts=("anndata.read_h5ad",)),
        Case("a recording.fif", written("x.fif", b"\x00"), argument="source", facts=("mne.io.read_raw",)),
    )


def _objects() -> Iterator[Case]:
    objects = HOLED.astype(object)
    objects[HOLES] = pd.NA
    masked = np.ma.masked_array(np.where(HOLES, 1e37, X), HOLES)
    counts = pd.DataFrame(COUNTS, columns=NAMES)
    undecoded = gridded(np.where(HOLES, 1e37, X), missing_value=1e37)
    nullable = pd.DataFrame(HOLED, columns=NAMES).convert_dtypes()
    given: dict[str, Any] = {"missing": "mask"}  # as maed.learn has it

    def case(what: str, make: Callable[[], Any], clean: np.ndarray | None = None, **more: Any) -> Case:
        return Case(what, lambda folder: make(), clean, **{"settings": given, **more})

    yield from (
        case("numpy, float64", lambda: X.astype(np.float64), X),
        case("numpy, masked", lambda: masked, HOLED),
        case("numpy, objects with None and NA", lambda: objects, HOLED),
        case("numpy, int64", lambda: COUNTS, COUNTS, facts=("token", "kind='real'")),
        case("numpy, complex", lambda: X.astype(complex), argument="X", facts=("two channels",)),
        case("nested lists", X.tolist, X),
        case("nested lists, ragged", lambda: [[1.0, 2.0], [3.0]] * 9, argument="X"),
        case("scipy, sparse", lambda: csr_matrix(COUNTS), argument="X", facts=("toarray",)),
        case("torch, a tensor", lambda: torch.from_numpy(X), X),
        case("torch, `TensorDataset`", lambda: torch.utils.data.TensorDataset(torch.from_numpy(X)), X),
        case("torch, a data set of pairs", lambda: MapStyle(lambda x, i: (x, i % 2)), X),
        case("torch, a data set of mappings", lambda: MapStyle(lambda x, i: {"inputs": x, "labels": i % 2}), X),
        case("torch, a loader of pairs", lambda: loader(MapStyle(lambda x, i: (x, i))), X),
        case("torch, a loader of mappings", lambda: loader(MapStyle(lambda x, i: {"x": x, "y": i})), X),
        case(
            "torch, a loader of mappings, two arrays",
            lambda: loader(MapStyle(lambda x, i: {"a": x, "b": x})),
            argument="X",
            facts=("'a', 'b'", "inputs"),
        ),
        case("batches, masked", lambda: iter([masked[:20], masked[20:]]), HOLED),
        case("pandas", lambda: FRAME, X, names=tuple(NAMES)),
        case("pandas, nullable", lambda: nullable, HOLED, names=tuple(NAMES)),
        case("pandas, counts", lambda: counts, COUNTS, facts=("numbers", "tokens")),
        case("pandas, with labels", lambda: FRAME.assign(label=CLASSES), X, names=tuple(NAMES), facts=("'label'",)),
        case("pandas, with classes", lambda: FRAME.assign(species="setosa"), X, facts=("'species'",)),
        case("pandas, a column of lists", lambda: pd.Series(X.tolist()), X),
        case("polars", lambda: pl.DataFrame({n: X[:, i] for i, n in enumerate(NAMES)}), X, names=tuple(NAMES)),
        case("arrow, a column of lists", lambda: pa.array(X.tolist()), X),
        case("xarray, a grid", gridded, X, facts=("time", "lat", "lon"), placed=9),
        case("xarray, stations", stations, X, names=tuple(NAMES), facts=("station",)),
        case("xarray, fill values as they are stored", lambda: undecoded, HOLED, facts=("fill values",), placed=9),
        case(
            "xarray, time last",
            lambda: gridded().transpose("lat", "lon", "time"),
            X,
            facts=("time",),
            placed=9,
        ),
        case(
            "xarray, two variables",
            lambda: xr.Dataset({"a": gridded(), "b": gridded()}),
            argument="data.columns",
            facts=("a (", "b ("),
        ),
        case("MNE, `Raw`", lambda: recording(1), X, names=tuple(NAMES), facts=("EOG", "STI", "moments"), placed=8),
        case("MNE, `Epochs`", lambda: recording(5), X, names=tuple(NAMES), facts=("5 epochs",), placed=8),
        case("AnnData", lambda: cells(X), X, names=tuple(NAMES), facts=("counts", "to_df")),
        case("AnnData, sparse", lambda: cells(csr_matrix(COUNTS)), COUNTS, names=tuple(NAMES), facts=("dense",)),
        case(
            "AnnData, a layer",
            lambda: cells(X),
            COUNTS,
            facts=("'counts'",),
            settings={"missing": "mask", "columns": ["counts"]},
        ),
    )


CASES = [*_text_tables(), *_tables(), *_arrays(), *_containers(), *_objects()]


def read(case: Case, folder: Path) -> tuple[SignalData | MaedError, list[str]]:
    """What a case becomes, and the lines that are said of it, without the name of the file that they begin with."""
    made = case.make(folder)
    settings = DataSettings(normalization="none", **case.settings)
    found: SignalData | MaedError
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            found = load(str(made), settings) if isinstance(made, Path) else from_given(made, settings=settings)
        except MaedError as error:
            found = error
    said = [str(each.message) for each in caught if each.category is UserWarning and "maed" in each.filename]
    said = [*said, str(found)] if isinstance(found, MaedError) else said
    return found, [line.removeprefix(f"{made}: ").replace(f"{folder}/", "") for line in said]


@cache
def result(number: int) -> tuple[SignalData | MaedError, list[str]]:
    """What `CASES[number]` becomes, read once."""
    with tempfile.TemporaryDirectory() as folder:
        return read(CASES[number], Path(folder))


def all_values(data: SignalData) -> np.ndarray:
    """The signals of all splits `(n, N)`, sorted, NaN where a value is missing."""
    parts = []
    for part in (data.train, data.validation, data.test):
        values = np.asarray(part.values, dtype=np.float64).reshape(len(part), data.positions)
        parts.append(values if part.mask is None else np.where(part.mask, values, np.nan))
    return ordered(np.concatenate(parts))


def ordered(values: np.ndarray) -> np.ndarray:
    """Signals `(n, N)` in an order of their own; values are rounded, for files have four decimals."""
    return values[np.lexsort(np.nan_to_num(values, nan=1e9).round(3).T)]


def table() -> list[str]:
    """A line for each case: what it is, what it becomes, what is said."""
    lines = ["| What people have | What it becomes | What is said |", "| --- | --- | --- |"]
    for number, case in enumerate(CASES):
        found, said = result(number)
        becomes = "refused"
        if not isinstance(found, MaedError):
            kind = "token ids" if found.kind == "tokens" else "numbers"
            becomes = f"{kind}, as the clean array" + (", with its labels" if found.labeled else "")
        shown = {name: value for name, value in case.settings.items() if case.is_file or name != "missing"}
        values = [
            f"[{v[0]:g}]" if n == "missing_values" else f"[{v[0]}]" if n == "columns" else v for n, v in shown.items()
        ]
        flags = " ".join(f"--data.{name} {value}" for name, value in zip(shown, values, strict=True))
        what = f"{case.what} (`{flags}`)" if flags else case.what
        line = " | ".join(each.replace("|", "\\|").replace("*", "\\*") for each in (what, becomes, "<br>".join(said)))
        lines.append(f"| {line} |")
    return lines


def in_docs(text: str) -> str:
    """The page with the table as the cases make it."""
    begin, end = "<!-- begin files -->\n", "\n<!-- end files -->"
    before, after = text.split(begin)[0], text.split(end)[1]
    return f"{before}{begin}{chr(10).join(table())}{end}{after}"


if __name__ == "__main__":
    DOCS.write_text(in_docs(DOCS.read_text(encoding="utf-8")), encoding="utf-8")
