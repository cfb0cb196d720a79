"""Training one Perceiver, or pretraining its encoder: the Lightning module, and the walk to metrics.json."""

from __future__ import annotations

import hashlib
import json
import math
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EMAWeightAveraging
from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric

from maed import ranks
from maed.data.signals import SignalData, Signals
from maed.engine.ahead import Ahead
from maed.engine.checkpoints import read_checkpoint
from maed.engine.device import precision, use_threads
from maed.engine.lightning import (
    History,
    LastValidation,
    Patience,
    Steps,
    best_weights,
    build_trainer,
    fit,
    quiet_lightning,
    resumable,
)
from maed.engine.optimization import adamw
from maed.errors import MaedError, NotFiniteError
from maed.files import is_main_process, locked, read_json, write_json
from maed.models.batches import Augmentation, Batch, ShuffledBatches, every_signal, take
from maed.models.classifiers import build_classifier, describe_classifier, table_for
from maed.models.config import ClassifierConfig
from maed.models.learned import check_training, known_labels
from maed.models.memory import check_memory, device_memory
from maed.models.pretrained import PRETRAINING, Start
from maed.models.target import TargetModel
from maed.registry import TASKS
from maed.run_folder import BEST, CONFIG, LAST, METRICS, MODEL
from maed.settings import Settings, TrainSettings

_OF_TASKS = ("hidden_fraction", "horizon", "pretrain_")
"""Prefixes of settings that a task notes itself, or that do not affect a training."""


