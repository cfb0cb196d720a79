"""Tasks, one class and file each: what a model is trained to tell, by which loss, and how that is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.tasks._task import Metric, Seen, Task, metric_of

__all__ = ["Metric", "Seen", "Task", "metric_of"]

__getattr__, __dir__ = lazy(__name__, {"_task": __all__})
