"""One typed tree of settings: what presets, flags and the library share. Importing it costs nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Literal

from maed.errors import MaedError, nearest, one_of

ENCODINGS = ("none", "trainable", "random", "sinusoidal", "fourier", "correlation", "dependence", "maed")
"""The position encodings that a Perceiver can be given."""

Estimator = Literal["mean-loss", "contrast"]
Baseline = Literal["correlation", "dependence"]
Reduction = Literal["diffusion", "spectral", "pca"]


@dataclass
class DataSettings:
    """Where signals come from and how they are cut.

    Args:
        type: What a file's columns hold: numbers, token ids, text (read as bytes) or images. `auto` looks.
        columns: Columns of a table to read; all but the label where not given.
        label: Column with the labels; `label` where the table has one.
        image_size: Side in pixels that images are resized to; their own size where not given.
        length: Positions of a text: its UTF-8 bytes, truncated and padded.
        normalisation: Mean 0 and deviation 1 for each `channel`, for each `position`, or `none`;
            `auto` takes `channel` for images and `position` for arrays and tables.
        split: `stratified` by label, or `seed-imdb`: validation and test are cut from the stored test split, which
            gives its first and last quarter to the test.
        validation: Share of the training signals kept for validation.
        test: Share of all signals kept for the test where the source has no test split of its own.
        samples: How many training patches are cut from the photographs (`photos` only).
        limit: Use this many training signals, drawn so that classes keep their shares; the other splits shrink alike.
        permute: Seed of one fixed random permutation of the positions.
        missing: `mask` treats NaN as a position that is not real; `refuse` stops.
        seed: Seed of the splits and of the patches.
    """

    type: Literal["auto", "real", "tokens", "text", "image"] = "auto"
    columns: list[str] | None = None
    label: str | None = None
    image_size: int | None = None
    length: int = 2048
    normalisation: Literal["auto", "channel", "position", "none"] = "auto"
    split: Literal["stratified", "seed-imdb"] = "stratified"
    validation: float = 0.1
    test: float = 0.2
    samples: int = 20_000
    limit: int | None = None
    permute: int | None = None
    missing: Literal["refuse", "mask"] = "refuse"
    seed: int = 0

    def __post_init__(self) -> None:
        _between("data.validation", self.validation, 0, 1)
        _between("data.test", self.test, 0, 1)
        for name in ("image_size", "length", "samples", "limit"):
            _at_least(f"data.{name}", getattr(self, name), 1)
        for name in ("permute", "seed"):
            _at_least(f"data.{name}", getattr(self, name), 0)


@dataclass
class AutoencoderSettings:
    """The masked autoencoder and its training.

    Args:
        kind: `set` reads the visible positions as a set.
        loss: `mse` for real channels, `cross-entropy` for tokens; `auto` chooses.
        width: Channels of a token and of a position vector.
        layers: Self-attention layers over the visible tokens.
        heads: Attention heads.
        visible_fraction: Share of the positions shown; where not given, 3/4 of sqrt(N) positions of real channels,
            a fifth of the positions of tokens.
        scored: Positions whose reconstruction a training step scores.
        batch_size: Signals in a training step.
        steps: Training steps.
        learning_rate: Peak learning rate of AdamW.
        warmup: Steps of linear warm-up.
        schedule: Shape of the decay after the warm-up.
        weight_decay: Weight decay; the position vectors have none.
        clip: Largest norm of the gradient.
        validate_every: Steps between two measurements of the validation loss.
        patience: Stop after this many validations without a better loss; never where not given.
        seed: Seed of the weights and of the draws.
    """

    kind: Literal["set"] = "set"
    loss: Literal["auto", "mse", "cross-entropy"] = "auto"
    width: int = 64
    layers: int = 2
    heads: int = 4
    visible_fraction: float | None = None
    scored: int = 64
    batch_size: int = 64
    steps: int = 4_000
    learning_rate: float = 6e-3
    warmup: int = 100
    schedule: Literal["cosine", "linear"] = "cosine"
    weight_decay: float = 0.01
    clip: float = 1.0
    validate_every: int = 250
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.visible_fraction is not None:
            _between("autoencoder.visible_fraction", self.visible_fraction, 0, 1)
        for name in ("width", "heads", "scored", "batch_size", "steps", "validate_every", "patience"):
            _at_least(f"autoencoder.{name}", getattr(self, name), 1)
        for name in ("layers", "learning_rate", "warmup", "weight_decay", "clip", "seed"):
            _at_least(f"autoencoder.{name}", getattr(self, name), 0)
        if self.width % self.heads:
            raise MaedError(
                f"autoencoder.width: {self.width}; it may be a multiple of autoencoder.heads ({self.heads})"
            )


@dataclass
class SimilaritySettings:
    """How losses become a similarity between positions.

    Args:
        estimator: `contrast` or the seed's `mean-loss`.
        draws: Signals drawn, each with its own visible positions; rounded up to whole batches, two or more.
        batch_size: Draws that are scored at once.
        signals: Training signals that a baseline reads at the most; all where not given.
        seed: Seed of the draws.
    """

    estimator: Estimator = "contrast"
    draws: int = 65_536
    batch_size: int = 256
    signals: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least("similarity.draws", self.draws, 2)
        _at_least("similarity.batch_size", self.batch_size, 1)
        _at_least("similarity.signals", self.signals, 2)
        _at_least("similarity.seed", self.seed, 0)


@dataclass
class EmbeddingSettings:
    """How a similarity becomes a vector for each position.

    Args:
        reduction: `diffusion` map of the neighbour graph, leading eigenvectors (`spectral`), or `pca` of the rows.
        dim: Channels d of the embedding; min(64, N - 1) where not given.
        neighbours: Neighbours of each position in the graph of `diffusion`.
        diffusion_steps: Steps of the random walk of `diffusion`: more keep larger distances.
    """

    reduction: Reduction = "diffusion"
    dim: int | None = None
    neighbours: int = 8
    diffusion_steps: float = 4.0

    def __post_init__(self) -> None:
        for name in ("dim", "neighbours"):
            _at_least(f"embedding.{name}", getattr(self, name), 1)
        _at_least("embedding.diffusion_steps", self.diffusion_steps, 0)


@dataclass
class PerceiverSettings:
    """The Perceiver that is given positions (transformers' PerceiverModel).

    Args:
        latents: Latent vectors.
        latent_width: Channels of a latent.
        layers: Self-attention layers of a block.
        blocks: Times the block is applied, with shared weights.
        heads: Heads of the self-attention.
        cross_heads: Heads of the cross-attention to the inputs.
        combine: `add` the positions to the content embedding, or `concatenate` them.
        fine_tune: Train the table of a `correlation`, `dependence`, `maed` or `random` encoding too.
        dropout: Dropout of the attention probabilities.
    """

    latents: int = 64
    latent_width: int = 128
    layers: int = 4
    blocks: int = 1
    heads: int = 4
    cross_heads: int = 1
    combine: Literal["add", "concatenate"] = "add"
    fine_tune: bool = False
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("latents", "latent_width", "layers", "blocks", "heads", "cross_heads"):
            _at_least(f"perceiver.{name}", getattr(self, name), 1)
        if not 0 <= self.dropout < 1:
            raise MaedError(f"perceiver.dropout: {self.dropout}; it may be 0 or more and below 1")
        if self.latent_width % self.heads:
            raise MaedError(
                f"perceiver.latent_width: {self.latent_width}; it may be a multiple of perceiver.heads ({self.heads})"
            )


@dataclass
class TrainSettings:
    """How a Perceiver is trained.

    Args:
        epochs: Passes over the training signals.
        steps: Stop after this many steps, before the epochs are full.
        batch_size: Signals in a step.
        learning_rate: Peak learning rate of AdamW.
        warmup: Steps of linear warm-up.
        schedule: Shape of the decay after the warm-up.
        weight_decay: Weight decay.
        clip: Largest norm of the gradient.
        validate_every: Steps between two validations; once an epoch where not given.
        patience: Stop after this many validations without a better accuracy; never where not given.
    """

    epochs: int = 10
    steps: int | None = None
    batch_size: int = 64
    learning_rate: float = 1e-3
    warmup: int = 100
    schedule: Literal["cosine", "linear"] = "cosine"
    weight_decay: float = 0.01
    clip: float = 1.0
    validate_every: int | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "batch_size", "validate_every", "patience"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        for name in ("learning_rate", "warmup", "weight_decay", "clip"):
            _at_least(f"train.{name}", getattr(self, name), 0)


@dataclass
class TrainerSettings:
    """The machine (Lightning's Trainer).

    Args:
        accelerator: Lightning's accelerator.
        devices: Lightning's devices.
        precision: Lightning's precision; `auto` takes bf16-mixed where the machine gains from it.
        threads: CPU threads; PyTorch's choice where not given.
        progress: A progress bar, plain lines, or nothing; `auto` draws a bar on a terminal only.
        tensorboard: Write TensorBoard logs beside the CSV logs.
    """

    accelerator: str = "auto"
    devices: str = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    threads: int | None = None
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        one_of("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu", "cuda", "mps", "tpu"))
        _at_least("trainer.threads", self.threads, 1)


@dataclass
class EvaluationSettings:
    """Measuring geometry.

    Args:
        neighbours: k of kNN recall@k; 4 on a line, otherwise 8 where not given.
        folds: Folds of the coordinate regression.
    """

    neighbours: int | None = None
    folds: int = 5

    def __post_init__(self) -> None:
        _at_least("evaluation.neighbours", self.neighbours, 1)
        _at_least("evaluation.folds", self.folds, 2)


@dataclass
class ReportSettings:
    """What the page shows.

    Args:
        positions: Positions whose similarity is drawn.
        channels: Channels of the embedding that are drawn.
        signals: Signals that are shown masked, reconstructed and whole.
    """

    positions: int = 6
    channels: int = 8
    signals: int = 6

    def __post_init__(self) -> None:
        for name in ("positions", "channels", "signals"):
            _at_least(f"report.{name}", getattr(self, name), 1)


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


def preset_path(name: str) -> Path:
    """The YAML file of a preset: a name of `maed/configs`, or a path."""
    folder = Path(__file__).parent / "configs"
    for path in (folder / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    raise MaedError(f"config: {name!r} is no preset and no file{nearest(name, names)}; presets: {', '.join(names)}")


def _at_least(argument: str, value: float | None, least: float) -> None:
    if value is not None and not least <= value < inf:
        raise MaedError(f"{argument}: {value}; it may be {least} or more")


def _between(argument: str, value: float, low: float, high: float) -> None:
    if not low < value < high:
        raise MaedError(f"{argument}: {value}; it may be above {low} and below {high}")
