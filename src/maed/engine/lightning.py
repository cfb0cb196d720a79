"""Trainings with Lightning: its Trainer as settings ask for it, callbacks, and any task of the plain loop."""

from __future__ import annotations

import logging
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger
from pytorch_lightning.plugins.environments import ClusterEnvironment  # type: ignore[attr-defined]
from pytorch_lightning.utilities.exceptions import MisconfigurationException  # type: ignore[attr-defined]
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from maed import ranks
from maed.engine.ahead import Ahead, Batches
from maed.engine.checkpoints import is_lightning, read_own
from maed.engine.device import precision, use_threads
from maed.engine.loop import LOG_EVERY, Plan, Task, Trained
from maed.engine.progress import ProgressFile, print_line, progress_kind
from maed.errors import MaedError
from maed.run_folder import BEST, LAST, StageFolder
from maed.settings import TrainerSettings


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
    last = read_own(folder / LAST)
    if last is None or not is_lightning(last) or last.get("fingerprint") != fingerprint:
        return None
    # Lightning forgets which checkpoint was best when the folder has moved; then training anew is the honest way.
    here = os.path.realpath(folder)
    states = [state for name, state in last["callbacks"].items() if name.startswith("ModelCheckpoint")]
    if any(state["dirpath"] != here for state in states):
        return None
    if any(state["best_model_path"] for state in states) and not is_lightning(read_own(folder / BEST)):
        return None
    return int(last["global_step"])


def fit(trainer: pl.Trainer, module: pl.LightningModule, train: Any, validation: Any, checkpoint: Path | None) -> None:
    """Train, from `checkpoint` where one is given; it has been read as weights only, hence holds nothing else."""
    path = None if checkpoint is None else str(checkpoint)
    trainer.fit(module, train, validation, ckpt_path=path, weights_only=True)
    if trainer.interrupted:
        raise KeyboardInterrupt


