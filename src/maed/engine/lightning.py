"""What both trainings share: the learning-rate schedule, Lightning's Trainer as settings ask for it, the history."""

from __future__ import annotations

import logging
import math
import os
import signal
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler

from maed.errors import MaedError
from maed.settings import Schedule, TrainerSettings


def adamw(
    groups: list[dict[str, Any]],
    *,
    learning_rate: float,
    warmup: int,
    steps: int,
    schedule: Schedule,
) -> dict[str, Any]:
    """AdamW with linear warm-up, then decay to a hundredth or none, as `configure_optimizers` returns it.

    Args:
        groups: parameter groups, each with its `weight_decay`.
        learning_rate: peak learning rate.
        warmup: steps until the peak.
        steps: steps in all.
        schedule: shape of the decay.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if schedule == "constant":
            return 1.0
        share = min(1.0, (step - warmup) / max(1, steps - warmup))
        decay = 0.5 * (1 + math.cos(math.pi * share)) if schedule == "cosine" else 1 - share
        return 0.01 + 0.99 * decay

    optimizer = AdamW(groups, lr=learning_rate, fused=True)
    # A fused AdamW would unscale 16-bit gradients itself, and Lightning refuses to clip what is still scaled, with
    # bf16-mixed too; so unscaling is left to Lightning.
    optimizer._step_supports_amp_scaling = False
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}}


class Steps(Sampler[int]):
    """The indices of the steps still to do: `start` to `steps - 1`.

    Lightning resumes in the middle of an epoch with a new iterator, and counts on from where it was; so the length is
    that of the whole training, and what was done is skipped here.
    """

    def __init__(self, steps: int, start: int = 0) -> None:
        self.steps, self.start = steps, start

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.start, self.steps))


def resumable(folder: Path, fingerprint: str) -> int | None:
    """The optimizer's steps done by the training `fingerprint` where `folder` holds its checkpoints, otherwise None."""
    last, best = read_checkpoint(folder / "last.ckpt"), read_checkpoint(folder / "best.ckpt")
    if last is None or best is None or last.get("fingerprint") != fingerprint:
        return None
    # Lightning forgets which checkpoint was best when the folder has moved; then training anew is the honest way.
    here = os.path.realpath(folder)
    states = [state for name, state in last["callbacks"].items() if name.startswith("ModelCheckpoint")]
    return int(last["global_step"]) if all(state["dirpath"] == here for state in states) else None


_CHECKPOINT = {
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
    "global_step": int,
}
"""What a checkpoint of Lightning holds, as far as resuming and describing it need it."""


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """A checkpoint of Lightning, its weights not yet read from disk; None where the file is not one, or not there.

    Of the pickle in it only what makes up tensors and plain values is carried out (`weights_only`). Files that are no
    zip archives are refused by `mmap`; torch before 2.6 could be made to run code from them (CVE-2025-32434).
    """
    if not path.is_file():
        return None
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # cut short, or not a checkpoint: torch raises many kinds
        return None
    if not isinstance(checkpoint, dict):
        return None
    return checkpoint if all(isinstance(checkpoint.get(name), kind) for name, kind in _CHECKPOINT.items()) else None


