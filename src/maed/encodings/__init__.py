"""Position encodings, one class and file each: what a target model is told about where its inputs sit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maed.encodings._encoding import Encoding, position_table, unit_mean_square

__all__ = ["Encoding", "position_table", "unit_mean_square"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'maed.encodings' has no attribute {name!r}")
    from maed.encodings import _encoding

    return getattr(_encoding, name)
