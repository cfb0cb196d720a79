"""Sources to signals: named, hub and file data sets, split, normalized and ready to be indexed in batches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maed.data.geometry import Geometry
    from maed.data.loading import from_arrays, from_given, like, load
    from maed.data.signals import SignalData, Signals

__all__ = ["Geometry", "SignalData", "Signals", "from_arrays", "from_given", "like", "load"]


def __getattr__(name: str) -> Any:
    """Import a name when it is first asked for, so that importing a module of this room does not wake the others."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = {"Geometry": "geometry", "SignalData": "signals", "Signals": "signals"}.get(name, "loading")
    return getattr(import_module(f"{__name__}.{module}"), name)
