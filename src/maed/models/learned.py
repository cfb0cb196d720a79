"""The task of a model, and the training signals whose labels it is given; it sees no other labels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from maed.data.signals import SignalData
from maed.data.splits import nested_order
from maed.errors import MaedError
from maed.registry import TASKS
from maed.settings import TrainSettings

_STREAM = 31  # of random numbers, beside those of weights and order
_HELD_OUT = 5  # of so many labels, a trial of a learning rate is judged by one


def chosen_task(task: str | None, data: SignalData) -> str | None:
    """The task that was asked for, otherwise what the labels are; None of data without labels.

    Raises:
        MaedError: Labels that may be of several tasks.
    """
    if task is not None or data.labeled:
        return task or "classification"
    numbers = data.train.numbers
    if numbers is None:
        return None
    if numbers.shape[1] > 1 and np.isin(numbers, (0, 1)).all():
        return "multilabel"
    names = ", ".join(data.label_names[:3])
    raise MaedError(
        f"task must be regression for the labels of {data.source} ({names}), which are numbers and not classes"
    )


def check_training(data: SignalData, task: str, labels: int | None, train: TrainSettings) -> int | None:
    """Refuse a training that these data cannot have; returns how many labels it is given, None for all.

    Raises:
        MaedError: One line that names what would do.
    """
    kind = TASKS.get(task, "task")
    kind.check(data, train)
    if labels is not None and not kind.needs:
        raise MaedError(
            f"labels must be left out with --task {task}, which needs none, got {labels}; data.limit reduces "
            "the signals"
        )
    labels = _counted(data, labels, len(data.classes) if kind.needs == "classes" else 0)
    if labels is not None and train.patience is not None:
        raise MaedError(
            f"train.patience must be null with {labels} labels, or it would use more labels than these; got "
            f"{train.patience}"
        )
    return labels


def _counted(data: SignalData, labels: int | None, classes: int) -> int | None:
    """Number of labels that a training is given, or None for all of them.

    Raises:
        MaedError: More than there are, or fewer than classes.
    """
    there = len(data.train)
    if labels is None or labels == there:
        return None
    if labels > there:
        raise MaedError(
            f"labels must be at most {there:,}, the training signals of {data.source}, or all; got {labels:,}"
        )
    least = max(2, classes)
    if labels < least:
        of = f"the {classes} classes of {data.source} need one each" if classes else "that is too few"
        raise MaedError(f"labels must be at least {least}, got {labels}: {of}")
    return labels


def known_labels(
    data: SignalData, labels: int | None, seed: int, *, tuning: bool = False, stratified: bool = True
) -> SignalData:
    """The data as a training with so many labels has them.

    The subsets of one seed are nested, and the same for every encoding: a comparison of encodings is paired, and its
    interval contains the choice of the labels. Classes keep their shares; where there are none, it is a plain draw.
    The test split is the same for all.

    A trial of a learning rate is judged by labels that it has: a fifth of them is held out, and is shown as the test
    too. Nothing else is chosen by labels beyond those (see `maed.models.training`).

    Args:
        data: Data with all their labels.
        labels: Number of labels; None for all.
        seed: Seed of the training.
        tuning: True for a trial of a learning rate.
        stratified: True if classes keep their shares.

    Raises:
        MaedError: Too few to hold any out.
    """
    if labels is None:
        return replace(data, test=data.validation) if tuning else data
    classes = data.train.labels if data.classes and stratified else None
    order = nested_order(classes, len(data.train), np.random.default_rng([_STREAM, seed, _STREAM]))[:labels]
    if not tuning:
        return replace(data, train=data.train.rows(np.sort(order)))
    kept = labels - max(2, labels // _HELD_OUT)
    if kept < (len(data.classes) if stratified else 2):
        raise MaedError(
            f"train.tune must be null with {labels} labels, which are too few to hold some out; or raise labels"
        )
    held_out = data.train.rows(np.sort(order[kept:]))
    return replace(data, train=data.train.rows(np.sort(order[:kept])), validation=held_out, test=held_out)
