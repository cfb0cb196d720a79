"""A table in text, cells separated by tabs."""

from __future__ import annotations

from maed.data.text_table import TextTable


class Tsv(TextTable):
    """A `.tsv` file."""

    example = "a .tsv file"
