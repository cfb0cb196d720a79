"""Sources to signals: what a user sees of splits, bytes, pixels, tables, and of bad input."""

from __future__ import annotations

import io
import os
import pickle
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.datasets import load_digits

from maed.data import SignalData, Signals, from_arrays, load
from maed.data.images import decode
from maed.data.splits import stratified_rows
from maed.data.text import tokenize
from maed.errors import MaedError
from maed.settings import DataSettings

pytestmark = pytest.mark.filterwarnings("ignore:.*positions are constant")


def splits(data: SignalData) -> tuple[Signals, Signals, Signals]:
    return data.train, data.validation, data.test


def everything(signals: Signals) -> np.ndarray:
    return signals.take(np.arange(len(signals))).numpy()


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


# --- embedded sources ---------------------------------------------------------------------------------------------


def test_digits_are_scikit_learns() -> None:
    data = load("digits", DataSettings())
    values = np.concatenate([part.values for part in splits(data)])
    labels = np.concatenate([part.labels for part in splits(data)])
    assert values.shape == (1797, 64, 1)
    assert values.dtype == np.uint8
    assert data.classes == tuple("0123456789")
    assert data.geometry is not None
    assert (data.geometry.kind, data.geometry.shape) == ("grid", (8, 8))
    rows = np.concatenate([values[..., 0], labels[:, None]], axis=1)
    bunch = load_digits()
    expected = np.concatenate([bunch.data, bunch.target[:, None]], axis=1)
    assert sorted(map(tuple, rows.astype(int))) == sorted(map(tuple, expected.astype(int)))


def test_photos_are_cut_from_disjoint_regions() -> None:
    from sklearn.datasets import load_sample_images

    data = load("photos", DataSettings(samples=40))
    assert data.train.values.shape == (40, 256, 3)
    assert len(data.validation) == len(data.test) == 2000
    assert data.classes == ("china", "flower")
    photographs = load_sample_images().images
    edges = {"train": (0, 427), "validation": (427, 533), "test": (533, 640)}
    for name, (low, high) in edges.items():
        part: Signals = getattr(data, name)
        for row in (0, len(part) - 1):
            region = photographs[part.labels[row]][:, low:high]
            windows = np.lib.stride_tricks.sliding_window_view(region, (16, 16, 3)).reshape(-1, 768)
            assert (windows == part.values[row].ravel()).all(axis=1).any()


def test_photos_follow_the_seed() -> None:
    first, again, other = (load("photos", DataSettings(samples=20, seed=seed)).train.values for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


# --- splits, limit, permutation, normalization --------------------------------------------------------------------


@settings(max_examples=50, deadline=None)
@given(st.integers(20, 200), st.integers(2, 5), st.integers(0, 2**32 - 1), st.floats(0.1, 0.4), st.floats(0.1, 0.4))
def test_splits_are_disjoint_complete_and_stratified(
    n: int, classes: int, seed: int, validation: float, test: float
) -> None:
    labels = np.arange(n) % classes
    X = np.arange(2.0 * n).reshape(n, 2)  # every signal tells its row
    chosen = DataSettings(validation=validation, test=test, seed=seed, normalization="none")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = from_arrays(X, labels, settings=chosen)
    rows = [part.values[:, 0, 0].astype(int) // 2 for part in splits(data)]
    assert sorted(np.concatenate(rows)) == list(range(n))
    for part, mine in zip(splits(data), rows, strict=True):
        assert np.array_equal(part.labels, labels[mine])
        counts = np.bincount(part.labels, minlength=classes)
        assert counts.max() - counts.min() <= 3  # equal but for the rounding of each cut
    assert len(data.test) == round(test * n)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.data())
@settings(max_examples=100, deadline=None)
def test_stratified_rows_keep_the_shares(sizes: list[int], seed: int, draw: st.DataObject) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    count = draw.draw(st.integers(1, len(labels)))
    rows = stratified_rows(labels, len(labels), count, np.random.default_rng(seed))
    found = np.bincount(labels[rows], minlength=len(sizes))
    assert len(set(rows)) == count == found.sum()
    if count >= len(sizes):
        assert found.min() >= 1
    exact = count * np.array(sizes) / len(labels)
    assert (np.abs(found - exact) < len(sizes) + 1).all()


def test_limit_draws_training_signals_and_shrinks_the_rest_alike() -> None:
    labels = np.repeat([0, 0, 0, 1], 250)
    data = from_arrays(normal(1000, 3), labels, settings=DataSettings(limit=72))  # of 720 after 200 and 80
    assert [len(part) for part in splits(data)] == [72, 8, 20]
    assert np.bincount(data.train.labels).tolist() == [54, 18]


def test_a_limit_above_the_size_changes_nothing() -> None:
    X = normal(30, 3)
    free, limited = (from_arrays(X, settings=DataSettings(limit=limit)) for limit in (None, 1000))
    assert np.array_equal(free.train.values, limited.train.values)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 3), st.integers(0, 2**32 - 1), st.sampled_from(["channel", "position"]))
