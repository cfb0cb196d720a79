"""The tables of a run as rows of text (the first row is the header), for the page, the terminal and markdown."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Results = dict[str, Any]
Rows = list[list[str]]

NOTHING = "–"
"""What a cell says where nothing was measured."""


def geometry_rows(results: Results) -> Rows:
    """How well each method finds the geometry; no rows where neither geometry nor split halves were measured."""
    geometry: dict[str, dict[str, Any]] = results.get("geometry") or {}
    halves: dict[str, float] = results.get("split_half") or {}
    methods = list(geometry) + [method for method in halves if method not in geometry]
    if not methods:
        return []
    k = results.get("neighbours") or "k"
    columns: list[tuple[str, str, Callable[[Any], str]]] = [
        (f"Recall@{k}, similarity", "entries_knn_recall", percent),
        (f"Recall@{k}, embedding", "knn_recall", percent),
        ("Spearman, similarity", "entries_spearman", decimal),
        ("Spearman, embedding", "spearman", decimal),
        ("Coordinate R²", "coordinate_r2", decimal),
        ("Trustworthiness", "trustworthiness", decimal),
    ]
    rows = [["Method", *(title for title, _, _ in columns), "Split-half agreement"]]
    for method in methods:
        metrics = geometry.get(method) or {}
        cells = [show(metrics.get(name)) for _, name, show in columns]
        rows.append([method, *cells, percent(halves.get(method))])
    return rows


def accuracy_rows(results: Results) -> Rows:
    """Test accuracy of each encoding with its 95 % interval; no rows where no Perceiver was trained."""
    summary = summaries(results)
    if not summary:
        return []
    rows = [["Encoding", "Test accuracy [95 % interval]", "Each seed", "Training time, mean"]]
    for entry in summary:
        trained = [run for run in results.get("classification") or [] if run["positions"] == entry["positions"]]
        seeds = ", ".join(f"{run['seed']}: {percent(run.get('test_accuracy'))}" for run in trained)
        rows.append([entry["positions"], accuracy(entry), seeds or NOTHING, duration(_mean(trained, "seconds"))])
    return rows


def paired_rows(results: Results) -> Rows:
    """Paired differences of test accuracy between encodings, in points of per cent; no rows where there are none."""
    rows = [["Difference", "Points [95 % interval]", "Reading"]]
    for entry in results.get("paired") or []:
        rows.append([f"{entry['a']} − {entry['b']}", difference(entry), verdict(entry)])
    return rows if len(rows) > 1 else []


def seconds_rows(results: Results) -> Rows:
    """How long each stage took; no rows where nothing was timed."""
    seconds: dict[str, Any] = results.get("seconds") or {}
    rows = [[str(stage), duration(value)] for stage, value in seconds.items()]
    return [["Stage", "Time"], *rows] if rows else []


def summaries(results: Results) -> list[dict[str, Any]]:
    """The summary of `results`; without one, the mean over seeds of each encoding that was trained, no interval."""
    if results.get("summary"):
        return list(results["summary"])
    runs: dict[str, list[dict[str, Any]]] = {}
    for run in results.get("classification") or []:
        runs.setdefault(run["positions"], []).append(run)
    return [
        {"positions": name, "mean": _mean(group, "test_accuracy"), "low": None, "high": None, "seeds": len(group)}
        for name, group in runs.items()
    ]


def markdown(results: Results) -> str:
    """The tables of a run as markdown, below the command, commit, seeds and machine that they come from."""
    parts = [_origin(results)]
    if machine := _machine(results):
        parts.append(machine)
    parts += [str(note) for note in results.get("notes") or []]
    for rows in (geometry_rows(results), accuracy_rows(results), paired_rows(results)):
        if rows:
            parts.append(_markdown_table(rows))
    return "\n\n".join(parts) + "\n"


def print_tables(results: Results, console: Console) -> None:
    """Print the tables of a run on a rich `console`."""
    titles = ("Geometry", "Test accuracy", "Paired differences of test accuracy", "Time")
    tables = (geometry_rows(results), accuracy_rows(results), paired_rows(results), seconds_rows(results))
    for title, rows in zip(titles, tables, strict=True):
        if rows:
            console.print(_rich_table(title, rows))
    for note in results.get("notes") or []:
        console.print(Text(str(note)))  # Text, not str: brackets in a name are no markup


def accuracy(entry: dict[str, Any]) -> str:
    """`52.3 % [50.1, 54.4] (3 seeds)`; a single seed has no interval."""
    interval = _interval(entry, "{:.1f}")
    return f"{percent(entry['mean'])}{interval} ({_seeds(entry)})"


def difference(entry: dict[str, Any]) -> str:
    """`+3.2 [+1.0, +5.4] (3 seeds)`, in points of per cent, with a true minus sign."""
    if _missing(entry["mean"]):
        return NOTHING
    interval = _interval(entry, "{:+.1f}")
    return f"{100 * entry['mean']:+.1f}{interval} ({_seeds(entry)})".replace("-", "−")


def verdict(entry: dict[str, Any]) -> str:
    """What the interval of a difference says: `above`, `below`, or that the seeds do not tell."""
    if _missing(entry.get("low")) or _missing(entry.get("high")):
        return "one seed: no interval" if entry.get("seeds") == 1 else "no interval"
    if entry["low"] > 0:
        return "above"
    return "below" if entry["high"] < 0 else "not told apart"


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


def _mean(runs: list[dict[str, Any]], key: str) -> float | None:
    values = [run[key] for run in runs if not _missing(run.get(key))]
    return sum(values) / len(values) if values else None


def _seeds(entry: dict[str, Any]) -> str:
    count = entry.get("seeds", 1)
    return "1 seed" if count == 1 else f"{count} seeds"


def _interval(entry: dict[str, Any], style: str) -> str:
    low, high = entry.get("low"), entry.get("high")
    if low is None or high is None or _missing(low) or _missing(high) or entry.get("seeds") == 1:
        return ""
    return f" [{style.format(100 * low)}, {style.format(100 * high)}]"


def _machine(results: Results) -> str:
    """Where it ran and how long each stage took, as one line."""
    machine, seconds = results.get("machine") or {}, results.get("seconds") or {}
    parts = []
    if machine.get("processor"):
        cores = machine.get("cores")
        parts.append(f"{machine['processor']}, {cores} core{'' if cores == 1 else 's'}")
    if machine.get("accelerator"):
        parts.append(str(machine["accelerator"]))
    parts += [f"{stage} {duration(value)}" for stage, value in seconds.items()]
    return ", ".join(parts)


def _origin(results: Results) -> str:
    """One line: the command, the commit and the seeds."""
    parts = []
    if results.get("command"):
        parts.append(f"`{_cell(results['command']).replace('`', chr(39))}`")
    if results.get("commit"):
        parts.append(f"commit {_cell(results['commit'])[:12]}")
    seeds = sorted({run["seed"] for run in results.get("classification") or []})
    if seeds:
        parts.append(f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}")
    return ", ".join(parts) or "A run whose command was not recorded"


def _markdown_table(rows: Rows) -> str:
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
