"""Every path of a run folder, and who may write where: the only module that knows the names of a run's files."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maed.errors import MaedError
from maed.files import CONFIG as CONFIG
from maed.files import read_json, write_json
from maed.records import Choice, MadeWith, Work
from maed.registry import TASKS

AUTOENCODER, SIMILARITY, EMBEDDING = "autoencoder", "similarity", "embedding"
BASELINES, MODELS, TUNING, PRETRAINING, AUTO = "baselines", "models", "tune", "pretrain", "auto"
_PRETRAINED = "pretrained"
_OLD_BASELINE, _OLD_MODELS = "baseline", "perceiver"
"""Folders of runs before version 0.2, which are still read."""

STAGE = re.compile(
    rf"{AUTOENCODER}|((?P<baseline>{_OLD_BASELINE}|{BASELINES}/[^/]+)/)?(?P<stage>{SIMILARITY}|{EMBEDDING})"
    rf"|({_OLD_MODELS}|{MODELS})/((?P<tuning>{TUNING}/)|(?P<pretraining>{PRETRAINING}/))?"
    rf"((?P<task>{'|'.join(map(re.escape, TASKS.built_in))})-)?((?P<labels>[0-9]+)-)?(?P<pretrained>{_PRETRAINED}-)?"
    r"(?P<encoding>[^/]+?)-(?P<number>[0-9][0-9.e-]*)"
)
"""The path of a stage's folder, or of a trained model's, below that of its run."""

_FOLDERS = (
    AUTOENCODER,
    SIMILARITY,
    EMBEDDING,
    f"{_OLD_BASELINE}/*",
    f"{BASELINES}/*/*",
    f"{_OLD_MODELS}/*",
    f"{MODELS}/*",
)

MODEL, METRICS, EXAMPLES = "model.safetensors", "metrics.json", "examples.safetensors"
CARD, FIGURE, GEOMETRY = "README.md", "figure.png", "geometry.json"
PARTIAL = ("partial.json", "partial-0.safetensors", "partial-1.safetensors")
"""Files that an interrupted stream of draws leaves."""

LAST, BEST, LOGS = "last.ckpt", "best.ckpt", "logs"


@dataclass(frozen=True)
class StageFolder:
    """The folder of one stage, or of one trained model, and the files in it."""

    path: Path

    @property
    def config(self) -> Path:
        """`config.json`: what it was made with."""
        return self.path / CONFIG

    @property
    def model(self) -> Path:
        """`model.safetensors`; written last, so that it marks the stage as finished."""
        return self.path / MODEL

    @property
    def metrics(self) -> Path:
        """`metrics.json` of a training."""
        return self.path / METRICS

    @property
    def examples(self) -> Path:
        """`examples.safetensors`: signals masked and reconstructed."""
        return self.path / EXAMPLES

    @property
    def log(self) -> Path:
        """`logs/metrics.csv` of a training."""
        return self.path / LOGS / "metrics.csv"

    @property
    def progress(self) -> Path:
        """`progress.json`: how far it is while it works, for who watches."""
        return self.path / "progress.json"

    @property
    def partial(self) -> Path:
        """`partial.json`: how far a similarity is that is being streamed."""
        return self.path / PARTIAL[0]

    @property
    def figure(self) -> Path:
        """`figure.png` beside an embedding's card."""
        return self.path / FIGURE

    @property
    def is_finished(self) -> bool:
        """True if what it was to make is there."""
        return self.model.is_file()

    @property
    def made_with(self) -> MadeWith:
        """The settings it was made with, from its config.json; empty without one."""
        return MadeWith.of((read_json(self.config).get("made_with") or {}) if self.config.is_file() else {})

    @property
    def work(self) -> Work:
        """The facts it recorded in config.json and metrics.json; empty without either."""
        files = [path for path in (self.config, self.metrics) if path.is_file()]
        return Work.of({key: value for path in files for key, value in read_json(path).items()})


