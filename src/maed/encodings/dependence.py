"""`dependence`: the baseline of tokens."""

from __future__ import annotations

from maed.encodings._learned import Learned


class Dependence(Learned):
    """The embedding of the chi-square dependence of tokens, made without training."""

    embedding = "dependence"
