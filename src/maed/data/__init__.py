"""Sources to signals: named, hub and file data sets, split, normalized and ready to be indexed in batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.data.geometry import Geometry
    from maed.data.loading import from_arrays, from_given, like, load
    from maed.data.signals import SignalData, Signals

__all__ = ["Geometry", "SignalData", "Signals", "from_arrays", "from_given", "like", "load"]

_HOMES = {
    "geometry": ("Geometry",),
    "loading": ("from_arrays", "from_given", "like", "load"),
    "signals": ("SignalData", "Signals"),
}
__getattr__, __dir__ = lazy(__name__, _HOMES)
