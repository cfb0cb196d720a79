"""Writing labels: rows as CSV on standard output, or a file that is complete or absent."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from maed.errors import MaedError
from maed.files import replacing

Columns = dict[str, Any]
"""Names of columns -> their values in some rows: lists, or float32 arrays."""

Write = Callable[[Columns], None]

_NPY = ".npy"
_ROW_GROUP = 1 << 16  # rows of a parquet file that are written together: fewer would be slow to read


@contextmanager
def writing(out: Path | None, shape: tuple[int, int] = (0, 0)) -> Iterator[Write]:
    """Yield what writes rows: as CSV to standard output, or to a file of the format that its suffix says.

    A `.npy` file has rows of numbers alone, of this `shape`: positions and channels.

    Raises:
        MaedError: a folder, or another suffix.
    """
    if out is None:
        yield _csv(sys.stdout)
        return
    check_out(out)
    with replacing(out) as temporary:
        if out.suffix.lower() == _NPY:
            with _npy_file(temporary, shape) as write:
                yield write
        else:
            with _OPENERS[out.suffix.lower()](temporary) as write:
                yield write


def check_out(out: Path) -> None:
    """Refuse a file that cannot be written."""
    if out.is_dir():
        raise MaedError(f"out must be a file, got the folder {out}")
    if out.suffix.lower() not in (*_OPENERS, _NPY):
        raise MaedError(f"out must end in {', '.join(_OPENERS)}, which names the format, got {out}")


def _csv(stream: TextIO) -> Write:
    """A header, then one row a signal; names are quoted where they need to be."""
    writer = csv.writer(stream, lineterminator="\n")
    started = False

    def write(columns: Columns) -> None:
        nonlocal started
        if not started:
            writer.writerow(columns)
            started = True
        shown = [values.astype(str) if isinstance(values, np.ndarray) else values for values in columns.values()]
        writer.writerows(zip(*shown, strict=True))
        stream.flush()  # anyone who feeds lines through a pipe waits for their labels

    return write


@contextmanager
def _csv_file(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        yield _csv(stream)


@contextmanager
def _jsonl_file(path: Path) -> Iterator[Write]:
    """One object a signal; float32 as the floats with the fewest digits that round to them."""

    def write(columns: Columns) -> None:
        plain = [
            [float(text) for text in values.astype(str)] if isinstance(values, np.ndarray) else values
            for values in columns.values()
        ]
        for row in zip(*plain, strict=True):
            stream.write(json.dumps(dict(zip(columns, row, strict=True)), ensure_ascii=False) + "\n")

    with path.open("w", encoding="utf-8") as stream:
        yield write


@contextmanager
def _parquet_file(path: Path) -> Iterator[Write]:
    waiting: list[Columns] = []
    file: pa.parquet.ParquetWriter | None = None

    def flush() -> None:
        nonlocal file
        if waiting:
            table = pa.table({name: _joined([columns[name] for columns in waiting]) for name in waiting[0]})
            file = file or pa.parquet.ParquetWriter(path, table.schema)
            file.write_table(table)
            waiting.clear()

    def write(columns: Columns) -> None:
        waiting.append(columns)
        if sum(len(columns["index"]) for columns in waiting) >= _ROW_GROUP:
            flush()

    try:
        yield write
        flush()
    finally:
        if file is not None:
            file.close()


@contextmanager
def _npy_file(path: Path, shape: tuple[int, int]) -> Iterator[Write]:
    """Signals `(n, N)`, or `(n, N, C)` of several channels."""
    rows: list[np.ndarray] = []

    def write(columns: Columns) -> None:
        numbers = [values for name, values in columns.items() if name not in ("index", "file")]
        rows.append(np.stack(numbers, axis=1))

    yield write
    values = np.concatenate(rows)
    with path.open("wb") as file:
        np.save(file, values if shape[1] == 1 else values.reshape(len(values), *shape))


def _joined(pieces: list[Any]) -> Any:
    """The values of a column, end to end."""
    return np.concatenate(pieces) if isinstance(pieces[0], np.ndarray) else list(chain.from_iterable(pieces))


_OPENERS = {".csv": _csv_file, ".jsonl": _jsonl_file, ".parquet": _parquet_file}
