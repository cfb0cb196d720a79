"""Signals that do not fit into memory: kept in files, and all the same as those that do."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import maed
from maed.cli import main
from maed.data import SignalData, load
from maed.data import objects as objects_module
from maed.data.arrays import FileArray
from maed.data.loading import from_given
from maed.data.objects import sample_table
from maed.errors import MaedError
from maed.settings import DataSettings
from test_data import png

X = np.random.default_rng(0).normal(size=(120, 9)).astype(np.float32)
HOLED = np.where(np.random.default_rng(1).random(X.shape) < 0.2, np.nan, X)
HOLED[5] = HOLED[:, 3] = np.nan  # a signal and a position without any value
WHOLE = np.random.default_rng(2).integers(0, 50, X.shape).astype(np.int16)


@pytest.fixture
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine so small that nothing fits, which reads a few signals at a time."""
    monkeypatch.setattr("maed.machine.memory", lambda: 1_000)
    monkeypatch.setattr("maed.data.prepare._MANY", 0)
    monkeypatch.setattr("maed.data.prepare._PIECE", 300)
    monkeypatch.setattr("maed.data.prepare._BLOCK", 40)


def images(path: Path) -> str:
    """A table of images, the first of them grayscale."""
    colors = np.random.default_rng(3).integers(0, 256, (120, 6, 6, 3), dtype=np.uint8)
    files = [png(pixels if i > 20 else pixels[..., 0]) for i, pixels in enumerate(colors)]
    pq.write_table(pa.table({"image": files, "label": [i % 3 for i in range(120)]}), path)
    return str(path)


def saved(path: Path, array: np.ndarray) -> str:
    np.save(path, array)
    return str(path)


SOURCES: dict[str, tuple[Any, dict[str, Any]]] = {
    "numbers": (lambda p: saved(p / "x.npy", X), {}),
    "permuted": (lambda p: saved(p / "x.npy", X), {"permute": 3, "limit": 50}),
    "holes": (lambda p: saved(p / "x.npy", HOLED), {"missing": "mask", "permute": 1}),
    "dropped": (lambda p: saved(p / "x.npy", X), {"drop_rate": 0.3}),
    "stand-ins": (
        lambda p: saved(p / "x.npy", np.where(X > 1.5, -999, WHOLE)),
        {"missing_values": [-999.0], "type": "real"},
    ),
    "tokens": (lambda p: saved(p / "x.npy", WHOLE.astype(np.int64)), {"missing_values": [3.0]}),
    "windows": (lambda p: saved(p / "x.npy", X), {"window": 4, "stride": 2}),
    "images": (lambda p: images(p / "x.parquet"), {"type": "image"}),
    "small images": (lambda p: images(p / "x.parquet"), {"type": "image", "image_size": 4}),
    "a table": (lambda p: pd.DataFrame(HOLED).to_csv(p / "x.csv") or str(p / "x.csv"), {"missing": "mask"}),
    "a field": (lambda p: "field:ring:20", {"samples": 100, "limit": 60}),
}


def parts_of(data: SignalData) -> list[Any]:
    splits = (data.train, data.validation, data.test)
    return [part for s in splits for part in (s.values, s.mask, s.mean, s.scale, s.labels)]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SOURCES)