def test_permuting_and_unpermuting_is_the_identity(n: int, channels: int, seed: int, normalization: str) -> None:
    X = normal(20, n, channels)
    X[3, 0] = np.nan
    coordinates = normal(n, 2, seed=1)
    common: dict[str, Any] = {"missing": "mask", "normalization": normalization}
    plain = from_arrays(X, coordinates=coordinates, settings=DataSettings(**common))
    moved = from_arrays(X, coordinates=coordinates, settings=DataSettings(**common, permute=seed))
    assert np.array_equal(moved.permutation, np.random.default_rng(seed).permutation(n))
    back = np.argsort(moved.permutation)
    for before, after in zip(splits(plain), splits(moved), strict=True):
        assert np.array_equal(everything(after)[:, back], everything(before))
        assert np.array_equal(after.mask[:, back], before.mask)
    assert np.array_equal(moved.geometry.coordinates[back], coordinates)


def test_permuting_rearranges_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.arange(60, dtype=np.int64).reshape(10, 6)
    whole = from_arrays(X, settings=DataSettings(permute=3))
    monkeypatch.setattr("maed.data.prepare._BLOCK", 12)
    assert np.array_equal(from_arrays(X, settings=DataSettings(permute=3)).train.values, whole.train.values)


def test_deleting_the_coordinates_changes_nothing_else() -> None:
    X, labels = normal(40, 6), np.arange(40) % 2
    chosen = DataSettings(permute=0, limit=20)
    known = from_arrays(X, labels, coordinates=normal(6, 3), settings=chosen)
    unknown = from_arrays(X, labels, settings=chosen)
    assert unknown.geometry is None
    for mine, other in zip(splits(known), splits(unknown), strict=True):
        assert everything(mine).tobytes() == everything(other).tobytes()
        assert np.array_equal(mine.labels, other.labels)


@pytest.mark.parametrize(("normalization", "axes"), [("channel", (0, 1)), ("position", (0,))])
def test_normalization_is_fitted_on_the_training_split_alone(
    normalization: Literal["channel", "position"], axes: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maed.data.prepare._BLOCK", 100)  # several blocks
    data = from_arrays(5 + 3 * normal(200, 7, 2), settings=DataSettings(normalization=normalization))
    batch = everything(data.train).astype(np.float64)
    assert np.allclose(batch.mean(axis=axes), 0, atol=1e-5)
    assert np.allclose(batch.std(axis=axes), 1, atol=1e-5)
    assert not np.allclose(everything(data.test).mean(axis=axes), 0, atol=1e-5)
    assert data.train.mean is data.test.mean


def test_normalization_none_leaves_the_numbers() -> None:
    X = normal(20, 4)
    data = from_arrays(X, settings=DataSettings(normalization="none"))
    assert sorted(np.concatenate([everything(part)[:, 0, 0] for part in splits(data)])) == sorted(X[:, 0])


@pytest.mark.filterwarnings("default")
def test_a_constant_position_is_warned_about_and_kept() -> None:
    X = normal(50, 4)
    X[:, 2] = 0.1
    with pytest.warns(UserWarning, match="1 of 4 positions are constant"):
        data = from_arrays(X)
    assert data.positions == 4
    assert (everything(data.train)[:, 2] == 0).all()


def test_missing_values_become_positions_that_are_not_real() -> None:
    X = 10 + normal(40, 5)
    X[::2, 1] = np.nan
    data = from_arrays(X, settings=DataSettings(missing="mask"))
    values = everything(data.train)
    assert sum(int((~part.mask).sum()) for part in splits(data)) == 20
    assert (data.train.mask.all(axis=0) == [True, False, True, True, True]).all()
    assert (values[~data.train.mask] == 0).all()
    real = values[data.train.mask[:, 1], 1]
    assert abs(real.mean()) < 1e-5
    assert abs(real.std() - 1) < 1e-5
    complete = from_arrays(normal(40, 5), settings=DataSettings(missing="mask"))
    assert complete.train.mask is None


# --- kinds of arrays ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "shape", "kind", "kept"),
    [
        ("int64", (20, 4), "tokens", "int16"),
        ("int16", (20, 4), "tokens", "int16"),
        ("uint8", (20, 4), "real", "uint8"),
        ("uint8", (20, 4, 3), "real", "uint8"),
        ("int32", (20, 4, 3), "real", "float32"),
        ("float64", (20, 4), "real", "float32"),
        (">f4", (20, 4), "real", "float32"),
        ("bool", (20, 4), "real", "uint8"),
    ],
)
def test_the_type_of_an_array_decides_its_kind(dtype: str, shape: tuple[int, ...], kind: str, kept: str) -> None:
    X = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    data = from_arrays(X)
    assert (data.kind, data.train.values.dtype.name) == (kind, kept)
    assert data.vocabulary == (2 if kind == "tokens" else 0)
    assert data.train.values.ndim == (2 if kind == "tokens" else 3)
    assert (data.train.mean is None) == (kind == "tokens")


