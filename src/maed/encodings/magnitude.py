"""`magnitude`: a baseline of real signals."""

from __future__ import annotations

from maed.encodings._learned import Learned


class Magnitude(Learned):
    """The embedding of the correlation of magnitudes, made without training."""

    embedding = "magnitude"
