"""The tables of a run as rows of text (the first row is the header), for the page, the terminal and markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from maed.evaluation.comparison import interval, summarize
from maed.records import Paired, Results, Summary, Tried

Study = dict[str, Any]
"""The file of a study: many small runs with cells of their own, and not of one run."""

Rows = list[list[str]]
Cell = dict[str, Any]
"""One measurement of a study: a source with its settings and one seed."""

NOTHING = "–"
"""What a cell says where nothing was measured."""


def geometry_rows(results: Results) -> Rows:
    """How well each method finds the geometry; no rows where neither geometry nor split halves were measured."""
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
    """What is known of each method without truth, the chosen one first; no rows where nothing was probed."""
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
    """Test accuracy of each encoding with its 95 % interval; no rows where no Perceiver was trained."""
    summary = summaries(results)
    if not summary:
        return []
    rows = [["Encoding", "Test accuracy [95 % interval]", "Each seed", "Training time, mean"]]
    for entry in summary:
        trained = [row for row in results.scores or [] if row.positions == entry.positions]
        seeds = ", ".join(f"{row.seed}: {percent(row.value)}" for row in trained)
        seconds = [row.seconds for row in trained if row.seconds is not None]
        mean = sum(seconds) / len(seconds) if seconds else None
        rows.append([entry.positions, accuracy(entry), seeds or NOTHING, duration(mean)])
    return rows


def tuning_rows(results: Results) -> Rows:
    """The learning rate of each encoding and how it was found; no rows where none was tuned."""
    tried: dict[str, list[Tried]] = {}
    for trial in results.tuning or []:
        tried.setdefault(trial.positions, []).append(trial)
    rows = [["Encoding", "Learning rate", "Validation accuracy at each rate tried", "Reading"]]
    for encoding, trials in tried.items():
        trials = sorted(trials, key=lambda trial: trial.learning_rate)
        each = ", ".join(
            f"{trial.learning_rate:g}: {'not finite' if trial.validation is None else percent(trial.validation)}"
            for trial in trials
        )
        chosen = next((index for index, trial in enumerate(trials) if trial.chosen), None)
        rate = NOTHING if chosen is None else f"{trials[chosen].learning_rate:g}"
        rows.append([encoding, rate, each, _place(chosen, len(trials))])
    return rows if len(rows) > 1 else []


def _place(chosen: int | None, tried: int) -> str:
    """Whether the best of the `tried` rates, in ascending order, has others on both sides."""
    if chosen is None:
        return "not chosen yet"
    if tried == 1:
        return "the only one tried"
    if chosen in (0, tried - 1):
        return f"at the edge of the grid: {'lower' if chosen == 0 else 'higher'} ones may be better"
    return "inside the grid"


def paired_rows(results: Results) -> Rows:
    """Paired differences of test accuracy between encodings, in points of per cent; no rows where there are none."""
    rows = [[f"{entry.a} − {entry.b}", difference(entry), verdict(entry)] for entry in results.paired or []]
    return [["Difference", "Points [95 % interval]", "Reading"], *rows] if rows else []


def seconds_rows(results: Results) -> Rows:
    """How long each stage took; no rows where nothing was timed."""
    rows = [[stage, duration(value)] for stage, value in results.seconds.items()]
    return [["Stage", "Time"], *rows] if rows else []


def summaries(results: Results) -> list[Summary]:
    """The summary of `results`; without one, the mean over seeds of each encoding that was trained, no interval."""
    return results.summary or [replace(row, low=None, high=None) for row in summarize(results.scores or [])]


@dataclass(frozen=True)
class Measure:
    """How a measured number is shown.

    Args:
        title: heading, with `{k}` where the k of recall@k belongs.
        scale: what it is multiplied by for readers.
        digits: decimals.
        unit: put behind.
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
    "split_half": Measure("Split-half agreement", 100, 1, " %"),
    "changed": Measure("Neighbors changed", 100, 1, " %"),
    "test_accuracy": Measure("Test accuracy of a Perceiver", 100, 1, " %"),
    "minutes": Measure("Minutes", 1 / 60, 1),
    "seconds": Measure("Seconds", 1, 1),
    "streaming": Measure("Streaming, seconds", 1, 1),
}
"""What a study measures, in the order of its tables."""