def test_whole_numbers_can_be_read_as_numbers_or_tokens() -> None:
    X = np.arange(40).reshape(20, 2)
    assert from_arrays(X, settings=DataSettings(type="real")).kind == "real"
    tokens = from_arrays(X.astype(np.uint8), settings=DataSettings(type="tokens"))
    assert (tokens.kind, tokens.vocabulary) == ("tokens", 40)
    assert from_arrays(X + 100_000).train.values.dtype == np.int32


def test_arrays_of_images_have_a_grid() -> None:
    X = np.random.default_rng(0).integers(0, 255, (10, 4, 6), dtype=np.uint8)
    data = from_arrays(X, settings=DataSettings(type="image"))
    assert data.train.values.shape[1:] == (24, 1)
    assert data.geometry.shape == (4, 6)
    assert from_arrays(X, settings=DataSettings(type="image", image_size=8)).positions == 64


def test_a_masked_array_has_missing_values() -> None:
    X = np.ma.masked_array(normal(20, 3), mask=np.eye(20, 3, dtype=bool))
    with pytest.raises(MaedError, match="3 values are NaN"):
        from_arrays(X)


def test_labels_may_be_names() -> None:
    data = from_arrays(normal(20, 3), ["b", "a"] * 10)
    assert data.classes == ("a", "b")
    assert sorted(np.unique(data.train.labels)) == [0, 1]


def test_npy_and_npz_files(tmp_path: Path) -> None:
    X, y, coordinates = normal(20, 5), np.arange(20) % 3, normal(5, 2)
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", inputs=X, labels=y, coordinates=coordinates)
    plain = load(str(tmp_path / "x.npy"), DataSettings())
    full = load(str(tmp_path / "x.npz"), DataSettings())
    assert (plain.labeled, plain.geometry, plain.source) == (False, None, str(tmp_path / "x.npy"))
    assert full.classes == ("0", "1", "2")
    assert np.array_equal(full.geometry.coordinates, coordinates)
    same = from_arrays(X, y, coordinates=coordinates)
    assert np.array_equal(full.test.values, same.test.values)
    moved = load(str(tmp_path / "x.npy"), DataSettings(permute=1))  # the file is mapped read-only, and stays as it is
    assert not np.array_equal(moved.train.values, plain.train.values)
    assert np.array_equal(np.load(tmp_path / "x.npy"), X)


# --- text ---------------------------------------------------------------------------------------------------------

SPECIAL = ["[PAD]", "[BOS]", "[EOS]", "[MASK]", "[CLS]", "[SEP]"]
PIECES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12), st.sampled_from([*SPECIAL, "[", "]", "MA"])
)
TEXTS = st.lists(st.lists(PIECES, max_size=8).map("".join), min_size=1, max_size=6)


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import PerceiverTokenizer

    return PerceiverTokenizer()


def tokenized_by(tokenizer, texts: list[str], length: int) -> np.ndarray:
    out = tokenizer(texts, truncation=True, padding="max_length", max_length=length)
    return np.array(out["input_ids"])


@settings(max_examples=200, deadline=None)
@given(texts=TEXTS, length=st.integers(3, 80))
def test_bytes_are_the_tokenizers(tokenizer, texts: list[str], length: int) -> None:
    ids, mask = tokenize(texts, length)
    assert ids.dtype == np.int16
    assert np.array_equal(ids, tokenized_by(tokenizer, texts, length))
    assert np.array_equal(mask, ids != 0)


