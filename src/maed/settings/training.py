"""Settings of training a Perceiver: the model, its training and the machine."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from maed.errors import MaedError, one_of, require_at_least, require_between, require_share
from maed.registry import ARCHITECTURES
from maed.settings.learning import Schedule


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
            require_at_least(f"perceiver.{name}", getattr(self, name), 1)
        for name in ("image_size", "input_width", "position_width"):
            require_at_least(f"perceiver.{name}", getattr(self, name), 1)
        require_share("perceiver.dropout", self.dropout)
        if self.latent_width % self.heads:
            raise MaedError(
                f"perceiver.latent_width: {self.latent_width}; it must be a multiple of perceiver.heads ({self.heads})"
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
            tested and saved; none by default.
        flip: Mirror half of the training images, left to right (extra `images`). Not for permuted positions, nor for
            texts or digits, which mirrored are others.
        crop: Shift training images by up to so many pixels, filled with the mean (extra `images`). Not for permuted
            positions.
        hide: Share of the positions that each training signal has hidden from the Perceiver, drawn anew in each step.
            It needs no geometry.
        validate_every: Steps between two validations; once an epoch by default.
        patience: Stop after this many validations without a better accuracy; never by default.
        hidden_fraction: Share of the real positions that are hidden, and asked for (`--task imputation` only).
        horizon: Last channels that are forecast from those before (`--task forecast` only).
        pretrain_hidden: Share of the real positions that are hidden, and asked for, before the training
            (`--pretrain masked`); by default, half of the positions of real channels, a fifth of those of tokens.
        pretrain_scored: Positions that a step of the pretraining asks for at the most: its cost and memory do not grow
            with the others.
        pretrain_steps: Steps of the pretraining; by default, as many passes over the training signals as the training
            has with all labels.
        pretrain_batch_size: Signals in a step of the pretraining.
        pretrain_learning_rate: Peak learning rate of the pretraining.
        tune: Peak learning rates tried for each encoding before a comparison, with a seed of their own; the best by
            validation accuracy is taken, and replaces `learning_rate`. None is tried by default.
        tune_steps: Training steps of such a trial; those of the training by default.
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
    hidden_fraction: float = 0.5
    horizon: int = 1
    pretrain_hidden: float | None = None
    pretrain_scored: int = 256
    pretrain_steps: int | None = None
    pretrain_batch_size: int = 64
    pretrain_learning_rate: float = 1e-3
    tune: list[float] | None = None
    tune_steps: int | None = None

    def __post_init__(self) -> None:
        counts = ("epochs", "steps", "batch_size", "accumulate", "validate_every", "patience", "tune_steps")
        for name in (*counts, "pretrain_scored", "pretrain_steps", "pretrain_batch_size"):
            require_at_least(f"train.{name}", getattr(self, name), 1)
        if self.tune is not None:
            if len(self.tune) == 0 or len(set(self.tune)) < len(self.tune):
                raise MaedError(f"train.tune: {self.tune}; it must be one rate or more, each once, or null")
            for rate in self.tune:
                require_between("train.tune", rate, 0, inf)
        for name in ("learning_rate", "warmup", "weight_decay", "clip", "crop", "pretrain_learning_rate"):
            require_at_least(f"train.{name}", getattr(self, name), 0)
        require_between("train.hidden_fraction", self.hidden_fraction, 0, 1)
        if self.pretrain_hidden is not None:
            require_between("train.pretrain_hidden", self.pretrain_hidden, 0, 1)
        require_at_least("train.horizon", self.horizon, 1)
        for name in ("label_smoothing", "hide"):
            require_share(f"train.{name}", getattr(self, name))
        if self.average is not None:
            require_between("train.average", self.average, 0, 1)

    def of_pretraining(self) -> TrainSettings:
        """These settings as the pretraining has them: what is not its own is that of the training."""
        steps = self.pretrain_steps
        return replace(
            self,
            epochs=self.epochs if steps is None else steps,  # no limit: an epoch has a step at the least
            steps=self.steps if steps is None else steps,
            batch_size=self.pretrain_batch_size,
            learning_rate=self.pretrain_learning_rate,
            label_smoothing=0.0,
            hide=0.0,
            patience=None,
            tune=None,
            tune_steps=None,
        )


@dataclass
class TrainerSettings:
    """The machine (Lightning's Trainer).

    Args:
        accelerator: Lightning's accelerator.
        cluster: Where the trainings of a comparison run: this process by default, `local` for a Ray started here,
            or `ray://HOST:PORT` (extra `ray`); one training a worker, on one device.
        devices: Lightning's devices: a number of them, or `auto`. Perceivers are trained on all of them, everything
            else on one.
        strategy: Lightning's strategy for several devices, such as `ddp`.
        compile: Compile the Perceiver (`torch.compile`): the first step takes a minute, later ones less time.
        precision: Lightning's precision; `auto` takes bf16-mixed where the machine gains from it.
        threads: CPU threads; PyTorch's choice by default.
        progress: A progress bar, plain lines, or nothing; `auto` draws a bar on a terminal only.
        tensorboard: Write TensorBoard logs beside the CSV logs.
        checkpoint_seconds: Seconds between two checkpoints of a training, besides those at its validations.
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
    checkpoint_seconds: float = 120.0

    def __post_init__(self) -> None:
        one_of("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu", "cuda", "mps", "tpu"))
        require_at_least("trainer.threads", self.threads, 1)
        require_at_least("trainer.checkpoint_seconds", self.checkpoint_seconds, 0)
        if self.cluster is None:
            return
        if self.cluster != "local" and not re.fullmatch(r"ray://[^\s/:]+:\d+", self.cluster):
            raise MaedError(f"trainer.cluster: {self.cluster!r}; it must be local, ray://HOST:PORT, or null")
        if self.devices not in ("auto", "1"):
            raise MaedError(f"trainer.devices: {self.devices} with trainer.cluster; each of its workers has 1")
