"""Python objects as a source: arrays, tensors, tables, columns, data sets, iterators of batches."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.sparse import issparse

from maed.data.arrays import INPUTS, FileArray, array_source
from maed.data.foreign import cells_source, recording_source
from maed.data.labeled import labeled_source
from maed.data.source import Source
from maed.data.tables import LABELS, from_tables
from maed.errors import MaedError
from maed.settings import DataSettings

KEPT = 1 << 28
"""Bytes of signals that are kept at most. A training draws a few hundred thousand: more would hardly be seen."""

_BATCH = 256  # signals of a map-style data set at a time

_EXPECTED = (
    "an array or tensor (n, N) or (n, N, C), a table or column of pandas, polars or arrow, an xarray.DataArray, a "
    "data set of datasets, a recording of MNE, AnnData, or an iterator of batches"
)


def given_source(X: Any, settings: DataSettings, generator: np.random.Generator, coordinates: Any = None) -> Source:
    """A source of whatever holds signals.

    Of an iterator, or a data set that streams, a uniform sample of at most `KEPT` bytes is kept, so its length is
    bounded by patience alone. Arrays and tables are not copied here; memory-mapped ones, and those in a file of HDF5 or
    zarr, are read only where rows are chosen (see `within_memory`).

    Args:
        X: `_EXPECTED`. A batch is an array, a tensor, a table of numbers, or a tuple that starts with one.
        settings: `type`, `columns`, `label` and `length` are read.
        generator: Draws the sample of an iterator.
        coordinates: `(N, D)` true coordinates, or None.

    Raises:
        MaedError: None of these, or one that cannot be used; it names X.
    """
    if issparse(X):
        raise MaedError("X must be dense (X.toarray()), with NaN for missing values; got a sparse matrix")
    if hasattr(X, "with_format") and hasattr(X, "column_names") and not hasattr(X, "__len__"):
        X = sample_table(X.with_format("arrow").iter(batch_size=_BATCH), generator)  # a datasets.IterableDataset
    source = _named_source(X, settings)
    if source is not None:
        if coordinates is not None:
            geometry = array_source(np.zeros((2, len(coordinates))), None, coordinates, DataSettings()).geometry
            source = replace(source, geometry=geometry)
        return source
    if hasattr(X, "__getitem__") and hasattr(X, "__len__") and not isinstance(X, (Iterable, Sequence)):
        X = _items(X)  # a map-style data set of torch
    # neither an array nor a list: iterated for batches
    if isinstance(X, Iterable) and not isinstance(X, (list, tuple, str, bytes, dict)) and not hasattr(X, "shape"):
        X = sample(_batches(X), generator)
    in_file = type(X).__module__.partition(".")[0] in ("h5py", "zarr")
    array: Any = FileArray(X, "X") if in_file and getattr(X, "ndim", 0) in (2, 3) else as_array(X)
    for size, least, what in (
        (array.shape[0], 4, "sample" if array.shape[0] == 1 else "samples"),
        (array.shape[1], 2, "feature(s)"),
    ):
        if size < least:  # worded as by scikit-learn, whose users match these words
            raise MaedError(f"X: {size} {what} (shape={array.shape}) while a minimum of {least} is required.")
    return array_source(array, None, coordinates, settings)


def _named_source(X: Any, settings: DataSettings) -> Source | None:
    """A source of what has names for its axes or columns; None for anything else. No package is imported for it."""
    if type(X).__module__.partition(".")[0] == "xarray" and hasattr(X, "dims"):
        return labeled_source(X, settings, "X")
    if hasattr(X, "get_data") and hasattr(X, "ch_names"):
        return recording_source(X)
    if hasattr(X, "X") and hasattr(X, "obs_names") and hasattr(X, "var_names"):
        return cells_source(X, settings)
    table = as_table(X)
    return None if table is None else _table_source(table, settings)


def within_memory(source: Source, settings: DataSettings) -> DataSettings:
    """The settings with a limit on the signals that are read, where all of them would take more than `KEPT` bytes."""
    values, _ = source.train.read(np.arange(1))
    most = max(16, KEPT // max(1, values[0].nbytes))
    if source.train.size <= most or (settings.limit is not None and settings.limit <= most):
        return settings
    return replace(settings, limit=most)


def as_array(X: Any) -> np.ndarray:
    """An array or tensor, or nested lists, as a numpy array; memory-mapped ones stay so.

    Raises:
        MaedError: The rank or type of the object is not that of signals.
    """
    if hasattr(X, "detach"):  # a tensor
        X = X.detach().cpu()
        X = X.float() if X.is_floating_point() and X.element_size() == 2 else X  # numpy has no bfloat16
        X = X.numpy()
    if np.ma.isMaskedArray(X):
        X = np.ma.filled(X.astype(np.float64), np.nan)
    try:
        array = np.asarray(X)
    except ValueError:
        raise MaedError("X must have signals of one length, got several") from None
    if array.dtype.kind == "O":
        array = _numbers(array)
    if array.dtype.kind == "c":
        raise MaedError(
            f"X: Complex data not supported ({array.dtype}); pass real and imaginary parts as two channels, (n, N, 2)"
        )
    if array.dtype.kind not in "biuf":
        raise MaedError(f"X must be {_EXPECTED}; got dtype {array.dtype}")
    if array.ndim not in (2, 3):
        raise MaedError(f"X must have shape (n, N) or (n, N, C), signals first, then positions; got {array.shape}")
    return array


def as_table(X: Any) -> pa.Table | None:
    """A table, column or data set as an arrow table; None for anything else."""
    if isinstance(X, pa.Table):
        return X
    if isinstance(X, (pa.ChunkedArray, pa.Array)):
        return pa.table({"X": X})
    if hasattr(X, "with_format") and hasattr(X, "column_names") and hasattr(X, "__len__"):  # datasets.Dataset
        return X.with_format("arrow")[:]
    if type(X).__module__.partition(".")[0] == "pandas":
        import pandas as pd

        frame = X.to_frame("X") if isinstance(X, pd.Series) else X
        try:
            return pa.Table.from_pandas(frame.rename(columns=str), preserve_index=False)
        except (pa.ArrowException, ValueError, TypeError) as error:
            raise MaedError(f"X has columns that cannot be read ({str(error).splitlines()[0]})") from None
    if hasattr(X, "__arrow_c_stream__"):  # a table or column of polars and others
        try:
            return pa.table(X)
        except pa.ArrowInvalid:
            return pa.table({"X": pa.chunked_array(X)})
    return None


def sample(batches: Iterator[np.ndarray], generator: np.random.Generator) -> np.ndarray:
    """A uniform sample of the signals in `batches`, of at most `KEPT` bytes: reservoir sampling (Vitter 1985, R).

    Every signal is kept with equal probability, however many come. Memory is that of the sample and of one batch.

    Returns:
        `(m, N)` or `(m, N, C)`.
    """
    kept: np.ndarray | None = None
    seen = most = 0
    first: list[np.ndarray] = []  # until the reservoir is full
    for batch in batches:
        if not len(batch):
            continue
        if not most:
            shape, most = batch.shape[1:], max(16, KEPT // max(1, batch[0].nbytes))
        if batch.shape[1:] != shape:
            raise MaedError(f"X must have batches of signals of one shape, got {shape} and {batch.shape[1:]}")
        if kept is None:
            first.append(np.array(batch[: most - seen]))
            seen += len(first[-1])
            batch = batch[len(first[-1]) :]
            if seen < most:
                continue
            kept, first = np.concatenate(first), []
        places = generator.integers(0, seen + 1 + np.arange(len(batch)))
        stays = places < most
        kept[places[stays]] = batch[stays]  # of two for one place the later one stays
        seen += len(batch)
    if kept is None and not first:
        raise MaedError("X must yield batches (b, N) or (b, N, C); this iterator is empty")
    return np.concatenate(first) if kept is None else kept


def sample_table(tables: Iterator[pa.Table], generator: np.random.Generator) -> pa.Table:
    """`sample` of the rows of tables of equal columns.

    Rows that make room for others are removed when they are as many as those kept, so time grows with the rows alone.
    """
    pieces: list[pa.Table] = []
    places = np.empty(0, dtype=np.int64)  # where among the rows of `pieces` those kept lie
    seen = most = held = 0
    for table in tables:
        if not table.num_rows:
            continue
        most = most or max(16, KEPT * table.num_rows // max(1, table.nbytes))
        filling = min(table.num_rows, max(0, most - seen))
        drawn = generator.integers(0, seen + 1 + np.arange(filling, table.num_rows))
        stays = np.flatnonzero(drawn < most)
        taken = np.concatenate([np.arange(filling), filling + stays])
        pieces.append(table if len(taken) == table.num_rows else table.take(taken))
        places = np.concatenate([places, held + np.arange(filling)])
        places[drawn[stays]] = held + filling + np.arange(len(stays))  # of two for one place the later one stays
        seen, held = seen + table.num_rows, held + len(taken)
        if held > 2 * most:
            pieces, held = [pa.concat_tables(pieces).take(places)], len(places)
            places = np.arange(held)
    if not pieces:
        raise MaedError("X must yield rows; this data set is empty")
    together = pa.concat_tables(pieces)
    return together if held == len(places) else together.take(places)


def _table_source(table: pa.Table, settings: DataSettings) -> Source:
    """A table without its labels, which nothing here reads; texts as long as the longest, within `data.length`."""
    labels = set(LABELS) if settings.label is None else {settings.label, *settings.label.split(",")}
    kept = [name for name in table.column_names if name not in labels] or table.column_names
    read = set(kept)
    if left := [name for name in table.column_names if name not in read]:
        warnings.warn(f"X has a column {left[0]!r} of labels, which learning positions never reads", stacklevel=4)
    texts = [
        column
        for column in table.select(kept).columns
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    ]
    if len(texts) == 1 and len(kept) == 1:
        longest = pc.max(pc.binary_length(texts[0])).as_py() or 0
        settings = replace(settings, length=max(3, min(settings.length, longest + 2)))  # [CLS] and [SEP]
    return from_tables({"train": table.select(kept)}, replace(settings, label=None), origin="X")


def _batches(stream: Iterable[Any]) -> Iterator[np.ndarray]:
    """The inputs of each batch as an array; what comes with them, such as labels, is not read."""
    for batch in stream:
        inputs = batch[0] if isinstance(batch, (tuple, list)) and np.ndim(batch[0]) > 1 else batch
        inputs = _signals_of(inputs, 2) if isinstance(inputs, Mapping) else inputs
        table = as_table(inputs)
        if table is not None:
            source = _table_source(table, DataSettings())
            values, _ = source.train.read(np.arange(table.num_rows))
            inputs = values[..., 0] if source.kind == "real" and values.ndim == 3 else values
        array = as_array(inputs)
        yield array.astype(np.float32) if array.dtype == np.float64 else array


def _items(dataset: Any) -> Iterator[np.ndarray]:
    """The signals of a data set that is asked for one after another, in batches."""
    batch: list[np.ndarray] = []
    for number in range(len(dataset)):
        item = dataset[number]
        item = item[0] if isinstance(item, (tuple, list)) else item
        item = _signals_of(item, 1) if isinstance(item, Mapping) else item
        batch.append(np.asarray(item.detach().cpu() if hasattr(item, "detach") else item))
        if len(batch) == _BATCH or number == len(dataset) - 1:
            yield np.stack(batch)
            batch = []


def _signals_of(batch: Mapping[str, Any], least: int) -> Any:
    """The signals in a batch with keys: `inputs` or the like, or the only array with at least `least` axes."""
    arrays = {name: value for name, value in batch.items() if np.ndim(value) >= least}
    known = [name for name in INPUTS if name in arrays]
    if known or len(arrays) == 1:
        return arrays[known[0] if known else next(iter(arrays))]
    raise MaedError(f"X must have batches with a key inputs, got {', '.join(map(repr, batch))}")


def _numbers(array: np.ndarray) -> np.ndarray:
    """Objects as floats, as scikit-learn's estimators take them; None and pandas' NA are missing values."""
    try:
        absent = np.frompyfunc(lambda value: value is None or type(value).__name__ in ("NAType", "NaTType"), 1, 1)
        return np.where(np.asarray(absent(array), dtype=bool), np.nan, array).astype(np.float64)
    except TypeError as error:
        raise TypeError(f"X: of dtype object ({error}); argument must be a string or a number") from None
    except ValueError as error:
        raise MaedError(f"X must be {_EXPECTED}; got dtype object ({error})") from None