class PerceiverModule(pl.LightningModule):
    """Lightning's view of the model: the loss of its task, AdamW, metrics on validation and test signals.

    Args:
        classifier: The model to train.
        train: Settings of the training; `steps` overrides their own.
        steps: Total number of training steps.
        seed: Seed of dropout and augmentation, which depend on it and the batch's number alone: resumed, they repeat.
        augment: Changes a training batch; nothing by default.
        fingerprint: Hash of this training, saved with every checkpoint.
        folder: Folder of the checkpoints, for the message of a training that fails.
        setting: Prefix of the settings that batch size and learning rate come from, for the same message.
    """

    def __init__(
        self,
        classifier: TargetModel,
        train: TrainSettings,
        *,
        steps: int,
        seed: int,
        augment: Augmentation | None = None,
        fingerprint: str = "",
        folder: Path | None = None,
        setting: str = "train.",
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.settings, self.steps, self.seed, self.augment = train, steps, seed, augment
        self.fingerprint, self.folder, self.setting = fingerprint, folder, setting
        self.task = classifier.config.learned(train)
        self.validation_loss = MeanMetric()
        self._measures = torch.nn.ModuleDict(  # modules, so that they go where the model goes
            {
                f"{split}_{name}": metric
                for split in ("validation", "test")
                for name, metric in self.task.metrics().items()
            }
        )
        self.names, self.tested = tuple(self.task.metrics()), dict[str, Any]()
        self._first_bad: Tensor | None = None

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Outputs of the task, such as class logits, `(B, classes)`."""
        return self.classifier(values, mask)

    def measures(self, split: str) -> dict[str, Any]:
        """The task's metrics of the `validation` or the `test` signals, by name."""
        return {name: self._measures[f"{split}_{name}"] for name in self.names}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of a batch, weighted as the batch is."""
        # one long epoch: `batch_idx` is the number of the batch, and goes on where a training is resumed
        # (of a CPU's generator alone where that is all: the devices' note each call with a trace of the stack, 4 ms)
        generator = torch.default_generator if self.device.type == "cpu" else torch
        generator.manual_seed((self.seed * 1_000_003 + batch_idx) * 1_009 + self.global_rank)
        values, mask, labels, weight = batch if self.augment is None else self.augment(batch)
        seen = self.task.seen(values, mask, labels)
        loss = self.task.loss(self.classifier.tell(seen), seen.target, training=True)
        self._watch(loss.detach())
        self.log("train_loss", loss.detach(), batch_size=len(values))
        return loss * weight

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and metrics of a validation batch."""
        size, seen = len(batch.values), self.task.seen(*batch[:3])
        outputs = self.classifier.tell(seen).float()
        measures = self.measures("validation")
        self.task.update(measures, outputs, seen.target)
        self.validation_loss(self.task.loss(outputs, seen.target, training=False), size)
        self.log("validation_loss", self.validation_loss, batch_size=size)
        name = self.task.metric.name
        self.log(f"validation_{name}", measures[name], batch_size=size)

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Metrics of a test batch."""
        seen = self.task.seen(*batch[:3])
        self.task.update(self.measures("test"), self.classifier.tell(seen).float(), seen.target)

    def on_test_epoch_end(self) -> None:
        """Keep what was measured, in `tested`."""
        self.tested = self.task.measured(
            {name: metric.compute().tolist() for name, metric in self.measures("test").items()}
        )

    def on_validation_epoch_end(self) -> None:
        """Forget the metrics that are of the test alone; Lightning resets the one that it logs."""
        for name, metric in self.measures("validation").items():
            if name != self.task.metric.name:
                metric.reset()

    def on_validation_start(self) -> None:
        """Stop before a training that has left the finite numbers is saved."""
        self._stop_if_bad()

    def configure_optimizers(self) -> Any:
        """AdamW; weight decay for the matrices of linear layers only."""
        linear = {id(m.weight) for m in self.modules() if isinstance(m, torch.nn.Linear)}
        trained = [p for p in self.parameters() if p.requires_grad]
        train = self.settings
        groups = [
            {"params": [p for p in trained if id(p) in linear], "weight_decay": train.weight_decay},
            {"params": [p for p in trained if id(p) not in linear], "weight_decay": 0.0},
        ]
        optimizer, scheduler = adamw(
            groups, learning_rate=train.learning_rate, warmup=train.warmup, steps=self.steps, schedule=train.schedule
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what is being trained, so that nothing else resumes from it."""
        checkpoint["fingerprint"] = self.fingerprint

    def _watch(self, loss: Tensor) -> None:
        """Remember the first step whose loss is not finite; looked at rarely, since looking waits for a GPU."""
        if self._first_bad is None:
            self._first_bad = torch.full((), -1, device=loss.device)
        unseen = (self._first_bad < 0) & ~loss.isfinite()
        self._first_bad = torch.where(unseen, self.global_step, self._first_bad)
        if self.global_step % 50 == 0:
            self._stop_if_bad()

    def _stop_if_bad(self) -> None:
        if self._first_bad is None:
            return
        if self.trainer.world_size > 1:  # all stop, or none
            self._first_bad = self.trainer.strategy.reduce(self._first_bad, reduce_op="max")
        if int(self._first_bad) < 0:
            return
        last_good = "no checkpoint had been written"
        if self.folder is not None and (last := read_checkpoint(self.folder / LAST)) is not None:
            last_good = f"the last good checkpoint is {self.folder / LAST}, of step {last['global_step']}"
        raise NotFiniteError(
            f"train: the loss is not finite at step {int(self._first_bad)}; {last_good}; lower {self.setting}"
            f"learning_rate (now {self.settings.learning_rate:g}), or set trainer.precision to 32-true"
        )


@dataclass(frozen=True)
class _Job:
    """One training: the classifier that it is to make, its position table, and what tells it from others.

    `few`: whether labels are counted, so that none may be spent on choosing among the weights. `setting`: prefix of
    its own settings.
    """

    data: SignalData
    config: ClassifierConfig
    table: Tensor
    seed: int
    folder: Path
    settings: Settings
    steps: int
    per_epoch: int
    fingerprint: str
    few: bool
    start: Start | None
    setting: str


def train_classifier(
    data: SignalData,
    encoding: str,
    *,
    seed: int,
    folder: Path,
    dim: int,
    settings: Settings,
    vectors: Tensor | None = None,
    callbacks: tuple[Callback, ...] = (),
    overwrite: bool = True,
    task: str = "classification",
    labels: int | None = None,
    tuning: bool = False,
    start: Start | None = None,
    pretraining: bool = False,
) -> dict[str, Any]:
    """Train one Perceiver, keep its best validation, test that once.

    Weights, order of the signals and dropout follow from `seed`, so encodings with one seed differ in their positions
    alone. A finished training of the same settings is returned as it is, a stopped one continues.

    With few `labels` there are as many steps as with all of them, and the weights are the last ones: validation signals
    have labels too, and to choose by them would be to have more. They are looked at once, after the last step (or as
    `train.validate_every` asks), for the record alone. So `train.patience` is refused.

    Args:
        data: Signals, labeled where the task needs it.
        encoding: One of `maed.registry.ENCODINGS`.
        seed: Seed of the training, 0 or more.
        folder: Receives config.json, model.safetensors, metrics.json and last.ckpt.
        dim: Channels d of the positions and of the content.
        settings: `perceiver`, `train` and `trainer` are read.
        vectors: `(N, d)`, the embedding, for encodings that read one.
        callbacks: Further Lightning callbacks.
        overwrite: Replace a finished training of other settings or data instead of refusing.
        task: One of `maed.registry.TASKS`.
        labels: Number of known training labels, drawn with `seed` (`maed.models.learned`); None for all.
        tuning: True for a trial of a learning rate, which is shown validation signals instead of test signals.
        start: The pretrained encoder that it starts from; random weights by default.
        pretraining: True to pretrain an encoder, with the pretraining's own settings of `train`.

    Returns:
        The content of metrics.json.

    Raises:
        MaedError: Data that the task cannot be learned from, an encoding that is unknown or lacks what it needs, more
            labels than there are, a batch beyond the memory, or a loss that is not finite.
    """
    use_threads(settings.trainer.threads)
    job = _job(data, encoding, seed, folder, dim, settings, vectors, task, labels, tuning, start, pretraining)
    if not ranks.rank():  # which has looked before others were asked to help
        finished = _finished(job, overwrite)
        if finished is not None:
            return finished
    with locked(folder, below=False):
        return _train(job, callbacks)


def _train(job: _Job, callbacks: tuple[Callback, ...]) -> dict[str, Any]:
    """Train, from the start or from a checkpoint."""
    data, settings, seed = job.data, job.settings, job.seed
    classifier = build_classifier(job.config, job.table, seed=seed)
    train = settings.train
    first = ShuffledBatches(data.train, train.batch_size * train.accumulate, seed).rows(0)  # those of the first step
    values, mask = take(data.train, first)[:2]
    classifier.calibrate(values[..., : job.config.inputs] if data.kind == "real" else values, mask)
    if job.start is not None:
        job.start.take_over(classifier)
    with quiet_lightning(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        return _train_and_test(job, classifier, callbacks)


def finished_training(
    data: SignalData,
    encoding: str,
    *,
    seed: int,
    folder: Path,
    dim: int,
    settings: Settings,
    vectors: Tensor | None = None,
    overwrite: bool = True,
    task: str = "classification",
    labels: int | None = None,
    tuning: bool = False,
    start: Start | None = None,
    pretraining: bool = False,
) -> dict[str, Any] | None:
    """The result of a finished training: its metrics if `folder` holds them, otherwise None.

    Raises:
        MaedError: See `train_classifier`; raised before it trains.
    """
    job = _job(data, encoding, seed, folder, dim, settings, vectors, task, labels, tuning, start, pretraining)
    return _finished(job, overwrite)


def start_of(
    data: SignalData,
    encoding: str,
    *,
    seed: int,
    folder: Path,
    dim: int,
    settings: Settings,
    vectors: Tensor | None = None,
    **others: Any,
) -> Start:
    """The encoder that a pretraining with these arguments of `train_classifier` makes, before it is made."""
    job = _job(data, encoding, seed, folder, dim, settings, vectors, PRETRAINING, None, False, None, True)
    return Start(folder, job.fingerprint)


def _train_and_test(job: _Job, classifier: TargetModel, callbacks: tuple[Callback, ...]) -> dict[str, Any]:
    train, folder, data = job.settings.train, job.folder, job.data
    augment = Augmentation(train, data.geometry, permuted=data.permutation is not None, kind=data.kind)
    module = PerceiverModule(
        classifier,
        train,
        steps=job.steps,
        seed=job.seed,
        augment=augment,
        fingerprint=job.fingerprint,
        folder=folder,
        setting=job.setting,
    )
    if job.settings.trainer.compile:
        classifier.compile()
    history = History()
    watching: list[Callback] = [history, LastValidation()]
    metric = module.task.metric
    judged = f"validation_{metric.name}"
    mode: Literal["min", "max"] = "max" if metric.higher else "min"
    if train.patience is not None:
        watching.append(Patience(train.patience, judged, mode))
    if train.average is not None:  # the table is a buffer, which is to stay as it is
        watching.append(EMAWeightAveraging(decay=train.average, use_buffers=False))
    trainer, best = build_trainer(
        job.settings.trainer,
        folder,
        title=f"{'perceiver' if job.setting == 'train.' else 'pretraining'} {job.config.encoding}, seed {job.seed}",
        steps=job.steps,
        validate_every=min(train.validate_every or (job.steps if job.few else job.per_epoch), job.steps),
        clip=train.clip,
        monitor="step" if job.few else judged,
        mode="max" if job.few else mode,
        accumulate=train.accumulate,
        distributed=True,
        callbacks=[*watching, *callbacks],
    )
    _check_memory(job, classifier, trainer)
    start = ranks.agreed(resumable(folder, job.fingerprint))
    checkpoint = None if start is None else folder / LAST
    if checkpoint is None and is_main_process():  # what another training left
        for name in (METRICS, MODEL, CONFIG, LAST, BEST):
            (folder / name).unlink(missing_ok=True)
    process: Any = {"rank": trainer.global_rank, "world": trainer.world_size}
    shuffled = ShuffledBatches(data.train, train.batch_size, job.seed, **process)
    end = job.steps * train.accumulate
    try:
        with closing(Ahead(shuffled, end)) as ahead:
            batches = DataLoader(ahead, batch_size=None, sampler=Steps(end, (start or 0) * train.accumulate))
            fit(trainer, module, batches, every_signal(data.validation, train.batch_size, **process), checkpoint)
    except torch.OutOfMemoryError:
        raise MaedError(
            f"{job.setting}batch_size: {train.batch_size} signals do not fit in the memory of the GPU; try "
            f"{max(1, train.batch_size // 2)}, with train.accumulate {2 * train.accumulate} for steps of the "
            "same size"
        ) from None
    step, score = trainer.global_step, best.best_model_score
    assert score is not None
    validation = float(history.points[-1][judged] or 0.0) if job.few else float(score)
    module.load_state_dict(best_weights(best))
    trainer.test(module, every_signal(data.test, train.batch_size, **process), verbose=False)
    if trainer.is_global_zero:
        classifier.save_pretrained(folder)
        metrics = _metrics(job, classifier, history, step, validation, module.tested)
        write_json(folder / METRICS, metrics, sealed=True)
        (folder / BEST).unlink(missing_ok=True)
    trainer.strategy.barrier()
    return {} if ranks.rank() else read_json(folder / METRICS)


def _check_memory(job: _Job, classifier: TargetModel, trainer: pl.Trainer) -> None:
    """Refuse a batch that does not fit, by what the longest signal of the first one needs."""
    train, data = job.settings.train, job.data
    rows = ShuffledBatches(data.train, train.batch_size, job.seed).rows(0)
    if data.train.mask is not None:
        rows = rows[[data.train.mask[rows].sum(axis=1).argmax()]]
    check_memory(
        classifier,
        take(data.train, rows[[0, 0]]),
        batch_size=math.ceil(train.batch_size / trainer.world_size),
        accumulate=train.accumulate,
        half_precision=precision(job.settings.trainer) != "32-true",
        available=device_memory(trainer.strategy.root_device),
        setting=job.setting,
    )


def _job(
    data: SignalData,
    encoding: str,
    seed: int,
    folder: Path,
    dim: int,
    settings: Settings,
    vectors: Tensor | None,
    task: str,
    labels: int | None,
    tuning: bool,
    start: Start | None,
    pretraining: bool,
) -> _Job:
    """The training to do; refused if these data or settings do not allow it."""
    if pretraining:
        settings = replace(settings, train=settings.train.of_pretraining())
    train = settings.train
    labels = check_training(data, task, labels, train)
    if seed < 0:
        raise MaedError(f"seed must be at least 0, got {seed}")
    of, data = (
        len(data.train),
        known_labels(data, labels, seed, tuning=tuning, stratified=TASKS.get(task).needs == "classes"),
    )
    config = describe_classifier(data, encoding, dim, settings.perceiver, task=task, train=train)
    table = table_for(config, data, seed=seed, vectors=vectors)
    data = config.learned(train).prepared(data)
    per_epoch = math.ceil(of / (train.batch_size * train.accumulate))
    steps = min(train.steps or train.epochs * per_epoch, train.epochs * per_epoch)
    perceiver = asdict(settings.perceiver)
    del perceiver["learned_from"]  # allows a training, and changes nothing in it
    facts = {
        "positions": encoding,
        "seed": seed,
        "perceiver": perceiver,
        "train": {name: value for name, value in asdict(train).items() if not name.startswith(_OF_TASKS)},
        "precision": settings.trainer.precision,
        "table": _digest([table.numpy()]),
        "dim": dim,
        "classes": data.classes,
        "data": _digest([part for split in (data.train, data.validation, data.test) for part in _sketch(split)]),
    }
    if task != "classification":
        facts |= {"task": task, "facts": config.facts}
    if labels is not None:
        facts |= {"labels": labels, "of": of}
    if start is not None:
        facts |= {"start": start.identity(config, table)}
    fingerprint = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    few, setting = labels is not None and not tuning, "train.pretrain_" if pretraining else "train."
    return _Job(data, config, table, seed, folder, settings, steps, per_epoch, fingerprint, few, start, setting)


def _sketch(split: Signals) -> list[np.ndarray]:
    """Enough of a split to tell it from another: sizes, labels, normalization and 64 signals spread over it."""
    rows = np.unique(np.linspace(0, len(split) - 1, 64).astype(np.int64))
    parts = [np.asarray(split.values.shape), split.labels, split.values[rows], split.mean, split.scale]
    return [part for part in [*parts, None if split.mask is None else split.mask[rows]] if part is not None]


def _digest(arrays: list[np.ndarray]) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _finished(job: _Job, overwrite: bool) -> dict[str, Any] | None:
    """The metrics of this very training, where the folder holds them; another's are refused unless to `overwrite`."""
    path = job.folder / METRICS
    if not path.is_file():
        return None
    metrics = read_json(path)
    if isinstance(metrics, dict) and metrics.get("fingerprint") == job.fingerprint:
        return metrics if all((job.folder / name).is_file() for name in (CONFIG, MODEL)) else None
    if not overwrite:
        raise MaedError(
            f"out: {job.folder} holds a Perceiver with other settings, data or vectors; choose another --out, "
            "or --overwrite"
        )
    return None


def _metrics(
    job: _Job, classifier: TargetModel, history: History, step: int, validation: float, tested: dict[str, Any]
) -> dict[str, Any]:
    n, train = len(job.data.train), job.settings.train
    # whole epochs of batches, of which the last may be smaller; then whole batches
    epochs, batches = divmod(step * train.accumulate, math.ceil(n / train.batch_size))
    kind = TASKS.get(job.config.task)
    name = kind.metric.name
    others = {other: value for other, value in tested.items() if other != name}
    return {
        "positions": job.config.encoding,
        "seed": job.seed,
        "task": job.config.task,
        "labels": n if kind.needs else None,
        "metric": name,
        f"test_{name}": tested[name],
        f"validation_{name}": validation,
        **({"metrics": others} if others else {}),
        "epochs": epochs + min(1.0, batches * train.batch_size / n),
        "seconds": history.seconds,
        "parameters": sum(p.numel() for p in classifier.parameters() if p.requires_grad),
        "test_signals": len(job.data.test),
        "history": history.points,
        **({} if job.start is None else {"pretrained": PRETRAINING, "pretraining": job.start.record()}),
        "settings": {
            "dim": classifier.config.dim,
            "perceiver": asdict(job.settings.perceiver),
            "train": asdict(job.settings.train),
            "precision": job.settings.trainer.precision,
        },
        "fingerprint": job.fingerprint,
    }
