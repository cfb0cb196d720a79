"""`maed serve`: the pages of many runs over local http."""

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.server.app import serve

__all__ = ["serve"]

__getattr__, __dir__ = lazy(__name__, {"app": ("serve",)})
