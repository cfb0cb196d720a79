"""Tables that are long: read a piece at a time into columns of float32, in memory or in a temporary file."""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from maed.data.reading import progress
from maed.data.storage import Storage

LONG = 1 << 25
"""Bytes of a file from which on it is read a piece at a time."""

PIECE = 1 << 21
"""Numbers in a piece."""

_EXACT = 1 << 24  # whole numbers up to here are what they are in float32


class MixedColumnError(Exception):
    """A column holds numbers in one piece and something else in another: the table must be read as a whole."""


def gathered(
    pieces: Iterable[pa.RecordBatch], rows: int, names: Sequence[str], origin: str, whole: frozenset[int] = frozenset()
) -> pa.Table:
    """A table of pieces, numbers as float32 with NaN where they are missing, whole ones as int32 where that holds them.

    Memory is that of the columns and of one piece; where columns of numbers are kept, `Storage` decides.

    Args:
        pieces: Tables with the same columns, in order. Larger whole numbers, and what is no number, are kept as they
            are.
        rows: At least the number of rows of all pieces together.
        names: Names of the columns.
        origin: Name of the table in progress.
        whole: Columns that hold whole numbers, which were read as fractions.

    Raises:
        MixedColumnError: a column is one of numbers and of something else.
    """
    shape = (len(names), max(rows, 1))
    what = f"{origin}: its {shape[0] * shape[1]:,} numbers"
    numbers = Storage.for_bytes(4 * shape[0] * shape[1], what, "split the table").empty(shape, np.float32)
    kept: dict[int, list[pa.Array]] = {}  # columns that are no numbers, and whole numbers that float32 cannot hold
    integers, empty = set(range(len(names))), set(range(len(names)))
    done = 0
    with progress(f"reading {origin}", rows) as told:
        for piece in pieces:
            end = done + piece.num_rows
            if end > rows:
                raise MixedColumnError  # lines end in a way that was not counted
            for i, column in enumerate(piece.columns):
                kind = column.type
                if pa.types.is_list(kind) and pa.types.is_float64(kind.value_type):
                    column = column.cast(pa.list_(pa.float32()))
                if i in kept:
                    if pa.types.is_null(kind) or pa.types.is_integer(kind):
                        column = column.cast(kept[i][0].type)
                    elif column.type != kept[i][0].type and not pa.types.is_dictionary(kind):
                        raise MixedColumnError
                    kept[i].append(column)
                    continue
                if pa.types.is_null(kind):
                    numbers[i, done:end] = np.nan
                    continue
                is_integer = pa.types.is_integer(kind)
                if not is_integer and not pa.types.is_floating(kind):
                    if i not in empty:
                        raise MixedColumnError
                    kept[i] = [*[pa.nulls(done, column.type)] * bool(done), column]
                    continue
                empty.discard(i)
                values = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)  # null is NaN
                finite = (is_integer or i in whole) and not column.null_count
                if not finite or (values != np.rint(values)).any():
                    integers.discard(i)
                elif np.abs(values).max(initial=0) >= _EXACT and is_integer and i in integers:
                    column = column.cast(pa.int64())
                    kept[i] = [*[pa.array(numbers[i, :done].astype(np.int64))] * bool(done), column]
                    continue
                elif np.abs(values).max(initial=0) >= _EXACT:
                    raise MixedColumnError  # read as fractions, which float32 would round
                with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is refused later
                    numbers[i, done:end] = values
            done = end
            told(done)
    columns: list[pa.Array | pa.ChunkedArray] = []
    for i in range(len(names)):
        if i in kept:
            columns.append(pa.chunked_array(kept[i]))
        elif i in empty:
            columns.append(pa.nulls(done))
        else:
            column = numbers[i, :done]
            if i in integers:
                column.view(np.int32)[:] = column
            type_ = pa.int32() if i in integers else pa.float32()
            columns.append(pa.Array.from_buffers(type_, done, [None, pa.py_buffer(column)]))
    return pa.table(columns, names=list(names))


def mapped(schema: pa.Schema, pieces: Iterable[pa.RecordBatch]) -> pa.Table:
    """A table of pieces, in a temporary file that it is mapped to: memory is that of one piece."""
    with tempfile.TemporaryFile() as file:
        with pa.ipc.new_stream(file, schema) as writer:
            for piece in pieces:
                writer.write_batch(piece)
        file.flush()
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    return pa.ipc.open_stream(pa.py_buffer(content)).read_all()
