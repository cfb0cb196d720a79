"""Target models: Perceivers that are given positions, their training, and their batches."""

from __future__ import annotations

from typing import TYPE_CHECKING

from maed._lazy import lazy

if TYPE_CHECKING:
    from maed.models.architectures.maed import Maed, PositionEncoding, Preprocessor
    from maed.models.classifiers import build_classifier, describe_classifier, load_classifier, resized_grid, table_for
    from maed.models.config import ClassifierConfig
    from maed.models.fused.perceiver import fuse
    from maed.models.pretrained import PRETRAINING, Start, check_fits, check_pretraining, encoder_folder
    from maed.models.target import TargetModel
    from maed.models.training import PerceiverModule, finished_training, start_of, train_classifier

__all__ = [
    "PRETRAINING",
    "ClassifierConfig",
    "Maed",
    "PerceiverModule",
    "PositionEncoding",
    "Preprocessor",
    "Start",
    "TargetModel",
    "build_classifier",
    "check_fits",
    "check_pretraining",
    "describe_classifier",
    "encoder_folder",
    "finished_training",
    "fuse",
    "load_classifier",
    "resized_grid",
    "start_of",
    "table_for",
    "train_classifier",
]

_HOMES = {
    "architectures.maed": ("Maed", "PositionEncoding", "Preprocessor"),
    "classifiers": ("build_classifier", "describe_classifier", "load_classifier", "resized_grid", "table_for"),
    "config": ("ClassifierConfig",),
    "fused.perceiver": ("fuse",),
    "pretrained": ("PRETRAINING", "Start", "check_fits", "check_pretraining", "encoder_folder"),
    "target": ("TargetModel",),
    "training": ("PerceiverModule", "finished_training", "start_of", "train_classifier"),
}
__getattr__, __dir__ = lazy(__name__, _HOMES)
