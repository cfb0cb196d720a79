"""`partial`: a baseline of real signals."""

from __future__ import annotations

from maed.encodings._learned import Learned


class Partial(Learned):
    """The embedding of the partial correlation, made without training."""

    embedding = "partial"
