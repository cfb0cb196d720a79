"""Target models: Perceivers that are given positions, their training, and their batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.models.architectures.maed import Maed, PositionEncoding, Preprocessor
    from maed.models.classifiers import build_classifier, describe_classifier, load_classifier, resized_grid, table_for
    from maed.models.config import ClassifierConfig
    from maed.models.fused.perceiver import fuse
    from maed.models.target import TargetModel
    from maed.models.training import PerceiverModule, finished_training, train_classifier

__all__ = [
    "ClassifierConfig",
    "Maed",
    "PerceiverModule",
    "PositionEncoding",
    "Preprocessor",
    "TargetModel",
    "build_classifier",
    "describe_classifier",
    "finished_training",
    "fuse",
    "load_classifier",
    "resized_grid",
    "table_for",
    "train_classifier",
]

_HOMES = {
    "architectures.maed": ("Maed", "PositionEncoding", "Preprocessor"),
    "classifiers": ("build_classifier", "describe_classifier", "load_classifier", "resized_grid", "table_for"),
    "config": ("ClassifierConfig",),
    "fused.perceiver": ("fuse",),
    "target": ("TargetModel",),
    "training": ("PerceiverModule", "finished_training", "train_classifier"),
}
__getattr__, __dir__ = lazy(__name__, _HOMES)