class TaskModule(pl.LightningModule):
    """Lightning's view of a task of the plain loop."""

    def __init__(self, task: Task, plan: Plan) -> None:
        super().__init__()
        self.task, self.plan, self.model = task, plan, task.model

    def configure_optimizers(self) -> Any:
        """The task's optimizer, its schedule advanced after every step."""
        optimizer, scheduler = self.task.optimizer()
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Move a batch."""
        return batch.to(device)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """The task's loss of a batch."""
        loss = self.task.training_step(batch, self.global_step)
        self.log("train_loss", loss, on_step=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The task's loss of a held-out batch."""
        loss, weight = self.task.validation_step(batch)
        self.log("validation_loss", loss, batch_size=weight, on_epoch=True, sync_dist=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what is being trained, so that nothing else resumes from it."""
        checkpoint["fingerprint"] = self.plan.fingerprint


def fit_task(
    task: Task,
    train: Batches,
    validation: Batches,
    plan: Plan,
    settings: TrainerSettings,
    folder: Path,
    *,
    shared: bool = False,
) -> Trained:
    """Train as `maed.engine.loop.fit` does, to the same weights, with Lightning.

    If the training is `shared` by the processes of the command (`maed.ranks`), each feeds its share of every batch;
    process 0 alone returns the weights.
    """
    module, history = TaskModule(task, plan), History()
    patience = [] if plan.patience is None else [Patience(plan.patience, "validation_loss", "min")]
    with quiet_lightning():
        trainer, best = build_trainer(
            settings,
            folder,
            title=plan.title,
            steps=plan.steps,
            validate_every=plan.validate_every,
            clip=plan.clip,
            monitor="validation_loss",
            mode="min",
            distributed=shared,
            callbacks=[history, LastValidation(), *patience],
        )
        start = resumable(folder, plan.fingerprint)
        start = ranks.agreed(start) if shared else start
        held_out: Any = DataLoader(validation, batch_size=None)  # type: ignore[arg-type]
        with closing(Ahead(train, plan.steps)) as ahead:
            loader = DataLoader(ahead, batch_size=None, sampler=Steps(plan.steps, start or 0))
            fit(trainer, module, loader, held_out, None if start is None else folder / LAST)
    if not trainer.is_global_zero:
        return Trained({}, history.points, history.seconds)
    weights = {name.removeprefix("model."): tensor for name, tensor in best_weights(best).items()}
    return Trained(weights, history.points, history.seconds)


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
        """Remember the loss of the step, which Lightning has divided by the batches of a step."""
        self._losses.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add a point: the mean training loss since the last one, and every `validation_*` metric."""
        if trainer.sanity_checking:
            return
        losses, self._losses = self._losses, []
        point: dict[str, float | int | None] = {
            "step": trainer.global_step,
            "train_loss": float(_mean(torch.stack(losses).mean(), trainer)) if losses else None,
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
        losses = torch.stack(self._losses).cpu() if self._losses else torch.empty(0)
        return {"points": self.points, "seconds": self.seconds, "losses": losses}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the curve of a checkpoint."""
        self.points, self.seconds = list(state_dict["points"]), state_dict["seconds"]
        self._losses = list(state_dict.get("losses", torch.empty(0)).unbind())

    def _tick(self) -> None:
        now = time.perf_counter()
        self.seconds += now - self._since
        self._since = now


def _mean(value: Tensor, trainer: pl.Trainer) -> Tensor:
    """The mean over the processes that share a training."""
    return trainer.strategy.reduce(value, reduce_op="mean") if trainer.world_size > 1 else value


class Timed(Callback):
    """Rewrites a checkpoint when the last one, of a validation too, is some seconds old.

    Never between the batches of a step, whose gradients no checkpoint holds; nor right before a validation, which a
    training that goes on from there would pass over.
    """

    def __init__(self, path: Path, seconds: float) -> None:
        self.path, self.seconds, self._since = path, seconds, time.monotonic()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock."""
        self._since = time.monotonic()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write where it is time to; of several processes the first one decides."""
        done, every = batch_idx + 1, trainer.accumulate_grad_batches
        validated = done % int(trainer.val_check_batch or 1) == 0 or trainer.global_step >= trainer.max_steps
        due = done % every == 0 and not validated and time.monotonic() - self._since > self.seconds
        if trainer.strategy.broadcast(due) if trainer.world_size > 1 else due:
            trainer.save_checkpoint(self.path)
            self._since = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A checkpoint follows."""
        self._since = time.monotonic()


class Lines(Callback):
    """Progress as plain lines, one for each validation, for logs and pipes."""

    def __init__(self, title: str) -> None:
        self.title = title

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Print step and losses."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        print_line(self.title, trainer.global_step, trainer.max_steps, metrics)


class Watch(Callback):
    """Tells of every step: its number, how many there are, and what the latest validation measured as `metric`."""

    def __init__(self, tell: Callable[[int, int, float | None], None], metric: str) -> None:
        self.tell, self.metric = tell, metric
        self.value: float | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """A step."""
        self.tell(trainer.global_step, trainer.max_steps, self.value)

    def on_validation_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """A new value."""
        self.value = float(trainer.callback_metrics[self.metric])
        self.tell(trainer.global_step, trainer.max_steps, self.value)


class Told(Callback):
    """Keeps `progress.json`, for who watches."""

    def __init__(self, folder: Path) -> None:
        self.folder = StageFolder(folder)
        self._file: ProgressFile | None = None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Begin, or go on where a stop was."""
        if trainer.is_global_zero:
            self._file = ProgressFile(self.folder, trainer.max_steps, trainer.global_step)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the step; its loss is asked of a GPU only now and then."""
        if self._file is not None and trainer.global_step != self._file.record.step:
            if trainer.global_step % LOG_EVERY == 0 and "train_loss" in trainer.callback_metrics:
                self._file.add(trainer.global_step, {"train_loss": float(trainer.callback_metrics["train_loss"])})
            self._file.stepped(trainer.global_step)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Add what was found."""
        if self._file is not None and not trainer.sanity_checking:
            found = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("validation_")}
            self._file.add(trainer.global_step, found)
            self._file.write()


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
    accumulate: int = 1,
    distributed: bool = False,
    callbacks: Iterable[Callback] = (),
) -> tuple[pl.Trainer, ModelCheckpoint]:
    """Lightning's Trainer with checkpoints, logs and progress, and the callback that knows the best checkpoint.

    `folder/last.ckpt` is rewritten at every validation and every `settings.checkpoint_seconds` (resume from it),
    `folder/best.ckpt` whenever `monitor` improves. Both callers feed one loader as long as the training; `steps` ends
    it. A step is one of the optimizer, after `accumulate` batches. Where the training is `distributed`, it has all
    processes of the command (`maed.ranks`), or else all devices that the settings ask for; otherwise one device.
    """
    use_threads(settings.threads)
    devices: dict[str, Any] = {"devices": 1, "strategy": "auto"}
    if distributed:
        devices = {"devices": _devices(settings.devices), "strategy": settings.strategy}
        if (place := ranks.here()) is not None:
            strategy = "ddp" if settings.strategy == "auto" else settings.strategy
            devices = {"devices": place.here, "num_nodes": place.machines, "strategy": strategy}
            devices["plugins"] = [_Processes(place)]
    best = ModelCheckpoint(folder, filename="best", monitor=monitor, mode=mode, enable_version_counter=False)
    # not save_last=True, which follows the best checkpoint; after `best` in the list, so that it knows the best one
    last = ModelCheckpoint(folder, filename="last", enable_version_counter=False, save_on_train_epoch_end=False)
    timed = Timed(folder / LAST, settings.checkpoint_seconds)
    progress = progress_kind(settings)
    bars: dict[str, list[Callback]] = {"bar": [RichProgressBar()], "lines": [Lines(title)], "none": []}
    try:
        trainer = pl.Trainer(
            accelerator=settings.accelerator,
            **devices,
            use_distributed_sampler=False,  # who feeds it gives each process its share
            accumulate_grad_batches=accumulate,
            precision=precision(settings),
            max_steps=steps,
            max_epochs=-1,
            val_check_interval=validate_every * accumulate,
            check_val_every_n_epoch=None,
            gradient_clip_val=clip,
            num_sanity_val_steps=0,
            log_every_n_steps=LOG_EVERY,
            callbacks=[*callbacks, best, last, Told(folder), timed, *bars[progress]],
            logger=_loggers(folder, settings.tensorboard),
            enable_progress_bar=progress == "bar",
            enable_model_summary=False,
        )
    except (ValueError, RuntimeError, MisconfigurationException) as error:
        raise MaedError(f"trainer: Lightning rejects these settings ({str(error).splitlines()[0]})") from error
    return trainer, best


class _Processes(ClusterEnvironment):
    """The processes of `maed.ranks` as Lightning sees them; they have met already."""

    def __init__(self, place: ranks.Place) -> None:
        super().__init__()
        self._place = place

    creates_processes_externally = True

    @property
    def main_address(self) -> str:
        """Where they met."""
        return self._place.address

    @property
    def main_port(self) -> int:
        """Where they met."""
        return self._place.port

    @staticmethod
    def detect() -> bool:
        """Nothing is looked for."""
        return True

    def world_size(self) -> int:
        """Processes in all."""
        return self._place.world

    def set_world_size(self, size: int) -> None:
        """It is known."""

    def global_rank(self) -> int:
        """Number of this process."""
        return self._place.rank

    def set_global_rank(self, rank: int) -> None:
        """It is known."""

    def local_rank(self) -> int:
        """Number of this process on its machine."""
        return self._place.local

    def node_rank(self) -> int:
        """Number of this machine."""
        return self._place.rank // self._place.here


def _devices(devices: str) -> int | str:
    return int(devices) if devices.isdigit() else devices


def _loggers(folder: Path, tensorboard: bool) -> list[Logger]:
    loggers: list[Logger] = [CSVLogger(folder, name="", version="logs")]
    if tensorboard:
        loggers.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    return loggers