def test_bytes_by_hand() -> None:
    ids, mask = tokenize(["é[MASK]", "", "abcdef", "[MA", "SK]"], 6)
    assert ids[0].tolist() == [4, 0xC3 + 6, 0xA9 + 6, 3, 5, 0]
    assert ids[1].tolist() == [4, 5, 0, 0, 0, 0]
    assert ids[2].tolist() == [4, *(ord(letter) + 6 for letter in "abcd"), 5]
    assert ids[4].tolist() == [4, *(ord(letter) + 6 for letter in "SK]"), 5, 0]  # no token runs over two texts
    assert mask.sum(axis=1).tolist() == [5, 2, 6, 5, 5]


def test_bytes_of_slices_and_chunks() -> None:
    texts = [f"text {number} [SEP]" * (number % 4) for number in range(50)]
    column = pa.chunked_array([pa.array(texts[:20]), pa.array([], pa.string()), pa.array(["x", *texts[20:]]).slice(1)])
    assert np.array_equal(tokenize(column, 30)[0], tokenize(texts, 30)[0])


def test_real_reviews_are_tokenized_as_the_tokenizer_does(data_folder: Path, tokenizer) -> None:
    texts = pq.read_table(data_folder / "imdb" / "train-00000-of-00001.parquet")["text"].take(
        list(range(0, 25_000, 250))
    )
    assert np.array_equal(tokenize(texts, 2048)[0], tokenized_by(tokenizer, texts.to_pylist(), 2048))


def test_missing_texts_and_short_lengths_are_refused() -> None:
    with pytest.raises(MaedError, match="1 of 2 texts are missing"):
        tokenize(pa.array(["a", None]), 10)
    with pytest.raises(MaedError, match=r"data\.length"):
        tokenize(["a"], 2)


# --- images -------------------------------------------------------------------------------------------------------


def test_images_are_decoded_in_order() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (600, 3, 5, 3), dtype=np.uint8)
    assert np.array_equal(decode([png(image) for image in pixels]), pixels)


def test_grayscale_images_have_one_channel_unless_others_have_colors() -> None:
    gray = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert np.array_equal(decode([png(gray)] * 2), np.stack([gray, gray])[..., None])
    mixed = decode([png(gray), png(np.zeros((2, 3, 3), np.uint8))])
    assert np.array_equal(mixed[0], np.repeat(gray[..., None], 3, axis=2))


def test_images_are_resized_by_the_shortest_side_and_cropped() -> None:
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 200
    assert np.array_equal(decode([png(image), png(image[:, 10:20])], 10), np.full((2, 10, 10, 3), 200))


def test_images_that_cannot_be_used_are_refused() -> None:
    small, large = png(np.zeros((2, 2), np.uint8)), png(np.zeros((4, 4), np.uint8))
    with pytest.raises(MaedError, match=r"--data\.image_size"):
        decode([small, large])
    with pytest.raises(MaedError, match="number 1 of those read cannot be decoded"):
        decode([small, small[:20]])
    with pytest.raises(MaedError, match="number 1 of those read"):
        decode([small, None])


# --- tables and folders -------------------------------------------------------------------------------------------


