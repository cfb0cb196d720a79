"""Beginning with a pretrained encoder: the folder that holds it, whether it fits a training, and taking it over."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maed.data.signals import SignalData
from maed.errors import MaedError
from maed.files import read_json
from maed.models.classifiers import load_classifier
from maed.models.config import ClassifierConfig
from maed.models.target import TargetModel
from maed.records import Work, first_difference
from maed.registry import TASKS
from maed.run_folder import CONFIG, METRICS, RunFolder
from maed.settings import TrainSettings
from maed.tensors import digest_of

PRETRAINING = "masked"
"""The task that an encoder is pretrained by."""


@dataclass(frozen=True)
class Start:
    """A pretrained encoder that a training begins with.

    Args:
        folder: `TargetModel.save_pretrained` has written it, or will have before the training begins.
        fingerprint: of the pretraining that makes it; None of one that was made elsewhere, and is there.
    """

    folder: Path
    fingerprint: str | None = None

    def identity(self, config: ClassifierConfig, table: Tensor) -> str:
        """What tells a training that begins with it from others.

        Raises:
            MaedError: one that was made elsewhere does not fit.
        """
        if self.fingerprint is not None:
            return self.fingerprint
        check_fits(self.folder, config)
        found = load_classifier(self.folder)
        if not config.trains_table and not torch.equal(found.position_table, table):
            raise MaedError(
                f"pretrain: {self.folder} was pretrained with other vectors of {config.encoding}, and those are frozen"
            )
        return digest_of(found.encoder_state())

    def take_over(self, classifier: TargetModel) -> None:
        """Give a classifier the encoder, its table included; its head stays as it is."""
        found = load_classifier(self.folder).encoder_state()
        classifier.load_state_dict({**classifier.state_dict(), **found})

    def record(self) -> dict[str, Any]:
        """What metrics.json of the training says of it."""
        path = self.folder / METRICS
        work = Work.of(read_json(path)) if path.is_file() else Work()  # one from elsewhere may come without
        steps = work.history[-1]["step"] if work.history else None
        return {"steps": steps, "seconds": work.seconds, "history": work.history}


def encoder_folder(asked: Path, encoding: str, seed: int) -> Path:
    """The folder of a pretrained encoder that was made elsewhere.

    Args:
        asked: that folder, or that of the run that has made it.
        encoding, seed: of the training that begins with it.

    Raises:
        MaedError: neither.
    """
    inside = RunFolder(asked).pretraining(encoding, seed).path
    for folder in (asked, inside):
        if (folder / CONFIG).is_file():
            return folder
    raise MaedError(f"pretrain: {asked} holds no encoder of {encoding} and seed {seed}: {inside} is missing")


def check_pretraining(data: SignalData, config: ClassifierConfig, train: TrainSettings) -> None:
    """Refuse a training that cannot begin with a pretrained encoder.

    Args:
        data: that it is pretrained on.
        config: of the model that is trained then.
        train: settings of the training.

    Raises:
        MaedError: signals of which nothing can be hidden, or a model that reads other channels than its encoder.
    """
    TASKS.get(PRETRAINING).check(data, train)
    if config.inputs != config.channels:
        raise MaedError(
            f"pretrain: --task {config.task} reads {config.inputs} channels of {config.channels}, and a pretrained "
            "encoder all; it must be none"
        )


def check_fits(asked: Path, config: ClassifierConfig) -> None:
    """Refuse pretrained encoders of other signals, another encoding or another Perceiver.

    Args:
        asked: a folder of `TargetModel.save_pretrained`, or that of a run that has pretrained.
        config: of the model that is to begin with it.

    Raises:
        MaedError: there is none, or the first thing that differs, as it is there and here.
    """
    of_run = RunFolder(asked).pretraining(config.encoding, 0).path.parent
    found = [folder for folder in (asked, *sorted(of_run.glob(f"{config.encoding}-*"))) if (folder / CONFIG).is_file()]
    if not found:
        raise MaedError(
            f"pretrain: {asked} holds no pretrained encoder of {config.encoding}; it must be {PRETRAINING}, none, or "
            "the folder of one or of a run that has pretrained"
        )
    for folder in found:
        there = ClassifierConfig.load(folder / CONFIG)
        if there.task != PRETRAINING:
            raise MaedError(f"pretrain: {folder} holds a Perceiver of {there.task}; it must be a pretrained encoder")
        if difference := first_difference(_facts(there), _facts(config)):
            raise MaedError(f"pretrain: {folder} does not fit: {difference}")


def _facts(config: ClassifierConfig) -> dict[str, Any]:
    """What an encoder and a training that begins with it have in common."""
    perceiver = asdict(config.perceiver)
    del perceiver["learned_from"], perceiver["dropout"]  # neither is a shape
    order = (
        "as stored"
        if config.permutation is None
        else f"permuted ({sha256(config.permutation.tobytes()).hexdigest()[:8]})"
    )
    names = ("kind", "encoding", "positions", "vocabulary", "channels", "dim")
    return {**{name: getattr(config, name) for name in names}, "order": order, "perceiver": perceiver}
