"""Many positions: time, memory and what is found, from thousands to a million.

    python benchmarks/many.py run                        # all cells of CELLS that are not recorded yet
    python benchmarks/many.py run --only torus-65536     # some of them, with commas between them
    python benchmarks/many.py docs                       # docs/many.md: tables and plot

Each cell is one `maed run` in a process of its own, forced onto the sparse path where the dense one would be taken;
those that begin with `agree-` take both, from the same signals.
Recorded are its results, CPU seconds (user and system, of all threads), wall time and the most memory that it had. CPU
seconds hardly depend on what else the machine does. Cells of the group `scaling` all have 360 training signals, so
that nothing but the number of positions changes.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from maed.errors import MaedError
from maed.files import read_json, write_json, write_text
from maed.machine import commit, describe_machine
from maed.plots import style
from maed.records import Results
from maed.report.tables import Measure, markdown_table
from pages import done, filled

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "many" / "many.json"
PAGE = ROOT / "docs" / "many.md"
PLOT = ROOT / "docs" / "images" / "many.svg"

ALL = ("--data.permute", "0", "--positions", "", "--trainer.progress", "none", "--report.reductions", "[]")
_CORRELATION = ("--similarity.method", "correlation")
MAED = (
    *("--similarity.method", "maed", "--autoencoder.steps", "3000", "--autoencoder.validate_every", "500"),
    *("--autoencoder.layers", "1", "--autoencoder.readout", "linear", "--autoencoder.scored", "64"),
)


def _torus(side: int, samples: int, *more: str) -> tuple[str, ...]:
    shape = f"field:torus:{side}x{side}"
    return (shape, "--data.samples", f"{samples}", "--similarity.dense_positions", "1000", *more, *ALL)


AGREE = {
    "torus": {1_024: "32x32", 2_048: "32x64"},  # a random field
    "mnist": {1_024: "32", 2_025: "45"},  # digits, resized
}
"""Where the dense and the sparse path are compared: shapes or sides of images by the number of positions."""

_SEEDS = 3


def _agree(data: str, n: int, seed: int, dense: bool) -> tuple[str, ...]:
    path = ("--similarity.dense_positions", "10000" if dense else "1000")
    seeds = ("--data.permute", f"{seed}", "--data.seed", f"{seed}", "--autoencoder.seed", f"{seed}")
    quiet = ("--trainer.progress", "none", "--report.reductions", "[]")
    if data == "torus" and n == 1_024:
        method = (*MAED, "--autoencoder.steps", "1500", "--similarity.draws", "16384", "--data.samples", "1000")
        return (f"field:torus:{AGREE[data][n]}", *method, "--positions", "", *path, *seeds, *quiet)
    # the autoencoder of the dense path is not asked for, and is trained as little as possible
    little = ("--autoencoder.steps", "20", "--similarity.draws", "512", "--embedding.force", "true", *_CORRELATION)
    if data == "torus":
        given = (f"field:torus:{AGREE[data][n]}", "--data.samples", "1000", "--positions", "")
        return (*given, *little, *path, *seeds, *quiet)
    model = ("--perceiver.latents", "16", "--perceiver.latent_width", "64", "--perceiver.layers", "2")
    train = ("--train.epochs", "4", "--train.batch_size", "32", "--train.learning_rate", "2e-3", "--trainer.precision")
    asked = ("--positions", "correlation", "--seeds", "1", *model, *train, "32-true")
    return ("mnist", "--data.image_size", AGREE[data][n], *little, *path, *asked, *seeds, *quiet)


CELLS: dict[str, tuple[str, ...]] = {
    **{f"scaling-{side**2}": _torus(side, 400, *_CORRELATION) for side in (64, 128, 256, 512, 1024)},
    "torus-16384": _torus(128, 3_000, *_CORRELATION),
    "torus-16384-maed": _torus(128, 3_000, *MAED),
    "torus-65536": _torus(256, 6_000, *_CORRELATION),
    "torus-65536-more": _torus(256, 15_000, *_CORRELATION),
    "torus-65536-maed": _torus(256, 6_000, *MAED),
    "ring-160000": ("field:ring:160000", "--data.samples", "400", *_CORRELATION, *ALL),  # ten seconds of speech
    "torus-32768-deep": ("field:torus:32x32x32", "--data.samples", "1500", *_CORRELATION, *ALL),  # 32 small frames
    "cifar10-50176": (
        *("cifar10", "--data.image_size", "224", "--data.limit", "3000"),
        *(*MAED, *ALL),
    ),
    **{
        f"agree-{data}-{n}-{'dense' if dense else 'sparse'}-{seed}": _agree(data, n, seed, dense)
        for data, sizes in AGREE.items()
        for n in sizes
        for seed in range(_SEEDS)
        for dense in (True, False)
    },
}
"""The arguments of `maed run` of each cell."""


def run(given: argparse.Namespace) -> None:
    """Do cells that are not recorded yet."""
    recorded: dict[str, Any] = read_json(RESULTS) if RESULTS.is_file() else {"schema": 1, "cells": {}}
    wanted = given.only.split(",") if given.only else list(CELLS)
    if unknown := [name for name in wanted if name not in CELLS]:
        raise MaedError(f"only: unknown cell {', '.join(unknown)}; choose from {', '.join(CELLS)}")
    for name in wanted:
        if name in recorded["cells"] and not given.again:
            continue
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / name
            command = [sys.executable, "-m", "maed", "run", *CELLS[name], "--out", str(out)]
            started = time.monotonic()
            quiet = os.environ | {"PYTHONWARNINGS": "ignore"}
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=quiet)
            _, status, used = os.wait4(process.pid, 0)
            if status:
                raise MaedError(f"{name}: {' '.join(command)} ended with {os.waitstatus_to_exitcode(status)}")
            recorded["cells"][name] = _row(name, Results.read(out / "results.json"), used, time.monotonic() - started)
            shutil.rmtree(out)
        write_json(RESULTS, recorded)
        print(f"{name}: {recorded['cells'][name]}", flush=True)


def _row(name: str, results: Results, used: resource.struct_rusage, wall: float) -> dict[str, Any]:
    row: dict[str, Any] = {"positions": results.positions, "command": _command(name)}
    row |= {"cpu_seconds": round(used.ru_utime + used.ru_stime), "wall_seconds": round(wall)}
    row |= {"peak_gib": round(used.ru_maxrss / 2**20, 2), "seconds": results.seconds, "geometry": results.geometry}
    row |= {"split_half": results.split_half, "chosen": results.chosen, "commit": commit()}
    row["search"] = next((each for each in ("faiss", "pynndescent") if importlib.util.find_spec(each)), None)
    row["accuracy"] = results.scores[0].value if results.scores else None
    return row | {"machine": describe_machine(), "date": datetime.now(UTC).date().isoformat()}


def _command(name: str) -> str:
    return shlex.join(["maed", "run", *CELLS[name]])


def docs(given: argparse.Namespace) -> None:
    """Write the tables and the plot of docs/many.md."""
    cells = read_json(RESULTS)["cells"]
    write_text(PAGE, render(PAGE.read_text(encoding="utf-8")))
    scaling = sorted((row for name, row in cells.items() if name.startswith("scaling-")), key=lambda r: r["positions"])
    if len(scaling) > 1:
        plot(scaling, PLOT)


def render(text: str) -> str:
    """docs/many.md with the tables of what is recorded."""
    recorded = read_json(RESULTS)["cells"]
    cells = {name: recorded[name] for name in CELLS if name in recorded}
    what = ["Recall@8", "Spearman", "Coordinate R²", "CPU time", "Wall time", "Memory"]
    found = [["Cell", "Positions", "Method", *what]]
    for name, row in cells.items():
        if name.startswith("agree-"):
            continue
        for method, metrics in (row["geometry"] or {}).items():
            shares = [f"{100 * metrics['knn_recall']:.1f} %", f"{metrics['spearman']:.3f}"]
            shares.append(f"{metrics['coordinate_r2']:.3f}")
            costs = [_minutes(row["cpu_seconds"]), _minutes(row["wall_seconds"]), f"{row['peak_gib']:.1f} GiB"]
            found.append([name, f"{row['positions']:,}", method, *shares, *costs])
    shown = {name: row for name, row in cells.items() if not name.startswith("agree-")}
    commands = "\n".join(f"- `{name}`: `{_command(name)}`, commit {row['commit'][:12]}" for name, row in shown.items())
    machine, searches = next(iter(cells.values()))["machine"], {row["search"] for row in cells.values()}
    where = f"`python benchmarks/many.py run`, {machine['processor']}, {machine['cores']} threads, seed 0"
    where += f"; approximate search by {', '.join(sorted(filter(None, searches))) or 'nothing'}"
    tables = {"many": f"{where}\n\n{markdown_table(found)}\n\n{commands}"}
    if (agreeing := _agreement(cells)) is not None:
        tables["agree"] = agreeing
    return filled(text, tables)


def _agreement(cells: dict[str, Any]) -> str | None:
    """The table of the dense and the sparse path; None where nothing of it is recorded."""
    whole, points = Measure("Recall@8", 100, 1, " %"), Measure("Spearman", 1, 4)
    accuracy = Measure("Test accuracy", 100, 1, " %")
    rows: list[list[str]] = []
    commits: set[str] = set()
    for data, sizes in AGREE.items():
        for n in sizes:
            pairs = [
                [cells.get(f"agree-{data}-{n}-{path}-{seed}") for path in ("dense", "sparse")] for seed in range(_SEEDS)
            ]
            both = [(dense, sparse) for dense, sparse in pairs if dense and sparse]
            if not both:
                continue
            commits |= {row["commit"][:12] for pair in both for row in pair}
            for method in ("maed", "correlation") if (data, n) == ("torus", 1_024) else ("correlation",):
                for name, measure in (("knn_recall", whole), ("spearman", points), ("accuracy", accuracy)):
                    found = [
                        [row["accuracy"] if name == "accuracy" else row["geometry"][method][name] for row in pair]
                        for pair in both
                    ]
                    if found[0][0] is None:
                        continue
                    dense, sparse = zip(*found, strict=True)
                    gain = measure.spread([b - a for a, b in found])
                    cell = f"{data}, {n:,}"
                    rows.append([cell, method, measure.title, measure.spread(dense), measure.spread(sparse), gain])
    if not rows:
        return None
    header = ["Signals, positions", "Method", "Measure", "Dense", "Sparse", "Sparse − dense, paired"]
    example = f"`{_command('agree-mnist-1024-sparse-0')}`"
    where = f"Commits {', '.join(sorted(commits))}, {_SEEDS} seeds with their 95 % intervals; for instance {example}"
    return f"{markdown_table([header, *rows])}\n\n{where}"


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """CPU seconds and memory over positions, beside N log N through the last point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.2), layout="constrained")
    n = [row["positions"] for row in rows]
    law = [x * math.log(x) for x in n]
    for axes, key, label in zip(
        figure.subplots(1, 2), ("cpu_seconds", "peak_gib"), ("CPU time (s)", "Memory, most (GiB)"), strict=True
    ):
        values = [row[key] for row in rows]
        axes.loglog(n, values, "o-", label="measured")
        axes.loglog(n, [values[-1] * x / law[-1] for x in law], "--", color="gray", label="N log N")
        axes.set(xlabel="Positions N", ylabel=label)
        axes.legend(frameon=False)
    style.save(figure, path)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    running = verbs.add_parser("run", help=run.__doc__)
    running.add_argument("--only", default="")
    running.add_argument("--again", action="store_true", help="do those too that are recorded")
    running.set_defaults(do=run)
    verbs.add_parser("docs", help=docs.__doc__).set_defaults(do=docs)
    return done("many", parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
