"""What the jobs of gpu.yaml do: each takes its arguments and returns what is recorded. Runs in a process of its own."""

from __future__ import annotations

import hashlib
import shlex
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

import autoencoder
import learn
import many
import perceiver
from maed import cli, presets
from maed.autoencoder import AutoencoderTask, build_autoencoder, loss_name, pretrain, visible_count
from maed.autoencoder.masking import make_draw
from maed.autoencoder.placing import LANDMARKS
from maed.data import SignalData, load
from maed.embedding import PositionEmbedding
from maed.errors import MaedError
from maed.evaluation.geometry import agreement
from maed.experiments.comparison import Comparison
from maed.files import read_json, write_json
from maed.models import build_classifier, describe_classifier, table_for
from maed.models.fused import fuse
from maed.records import Results
from maed.run_folder import RunFolder
from maed.settings import AutoencoderSettings, Settings
from maed.stages import Context


@dataclass(frozen=True)
class Place:
    """Where a job runs.

    Args:
        folder: for what it writes; thrown away afterwards.
        inputs: the embeddings that were learned beforehand.
        device: `cuda`, or `cpu` for tiny jobs.
        peak: bfloat16 FLOP/s of a large matrix product on that device.
        pflop: the operations of the job; None for tiny ones, which nobody counted.
    """

    folder: Path
    inputs: Path
    device: str
    peak: float
    pflop: float | None = None

    def share(self, pflop: float | None, seconds: float) -> dict[str, float | None]:
        """The rate of some work, and the share of the device's limit that it is."""
        if pflop is None:
            return {"pflop": None, "tflops": None, "share": None}
        rate = 1e15 * pflop / seconds
        return {"pflop": pflop, "tflops": rate / 1e12, "share": rate / self.peak}

    def note(self, **facts: Any) -> None:
        """How far the job is, for whoever has to stop it."""
        write_json(self.folder / "progress.json", facts)


# --- timings ------------------------------------------------------------------------------------------------------


