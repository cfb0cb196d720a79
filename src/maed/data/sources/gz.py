"""A compressed table in text."""

from __future__ import annotations

from pathlib import Path

from maed.data.source import Source
from maed.data.text_table import TextTable
from maed.errors import MaedError
from maed.settings import DataSettings

_INNER = (".csv", ".tsv", ".dat")


class Gz(TextTable):
    """A `.csv.gz`, `.tsv.gz` or `.dat.gz` file."""

    example = "a .csv.gz file"

    @classmethod
    def read(cls, path: Path, settings: DataSettings) -> Source:
        """Read the table."""
        if Path(path.stem).suffix.lower() not in _INNER:
            raise MaedError(f"{path}: the name must say what was compressed: .csv.gz, .tsv.gz or .dat.gz")
        return super().read(path, settings)
