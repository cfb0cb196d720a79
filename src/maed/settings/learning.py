"""Settings of learning positions: the signals, the autoencoder, the similarity and the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from maed.errors import MaedError, one_of, require_at_least, require_between, require_share
from maed.registry import BASELINES, ESTIMATORS, REDUCTIONS

Schedule = Literal["cosine", "linear", "constant"]
"""Shape of the decay of a learning rate."""

Readout = Literal["feed-forward", "linear"]
"""What the set-style autoencoder makes of what a position has attended to."""


@dataclass
class DataSettings:
    """Where signals come from and how they are cut.

    Args:
        type: What a file's columns hold: numbers, token ids, text (read as bytes) or images. `auto` looks.
        columns: Columns of a table to read; all but the label by default.
        label: Column with the labels, `label` where the table has one; or several of numbers, with commas between them
            (see `--task`).
        image_size: Side in pixels that images are resized to; their own size by default.
        length: Positions of a text: its UTF-8 bytes, truncated and padded.
        window: Rows of a recording, one for each moment, that become a signal with so many channels, held out in blocks
            of time; null if rows are signals.
        stride: Rows between the beginnings of two windows; null for as many as a window has.
        group: Column that says whom a signal is of (subject, speaker, station): no group is in two splits.
        normalization: Mean 0 and deviation 1 for each `channel`, for each `position`, or `none`;
            `auto` takes `channel` for images and `position` for arrays and tables.
        split: `stratified` by label; `blocks` of neighboring signals, which in a recording are much alike; or
            `original-imdb`: validation and test are cut from the stored test split, which
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
        missing_values: Numbers that stand for a missing value, such as -9999, and are treated as NaN under `mask`; an
            empty list for none. Null refuses, and names, numbers that look so.
        seed: Seed of the splits, of the patches, of the fields and of what is dropped.
    """

    type: Literal["auto", "real", "tokens", "text", "image"] = "auto"
    columns: list[str] | None = None
    label: str | None = None
    image_size: int | None = None
    length: int = 2048
    window: int | None = None
    stride: int | None = None
    group: str | None = None
    normalization: Literal["auto", "channel", "position", "none"] = "auto"
    split: Literal["stratified", "blocks", "original-imdb"] = "stratified"
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
    missing_values: list[float] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        require_between("data.validation", self.validation, 0, 1)
        require_between("data.test", self.test, 0, 1)
        if self.stride is not None and self.window is None:
            raise MaedError(f"data.stride needs data.window, because only windows have a stride; got {self.stride}")
        for name in ("image_size", "length", "samples", "limit", "window", "stride"):
            require_at_least(f"data.{name}", getattr(self, name), 1)
        for name in ("permute", "seed", "noise"):
            require_at_least(f"data.{name}", getattr(self, name), 0)
        require_between("data.length_scale", self.length_scale, 0, inf)
        require_share("data.drop_rate", self.drop_rate)


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
        readout: What a position of `set` makes of the tokens that it has attended to: a `feed-forward` layer, or a
            `linear` one, at a third of the arithmetic.
        heads: Attention heads of `set`.
        depth: Encoder blocks of `unet`; each halves the length and doubles the channels.
        visible_fraction: Share of the positions shown; by default, 3/4 of sqrt(N) positions of real channels,
            a fifth of the positions of tokens.
        most_visible: Largest share of the positions shown: each step of a training shows another number of them,
            between `visible_fraction` and this, evenly on a logarithmic scale; null for the same number.
        common_mode: Whether the mean over the positions of each normalized signal is kept, or removed before
            anything is masked, and positions scaled to unit deviation again: for real channels that mostly move
            together, as under one reference.
        scored: Positions whose reconstruction a training step scores.
        batch_size: Signals in a training step.
        steps: Training steps.
        learning_rate: Peak learning rate of AdamW; 6e-3 for `set` and 1e-3 for `unet` by default.
        position_rate: Learning rate of the position vectors of `set`, as a multiple of that of the weights; 20 where
            they start at random and 1 after a warm start by default.
        warmup: Steps of linear warm-up.
        schedule: Shape of the decay after the warm-up; `constant` has none.
        weight_decay: Weight decay; the position vectors have none.
        clip: Largest norm of the gradient.
        validate_every: Steps between two measurements of the validation loss.
        patience: Stop after this many validations without a better loss; never by default.
        seed: Seed of the weights and of the draws.
    """

    kind: Literal["set", "unet"] = "set"
    init: str = "random"
    loss: Literal["auto", "mse", "gaussian", "cross-entropy"] = "auto"
    width: int = 64
    layers: int = 2
    readout: Readout = "feed-forward"
    heads: int = 2
    depth: int = 4
    visible_fraction: float | None = None
    most_visible: float | None = None
    common_mode: Literal["keep", "remove"] = "keep"
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
            require_between("autoencoder.visible_fraction", self.visible_fraction, 0, 1)
        if self.most_visible is not None:
            require_between("autoencoder.most_visible", self.most_visible, self.visible_fraction or 0, 1)
        for name in ("width", "heads", "depth", "scored", "batch_size", "steps", "validate_every", "patience"):
            require_at_least(f"autoencoder.{name}", getattr(self, name), 1)
        for name in ("layers", "learning_rate", "position_rate", "warmup", "weight_decay", "clip", "seed"):
            require_at_least(f"autoencoder.{name}", getattr(self, name), 0)
        if self.kind == "set" and self.width % self.heads:
            raise MaedError(
                f"autoencoder.width must be a multiple of autoencoder.heads ({self.heads}), got {self.width}"
            )


