"""Encodings whose table is an embedding that an earlier stage has made."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from maed.encodings._encoding import Encoding, unit_mean_square


class Learned(Encoding):
    """The vectors of an embedding, of unit mean square."""

    tunable = True

    @staticmethod
    def table(n: int, d: int, *, vectors: Tensor | None, **unused: Any) -> Tensor:
        """The vectors `(N, d)`."""
        assert vectors is not None
        return unit_mean_square(vectors.detach().float().cpu())
