"""A table in text, cells usually separated by blanks."""

from __future__ import annotations

from maed.data.text_table import TextTable


class Dat(TextTable):
    """A `.dat` file."""

    example = "a .dat file"
