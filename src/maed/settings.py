"""One typed tree of settings: what presets, flags and the library share. Importing it costs nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from maed.errors import MaedError, one_of
from maed.registry import ARCHITECTURES, ESTIMATORS, REDUCTIONS

Schedule = Literal["cosine", "linear", "constant"]

CHOSEN_BY_NAME = {"similarity.estimator": ESTIMATORS, "embedding.reduction": REDUCTIONS}
"""Settings that are names of things, and where those are listed."""


@dataclass
class DataSettings:
    """Where signals come from and how they are cut.

    Args:
        type: What a file's columns hold: numbers, token ids, text (read as bytes) or images. `auto` looks.
        columns: Columns of a table to read; all but the label where not given.
        label: Column with the labels; `label` where the table has one.
        image_size: Side in pixels that images are resized to; their own size where not given.
        length: Positions of a text: its UTF-8 bytes, truncated and padded.
        normalization: Mean 0 and deviation 1 for each `channel`, for each `position`, or `none`;
            `auto` takes `channel` for images and `position` for arrays and tables.
        split: `stratified` by label, or `original-imdb`: validation and test are cut from the stored test split, which
            gives its first and last quarter to the test.
        validation: Share of the training signals kept for validation.
        test: Share of all signals kept for the test where the source has no test split of its own.
        samples: How many training signals are made: patches of the photographs (`photos`) or samples of a field, the
            validation signals included (`field:` only).
        variant: What a sample of a field is: a `gaussian` random field g plus noise, or its `magnitude`, white noise
            times 1 + 0.9 tanh(g): linearly uncorrelated (`field:` only).
        noise: Standard deviation of the noise that is added to a `gaussian` field, whose own is 1 (`field:` only).
        length_scale: Length scale of a field's covariance, where the largest distance within the shape is pi
            (`field:` only).
        drop_rate: Share of all positions of all signals that are made missing at random; every signal keeps one real
            position at least.
        limit: Use this many training signals, drawn so that classes keep their shares; the other splits shrink alike.
        permute: Seed of one fixed random permutation of the positions.
        missing: `mask` treats NaN as a position that is not real; `refuse` stops.
        seed: Seed of the splits, of the patches, of the fields and of what is dropped.
    """

    type: Literal["auto", "real", "tokens", "text", "image"] = "auto"
    columns: list[str] | None = None
    label: str | None = None
    image_size: int | None = None
    length: int = 2048
    normalization: Literal["auto", "channel", "position", "none"] = "auto"
    split: Literal["stratified", "original-imdb"] = "stratified"
    validation: float = 0.1
    test: float = 0.2
    samples: int = 20_000
    variant: Literal["gaussian", "magnitude"] = "gaussian"
    noise: float = 0.5
    length_scale: float = 0.3
    drop_rate: float = 0.0
    limit: int | None = None
    permute: int | None = None
    missing: Literal["refuse", "mask"] = "refuse"
    seed: int = 0

    def __post_init__(self) -> None:
        _between("data.validation", self.validation, 0, 1)
        _between("data.test", self.test, 0, 1)
        for name in ("image_size", "length", "samples", "limit"):
            _at_least(f"data.{name}", getattr(self, name), 1)
        for name in ("permute", "seed", "noise"):
            _at_least(f"data.{name}", getattr(self, name), 0)
        _between("data.length_scale", self.length_scale, 0, inf)
        if not 0 <= self.drop_rate < 1:
            raise MaedError(f"data.drop_rate: {self.drop_rate}; it may be 0 or more and below 1")


@dataclass
class AutoencoderSettings:
    """The masked autoencoder and its training.

    Args:
        kind: `set` reads the visible positions as a set; `unet`, the original's 1-D U-Net, knows the storage order.
        init: Where the position vectors of `set` start: `random`, from the embedding of a baseline (`correlation`,
            `dependence`), or from the folder of an embedding: a warm start.
        loss: `mse` or `gaussian` (a likelihood with predicted variance) for real channels, `cross-entropy` for tokens;
            `auto` chooses.
        width: Channels of a token and of a position vector; of the first block of `unet`.
        layers: Self-attention layers over the visible tokens of `set`.
        heads: Attention heads of `set`.
        depth: Encoder blocks of `unet`; each halves the length and doubles the channels.
        visible_fraction: Share of the positions shown; where not given, 3/4 of sqrt(N) positions of real channels,
            a fifth of the positions of tokens.
        scored: Positions whose reconstruction a training step scores.
        batch_size: Signals in a training step.
        steps: Training steps.
        learning_rate: Peak learning rate of AdamW; 6e-3 for `set` and 1e-3 for `unet` where not given.
        position_rate: Learning rate of the position vectors of `set`, as a multiple of that of the weights; 20 where
            they start at random and 1 after a warm start where not given.
        warmup: Steps of linear warm-up.
        schedule: Shape of the decay after the warm-up; `constant` has none.
        weight_decay: Weight decay; the position vectors have none.
        clip: Largest norm of the gradient.
        validate_every: Steps between two measurements of the validation loss.
        patience: Stop after this many validations without a better loss; never where not given.
        seed: Seed of the weights and of the draws.
    """

    kind: Literal["set", "unet"] = "set"
    init: str = "random"
    loss: Literal["auto", "mse", "gaussian", "cross-entropy"] = "auto"
    width: int = 64
    layers: int = 2
    heads: int = 2
    depth: int = 4
    visible_fraction: float | None = None
    scored: int = 64
    batch_size: int = 64
    steps: int = 4_000
    learning_rate: float | None = None
    position_rate: float | None = None
    warmup: int = 100
    schedule: Schedule = "cosine"
    weight_decay: float = 0.01
    clip: float = 1.0
    validate_every: int = 250
    patience: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.visible_fraction is not None:
            _between("autoencoder.visible_fraction", self.visible_fraction, 0, 1)
        for name in ("width", "heads", "depth", "scored", "batch_size", "steps", "validate_every", "patience"):
            _at_least(f"autoencoder.{name}", getattr(self, name), 1)
        for name in ("layers", "learning_rate", "position_rate", "warmup", "weight_decay", "clip", "seed"):
            _at_least(f"autoencoder.{name}", getattr(self, name), 0)
        if self.kind == "set" and self.width % self.heads:
            raise MaedError(
                f"autoencoder.width: {self.width}; it may be a multiple of autoencoder.heads ({self.heads})"
            )


@dataclass
class SimilaritySettings:
    """How losses become a similarity between positions.

    Args:
        estimator: `contrast`, the original's `mean-loss`, or `ablation`, which hides each visible position in turn and
            costs as many passes as positions are visible.
        draws: Draws of visible positions, rounded up to whole batches, two or more; the most with `until` `stable`.
        until: Stop after the `draws`, or before, once the neighbor lists are `stable`.
        tolerance: Share of the neighbors that may change, for a quarter more draws, where lists are called stable.
        seconds: Stop after this time at the latest; never where not given.
        batch_size: Draws that are scored at once, a multiple of `repeats` for `contrast`.
        repeats: Draws of each signal; `contrast` compares a loss with those of the same signal's other draws.
        transform: What is taken of each loss before it is summed: its `root` or `log`arithm tame a heavy tail;
            `auto` takes the root of squared errors, except for `mean-loss`.
        visible_fraction: Share of the positions shown; the autoencoder's where not given.
        signals: Training signals that a baseline reads at the most; all where not given.
        seed: Seed of the draws.
    """

    estimator: str = "contrast"
    draws: int = 65_536
    until: Literal["draws", "stable"] = "draws"
    tolerance: float = 0.01
    seconds: float | None = None
    batch_size: int = 256
    repeats: int = 8
    transform: Literal["auto", "none", "root", "log"] = "auto"
    visible_fraction: float | None = None
    signals: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        ESTIMATORS.check("similarity.estimator", self.estimator)
        _at_least("similarity.draws", self.draws, 2)
        _at_least("similarity.batch_size", self.batch_size, 1)
        _at_least("similarity.repeats", self.repeats, 1)
        _at_least("similarity.seconds", self.seconds, 0)
        _at_least("similarity.signals", self.signals, 2)
        _at_least("similarity.seed", self.seed, 0)
        _between("similarity.tolerance", self.tolerance, 0, 1)
        if self.visible_fraction is not None:
            _between("similarity.visible_fraction", self.visible_fraction, 0, 1)


@dataclass
class EmbeddingSettings:
    """How a similarity becomes a vector for each position.

    Args:
        reduction: `heat` (the default) keeps neighbors and large distances; `diffusion` map keeps neighbors and, with
            more steps, larger distances; `laplacian` eigenmaps keep neighbors alone; `isomap` keeps large distances
            and blurs neighbors; `tsne` (the original's) keeps neighbors and few large distances, and is slow beyond 3
            channels; `umap` keeps groups and large distances roughly (extra `umap`); `spectral` (eigenvectors of the
            similarity) and `pca` of its rows keep its values, and large distances only where the similarity reaches so
            far.
        dim: Channels d of the embedding; min(64, N - 1) where not given.
        n_neighbors: Neighbors of each position in the graph of all but `spectral` and `pca`; min(8, N - 1) where not
            given. They are the perplexity of `tsne`, as far as that may be N / 3 at most.
        diffusion_steps: Steps of the random walk, 4 for `diffusion` and 1 for `heat` where not given; more keep larger
            distances, and smooth noise, at the expense of neighbors.
        symmetrize: What becomes of the two directions of a pair.
        denoise: An entry counts as noise if it is not above its standard error by what Bonferroni asks for at 5 % over
            the N of a row. `positions` (the default, of `heat` alone) takes nothing to be known of positions that have
            only such entries, unless that is more than half, or no entry is above 0; `significance` sets all such
            entries to 0, but for the best of each position.
        force: Make an embedding even of a similarity in which no dependence was found.
    """

    reduction: str = "heat"
    dim: int | None = None
    n_neighbors: int | None = None
    diffusion_steps: float | None = None
    symmetrize: Literal["mean", "max", "min"] = "mean"
    denoise: Literal["none", "positions", "significance"] = "positions"
    force: bool = False

    def __post_init__(self) -> None:
        REDUCTIONS.check("embedding.reduction", self.reduction)
        for name in ("dim", "n_neighbors"):
            _at_least(f"embedding.{name}", getattr(self, name), 1)
        _at_least("embedding.diffusion_steps", self.diffusion_steps, 0)


@dataclass
class PerceiverSettings:
    """The Perceiver that is given positions.

    Args:
        architecture: `maed` gives transformers' PerceiverModel a preprocessor that takes every encoding on equal terms;
            `text` and `image` are transformers' own classifiers, whose position table is replaced.
        checkpoint: Folder that transformers' `save_pretrained` wrote, or OWNER/NAME of the hub, to start `text` or
            `image` from; latents, layers and heads are then those of the checkpoint.
        latents: Latent vectors.
        latent_width: Channels of a latent.
        layers: Self-attention layers of a block.
        blocks: Times the block is applied, with shared weights.
        heads: Heads of the self-attention.
        cross_heads: Heads of the cross-attention to the inputs.
        combine: `add` the positions to the content embedding, or `concatenate` them; of `maed` alone, for `text` always
            adds and `image` always concatenates.
        image_size: Side in pixels that images are resized to inside the model, a batch at a time, so that a position
            embedding for 224 x 224 pixels needs no images of that size; `image` alone.
        input_width: Channels of content and position table: 256 of `image`, those of the embedding of `text` where not
            given; `text` and `image` alone.
        position_width: Channels that positions are projected to before they are concatenated; `input_width` where not
            given; `image` alone.
        fine_tune: Train the table of an embedding (`maed`, a baseline) or of `random` too.
        dropout: Dropout of the attention probabilities.
        learned_from: The source that the embedding was learned from, where it is another than that of the labeled
            data: it says that the positions of both are the same.
    """

    architecture: str = "maed"
    checkpoint: str | None = None
    latents: int = 64
    latent_width: int = 128
    layers: int = 4
    blocks: int = 1
    heads: int = 4
    cross_heads: int = 1
    combine: Literal["add", "concatenate"] = "add"
    image_size: int | None = None
    input_width: int | None = None
    position_width: int | None = None
    fine_tune: bool = False
    dropout: float = 0.0
    learned_from: str | None = None

    def __post_init__(self) -> None:
        for name in ("latents", "latent_width", "layers", "blocks", "heads", "cross_heads"):
            _at_least(f"perceiver.{name}", getattr(self, name), 1)
        for name in ("image_size", "input_width", "position_width"):
            _at_least(f"perceiver.{name}", getattr(self, name), 1)
        if not 0 <= self.dropout < 1:
            raise MaedError(f"perceiver.dropout: {self.dropout}; it may be 0 or more and below 1")
        if self.latent_width % self.heads:
            raise MaedError(
                f"perceiver.latent_width: {self.latent_width}; it may be a multiple of perceiver.heads ({self.heads})"
            )
        ARCHITECTURES.check("perceiver.architecture", self.architecture)


@dataclass
class TrainSettings:
    """How a Perceiver is trained.

    Args:
        epochs: Passes over the training signals.
        steps: Stop after this many steps, before the epochs are full.
        batch_size: Signals in a step.
        accumulate: Batches whose gradients make one step: `batch_size` times as many signals at the memory of one.
        learning_rate: Peak learning rate of AdamW.
        warmup: Steps of linear warm-up.
        schedule: Shape of the decay after the warm-up; `constant` has none.
        weight_decay: Weight decay of the matrices of linear layers.
        clip: Largest norm of the gradient; 0 for none.
        label_smoothing: Share of a label that is spread evenly over all classes.
        average: Decay of an exponential moving average of the weights, such as 0.999, which is then what is validated,
            tested and saved; none where not given.
        flip: Mirror half of the training images, left to right (extra `images`). Not for permuted positions, nor for
            texts or digits, which mirrored are others.
        crop: Shift training images by up to so many pixels, filled with the mean (extra `images`). Not for permuted
            positions.
        hide: Share of the positions that each training signal has hidden from the Perceiver, drawn anew in each step.
            It needs no geometry.
        validate_every: Steps between two validations; once an epoch where not given.
        patience: Stop after this many validations without a better accuracy; never where not given.
        tune: Peak learning rates tried for each encoding before a comparison, with a seed of their own; the best by
            validation accuracy is taken, and replaces `learning_rate`. None is tried where not given.
        tune_steps: Training steps of such a trial; those of the training where not given.
    """

    epochs: int = 10
    steps: int | None = None
    batch_size: int = 64
    accumulate: int = 1
    learning_rate: float = 1e-3
    warmup: int = 100
    schedule: Schedule = "cosine"
    weight_decay: float = 0.01
    clip: float = 1.0
    label_smoothing: float = 0.0
    average: float | None = None
    flip: bool = False
    crop: int = 0
    hide: float = 0.0
    validate_every: int | None = None
    patience: int | None = None
    tune: list[float] | None = None
    tune_steps: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "batch_size", "accumulate", "validate_every", "patience", "tune_steps"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        if self.tune is not None:
            if len(self.tune) == 0 or len(set(self.tune)) < len(self.tune):
                raise MaedError(f"train.tune: {self.tune}; it may be one rate or more, each once, or null")
            for rate in self.tune:
                _between("train.tune", rate, 0, inf)
        for name in ("learning_rate", "warmup", "weight_decay", "clip", "crop"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        for name in ("label_smoothing", "hide"):
            if not 0 <= getattr(self, name) < 1:
                raise MaedError(f"train.{name}: {getattr(self, name)}; it may be 0 or more and below 1")
        if self.average is not None:
            _between("train.average", self.average, 0, 1)


@dataclass
class TrainerSettings:
    """The machine (Lightning's Trainer).

    Args:
        accelerator: Lightning's accelerator.
        cluster: Where the trainings of a comparison run: this process where not given, `local` for a Ray started here,
            or `ray://HOST:PORT` (extra `ray`); one training a worker, on one device.
        devices: Lightning's devices: a number of them, or `auto`. Perceivers are trained on all of them, everything
            else on one.
        strategy: Lightning's strategy for several devices, such as `ddp`.
        compile: Compile the Perceiver (`torch.compile`): the first step takes a minute, later ones less time.
        precision: Lightning's precision; `auto` takes bf16-mixed where the machine gains from it.
        threads: CPU threads; PyTorch's choice where not given.
        progress: A progress bar, plain lines, or nothing; `auto` draws a bar on a terminal only.
        tensorboard: Write TensorBoard logs beside the CSV logs.
    """

    accelerator: str = "auto"
    cluster: str | None = None
    devices: str = "auto"
    strategy: str = "auto"
    compile: bool = False
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    threads: int | None = None
    progress: Literal["auto", "bar", "lines", "none"] = "auto"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        one_of("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu", "cuda", "mps", "tpu"))
        _at_least("trainer.threads", self.threads, 1)
        if self.cluster is None:
            return
        if self.cluster != "local" and not re.fullmatch(r"ray://[^\s/:]+:\d+", self.cluster):
            raise MaedError(f"trainer.cluster: {self.cluster!r}; it may be local, ray://HOST:PORT, or null")
        if self.devices not in ("auto", "1"):
            raise MaedError(f"trainer.devices: {self.devices} with trainer.cluster; each of its workers has 1")


@dataclass
class EvaluationSettings:
    """Measuring geometry.

    Args:
        n_neighbors: k of kNN recall@k; 4 on a line or ring, otherwise 8 where not given.
        folds: Folds of the coordinate regression.
    """

    n_neighbors: int | None = None
    folds: int = 5

    def __post_init__(self) -> None:
        _at_least("evaluation.n_neighbors", self.n_neighbors, 1)
        _at_least("evaluation.folds", self.folds, 2)


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


def _at_least(argument: str, value: float | None, least: float) -> None:
    if value is not None and not least <= value < inf:
        raise MaedError(f"{argument}: {value}; it may be {least} or more")


def _between(argument: str, value: float, low: float, high: float) -> None:
    if not low < value < high:
        raise MaedError(f"{argument}: {value}; it may be above {low} and below {high}")
