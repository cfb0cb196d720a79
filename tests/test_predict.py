"""`maed predict`: the labels that a trained folder gives to new arrays, tables, images and texts."""

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
from PIL import Image

from maed.cli import main
from maed.data import SignalData, load
from maed.errors import MaedError
from maed.files import read_json, write_json
from maed.models import TargetModel, load_classifier
from maed.prediction import open_classifier, predict
from maed.settings import DataSettings

TINY = (
    *("--embedding.dim=8", "--perceiver.latents=4", "--perceiver.latent_width=16", "--perceiver.layers=1"),
    *("--train.epochs=2", "--train.batch_size=16", "--train.learning_rate=3e-3", "--train.warmup=5"),
    *("--trainer.precision=32-true", "--trainer.threads=1", "--trainer.progress=none"),
)
WORDS = ("good", "lovely", "fine", "bad", "ugly", "awful")

Predicted = Callable[..., list[dict[str, str]]]
Refused = Callable[..., str]


@dataclass(frozen=True)
class Trained:
    """A folder that `maed train` wrote, and the settings under which it read its data."""

    folder: Path
    source: str
    data: DataSettings

    @property
    def classifier(self) -> TargetModel:
        return load_classifier(self.folder)

    def load(self, **changes: Any) -> SignalData:
        return load(self.source, replace(self.data, **changes))

    def expected(self) -> list[str]:
        """The classifier's own labels of the test split, in storage order."""
        test, classifier = self.load().test, self.classifier
        rows = np.arange(len(test))
        with torch.inference_mode():
            best = classifier(test.take(rows), test.real(rows)).argmax(dim=1)
        return [classifier.config.classes[index] for index in best.tolist()]


def train(folder: Path, source: str, *flags: str, **data: Any) -> Trained:
    read = [f"--data.{name}={value}" for name, value in data.items()]
    assert main(["train", source, "--positions", "random", "--out", str(folder), *TINY, *flags, *read]) == 0
    return Trained(folder / "models" / "random-0", source, DataSettings(**data))


def png(pixels: np.ndarray, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format)
    return buffer.getvalue()


def write_parquet(path: Path, columns: Mapping[str, Sequence[object] | np.ndarray], names: Sequence[str] = ()) -> Path:
    """A table, with the metadata by which the hub names classes."""
    table = pa.table(columns)
    if names:
        info = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pa.parquet.write_table(table, path)
    return path


# What is trained once, and labeled by many tests.


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("digits"), "digits", limit=300)


@pytest.fixture(scope="module")
def permuted(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("permuted"), "digits", limit=300, permute=3)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained on 120 texts of three words; the classes have names that CSV has to quote."""
    folder, generator = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
    halves = generator.integers(0, 2, 120)
    written = [" ".join(generator.choice(WORDS[3 * half : 3 * half + 3], 3)) for half in halves]
    path = write_parquet(folder / "texts.parquet", {"text": written, "label": halves}, ('so "good"', "bad, ugly"))
    return train(folder, str(path), length=24)


@pytest.fixture(scope="module")
def colors(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained on 80 images of 6 x 6, red or blue, with the storage order of the pixels permuted."""
    folder = tmp_path_factory.mktemp("colors")
    rows = [{"bytes": png(colored(i % 2, i)), "path": None} for i in range(80)]
    path = write_parquet(
        folder / "colors.parquet", {"image": rows, "label": [i % 2 for i in range(80)]}, ("red", "blue")
    )
    return train(folder, str(path), permute=1)