def csv(path: Path, rows: int = 20, **columns: object) -> str:
    import pandas as pd

    data = {"a": np.arange(rows) % 7, "b": np.arange(rows) / 2, "label": ["yes", "no"] * (rows // 2), **columns}
    pd.DataFrame(data).to_csv(path, index=False)
    return str(path)


def test_a_csv_of_numbers(tmp_path: Path) -> None:
    data = load(csv(tmp_path / "x.csv"), DataSettings(normalization="none"))
    assert data.train.values.dtype == np.float32
    assert data.train.values.shape[1:] == (2, 1)
    assert data.classes == ("no", "yes")
    assert data.geometry is None
    rows = data.train.values[:, 1, 0] * 2
    assert np.array_equal(data.train.labels, 1 - rows % 2)
    assert np.array_equal(data.train.values[:, 0, 0], rows % 7)


def test_columns_and_label_can_be_named(tmp_path: Path) -> None:
    path = csv(tmp_path / "x.csv", kind=np.arange(20) % 4)
    data = load(path, DataSettings(columns=["b", "a"], label="kind", normalization="none"))
    assert data.classes == ("0", "1", "2", "3")
    assert np.array_equal(data.train.values[:, 1, 0], data.train.values[:, 0, 0] * 2 % 7)


def test_an_empty_cell_is_a_missing_value(tmp_path: Path) -> None:
    path = csv(tmp_path / "x.csv", b=[np.nan, *range(19)])
    with pytest.raises(MaedError, match="1 values are NaN, the first in signal 0, position 1"):
        load(path, DataSettings())
    masked = load(path, DataSettings(missing="mask"))
    assert sum(int((~part.mask).sum()) for part in splits(masked)) == 1


def test_a_csv_of_texts(tmp_path: Path) -> None:
    import pandas as pd

    texts = [f'a, "quoted"\nline {number}' for number in range(20)]
    pd.DataFrame({"words": texts, "id": range(20), "label": [0, 1] * 10}).to_csv(tmp_path / "x.csv", index=False)
    data = load(str(tmp_path / "x.csv"), DataSettings(columns=["words"], length=40))
    assert (data.kind, data.vocabulary, data.positions) == ("tokens", 262, 40)
    assert data.geometry is not None
    assert data.geometry.kind == "line"
    first = bytes(int(i) - 6 for i in data.train.values[0] if i >= 6).decode()
    assert first in texts
    with pytest.raises(MaedError, match=r"data\.columns"):
        load(str(tmp_path / "x.csv"), DataSettings())


@pytest.mark.parametrize("type_", [pa.list_(pa.float32()), pa.list_(pa.float64(), 3)])
def test_a_parquet_of_lists(tmp_path: Path, type_: pa.DataType) -> None:
    X = normal(20, 3)
    pq.write_table(pa.table({"x": pa.array(X.tolist(), type_)}), tmp_path / "x.parquet")
    data = load(str(tmp_path / "x.parquet"), DataSettings(normalization="none"))
    assert np.array_equal(
        np.sort(np.concatenate([part.values for part in splits(data)]), axis=0), np.sort(X, axis=0)[..., None]
    )


def test_lists_of_token_ids(tmp_path: Path) -> None:
    pq.write_table(pa.table({"input_ids": [[1, 2, 9]] * 20}), tmp_path / "x.parquet")
    data = load(str(tmp_path / "x.parquet"), DataSettings(type="tokens"))
    assert (data.kind, data.vocabulary, data.positions) == ("tokens", 10, 3)


def image_folder(path: Path, where: str = ".") -> Path:
    """A small data set in the hub's layout, with two shards of training images and the classes' names."""
    (path / where).mkdir(parents=True, exist_ok=True)
    names = '{"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}'
    for name, count in (("train-00000-of-00002", 12), ("train-00001-of-00002", 8), ("test-00000-of-00001", 6)):
        images = [{"bytes": png(np.full((4, 4, 3), 10 * row, np.uint8)), "path": None} for row in range(count)]
        table = pa.table({"image": images, "label": np.arange(count) % 2})
        pq.write_table(table.replace_schema_metadata({"huggingface": names}), path / where / f"{name}.parquet")
    return path


@pytest.mark.parametrize("where", [".", "data", "plain_text"])
def test_a_folder_in_the_hubs_layout(tmp_path: Path, where: str) -> None:
    data = load(str(image_folder(tmp_path, where)), DataSettings())
    assert data.classes == ("cat", "dog")
    assert [len(part) for part in splits(data)] == [18, 2, 6]
    assert data.train.values.shape == (18, 16, 3)
    assert data.test.values[:, 0, 0].tolist() == [0, 10, 20, 30, 40, 50]
    assert data.geometry.shape == (4, 4)


def test_a_test_split_with_hidden_labels_is_set_aside(tmp_path: Path) -> None:
    for name, labels in (("train", np.arange(20) % 2), ("test", np.full(9, -1))):
        pq.write_table(
            pa.table({"x": normal(len(labels), 1)[:, 0], "z": labels, "label": labels}), tmp_path / f"{name}.parquet"
        )
    assert [len(part) for part in splits(load(str(tmp_path), DataSettings()))] == [14, 2, 4]


def test_cifar10_decodes_only_what_a_limit_leaves(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAED_DATA", str(data_folder))
    data = load("cifar10", DataSettings(limit=200))
    assert data.train.values.shape == (200, 1024, 3)
    assert np.bincount(data.train.labels).tolist() == [20] * 10
    assert data.classes[:3] == ("airplane", "automobile", "bird")
    assert (len(data.validation), len(data.test)) == (22, 44)
    table = pq.read_table(data_folder / "cifar10" / "train-00000-of-00001.parquet")
    first = np.flatnonzero(table["label"].to_numpy() == data.train.labels[0])
    wanted = data.train.values[0].reshape(32, 32, 3)
    encoded = table["img"].take(first).to_pylist()
    assert any(np.array_equal(np.asarray(Image.open(io.BytesIO(item["bytes"]))), wanted) for item in encoded)
    by_path = load(str(data_folder / "cifar10"), DataSettings(limit=200))
    assert np.array_equal(by_path.train.values, data.train.values)


def test_imdb_and_the_seeds_split(data_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAED_DATA", str(data_folder))
    data = load("imdb", DataSettings(split="original-imdb", length=32))
    assert [len(part) for part in splits(data)] == [25_000, 12_500, 12_500]
    assert (data.classes, data.vocabulary) == (("neg", "pos"), 262)
    stored = pq.read_table(data_folder / "imdb" / "test-00000-of-00001.parquet")
    ids = tokenize(stored["text"], 32)[0]
    assert np.array_equal(data.validation.values, ids[6_250:18_750])
    assert np.array_equal(data.test.values, np.concatenate([ids[:6_250], ids[18_750:]]))
    assert np.bincount(data.test.labels).tolist() == [6_250, 6_250]


# --- bad input: one line that names the argument -------------------------------------------------------------------


def refused(error: pytest.ExceptionInfo[MaedError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("cifar1", "source: unknown source 'cifar1'"),
        ("", "source: unknown source ''"),
        ("missing.npy", "source: 'missing.npy' does not exist"),
        ("folder/missing", "source: 'folder/missing' does not exist"),
        ("x" * 5000, "cannot be read"),
        ("hub:nobody", "must be hub:OWNER/NAME, got 'hub:nobody'"),
    ],
)
def test_unknown_sources(source: str, said: str) -> None:
    with pytest.raises(MaedError) as error:
        load(source, DataSettings())
    assert said in refused(error)


@pytest.mark.parametrize(
    ("X", "y", "chosen", "said"),
    [
        (np.zeros(5), None, {}, "shape (5,)"),
        (np.zeros((5, 2, 2, 2)), None, {}, "shape (5, 2, 2, 2)"),
        (np.zeros((5, 2, 2), int), None, {"type": "tokens"}, "must be (n, N) for token ids"),
        (np.zeros((5, 2)), None, {"type": "image"}, "(n, height, width)"),
        (np.zeros((5, 2)), None, {"type": "tokens"}, "dtype float64"),
        (np.zeros((5, 2)), None, {"type": "text"}, "data.type"),
        (np.zeros((5, 2)), None, {"image_size": 4}, "data.image_size"),
        (np.zeros((5, 2), object), None, {}, "dtype object"),
        (np.full((5, 2), "a"), None, {}, "dtype <U1"),
        (np.zeros((5, 2), complex), None, {}, "dtype complex128"),
        ([[1, 2], [3]], None, {}, "inputs"),
        (np.zeros((0, 3)), None, {}, "inputs"),
        (np.zeros((9, 1)), None, {}, "at least 2"),
        (normal(3, 4), None, {}, "at least 4"),
        (np.full((9, 2), -1), None, {}, "-1 in signal"),
        (np.full((9, 2), 1 << 30), None, {}, "1073741824"),
        (normal(9, 2), np.zeros(9), {}, "9 signals"),
        (normal(9, 2), np.arange(8), {}, "shape (8,)"),
        (
            normal(9, 2),
            np.array([np.nan, *range(8)]),
            {},
            "1 of 9 are missing or infinite",
        ),
        (normal(9, 2), np.zeros((9, 2, 2), int), {}, "shape (9, 2, 2)"),
        (normal(9, 2), [None, *"aabbaabb"], {}, "some are missing"),
        (normal(40, 2), np.arange(40) % 4, {"limit": 3}, "labels: no training signal of class"),
        (normal(9, 2), None, {"split": "original-imdb"}, "original-imdb"),
    ],
)
def test_arrays_that_cannot_be_used(X: object, y: object, chosen: dict, said: str) -> None:
    with pytest.raises(MaedError) as error:
        from_arrays(X, y, settings=DataSettings(**chosen))
    assert said in refused(error)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_no_numbers(value: float) -> None:
    X = normal(50, 4, 2)
    X[7, 3, 1] = X[9, 2, 0] = value
    with pytest.raises(MaedError) as error:
        from_arrays(X)
    message = refused(error)
    assert re.search(
        r"inputs: 2 values are .*first in signal (7, position 3, channel 1|9, position 2, channel 0)", message
    )
    assert ("--data.missing mask" in message) == np.isnan(value)
    if np.isinf(value):
        with pytest.raises(MaedError, match="2 values are infinite"):
            from_arrays(X, settings=DataSettings(missing="mask"))


def test_numbers_beyond_float32_and_empty_signals() -> None:
    X = np.random.default_rng(0).normal(size=(20, 3))
    X[1, 1] = 1e300
    with pytest.raises(MaedError, match="1 values are infinite"):
        from_arrays(X)


def test_signals_that_miss_everything_are_left_out_and_named() -> None:
    X = normal(40, 3)
    whole = from_arrays(X)
    X[np.arange(0, 40, 3)] = np.nan
    with pytest.warns(UserWarning, match="are left out"):
        found = from_arrays(X, settings=DataSettings(missing="mask"))
    parts = [(getattr(found, name), getattr(whole, name)) for name in ("train", "validation", "test")]
    assert sum(len(part) for part, _ in parts) == 40 - 14
    for part, before in parts:
        np.testing.assert_array_equal(part.values, before.values[np.isin(before.values, part.values).all(axis=(1, 2))])
    with pytest.raises(MaedError, match=r"NaN|values"):
        from_arrays(np.full((40, 3), np.nan), settings=DataSettings(missing="mask"))


def test_one_false_value_and_positions_that_hardly_ever_move_do_not_outweigh_all_others() -> None:
    X = normal(1_000, 5)
    X[::97, 3] += 1e6  # 11 of 1,000
    X[:, 4] = 0
    X[5, 4] = 1
    with pytest.warns(UserWarning, match="2 of 5 positions have values more than 10"):
        found = from_arrays(X)
    values = found.train.take(np.arange(len(found.train)))[..., 0].numpy()
    assert np.abs(values).max() == 10
    assert 0.8 < np.median(np.abs(values[:, 3])) / np.median(np.abs(values[:, 0])) < 1.25
    plain = from_arrays(X[:, :3]).train
    np.testing.assert_array_equal(values[:, :3], plain.take(np.arange(len(plain)))[..., 0].numpy())


def test_blocks_hold_out_runs_of_neighbors() -> None:
    X = np.arange(2_000, dtype=np.float32)[:, None] + normal(1, 4)
    data = from_arrays(X, settings=DataSettings(split="blocks"))
    held_out = np.sort(np.rint(data.validation.values[:, 0, 0] - X[0, 0]).astype(int))
    assert (np.diff(held_out) > 1).sum() < 20  # of 160 signals
    parts = [data.train, data.validation, data.test]
    together = np.sort(np.concatenate([part.values[:, 0, 0] for part in parts]))
    np.testing.assert_array_equal(together, X[:, 0])


@pytest.mark.parametrize("coordinates", [np.zeros((5, 2)), np.zeros(4), np.full((4, 1), np.nan)])
def test_coordinates_that_do_not_fit(coordinates: np.ndarray) -> None:
    with pytest.raises(MaedError, match=r"^coordinates"):
        from_arrays(normal(20, 4), coordinates=coordinates)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".csv", ".parquet"])
@pytest.mark.parametrize("content", [b"", b"\x00\xff garbage \x00\n\xfe"])
def test_empty_and_corrupt_files(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(MaedError, match=re.escape(str(path))) as error:
        load(str(path), DataSettings())
    assert ("empty file" in refused(error)) == (not content)


def test_truncated_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", normal(50, 4))
    np.savez(tmp_path / "x.npz", inputs=normal(50, 4))
    pq.write_table(pa.table({"a": normal(50, 1)[:, 0]}), tmp_path / "x.parquet")
    for path in sorted(tmp_path.iterdir()):
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(MaedError, match="cannot be read") as error:
            load(str(path), DataSettings())
        refused(error)


def test_python_objects_are_never_unpickled(tmp_path: Path) -> None:
    objects = np.array([{"a": 1}, None], dtype=object)
    np.save(tmp_path / "x.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "x.npz", inputs=objects)
    for name in ("x.npy", "x.npz"):
        with pytest.raises(MaedError, match="holds Python objects, which are never unpickled"):
            load(str(tmp_path / name), DataSettings())
    (tmp_path / "y.npy").write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(MaedError, match=r"not a \.npy file"):
        load(str(tmp_path / "y.npy"), DataSettings())


def test_an_npz_without_inputs(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", input=normal(20, 3), other=normal(20, 3))
    with pytest.raises(MaedError, match="did you mean 'input'"):
        load(str(tmp_path / "x.npz"), DataSettings())


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"label": "lable"}, r"data\.label.*you mean 'label'"),
        ({"columns": ["a", "bb"]}, r"data\.columns:"),
        ({"columns": ["a", "label"]}, "data.columns: 'label' is the label"),
        ({"columns": ["a"]}, "inputs.*at least 2"),
        ({"type": "image"}, r"data\.type:"),
        ({"type": "text"}, r"data\.type:"),
        ({"type": "tokens"}, r"data\.type.*and column 'b' holds"),
    ],
)
def test_columns_that_cannot_be_used(tmp_path: Path, chosen: dict, said: str) -> None:
    with pytest.raises(MaedError, match=said) as error:
        load(csv(tmp_path / "x.csv"), DataSettings(**chosen))
    refused(error)


def test_tables_that_cannot_be_used(tmp_path: Path) -> None:
    def said(table: pa.Table, **chosen: Any) -> str:
        pq.write_table(table, tmp_path / "x.parquet")
        with pytest.raises(MaedError) as error:
            load(str(tmp_path / "x.parquet"), DataSettings(**chosen))
        return refused(error)

    ragged = [[1.0, 2.0], [1.0, 2.0, 3.0], *[[1.0, 2.0]] * 8]
    assert "column 'x'" in said(pa.table({"x": ragged}))
    assert "NaN" in said(pa.table({"x": [None, *ragged[2:]]}))
    assert "lists of token ids are missing" in said(pa.table({"x": [None, *[[1, 2]] * 9]}), type="tokens")
    assert "has no rows" in said(pa.table({"x": pa.array([], pa.float32())}))
    assert "labels" in said(pa.table({"x": [1.0] * 9, "y": [1.0] * 9, "label": [1] * 9}))
    assert "1 of 9 in column 'label' are missing" in said(pa.table({"x": [1.0] * 9, "label": [None, *[1] * 8]}))
    assert "at least 1 column" in said(pa.table({"label": [0, 1] * 4}))
    assert "x (unreadable)" in said(pa.table({"x": [{"a": 1}] * 9}))
    (tmp_path / "head.csv").write_text("a,b\n")
    (tmp_path / "bare.csv").write_text("0.5,1\n1,2\n")
    with pytest.raises(MaedError, match="no rows"):
        load(str(tmp_path / "head.csv"), DataSettings())
    with pytest.raises(MaedError, match=r"at least 4 signals.*got 2"):  # the first line is one
        load(str(tmp_path / "bare.csv"), DataSettings())


def test_folders_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(MaedError, match=r"no train-\*\.parquet"):
        load(str(tmp_path), DataSettings())
    image_folder(tmp_path, "one")
    image_folder(tmp_path, "two")
    with pytest.raises(MaedError, match="holds several data sets"):
        load(str(tmp_path), DataSettings())
    (tmp_path / "x.txt").write_text("a")
    with pytest.raises(MaedError, match=r"is a \.txt file"):
        load(str(tmp_path / "x.txt"), DataSettings())


def test_embedded_sources_refuse_what_they_cannot_do() -> None:
    for chosen, said in (
        (DataSettings(image_size=32), "data.image_size"),
        (DataSettings(samples=1), "data.samples"),
        (DataSettings(samples=10**6), "data.samples"),
    ):
        with pytest.raises(MaedError, match=said):
            load("photos", chosen)


@pytest.mark.slow
def test_without_a_network_a_local_folder_is_proposed(tmp_path: Path) -> None:
    program = """
from maed.data import load
for source in ("imdb", "hub:owner/name"):
    try:
        load(source)
    except ValueError as error:
        print(error)
"""
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    environment.pop("MAED_DATA", None)
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout
    assert said.count("\n") == 2
    for line in said.splitlines():
        assert "from the hub" in line
        assert "$MAED_DATA" in line


def test_hub_tables_go_the_same_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    split = datasets.Dataset.from_dict({"text": [f"t{i}" for i in range(20)], "label": [0, 1] * 10}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda name, **options: datasets.DatasetDict(train=split, test=split))
    data = load("hub:owner/name", DataSettings(length=8))
    assert (data.classes, data.kind, len(data.test)) == (("bad", "good"), "tokens", 20)
