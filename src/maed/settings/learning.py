"""Settings for learning positions: the signals, the autoencoder, the similarity and the embedding."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from maed.errors import MaedError, one_of, require_at_least, require_between, require_share
from maed.registry import BASELINES, ESTIMATORS, REDUCTIONS

Schedule = Literal["cosine", "linear", "constant"]
"""Shape of the decay of a learning rate."""

Readout = Literal["feed-forward", "linear"]
"""Layer that turns what a position has attended to into its reconstruction."""


@dataclass
class DataSettings:
    """Reading, splitting and normalizing signals.

    Args:
        type: Content of a file's columns: numbers, token ids, text (read as bytes) or images. `auto` looks.
        columns: Columns of a table to read; default: all but the label.
        label: Column with the labels; default: the column `label`, if there is one. Several columns of numbers are
            separated by commas (see `--task`).
        image_size: Side in pixels to which images are resized; default: unchanged.
        length: Positions of a text: its UTF-8 bytes, truncated or padded to this number.
        window: Rows of a recording that form one signal, a channel per row; windows are held out in blocks of time.
            Default: every row is a signal.
        stride: Rows between the starts of two windows; default: the length of a window.
        group: Column with the subject, speaker or station of a signal; each group is in one split only.
        normalization: Mean 0 and standard deviation 1 for each `channel`, for each `position`, or `none`; `auto` is
            `channel` for images and `position` for arrays and tables.
        split: `stratified` by label; `blocks` of consecutive signals, for recordings, in which neighbors resemble one
            another; or `original-imdb`: validation and test come from the stored test split, whose first and last
            quarter are the test.
        validation: Share of the training signals that is held out for validation.
        test: Share of all signals that is held out for the test, if the source has no test split.
        samples: Number of training signals to generate: patches of photographs (`photos`), or samples of a field,
            validation signals included (`field:`).
        variant: Samples of a field (`field:` only): `gaussian` is a Gaussian random field g plus noise; `magnitude` is
            white noise times 1 + 0.9 tanh(g), which is linearly uncorrelated.
        noise: Standard deviation of the noise added to a `gaussian` field of standard deviation 1 (`field:` only).
        length_scale: Length scale of a field's covariance, in units in which the largest distance is pi (`field:`
            only).
        drop_rate: Share of all values that is removed at random; every signal keeps at least one.
        limit: Number of training signals to use, with the class shares kept; other splits shrink in proportion.
        streaming: Read a data set of the hub (`hub:` only) over the network, as far as `limit` needs, and do not store
            it.
        permute: Random seed of one fixed permutation of the positions; default: none.
        missing: `mask` treats NaN as a missing value; `refuse` stops with an error.
        missing_values: Numbers that stand for missing values, such as -9999, and are treated as NaN with `mask`; an
            empty list means none. By default, numbers that look like such codes are refused and named.
        seed: Random seed of splits, patches, fields and dropped values.
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
    streaming: bool = False
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
        init: Initial position vectors of `set`: `random`, or a warm start from the embedding of a baseline
            (`correlation`, `dependence`) or from the folder of an embedding.
        loss: `mse` or `gaussian` (a likelihood with predicted variance) for real channels, `cross-entropy` for tokens;
            `auto` chooses.
        width: Channels of tokens and position vectors (`set`), or of the first block (`unet`).
        layers: Self-attention layers over the visible tokens of `set`.
        readout: Layer after the attention of `set`: `feed-forward`, or `linear`, at a third of the arithmetic.
        heads: Attention heads of `set`.
        depth: Encoder blocks of `unet`; each halves the length and doubles the channels.
        visible_fraction: Share of the positions shown; default: 3/4 of sqrt(N) positions for real channels, a fifth of
            the positions for tokens.
        most_visible: Largest share of the positions shown. Each training step shows a number of positions between
            `visible_fraction` and this share, drawn evenly on a logarithmic scale; default: always the same number.
        common_mode: `remove` subtracts the mean over positions from each normalized signal before masking, and scales
            positions to unit standard deviation again; useful for real channels that mostly move together, such as
            electrodes with a common reference. `keep` leaves signals unchanged.
        scored: Positions whose reconstruction is scored in a training step.
        batch_size: Signals in a training step.
        steps: Training steps.
        learning_rate: Peak learning rate of AdamW; default: 6e-3 for `set`, 1e-3 for `unet`.
        position_rate: Learning rate of the position vectors of `set`, as a multiple of that of the weights; default: 20
            for random vectors, 1 after a warm start.
        warmup: Steps of linear warm-up.
        schedule: Shape of the decay after the warm-up; `constant` has none.
        weight_decay: Weight decay, except of the position vectors.
        clip: Largest norm of the gradient.
        validate_every: Steps between two measurements of the validation loss.
        patience: Stop after this many validations without a lower loss; default: never.
        seed: Random seed of the weights and of the draws.
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
    """Settings of the similarity between positions, which is made from losses.

    Args:
        method: Source of the similarity: `maed` (the autoencoder), a training-free baseline (`correlation`, `partial`
            or `magnitude` for real channels, `dependence` for tokens), or `auto`, the one with the lowest probe loss.
        estimator: `contrast`, the original's `mean-loss`, or `ablation`, which hides each visible position in turn and
            needs as many passes as there are visible positions.
        draws: Number of draws of visible positions, at least two, rounded up to whole batches; an upper limit with
            `until stable`.
        until: Stop after all `draws`, or earlier, once the neighbor lists are `stable`.
        tolerance: Share of the neighbors that may change in the last quarter of the draws for lists to count as stable.
        seconds: Time limit in seconds; default: none.
        batch_size: Draws scored at once; a multiple of `repeats` for `contrast`.
        repeats: Draws per signal; `contrast` compares a loss with those of the same signal's other draws.
        transform: Function applied to each loss before summing: `root` and `log` tame heavy tails; `auto` is the root
            for squared errors, except with `mean-loss`.
        visible_fraction: Share of the positions shown; default: the autoencoder's.
        signals: Largest number of training signals that a baseline reads; default: all.
        dense_positions: Largest number of positions for which every pair is measured. Beyond it, each position is
            compared with 32 candidates, and time and memory grow with N log N: by `correlation`, `magnitude` or, only
            if asked for by name, `maed`, trained on 2,048 of the positions.
        seed: Random seed of the draws.
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
    """Settings of the embedding, a vector for each position, which is made from the similarity.

    Args:
        reduction: `heat` preserves neighbors and large distances; `diffusion` (diffusion map) preserves neighbors and,
            with more steps, larger distances; `laplacian` (eigenmaps) preserves neighbors only; `isomap` preserves
            large distances and blurs neighbors; `tsne` (the original's) preserves neighbors, and is slow beyond 3
            channels; `umap` preserves groups, and large distances roughly (extra `umap`); `spectral` (eigenvectors of
            the similarity) and `pca` (of its rows) preserve its values.
        dim: Channels d of the embedding; default: min(64, N - 1).
        n_neighbors: Neighbors per position in the graph of every reduction but `spectral` and `pca`; default:
            min(8, N - 1). It is the perplexity of `tsne`, limited to N / 3.
        diffusion_steps: Steps of the random walk; default: 4 for `diffusion`, 1 for `heat`. More steps preserve larger
            distances and smooth noise, at the expense of neighbors.
        symmetrize: How the two directions of a pair are combined.
        denoise: Treatment of entries within their standard error of 0 (at 5 %, Bonferroni-corrected over the N entries
            of a row). `positions` (with `heat` only) regards positions with no other entries as unknown, unless those
            are more than half of all; `significance` sets such entries to 0, except the largest of each position.
        force: Make an embedding even if the similarity shows no dependence.
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
