"""Position embeddings learned from data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maed._version import __version__ as __version__

if TYPE_CHECKING:
    from maed.embedding import PositionEmbedding
    from maed.errors import MaedError
    from maed.integrations import AddPositions, load_model, replace_positions
    from maed.learner import PositionLearner, learn
    from maed.settings import Settings

__all__ = [
    "AddPositions",
    "MaedError",
    "PositionEmbedding",
    "PositionLearner",
    "Settings",
    "learn",
    "load_model",
    "replace_positions",
]

_HOMES = {
    "AddPositions": "maed.integrations",
    "MaedError": "maed.errors",
    "PositionEmbedding": "maed.embedding",
    "PositionLearner": "maed.learner",
    "Settings": "maed.settings",
    "learn": "maed.learner",
    "load_model": "maed.integrations",
    "replace_positions": "maed.integrations",
}

_MODULES = ("plots", "presets")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import maed` and `maed --help` need no PyTorch."""
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"maed.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'maed' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
