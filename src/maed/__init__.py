"""Position embeddings learned from data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maed.embedding import PositionEmbedding
    from maed.errors import MaedError
    from maed.learning import learn

__version__ = "0.1.0"
__all__ = ["MaedError", "PositionEmbedding", "learn"]

_HOMES = {"MaedError": "maed.errors", "PositionEmbedding": "maed.embedding", "learn": "maed.learning"}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import maed` and `maed --help` need no PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'maed' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
