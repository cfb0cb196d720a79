"""The records of a study (many small runs with cells of their own, see geometry.py), and the table of its targets."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from maed.evaluation.comparison import interval
from maed.files import read_json
from maed.records import Paired, modern
from maed.report import tables
from maed.report.tables import NOTHING, Measure, Rows, markdown_table, verdict

Study = dict[str, Any]
"""The file of a study."""

Cell = dict[str, Any]
"""One measurement of a study: a source with its settings and one seed."""

_ORDER = ("entries_knn_recall", "knn_recall", "entries_spearman", "spearman", "coordinate_r2", "trustworthiness")

MEASURES = {
    **{name: tables.MEASURES[name] for name in _ORDER},
    "split_half": Measure("Split-half agreement", 100, 1, " %"),
    "changed": Measure("Neighbors changed", 100, 1, " %"),
    "test_accuracy": tables.MEASURES["test_accuracy"],
    "minutes": Measure("Minutes", 1 / 60, 1),
    "seconds": Measure("Seconds", 1, 1),
    "streaming": Measure("Streaming, seconds", 1, 1),
}
"""What a study measures, in the order of its tables."""


def read_study(path: Path) -> dict[str, Any] | None:
    """The file of a study (many small runs, with cells of their own) under the names of today; None of another file.

    Raises:
        MaedError: it is missing, or no JSON.
    """
    stored = read_json(path)
    if not (isinstance(stored, Mapping) and "study" in stored and "cells" in stored):
        return None
    return {**stored, "defaults": modern(stored.get("defaults") or {}), "cells": [*map(_modern_cell, stored["cells"])]}


def _modern_cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    found = {("neighbors" if name == "neighbours" else name): value for name, value in cell.items()}
    if "made_with" in found:
        made_with = modern(found["made_with"])
        reductions = [modern({"embedding": settings})["embedding"] for settings in made_with.get("reductions") or []]
        found["made_with"] = {**made_with, "reductions": reductions}
    return found


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
    return {seed: value for seed, value in values.items() if isinstance(value, int | float) and not math.isnan(value)}


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


def study_markdown(study: Study) -> str:
    """The table of a study's targets as markdown, below what it comes from."""
    rows = target_rows(study)
    return "\n\n".join([study_origin(study["cells"]), *([markdown_table(rows)] if rows else [])]) + "\n"


def study_origin(cells: Iterable[Cell]) -> str:
    """One line: how many cells, which seeds, commits and machines."""
    found = list(cells)
    if not found:
        return "No cell has been run yet."
    seeds = sorted({cell["seed"] for cell in found})
    named = f"{'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}"
    commits = ", ".join(sorted({(cell["commit"] or "unknown")[:12] for cell in found}))
    machines = "; ".join(sorted({str(cell["machine"]) for cell in found}))
    return f"{len(found)} cell{'' if len(found) == 1 else 's'}, {named}; commits {commits}; {machines}"
