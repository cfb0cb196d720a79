"""Target models: Perceivers that are given positions, their training, and their batches."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maed.models.architectures.maed import Preprocessor
    from maed.models.classifiers import build_classifier, describe_classifier, load_classifier, resized_grid, table_for
    from maed.models.config import ClassifierConfig
    from maed.models.fused.perceiver import fuse
    from maed.models.position_encoding import PositionEncoding
    from maed.models.target import TargetModel
    from maed.models.training import PerceiverModule, finished_training, train_classifier

__all__ = [
    "ClassifierConfig",
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
    "ClassifierConfig": "config",
    "PerceiverModule": "training",
    "PositionEncoding": "position_encoding",
    "Preprocessor": "architectures.maed",
    "TargetModel": "target",
    "build_classifier": "classifiers",
    "describe_classifier": "classifiers",
    "finished_training": "training",
    "fuse": "fused.perceiver",
    "load_classifier": "classifiers",
    "resized_grid": "classifiers",
    "table_for": "classifiers",
    "train_classifier": "training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'maed.models' has no attribute {name!r}")
    return getattr(import_module(f"maed.models.{_HOMES[name]}"), name)
