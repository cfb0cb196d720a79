"""A table in text, cells usually separated by blanks."""

from __future__ import annotations

from maed.data.sources.csv import Csv


class Dat(Csv):
    """A `.dat` file, read as `.csv` is."""

    example = "a .dat file"
