"""`maed`: the embedding that this package learns."""

from __future__ import annotations

from maed.encodings._learned import Learned


class Maed(Learned):
    """The embedding of the run."""

    embedding = "maed"
    reference = 0
