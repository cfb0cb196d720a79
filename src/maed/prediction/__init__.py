"""Answers for new signals from the folder of a trained model: labels, numbers, values that are missing or to come."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from maed.engine.device import device
from maed.errors import MaedError
from maed.files import read_json
from maed.models import ClassifierConfig, TargetModel, load_classifier
from maed.prediction.inputs import Batch, open_input
from maed.prediction.outputs import Columns, check_out, writing
from maed.registry import TASKS
from maed.run_folder import CONFIG, RunFolder, StageFolder
from maed.settings import DataSettings, TrainerSettings

__all__ = ["Score", "label_input", "open_classifier", "predict"]

_EXPECTED = "a folder models/[TASK-][LABELS-][pretrained-]ENCODING-SEED that `maed train`, `compare` or `run` wrote"


@dataclass
class Score:
    """Number of labeled signals, and of those labeled as in the input.

    Args:
        signals: Number of all signals.
        known: Number of signals whose label in the input is a class of the classifier.
        right: Number of those that the classifier labels alike.
    """

    signals: int = 0
    known: int = 0
    right: int = 0


def predict(
    classifier: TargetModel, values: np.ndarray, mask: np.ndarray | None = None, *, batch_size: int = 64
) -> Iterator[Tensor]:
    """Predict signals in batches: class probabilities, or the outputs of another task.

    Args:
        classifier: A classifier on any device, from `maed.models.load_classifier`.
        values: `(n, N, C)` numbers or `(n, N)` token ids as their source stores them: normalization and permutation
            are the classifier's.
        mask: `(n, N)` bool, True where a position is real, in the order of `values`; None if all are.
        batch_size: Signals at a time.

    Yields:
        `(B, outputs)` float32 on the CPU; the columns are `classifier.config.classes`: probabilities of classes or
        labels, or targets in their units. Of a model that tells something of each position, `(B, N, outputs)`,
        normalized and in the model's order (`classifier.config.restored` undoes both).

    Raises:
        MaedError: Signals of another shape than the classifier takes.
    """
    config, place = classifier.config, next(classifier.parameters()).device
    task = config.learned()
    for start in range(0, len(values), batch_size):
        rows = slice(start, start + batch_size)
        real = None
        if mask is not None:
            ordered = mask[rows] if config.permutation is None else mask[rows][:, config.permutation]
            real = torch.from_numpy(ordered).to(place)
        with torch.inference_mode():
            outputs = classifier(config.prepare(values[rows]).to(place), real)
        yield task.answers(outputs.float()).cpu()


def label_input(
    model: Path,
    name: str,
    out: Path | None = None,
    *,
    data: DataSettings | None = None,
    trainer: TrainerSettings | None = None,
    batch_size: int = 64,
    lines: bool = False,
    probabilities: bool = False,
) -> Score:
    """Label an input and write one row a signal: what `maed predict` does.

    A row is a label with its probability; of other tasks, the probability of each label, the targets in their units,
    the signal with what was missing filled in, or the moments that come after it.

    Args:
        model: The folder of a trained classifier.
        name: The input, see `maed.prediction.inputs.open_input`.
        out: a .csv, .jsonl or .parquet file; standard output, as CSV, where None. Or a .npy file, of what has a value
            for each position.
        data: `type`, `columns`, `label` and `missing` are read.
        trainer: `accelerator` and `threads` are read.
        batch_size: Signals at a time.
        lines: True if each line of a .txt file is a text.
        probabilities: True to write the probabilities of all classes.

    Raises:
        MaedError: a folder, an input or an output that cannot be used; one line that names it.
    """
    if batch_size < 1:
        raise MaedError(f"batch_size must be at least 1, got {batch_size}")
    if out is not None:
        check_out(out)
        if out.exists() and Path(name).exists() and out.samefile(name):
            raise MaedError(f"out must not be the input, got {out}")
    classifier = open_classifier(model)
    config, told = classifier.config, TASKS.get(classifier.config.task)
    if config.task == "masked":
        raise MaedError(
            f"model must be a trained Perceiver that predicts labels; {model} is a pretrained encoder, "
            f"which a training can start from (--pretrain {model})"
        )
    if probabilities and config.task != "classification":
        raise MaedError(f"probabilities must be left out: they are of classes, and {model} predicts {told.answer}")
    if out is not None and out.suffix.lower() == ".npy" and not told.per_position:
        raise MaedError(f"out must be a .csv, .jsonl or .parquet file for rows with names, got {out}")
    given = open_input(name, classifier.config, data or DataSettings(), lines=lines)
    classifier.to(device(trainer or TrainerSettings()))
    score, classes = Score(), config.classes
    shown = sys.stderr.isatty() and not (out is None and sys.stdout.isatty())  # a bar amid the rows would garble them
    with (
        Progress(console=Console(stderr=True), transient=True, disable=not shown) as bar,
        writing(out, (config.positions, config.outputs)) as write,
    ):
        task = bar.add_task("predict", total=given.size)
        for batch in given.batches(batch_size):
            (found,) = predict(classifier, batch.values, batch.mask, batch_size=batch_size)
            if config.task != "classification":
                write(_answers(config, score.signals, found.numpy(), batch))
                score.signals += len(found)
                bar.update(task, completed=score.signals)
                continue
            labels = [classes[index] for index in found.argmax(dim=1).tolist()]
            write(_columns(score.signals, labels, found.numpy(), batch, classes if probabilities else ()))
            truth = batch.truth or [None] * len(labels)
            score.signals += len(labels)
            score.known += sum(name is not None for name in truth)
            score.right += sum(label == name for label, name in zip(labels, truth, strict=True))
            bar.update(task, completed=score.signals)
    return score


def open_classifier(folder: Path) -> TargetModel:
    """The trained classifier of a folder.

    Raises:
        MaedError: No such folder, or one that holds something else.
    """
    if not folder.is_dir():
        raise MaedError(f"model must be {_EXPECTED}; {str(folder)!r} is no folder")
    path = folder / CONFIG
    config = read_json(path) if path.is_file() else None
    if not isinstance(config, dict) or config.get("architecture") != "perceiver":
        inside = list(RunFolder(folder).models()) or [
            StageFolder(below.parent) for below in sorted(folder.glob(f"*/{CONFIG}"))
        ]
        models = [str(found.path) for found in inside if found.metrics.is_file()]
        raise MaedError(f"model must be {', '.join(models[:5]) or _EXPECTED}; {folder} holds no trained Perceiver")
    classifier = load_classifier(folder)
    if not _is_sound(classifier.config):
        raise MaedError(f"{path}: not the config.json of a Perceiver of maed (its parts do not fit together)")
    return classifier


def _is_sound(config: ClassifierConfig) -> bool:
    """True if what the weights do not depend on fits the rest of the config, which somebody may have written."""
    order, sizes = config.permutation, (config.positions, config.channels)
    images = config.content == "images"
    contents = {"tokens": (None, "tokens", "text"), "real": (None, "numbers", "images")}
    return (
        config.content in contents.get(config.kind, ())
        and all(_is_text(name) for name in (*config.classes, *config.columns))
        and (order is None or np.array_equal(np.sort(order), np.arange(config.positions)))
        and all((part is None) == (config.kind == "tokens") for part in (config.mean, config.scale))
        and all(part is None or part.shape in ((1, sizes[1]), sizes) for part in (config.mean, config.scale))
        and (not images or (len(config.sides) == 2 and int(np.prod(config.sides)) == config.positions))
    )


def _is_text(name: object) -> bool:
    """True if this is text that can be written: JSON may hold halves of characters."""
    try:
        return isinstance(name, str) and name.encode() is not None
    except UnicodeEncodeError:
        return False


def _columns(start: int, labels: list[str], found: np.ndarray, batch: Batch, classes: tuple[str, ...]) -> Columns:
    """Rows of the output; `classes` are those whose probabilities are wanted each."""
    columns: Columns = {"index": range(start, start + len(labels)), "label": labels, "probability": found.max(axis=1)}
    if batch.files is not None:
        columns["file"] = batch.files
    return columns | {f"probability_{name}": found[:, index] for index, name in enumerate(classes)}


def _answers(config: ClassifierConfig, start: int, found: np.ndarray, batch: Batch) -> Columns:
    """Rows of the output of a task other than classification: a column for each output, or for each position."""
    columns: Columns = {"index": range(start + batch.first, start + batch.first + len(found))}
    if batch.files is not None:
        columns["file"] = batch.files
    if found.ndim == 2:
        named = "probability_" if config.task == "multilabel" else ""
        return columns | {f"{named}{name}": found[:, index] for index, name in enumerate(config.classes)}
    values = config.restored(found)  # (B, N, c)
    if config.task == "imputation" and batch.mask is not None:
        values = np.where(batch.mask[:, :, None], batch.values, values)
    elif config.task == "imputation":
        values = batch.values.astype(np.float32)
    names = (
        config.columns
        if len(config.columns) == config.positions
        else [f"position_{i}" for i in range(config.positions)]
    )
    for position, name in enumerate(names):
        for channel in range(values.shape[2]):
            behind = f"_{channel}" if values.shape[2] > 1 else ""
            columns[f"{name}{behind}"] = values[:, position, channel]
    return columns
