"""Tables in text: what separates cells, what marks decimals and which lines are a header, by the first lines."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from maed.data.long_tables import LONG, PIECE, MixedColumnError, gathered
from maed.data.source import first_line
from maed.errors import MaedError

_SAMPLE = 1 << 18  # bytes that are looked at, or more where they hold fewer lines than these
_LINES = 8
_BLANKS = " "  # stands for any number of blanks and tabs
_DELIMITERS = (",", ";", "\t", "|", _BLANKS)
_SEPARATED_BY = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", _BLANKS: "blanks"}
_MISSING = r"|n/?a|-?nan|null|none|#n/a|\?|"
_NUMBER = re.compile(rf"[+-]?(\d[\d.,]*|[.,]\d+)(e[+-]?\d+)?|[+-]?inf(inity)?{_MISSING}", re.IGNORECASE)
_COMMA, _POINT = re.compile(r"[+-]?\d*,\d+(e[+-]?\d+)?", re.IGNORECASE), re.compile(r"[+-]?\d*\.\d+.*")
_THOUSANDS = {",": re.compile(r"[+-]?\d{1,3}(\.\d{3})+(,\d+)?"), ".": re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d+)?")}
_LEAST_HEADER = 8  # numbers that only ever grow, and so many, are no signal but names, such as wavelengths

Record = list[str]


@dataclass(frozen=True)
class Dialect:
    """The format of a table in text.

    Args:
        delimiter: The character between cells; a blank stands for any number of blanks.
        decimal: `.` or `,`.
        thousands: The character that groups digits; None if there is none.
        names: Names of the columns; None if no line holds them.
        skipped: Lines before the first signal.
        aside: Skipped lines other than that of the names, as they are written.
    """

    delimiter: str = ","
    decimal: str = "."
    thousands: str | None = None
    names: tuple[str, ...] | None = None
    skipped: int = 0
    aside: tuple[str, ...] = ()


def read_delimited(path: Path, content: bytes | None = None) -> pa.Table:
    """A table in text (`.csv`, `.tsv`, `.dat`, each perhaps `.gz`); an empty cell of a number column is missing.

    Cells are separated by commas, semicolons, tabs, bars or blanks; decimal commas and grouped thousands are read.
    Where no line holds names, columns are called by their numbers, from 0. What is not as in a plain .csv file is said.

    Args:
        path: The file, read a piece at a time where it is long.
        content: Read instead, where the file is not such a table itself but was made one.

    Raises:
        MaedError: The file is no such table, or a number in it can be read in two ways.
    """
    try:
        source = str(path) if content is None else pa.py_buffer(content)
        with pa.input_stream(source, compression=None if content is not None else "detect") as file:
            sample = more = file.read(_SAMPLE)
            while more and sample.count(b"\n") < _LINES:  # of many columns a line may be long
                sample += (more := file.read(_SAMPLE))
    except (pa.ArrowException, OSError) as error:
        raise MaedError(f"{path}: cannot be read ({first_line(error)})") from None
    text = sample.decode("utf-8-sig", errors="replace").replace("\r\n", "\n").replace("\r", "\n")
    whole = not more or len(sample) < _SAMPLE
    dialect = find_dialect(text if whole else text[: text.rfind("\n") + 1], str(path))
    by_pandas = dialect.thousands is not None or dialect.delimiter == _BLANKS
    table = None
    if content is None and path.stat().st_size >= LONG:
        table = _long(path, dialect, _pieces_of_pandas if by_pandas else _pieces_of_arrow)
    if table is None:
        table = (_by_pandas if by_pandas else _by_arrow)(path, dialect, content)
    if said := _told(dialect):
        warnings.warn(f"{path}: {'; '.join(said)}", stacklevel=2)
    return table


def find_dialect(text: str, origin: str = "table") -> Dialect:
    """Detect the format of a table from its first lines.

    The delimiter is that which makes most lines equally many cells, most of them numbers. A first line of words over
    numbers is a header; so is one of numbers that only grow, 8 or more of them, or that count the columns.

    Raises:
        MaedError: Numbers such as 1,234 that may mean two things.
    """
    records = {delimiter: _records(text, delimiter) for delimiter in _DELIMITERS}
    scores = {delimiter: _score(found) for delimiter, found in records.items()}
    delimiter = max(_DELIMITERS, key=lambda each: scores[each])
    if scores[delimiter] <= 0:  # a single column
        delimiter = ","
    found = records[delimiter]
    if not found:
        return Dialect()
    width = _width(found)
    body = [fields for _, fields in found[len(found) // 2 :] if len(fields) == width]
    decimal, thousands = _marks([cell for fields in body for cell in fields], delimiter, origin)
    numeric = [column for column in range(width) if _share([fields[column] for fields in body]) >= 0.9]
    start = next((i for i, (_, fields) in enumerate(found) if _is_data(fields, width, numeric)), 0) if numeric else 1
    if start == 0:
        if not _grows(found, width):
            return Dialect(delimiter, decimal, thousands, None, found[0][0])
        start = 1
    heads = [i for i in range(start) if len(found[i][1]) in (width, width - 1)]
    unique = [i for i in heads if len(set(found[i][1])) == len(found[i][1])]
    head = next(iter(unique or heads), None)
    aside = tuple(" ".join(fields)[:60] for i, (_, fields) in enumerate(found[:start]) if i != head)
    skipped = found[start][0] if start < len(found) else text.count("\n")
    if head is None:
        return Dialect(delimiter, decimal, thousands, None, skipped, aside)
    names = [name.strip() for name in found[head][1]]
    names = ["", *names] if len(names) < width else names  # as R writes row names
    return Dialect(delimiter, decimal, thousands, tuple(names), skipped, aside)


def _records(text: str, delimiter: str) -> list[tuple[int, Record]]:
    """Rows with the line that each begins in, comments at the top without their mark, empty lines left out."""
    if delimiter == _BLANKS:
        found = [(i, line.split()) for i, line in enumerate(text.split("\n"))]
    else:
        reader, found, line = csv.reader(io.StringIO(text), delimiter=delimiter), [], 0
        try:
            for fields in reader:
                found.append((line, fields))
                line = reader.line_num
        except csv.Error:
            return []
    kept = [(i, fields) for i, fields in found if any(cell.strip() for cell in fields)]
    for number, (i, fields) in enumerate(kept):
        if not fields[0].lstrip().startswith(("#", "%")):
            break
        bare = fields[0].lstrip().lstrip("#%").strip()
        kept[number] = (i, ([bare] if bare else []) + fields[1:])
    return kept


def _width(found: Sequence[tuple[int, Record]]) -> int:
    """The usual number of cells, by the later half."""
    return Counter(len(fields) for _, fields in found[len(found) // 2 :]).most_common(1)[0][0]


def _score(found: Sequence[tuple[int, Record]]) -> float:
    """Plausibility of a delimiter: higher for rows of equal length that hold numbers."""
    if not found or (width := _width(found)) < 2:
        return 0.0
    later = found[len(found) // 2 :]
    even = [fields for _, fields in later if len(fields) == width]
    return len(even) / len(later) * (0.1 + _share([cell for fields in even for cell in fields]))


def _share(cells: Sequence[str]) -> float:
    """The share of the cells that hold numbers, or nothing; 0 where all hold nothing."""
    held = [cell.strip() for cell in cells]
    return sum(bool(_NUMBER.fullmatch(cell)) for cell in held) / len(held) if any(held) else 0.0


def _marks(cells: Sequence[str], delimiter: str, origin: str) -> tuple[str, str | None]:
    """The decimal mark, and what groups digits."""
    held = [cell.strip() for cell in cells if "," in cell or "." in cell]
    commas = [cell for cell in held if _COMMA.fullmatch(cell)]
    points = [cell for cell in held if _POINT.fullmatch(cell)]
    grouped = {
        mark: [c for c in held if kind.fullmatch(c) and "," in c and "." in c] for mark, kind in _THOUSANDS.items()
    }
    if grouped[","] and not grouped["."]:
        return ",", "."
    if grouped["."] and not grouped[","]:
        return ".", ","
    if not commas or delimiter == ",":
        return ".", None
    if points:
        raise MaedError(
            f"{origin}: decimal marks must be points or commas, not both; found {points[0]!r} and {commas[0]!r}"
        )
    if all(_THOUSANDS["."].fullmatch(cell) for cell in commas):
        raise MaedError(f"{origin}: {commas[0]!r} could be a decimal fraction or thousands; write decimal points")
    return ",", None


def _is_data(fields: Record, width: int, numeric: Sequence[int]) -> bool:
    """True if a row holds numbers where the later ones do."""
    return len(fields) == width and all(_NUMBER.fullmatch(fields[column].strip()) for column in numeric)


def _grows(found: Sequence[tuple[int, Record]], width: int) -> bool:
    """True if the first row is a scale, such as wavelengths or column numbers, and the next ones are not."""

    def scale(fields: Record) -> bool:
        try:
            values = [float(cell) for cell in fields]
        except ValueError:
            return False
        steps = [b - a for a, b in pairwise(values)]
        counts = values in ([*range(width)], [*range(1, width + 1)])
        monotonic = all(step > 0 for step in steps) or all(step < 0 for step in steps)
        return (counts and width > 2) or (monotonic and width >= _LEAST_HEADER)

    rows = [fields for _, fields in found[:4] if len(fields) == width]
    return len(rows) > 1 and scale(rows[0]) and not any(scale(fields) for fields in rows[1:])


def _told(dialect: Dialect) -> list[str]:
    """Describe how a format differs from that of a plain .csv file."""
    said = [] if dialect.delimiter == "," else [f"cells are separated by {_SEPARATED_BY[dialect.delimiter]}"]
    said += ["decimal commas"] if dialect.decimal == "," else []
    said += [f"digits are grouped by {dialect.thousands!r}"] if dialect.thousands else []
    if dialect.names is None:
        said.append("no header: columns are named by their numbers, from 0")
    elif all(_NUMBER.fullmatch(name) for name in dialect.names):
        said.append(f"the numbers of the first line ({', '.join(dialect.names[:3])}, ...) are read as column names")
    if dialect.aside:
        said.append(f"left out lines that are neither names nor signals: {'; '.join(dialect.aside[:3])!r}")
    return said


def _arrow_options(dialect: Dialect) -> dict[str, Any]:
    """Options of pyarrow for a format; empty cells of text are empty texts, and the decimal mark applies to numbers."""
    return {
        "read_options": pa.csv.ReadOptions(skip_rows=dialect.skipped, autogenerate_column_names=True),
        "parse_options": pa.csv.ParseOptions(delimiter=dialect.delimiter, newlines_in_values=True),
        "convert_options": pa.csv.ConvertOptions(decimal_point=dialect.decimal),
    }


def _pandas_options(dialect: Dialect) -> dict[str, Any]:
    """Options of pandas for a format."""
    separator = r"\s+" if dialect.delimiter == _BLANKS else dialect.delimiter
    marks = {"decimal": dialect.decimal, "thousands": dialect.thousands}
    return {"sep": separator, "header": None, "skiprows": dialect.skipped, "encoding": "utf-8-sig", **marks}


def _by_arrow(path: Path, dialect: Dialect, content: bytes | None) -> pa.Table:
    """Read with pyarrow, which reads in parallel."""
    try:
        table = pa.csv.read_csv(path if content is None else io.BytesIO(content), **_arrow_options(dialect))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if "Empty CSV file" in str(error) and dialect.names is not None:
            return pa.table({name: pa.array([], pa.null()) for name in dialect.names})
        raise MaedError(f"{path}: cannot be read as a table ({first_line(error)})") from None
    return table.rename_columns(_names(path, dialect, table.num_columns))


def _by_pandas(path: Path, dialect: Dialect, content: bytes | None) -> pa.Table:
    """Read with pandas, which knows blanks and grouped digits."""
    import pandas as pd

    try:
        frame = pd.read_csv(path if content is None else io.BytesIO(content), **_pandas_options(dialect))
    except (ValueError, OSError, EOFError) as error:
        raise MaedError(f"{path}: cannot be read as a table ({first_line(error)})") from None
    frame.columns = _names(path, dialect, frame.shape[1])
    return pa.Table.from_pandas(frame, preserve_index=False)


Pieces = tuple[int, frozenset[int], Iterator[pa.RecordBatch]]


def _long(path: Path, dialect: Dialect, pieces_of: Callable[[Path, Dialect], Pieces]) -> pa.Table | None:
    """A long table in pieces; None if these do not fit together, and it must be read as a whole."""
    try:
        with pa.input_stream(str(path), compression="detect") as file:
            rows = 1  # at most: a line may hold the rest of a text
            while block := file.read(1 << 22):
                rows += block.count(b"\n")
        width, whole, pieces = pieces_of(path, dialect)
        return gathered(pieces, rows, _names(path, dialect, width), str(path), whole)
    except (MixedColumnError, pa.ArrowException, ValueError, OSError, EOFError) as error:
        if isinstance(error, MaedError):
            raise
        return None  # what cannot be read as a whole either is named there


def _pieces_of_arrow(path: Path, dialect: Dialect) -> Pieces:
    options = _arrow_options(dialect)
    options["read_options"].block_size = PIECE  # bytes
    with pa.csv.open_csv(path, **options) as first:  # types by its first piece alone
        schema = first.schema
    whole = frozenset(i for i, field in enumerate(schema) if pa.types.is_integer(field.type))
    numbers = [f.name for f in schema if pa.types.is_integer(f.type) or pa.types.is_floating(f.type)]
    options["read_options"].block_size = 2 * PIECE
    options["convert_options"].column_types = dict.fromkeys(numbers, pa.float64())  # fractions may follow whole ones
    return len(schema), whole, iter(pa.csv.open_csv(path, **options))


def _pieces_of_pandas(path: Path, dialect: Dialect) -> Pieces:
    import pandas as pd

    options = _pandas_options(dialect)
    width = pd.read_csv(path, nrows=1, **options).shape[1]
    frames = pd.read_csv(path, chunksize=max(1, PIECE // width), **options)
    return width, frozenset(), (pa.RecordBatch.from_pandas(frame, preserve_index=False) for frame in frames)


def _names(path: Path, dialect: Dialect, width: int) -> list[str]:
    """One for each column: as the file has them, or numbers from 0."""
    names = [str(column) for column in range(width)] if dialect.names is None else list(dialect.names)
    if len(names) != width:
        raise MaedError(f"{path}: every column must have one name, got {len(names)} names for {width} columns")
    return names
