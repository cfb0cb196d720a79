"""Sources to signals: embedded, hub and file data sets, split, normalized and ready to be indexed in batches."""

from maed.data.geometry import Geometry
from maed.data.load import SOURCES, from_arrays, from_given, like, load
from maed.data.signals import SignalData, Signals

__all__ = ["SOURCES", "Geometry", "SignalData", "Signals", "from_arrays", "from_given", "like", "load"]
