"""A position embedding inside other models: in the place of their table, or added by a module of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.integrations.add_positions import AddPositions
    from maed.integrations.attention_bias import AttentionBias
    from maed.integrations.finding import TablePositionEncoding
    from maed.integrations.loading import load_model
    from maed.integrations.replacing import replace_positions

__all__ = ["AddPositions", "AttentionBias", "TablePositionEncoding", "load_model", "replace_positions"]

_HOMES = {
    "add_positions": ("AddPositions",),
    "attention_bias": ("AttentionBias",),
    "finding": ("TablePositionEncoding",),
    "loading": ("load_model",),
    "replacing": ("replace_positions",),
}
__getattr__, __dir__ = lazy(__name__, _HOMES)
