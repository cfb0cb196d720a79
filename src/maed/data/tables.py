"""Tables (.csv, .parquet, the hub's) to sources: columns of numbers, lists, texts or images, and a label."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet

from maed.data import images, text
from maed.data.geometry import line
from maed.data.long_tables import LONG, PIECE, gathered, mapped
from maed.data.source import PartName, Reader, Source, Stored, first_line, with_classes
from maed.data.storage import Storage
from maed.errors import MaedError, nearest
from maed.settings import DataSettings

Content = Literal["number", "list", "text", "image"]

LABELS = ("label", "labels")
"""Columns that are taken for the label where none is named."""

_USUAL_LABELS = ("y", "target", "targets", "class", "classes", "category", "species", "diagnosis", "outcome", "group")
_MANY_CLASSES = 50
_TOGETHER = 64  # columns
_ROWS = 1_024  # of a long table of texts or images in a piece


def read_parquet(paths: Sequence[Path]) -> pa.Table:
    """One or more `.parquet` files of the same columns, end to end; long ones a piece at a time.

    Numbers become columns of float32 (`gathered`). Texts and images that would take more than a share of the memory
    (`Storage`) are copied, decoded, to a temporary file that the table is mapped to.
    """
    tables, long = [], sum(path.stat().st_size for path in paths) >= LONG
    for path in paths:
        try:
            file = pa.parquet.ParquetFile(path, pre_buffer=False)
            if long and _holds_numbers(file.schema_arrow):
                rows = max(1, PIECE // file.metadata.num_columns)
                pieces = _checked(file.iter_batches(rows))
                table = gathered(pieces, file.metadata.num_rows, file.schema_arrow.names, str(path))
                table = table.replace_schema_metadata(file.schema_arrow.metadata)
            elif long and _decoded(file, path).on_disk:
                table = mapped(file.schema_arrow, _checked(file.iter_batches(_ROWS)))
            else:
                table = pa.parquet.read_table(path, memory_map=True, partitioning=None)
                table.validate(full=True)  # that texts are texts, among others
            _ = table.column_names  # decoded only now
            tables.append(table)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise MaedError(f"{path}: cannot be read as .parquet ({first_line(error)})") from None
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise MaedError(f"{paths[0].parent}: the files must have the same columns ({first_line(error)})") from None


def _holds_numbers(schema: pa.Schema) -> bool:
    """True if signals lie in columns of numbers, or in a list of them, which take less memory as float32."""
    content = [_content_of(field.type, False) for field in schema]
    return content.count("number") > 1 or "list" in content


def _decoded(file: pa.parquet.ParquetFile, path: Path) -> Storage:
    """Where the table of a file has room."""
    groups = (file.metadata.row_group(i).total_byte_size for i in range(file.metadata.num_row_groups))
    return Storage.for_bytes(sum(groups), f"{path}: its {file.metadata.num_rows:,} rows", "split the file")


def _checked(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for piece in pieces:
        piece.validate(full=True)
        yield piece


def from_tables(
    tables: Mapping[PartName, pa.Table], settings: DataSettings, names: Sequence[str] = (), origin: str = "table"
) -> Source:
    """A source from one table a stored split, `train` among them.

    Args:
        tables: The stored splits.
        settings: `type`, `columns`, `label`, `length` and `image_size` are read.
        names: Class names for whole-number labels whose table does not name them.
        origin: Name of the tables in messages.

    Raises:
        MaedError: No rows, an unknown column, or columns that cannot be read as one kind of signal.
    """
    for name, table in tables.items():
        if not table.num_rows:
            raise MaedError(f"{origin}: the {name} table has no rows")
    train = tables["train"]
    twice = sorted(name for name, count in Counter(train.column_names).items() if count > 1)
    if twice:
        raise MaedError(f"{origin}: column names must be unique; {twice[0]!r} occurs twice")
    labels = [name for name in LABELS if name in train.column_names][:1]
    if settings.label is not None:
        labels = label_columns(train, settings.label, origin)
    label = labels[0] if len(labels) == 1 else None
    group = None if settings.group is None else known_column(train, "data.group", settings.group, origin)
    columns = _columns(train, settings, labels, origin)
    if group is not None:
        columns = [name for name in columns if name != group]
    if settings.columns is None and settings.type in ("auto", "real", "tokens"):
        columns = _signals_among(train, columns, label, origin)
    content = {name: _content_of(train.schema.field(name).type, settings.type == "image") for name in columns}
    chosen = _choose(columns, content, settings, origin)
    kind = content[chosen[0]]
    if (
        settings.type == "auto"
        and kind == "number"
        and all(pa.types.is_integer(train.schema.field(name).type) for name in chosen)
    ):
        other = "kind='tokens'" if origin == "X" else "--data.type tokens"
        warnings.warn(f"{origin}: columns of whole numbers are read as numbers; {other} reads token ids", stacklevel=3)
    stored: dict[PartName, Stored] = {}
    for name, table in tables.items():
        there = set(table.column_names)
        if missing := [column for column in chosen if column not in there]:
            raise MaedError(f"{origin}: column {missing[0]!r} is missing in the {name} table")
        read, groups = _reader(table, chosen, kind, settings), None
        if group is not None:
            groups = table.column(known_column(table, "data.group", group, f"the {name} table")).to_pandas().to_numpy()
        stored[name] = Stored(table.num_rows, read, _raw_labels(table, labels), groups)
    tokens = kind == "text" or settings.type == "tokens"
    source = Source(
        "tokens" if tokens else "real",
        stored,
        vocabulary=text.VOCABULARY if kind == "text" else 0,
        geometry=line(settings.length) if kind == "text" else None,
        normalization="channel" if kind == "image" else "position",
        columns=tuple(chosen),
        label_names=tuple(labels),
    )
    return with_classes(source, class_names(train, label) or names)


def label_columns(table: pa.Table, label: str, origin: str) -> list[str]:
    """The columns that `data.label` names: one, or several with commas between them."""
    if label in table.column_names or "," not in label:
        return [known_column(table, "data.label", label, origin)]
    return list(dict.fromkeys(known_column(table, "data.label", name.strip(), origin) for name in label.split(",")))


def _columns(table: pa.Table, settings: DataSettings, labels: Sequence[str], origin: str) -> list[str]:
    """The columns to read: those asked for, or all but the labels."""
    if settings.columns is None:
        columns = [name for name in table.column_names if name not in labels]
    else:
        columns = [known_column(table, "data.columns", name, origin) for name in settings.columns]
        if both := [name for name in labels if name in columns]:
            raise MaedError(f"data.columns: {both[0]!r} is the label and cannot be an input too")
    if not columns:
        raise MaedError(f"{origin}: at least 1 column must be left besides the label")
    return columns


def _signals_among(table: pa.Table, columns: list[str], label: str | None, origin: str) -> list[str]:
    """The columns without those that are plainly none of many sensors: dates, names, classes, row numbers, empty ones.

    Only where two columns of numbers or more are left, no column is of another kind of signal, and texts are short,
    as names are. What is set aside is said.
    """
    fields = {name: table.schema.field(name).type for name in columns}
    content = {name: _content_of(type_, False) for name, type_ in fields.items()}
    numbers = [name for name in columns if content[name] == "number"]
    texts = [name for name in columns if content[name] == "text"]
    kinds = set(content.values())
    if len(numbers) < 2 or kinds & {"list", "image"} or any(_is_prose(table.column(name)) for name in texts):
        return columns
    counting = [name for name in numbers if _counts_rows(table.column(name))]
    counted = [name for name in numbers if name.strip().lower() in _ROW_NAMES and _numbers_rows(table.column(name))]
    if (doubtful := [name for name in counting if name not in counted]) and doubtful[0] == columns[0]:
        warnings.warn(
            f"{origin}: column {doubtful[0]!r} counts rows, it seems, and is read nevertheless; "
            "--data.columns selects columns",
            stacklevel=3,
        )
    classes = [name for name in numbers if name.strip().lower() in _USUAL_LABELS and _is_few(table.column(name))]
    aside = {
        "names": texts,
        "classes": classes,
        "dates": [name for name in columns if pa.types.is_temporal(fields[name])],
        "row numbers": counted,
        "empty": [name for name in columns if pa.types.is_null(fields[name])],
    }
    left = [name for name in columns if not any(name in names for names in aside.values())]
    if left == columns or len(left) < 2:
        return columns
    told = [
        f"{', '.join(map(repr, names[:8]))}{', ...' if len(names) > 8 else ''} ({what})"
        for what, names in aside.items()
        if names
    ]
    remedy = "; to read them, pass them as numbers in a table of their own"
    if origin != "X":
        labels = classes or texts
        hint = "" if label or not labels else f"; --data.label {labels[0]} reads it as labels"
        remedy = f"{hint}; --data.columns selects columns"
    warnings.warn(f"{origin}: left out columns that are not signals: {'; '.join(told)}{remedy}", stacklevel=3)
    return left


_ROW_NAMES = (
    "",
    "unnamed: 0",
    "row.names",
    "rownames",
    "__index_level_0__",
    "index",
    "id",
    "row",
    "nr",
    "no",
    "obs",
    "time",
    "t",
)
_PROSE = 40  # letters in a text that is more than a name


def _is_prose(column: pa.ChunkedArray) -> bool:
    """True if texts are signals themselves rather than names."""
    plain = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
    return (pc.mean(pc.utf8_length(plain)).as_py() or 0.0) > _PROSE


def _is_few(column: pa.ChunkedArray) -> bool:
    """True if a column of numbers holds a few whole ones, each several times, as classes do."""
    if not pa.types.is_integer(column.type):
        return False
    return pc.count_distinct(column).as_py() <= min(_MANY_CLASSES, len(column) // 2)


def _numbers_rows(column: pa.ChunkedArray) -> bool:
    """True if a column holds whole numbers, each once, as rows that were chosen of more still have them."""
    if not pa.types.is_integer(column.type) or column.null_count or len(column) < 3:
        return False
    return pc.count_distinct(column).as_py() == len(column)


def _counts_rows(column: pa.ChunkedArray) -> bool:
    """True if a column counts rows: whole numbers that go up by ones."""
    if not pa.types.is_integer(column.type) or column.null_count or len(column) < 3:
        return False
    return bool((np.diff(column.to_numpy().astype(np.float64)) == 1).all())


def known_column(table: pa.Table, argument: str, name: str, origin: str) -> str:
    """The name of a column, which is to be there."""
    if name not in table.column_names:
        known = ", ".join(table.column_names[:10]) + (", ..." if table.num_columns > 10 else "")
        raise MaedError(
            f"{argument}: {origin} has no column {name!r}{nearest(name, table.column_names)} (it has {known})"
        )
    return name


def columns_in_order(names: Sequence[str], trained: Sequence[str], argument: str, origin: str) -> list[str]:
    """The columns that something was trained on, found by name among those of another table, in whatever order.

    Others, but for labels, are left out with a warning.

    Args:
        names: The columns of the other table.
        trained: The wanted columns.
        argument: The argument that the message is about.
        origin: Name of the table in messages.

    Raises:
        MaedError: One of them is missing; it is named.
    """
    there = set(names)
    if missing := [name for name in trained if name not in there]:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        known = f"{', '.join(trained[:8])}{', ...' if len(trained) > 8 else ''}"
        raise MaedError(
            f"{argument}: {origin} has no column {missing[0]!r}{more}{nearest(missing[0], names)} (it must "
            f"have those of the training, in any order: {known})"
        )
    wanted = {*trained, *LABELS}
    if aside := [name for name in names if name not in wanted]:
        told = f"{', '.join(map(repr, aside[:8]))}{', ...' if len(aside) > 8 else ''}"
        warnings.warn(f"{origin}: columns that the training did not have are left out: {told}", stacklevel=3)
    return list(trained)


def _content_of(type_: pa.DataType, binary_is_image: bool) -> Content | None:
    """The content of a column; None if it cannot be read."""
    if pa.types.is_dictionary(type_):
        type_ = type_.value_type
    if pa.types.is_integer(type_) or pa.types.is_floating(type_) or pa.types.is_boolean(type_):
        return "number"
    if pa.types.is_string(type_) or pa.types.is_large_string(type_):
        return "text"
    if pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_):
        return "list" if _content_of(type_.value_type, False) == "number" else None
    if pa.types.is_struct(type_):
        return "image" if type_.get_field_index("bytes") >= 0 else None
    if binary_is_image and (pa.types.is_binary(type_) or pa.types.is_large_binary(type_)):
        return "image"
    return None


def _choose(columns: list[str], content: dict[str, Content | None], settings: DataSettings, origin: str) -> list[str]:
    """The columns that make the signals: many of numbers, or one list, text or image.

    An image stands out among other columns, and `data.type` picks its own kind; where several kinds are left, the
    user has to name the columns.
    """
    picked = columns
    if settings.type == "text":
        picked = [name for name in columns if content[name] == "text"]
    elif settings.type == "image" or (settings.type == "auto" and settings.columns is None):
        pictures = [name for name in columns if content[name] == "image"]
        picked = pictures if pictures or settings.type == "image" else columns
    elif settings.type in ("real", "tokens") and settings.columns is None:
        picked = [name for name in columns if content[name] in ("number", "list")]
    odd = [name for name in columns if content[name] not in ("number", None)] or columns
    odd += [name for name in columns if content[name] is None and name not in odd]
    shown = [*odd[:4], *[name for name in columns if name not in odd[:4]][: 8 - len(odd[:4])]]
    found = ", ".join(f"{name} ({content[name] or 'unreadable'})" for name in columns if name in shown)
    if not picked:
        raise MaedError(f"data.type: {origin} has no column of type {settings.type}; it has {found}")
    kinds = {content[name] for name in picked}
    if None in kinds or len(kinds) > 1 or (kinds != {"number"} and len(picked) > 1):
        raise MaedError(
            f"data.columns must be columns of numbers, or one column of lists, text or images; {origin} has {found}"
        )
    if settings.type in ("real", "tokens") and not kinds <= {"number", "list"}:
        raise MaedError(
            f"data.type must fit the column {picked[0]!r} of {origin}, which holds {content[picked[0]]}; got "
            f"{settings.type}"
        )
    return picked


def _reader(table: pa.Table, columns: list[str], kind: Content | None, settings: DataSettings) -> Reader:
    """A reader of the signals in given rows."""
    whole = settings.type == "tokens"

    def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        if kind == "number":
            values = np.empty((len(rows), len(columns)), dtype=np.int64 if whole else np.float32)
            for start in range(0, len(columns), _TOGETHER):  # some at a time: less memory, and whole lines of cache
                some = columns[start : start + _TOGETHER]
                cells = [_numbers(_take(table, name, rows), name, whole) for name in some]
                values[:, start : start + len(some)] = np.stack(cells, axis=1)
            return (values if whole else values[..., None]), None
        column = _take(table, columns[0], rows)
        if kind == "text":
            return text.tokenize(column, settings.length)
        if kind == "image":
            # the hub's struct of bytes and path, or plain bytes
            files = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
            return images.decode(files.to_pylist(), settings.image_size, lambda i: f"the one in row {rows[i]}"), None
        values = _lists(column, columns[0], rows, whole)
        return (values if whole else values[..., None]), None

    return read


def _take(table: pa.Table, name: str, rows: np.ndarray) -> pa.Array:
    """Some rows of a column, as one array."""
    column = table.column(name)
    if len(rows):  # before the casts, which would copy all of the column for each batch of it
        first = int(rows.min())
        column, rows = column.slice(first, int(rows.max()) + 1 - first), rows - first
    together = np.array_equal(rows, np.arange(len(column)))
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type):
        column = column.cast(pa.large_string())  # offsets of 32 bits would overflow at 2 GB
    if not together:
        column = column.take(pa.array(rows))
    combined = column.combine_chunks()
    return pa.concat_arrays(combined.chunks) if isinstance(combined, pa.ChunkedArray) else combined


def _numbers(column: pa.Array, name: str, whole: bool) -> np.ndarray:
    """A column of numbers as float32 with NaN where missing, or as int64 token ids."""
    if whole:
        if not pa.types.is_integer(column.type) or column.null_count:
            raise MaedError(f"data.type: tokens needs whole numbers, and column {name!r} holds others")
        return column.to_numpy(zero_copy_only=False).astype(np.int64)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.uint8())
    numbers = column.cast(pa.float64()) if pa.types.is_integer(column.type) else column
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is refused later
        return pc.fill_null(numbers, float("nan")).to_numpy(zero_copy_only=False).astype(np.float32)


def _lists(column: pa.Array, name: str, rows: np.ndarray, whole: bool) -> np.ndarray:
    """A column of lists of one length as `(m, N)`; NaN where a list is missing."""
    there = column.is_valid().to_numpy(zero_copy_only=False)
    if whole and not there.all():
        raise MaedError(f"column {name!r}: {column.null_count} of {len(column)} lists of token ids are missing")
    if not there.any():
        raise MaedError(f"column {name!r}: all {len(column)} lists are missing")
    sizes, found = pc.list_value_length(column.drop_null()).to_numpy(zero_copy_only=False), rows[there]
    if (sizes != sizes[0]).any():
        other = int(np.argmax(sizes != sizes[0]))
        differ = f"row {found[0]} holds {sizes[0]} values, row {found[other]} {sizes[other]}"
        raise MaedError(f"column {name!r}: lists must have one length; they differ ({differ})")
    numbers = _numbers(column.drop_null().flatten(), name, whole).reshape(len(found), int(sizes[0]))
    if there.all():
        return numbers
    values = np.full((len(column), numbers.shape[1]), np.nan, dtype=np.float32)
    values[there] = numbers
    return values


def _raw_labels(table: pa.Table, labels: Sequence[str]) -> np.ndarray | None:
    """The label column as it is, `(n,)`, or several of numbers as `(n, K)`; None if one is not there."""
    if not labels or not set(labels) <= set(table.column_names):
        return None
    found = [_raw_label(table, name) for name in labels]
    if len(found) == 1:
        return found[0]
    for name, values in zip(labels, found, strict=True):
        if values.dtype.kind not in "biuf":
            raise MaedError(f"data.label must name columns of numbers if it names several; {name!r} holds text")
    return np.stack([values.astype(np.float64) for values in found], axis=1)


def _raw_label(table: pa.Table, label: str) -> np.ndarray:
    column = table.column(label)
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.null_count:
        raise MaedError(
            f"labels: {column.null_count} of {len(column)} in column {label!r} are missing; remove these "
            "rows, or choose another column with --data.label"
        )
    if _content_of(column.type, False) not in ("number", "text"):
        raise MaedError(f"data.label must be a column of numbers or names; {label!r} holds {column.type}")
    values: np.ndarray = column.to_numpy()
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        count = int((~np.isfinite(values)).sum())
        raise MaedError(
            f"labels: {count} of {len(values)} in column {label!r} are missing or infinite; remove these "
            "rows, or choose another column with --data.label"
        )
    return values


def class_names(table: pa.Table, label: str | None) -> tuple[str, ...]:
    """The names of the classes where the hub's metadata in the schema gives them."""
    try:
        stored = json.loads((table.schema.metadata or {})[b"huggingface"])
        names = stored["info"]["features"][label]["names"]
    except (KeyError, TypeError, ValueError):
        return ()
    return tuple(str(name) for name in (names.values() if isinstance(names, dict) else names))
