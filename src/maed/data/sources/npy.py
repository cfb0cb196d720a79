"""An array in numpy's format."""

from __future__ import annotations

from pathlib import Path

from maed.data.arrays import array_source, read_npy
from maed.data.source import FileType, Source
from maed.settings import DataSettings


class Npy(FileType):
    """A `.npy` file of signals `(n, N)` or `(n, N, C)`, without labels; memory-mapped."""

    example = "a .npy file"

    @classmethod
    def read(cls, path: Path, settings: DataSettings) -> Source:
        """Read the array."""
        return array_source(read_npy(path), None, None, settings)
