"""Several arrays in numpy's format."""

from __future__ import annotations

from pathlib import Path

from maed.data.arrays import array_source, read_npz
from maed.data.source import FileType, Source
from maed.settings import DataSettings


class Npz(FileType):
    """A `.npz` file of `inputs`, and perhaps of `labels` and `coordinates`."""

    example = "a .npz file"

    @classmethod
    def read(cls, path: Path, settings: DataSettings) -> Source:
        """Read the arrays."""
        found = read_npz(path, settings)
        return array_source(found["inputs"], found.get("labels"), found.get("coordinates"), settings)