def perceiver_step(arguments: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """A training step of several Perceivers in turns, its peak memory, and the share of the limit that each reached."""
    rows = perceiver.steps(
        _size(arguments),
        arguments["contestants"],
        batch=arguments["batch"],
        rounds=arguments["rounds"],
        device=place.device,
    )
    for row in rows:
        row["seconds"] = [round(second, 5) for second in row["seconds"]]
        counted = None if place.pflop is None else arguments["step_tflop"][row["name"]] / 1e3
        row |= place.share(counted, row["median"])
    return {"rows": rows}


def _size(arguments: Mapping[str, Any]) -> perceiver.Size:
    size = perceiver.SIZES[arguments["size"]]
    config = size.config | arguments.get("config", {})
    return replace(size, positions=arguments.get("positions", size.positions), config=config)


def step_flop(arguments: Mapping[str, Any]) -> dict[str, float]:
    """Floating-point operations of a step of each contestant."""
    found = {}
    for name in arguments["contestants"]:
        model = perceiver.model_of(_size(arguments), dropout=0.0)
        if perceiver.CONTESTANTS[name].base == "fused":
            fuse(model)
        batch = perceiver.batch_of(_size(arguments), 1, False, "cpu")

        def logits(inputs: Tensor, model: Any = model) -> Tensor:
            return model(inputs=inputs).logits

        _, whole = counted(logits, batch["inputs"])
        found[name] = arguments["batch"] * whole
    return found


def autoencoder_speed(arguments: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Samples a second of a training step of the set-style autoencoder, and draws a second of the similarity."""
    found = {}
    for name, bf16 in (("float32", False), ("bfloat16", True)):
        same: Any = {"repeats": arguments["repeats"], "limit_size": arguments["limit_size"]}
        same |= {"device": place.device, "bf16": bf16}
        found[name] = {
            "training": autoencoder.step(batch=arguments["batch"], **same),
            "similarity": autoencoder.streaming(batch=arguments["draws"], **same),
        }
    return found


def learn_agreement(arguments: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """`maed.learn` here, and how far its neighbors are those that a CPU finds.

    Two embeddings of different seeds agree on some share of the neighbors, whatever made them; a device that computes
    the same agrees with the CPU as much as the CPU's seeds agree with one another.
    """
    cpu = {seed: PositionEmbedding.from_pretrained(place.inputs / f"seed-{seed}") for seed in (0, 1, 2)}
    rows = []
    for seed in arguments["seeds"]:
        found, embedding = learn.one(
            seed, signals=arguments["signals"], device=place.device, budget=arguments["budget"]
        )
        there = cpu[seed]
        row = {name: found[name] for name in ("seed", "seconds", "knn_recall", "spearman", "coordinate_r2")}
        row["agreement"] = agreement(embedding.vectors, there.vectors, 8)
        metrics = there.provenance["metrics"]
        row |= {f"cpu_{name}": metrics[name] for name in ("seconds", "knn_recall", "spearman", "coordinate_r2")}
        rows.append(row)
    return {"rows": rows}


# --- trainings ----------------------------------------------------------------------------------------------------


def settings_of(arguments: Mapping[str, Any], device: str) -> Settings:
    """The settings of a training: its preset, with the job's changes."""
    changes: dict[str, dict[str, Any]] = {}
    for name, value in arguments["settings"].items():
        group, _, setting = name.partition(".")
        changes.setdefault(group, {})[setting] = value
    changes["trainer"] = {"accelerator": device, "progress": "none"}
    return presets.load(arguments["config"], changes)


def command(arguments: Mapping[str, Any], embedding: str | None) -> str:
    """The same training by the command line."""
    words = ["maed", "train" if "positions" in arguments else "pretrain", arguments["source"]]
    words += ["--config", arguments["config"]]
    if "positions" in arguments:
        words += ["--positions", arguments["positions"], "--seed", str(arguments["seed"])]
        words += [] if embedding is None else ["--run", embedding]
    for name, value in arguments["settings"].items():
        words += [f"--{name}", "null" if value is None else str(value).lower() if value is True else str(value)]
    return shlex.join(words)


def train(arguments: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Train and test one Perceiver, as `maed train` does; checks on the device that the table is the one it was given.

    Raises:
        MaedError: the table that arrived is another one.
    """
    settings = settings_of(arguments, place.device)
    data = load(arguments["source"], settings.data)
    comparison = Comparison(Context(RunFolder(place.folder / "run", place.inputs), settings, data))
    encoding = arguments["positions"]
    trial = comparison.trial(encoding, arguments["seed"], comparison.vectors([encoding])[encoding])
    table = _table(trial.encoding, trial.vectors, trial.seed, data, trial.dim, settings)
    arrival = Arrival(table, place)
    metrics = trial.train(data, (arrival,))
    assert metrics is not None
    kept = ("positions", "seed", "test_accuracy", "validation_accuracy", "epochs", "seconds", "parameters")
    return {
        **{name: metrics[name] for name in kept},
        "learning_rate": settings.train.learning_rate,
        "test_signals": metrics["test_signals"],
        "table": {"sha256": digest(table), "rms": arrival.rms, "arrived": arrival.found},
        **place.share(place.pflop, metrics["seconds"]),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if place.device == "cuda" else None,
        "history": metrics["history"],
        "settings": metrics["settings"],
    }


def pretrained(arguments: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Pretrain one Perceiver without labels, then train and test it, as `maed train --pretrain masked` does."""
    settings = settings_of(arguments, place.device)
    data = load(arguments["source"], settings.data)
    context = Context(RunFolder(place.folder / "run", place.inputs), settings, data)
    started = time.perf_counter()
    metrics = Comparison(context, pretrain=("masked",)).train(arguments["positions"], arguments["seed"])
    seconds = time.perf_counter() - started
    kept = ("positions", "seed", "test_accuracy", "validation_accuracy", "epochs", "parameters", "history", "settings")
    return {
        **{name: metrics[name] for name in kept},
        "learning_rate": settings.train.learning_rate,
        "seconds": seconds,
        "pretraining": metrics["pretraining"],
        **place.share(place.pflop, seconds),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if place.device == "cuda" else None,
    }


class Arrival(pl.Callback):
    """Looks at the position table where it is trained with, before the first step; and notes how far the training is.

    Args:
        table: `(N, d)`, what the model was given.
        place: where progress is noted.
    """

    def __init__(self, table: Tensor, place: Place) -> None:
        self.table, self.place, self.started = table, place, time.monotonic()
        self.found, self.rms = "", None

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compare, bit for bit."""
        classifier: Any = pl_module.classifier
        there = classifier.position_table
        if there.device.type != self.place.device:
            raise MaedError(f"table: on {there.device.type}, the job runs on {self.place.device}")
        # transformers' own classifiers take it at the size of the table that it replaces, ours at its own
        rms = getattr(classifier, "rms", None)
        given = self.table if rms is None else PositionEmbedding(self.table).table(rms=rms)
        self.found, self.rms = digest(there.cpu()), rms
        if self.found != digest(given):
            raise MaedError("table: what arrived on the device is not what the model was given")
        self.started = time.monotonic()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        """Note every hundredth step."""
        if trainer.global_step % 100 == 0:
            seconds = time.monotonic() - self.started
            self.place.note(step=trainer.global_step, steps=trainer.max_steps, seconds=seconds)


def _table(encoding: str, vectors: Tensor | None, seed: int, data: SignalData, dim: int, settings: Settings) -> Tensor:
    """The table that the classifier is given; where nothing has to be fitted, the vectors of the artifact itself."""
    config = describe_classifier(data, encoding, dim, settings.perceiver)
    table = table_for(config, data, seed=seed, vectors=vectors)
    if vectors is not None and vectors.shape == table.shape and not torch.equal(table, vectors):
        raise MaedError("table: not the vectors of the embedding")
    return table


def digest(table: Tensor) -> str:
    """sha256 of a table's float32 numbers."""
    return hashlib.sha256(np.ascontiguousarray(table.detach().float().numpy()).data).hexdigest()


def pretrain_job(arguments: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Train one autoencoder, as `maed pretrain` does."""
    settings = settings_of(arguments, place.device)
    data = load(arguments["source"], settings.data)
    pretrain(data, settings.autoencoder, settings.trainer, place.folder)
    metrics = read_json(place.folder / "metrics.json")
    signals = settings.autoencoder.steps * settings.autoencoder.batch_size
    return {
        "steps": settings.autoencoder.steps,
        "seconds": metrics["seconds"],
        "samples_per_s": signals / metrics["seconds"],
        "visible": metrics["visible"],
        **place.share(place.pflop, metrics["seconds"]),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if place.device == "cuda" else None,
        "history": metrics["history"],
    }


def many_positions(arguments: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """One cell of many.py: the whole pipeline of many positions, with the autoencoder on the device."""
    given = [*shlex.split(arguments["run"]), *many.MAED, *many.ALL, "--trainer.accelerator", place.device]
    # repeated, a flag counts as it was last given
    given += [word for name, value in arguments["more"].items() for word in (f"--{name}", f"{value}")]
    started = time.perf_counter()
    if code := cli.main(["run", *given, "--out", str(place.folder / "run")]):
        raise MaedError(f"maed run {shlex.join(given)} ended with {code}")
    seconds = time.perf_counter() - started
    results = Results.read(place.folder / "run" / "results.json")
    return {
        "command": shlex.join(["maed", "run", *given]),
        "positions": results.positions,
        "seconds": seconds,
        "stages": results.seconds,
        "geometry": results.geometry,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if place.device == "cuda" else None,
        **place.share(place.pflop, seconds),
    }


FUNCTIONS: dict[str, Callable[[Mapping[str, Any], Place], dict[str, Any]]] = {
    "perceiver_step": perceiver_step,
    "autoencoder_speed": autoencoder_speed,
    "learn_agreement": learn_agreement,
    "train": train,
    "pretrain": pretrain_job,
    "many": many_positions,
    "pretrained": pretrained,
}


# --- operations ---------------------------------------------------------------------------------------------------


SPLITS = {"imdb": (25_000, 12_500, 12_500), "cifar10": (45_000, 5_000, 10_000)}
"""Training, validation and test signals, as the presets cut them."""


def counted(forward: Callable[[Tensor], Tensor], inputs: Tensor) -> tuple[int, int]:
    """Floating-point operations of a forward pass, and of it with its backward pass; nothing is computed.

    PyTorch's FlopCounterMode over fake tensors: matrix products, convolutions and attention, two for a multiply-add.
    """
    with FakeTensorMode(allow_non_fake_inputs=True) as fake, FlopCounterMode(display=False) as counter:
        output = forward(fake.from_tensor(inputs))
        once = counter.get_total_flops()
        output.sum().backward()
        return once, counter.get_total_flops()


def train_flop(arguments: Mapping[str, Any]) -> float:
    """Operations of a training of a Perceiver, its validations and its test."""
    settings = settings_of(arguments, "cpu")
    data = load(arguments["source"], replace(settings.data, limit=100))  # for the shapes
    trained, validated, tested = SPLITS[arguments["source"]]
    config = describe_classifier(data, "trainable", 64, settings.perceiver)
    classifier = build_classifier(config, table_for(config, data, seed=0, vectors=None), seed=0)
    forward, both = counted(lambda values: classifier(values, None), data.train.take(np.arange(1)))
    train = settings.train
    per_epoch = -(-trained // (train.batch_size * train.accumulate))
    steps = min(train.steps or train.epochs * per_epoch, train.epochs * per_epoch)
    validations = max(1, steps // min(train.validate_every or per_epoch, steps))
    return both * steps / per_epoch * trained + forward * (validations * validated + tested)


def pretrained_flop(arguments: Mapping[str, Any]) -> float:
    """Those of the training and of the pretraining before it, whose steps cost about the same for each signal."""
    epoch = {**arguments, "settings": {**arguments["settings"], "train.epochs": 1, "train.validate_every": None}}
    train = settings_of(arguments, "cpu").train
    trained, _, _ = SPLITS[arguments["source"]]
    assert train.pretrain_steps is not None
    return train_flop(arguments) + train_flop(epoch) * train.pretrain_steps * train.pretrain_batch_size / trained


def pretrain_flop(arguments: Mapping[str, Any]) -> float:
    """Operations of a training of a U-Net; its few validations are left out."""
    settings = settings_of(arguments, "cpu")
    small = replace(settings.data, limit=100)
    data = load(arguments["source"], small)
    return settings.autoencoder.steps * settings.autoencoder.batch_size * _signal_flop(settings.autoencoder, data)


def _signal_flop(settings: AutoencoderSettings, data: SignalData) -> float:
    loss = loss_name(settings, data)
    shape = {"n": data.positions, "channels": data.channels, "vocabulary": data.vocabulary}
    module = AutoencoderTask(build_autoencoder(settings, **shape, loss=loss), loss, settings)
    visible = visible_count(data.positions, data.kind, settings.visible_fraction)
    rows = np.zeros(2, dtype=np.int64)  # batch norm wants two
    draw = make_draw(data.train, np.random.default_rng(0), rows=rows, visible=visible, scored=settings.scored)
    return counted(lambda values: module.mean_loss(replace(draw, values=values)), draw.values)[1] / 2


def operations(function: str, arguments: Mapping[str, Any]) -> float:
    """Floating-point operations of a job."""
    if function == "train":
        return train_flop(arguments)
    if function == "pretrain":
        return pretrain_flop(arguments)
    if function == "pretrained":
        return pretrained_flop(arguments)
    if function == "many":
        visible = round(0.75 * LANDMARKS**0.5)
        channels, signals = arguments["channels"], arguments["signals"]
        step = autoencoder.flops(visible, 64, 128, 64, 1, channels)
        reconstructed = 3 * signals / 128 * autoencoder.flops(visible, LANDMARKS, 128, 64, 1, channels) / 3
        return 3_000 * step + reconstructed + 2 * signals * arguments["positions"] * LANDMARKS * channels
    if function == "perceiver_step":
        return (arguments["rounds"] + 2) * sum(step_flop(arguments).values())
    if function == "autoencoder_speed":
        step = autoencoder.flops(16, 256, arguments["batch"], 64, 2, 3)
        draws = autoencoder.flops(24, 1024, arguments["draws"], 64, 2, 3) / 3
        return 2 * arguments["repeats"] * (step + draws)  # in either precision
    steps = 800 * autoencoder.flops(17, 64, 64, 64, 2, 1)  # learn_agreement: what the defaults do at 500 positions
    draws = autoencoder.flops(17, 500, 24 * 500, 64, 2, 1) / 3
    return len(arguments["seeds"]) * (steps + draws)
