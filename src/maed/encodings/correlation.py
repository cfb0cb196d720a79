"""`correlation`: the baseline of real signals."""

from __future__ import annotations

from maed.encodings._learned import Learned


class Correlation(Learned):
    """The embedding of the absolute correlation of values, made without training."""

    embedding = "correlation"
