"""What `maed.learn` takes and finds on real sensors, by its defaults: nine sets whose geometry is known.

    python benchmarks/sensors.py run [--sets eeg64,usps] [--seeds 3]   # every cell that is not recorded yet
    python benchmarks/sensors.py table                                 # of results/sensors.json, as markdown

The sets lie in `sensors/NAME/NAME.npz` below $MAED_DATA: `inputs`, shuffled here by the seed, and `coordinates`, which
are read only afterwards. Signals that miss every position are left out. One cell is one set with one seed, and written
as soon as it is done. Recall is that of the embedding, @4 on lines and @8 elsewhere, in the stored coordinates.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.distance import cdist

from maed import PositionEmbedding, PositionLearner
from maed.errors import MaedError, one_of
from maed.evaluation.geometry import knn_recall
from maed.files import read_json, write_json
from maed.machine import commit, describe_machine
from maed.report.tables import markdown_table
from maed.run_folder import RunFolder

RESULTS = Path(__file__).parents[1] / "results" / "sensors.json"
LINES = ("phoneme", "nir_soil", "rna_tpp")
SETS = ("eeg64", "hd_emg", "usps", "noaa_tmax", "germany_pm10", "pacific_sst", *LINES)


def read(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Signals `(n, N)` and coordinates `(N, D)`, positions shuffled alike."""
    path = Path(os.environ.get("MAED_DATA", "../shared/data")) / "sensors" / name / f"{name}.npz"
    if not path.is_file():
        raise MaedError(f"{path} does not exist; MAED_DATA names the folder that holds sensors/")
    with np.load(path) as stored:
        values, coordinates = stored["inputs"], stored["coordinates"].astype(np.float64)
    order = np.random.default_rng(seed).permutation(values.shape[1])
    if values.dtype.kind == "f":
        values = values[~np.isnan(values).all(axis=1)]
    return values[:, order], coordinates[order]


def cell(name: str, seed: int) -> dict[str, Any]:
    """Learn by default, and measure every candidate."""
    values, coordinates = read(name, seed)
    true, k = cdist(coordinates, coordinates), 4 if name in LINES else 8
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        started = time.monotonic()
        learner = PositionLearner(random_state=seed, folder=folder).fit(values)
        seconds = time.monotonic() - started
        rows = []
        for candidate in learner.candidates_:
            row = asdict(candidate)
            if candidate.name != "random":
                vectors = PositionEmbedding.from_pretrained(
                    RunFolder(Path(folder)).embedding(candidate.name).path
                ).vectors
                distances = cdist(vectors.double(), vectors.double())
                row["knn_recall"] = knn_recall(distances, true, k)
            rows.append(row)
    facts = {"positions": values.shape[1], "signals": len(values), "neighbors": k, "choices": learner.choices_}
    return {"set": name, "seed": seed, "chosen": learner.method_, "seconds": seconds, "candidates": rows, **facts} | {
        "commit": commit(),
        "machine": describe_machine(),
    }


def run(given: argparse.Namespace) -> None:
    """Every cell that is not recorded, seeds in turn."""
    found = read_json(RESULTS)["cells"] if RESULTS.is_file() else []
    done = {(each["set"], each["seed"]) for each in found}
    for seed in range(given.seeds):
        for name in given.sets.split(","):
            one_of("set", name, SETS)
            if (name, seed) not in done:
                found.append(cell(name, seed))
                write_json(RESULTS, {"schema": 1, "command": "python benchmarks/sensors.py run", "cells": found})
                print(f"{name}, seed {seed}: {found[-1]['chosen']} in {found[-1]['seconds']:.0f} s", flush=True)


def table(given: argparse.Namespace) -> None:
    """Recall of what was taken and of every candidate, and the probe loss above the best, means over seeds."""
    cells = read_json(RESULTS)["cells"]
    rows = [
        ["Set", "N", "Seeds", "Taken", "Recall", "Seconds", "Candidates: recall (probe loss above the best ± error)"]
    ]
    for name in SETS:
        same = [each for each in cells if each["set"] == name]
        if not same:
            continue
        by_name: dict[str, list[dict[str, Any]]] = {}
        for each in same:
            for row in each["candidates"]:
                by_name.setdefault(row["name"], []).append(row)
        taken = [next(row for row in each["candidates"] if row["name"] == each["chosen"]) for each in same]
        shown = [
            f"{method} {_mean(rows_of, 'knn_recall'):.3f} "
            f"({_mean(rows_of, 'probe_loss_above'):.4f} ± {_mean(rows_of, 'probe_loss_se'):.4f})"
            for method, rows_of in sorted(by_name.items())
            if method != "random"
        ]
        chosen = ", ".join(sorted({each["chosen"] for each in same}))
        seconds = sum(each["seconds"] for each in same) / len(same)
        numbers = [str(same[0]["positions"]), str(len(same)), chosen, f"{_mean(taken, 'knn_recall'):.3f}"]
        rows.append([name, *numbers, f"{seconds:.0f}", "; ".join(shown)])
    print(markdown_table(rows))


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    sub = verbs.add_parser("run", help=run.__doc__)
    sub.set_defaults(do=run)
    sub.add_argument("--sets", default=",".join(SETS))
    sub.add_argument("--seeds", type=int, default=3)
    verbs.add_parser("table", help=table.__doc__).set_defaults(do=table)
    given = parser.parse_args()
    try:
        given.do(given)
    except MaedError as error:
        print(f"sensors: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
