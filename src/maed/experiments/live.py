"""How a comparison is doing: a table that fills on a terminal, plain lines elsewhere."""

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
from maed.report.tables import MEASURES, NOTHING, duration, percent
from maed.settings import TrainerSettings


@contextmanager
def board(
    title: str,
    trials: Sequence[Trial],
    settings: TrainerSettings,
    say: Callable[[str], None],
    console: Console | None = None,
) -> Iterator[Board]:
    """Where `trials` are shown: a live table where there would be a progress bar, else lines that `say` is told."""
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

    def went_on(self, trial: Trial, step: int, steps: int, accuracy: float | None) -> None:
        """Nothing: Lightning's callback has its own lines."""

    def finished(self, trial: Trial, metrics: Metrics | None) -> None:
        """Its accuracy."""
        if metrics is None:
            self.say(f"perceiver: {trial}: the loss did not stay finite")
            return
        name = "validation" if trial.tuning else "test"
        self.say(f"perceiver: {trial}: {name} accuracy {100 * trial.accuracy(metrics):.2f} %")


class LiveTable:
    """A row for each encoding, a column for each seed or learning rate, and what is known of the mean over seeds.

    Args:
        title: above the table.
        trials: all of them, in the order of rows and columns.
        clock: seconds, from any start.
    """

    def __init__(self, title: str, trials: Sequence[Trial], clock: Callable[[], float] = time.perf_counter) -> None:
        self.title, self.clock = title, clock
        self.encodings = list(dict.fromkeys(trial.encoding for trial in trials))
        self.columns = list(dict.fromkeys(trial.column for trial in trials))
        self.averaged = not any(trial.tuning for trial in trials)
        self._since = clock()
        self._cells: dict[tuple[str, str], Text] = {}
        self._accuracies: dict[str, list[float]] = {encoding: [] for encoding in self.encodings}
        self._left = len(trials)
        self._count = len(trials)

    def started(self, trial: Trial) -> None:
        """Running."""
        self._put(trial, "running", "yellow")

    def went_on(self, trial: Trial, step: int, steps: int, accuracy: float | None) -> None:
        """Running, so far."""
        reached = "" if accuracy is None else f", {percent(accuracy)}"
        self._put(trial, f"{step}/{steps}{reached}", "yellow")

    def finished(self, trial: Trial, metrics: Metrics | None) -> None:
        """Its accuracy."""
        self._left -= 1
        if metrics is None:
            self._put(trial, "not finite", "red")
            return
        self._accuracies[trial.encoding].append(trial.accuracy(metrics))
        self._put(trial, percent(trial.accuracy(metrics)), "green")

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
        for encoding in self.encodings:
            cells: list[Any] = [self._cells.get((encoding, column), Text("waiting", "dim")) for column in self.columns]
            if self.averaged:
                cells.append(MEASURES["test_accuracy"].spread(self._accuracies[encoding]) or NOTHING)
            table.add_row(encoding, *cells)
        return table

    def _put(self, trial: Trial, text: str, style: str) -> None:
        self._cells[trial.encoding, trial.column] = Text(text, style)
