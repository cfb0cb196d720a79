"""Settings for training a Perceiver: the model, its training and the machine."""

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
    """The Perceiver.

    Args:
        architecture: `maed` is transformers' PerceiverModel with a preprocessor that treats all encodings equally;
            `text` and `image` are transformers' own classifiers, with the position table replaced.
        checkpoint: Initial weights of `text` or `image`: a folder that transformers' `save_pretrained` wrote, or
            OWNER/NAME of the hub, which also sets latents, layers and heads.
        latents: Number of latent vectors.
        latent_width: Channels of a latent vector.
        layers: Self-attention layers per block.
        blocks: Number of times that the block is applied, with shared weights.
        heads: Heads of the self-attention.
        cross_heads: Heads of the cross-attention to the inputs.
        combine: `add` positions to the content embedding, or `concatenate` them (`maed` only; `text` always adds,
            `image` always concatenates).
        image_size: Side in pixels to which images are resized inside the model, batch by batch, so that an embedding
            for 224 x 224 pixels needs no stored images of that size (`image` only).
        input_width: Channels of content and position table (`text` and `image` only); default: 256 for `image`, those
            of the embedding for `text`.
        position_width: Channels to which positions are projected before concatenation (`image` only); default:
            `input_width`.
        fine_tune: Also train the position table of a learned embedding or of `random`.
        dropout: Dropout of the attention probabilities.
        learned_from: Source from which the embedding was learned, if it differs from that of the labeled data; it
            asserts that the positions of both are the same.
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
                f"perceiver.latent_width must be a multiple of perceiver.heads ({self.heads}), got {self.latent_width}"
            )
        ARCHITECTURES.check("perceiver.architecture", self.architecture)


@dataclass
class TrainSettings:
    """Training a Perceiver.

    Args:
        epochs: Passes over the training signals.
        steps: Stop after this many steps, even within an epoch.
        batch_size: Signals per batch.
        accumulate: Batches whose gradients are summed into one step, in the memory of one batch.
        learning_rate: Peak learning rate of AdamW.
        warmup: Steps of linear warm-up.
        schedule: Shape of the decay after the warm-up; `constant` has none.
        weight_decay: Weight decay of the matrices of linear layers.
        clip: Largest norm of the gradient; 0 for no limit.
        label_smoothing: Share of a label that is spread evenly over all classes.
        average: Decay of an exponential moving average of the weights, such as 0.999; the average is then validated,
            tested and saved. Default: no average.
        flip: Mirror half of the training images left to right; not for permuted positions, and unsuitable for text and
            digits.
        crop: Shift training images by up to this many pixels, padded with the mean; not for permuted positions.
        hide: Share of the positions hidden from the Perceiver in each training signal, drawn at every step; needs no
            geometry.
        validate_every: Steps between two validations; default: one epoch.
        patience: Stop after this many validations without improvement; default: never.
        hidden_fraction: Share of the positions to hide and predict (`--task imputation` only).
        horizon: Number of final channels to forecast from the earlier ones (`--task forecast` only).
        pretrain_hidden: Share of the positions to hide and predict in the pretraining (`--pretrain masked`). Default:
            0.5 for real channels, 0.2 for tokens.
        pretrain_scored: Maximum number of positions that a step of the pretraining predicts, which bounds its cost and
            memory.
        pretrain_steps: Steps of the pretraining; default: as many passes over the training signals as the training
            makes with all labels.
        pretrain_batch_size: Signals in a step of the pretraining.
        pretrain_learning_rate: Peak learning rate of the pretraining.
        tune: Peak learning rates to try for each encoding before a comparison, with a random seed of their own; the
            best by validation score replaces `learning_rate`. Default: no tuning.
        tune_steps: Training steps of such a trial; default: those of the training.
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
                raise MaedError(f"train.tune must be at least one rate, each once, or null, got {self.tune}")
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
        """Settings of the pretraining: its own, and those of the training for all else."""
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
    """Use of the machine (Lightning's Trainer).

    Args:
        accelerator: Lightning's accelerator.
        cluster: Where the trainings of a comparison run: in this process (the default), on a `local` Ray started for
            the command, or on `ray://HOST:PORT` (extra `ray`); one training per worker, each on one device.
        devices: Number of Lightning's devices, or `auto`. Perceivers are trained on all of them, everything else on
            one. Under `torchrun` or Slurm each process has one, whatever is set here.
        strategy: Lightning's strategy for several devices, such as `ddp`.
        compile: Compile the Perceiver (`torch.compile`): the first step takes about a minute, later ones are faster.
        precision: Lightning's precision; `auto` is bf16-mixed if the machine gains from it.
        threads: CPU threads; default: PyTorch's choice.
        progress: Progress `bar`, plain `lines`, or `none`; `auto` draws a bar on a terminal only.
        tensorboard: Write TensorBoard logs in addition to CSV logs (extra `tensorboard`).
        checkpoint_seconds: Seconds between two checkpoints of a training, in addition to those at validations.
        rendezvous_timeout: Seconds within which all processes that `torchrun` or Slurm starts must have met.
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
    rendezvous_timeout: float = 300.0

    def __post_init__(self) -> None:
        one_of("trainer.accelerator", self.accelerator, ("auto", "cpu", "gpu", "cuda", "mps", "tpu"))
        require_at_least("trainer.threads", self.threads, 1)
        require_at_least("trainer.checkpoint_seconds", self.checkpoint_seconds, 0)
        require_at_least("trainer.rendezvous_timeout", self.rendezvous_timeout, 1)
        if self.cluster is None:
            return
        if self.cluster != "local" and not re.fullmatch(r"ray://[^\s/:]+:\d+", self.cluster):
            raise MaedError(f"trainer.cluster must be local, ray://HOST:PORT, or null, got {self.cluster!r}")
        if self.devices not in ("auto", "1"):
            raise MaedError(
                "trainer.devices must be auto or 1 with trainer.cluster, whose workers have one device each, got "
                f"{self.devices}"
            )
