"""A training on one device, in plain PyTorch."""

from __future__ import annotations

import math
import time
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from maed.engine.ahead import Ahead, Batches
from maed.engine.checkpoints import resumable, write_checkpoint
from maed.engine.device import precision, training_device
from maed.engine.progress import Log, ProgressFile, watcher
from maed.run_folder import BEST, LAST, StageFolder
from maed.settings import TrainerSettings

LOG_EVERY = 50
"""Steps between two rows of the log that hold a training loss; the last step has one too."""


class Task(Protocol):
    """The interface of a trained thing. Both loops use nothing else, so that they compute the same weights."""

    model: nn.Module

    def optimizer(self) -> tuple[Optimizer, LRScheduler]:
        """A new optimizer of the model's weights, and its schedule."""
        ...

    def training_step(self, batch: Any, step: int) -> Tensor:
        """The loss of step number `step`, counted from 0."""
        ...

    def validation_step(self, batch: Any) -> tuple[Tensor, int]:
        """The loss of a held-out batch, and its weight in the mean over batches."""
        ...


@dataclass(frozen=True)
class Plan:
    """The plan of a training.

    Args:
        title: Name of the training in progress reports.
        fingerprint: Hash of what is trained, and how; checkpoints with another one are not resumed.
        steps: Total number of steps.
        validate_every: Steps between two validations; the last step is followed by one too.
        clip: Largest norm of the gradient; 0 for any.
        patience: Validations without a lower loss after which it ends; None for any number.
    """

    title: str
    fingerprint: str
    steps: int
    validate_every: int
    clip: float
    patience: int | None


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Args:
        weights: State of the model at its best validation.
        history: a point for each validation: `step`, `train_loss` (the mean since the last point), `validation_loss`.
        seconds: All sessions together.
    """

    weights: dict[str, Tensor]
    history: list[dict[str, Any]]
    seconds: float


@dataclass
class _Progress:
    """The state of a training at a validation."""

    step: int = 0
    seconds: float = 0.0
    best: float | None = None  # validation loss of `best.ckpt`
    waited: int = 0  # validations without a lower one
    over: bool = False  # patience is at its end
    history: list[dict[str, float]] = field(default_factory=list)


def fit(
    task: Task, train: Batches, validation: Batches, plan: Plan, settings: TrainerSettings, folder: Path
) -> Trained:
    """Train on one device; a stopped training goes on from its last checkpoint, to the same end.

    `folder/last.ckpt` is replaced at every validation and every `settings.checkpoint_seconds`, `folder/best.ckpt` at
    every validation with a lower loss than any before. A checkpoint of another `plan.fingerprint` is ignored.

    Args:
        task: The task to train.
        train: The batch of each step; at least `plan.steps` of them.
        validation: Held-out batches, the same at every validation.
        plan: Length, batch and schedule of the training.
        settings: Device, precision, progress and log.
        folder: Receives the checkpoints, `logs/` and `progress.json`.
    """
    device = training_device(settings)
    kind = precision(settings)
    half = torch.float16 if kind == "16-mixed" and device.type != "cpu" else torch.bfloat16  # a CPU has bf16 alone
    model = task.model.to(device)
    optimizer, scheduler = task.optimizer()
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    scaler = torch.amp.GradScaler(device.type, enabled=kind != "32-true" and half is torch.float16)
    progress = _Progress()
    losses: list[Tensor] = []  # since the last validation
    stored = resumable(folder, plan.fingerprint)
    if stored is not None and stored["progress"].keys() == asdict(progress).keys():  # not another version's
        model.load_state_dict(stored["state_dict"])
        for part, name in ((optimizer, "optimizer"), (scheduler, "scheduler"), (scaler, "scaler")):
            part.load_state_dict(stored[name])
        progress = _Progress(**stored["progress"])
        losses += stored["losses"].to(device).unbind()

    def autocast() -> Any:
        return nullcontext() if kind == "32-true" else torch.autocast(device.type, half)

    def train_step(batch: Any, step: int) -> Tensor:
        with autocast():
            loss = task.training_step(batch, step)
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        if plan.clip > 0:
            nn.utils.clip_grad_norm_(weights, plan.clip)
        scaler.step(optimizer)
        scaler.update()
        scheduler.step()
        return loss.detach()

    @torch.inference_mode()
    def validate() -> float:
        model.eval()
        total, count = torch.zeros((), device=device), 0
        with autocast():
            for number in range(len(validation)):
                loss, weight = task.validation_step(validation[number].to(device))
                total, count = total + loss * weight, count + weight
        model.train()
        return float(total / count)

    def held() -> dict[str, Any]:
        return {"state_dict": model.state_dict(), "global_step": progress.step, "fingerprint": plan.fingerprint}

    def judge() -> None:
        """Look at this validation: whether it is the best one, and whether it is the last."""
        loss = progress.history[-1]["validation_loss"]
        lower = loss < math.inf if progress.best is None else loss < progress.best  # not-a-number is not
        progress.waited = 0 if lower else progress.waited + 1
        progress.over = plan.patience is not None and (progress.waited >= plan.patience or not math.isfinite(loss))
        if lower or progress.best is None:
            progress.best = loss if lower else math.inf
            write_checkpoint(folder / BEST, held())

    def save(since: float) -> float:
        """Write what a stop is gone on from; the time of it."""
        now = time.perf_counter()
        progress.seconds += now - since
        states = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        states |= {"scaler": scaler.state_dict(), "progress": asdict(progress)}
        kept = torch.stack(losses) if losses else torch.empty(0)
        write_checkpoint(folder / LAST, {**held(), **states, "losses": kept})
        return now

    since = time.perf_counter()
    told = ProgressFile(StageFolder(folder), plan.steps, progress.step)
    model.train()
    with (
        closing(Ahead(train, plan.steps)) as ahead,
        closing(Log(folder, tensorboard=settings.tensorboard)) as log,
        watcher(settings, plan.title, steps=plan.steps, done=progress.step) as watching,
    ):
        while progress.step < plan.steps and not progress.over:
            losses.append(train_step(ahead[progress.step].to(device), progress.step))
            progress.step += 1
            watching.stepped(progress.step)
            told.stepped(progress.step)
            if progress.step % LOG_EVERY == 0 or progress.step == plan.steps:
                log.write(progress.step, {"train_loss": float(losses[-1])})
                told.add(progress.step, {"train_loss": float(losses[-1])})
            if progress.step % plan.validate_every == 0 or progress.step == plan.steps:
                found = {"validation_loss": validate()}
                point = {"step": progress.step, "train_loss": float(torch.stack(losses).mean()), **found}
                progress.history.append(point)
                log.write(progress.step, found)
                told.add(progress.step, found)
                watching.validated(progress.step, {"train_loss": float(losses[-1]), **found})
                losses.clear()
                judge()
                since = save(since)
                told.write()
            elif time.perf_counter() - since > settings.checkpoint_seconds:
                since = save(since)
    best = torch.load(folder / BEST, map_location="cpu", weights_only=True)
    return Trained(best["state_dict"], progress.history, progress.seconds)
