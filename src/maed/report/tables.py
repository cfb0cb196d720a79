"""The tables of a run as rows of text (the first row is the header), for the page, the terminal and markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from maed.evaluation.comparison import interval, summarize
from maed.records import Paired, Results, Score, Summary, Tried
from maed.tasks import Metric, metric_of

Rows = list[list[str]]

NOTHING = "–"
"""Text of a cell without a measurement."""


def geometry_rows(results: Results) -> Rows:
    """Geometry metrics of each method; no rows if neither geometry nor split halves were measured."""
    geometry, halves = results.geometry or {}, results.split_half or {}
    methods = list(geometry) + [method for method in halves if method not in geometry]
    if not methods:
        return []
    names = ("entries_knn_recall", "knn_recall", "entries_spearman", "spearman", "coordinate_r2", "trustworthiness")
    titles = [MEASURES[name].title.format(k=results.neighbors or "k") for name in names]
    rows = [["Method", *titles, "Split-half agreement"]]
    for method in methods:
        metrics = geometry.get(method) or {}
        cells = [(percent if MEASURES[name].unit else decimal)(metrics.get(name)) for name in names]
        rows.append([method, *cells, percent(halves.get(method))])
    return rows


def candidate_rows(results: Results) -> Rows:
    """Scores of each method without truth, the chosen one first; no rows if nothing was probed."""
    probed, errors = results.probe_loss or {}, results.neighbor_error or {}
    if not probed:
        return []
    best = min(row["mean"] for row in probed.values())
    rows = [["Positions", "Probe loss", "Above the best (standard error)", "Neighbor error", "Chosen"]]
    for method, row in probed.items():
        above = f"{row['mean'] - best:.4f} ({row['se']:.4f})"
        chosen = "yes" if method == results.chosen else ""
        error = errors.get(method)
        rows.append([method, f"{row['mean']:.4f}", above, NOTHING if error is None else f"{error:.4f}", chosen])
    return rows


def accuracy_rows(results: Results) -> Rows:
    """Test scores of each encoding with 95 % intervals; no rows if no Perceiver was trained.

    What else was measured stands behind, if there is anything.
    """
    summary = summaries(results)
    if not summary:
        return []
    columns, others = (
        _columns(summary),
        list(dict.fromkeys(name for row in results.scores or [] for name in row.metrics)),
    )
    title = measured(summary)
    rows = [["Encoding", *columns, f"Test {title} [95 % interval]", "Each seed", *others, "Training time, mean"]]
    for entry in summary:
        trained = [row for row in results.scores or [] if row.arm == entry.arm and _alike(row, entry)]
        seeds = ", ".join(f"{row.seed}: {value_text(row)}" for row in trained)
        seconds = [row.seconds for row in trained if row.seconds is not None]
        mean = sum(seconds) / len(seconds) if seconds else None
        more = [_means([row.metrics.get(name) for row in trained]) for name in others]
        what = [_column(entry, name) for name in columns]
        rows.append([entry.arm, *what, accuracy(entry), seeds or NOTHING, *more, duration(mean)])
    return rows


def measured(rows: Sequence[Summary | Paired | Score | Tried]) -> str:
    """The metrics of rows, in words."""
    return " or ".join(dict.fromkeys(metric_of(row.task, row.metric).title for row in rows))


def value_text(row: Score) -> str:
    """A score as text: `93.1 %`."""
    return NOTHING if _missing(row.value) else metric_of(row.task, row.metric).text(float(row.value or 0.0))


def labels_text(labels: int | None) -> str:
    """A number of labels."""
    return NOTHING if labels is None else f"{labels:,}"


def _columns(rows: Sequence[Summary | Paired | Tried]) -> list[str]:
    """Columns that distinguish rows of equal encodings: task and number of labels, if there are several."""
    several = {"Task": len({row.task for row in rows}) > 1, "Labels": len({(row.task, row.labels) for row in rows}) > 1}
    return [name for name, are in several.items() if are]


def _column(row: Summary | Paired | Tried, name: str) -> str:
    return row.task if name == "Task" else labels_text(row.labels)


def _alike(a: Score | Summary, b: Score | Summary) -> bool:
    """True if two rows are of one task, number of labels and metric."""
    return (a.task, a.labels, a.metric) == (b.task, b.labels, b.metric)


def _means(found: Sequence[Any]) -> str:
    """Means over seeds of what was measured, one number or several."""
    values = np.array([value for value in found if value is not None], dtype=float)
    if not len(values):
        return NOTHING
    return ", ".join(f"{value:.4g}".replace("-", "−") for value in np.atleast_1d(values.mean(axis=0)))


def tuning_rows(results: Results) -> Rows:
    """The learning rate of each encoding and how it was found; no rows where none was tuned."""
    tried: dict[str, list[Tried]] = {}
    for trial in results.tuning or []:
        tried.setdefault(trial.arm, []).append(trial)
    title = measured(results.tuning or [])
    rows = [["Encoding", "Learning rate", f"Validation {title} at each rate tried", "Reading"]]
    for encoding, trials in tried.items():
        trials = sorted(trials, key=lambda trial: trial.learning_rate)
        each = ", ".join(
            f"{trial.learning_rate:g}: {'not finite' if trial.validation is None else _text(trial, trial.validation)}"
            for trial in trials
        )
        chosen = next((index for index, trial in enumerate(trials) if trial.chosen), None)
        rate = NOTHING if chosen is None else f"{trials[chosen].learning_rate:g}"
        rows.append([encoding, rate, each, _place(chosen, len(trials))])
    return rows if len(rows) > 1 else []


def _place(chosen: int | None, tried: int) -> str:
    """True if the best of the `tried` rates, in ascending order, has others on both sides."""
    if chosen is None:
        return "not chosen yet"
    if tried == 1:
        return "the only one tried"
    if chosen in (0, tried - 1):
        return f"at the edge of the grid: {'lower' if chosen == 0 else 'higher'} ones may be better"
    return "inside the grid"


def paired_rows(results: Results) -> Rows:
    """Paired differences between encodings, above 0 where the first is better; no rows where there are none."""
    paired = results.paired or []
    columns = _columns(paired)
    rows = [
        [f"{row.a} − {row.b}", *(_column(row, name) for name in columns), difference(row), verdict(row)]
        for row in paired
    ]
    units = {metric_of(row.task, row.metric).gain_unit for row in paired}
    unit = "Points" if units == {"points of per cent"} else "Gain"
    return [["Difference", *columns, f"{unit} [95 % interval]", "Reading"], *rows] if rows else []


def seconds_rows(results: Results) -> Rows:
    """Duration of each stage; no rows if none was recorded."""
    rows = [[stage, duration(value)] for stage, value in results.seconds.items()]
    return [["Stage", "Time"], *rows] if rows else []


def summaries(results: Results) -> list[Summary]:
    """The summary of `results`; without one, the mean over seeds of each encoding that was trained, no interval."""
    return results.summary or [replace(row, low=None, high=None) for row in summarize(results.scores or [])]


@dataclass(frozen=True)
class Measure:
    """The way to display a measured number.

    Args:
        title: Heading, with `{k}` where the k of recall@k belongs.
        scale: Factor for display.
        digits: Decimals.
        unit: Put behind.
    """

    title: str
    scale: float = 1.0
    digits: int = 3
    unit: str = ""

    def text(self, value: Any) -> str:
        """One value."""
        return NOTHING if _missing(value) else f"{self._number(value)}{self.unit}"

    def mean(self, values: Iterable[float]) -> str:
        """The mean over seeds and its 95 % t-interval: `93.1 % [92.0, 94.2]`."""
        found = list(values)
        if not found:
            return NOTHING
        mean, low, high = interval(found)
        return self.text(mean) + ("" if low is None or high is None else self._ends(low, high))

    def spread(self, values: Iterable[float]) -> str:
        """The same in less room: `93.1 ± 1.1 %`, half the width of the interval behind the mean."""
        found = list(values)
        if not found:
            return NOTHING
        mean, low, _ = interval(found)
        half = "" if low is None else f" ± {self._number(mean - low)}"
        return f"{self._number(mean)}{half}{self.unit}"

    def gain(self, entry: Paired) -> str:
        """A paired difference with its interval, signs shown; shares in points of per cent."""
        ends = "" if entry.low is None or entry.high is None else self._ends(entry.low, entry.high, "+")
        return self._number(entry.mean, "+") + ends

    def _ends(self, low: float, high: float, sign: str = "") -> str:
        return f" [{self._number(low, sign)}, {self._number(high, sign)}]"

    def _number(self, value: float, sign: str = "") -> str:
        return f"{self.scale * value:{sign}.{self.digits}f}".replace("-", "−")


MEASURES = {
    "entries_knn_recall": Measure("Recall@{k}, similarity", 100, 1, " %"),
    "knn_recall": Measure("Recall@{k}, embedding", 100, 1, " %"),
    "entries_spearman": Measure("Spearman, similarity"),
    "spearman": Measure("Spearman, embedding"),
    "coordinate_r2": Measure("Coordinate R²"),
    "trustworthiness": Measure("Trustworthiness"),
    "test_accuracy": Measure("Test accuracy of a Perceiver", 100, 1, " %"),
}
"""Measures of embeddings and of Perceivers."""


def measure_of(metric: Metric) -> Measure:
    """The way to display the metric of a task."""
    return Measure(f"Test {metric.title} of a Perceiver", metric.scale, metric.digits, metric.unit)


def markdown(results: Results) -> str:
    """The tables of a run as markdown, below the command, commit, seeds and machine that they come from."""
    tables = (
        candidate_rows(results),
        geometry_rows(results),
        tuning_rows(results),
        accuracy_rows(results),
        paired_rows(results),
    )
    parts = [_origin(results), _machine(results), *map(str, results.notes), *map(markdown_table, filter(None, tables))]
    return "\n\n".join(filter(None, parts)) + "\n"


def print_tables(results: Results, console: Console) -> None:
    """Print the tables of a run on a rich `console`."""
    tables = {
        "Candidates, without truth": candidate_rows(results),
        "Geometry": geometry_rows(results),
        "Learning rates": tuning_rows(results),
        f"Test {measured(summaries(results))}": accuracy_rows(results),
        f"Paired differences of test {measured(results.paired or [])}": paired_rows(results),
        "Time": seconds_rows(results),
    }
    for title, rows in tables.items():
        if rows:
            console.print(_rich_table(title, rows))
    for note in results.notes:
        console.print(Text(str(note)))  # Text, not str: brackets in a name are no markup


def accuracy(entry: Summary) -> str:
    """`52.3 % [50.1, 54.4] (3 seeds)`; a single seed has no interval."""
    return f"{_text(entry, entry.mean)}{_interval(entry)} ({_seeds(entry.seeds)})"


def difference(entry: Paired) -> str:
    """`+3.2 [+1.0, +5.4] (3 seeds)`, in points of per cent of shares, with a true minus sign."""
    metric = metric_of(entry.task, entry.metric)
    mean = f"{metric.scale * entry.mean:+.{metric.digits}f}"
    return f"{mean}{_interval(entry, '+')} ({_seeds(entry.seeds)})".replace("-", "−")


def verdict(entry: Paired) -> str:
    """Judge the interval of a difference: `above`, `below`, or undecided."""
    if entry.low is None or entry.high is None:
        return "one seed: no interval" if entry.seeds == 1 else "no interval"
    if entry.low > 0:
        return "above"
    return "below" if entry.high < 0 else "not told apart"


def percent(value: Any) -> str:
    """A share between 0 and 1 as per cent with one decimal."""
    return NOTHING if _missing(value) else f"{100 * value:.1f} %"


def decimal(value: Any) -> str:
    """A number with three decimals."""
    return NOTHING if _missing(value) else f"{value:.3f}"


def duration(value: Any) -> str:
    """Seconds as people say them: `12.3 s`, `3 min 05 s`, `1 h 02 min`."""
    if _missing(value):
        return NOTHING
    if value < 59.95:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def _missing(value: Any) -> bool:
    return not isinstance(value, (int, float)) or math.isnan(value)


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"


def _interval(entry: Summary | Paired, sign: str = "") -> str:
    if entry.low is None or entry.high is None or entry.seeds == 1:
        return ""
    metric = metric_of(entry.task, entry.metric)
    ends = (f"{metric.scale * end:{sign}.{metric.digits}f}".replace("-", "−") for end in (entry.low, entry.high))
    return f" [{', '.join(ends)}]"


def _text(row: Summary | Tried, value: float) -> str:
    return NOTHING if _missing(value) else metric_of(row.task, row.metric).text(value)


def _machine(results: Results) -> str:
    """The machine and the duration of each stage, in one line."""
    machine, parts = results.machine, []
    if machine.get("processor"):
        cores = machine.get("cores")
        parts.append(f"{machine['processor']}, {cores} core{'' if cores == 1 else 's'}")
    if machine.get("accelerator"):
        parts.append(str(machine["accelerator"]))
    parts += [f"{stage} {duration(value)}" for stage, value in results.seconds.items()]
    return ", ".join(parts)


def _origin(results: Results) -> str:
    """One line: the command, the commit and the seeds."""
    parts = []
    if results.command:
        parts.append(f"`{_cell(results.command).replace('`', chr(39))}`")
    if results.commit:
        parts.append(f"commit {_cell(results.commit)[:12]}")
    seeds = sorted({row.seed for row in results.scores or []})
    if seeds:
        parts.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}")
    return ", ".join(parts) or "A run whose command was not recorded"


def markdown_table(rows: Rows) -> str:
    """Rows as a markdown table, numbers to the right."""
    header, *body = [[_cell(cell) for cell in row] for row in rows]
    rule = ["---", *("---:" for _ in header[1:])]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *body))


def _cell(text: Any) -> str:
    """Text that cannot end its cell: no line breaks, pipes escaped."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _rich_table(title: str, rows: Rows) -> Table:
    header, *body = rows
    table = Table(title=title, title_justify="left")
    for index, name in enumerate(header):
        table.add_column(Text(name), justify="right" if index else "left")
    for row in body:
        table.add_row(*(Text(cell) for cell in row))
    return table
