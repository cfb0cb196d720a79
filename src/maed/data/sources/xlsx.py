"""A sheet of a spreadsheet."""

from __future__ import annotations

import warnings
from pathlib import Path

from maed.data.source import FileType, Source, first_line
from maed.errors import MaedError, require_extra
from maed.settings import DataSettings


class Xlsx(FileType):
    """The first sheet of a `.xlsx` file, read by pandas with openpyxl and then as a `.csv` file of it would be."""

    example = "a .xlsx file"

    @classmethod
    def read(cls, path: Path, settings: DataSettings) -> Source:
        """Read the sheet."""
        import pandas as pd

        from maed.data.delimited import read_delimited
        from maed.data.tables import from_tables

        require_extra(str(path), "data", package="openpyxl")
        try:
            with pd.ExcelFile(path, engine="openpyxl") as book:
                sheets = [str(name) for name in book.sheet_names]
                frame = book.parse(0, header=None, dtype=object)  # whole numbers stay so beside an empty cell
        except Exception as error:  # whatever a broken archive makes the engine raise
            raise MaedError(f"{path}: cannot be read as .xlsx ({first_line(error)})") from None
        if len(sheets) > 1:
            more = f"{', '.join(sheets[1:8])}{', ...' if len(sheets) > 8 else ''}"
            warnings.warn(f"{path}: only the first sheet, {sheets[0]!r}, is read; not read: {more}", stacklevel=3)
        table = read_delimited(path, frame.to_csv(index=False, header=False).encode())
        return from_tables({"train": table}, settings, origin=str(path))
