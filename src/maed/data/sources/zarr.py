"""Arrays in the format zarr."""

from __future__ import annotations

from pathlib import Path

from maed.data.source import Source, SourceType
from maed.settings import DataSettings


class Zarr(SourceType):
    """A `.zarr` folder, read by xarray where its axes have names."""

    example = "a .zarr folder"

    @classmethod
    def takes(cls, text: str) -> bool:
        """The path of such a folder."""
        path = Path(text).expanduser()
        return path.suffix.lower() == ".zarr" and path.is_dir()

    @classmethod
    def open(cls, text: str, settings: DataSettings) -> Source:
        """Read the folder."""
        from maed.data.containers import open_zarr

        return open_zarr(Path(text).expanduser(), settings)
