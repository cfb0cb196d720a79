"""Curves and intervals as data: made here once, drawn by matplotlib (`curves`) and by plotly (the page)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from maed.plots.palette import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION, color_of
from maed.records import Score, Summary

History = Sequence[Mapping[str, Any]]
"""Points of a training, by `step`, or of a similarity, by `draws`."""

Dash = Literal["solid", "dash", "dot", "dashdot"]

_DASHES: tuple[Dash, ...] = ("solid", "dash", "dot", "dashdot")
_RUNS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)  # of runs that are compared, the page's own first


@dataclass(frozen=True)
class Line:
    """A curve; `named` where a legend has its name, which several may share."""

    x: list[float]
    y: list[float]
    name: str
    color: str
    dash: Dash = "solid"
    named: bool = True


@dataclass(frozen=True)
class Interval:
    """A mean in per cent, the ends of its interval, None where it has none, and what it is the mean of."""

    name: str
    color: str
    mean: float
    low: float | None
    high: float | None
    seeds: list[float]
    run: str = ""


@dataclass(frozen=True)
class Chart:
    """What is drawn, and what its axes are; false where there is nothing."""

    x: str
    y: str
    lines: list[Line] = field(default_factory=list)
    intervals: list[Interval] = field(default_factory=list)
    log: bool = False

    def __bool__(self) -> bool:
        return bool(self.lines or self.intervals)


def training(histories: Mapping[str, History], y: str = "masked loss") -> Chart:
    """Training and validation loss over steps, by the names of runs."""
    kinds: dict[str, tuple[str, Dash]] = {"train_loss": ("training", "dot"), "validation_loss": ("validation", "solid")}
    return Chart("step", y, _by_run(histories, kinds, "step"))


def draws(histories: Mapping[str, History]) -> Chart:
    """What the similarity has found after so many draws: recall, Spearman and agreement of halves."""
    kinds: dict[str, tuple[str, Dash]] = {
        "knn_recall": ("recall of true neighbors", "solid"),
        "spearman": ("Spearman with true distances", "dot"),
        "split_half": ("agreement of two halves", "dash"),
    }
    return Chart("draws", "of the similarity's entries", _by_run(histories, kinds, "draws"), log=True)


def accuracy(runs: Mapping[str, Sequence[Score]]) -> Chart:
    """Validation accuracy over steps: a line for each model, a color for each encoding, a dash for each run."""
    lines: list[Line] = []
    for index, (run, scores) in enumerate(runs.items()):
        for score in scores:
            steps, values = known(score.history, "validation_accuracy")
            name = score.positions if len(runs) == 1 else f"{score.positions}, {run}"
            new, dash = all(line.name != name for line in lines), _DASHES[index % len(_DASHES)]
            if steps:
                lines.append(Line(steps, [100 * v for v in values], name, color_of(score.positions), dash, new))
    return Chart("step", "validation accuracy, %", lines)


def accuracies(runs: Mapping[str, tuple[Sequence[Summary], Sequence[Score]]]) -> Chart:
    """Mean test accuracy of each encoding with its 95 % interval, and each seed, by the names of runs."""
    found = []
    for index, (run, (summary, scores)) in enumerate(runs.items()):
        for entry in sorted(summary, key=lambda entry: entry.mean):
            color = color_of(entry.positions) if len(runs) == 1 else _RUNS[index % len(_RUNS)]
            seeds = [100 * s.value for s in scores if s.positions == entry.positions and s.value is not None]
            low, high = (None if end is None or entry.seeds == 1 else 100 * end for end in (entry.low, entry.high))
            name = run if len(runs) > 1 else ""
            found.append(Interval(entry.positions, color, 100 * entry.mean, low, high, seeds, name))
    return Chart("test accuracy, %", "", intervals=found)


def known(history: History, key: str, over: str = "step") -> tuple[list[float], list[float]]:
    """Steps and values of `key`, where there is a value."""
    points = [(entry[over], entry[key]) for entry in history if entry.get(key) is not None]
    return [step for step, _ in points], [value for _, value in points]


def _by_run(histories: Mapping[str, History], kinds: Mapping[str, tuple[str, Dash]], over: str) -> list[Line]:
    """A color for each kind of one run, or for each of several; a dash for each kind."""
    lines = []
    for index, (run, history) in enumerate(histories.items()):
        for number, (key, (title, dash)) in enumerate(kinds.items()):
            x, y = known(history, key, over)
            several = len(histories) > 1
            color = _RUNS[index % len(_RUNS)] if several else (*_RUNS[: len(kinds)], INK)[number]
            if x:
                lines.append(Line(x, y, f"{run}, {title}" if several else title, color, dash))
    return lines
