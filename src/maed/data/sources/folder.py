"""A folder of parquet files."""

from __future__ import annotations

from pathlib import Path

from maed.data.source import Source, SourceType
from maed.settings import DataSettings


class Folder(SourceType):
    """A folder in the hub's layout: `{train,validation,test}-*.parquet` in it, in `data/` or in a config's folder."""

    example = "a folder of parquet files"

    @classmethod
    def takes(cls, text: str) -> bool:
        """The path of a folder."""
        return Path(text).expanduser().is_dir()

    @classmethod
    def open(cls, text: str, settings: DataSettings) -> Source:
        """Find the splits."""
        from maed.data.hub_layout import read_folder
        from maed.data.tables import from_tables

        path = Path(text).expanduser()
        return from_tables(read_folder(path), settings, origin=str(path))
