"""A sheet of a spreadsheet."""

from __future__ import annotations

from pathlib import Path

from maed.data.source import FileType, Source, first_line
from maed.errors import MaedError, require_extra
from maed.settings import DataSettings


class Xlsx(FileType):
    """The first sheet of a `.xlsx` file, whose first line names the columns; pandas reads it with openpyxl."""

    example = "a .xlsx file"

    @classmethod
    def read(cls, path: Path, settings: DataSettings) -> Source:
        """Read the sheet."""
        import pandas as pd

        from maed.data.objects import as_table
        from maed.data.tables import from_tables

        require_extra(str(path), "data", package="openpyxl")
        try:
            frame = pd.read_excel(path)
        except Exception as error:  # whatever a broken archive makes the engine raise
            raise MaedError(f"{path}: cannot be read as .xlsx ({first_line(error)})") from None
        table = as_table(frame)
        assert table is not None
        return from_tables({"train": table}, settings, origin=str(path))
