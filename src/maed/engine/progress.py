"""The progress of a training: a bar on a terminal, plain lines elsewhere, or nothing; and its log."""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from maed import records
from maed.errors import MaedError
from maed.run_folder import StageFolder
from maed.settings import TrainerSettings


def progress_kind(settings: TrainerSettings) -> Literal["bar", "lines", "none"]:
    """The progress that `auto` stands for: a bar on a terminal, otherwise lines."""
    if settings.progress != "auto":
        return settings.progress
    return "bar" if sys.stdout.isatty() else "lines"


def print_line(title: str, step: int, steps: int, metrics: Mapping[str, float]) -> None:
    """Print what a validation found as one line, for logs and pipes."""
    shown = [f"{name} {value:.4f}" for name, value in sorted(metrics.items())]
    print(f"{title}: step {step} of {steps}: {', '.join(shown)}", flush=True)


class Watcher:
    """Is told of every step and validation of a training. This one does nothing."""

    def stepped(self, step: int) -> None:
        """Step number `step`, counted from 1, was made."""

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """A validation after step number `step` found `metrics`."""


class Lines(Watcher):
    """A line for each validation."""

    def __init__(self, title: str, steps: int) -> None:
        self.title, self.steps = title, steps

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print it."""
        print_line(self.title, step, self.steps, metrics)


class Bar(Watcher):
    """A bar with the time that is left, and what the last validation found."""

    def __init__(self, title: str, steps: int, done: int, progress: Progress) -> None:
        self.progress = progress
        self.task = progress.add_task(title, total=steps, completed=done, found="")

    def stepped(self, step: int) -> None:
        """Move it."""
        self.progress.update(self.task, completed=step)

    def validated(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show the metrics beside it."""
        self.progress.update(self.task, found=", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))


@contextmanager
def watcher(settings: TrainerSettings, title: str, *, steps: int, done: int) -> Iterator[Watcher]:
    """Yield whom to tell of the steps of a training of which `done` are made already."""
    kind = progress_kind(settings)
    if kind == "bar":
        found = TextColumn("{task.fields[found]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, TimeRemainingColumn(), found) as progress:
            yield Bar(title, steps, done, progress)
    else:
        yield Lines(title, steps) if kind == "lines" else Watcher()


class ProgressFile:
    """Keeps a stage's `progress.json`, written about once a second: each step costs a look at the clock.

    Args:
        folder: Folder of the stage.
        steps: Total number of steps.
        done: Steps done before a stop; the curve goes on from there.
    """

    PERIOD = 1.0
    """Seconds between two writes."""

    _MOST = 400  # points of a curve

    def __init__(self, folder: StageFolder, steps: int, done: int = 0) -> None:
        self._path, self._since, self._due = folder.progress, time.monotonic(), 0.0
        self.record = records.Progress(step=done, steps=steps, begun=done)
        if done:
            with suppress(MaedError):  # of another version
                earlier = records.Progress.read(self._path).points
                self.record.points = [point for point in earlier if point["step"] <= done]

    def stepped(self, step: int) -> None:
        """Step number `step`, counted from 1, was made."""
        self.record.step = step
        if time.monotonic() >= self._due:
            self.write()

    def add(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a point to the curve: what was found after step number `step`."""
        points = self.record.points
        points.append({"step": step, **{name: value for name, value in metrics.items() if math.isfinite(value)}})
        if len(points) > self._MOST:  # every second loss of the training goes, and each validation stays
            logged = [point for point in points if not any(name.startswith("validation") for name in point)]
            gone = {id(point) for point in (logged if len(logged) > 2 else points)[1:-1:2]}
            self.record.points = [point for point in points if id(point) not in gone]

    def write(self) -> None:
        """Write it now, as at the end."""
        now = time.monotonic()
        self.record.seconds, self._due = round(now - self._since, 3), now + self.PERIOD
        with suppress(OSError):  # no training ends because nobody can watch it
            self.record.write(self._path)


class Log:
    """The curve of a training as it grows: `logs/metrics.csv`, and TensorBoard's events where asked for.

    A training that is resumed begins a new file. `step` counts from 0, as Lightning's log does.
    """

    NAMES = ("step", "train_loss", "validation_loss")

    def __init__(self, folder: Path, *, tensorboard: bool) -> None:
        self._path = folder / "logs" / "metrics.csv"
        self._path.unlink(missing_ok=True)
        self._open = ExitStack()
        self._rows: Any = None
        self._events: Any = None
        if tensorboard:
            from torch.utils.tensorboard import SummaryWriter

            self._events = self._open.enter_context(SummaryWriter(str(folder / "tensorboard")))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Add a row: what was found after step number `step`, counted from 1."""
        if self._rows is None:  # not before the first row: the folder's time then says when that was written
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = self._open.enter_context(self._path.open("w", buffering=1, newline="", encoding="utf-8"))
            self._rows = csv.DictWriter(file, self.NAMES)
            self._rows.writeheader()
        self._rows.writerow({"step": step - 1, **metrics})
        if self._events is not None:
            for name, value in metrics.items():
                self._events.add_scalar(name, value, step - 1)

    def close(self) -> None:
        """Close the files."""
        self._open.close()
