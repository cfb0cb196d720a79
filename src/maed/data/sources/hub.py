"""Any data set of the Hugging Face hub."""

from __future__ import annotations

from maed.data.source import Source, SourceType
from maed.errors import MaedError
from maed.settings import DataSettings


class Hub(SourceType):
    """`hub:OWNER/NAME`. Only data are read: code in the repository is never run."""

    example = "hub:OWNER/NAME"

    @classmethod
    def takes(cls, text: str) -> bool:
        """All that begins with `hub:`."""
        return text.startswith("hub:")

    @classmethod
    def open(cls, text: str, settings: DataSettings) -> Source:
        """Read the hub's cache, download it, or stream it."""
        from maed.data.hub_layout import download
        from maed.data.tables import from_tables

        name = text.removeprefix("hub:")
        if name.count("/") != 1 or not all(name.split("/")):
            raise MaedError(f"source must be {cls.example}, got {text!r}")
        return from_tables(download(name, name.split("/")[1], settings), settings, origin=text)