@pytest.fixture(scope="module")
def gaps(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Trained on a table of twelve numbers, a tenth of which is missing; its columns are named."""
    folder, generator = tmp_path_factory.mktemp("gaps"), np.random.default_rng(0)
    labels = np.arange(120) % 2
    values = generator.normal(size=(120, 12)) + labels[:, None]
    values[generator.random((120, 12)) < 0.1] = np.nan
    columns = {f"sensor_{i}": values[:, i] for i in range(12)}
    path = write_parquet(folder / "gaps.parquet", {"state": np.where(labels, "warm", "cold"), **columns})
    return train(folder, str(path), missing="mask", label="state", permute=2)


def colored(blue: int, seed: int, size: int = 6) -> np.ndarray:
    """A noisy image (size, size, 3) of one color."""
    image = np.random.default_rng(seed).integers(0, 60, (size, size, 3))
    image[..., 2 if blue else 0] += 180
    return image.astype(np.uint8)


@pytest.fixture
def predicted(capsys: pytest.CaptureFixture[str]) -> Predicted:
    """The rows that `maed predict` prints."""

    def run(trained: Trained, name: Path | str, *flags: str) -> list[dict[str, str]]:
        capsys.readouterr()
        assert main(["predict", str(trained.folder), str(name), "--batch_size=7", *flags]) == 0
        return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))

    return run


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refused:
    """The one line that a command is refused with; it writes nothing."""
    monkeypatch.chdir(tmp_path)

    def run(folder: Path | str, name: Path | str, *flags: str) -> str:
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert main(["predict", str(folder), str(name), *flags]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("maed: ")
        assert said.err.count("\n") == 1
        assert sorted(tmp_path.rglob("*")) == before
        return said.err

    return run


def labels(rows: list[dict[str, str]]) -> list[str]:
    assert [row["index"] for row in rows] == [str(i) for i in range(len(rows))]
    return [row["label"] for row in rows]


# --- arrays -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["digits", "permuted"])
def test_labels_of_an_array_are_those_of_the_classifier(
    name: str, request: pytest.FixtureRequest, tmp_path: Path, predicted: Predicted
) -> None:
    trained: Trained = request.getfixturevalue(name)
    np.save(tmp_path / "new.npy", trained.load(permute=None).test.values)
    expected = trained.expected()
    assert len(set(expected)) > 2
    assert labels(predicted(trained, tmp_path / "new.npy")) == expected


def test_images_as_an_array_of_four_or_three_sides_are_the_same_signals(
    permuted: Trained, tmp_path: Path, predicted: Predicted
) -> None:
    values = permuted.load(permute=None).test.values
    np.save(tmp_path / "sides.npy", values.reshape(-1, 8, 8))
    np.save(tmp_path / "channel.npy", values.reshape(-1, 8, 8, 1))
    for name in ("sides.npy", "channel.npy"):
        assert labels(predicted(permuted, tmp_path / name)) == permuted.expected()


def test_probabilities_of_all_classes_are_columns_that_sum_to_one(
    digits: Trained, tmp_path: Path, predicted: Predicted
) -> None:
    np.save(tmp_path / "new.npy", digits.load().test.values)
    rows = predicted(digits, tmp_path / "new.npy", "--probabilities")
    assert list(rows[0]) == ["index", "label", "probability", *(f"probability_{i}" for i in range(10))]
    for row in rows:
        each = {name: float(row[f"probability_{name}"]) for name in map(str, range(10))}
        assert sum(each.values()) == pytest.approx(1, abs=1e-5)
        assert float(row["probability"]) == max(each.values()) == each[row["label"]]


@pytest.mark.slow
def test_the_function_yields_probabilities_a_batch_at_a_time(permuted: Trained) -> None:
    values = permuted.load(permute=None).test.values
    batches = list(predict(permuted.classifier, values, np.ones(values.shape[:2], bool), batch_size=16))
    assert [len(batch) for batch in batches[:-1]] == [16] * (len(values) // 16)
    best = torch.cat(batches).argmax(dim=1).tolist()
    assert [permuted.classifier.config.classes[i] for i in best] == permuted.expected()


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("image", "--perceiver.image_size=12", "--perceiver.input_width=8"), ("maed",)])
def test_every_architecture_labels(flags: tuple[str, ...], tmp_path: Path, predicted: Predicted) -> None:
    architecture, *more = flags
    trained = train(tmp_path, "digits", f"--perceiver.architecture={architecture}", *more, limit=100)
    np.save(tmp_path / "new.npy", trained.load().test.values)
    assert labels(predicted(trained, tmp_path / "new.npy")) == trained.expected()


def test_labels_in_the_input_are_scored_and_not_read(
    digits: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    test, expected = digits.load().test, digits.expected()
    truth = np.array([int(label) for label in expected])
    truth[0] = (truth[0] + 1) % 10
    truth[1] = 99  # no class of the classifier: not counted
    np.savez(tmp_path / "new.npz", inputs=test.values, labels=truth)
    assert main(["predict", str(digits.folder), str(tmp_path / "new.npz")]) == 0
    said = capsys.readouterr()
    known = len(test) - 1
    assert said.err == f"accuracy {100 * (known - 1) / known:.2f} % of {known} signals\n"
    assert labels(list(csv.DictReader(io.StringIO(said.out)))) == expected


# --- tables -------------------------------------------------------------------------------------------------------


def test_missing_values_are_masked_and_columns_found_by_name(
    gaps: Trained, tmp_path: Path, predicted: Predicted
) -> None:
    test = gaps.load(permute=None).test
    values = np.where(test.mask[..., None], test.values, np.nan)[..., 0]
    shuffled = [3, 0, 5, 11, 1, 10, 4, 9, 2, 7, 8, 6]
    write_parquet(tmp_path / "new.parquet", {f"sensor_{i}": values[:, i] for i in shuffled})
    expected = gaps.expected()
    assert set(expected) == {"warm", "cold"}
    assert np.isnan(values).any()
    assert labels(predicted(gaps, tmp_path / "new.parquet", "--data.missing=mask")) == expected


def test_other_columns_can_be_named(gaps: Trained, tmp_path: Path, predicted: Predicted) -> None:
    values = np.random.default_rng(1).normal(size=(9, 12))
    write_parquet(tmp_path / "a.parquet", {f"sensor_{i}": values[:, i] for i in range(12)})
    write_parquet(tmp_path / "b.parquet", {"time": np.arange(9), **{f"s{i}": values[:, i] for i in range(12)}})
    named = f"--data.columns=[{','.join(f's{i}' for i in range(12))}]"
    assert predicted(gaps, tmp_path / "b.parquet", named) == predicted(gaps, tmp_path / "a.parquet")


def test_columns_that_were_not_trained_on_are_left_out_and_named(
    gaps: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = {f"sensor_{i}": np.random.default_rng(i).normal(size=9) for i in range(12)}
    said = []
    for extra in ({}, {"humidity": np.arange(9.0)}):
        write_parquet(tmp_path / "new.parquet", {**extra, **columns})
        assert main(["predict", str(gaps.folder), str(tmp_path / "new.parquet")]) == 0
        said.append(capsys.readouterr())
    assert said[0].out == said[1].out
    assert said[0].err == ""
    assert "'humidity'" in said[1].err
    del columns["sensor_7"]
    write_parquet(tmp_path / "new.parquet", columns)
    assert main(["predict", str(gaps.folder), str(tmp_path / "new.parquet")]) == 2
    assert "'sensor_7'" in capsys.readouterr().err


def test_a_label_column_that_is_empty_is_no_obstacle(
    gaps: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = ",".join(f"sensor_{i}" for i in range(12))
    (tmp_path / "new.csv").write_text(f"{header},label\n" + "1,2,3,4,5,6,7,8,9,10,11,12,\n" * 3)
    assert main(["predict", str(gaps.folder), str(tmp_path / "new.csv")]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert said.out.count("\n") == 4


def test_the_test_split_of_a_folder_is_labeled_and_scored(
    texts: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").mkdir()
    write_parquet(tmp_path / "data" / "train-0.parquet", {"text": ["one"] * 4, "label": [0] * 4})
    write_parquet(tmp_path / "data" / "test-0.parquet", {"text": ["good fine"] * 3, "label": [0, 0, 0]})
    write_parquet(tmp_path / "data" / "test-1.parquet", {"text": ["good fine"], "label": [1]})
    assert main(["predict", str(texts.folder), str(tmp_path)]) == 0
    said = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(said.out)))
    share = {'so "good"': "75.00", "bad, ugly": "25.00"}[rows[0]["label"]]  # whole numbers count the classes
    assert said.err == f"accuracy {share} % of 4 signals\n"


# --- images -------------------------------------------------------------------------------------------------------


def test_images_of_a_table_are_labeled_as_in_training(colors: Trained, tmp_path: Path, predicted: Predicted) -> None:
    pixels = colors.load(permute=None).test.values.reshape(-1, 6, 6, 3)
    rows = [{"bytes": png(image), "path": None} for image in pixels]
    path = write_parquet(tmp_path / "new.parquet", {"picture": rows, "number": range(len(rows))})
    expected = colors.expected()
    assert set(expected) == {"red", "blue"}
    assert labels(predicted(colors, path)) == expected


def test_a_folder_of_images_of_any_size_and_mode(colors: Trained, tmp_path: Path, predicted: Predicted) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "a.png").write_bytes(png(colored(0, 1, size=24)))
    (tmp_path / "b.JPG").write_bytes(png(colored(1, 2, size=48)[:, :30], "JPEG"))
    (tmp_path / "more" / "c.png").write_bytes(png(np.full((6, 6), 90, np.uint8)))  # gray, for a model of colors
    (tmp_path / "notes.md").write_text("not an image")
    rows = predicted(colors, tmp_path)
    assert [row["file"] for row in rows] == ["a.png", "b.JPG", str(Path("more") / "c.png")]
    assert labels(rows)[:2] == ["red", "blue"]


def test_one_image_file_in_colors_for_a_gray_model(permuted: Trained, tmp_path: Path, predicted: Predicted) -> None:
    first = permuted.load(permute=None).test.values[0].reshape(8, 8)
    (tmp_path / "digit.png").write_bytes(png(np.stack([first] * 3, axis=2)))
    (row,) = predicted(permuted, tmp_path / "digit.png")
    assert (row["label"], row["file"]) == (permuted.expected()[0], "digit.png")


# --- texts --------------------------------------------------------------------------------------------------------


def test_texts_of_a_table_from_lines_and_from_standard_input_agree(
    texts: Trained, tmp_path: Path, predicted: Predicted, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_out = pyarrow.parquet.read_table(texts.source).column("text").to_pylist()[:20]
    held_out += ["", "Größe 猫", "much longer than the twenty-four positions"]
    table = write_parquet(tmp_path / "new.parquet", {"text": held_out})
    from_table = predicted(texts, table, "--probabilities")
    joined = "\n".join(held_out)
    (tmp_path / "new.txt").write_bytes(joined.replace("\n", "\r\n").encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(joined.encode() + b"\n")))
    assert predicted(texts, tmp_path / "new.txt", "--lines", "--probabilities") == from_table
    assert predicted(texts, "-", "--probabilities") == from_table
    assert set(labels(from_table)) == {'so "good"', "bad, ugly"}


def test_labels_of_texts_are_those_of_the_classifier(texts: Trained, tmp_path: Path, predicted: Predicted) -> None:
    ids = texts.load().test.values
    np.save(tmp_path / "ids.npy", ids)  # ids of texts, whose padding is not real
    assert (ids == 0).any()
    assert labels(predicted(texts, tmp_path / "ids.npy")) == texts.expected()


def test_a_txt_file_is_one_text(texts: Trained, tmp_path: Path, predicted: Predicted) -> None:
    (tmp_path / "a.txt").write_text("good\nfine\n")
    (tmp_path / "b.txt").write_text("awful\n")
    (one,) = predicted(texts, tmp_path / "a.txt")
    both = predicted(texts, tmp_path)
    assert {**one, "probability": ""} == {**both[0], "probability": ""}
    assert float(one["probability"]) == pytest.approx(float(both[0]["probability"]))
    assert [row["file"] for row in both] == ["a.txt", "b.txt"]


# --- outputs ------------------------------------------------------------------------------------------------------


def read_csv(path: Path) -> list[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8") as file:
        numbers = ("index", "probability")
        return [{k: float(v) if k.startswith(numbers) else v for k, v in row.items()} for row in csv.DictReader(file)]


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def read_parquet(path: Path) -> list[dict[str, Any]]:
    return pyarrow.parquet.read_table(path).to_pylist()


@pytest.mark.parametrize(("suffix", "read"), [("csv", read_csv), ("jsonl", read_jsonl), ("parquet", read_parquet)])
def test_files_hold_the_same_rows(
    suffix: str, read: Callable[[Path], list[dict[str, Any]]], texts: Trained, tmp_path: Path, predicted: Predicted
) -> None:
    (tmp_path / "new.txt").write_text("good fine\nawful\nlovely\nugly bad\n" * 5)
    printed = predicted(texts, tmp_path / "new.txt", "--lines", "--probabilities")
    out = tmp_path / "deeper" / f"labels.{suffix}"
    assert predicted(texts, tmp_path / "new.txt", "--lines", "--probabilities", f"--out={out}") == []
    rows = read(out)
    assert [list(row) for row in rows] == [list(row) for row in printed]
    assert [row["label"] for row in rows] == labels(printed)
    for row, other in zip(rows, printed, strict=True):
        assert row["index"] == int(other["index"])
        assert [np.float32(row[name]) for name in row if name.startswith("probability")] == [
            np.float32(other[name]) for name in other if name.startswith("probability")
        ]
    assert [path.name for path in out.parent.iterdir()] == [out.name]


def test_a_failure_leaves_the_file_as_it_was(texts: Trained, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "labels.csv").write_text("kept")
    (tmp_path / "new.txt").write_bytes(b"fine\n" * 8 + b"\xff\xfe\n")
    said = refused(texts.folder, "new.txt", "--lines", "--batch_size=4", "--out=labels.csv")
    assert "line 9 of new.txt is not UTF-8 text" in said
    assert (tmp_path / "labels.csv").read_text() == "kept"


def test_rows_that_nobody_reads_are_no_error(
    digits: Trained, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "new.npy", digits.load().test.values)
    reader, writer = os.pipe()
    os.close(reader)  # as `head` does once it has seen enough
    with os.fdopen(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert main(["predict", str(digits.folder), str(tmp_path / "new.npy"), "--batch_size=4"]) == 0
    assert capfd.readouterr().err == ""  # nor when the interpreter closes what is left


# --- what is refused ----------------------------------------------------------------------------------------------


def test_a_folder_that_holds_no_model_names_those_below(digits: Trained, tmp_path: Path, refused: Refused) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 64)))
    run = digits.folder.parent.parent
    assert f"must be {digits.folder}" in refused(run, "x.npy")
    folders = "a folder models/[TASK-][LABELS-][pretrained-]ENCODING-SEED"
    assert f"model must be {folders}" in refused("nowhere", "x.npy")
    assert "'nowhere' is no folder" in refused("nowhere", "x.npy")
    assert "holds no trained Perceiver" in refused(tmp_path, "x.npy")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"permutation": [0] * 64}, "do not fit together"),
        ({"mean": [[0.0, 0.0]]}, "do not fit together"),
        ({"sides": [8]}, "do not fit together"),
        ({"content": "smells"}, "do not fit together"),
        ({"classes": [0, *"123456789"]}, "do not fit together"),
        ({"classes": ["\ud800", *"123456789"]}, "do not fit together"),
        ({"positions": 63}, "has the shape"),
    ],
)
def test_a_config_that_somebody_changed(change: dict[str, object], said: str, digits: Trained, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes((digits.folder / "model.safetensors").read_bytes())
    changed = {**read_json(digits.folder / "config.json"), **change}
    (tmp_path / "config.json").write_text(json.dumps(changed))
    with pytest.raises(MaedError, match=said):
        open_classifier(tmp_path)


def test_a_folder_of_before_the_content_was_recorded_still_opens(
    texts: Trained, tmp_path: Path, predicted: Predicted
) -> None:
    stored = read_json(texts.folder / "config.json")
    write_json(tmp_path / "config.json", {k: v for k, v in stored.items() if k not in ("content", "columns", "sides")})
    (tmp_path / "model.safetensors").write_bytes((texts.folder / "model.safetensors").read_bytes())
    (tmp_path / "new.txt").write_text("good fine")
    new = tmp_path / "new.txt"
    assert predicted(replace(texts, folder=tmp_path), new) == predicted(texts, new)


def test_arrays_of_another_shape_or_kind_are_refused(digits: Trained, texts: Trained, refused: Refused) -> None:
    np.save("wide.npy", np.zeros((3, 65)))
    np.save("big.npy", np.zeros((3, 9, 9, 1), np.float32))
    np.save("none.npy", np.zeros((0, 64)))
    np.save("numbers.npy", np.zeros((3, 24)))
    np.save("ids.npy", np.full((3, 24), 262))
    takes = "images of 8 x 8 pixels, 1 channel(s)"
    assert f"{takes} for this model, got signals of shape (65, 1)" in refused(digits.folder, "wide.npy")
    assert f"{takes} for this model, got images of 9 x 9 pixels, 1 channel(s)" in refused(digits.folder, "big.npy")
    assert "shape (0, 64)" in refused(digits.folder, "none.npy")
    assert "numbers.npy holds numbers of type float64" in refused(texts.folder, "numbers.npy")
    assert "from 0 to 261 for this model, got 262 in signal 0, position 0" in refused(texts.folder, "ids.npy")


def test_values_that_are_missing_or_infinite_are_named(gaps: Trained, tmp_path: Path, refused: Refused) -> None:
    values = np.zeros((9, 12))
    values[8, 2] = np.nan
    np.save(tmp_path / "new.npy", values)
    said = refused(gaps.folder, "new.npy", "--batch_size=4")
    assert "the first in signal 8, position 2, channel 0; --data.missing mask" in said
    values[8] = np.nan
    np.save(tmp_path / "new.npy", values)
    assert "the first is signal 8" in refused(gaps.folder, "new.npy", "--data.missing=mask")


def test_inputs_of_another_kind_are_refused(
    digits: Trained, texts: Trained, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "a.png").write_bytes(png(np.zeros((8, 8), np.uint8)))
    (tmp_path / "a.csv").write_text("x,label\n1,2\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"fine\n")))
    assert "images of 8 x 8" in refused(digits.folder, "a.txt")
    assert "standard input is text" in refused(digits.folder, "-")
    assert "a.png is an image" in refused(texts.folder, "a.png")
    assert "x (number)" in refused(texts.folder, "a.csv")


def test_tables_without_the_needed_columns_are_refused(gaps: Trained, tmp_path: Path, refused: Refused) -> None:
    (tmp_path / "a.csv").write_text("sensor_0,sensor1,state\n1,2,warm\n")
    (tmp_path / "b.csv").write_text("sensor_0,sensor_1\n")
    assert "no column 'sensor_1' and 10 more" in refused(gaps.folder, "a.csv")
    assert "b.csv has no rows" in refused(gaps.folder, "b.csv")
    assert "data.label:" in refused(gaps.folder, "a.csv", "--data.label=stat", "--data.columns=[a]")


def test_inputs_that_cannot_be_read_are_named(
    digits: Trained, texts: Trained, tmp_path: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(png(np.zeros((8, 8), np.uint8)))
    (tmp_path / "images" / "b.png").write_bytes(b"no image")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "a.doc").write_text("x")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert "b.png cannot be decoded" in refused(digits.folder, "images", "--batch_size=1")
    assert "holds no .txt files" in refused(texts.folder, "images")
    assert "'empty.txt' is an empty file" in refused(texts.folder, "empty.txt")
    assert "standard input holds no text" in refused(texts.folder, "-")
    assert "'a.doc' is a .doc file" in refused(texts.folder, "a.doc")
    assert "'imdb' does not exist; it must be a .npy" in refused(texts.folder, "imdb")


def test_flags_that_do_not_fit_are_refused(digits: Trained, tmp_path: Path, refused: Refused) -> None:
    np.save(tmp_path / "x.npy", np.zeros((2, 64)))
    (tmp_path / "labels.csv").write_text("x")
    assert "batch_size" in refused(digits.folder, "x.npy", "--batch_size=0")
    assert "'x.npy'" in refused(digits.folder, "x.npy", "--lines")
    assert "labels.doc" in refused(digits.folder, "x.npy", "--out=labels.doc")
    assert "out must not be the input" in refused(digits.folder, "labels.csv", "--out=labels.csv")
