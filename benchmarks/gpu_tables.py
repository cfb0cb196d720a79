"""The tables of docs/gpu.md, from the records in results/gpu."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from maed.evaluation.comparison import compare_all, summarize
from maed.records import Results, Score
from maed.report.tables import accuracy_rows, duration, markdown_table, paired_rows, percent

Record = dict[str, Any]

ORIGINAL = {"trainable": 0.5928, "maed": 0.6123}
"""The original's printed test accuracies on IMDB after 50 epochs, one run each (its MAED table: see docs)."""


def tables(jobs: Sequence[Any], records: Mapping[str, Record]) -> str:
    """Every group that has a record, in the order of the plan."""
    parts = []
    for job in jobs:
        name = job.group["name"]
        of = {key: record for key, record in records.items() if record["group"] == name}
        if of:
            title = job.group["title"]
            parts.append(f"### {title if title.startswith('maed.') else title[0].upper() + title[1:]}")
            parts.append(_origin(name, list(of.values())))
            parts += _BODIES[job.group["function"]](list(of.values()))
    return "\n\n".join(parts) if parts else "Nothing is recorded yet."


def _origin(name: str, records: Sequence[Record]) -> str:
    first = records[0]
    commits = ", ".join(sorted({str(record["commit"])[:12] for record in records}))
    devices = ", ".join(sorted({f"{r['device']['name']} ({r['device']['tflops']:.0f} TFLOP/s)" for r in records}))
    torch = first["machine"]["versions"]["torch"]
    return f"`results/gpu/{name}*.json`, commit {commits}, {devices}, PyTorch {torch}"


def _steps(records: Sequence[Record]) -> list[str]:
    rows = [["Model", "Step", "Samples/s", "TFLOP/s", "Share of the limit", "Peak memory"]]
    for row in records[0]["result"]["rows"]:
        memory = "–" if row.get("peak_gib") is None else f"{row['peak_gib']:.1f} GiB"
        step = f"{1e3 * row['median']:.1f} ms"
        rows.append([row["name"], step, f"{row['samples_per_s']:.0f}", *_rate(row), memory])
    return [markdown_table(rows)]


def _rate(row: Mapping[str, Any]) -> list[str]:
    return [f"{row['tflops']:.1f}", percent(row["share"])]


def _speeds(records: Sequence[Record]) -> list[str]:
    rows = [["Work", "Precision", "Samples/s", "Share of the limit"]]
    for precision, found in records[0]["result"].items():
        for work, row in found.items():
            rows.append([work, precision, f"{row['samples_per_s']:.0f}", percent(row["share"])])
    return [markdown_table(rows)]


def _learned(records: Sequence[Record]) -> list[str]:
    rows = [["Seed", "Seconds, GPU", "CPU", "Recall@8, GPU", "CPU", "Neighbors that both have"]]
    for row in records[0]["result"]["rows"]:
        seconds = [f"{row[name]:.1f}" for name in ("seconds", "cpu_seconds")]
        recall = [percent(row[name]) for name in ("knn_recall", "cpu_knn_recall")]
        rows.append([str(row["seed"]), *seconds, *recall, percent(row["agreement"])])
    return [markdown_table(rows)]


def _trainings(records: Sequence[Record]) -> list[str]:
    trained = [record["result"] for record in records]
    scores = [Score.of(result) for result in trained]
    results = Results(scores=scores, summary=summarize(scores), paired=compare_all(scores))
    accuracies = accuracy_rows(results)
    accuracies[0] += ["Epochs", "Share of the limit"]
    for row in accuracies[1:]:
        same = [result for result in trained if result["positions"] == row[0]]
        row += [f"{same[0]['epochs']:.0f}", percent(sum(result["share"] for result in same) / len(same))]
    if records[0]["arguments"]["source"] == "imdb":
        rows = [
            [f"the original's {name}", percent(value), "one run", "–", "50", "–"] for name, value in ORIGINAL.items()
        ]
        accuracies += rows
    differences = paired_rows(results)
    return [markdown_table(accuracies), *([markdown_table(differences)] if differences else [])]


def _pretrained(records: Sequence[Record]) -> list[str]:
    result = records[0]["result"]
    last = result["history"][-1]
    rows = [["Steps", "Time", "Samples/s", "TFLOP/s", "Share of the limit", "Validation loss"]]
    speed = [f"{result['samples_per_s']:.0f}", *_rate(result)]
    rows.append([str(result["steps"]), duration(result["seconds"]), *speed, f"{last['validation_loss']:.4f}"])
    return [markdown_table(rows)]


def _many(records: Sequence[Record]) -> list[str]:
    result = records[0]["result"]
    rows = [["Method", "Recall@8", "Spearman", "Whole pipeline", "Autoencoder", "Peak memory"]]
    memory = "–" if result["peak_gib"] is None else f"{result['peak_gib']:.1f} GiB"
    spent = [duration(result["seconds"]), duration(result["stages"].get("pretrain"))]
    for method, found in result["geometry"].items():
        rows.append([method, percent(found["knn_recall"]), f"{found['spearman']:.3f}", *spent, memory])
    return [f"`{result['command']}`", markdown_table(rows)]


_BODIES = {
    "perceiver_step": _steps,
    "autoencoder_speed": _speeds,
    "learn_agreement": _learned,
    "train": _trainings,
    "pretrain": _pretrained,
    "many": _many,
    "pretrained": _trainings,
}
