"""A table in text, cells separated by commas or otherwise."""

from __future__ import annotations

from maed.data.text_table import TextTable


class Csv(TextTable):
    """A `.csv` file."""

    example = "a .csv file"