def test_signals_in_files_are_those_in_memory(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    make, chosen = SOURCES[name]
    source, settings = make(tmp_path), DataSettings(**chosen)
    expected = load(source, settings)
    request.getfixturevalue("little_memory")

    found = load(source, settings)

    assert isinstance(found.train.values, np.memmap)
    assert not isinstance(expected.train.values, np.memmap)
    assert (found.vocabulary, found.kind, found.content) == (expected.vocabulary, expected.kind, expected.content)
    for one, other in zip(parts_of(found), parts_of(expected), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_signals_in_files_are_learned_from(
    tmp_path: Path, little_memory: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maed.stages.similarity.memory", lambda: 1 << 30)
    out = str(tmp_path / "out")
    asked = ["--similarity.draws", "512", "--autoencoder.steps", "20", "--positions", "", "--report.reductions", "[]"]

    assert main(["run", "field:ring:30", "--data.samples", "200", *asked, "--out", out]) == 0

    assert "temporary files" in capsys.readouterr().err
    assert maed.PositionEmbedding.from_pretrained(f"{out}/embedding").vectors.shape[0] == 30


def test_what_fits_neither_in_memory_nor_on_the_disk_is_refused(
    tmp_path: Path, little_memory: None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, 100))

    assert main(["run", "field:ring:30", "--data.samples", "200", "--out", str(tmp_path / "out")]) == 2

    said = capsys.readouterr().err
    assert "data.limit" in said
    assert "TMPDIR" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_long_table_of_images_is_mapped(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source = images(tmp_path / "x.parquet")
    expected = load(source, DataSettings(type="image"))
    request.getfixturevalue("little_memory")
    request.getfixturevalue("monkeypatch").setattr("maed.data.tables.LONG", 0)

    with pytest.warns(UserWarning, match="its 120 rows"):
        found = load(source, DataSettings(type="image"))

    np.testing.assert_array_equal(found.train.values, expected.train.values)


# --- files that are read where rows are chosen --------------------------------------------------------------------


@given(rows=st.lists(st.integers(0, 119), max_size=30), turned=st.booleans(), kind=st.sampled_from(["h5", "zarr"]))
def test_rows_of_a_file_come_in_the_order_asked_for(
    rows: list[int], turned: bool, kind: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stored = X[:, :, None].repeat(2, axis=2)
    if kind == "zarr":
        array = FileArray(zarr.array(stored), "x")
    else:
        file = h5py.File("x", "w", driver="core", backing_store=False)
        array = FileArray(file.create_dataset("x", data=stored.T if turned else stored), "x", turned=turned)
    assert array.shape == stored.shape
    np.testing.assert_array_equal(array[np.array(rows, dtype=np.int64)], stored[rows])


@pytest.mark.parametrize("kind", ["h5", "zarr"])
def test_arrays_in_a_file_are_signals_themselves(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "zarr":
        given_array: Any = zarr.create_array(str(tmp_path / "x.zarr"), data=X)
    else:
        given_array = h5py.File(tmp_path / "x.h5", "w").create_dataset("x", data=X)
    monkeypatch.setattr(objects_module, "KEPT", 40 * X[0].nbytes)

    assert len(from_given(given_array).train) == 40


def test_a_file_that_breaks_while_it_is_read_is_named(tmp_path: Path) -> None:
    root = zarr.create_array(str(tmp_path / "x.zarr"), data=X, chunks=(10, 9))
    chunk = next(path for path in sorted((tmp_path / "x.zarr").rglob("*")) if path.is_file() and path.name == "0")
    chunk.write_bytes(b"broken")
    assert root.shape == X.shape
    with pytest.raises(MaedError, match=r"x\.zarr: cannot be read"):
        load(str(tmp_path / "x.zarr"))


# --- streams of tables --------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12), seed=st.integers(0, 9))
def test_a_sample_of_tables_is_part_of_them_and_all_where_they_fit(sizes: list[int], seed: int) -> None:
    ends = np.cumsum(sizes)
    tables = [pa.table({"x": np.arange(end - size, end)}) for end, size in zip(ends, sizes, strict=True)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(objects_module, "KEPT", 20 * 8)
        if not ends[-1]:
            with pytest.raises(MaedError, match="empty"):
                sample_table(iter(tables), np.random.default_rng(seed))
            return
        kept = sample_table(iter(tables), np.random.default_rng(seed))["x"].to_numpy()
    assert len(set(kept)) == len(kept) == min(ends[-1], 20)
    assert set(kept) <= set(range(ends[-1]))


def test_every_row_of_a_stream_of_tables_is_kept_equally_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_module, "KEPT", 16 * 8)
    tables = [pa.table({"x": part}) for part in np.array_split(np.arange(100), 9)]
    counts = np.zeros(100)
    for seed in range(2_000):
        counts[sample_table(iter(tables), np.random.default_rng(seed))["x"].to_numpy()] += 1
    expected = 2_000 * 16 / 100
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected * (1 - 0.16))


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Images in the hub's layout, in four shards."""
    folder = tmp_path / "owner"
    folder.mkdir()
    for shard in range(4):
        pixels = np.random.default_rng(shard).integers(0, 256, (50, 5, 5, 3), dtype=np.uint8)
        columns = {"image": [{"bytes": png(each), "path": None} for each in pixels], "label": [0, 1] * 25}
        pq.write_table(pa.table(columns), folder / f"train-{shard:05}-of-00004.parquet")
    return folder


def test_a_data_set_that_streams_is_sampled(stored: Path) -> None:
    import datasets

    stream = datasets.load_dataset(str(stored), streaming=True, split="train")
    with pytest.warns(UserWarning, match="label"):
        data = from_given(stream)
    assert data.train.values.shape == (144, 25, 3)
    assert data.geometry is not None
    assert data.geometry.kind == "grid"


def test_the_hub_is_streamed_as_far_as_the_limit(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    real = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **options: real(str(stored), **options))
    data = load("hub:owner/name", DataSettings(streaming=True, limit=40))
    assert len(data.train) == 40
    assert data.labeled
    with pytest.raises(MaedError, match=r"data\.limit"):
        load("hub:owner/name", DataSettings(streaming=True))
    with pytest.raises(MaedError, match=r"hub:OWNER/NAME"):
        load("digits", DataSettings(streaming=True, limit=40))
