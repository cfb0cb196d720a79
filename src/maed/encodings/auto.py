"""`auto`: the embedding that a run has chosen."""

from __future__ import annotations

from maed.encodings._learned import Learned


class Auto(Learned):
    """The embedding of the method that the run has chosen: `maed`, or a baseline."""

    embedding = "auto"
