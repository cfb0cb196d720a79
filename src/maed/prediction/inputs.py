"""Inputs to be labeled: files, folders and lines of text as signals in batches, in the shape that a model takes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from maed.data import arrays, hub_layout, images, tables, text
from maed.data.delimited import read_delimited
from maed.data.prepare import real_positions
from maed.data.signals import SignalContent
from maed.data.source import Reader, Source
from maed.data.windows import windowed
from maed.errors import MaedError
from maed.models import ClassifierConfig
from maed.settings import DataSettings

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
"""Suffixes of image files."""

EXPECTED = (
    "a .npy, .npz, .csv, .tsv, .dat, .parquet or .txt file, an image file, a folder of images, of .txt files or in the "
    "hub's layout, or - for texts from standard input"
)

_TYPES: dict[SignalContent, Any] = {"numbers": "real", "tokens": "tokens", "text": "text", "images": "image"}


@dataclass(frozen=True)
class Batch:
    """Some signals of an input, as `ClassifierConfig.prepare` takes them.

    Args:
        values: `(m, N, C)` numbers or `(m, N)` ids, neither normalized nor permuted.
        mask: `(m, N)` bool, True where real; None if all are.
        truth: m names of classes, None for those that are not known; None if the input has no labels.
        files: m names of files; None if signals are not files.
        first: Offset of a row's number: a forecast is of the moment after those read.
    """

    values: np.ndarray
    mask: np.ndarray | None
    truth: Sequence[str | None] | None = None
    files: Sequence[str] | None = None
    first: int = 0


@dataclass(frozen=True)
class Input:
    """An input to be labeled.

    Args:
        size: Number of signals; None if only reading tells.
        batches: The signals, in order, so many at a time.
    """

    size: int | None
    batches: Callable[[int], Iterator[Batch]]


def open_input(name: str, config: ClassifierConfig, settings: DataSettings, *, lines: bool = False) -> Input:
    """Find out what an input is, and open it.

    Args:
        name: a path, or `-` for texts from standard input, one a line.
        config: Configuration of the classifier that is to label it.
        settings: Settings of the data, of which `type`, `columns`, `label` and `missing` are read; the classifier
            decides the rest.
        lines: True if each line of a .txt file is a text.

    Raises:
        MaedError: There is no such input, it is empty, or not of the kind that the classifier takes; its batches raise
            it for signals that cannot be used.
    """
    path, here = Path(name).expanduser(), _Model(config, settings)
    suffix = path.suffix.lower()
    if lines and name != "-" and suffix != ".txt":
        raise MaedError(f"lines must be left out, except for a .txt file; got {name!r}")
    if name == "-":
        return here.lines(lambda: sys.stdin.buffer, "standard input")
    if path.is_dir():
        return _folder(path, here)
    if not path.is_file():
        raise MaedError(f"input: {name!r} does not exist; it must be {EXPECTED}")
    if suffix not in (*_READERS, *IMAGES, ".txt"):
        raise MaedError(f"input must be {EXPECTED}; {name!r} is a {suffix or 'nameless'} file")
    if not path.stat().st_size:
        raise MaedError(f"input: {name!r} is an empty file")
    if suffix in _READERS:
        return _READERS[suffix](path, here)
    return here.lines(lambda: _lines(path), name) if lines else here.files([path], path.parent)


class _Model:
    """The classifier's side: what it takes, and how that is made of what is read."""

    def __init__(self, config: ClassifierConfig, settings: DataSettings) -> None:
        # what is missing is what is asked for
        self.config, self.settings = (
            config,
            replace(settings, missing="mask") if config.task == "imputation" else settings,
        )
        guess: SignalContent = "text" if config.vocabulary == text.VOCABULARY else "tokens"
        self.content = config.content or ("numbers" if config.kind == "real" else guess)
        height, width = config.sides if self.content == "images" else (0, 0)
        self.type = _TYPES[self.content] if settings.type == "auto" else settings.type
        self.image_size = height or None if height == width else None
        """Side that images of another size are brought to, as they were for the training."""

    @property
    def takes(self) -> str:
        """The inputs that the model takes, in words for messages."""
        config = self.config
        if self.content == "images":
            height, width = config.sides
            return f"images of {width} x {height} pixels, {config.channels} channel(s)"
        if self.content == "text":
            return "texts"
        each = "token ids" if config.kind == "tokens" else f"positions, {config.inputs} channel(s)"
        moments = "" if config.task != "forecast" else ", or a recording of as many moments or more"
        return f"signals of {config.positions} {each}{moments}"

    def reading(self, type_: Any = None, **changes: Any) -> DataSettings:
        """Settings under which a source is read for this classifier."""
        read = replace(self.settings, type=type_ or self.type, label=None, length=self.config.positions)
        return replace(read, **changes)

    def check(self, content: SignalContent, what: str) -> None:
        """Refuse what is of another kind than the classifier takes."""
        if content != self.content:
            raise MaedError(f"input must be {self.takes} for this model; {what}")

    def source(self, source: Source, origin: str, truth: Callable[[np.ndarray], Any] | None) -> Input:
        """An input of the signals of a source."""
        if source.kind != self.config.kind:
            found = "token ids" if source.kind == "tokens" else "numbers"
            raise MaedError(f"input must be {self.takes} for this model; {origin} holds {found}")
        return self._forecast(source, origin) or self._random_access(source.train.size, source.train.read, truth)

    def _forecast(self, source: Source, origin: str) -> Input | None:
        """A recording, a row for each moment, as windows that end at each of its moments; None of other inputs."""
        config = self.config
        if config.task != "forecast" or not source.train.size:
            return None
        channels = source.train.read(np.arange(1))[0].shape[2:]
        if len(channels) != 1 or config.inputs % channels[0] or channels[0] == config.inputs:
            return None
        moments = config.inputs // channels[0]
        if source.train.size < moments:
            raise MaedError(
                f"input must have at least {moments} moments for this model; {origin} has {source.train.size}"
            )
        train = windowed(source, replace(self.settings, window=moments, stride=1)).train
        return self._random_access(train.size, train.read, first=moments)

    def files(self, paths: Sequence[Path], root: Path) -> Input:
        """An input of image files, or of .txt files that are one text each."""
        names = [os.fsencode(path.relative_to(root)).decode("utf-8", "replace") for path in paths]
        written = paths[0].suffix.lower() == ".txt"
        self.check("text" if written else "images", f"{names[0]} is {'text' if written else 'an image'}")

        def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
            contents = [paths[row].read_bytes() for row in rows]
            if written:
                texts = [_decoded(contents[i], names[row]) for i, row in enumerate(rows)]
                return text.tokenize(texts, self.config.positions)
            return images.decode(contents, self.image_size, lambda i: names[rows[i]]), None

        return self._random_access(len(paths), read, files=names)

    def lines(self, opened: Callable[[], Iterable[bytes]], origin: str) -> Input:
        """An input of texts, one a line."""
        self.check("text", f"{origin} is text")

        def batches(batch_size: int) -> Iterator[Batch]:
            texts = (
                _decoded(line.rstrip(b"\r\n"), f"line {number} of {origin}") for number, line in enumerate(opened(), 1)
            )
            some = list(islice(texts, batch_size))
            if not some:
                raise MaedError(f"input: {origin} holds no text")
            while some:
                yield Batch(*text.tokenize(some, self.config.positions))
                some = list(islice(texts, batch_size))

        return Input(None, batches)

    def _random_access(
        self,
        size: int,
        read: Reader,
        truth: Callable[[np.ndarray], Sequence[Any]] | None = None,
        files: Sequence[str] | None = None,
        first: int = 0,
    ) -> Input:
        """An input of signals that can be read at any rows."""

        def batches(batch_size: int) -> Iterator[Batch]:
            for start in range(0, size, batch_size):
                rows = np.arange(start, min(start + batch_size, size))
                values, mask = self._fitted(*read(rows), rows)
                names = None if truth is None else [self._class(value) for value in truth(rows)]
                named = None if files is None else [files[row] for row in rows.tolist()]
                yield Batch(values, mask, names, named, first)

        return Input(size, batches)

    def _fitted(
        self, values: np.ndarray, mask: np.ndarray | None, rows: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Values and mask of signals as the classifier takes them, after the checks."""
        config = self.config
        if values.ndim == 4:
            values = self._pixels(values)
        if config.task == "forecast" and values.ndim == 3 and values.shape[2] == config.channels:
            values = values[:, :, -config.inputs :]  # the latest
        shape = (config.positions,) if config.kind == "tokens" else (config.positions, config.inputs)
        if values.shape[1:] != shape:
            raise MaedError(f"input must be {self.takes} for this model, got signals of shape {values.shape[1:]}")
        if config.kind == "real":
            return values, real_positions(values, rows, self.settings)
        wrong = (values < 0) | (values >= config.vocabulary)
        if wrong.any():
            row, position = np.argwhere(wrong)[0]
            where = f"signal {rows[row]}, position {position}"
            last = config.vocabulary - 1
            raise MaedError(
                f"input must have token ids from 0 to {last} for this model, got {values[row, position]} in {where}"
            )
        return values, values != text.PAD if mask is None and self.content == "text" else mask

    def _pixels(self, pixels: np.ndarray) -> np.ndarray:
        """Pixels `(m, height, width, C)` as `(m, N, C)`, gray or in colors as the classifier takes them."""
        channels, found = self.config.channels, pixels.shape[1:]
        if found[:2] != self.config.sides:
            size = f"{found[1]} x {found[0]} pixels, {found[2]} channel(s)"
            raise MaedError(f"input must be {self.takes} for this model, got images of {size}")
        if pixels.dtype == np.uint8 and (found[2], channels) == (1, 3):
            pixels = np.repeat(pixels, 3, axis=3)
        elif pixels.dtype == np.uint8 and (found[2], channels) == (3, 1):
            pixels = np.stack([np.asarray(Image.fromarray(image).convert("L")) for image in pixels])[..., None]
        return pixels.reshape(len(pixels), -1, pixels.shape[3])

    def _class(self, value: Any) -> str | None:
        """The class that a label of the input means; None if the classifier does not know it.

        Whole numbers stand for classes in their order where no class of the classifier has a number for its name.
        """
        classes = self.config.classes
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        name = str(int(value)) if whole else str(value)
        if whole and 0 <= value < len(classes) and not any(known.lstrip("-").isdigit() for known in classes):
            return classes[int(value)]
        return name if name in classes else None


# One function for each thing an input may be.


def _folder(path: Path, model: _Model) -> Input:
    table = hub_layout.unseen(path)
    if table is not None:
        return _table(table, str(path), model)
    suffixes = (".txt",) if model.content == "text" else IMAGES
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes and file.is_file())
    if not files:
        what = "images" if model.content == "images" else ".txt files" if model.content == "text" else "files"
        raise MaedError(f"input: {path} holds no {what} that this model can read; it must be {EXPECTED}")
    return model.files(files, path)


def _array(found: dict[str, np.ndarray], origin: str, model: _Model) -> Input:
    array, labels = found["inputs"], found.get("labels")
    type_ = "tokens" if model.type == "text" else model.type
    if type_ == "tokens" and array.dtype.kind not in "iu":
        raise MaedError(f"input must be {model.takes} for this model; {origin} holds numbers of type {array.dtype}")
    size = None
    if type_ == "image":
        flat = (model.config.positions, model.config.channels)
        if array.ndim == 2 or array.shape[1:] == flat != model.config.sides:
            type_ = "real"
        elif array.shape[1:3] != model.config.sides and array.dtype == np.uint8:
            size = model.image_size
    source = arrays.array_source(array, None, None, model.reading(type_, image_size=size))
    if labels is None or labels.shape != array.shape[:1]:
        return model.source(source, origin, None)
    return model.source(source, origin, lambda rows: labels[rows].tolist())


def _table(table: pa.Table, origin: str, model: _Model) -> Input:
    if not table.num_rows:
        raise MaedError(f"input: {origin} has no rows")
    names = table.column_names
    columns = _columns(names, origin, model)
    labels = [name for name in tables.LABELS if name in names and name not in (columns or ())]
    if model.settings.label is not None:
        labels = [tables.known_column(table, "data.label", model.settings.label, origin)]
    targets = [name for name in model.config.classes if model.config.task != "classification" and name in names]
    labels += [name for name in targets if name not in (*labels, *(columns or ()))]
    kept = table.select([name for name in names if name not in labels])
    source = tables.from_tables(
        {"train": kept}, model.reading(columns=columns, image_size=model.image_size), origin=origin
    )
    known = bool(labels) and model.config.task == "classification"
    return model.source(source, origin, _labels(table, labels[0]) if known else None)


def _columns(names: Sequence[str], origin: str, model: _Model) -> list[str] | None:
    """The columns to read: those asked for, those of the training, or None for those that can be read."""
    if model.settings.columns is not None:
        return model.settings.columns
    trained = model.config.columns
    if len(trained) > 1:  # columns of numbers, whose names alone say which is which
        aside = {model.settings.label, *(model.config.classes if model.config.task != "classification" else ())}
        aside -= {*trained}
        there = [name for name in names if name not in aside]
        return tables.columns_in_order(there, trained, "input", origin)
    return list(trained) if trained and trained[0] in names else None


def _labels(table: pa.Table, label: str) -> Callable[[np.ndarray], list[Any]]:
    """The labels of some rows, by name where the table names them."""
    names = tables.class_names(table, label)
    column = table.column(label)

    def read(rows: np.ndarray) -> list[Any]:
        values = column.slice(int(rows[0]), len(rows)).to_pylist()
        named = [isinstance(value, int) and 0 <= value < len(names) for value in values]
        return [names[value] if has_name else value for value, has_name in zip(values, named, strict=True)]

    return read


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise MaedError(f"input: {name} is not UTF-8 text (byte {error.start})") from None


_READERS: dict[str, Callable[[Path, _Model], Input]] = {
    ".npy": lambda path, model: _array({"inputs": arrays.read_npy(path)}, str(path), model),
    ".npz": lambda path, model: _array(arrays.read_npz(path), str(path), model),
    **dict.fromkeys((".csv", ".tsv", ".dat"), lambda path, model: _table(read_delimited(path), str(path), model)),
    ".parquet": lambda path, model: _table(tables.read_parquet([path]), str(path), model),
}
