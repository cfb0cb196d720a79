"""One typed tree of settings: what presets, flags and the library share. Importing it costs nothing."""

from __future__ import annotations

from dataclasses import dataclass, field

from maed.errors import require_at_least
from maed.registry import ESTIMATORS, REDUCTIONS
from maed.settings.learning import (
    AutoencoderSettings,
    DataSettings,
    EmbeddingSettings,
    Readout,
    Schedule,
    SimilaritySettings,
)
from maed.settings.training import PerceiverSettings, TrainerSettings, TrainSettings

__all__ = [
    "CHOSEN_BY_NAME",
    "AutoencoderSettings",
    "DataSettings",
    "EmbeddingSettings",
    "EvaluationSettings",
    "PerceiverSettings",
    "Readout",
    "ReportSettings",
    "Schedule",
    "Settings",
    "SimilaritySettings",
    "TrainSettings",
    "TrainerSettings",
]

CHOSEN_BY_NAME = {"similarity.estimator": ESTIMATORS, "embedding.reduction": REDUCTIONS}
"""Settings that are names of things, and where those are listed."""


@dataclass
class EvaluationSettings:
    """Measuring positions, with and without a known geometry.

    Args:
        n_neighbors: k of kNN recall@k; default: 4 on a line or ring, otherwise 8.
        folds: Folds of the coordinate regression.
        probe_steps: Training steps of a probe, a small autoencoder that is given the positions; 0 disables probes.
        probe_seeds: Random seeds, and so probes, per candidate.
    """

    n_neighbors: int | None = None
    folds: int = 5
    probe_steps: int = 300
    probe_seeds: int = 2

    def __post_init__(self) -> None:
        require_at_least("evaluation.n_neighbors", self.n_neighbors, 1)
        require_at_least("evaluation.folds", self.folds, 2)
        require_at_least("evaluation.probe_steps", self.probe_steps, 0)
        require_at_least("evaluation.probe_seeds", self.probe_seeds, 1)


@dataclass
class ReportSettings:
    """Contents of the report.

    Args:
        positions: Number of positions whose similarity is drawn.
        channels: Number of embedding channels that are drawn.
        signals: Number of signals that are drawn masked, reconstructed and original.
        reductions: Further reductions in the explorer, for every estimator; computed once and kept in the run's folder.
            `tsne` has 2 channels there.
    """

    positions: int = 6
    channels: int = 8
    signals: int = 6
    reductions: list[str] = field(default_factory=lambda: ["tsne", "pca"])

    def __post_init__(self) -> None:
        for reduction in self.reductions:
            REDUCTIONS.check("report.reductions", reduction)
        for name in ("positions", "channels", "signals"):
            require_at_least(f"report.{name}", getattr(self, name), 1)


@dataclass
class Settings:
    """All settings of a run, by group; presets, flags and the library share them."""

    data: DataSettings = field(default_factory=DataSettings)
    autoencoder: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    similarity: SimilaritySettings = field(default_factory=SimilaritySettings)
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    perceiver: PerceiverSettings = field(default_factory=PerceiverSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
