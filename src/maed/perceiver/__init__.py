"""Position encodings for transformers' Perceiver, the classifier, and its training."""

from maed.perceiver.model import ClassifierConfig, PerceiverClassifier, Preprocessor
from maed.perceiver.positions import LEARNED, PositionEncoding, position_table
from maed.perceiver.training import PerceiverModule, train_classifier

__all__ = [
    "LEARNED",
    "ClassifierConfig",
    "PerceiverClassifier",
    "PerceiverModule",
    "PositionEncoding",
    "Preprocessor",
    "position_table",
    "train_classifier",
]
