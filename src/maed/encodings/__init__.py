"""Position encodings, one class and file each: what a target model is told about where its inputs sit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.encodings._encoding import Encoding, position_table, unit_mean_square

__all__ = ["Encoding", "position_table", "unit_mean_square"]

__getattr__, __dir__ = lazy(__name__, {"_encoding": __all__})
