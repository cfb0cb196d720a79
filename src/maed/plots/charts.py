"""Curves and intervals as data: made here once, drawn by matplotlib (`curves`) and by plotly (the page)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from maed.plots.palette import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, VERMILION, color_of
from maed.records import Score, Summary
from maed.tasks import Metric, metric_of

History = Sequence[Mapping[str, Any]]
"""Points of a training, by `step`, or of a similarity, by `draws`."""

Dash = Literal["solid", "dash", "dot", "dashdot"]

_DASHES: tuple[Dash, ...] = ("solid", "dash", "dot", "dashdot")
_RUNS = (VERMILION, BLUE, GREEN, PURPLE, ORANGE, SKY)  # of runs that are compared, the page's own first


@dataclass(frozen=True)
class Line:
    """A curve; `named` where a legend has its name, which several may share; `low` and `high` are its intervals."""

    x: list[float]
    y: list[float]
    name: str
    color: str
    dash: Dash = "solid"
    named: bool = True
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Interval:
    """A mean as readers have it, the ends of its interval, None if it has none, and what it is the mean of."""

    name: str
    color: str
    mean: float
    low: float | None
    high: float | None
    seeds: list[float]
    run: str = ""


@dataclass(frozen=True)
class Chart:
    """A chart as data: its lines and axes. It is false if it has no lines."""

    x: str
    y: str
    lines: list[Line] = field(default_factory=list)
    intervals: list[Interval] = field(default_factory=list)
    log: bool = False
    unit: str = ""

    def __bool__(self) -> bool:
        return bool(self.lines or self.intervals)


def training(histories: Mapping[str, History], y: str = "masked loss") -> Chart:
    """Training and validation loss over steps, by the names of runs."""
    kinds: dict[str, tuple[str, Dash]] = {"train_loss": ("training", "dot"), "validation_loss": ("validation", "solid")}
    return Chart("step", y, _by_run(histories, kinds, "step"))


def draws(histories: Mapping[str, History]) -> Chart:
    """Recall, Spearman correlation and agreement of halves over the number of draws."""
    kinds: dict[str, tuple[str, Dash]] = {
        "knn_recall": ("recall of true neighbors", "solid"),
        "spearman": ("Spearman with true distances", "dot"),
        "split_half": ("agreement of two halves", "dash"),
    }
    return Chart("draws", "of the similarity's entries", _by_run(histories, kinds, "draws"), log=True)


def accuracy(runs: Mapping[str, Sequence[Score]]) -> Chart:
    """Validation accuracy, or what else a task has, over steps: a line for each model, a color for each encoding.

    A dash is for each run.
    """
    lines: list[Line] = []
    titles: dict[str, None] = {}
    for index, (run, scores) in enumerate(runs.items()):
        for score in scores:
            metric = metric_of(score.task, score.metric)
            steps, values = known(score.history, f"validation_{score.metric}")
            name = score.positions if len(runs) == 1 else f"{score.positions}, {run}"
            new, dash = all(line.name != name for line in lines), _DASHES[index % len(_DASHES)]
            if steps:
                y = [metric.scale * v for v in values]
                lines.append(Line(steps, y, name, color_of(score.positions), dash, new))
                titles[axis(metric)] = None
    return Chart("step", f"validation {' or '.join(titles) or 'accuracy, %'}", lines)


def axis(metric: Metric) -> str:
    """Label of an axis for a metric: `accuracy, %`."""
    return metric.title + (f",{metric.unit}" if metric.unit else "")


def label_curves(summary: Sequence[Summary]) -> Chart:
    """Scores over the number of labels, one line per encoding, with 95 % intervals; empty for a single number."""
    rows = [row for row in summary if row.labels is not None]
    if len({row.labels for row in rows}) < 2 or len({(row.task, row.metric) for row in rows}) > 1:
        return Chart("", "")
    metric = metric_of(rows[0].task, rows[0].metric)
    lines = []
    for arm in dict.fromkeys(row.arm for row in rows):
        own = sorted((row for row in rows if row.arm == arm), key=lambda row: row.labels or 0)
        ends = [(row.mean if end is None else end) for row in own for end in (row.low, row.high)]
        low, high = ([metric.scale * end for end in each] for each in (ends[::2], ends[1::2]))
        x, y = [float(row.labels or 0) for row in own], [metric.scale * row.mean for row in own]
        dash: Dash = "solid" if own[0].pretrained is None else "dash"
        lines.append(Line(x, y, arm, color_of(own[0].positions), dash, low=low, high=high))
    return Chart("labels", f"test {axis(metric)}", lines, log=True)


def accuracies(runs: Mapping[str, tuple[Sequence[Summary], Sequence[Score]]]) -> Chart:
    """Mean test accuracy, or what else a task has, of each encoding with its 95 % interval and each seed, by runs.

    Of several numbers of labels the largest is shown (`label_curves` has all).
    """
    found, metrics = [], list[Metric]()
    for index, (run, (summary, scores)) in enumerate(runs.items()):
        most = max((entry.labels or 0 for entry in summary), default=0)
        shown = [entry for entry in summary if (entry.labels or 0) == most]
        better = [metric_of(entry.task, entry.metric).higher for entry in shown]
        for entry in sorted(shown, key=lambda entry: entry.mean, reverse=not all(better)):
            color = color_of(entry.positions) if len(runs) == 1 else _RUNS[index % len(_RUNS)]
            metric = metric_of(entry.task, entry.metric)
            of = (entry.arm, entry.task, entry.labels)
            own = [s.value for s in scores if (s.arm, s.task, s.labels) == of and s.value is not None]
            low, high = (
                None if end is None or entry.seeds == 1 else metric.scale * end for end in (entry.low, entry.high)
            )
            seeds, name = [metric.scale * value for value in own], run if len(runs) > 1 else ""
            found.append(Interval(entry.arm, color, metric.scale * entry.mean, low, high, seeds, name))
            metrics.append(metric)
    title = " or ".join(dict.fromkeys(axis(metric) for metric in metrics)) or "accuracy, %"
    return Chart(f"test {title}", "", intervals=found, unit=metrics[0].unit if metrics else "")


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
