"""A position embedding inside other models: those of transformers in one call, and any model of plain PyTorch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maed.integrations.add_positions import AddPositions
    from maed.integrations.finding import TablePositionEncoding
    from maed.integrations.loading import load_model
    from maed.integrations.replacing import replace_positions

__all__ = ["AddPositions", "TablePositionEncoding", "load_model", "replace_positions"]

_HOMES = {
    "AddPositions": "add_positions",
    "TablePositionEncoding": "finding",
    "load_model": "loading",
    "replace_positions": "replacing",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maed.integrations' has no attribute {name!r}")
    return getattr(import_module(f"maed.integrations.{_HOMES[name]}"), name)
