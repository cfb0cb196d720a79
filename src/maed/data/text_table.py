"""Base of the sources that are tables in text files."""

from __future__ import annotations

from pathlib import Path

from maed.data.source import FileType, Source
from maed.settings import DataSettings


class TextTable(FileType):
    """A table in text: `maed.data.delimited` finds out how it is written."""

    @classmethod
    def read(cls, path: Path, settings: DataSettings) -> Source:
        """Read the table."""
        from maed.data.delimited import read_delimited
        from maed.data.tables import from_tables

        return from_tables({"train": read_delimited(path)}, settings, origin=str(path))
