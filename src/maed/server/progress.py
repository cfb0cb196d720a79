"""Progress of a run, from the `progress.json` of its stages; no process is contacted and nothing is written."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from maed.records import Progress
from maed.report.tables import duration
from maed.run_folder import AUTOENCODER, EMBEDDING, SIMILARITY, STAGE, StageFolder


@dataclass(frozen=True)
class Part:
    """A stage, or a training of a Perceiver.

    Args:
        name: Path of the stage below the folder of the run.
        finished: True if the result of the stage is there.
        written: Time at which one of its files was last written, in seconds since 1970.
        far: Progress in words; empty for a finished stage.
        seconds: Time that a finished stage took.
    """

    name: str
    finished: bool
    written: float
    far: Progress = field(default_factory=Progress)
    seconds: float | None = None

    @property
    def tunes(self) -> bool:
        """True if it only tells a learning rate's worth."""
        return self._of("tuning") is not None

    @property
    def pretrains(self) -> bool:
        """True if it pretrains an encoder that other trainings start from."""
        return self._of("pretraining") is not None

    @property
    def task(self) -> str:
        """The task of a model."""
        return self._of("task") or ("masked" if self.pretrains else "classification")

    @property
    def is_model(self) -> bool:
        """True if it is the training of a model, and not a stage."""
        return self._of("encoding") is not None

    @property
    def is_main(self) -> bool:
        """True if it is a stage of `maed` itself."""
        return not self.is_model and self._of("baseline") is None

    @property
    def title(self) -> str:
        """The title of the stage."""
        if self.is_model:
            task, labels = self._of("task"), self._of("labels")
            what = [f"Perceiver {self._of('encoding')}", task or "", "" if labels is None else f"{labels} labels"]
            what += ["pretraining"] if self.pretrains else ["pretrained"] if self._of("pretrained") else []
            return ", ".join([*filter(None, what), f"{'learning rate' if self.tunes else 'seed'} {self._of('number')}"])
        if self.is_main:
            return self.name.capitalize()
        _, _, baseline = str(self._of("baseline")).partition("/")
        return f"{f'Baseline {baseline}'.rstrip()}, {self._of('stage')}"

    @property
    def place(self) -> int:
        """The rank of the stage among others; models come last."""
        if self.is_model:
            return 9
        return (AUTOENCODER, SIMILARITY, EMBEDDING).index(self._of("stage") or self.name) + (0 if self.is_main else 3)

    def _of(self, group: str) -> str | None:
        found = STAGE.fullmatch(self.name)
        return found and found[group]

    @property
    def progress(self) -> str:
        """Step of steps, as words to append."""
        if self.far.step is None:
            return ""
        of = "" if self.far.steps is None else f" of {self.far.steps:,}"
        return f", {'draw' if self.name == SIMILARITY else 'step'} {self.far.step:,}{of}"

    @property
    def remaining(self) -> str:
        """The time that is left, in words; empty if it is not known."""
        left = self.far.left
        if left is None:
            return ""
        if left < 90:
            return f"about {max(1, round(left / 10)) * 10} s left"
        return f"about {duration(60 * round(left / 60)).removesuffix(' 00 s')} left"


def read_parts(folder: Path, files: Mapping[str, os.stat_result]) -> list[Part]:
    """The parts of a run, in the order in which they were first, or were begun.

    Args:
        folder: Folder of the run.
        files: Files by their paths below it.

    Raises:
        MaedError: a progress.json or a config.json cannot be read.
    """
    written: dict[str, float] = {}
    for path, found in files.items():
        if below := re.match(f"({STAGE.pattern})/", path):
            written[below[1]] = max(found.st_mtime, written.get(below[1], 0.0))
    parts = []
    for name, last in written.items():
        stage, part = StageFolder(folder / name), Part(name, False, last)
        if stage.is_finished and (stage.metrics.is_file() or not part.is_model):
            seconds = stage.work.seconds
            took = float(seconds) if isinstance(seconds, float | int) else None
            parts.append(replace(part, finished=True, seconds=took))
        else:
            parts.append(replace(part, far=Progress.read(stage.progress)))
    parts.sort(key=lambda part: (part.place, part.written))
    # a learning rate with which the loss was not finite: unfinished, and others were tried after it
    ended = max((part.written for part in parts if part.finished), default=0.0)
    return [part for part in parts if part.finished or not part.tunes or part.written >= ended]


def whole(value: Any) -> int | None:
    """A whole number from a file; None of anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
