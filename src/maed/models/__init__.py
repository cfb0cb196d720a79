"""Position encodings for transformers' Perceiver, the classifier, and its training."""

from maed.models.architectures import (
    Classifier,
    build_classifier,
    check_architecture,
    describe_classifier,
    load_classifier,
    resized_grid,
    table_for,
)
from maed.models.fused import fuse
from maed.models.model import ClassifierConfig, PerceiverClassifier, Preprocessor
from maed.models.position_encoding import PositionEncoding
from maed.models.training import PerceiverModule, finished_training, train_classifier
from maed.models.transformers_models import TransformersClassifier

__all__ = [
    "Classifier",
    "ClassifierConfig",
    "PerceiverClassifier",
    "PerceiverModule",
    "PositionEncoding",
    "Preprocessor",
    "TransformersClassifier",
    "build_classifier",
    "check_architecture",
    "describe_classifier",
    "finished_training",
    "fuse",
    "load_classifier",
    "resized_grid",
    "table_for",
    "train_classifier",
]
