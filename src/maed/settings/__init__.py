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
    """Measuring positions, against a known geometry and without one.

    Args:
        n_neighbors: k of kNN recall@k; 4 on a line or ring, otherwise 8 by default.
        folds: Folds of the coordinate regression.
        probe_steps: Training steps of a probe, the small autoencoder that is given positions; 0 for no probes.
        probe_seeds: Probes of each candidate.
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
    """What the page shows.

    Args:
        positions: Positions whose similarity is drawn.
        channels: Channels of the embedding that are drawn.
        signals: Signals that are drawn masked, reconstructed and whole.
        reductions: Reductions that the explorer offers beside the run's own, of every estimator; they are made once and
            kept in the run's folder. `tsne` has 2 channels there.
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
    """Everything that a run can be told."""

    data: DataSettings = field(default_factory=DataSettings)
    autoencoder: AutoencoderSettings = field(default_factory=AutoencoderSettings)
    similarity: SimilaritySettings = field(default_factory=SimilaritySettings)
    embedding: EmbeddingSettings = field(default_factory=EmbeddingSettings)
    perceiver: PerceiverSettings = field(default_factory=PerceiverSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    trainer: TrainerSettings = field(default_factory=TrainerSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