@dataclass
class RunFolder:
    """A folder that a run writes, and where its earlier stages lie.

    Args:
        path: Folder that this run writes to.
        upstream: Folder of earlier stages; None for `path`.
        overwrite: Replace stages that were made with other settings instead of refusing.
    """

    path: Path
    upstream: Path | None = None
    overwrite: bool = False

    @property
    def earlier(self) -> RunFolder:
        """The folder that earlier stages are read from."""
        return self if self.upstream in (None, self.path) else RunFolder(self.upstream or self.path)

    # Stages.

    @property
    def autoencoder(self) -> StageFolder:
        """`autoencoder/`."""
        return StageFolder(self.path / AUTOENCODER)

    def similarity(self, method: str = "maed") -> StageFolder:
        """`similarity/`, or `baselines/NAME/similarity/`."""
        return StageFolder(self._of(method) / SIMILARITY)

    def embedding(self, method: str = "maed") -> StageFolder:
        """`embedding/`, or `baselines/NAME/embedding/`."""
        return StageFolder(self._of(method) / EMBEDDING)

    def baselines(self) -> list[str]:
        """Names of the baselines that are there."""
        old = StageFolder(self.path / _OLD_BASELINE / SIMILARITY)
        found = [str(old.made_with.baseline)] if old.made_with.baseline else []
        return found + sorted(folder.name for folder in (self.path / BASELINES).glob("*") if folder.is_dir())

    def model(self, encoding: str, seed: int, **learned: Any) -> StageFolder:
        """`models/[TASK-][LABELS-][pretrained-]ENCODING-SEED/`, without prefixes for classification with all labels.

        Args:
            encoding: Encoding of the positions.
            seed: Seed of the training.
            learned: `task`, `labels` and `pretrained`, unless they are the defaults.

        Returns:
            The folder, which need not exist.
        """
        return StageFolder(self.path / MODELS / f"{_learned(**learned)}{encoding}-{seed}")

    def tuning(self, encoding: str, learning_rate: float, **learned: Any) -> StageFolder:
        """`models/tune/[TASK-][LABELS-][pretrained-]ENCODING-RATE/`: a trial of a learning rate."""
        return StageFolder(self.path / MODELS / TUNING / f"{_learned(**learned)}{encoding}-{learning_rate}")

    def pretraining(self, encoding: str, seed: int) -> StageFolder:
        """`models/pretrain/ENCODING-SEED/`: an encoder, which all trainings of that encoding and seed share."""
        return StageFolder(self.path / MODELS / PRETRAINING / f"{encoding}-{seed}")

    def models(self) -> Iterator[StageFolder]:
        """Trained models, sorted by name."""
        for below in (_OLD_MODELS, MODELS):
            yield from map(StageFolder, sorted(path.parent for path in self.path.glob(f"{below}/*/{CONFIG}")))

    @property
    def is_run(self) -> bool:
        """True if it holds results or a stage of a run. Nothing is read."""
        marks = (CONFIG, METRICS, MODEL, EXAMPLES, LOGS)
        found = (stage for pattern in _FOLDERS for stage in self.path.glob(pattern))
        stages = (stage for stage in found if STAGE.fullmatch(stage.relative_to(self.path).as_posix()))
        return self.results.is_file() or any((stage / mark).exists() for stage in stages for mark in marks)

    @property
    def chosen(self) -> str | None:
        """The method that the run leads with, as `auto.json` says; None without one."""
        return Choice.read(self.auto).chosen if self.auto.is_file() else None

    def _of(self, method: str) -> Path:
        """The folder for the stages of `maed`, of a baseline, or of the chosen method (`auto`)."""
        if method == AUTO:
            method = self.chosen or "maed"
        if method == "maed":
            return self.path
        old = self.path / _OLD_BASELINE
        if method in (StageFolder(old / stage).made_with.baseline for stage in (SIMILARITY, EMBEDDING)):
            return old
        return self.path / BASELINES / method

    # Files of the whole run.

    @property
    def results(self) -> Path:
        """`results.json`."""
        return self.path / "results.json"

    @property
    def auto(self) -> Path:
        """`auto.json`: the candidates, and which of them was chosen."""
        return self.path / "auto.json"

    @property
    def report(self) -> Path:
        """`report.html`."""
        return self.path / "report.html"

    @property
    def figures(self) -> Path:
        """`figures/`."""
        return self.path / "figures"

    @property
    def views(self) -> Path:
        """`explorer/views.safetensors`: reductions that only the page shows."""
        return self.path / "explorer" / "views.safetensors"

    def claim(self, stage: StageFolder, made_with: dict[str, Any], facts: dict[str, Any] | None = None) -> bool:
        """Take a folder for a stage made with these settings, by its config.json; True where it is already finished.

        Args:
            stage: The folder.
            made_with: Settings, by their groups.
            facts: Other facts for config.json.

        Raises:
            MaedError: The folder holds the stage made with other settings, and `overwrite` is off.
        """
        there, here = stage.made_with, MadeWith.of(made_with)
        if there == here:
            return stage.is_finished
        if stage.path.is_dir() and any(stage.path.iterdir()):
            if not self.overwrite:
                if not stage.config.is_file():
                    raise MaedError(
                        f"{stage.path}: lacks its {CONFIG}; copy it again, or delete {stage.path} and run again"
                    )
                difference = there.difference(here)
                raise MaedError(
                    f"out: {stage.path} belongs to another run ({difference}); choose another --out, or --overwrite"
                )
            shutil.rmtree(stage.path)
        write_json(stage.config, {"schema": 1, **(facts or {}), "made_with": made_with}, sealed=True)
        return False


def _learned(*, task: str = "classification", labels: int | None = None, pretrained: bool = False) -> str:
    """Beginning of the name of a model's folder."""
    counted = "" if labels is None else f"{labels}-"
    return ("" if task == "classification" else f"{task}-") + counted + (f"{_PRETRAINED}-" if pretrained else "")