def fit(trainer: pl.Trainer, module: pl.LightningModule, train: Any, validation: Any, checkpoint: Path | None) -> None:
    """Train, from `checkpoint` where one is given; it has been read as weights only, hence holds nothing else."""
    path = None if checkpoint is None else str(checkpoint)
    trainer.fit(module, train, validation, ckpt_path=path, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt


def best_weights(best: ModelCheckpoint) -> dict[str, torch.Tensor]:
    """The state of the Lightning module at its best validation."""
    return torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep from users what Lightning says to developers: device lines, tips, hints on workers and resuming.

    And give Ctrl-C back: Lightning makes an exit of it, and has it ignored from then on.
    """
    interrupt = signal.getsignal(signal.SIGINT)
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in (
                ".*does not have many workers",
                ".*Checkpoint directory .* exists and is not empty",
                ".*Experiment logs directory .* exists and is not empty",
                ".*your dataloader is not resumable",  # ours starts at the right step
                ".*GPU available but not used",
                ".*smaller than the logging interval",
                ".*isinstance.treespec, LeafSpec",
                ".*across ranks is zero. Please make sure",  # a share of a batch may weigh nothing
            ):
                warnings.filterwarnings("ignore", message=message)
            yield
    except SystemExit:
        signal.signal(signal.SIGINT, interrupt)
        raise KeyboardInterrupt from None
    finally:
        logger.setLevel(level)


class LastValidation(Callback):
    """Validates after the last step too, so that no trained step goes unjudged."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Ask to stop at the last step; Lightning validates before it does."""
        if trainer.global_step >= trainer.max_steps:
            trainer.should_stop = True


class Patience(EarlyStopping):
    """Early stopping that stays stopped when resumed."""

    def __init__(self, patience: int, monitor: str, mode: Literal["min", "max"]) -> None:
        super().__init__(monitor, mode=mode, patience=patience, check_on_train_epoch_end=False)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Do not train on where the patience was over before the stop."""
        if self.wait_count >= self.patience:
            trainer.should_stop = True


class History(Callback):
    """Keeps the curve of a training: one point for each validation, saved in checkpoints so that it survives a stop."""

    def __init__(self) -> None:
        self.points: list[dict[str, float | int | None]] = []
        self.seconds = 0.0
        self._losses: list[torch.Tensor] = []
        self._since = time.perf_counter()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock; what earlier sessions took is already in `seconds`."""
        self._since = time.perf_counter()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the loss of the step."""
        self._losses.append(outputs["loss"].detach())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a point: the mean training loss since the last one, and every `validation_*` metric."""
        if trainer.sanity_checking:
            return
        losses, self._losses = self._losses, []
        point: dict[str, float | int | None] = {
            "step": trainer.global_step,
            "train_loss": float(torch.stack(losses).mean()) if losses else None,
        }
        point |= {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("validation_")}
        self.points.append(point)
        self._tick()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock."""
        self._tick()

    def state_dict(self) -> dict[str, Any]:
        """The curve so far."""
        self._tick()
        return {"points": self.points, "seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curve of a checkpoint."""
        self.points, self.seconds = list(state_dict["points"]), state_dict["seconds"]

    def _tick(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now


class Lines(Callback):
    """Progress as plain lines, one for each validation, for logs and pipes."""

    def __init__(self, title: str) -> None:
        self.title = title

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print step and losses."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        shown = [f"{name} {float(value):.4f}" for name, value in sorted(trainer.callback_metrics.items())]
        print(f"{self.title}: step {trainer.global_step} of {trainer.max_steps}: {', '.join(shown)}", flush=True)


def build_trainer(
    settings: TrainerSettings,
    folder: Path,
    *,
    title: str,
    steps: int,
    validate_every: int,
    clip: float,
    monitor: str,
    mode: Literal["min", "max"],
    wide: bool,
    accumulate: int = 1,
    distributed: bool = False,
    callbacks: Iterable[Callback] = (),
) -> tuple[pl.Trainer, ModelCheckpoint]:
    """Lightning's Trainer with checkpoints, logs and progress, and the callback that knows the best checkpoint.

    `folder/last.ckpt` is rewritten at every validation (resume from it), `folder/best.ckpt` whenever `monitor`
    improves. `wide` says whether the model gains from bf16 on a CPU (see `precision`). Both callers feed
    one loader as long as the training; `steps` ends it. A step is one of the optimizer, after `accumulate` batches.
    Devices are all that the settings ask for where the training is `distributed`, otherwise one of them.
    """
    use_threads(settings.threads)
    best = ModelCheckpoint(folder, filename="best", monitor=monitor, mode=mode, enable_version_counter=False)
    # not save_last=True, which follows the best checkpoint; after `best` in the list, so that it knows the best one
    last = ModelCheckpoint(folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=False)
    progress = progress_kind(settings)
    bars: dict[str, list[Callback]] = {"bar": [RichProgressBar()], "lines": [Lines(title)], "none": []}
    try:
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            devices=_devices(settings.devices) if distributed else 1,
            strategy=settings.strategy if distributed else "auto",
            use_distributed_sampler=False,  # who feeds it gives each process its share
            accumulate_grad_batches=accumulate,
            precision=precision(settings, wide=wide),
            max_steps=steps,
            max_epochs=-1,
            val_check_interval=validate_every * accumulate,
            check_val_every_n_epoch=None,
            gradient_clip_val=clip,
            num_sanity_val_steps=0,
            log_every_n_steps=50,
            callbacks=[*callbacks, best, last, *bars[progress]],
            logger=_loggers(folder, settings.tensorboard),
            enable_progress_bar=progress == "bar",
            enable_model_summary=False,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise MaedError(f"trainer: Lightning refuses these settings ({str(error).splitlines()[0]})") from error
    return trainer, best


def progress_kind(settings: TrainerSettings) -> Literal["bar", "lines", "none"]:
    """The progress that `auto` stands for: a bar on a terminal, otherwise lines."""
    if settings.progress != "auto":
        return settings.progress
    return "bar" if sys.stdout.isatty() else "lines"


def precision(settings: TrainerSettings, *, wide: bool) -> Literal["32-true", "bf16-mixed", "16-mixed"]:
    """The precision that `auto` stands for: bf16 where the machine gains from it, otherwise float32.

    That is on a GPU that has it, and for `wide` models on a CPU with bf16 products (a Perceiver's step at 1,024
    positions took 0.4 of the time). For the autoencoder's narrow layers CPU autocast costs more than it saves.
    """
    if settings.precision != "auto":
        return settings.precision
    if settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    multiplies_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16-mixed" if wide and multiplies_bf16 else "32-true"


def device(settings: TrainerSettings) -> torch.device:
    """The device that work outside Lightning's loop runs on: the one its Trainer would take."""
    use_threads(settings.threads)
    if settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


def _devices(devices: str) -> int | str:
    return int(devices) if devices.isdigit() else devices


def use_threads(threads: int | None) -> None:
    """Let PyTorch use as many CPU threads; as many as it likes where not given."""
    if threads is not None:
        torch.set_num_threads(threads)


def _loggers(folder: Path, tensorboard: bool) -> list[Logger]:
    loggers: list[Logger] = [CSVLogger(folder, name="", version="logs")]
    if tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    return loggers
