"""Progress of a comparison: a table that fills on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from maed.engine.progress import progress_kind
from maed.experiments.trials import Board, Metrics, Trial
from maed.files import is_main_process
from maed.report.tables import NOTHING, duration, measure_of
from maed.settings import TrainerSettings


@contextmanager
def board(
    title: str,
    trials: Sequence[Trial],
    settings: TrainerSettings,
    say: Callable[[str], None],
    console: Console | None = None,
) -> Iterator[Board]:
    """Show `trials` in a live table, on a terminal with progress bars, otherwise as lines given to `say`."""
    if progress_kind(settings) == "bar" and is_main_process():
        table = LiveTable(title, trials)
        with Live(get_renderable=lambda: table.render(), console=console, refresh_per_second=4):
            yield table
    else:
        yield Lines(say)


class Lines:
    """A line when a training starts, and one when it is done."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say = say

    def started(self, trial: Trial) -> None:
        """Name it."""
        self.say(f"perceiver: {trial}")

    def went_on(self, trial: Trial, step: int, steps: int, value: float | None) -> None:
        """Nothing: Lightning's callback has its own lines."""

    def finished(self, trial: Trial, metrics: Metrics | None) -> None:
        """Report its metrics."""
        if metrics is None:
            self.say(f"perceiver: {trial}: the loss became infinite or NaN")
            return
        name = "validation" if trial.tuning else "test"
        metric = trial.metric
        value = metric.text(trial.value(metrics), max(2, metric.digits))
        self.say(f"perceiver: {trial}: {name} {metric.title} {value}")


class LiveTable:
    """A row for each encoding and number of labels, a column for each seed or learning rate, and the mean over seeds.

    Args:
        title: Above the table.
        trials: All of them, in the order of rows and columns.
        clock: Seconds, from any start.
    """

    def __init__(self, title: str, trials: Sequence[Trial], clock: Callable[[], float] = time.perf_counter) -> None:
        self.title, self.clock = title, clock
        self.rows = list(dict.fromkeys(trial.row for trial in trials))
        self._metrics = {trial.row: trial.metric for trial in trials}
        self.columns = list(dict.fromkeys(trial.column for trial in trials))
        self.averaged = not any(trial.tuning for trial in trials)
        self._since = clock()
        self._cells: dict[tuple[str, str], Text] = {}
        self._values: dict[str, list[float]] = {row: [] for row in self.rows}
        self._left = len(trials)
        self._count = len(trials)

    def started(self, trial: Trial) -> None:
        """Running."""
        self._put(trial, "running", "yellow")

    def went_on(self, trial: Trial, step: int, steps: int, value: float | None) -> None:
        """Running, so far."""
        reached = "" if value is None else f", {trial.metric.text(value)}"
        self._put(trial, f"{step}/{steps}{reached}", "yellow")

    def finished(self, trial: Trial, metrics: Metrics | None) -> None:
        """Report its metrics."""
        self._left -= 1
        if metrics is None:
            self._put(trial, "not finite", "red")
            return
        self._values[trial.row].append(trial.value(metrics))
        self._put(trial, trial.metric.text(trial.value(metrics)), "green")

    def render(self) -> Table:
        """The table as it stands."""
        elapsed = duration(self.clock() - self._since)
        caption = f"{self._count - self._left} of {self._count} trained, {elapsed}"
        table = Table(title=self.title, title_justify="left", caption=caption, caption_justify="left")
        table.add_column("Encoding")
        for column in self.columns:
            table.add_column(column, justify="right")
        if self.averaged:
            table.add_column("Mean ± 95 % interval", justify="right")
        for row in self.rows:
            cells: list[Any] = [self._cells.get((row, column), Text("waiting", "dim")) for column in self.columns]
            if self.averaged:
                cells.append(measure_of(self._metrics[row]).spread(self._values[row]) or NOTHING)
            table.add_row(row, *cells)
        return table

    def _put(self, trial: Trial, text: str, style: str) -> None:
        self._cells[trial.row, trial.column] = Text(text, style)
