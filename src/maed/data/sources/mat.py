"""Matrices of MATLAB."""

from __future__ import annotations

from pathlib import Path

from maed.data.source import FileType, Source
from maed.settings import DataSettings


class Mat(FileType):
    """A `.mat` file, read by scipy, or by h5py from version 7.3 on."""

    example = "a .mat file"

    @classmethod
    def read(cls, path: Path, settings: DataSettings) -> Source:
        """Read the file."""
        from maed.data.containers import open_matlab

        return open_matlab(path, settings)
