"""Position embeddings learned from data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maed._lazy import lazy
from maed._version import __version__ as __version__

if TYPE_CHECKING:
    from maed.embedding import PositionEmbedding
    from maed.errors import MaedError
    from maed.integrations import AddPositions, AttentionBias, load_model, replace_positions
    from maed.learner import PositionLearner, learn
    from maed.settings import Settings

__all__ = [
    "AddPositions",
    "AttentionBias",
    "MaedError",
    "PositionEmbedding",
    "PositionLearner",
    "Settings",
    "learn",
    "load_model",
    "replace_positions",
]

_HOMES = {
    "embedding": ("PositionEmbedding",),
    "errors": ("MaedError",),
    "integrations": ("AddPositions", "AttentionBias", "load_model", "replace_positions"),
    "learner": ("PositionLearner", "learn"),
    "settings": ("Settings",),
}
__getattr__, __dir__ = lazy(__name__, _HOMES, modules=("plots", "presets"))
