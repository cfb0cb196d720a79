"""IMDB: reviews of films."""

from __future__ import annotations

from maed.data.source import Source, SourceType
from maed.settings import DataSettings


class Imdb(SourceType):
    """50,000 reviews, for or against, from the folder `$MAED_DATA/imdb` where that exists, else from the hub."""

    example = "imdb"

    @classmethod
    def open(cls, text: str, settings: DataSettings) -> Source:
        """Read the folder or the hub's cache, or download it."""
        from maed.data.hub_layout import known

        return known("imdb", "stanfordnlp/imdb", ("neg", "pos"), settings)
