"""An array with named axes, in the format netCDF."""

from __future__ import annotations

from pathlib import Path

from maed.data.source import FileType, Source
from maed.settings import DataSettings


class Nc(FileType):
    """A `.nc` file, read by xarray."""

    example = "a .nc file"

    @classmethod
    def read(cls, path: Path, settings: DataSettings) -> Source:
        """Read the file."""
        from maed.data.labeled import open_labeled

        return open_labeled(path, settings)
