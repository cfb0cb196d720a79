"""A table in text, cells separated by tabs."""

from __future__ import annotations

from maed.data.sources.csv import Csv


class Tsv(Csv):
    """A `.tsv` file, read as `.csv` is."""

    example = "a .tsv file"
