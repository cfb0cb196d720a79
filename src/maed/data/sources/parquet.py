"""A table in Apache Parquet's format."""

from __future__ import annotations

from pathlib import Path

from maed.data.source import FileType, Source
from maed.settings import DataSettings


class Parquet(FileType):
    """A `.parquet` file; splits are cut from it."""

    example = "a .parquet file"

    @classmethod
    def read(cls, path: Path, settings: DataSettings) -> Source:
        """Read the table."""
        from maed.data.tables import from_tables, read_parquet

        return from_tables({"train": read_parquet([path])}, settings, origin=str(path))