@dataclass
class SimilaritySettings:
    """How losses become a similarity between positions.

    Args:
        method: What makes the positions that a run leads with: `maed` (the autoencoder), a training-free baseline
            (`correlation`, `partial`, `magnitude` of real channels; `dependence` of tokens), or `auto`, the one of them
            with the lowest probe loss.
        estimator: `contrast`, the original's `mean-loss`, or `ablation`, which hides each visible position in turn and
            costs as many passes as positions are visible.
        draws: Draws of visible positions, rounded up to whole batches, two or more; the most with `until` `stable`.
        until: Stop after the `draws`, or before, once the neighbor lists are `stable`.
        tolerance: Share of the neighbors that may change, for a quarter more draws, where lists are called stable.
        seconds: Stop after this time at the latest; never by default.
        batch_size: Draws that are scored at once, a multiple of `repeats` for `contrast`.
        repeats: Draws of each signal; `contrast` compares a loss with those of the same signal's other draws.
        transform: What is taken of each loss before it is summed: its `root` or `log`arithm tame a heavy tail;
            `auto` takes the root of squared errors, except for `mean-loss`.
        visible_fraction: Share of the positions shown; the autoencoder's by default.
        signals: Training signals that a baseline reads at the most; all by default.
        dense_positions: Most positions of which every pair is measured. Beyond, each is compared with 32 candidates
            alone, by `correlation` or `magnitude`, so that time and memory grow with the positions.
        seed: Seed of the draws.
    """

    method: str = "auto"
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
    dense_positions: int = 10_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.estimator in BASELINES.names:
            raise MaedError(
                f"similarity.estimator: {self.estimator!r} is a method, not an estimator; set similarity.method to it"
            )
        ESTIMATORS.check("similarity.estimator", self.estimator)
        one_of("similarity.method", self.method, ("auto", "maed", *BASELINES.names))
        require_at_least("similarity.draws", self.draws, 2)
        require_at_least("similarity.batch_size", self.batch_size, 1)
        require_at_least("similarity.repeats", self.repeats, 1)
        require_at_least("similarity.seconds", self.seconds, 0)
        require_at_least("similarity.signals", self.signals, 2)
        require_at_least("similarity.dense_positions", self.dense_positions, 2)
        require_at_least("similarity.seed", self.seed, 0)
        require_between("similarity.tolerance", self.tolerance, 0, 1)
        if self.visible_fraction is not None:
            require_between("similarity.visible_fraction", self.visible_fraction, 0, 1)


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
        dim: Channels d of the embedding; min(64, N - 1) by default.
        n_neighbors: Neighbors of each position in the graph of all but `spectral` and `pca`; min(8, N - 1) where not
            given. They are the perplexity of `tsne`, as far as that may be N / 3 at most.
        diffusion_steps: Steps of the random walk, 4 for `diffusion` and 1 for `heat` by default; more keep larger
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
            require_at_least(f"embedding.{name}", getattr(self, name), 1)
        require_at_least("embedding.diffusion_steps", self.diffusion_steps, 0)
