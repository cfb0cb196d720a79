"""`maed-resampled`: an embedding of other positions, brought to those of the data by their geometry."""

from __future__ import annotations

from maed.encodings._learned import Learned


class MaedResampled(Learned):
    """The embedding of the run, resampled; it used the geometry, and goes by a name that says so."""

    embedding = "maed"
    resampled = True
    reference = 1
