"""Many trainings: trials, comparisons, the whole run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.experiments.comparison import Comparison

__all__ = ["Comparison"]

__getattr__, __dir__ = lazy(__name__, {"comparison": ("Comparison",)})
