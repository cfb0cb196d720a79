"""Starting from a pretrained encoder: finding its folder, checking that it fits a training, and loading it."""

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
"""The task that encoders are pretrained with."""


@dataclass(frozen=True)
class Start:
    """A pretrained encoder that a training starts from.

    Args:
        folder: Written by `TargetModel.save_pretrained`, at the latest when the training begins.
        fingerprint: Fingerprint of the pretraining that makes it; None for an encoder that was pretrained elsewhere.
    """

    folder: Path
    fingerprint: str | None = None

    def identity(self, config: ClassifierConfig, table: Tensor) -> str:
        """Compute the part of a training's fingerprint that stands for the encoder.

        Args:
            config: Configuration of the model to train.
            table: Position vectors of the model.

        Returns:
            The fingerprint of the pretraining, or a digest of the weights of an encoder from elsewhere.

        Raises:
            MaedError: The encoder from elsewhere does not fit.
        """
        if self.fingerprint is not None:
            return self.fingerprint
        check_fits(self.folder, config)
        found = load_classifier(self.folder)
        if not config.trains_table and not torch.equal(found.position_table, table):
            raise MaedError(
                f"pretrain: the frozen vectors of {config.encoding} must be those of {self.folder}; these are others"
            )
        return digest_of(found.encoder_state())

    def take_over(self, classifier: TargetModel) -> None:
        """Load the encoder into a classifier, its position table included; the head stays as it is."""
        found = load_classifier(self.folder).encoder_state()
        classifier.load_state_dict({**classifier.state_dict(), **found})

    def record(self) -> dict[str, Any]:
        """Entry in metrics.json of the training: steps, seconds and history of the pretraining."""
        path = self.folder / METRICS
        work = Work.of(read_json(path)) if path.is_file() else Work()  # one from elsewhere may come without
        steps = work.history[-1]["step"] if work.history else None
        return {"steps": steps, "seconds": work.seconds, "history": work.history}


def encoder_folder(asked: Path, encoding: str, seed: int) -> Path:
    """Find the folder of an encoder that was pretrained elsewhere.

    Args:
        asked: The folder of the encoder, or of the run that pretrained it.
        encoding: Encoding of the training that starts from it.
        seed: Seed of the same training.

    Returns:
        The folder with the encoder's config.json.

    Raises:
        MaedError: `asked` is neither.
    """
    inside = RunFolder(asked).pretraining(encoding, seed).path
    for folder in (asked, inside):
        if (folder / CONFIG).is_file():
            return folder
    raise MaedError(f"pretrain: {asked} holds no encoder of {encoding} and seed {seed}; {inside} is missing")


def check_pretraining(data: SignalData, config: ClassifierConfig, train: TrainSettings) -> None:
    """Refuse a training that cannot start from a pretrained encoder.

    Args:
        data: Signals to pretrain on.
        config: Configuration of the model that is trained afterwards.
        train: Settings of the training.

    Raises:
        MaedError: No signal has two real positions, or the model reads other channels than a pretrained encoder.
    """
    TASKS.get(PRETRAINING).check(data, train)
    if config.inputs != config.channels:
        raise MaedError(
            f"pretrain must be none with --task {config.task}, which reads {config.inputs} of {config.channels} "
            "channels; a pretrained encoder reads all"
        )


def check_fits(asked: Path, config: ClassifierConfig) -> None:
    """Refuse pretrained encoders of other signals, another encoding or another Perceiver.

    Args:
        asked: A folder of `TargetModel.save_pretrained`, or that of a run that has pretrained.
        config: Configuration of the model that is to start from it.

    Raises:
        MaedError: There is none, or it differs; the message names the first difference.
    """
    of_run = RunFolder(asked).pretraining(config.encoding, 0).path.parent
    found = [folder for folder in (asked, *sorted(of_run.glob(f"{config.encoding}-*"))) if (folder / CONFIG).is_file()]
    if not found:
        raise MaedError(
            f"pretrain must be none, {PRETRAINING}, or the folder of a pretrained encoder or of a run that has "
            f"pretrained; {asked} holds no pretrained encoder of {config.encoding}"
        )
    for folder in found:
        there = ClassifierConfig.load(folder / CONFIG)
        if there.task != PRETRAINING:
            raise MaedError(f"pretrain must be a pretrained encoder; {folder} holds a Perceiver of {there.task}")
        if difference := first_difference(_facts(there), _facts(config)):
            raise MaedError(f"pretrain: {folder} does not fit; {difference}")


def _facts(config: ClassifierConfig) -> dict[str, Any]:
    """Facts that an encoder and a training that starts from it must have in common."""
    perceiver = asdict(config.perceiver)
    del perceiver["learned_from"], perceiver["dropout"]  # neither is a shape
    order = (
        "as stored"
        if config.permutation is None
        else f"permuted ({sha256(config.permutation.tobytes()).hexdigest()[:8]})"
    )
    names = ("kind", "encoding", "positions", "vocabulary", "channels", "dim")
    return {**{name: getattr(config, name) for name in names}, "order": order, "perceiver": perceiver}
