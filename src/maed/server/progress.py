"""How far a run is, read from what its stages write while they work: no process is asked, and nothing is written."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maed.files import read_json
from maed.records import Results
from maed.report.tables import duration
from maed.run_folder import AUTOENCODER, EMBEDDING, SIMILARITY, STAGE, StageFolder

_POINTS = 600
"""Most points of a curve."""

_LOG = 32 * 2**20
"""Most bytes of a log that are read, of its end."""

Point = dict[str, float | int]


@dataclass(frozen=True)
class Part:
    """A stage, or a training of a Perceiver.

    Args:
        name: its folder below that of the run.
        finished: whether what it was to make is there.
        written: when a file of it was last written, seconds since 1970.
        step: steps done, of optimisation or batches of draws; None where that is not known.
        steps: steps in all, as far as known. A training may end sooner.
        left: seconds until then, at the pace so far.
        seconds: what a finished one took.
    """

    name: str
    finished: bool
    written: float
    step: int | None = None
    steps: int | None = None
    left: float | None = None
    seconds: float | None = None

    @property
    def tunes(self) -> bool:
        """Whether it only tells a learning rate's worth."""
        return self._of("tuning") is not None

    @property
    def is_model(self) -> bool:
        """Whether it is the training of a model, and not a stage."""
        return self._of("encoding") is not None

    @property
    def is_main(self) -> bool:
        """Whether it is a stage of `maed` itself."""
        return not self.is_model and self._of("baseline") is None

    @property
    def title(self) -> str:
        """What it is called."""
        if self.is_model:
            return f"Perceiver {self._of('encoding')}, {'learning rate' if self.tunes else 'seed'} {self._of('number')}"
        if self.is_main:
            return self.name.capitalize()
        _, _, baseline = str(self._of("baseline")).partition("/")
        return f"{f'Baseline {baseline}'.rstrip()}, {self._of('stage')}"

    @property
    def place(self) -> int:
        """Where it stands among the stages, models last."""
        if self.is_model:
            return 9
        return (AUTOENCODER, SIMILARITY, EMBEDDING).index(self._of("stage") or self.name) + (0 if self.is_main else 3)

    def _of(self, group: str) -> str | None:
        found = STAGE.fullmatch(self.name)
        return found and found[group]

    @property
    def progress(self) -> str:
        """Step of steps, as words to append."""
        if self.step is None:
            return ""
        of = "" if self.steps is None else f" of {self.steps:,}"
        return f", {'batch' if self.name == SIMILARITY else 'step'} {self.step:,}{of}"

    @property
    def remaining(self) -> str:
        """The time that is left, in words; empty where it is not known."""
        if self.left is None:
            return ""
        if self.left < 90:
            return f"about {max(1, round(self.left / 10)) * 10} s left"
        return f"about {duration(60 * round(self.left / 60)).removesuffix(' 00 s')} left"


def read_parts(folder: Path, files: Mapping[str, os.stat_result], results: Results) -> list[Part]:
    """The parts of a run, in the order in which they were first, or were begun.

    Args:
        folder: of the run.
        files: by their paths below it.
        results: its results.json, which has the settings of the whole run.
    """
    written: dict[str, float] = {}
    for path, found in files.items():
        if part := re.match(f"({STAGE.pattern})/", path):
            written[part[1]] = max(found.st_mtime, written.get(part[1], 0.0))
    parts = [_read_part(folder, Part(name, False, last), results) for name, last in written.items()]
    parts.sort(key=lambda part: (part.place, part.written))
    # a learning rate with which the loss was not finite: unfinished, and others were tried after it
    ended = max((part.written for part in parts if part.finished), default=0.0)
    return [part for part in parts if part.finished or not part.tunes or part.written >= ended]


def curve(folder: Path, part: Part) -> list[Point]:
    """What a training has logged so far: points of `step` and of the losses and accuracies that were logged there.

    Every so many of the training's points, and each of a validation.
    """
    points = _rows(StageFolder(folder / part.name).log)
    logged = [point for point in points if "train_loss" in point]
    stride = -(-len(logged) // _POINTS) or 1
    kept = [*logged[::stride][:-1], *logged[-1:]]
    kept += [point for point in points if "train_loss" not in point]
    return sorted(kept, key=lambda point: point["step"])


def whole(value: Any) -> int | None:
    """A whole number from a file; None of anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _read_part(folder: Path, part: Part, results: Results) -> Part:
    """A part with how far it is."""
    stage = StageFolder(folder / part.name)
    if stage.is_finished and (stage.metrics.is_file() or not part.is_model):
        seconds = stage.work.seconds
        return replace(part, finished=True, seconds=float(seconds) if isinstance(seconds, float | int) else None)
    if part.name == SIMILARITY:
        step, steps, left = _streamed(stage)
    elif part.name == AUTOENCODER or part.is_model:
        step, steps, left = _trained(stage.log, _steps(stage, part, results))
    else:
        return part
    return replace(part, step=step, steps=steps, left=left)


def _streamed(stage: StageFolder) -> tuple[int | None, int | None, float | None]:
    """Batches done, in all, and seconds left, by the last save of a stream of draws."""
    draws, size = (stage.made_with.setting(SIMILARITY, name) for name in ("draws", "batch_size"))
    batches = max(2, -(-draws // size)) if draws and size else None
    if not stage.partial.is_file():
        return None, batches, None
    saved = read_json(stage.partial)
    done, seconds = int(saved["done"]), float(saved["seconds"])
    return done, batches, seconds / done * (batches - done) if batches and done else None


def _steps(stage: StageFolder, part: Part, results: Results) -> int | None:
    """How many steps a training has, where the run's settings tell."""
    if not part.is_model:
        return whole(stage.made_with.setting(AUTOENCODER, "steps"))
    train = results.settings.get("train") or {}
    if part.tunes:
        return whole(train.get("tune_steps") or train.get("steps"))
    # epochs may end it sooner, or alone do: then the trainings before it tell
    ended = [whole(row.history[-1].get("step")) for row in results.scores or [] if row.history]
    return max((step for step in ended if step is not None), default=whole(train.get("steps")))


def _trained(log: Path, steps: int | None) -> tuple[int | None, int | None, float | None]:
    """Steps done, in all, and seconds left, by Lightning's log: its folder was last changed when it was first written.

    A training that goes on starts a new log, so that its pace is that of now.
    """
    rows = _rows(log)
    if not rows:
        return None, steps, None
    first, done = int(rows[0]["step"]), int(rows[-1]["step"])
    try:
        elapsed = log.stat().st_mtime - log.parent.stat().st_mtime
    except OSError:
        return done, steps, None
    if steps is None or done <= first or elapsed <= 0:
        return done, steps, None
    return done, steps, max(0.0, elapsed / (done - first) * (steps - done))


def _rows(log: Path) -> list[Point]:
    """The rows of a log: steps count from 1, and a cell that is empty or cut short is left out."""
    try:
        with log.open("rb") as file:
            header = file.readline().decode("utf-8", "replace")
            if log.stat().st_size > _LOG:
                file.seek(-_LOG, os.SEEK_END)
                file.readline()
            text = file.read(_LOG).decode("utf-8", "replace")
    except OSError:
        return []
    points: list[Point] = []
    names = header.strip().split(",")
    for cells in csv.reader(line for line in text.split("\n")[:-1] if "\0" not in line):
        found = {key: number for key, cell in zip(names, cells, strict=False) if (number := _number(cell)) is not None}
        if "step" in found and len(cells) == len(names):
            points.append({**found, "step": int(found["step"]) + 1})
    return points


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None  # nor not-a-number
