"""A table in text."""

from __future__ import annotations

from pathlib import Path

from maed.data.source import FileType, Source
from maed.settings import DataSettings


class Csv(FileType):
    """A `.csv` file whose first line names the columns."""

    example = "a .csv file"

    @classmethod
    def read(cls, path: Path, settings: DataSettings) -> Source:
        """Read the table."""
        from maed.data.tables import from_tables, read_csv

        return from_tables({"train": read_csv(path)}, settings, origin=str(path))
