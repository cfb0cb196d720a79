"""Arrays in the format HDF5."""

from __future__ import annotations

from pathlib import Path

from maed.data.source import FileType, Source
from maed.settings import DataSettings


class Hdf5(FileType):
    """A `.hdf5` file, read by h5py."""

    example = "a .hdf5 file"

    @classmethod
    def read(cls, path: Path, settings: DataSettings) -> Source:
        """Read the file."""
        from maed.data.containers import open_hdf5

        return open_hdf5(path, settings)