def measured(cell: Cell, of: str, name: str, reduction: int = 0) -> float | None:
    """A number of a study's cell: a metric of the embedding `of` maed or a baseline, of its similarity, or a time.

    `minutes` and `seconds` are the seconds of everything that the embedding took: of a warm start also what it started
    from; `streaming` is that of the draws alone. None where it was not measured.
    """
    if name in ("split_half", "changed"):
        return cell.get(name) if of == "maed" else None
    if name == "streaming":
        return cell["seconds"].get("similarity") if of == "maed" else None
    if name.startswith("entries_"):
        return (cell["entries"].get(of) or {}).get(name.removeprefix("entries_"))
    found = [entry for entry in cell["embeddings"] if entry["of"] == of]
    if len(found) <= reduction:
        return None
    if name in ("minutes", "seconds"):
        stages = ["pretrain", "similarity", cell["started_from"]] if of == "maed" else [of]
        return sum(cell["seconds"][stage] for stage in stages if stage is not None) + found[reduction]["seconds"]
    return found[reduction].get(name)


def over_seeds(cells: Iterable[Cell], of: str, name: str, reduction: int = 0) -> dict[int, float]:
    """seed -> `measured`, of the seeds that have it."""
    values = {cell["seed"]: measured(cell, of, name, reduction) for cell in cells}
    return {seed: value for seed, value in values.items() if value is not None and not _missing(value)}


def gains(a: Mapping[int, float], b: Mapping[int, float], baseline: str) -> Paired | None:
    """The interval of the per-seed differences of maed, `a`, and a baseline, `b`; None without a common seed."""
    common = sorted(a.keys() & b.keys())
    return Paired("maed", baseline, *interval([a[seed] - b[seed] for seed in common]), len(common)) if common else None


def study_cells(study: Study, group: str, row: str | None = None) -> list[Cell]:
    """The cells of a group, or of one row of it, whose settings are those that the study has now."""
    return [
        cell
        for cell in study["cells"]
        if cell["group"] == group and row in (None, cell["row"]) and not cell.get("outdated")
    ]


def target_rows(study: Study) -> Rows:
    """What a study was asked to reach, and what it reached, beside each baseline; no rows where nothing was asked."""
    rows: Rows = []
    for row in study["rows"]:
        if "targets" not in row:
            continue
        cells = study_cells(study, row["group"], row["row"])
        wanted = {**row["targets"], **({"minutes": row["minutes"]} if "minutes" in row else {})}
        for name, target in wanted.items():
            rows += _target_rows(row, cells, name, target)
    header = ["Source", "Measure", "Target", "maed [95 % interval]", "Each seed", "Met"]
    return [[*header, "Baseline [95 % interval]", "maed − baseline", "Reading"], *rows] if rows else []


def _target_rows(row: dict[str, Any], cells: list[Cell], name: str, target: float | None) -> Rows:
    """One target beside the first baseline, and the other baselines on lines of their own."""
    measure, k = MEASURES[name], cells[0]["neighbors"] if cells else "k"
    head = [row["title"], measure.title.format(k=k), _target_text(row, name, target)]
    if not cells:
        return [[*head, "not run yet", *[NOTHING] * 5]]
    mine = over_seeds(cells, "maed", name)
    rows: Rows = []
    for baseline in cells[0]["baselines"]:
        theirs = over_seeds(cells, baseline, name)
        gain = None if name == "minutes" else gains(mine, theirs, baseline)
        each = {cell["seed"]: measure.text(mine[cell["seed"]]) if cell["seed"] in mine else "none" for cell in cells}
        seeds = ", ".join(f"{seed}: {text}" for seed, text in sorted(each.items()))
        complete = len(mine) == len(each) or target is None
        met = _met(row, name, target, mine, gain) if complete else "no"  # a seed that was refused missed it
        middle = [measure.mean(mine.values()), seeds, met]
        against = [f"{baseline}: {measure.mean(theirs.values())}"]
        against += [NOTHING, NOTHING] if gain is None else [measure.gain(gain), verdict(gain)]
        rows.append([*head, *middle, *against] if not rows else [*head[:2], *[""] * 4, *against])
    return rows


def _target_text(row: dict[str, Any], name: str, target: float | None) -> str:
    if target is None:
        return "reported"
    if name == "minutes":
        return f"≤ {target}"
    above = ", above the baseline" if name in row.get("above", ()) else ""
    return f"≥ {MEASURES[name].text(target)}{above}"


def _met(row: dict[str, Any], name: str, target: float | None, mine: Mapping[int, float], gain: Paired | None) -> str:
    """Whether the mean over the seeds reaches the target, and, where that is asked, the gain's interval is above 0."""
    if target is None:
        return NOTHING
    mean = sum(mine.values()) / len(mine)
    if name == "minutes":
        return "yes" if mean <= 60 * target else "no"
    above = name not in row.get("above", ()) or (gain is not None and verdict(gain) == "above")
    return "yes" if mean >= target and above else "no"


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


def study_markdown(study: Study) -> str:
    """The table of a study's targets as markdown, below what it comes from."""
    rows = target_rows(study)
    return "\n\n".join([study_origin(study["cells"]), *([markdown_table(rows)] if rows else [])]) + "\n"


def print_tables(results: Results, console: Console) -> None:
    """Print the tables of a run on a rich `console`."""
    tables = {
        "Candidates, without truth": candidate_rows(results),
        "Geometry": geometry_rows(results),
        "Learning rates": tuning_rows(results),
        "Test accuracy": accuracy_rows(results),
        "Paired differences of test accuracy": paired_rows(results),
        "Time": seconds_rows(results),
    }
    for title, rows in tables.items():
        if rows:
            console.print(_rich_table(title, rows))
    for note in results.notes:
        console.print(Text(str(note)))  # Text, not str: brackets in a name are no markup


def print_study(study: Study, console: Console) -> None:
    """Print the table of a study's targets."""
    console.print(_rich_table("Targets", target_rows(study) or [["No targets"]]))
    console.print(Text(study_origin(study["cells"])))


def accuracy(entry: Summary) -> str:
    """`52.3 % [50.1, 54.4] (3 seeds)`; a single seed has no interval."""
    return f"{percent(entry.mean)}{_interval(entry, '.1f')} ({_seeds(entry.seeds)})"


def difference(entry: Paired) -> str:
    """`+3.2 [+1.0, +5.4] (3 seeds)`, in points of per cent, with a true minus sign."""
    return f"{100 * entry.mean:+.1f}{_interval(entry, '+.1f')} ({_seeds(entry.seeds)})".replace("-", "−")


def verdict(entry: Paired) -> str:
    """What the interval of a difference says: `above`, `below`, or that the seeds do not tell."""
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


def _interval(entry: Summary | Paired, style: str) -> str:
    if entry.low is None or entry.high is None or entry.seeds == 1:
        return ""
    return f" [{100 * entry.low:{style}}, {100 * entry.high:{style}}]"


def _machine(results: Results) -> str:
    """Where it ran and how long each stage took, as one line."""
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


def study_origin(cells: Iterable[Cell]) -> str:
    """One line: how many cells, which seeds, commits and machines."""
    found = list(cells)
    if not found:
        return "No cell has been run yet."
    seeds = sorted({cell["seed"] for cell in found})
    named = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
    commits = ", ".join(sorted({_cell(cell["commit"] or "unknown")[:12] for cell in found}))
    machines = "; ".join(sorted({str(cell["machine"]) for cell in found}))
    return f"{len(found)} cell{'' if len(found) == 1 else 's'}, {named}; commits {commits}; {machines}"


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
