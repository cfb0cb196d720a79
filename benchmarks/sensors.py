"""What `maed.learn` takes and finds on real sensors, by its defaults: nine sets whose geometry is known.

    python benchmarks/sensors.py run [--sets eeg64,usps] [--seeds 3]   # every cell that is not recorded yet
    python benchmarks/sensors.py study [--sets eeg64,usps]             # of the probe: does it order as recall does?
    python benchmarks/sensors.py maps                                  # docs/images/sensors-NAME.png, of the first seed
    python benchmarks/sensors.py docs                                  # the tables of docs/sensors.md

The sets lie in `sensors/NAME/NAME.npz` below $MAED_DATA: `inputs`, shuffled here by the seed, and `coordinates`,
which are read only afterwards. Signals that miss every position are left out. One cell is one set with one seed, and
written as soon as it is done; its vectors stay in runs/sensors, where the study finds them. Sources of
docs/geometry.md can be run alike (`--sets sphere,magnitude,photos,imdb`): their positions are permuted by the seed.
The study adds partial correlation with three ridges, absolute and positive, and the true positions, and probes all of
them for several lengths. Recall is that of the embedding, @4 on lines and @8 elsewhere, in the stored coordinates.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from scipy.spatial.distance import cdist

from maed import PositionEmbedding, PositionLearner
from maed.data import from_given, load
from maed.embedding import reduce
from maed.errors import MaedError, one_of
from maed.evaluation.geometry import knn_recall
from maed.evaluation.probe import neighbor_error, probe
from maed.files import read_json, write_json, write_text
from maed.machine import commit, describe_machine
from maed.plots import figure_of, recovered_layout, save
from maed.records import Candidate
from maed.report.tables import markdown_table
from maed.run_folder import RunFolder
from maed.settings import DataSettings, EmbeddingSettings
from maed.similarity.baselines.partial import spectra
from maed.stages.choose import best
from pages import command, filled

RESULTS = Path(__file__).parents[1] / "results" / "sensors" / "sensors.json"
STUDY = RESULTS.with_name("study.json")
PAGE = Path(__file__).parents[1] / "docs" / "sensors.md"
KEPT = Path(__file__).parents[1] / "runs" / "sensors"
LENGTHS = (100, 300)
STARTED = commit()  # of the code that runs, whatever is committed meanwhile
APART = 0.02  # recalls whose order a score is asked for
GRIDS = {"usps": (16, 16)}  # whose true neighbors are joined
LINES = ("phoneme", "nir_soil", "rna_tpp")
SOURCES: dict[str, tuple[str, dict[str, Any]]] = {
    "sphere": ("field:sphere:500", {"samples": 5_000}),
    "magnitude": ("field:sphere:500", {"samples": 10_000, "variant": "magnitude"}),
    "photos": ("photos", {}),
    "imdb": ("imdb", {"length": 512}),
}
SETS = ("eeg64", "hd_emg", "usps", "noaa_tmax", "germany_pm10", "pacific_sst", *LINES)


def read(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Signals `(n, N)` or `(n, N, C)`, true distances `(N, N)`, and how many neighbors count; positions shuffled."""
    if name in SOURCES:
        source, settings = SOURCES[name]
        data = load(source, DataSettings(permute=seed, seed=seed, **settings))
        whole = slice(None) if data.train.mask is None else data.train.mask.all(axis=1)  # texts that are long enough
        assert data.geometry is not None
        return data.train.values[whole], data.geometry.distances(), data.geometry.neighbors
    values, coordinates, _ = sensors(name, seed)
    return values, cdist(coordinates, coordinates), 4 if name in LINES else 8


def sensors(name: str, seed: int) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Signals `(n, N)` of a set, its coordinates `(N, D)` and names of electrodes, positions shuffled alike."""
    path = Path(os.environ.get("MAED_DATA", "../shared/data")) / "sensors" / name / f"{name}.npz"
    if not path.is_file():
        raise MaedError(f"{path} does not exist; MAED_DATA names the folder that holds sensors/")
    with np.load(path) as stored:
        values, coordinates = stored["inputs"], stored["coordinates"].astype(np.float64)
        names = stored["names"] if name == "eeg64" else None
    order = np.random.default_rng(seed).permutation(values.shape[1])
    if values.dtype.kind == "f":
        values = values[~np.isnan(values).all(axis=1)]
    return values[:, order], coordinates[order], None if names is None else [str(each) for each in names[order]]


def cell(name: str, seed: int) -> dict[str, Any]:
    """Learn by default, and measure every candidate."""
    values, true, k = read(name, seed)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        started = time.monotonic()
        learner = PositionLearner(random_state=seed, folder=folder).fit(values)
        seconds = time.monotonic() - started
        rows, kept = [], {}
        for candidate in learner.candidates_:
            row = asdict(candidate)
            if candidate.name != "random":
                vectors = PositionEmbedding.from_pretrained(
                    RunFolder(Path(folder)).embedding(candidate.name).path
                ).vectors
                kept[candidate.name] = vectors
                row["knn_recall"] = recall(vectors, true, k)
            rows.append(row)
    KEPT.mkdir(parents=True, exist_ok=True)
    save_file(kept, KEPT / f"{name}-{seed}.safetensors")
    facts = {"positions": values.shape[1], "signals": len(values), "neighbors": k, "choices": learner.choices_}
    return {"set": name, "seed": seed, "chosen": learner.method_, "seconds": seconds, "candidates": rows, **facts} | {
        "commit": STARTED,
        "machine": describe_machine(),
    }


def recall(vectors: torch.Tensor, true: np.ndarray, k: int) -> float:
    """Recall@k of vectors against true distances."""
    return knn_recall(cdist(vectors.double(), vectors.double()), true, k)


def studied(name: str, seed: int) -> dict[str, Any]:
    """Probe what a cell has found beside further candidates of known recall, for several lengths."""
    path = KEPT / f"{name}-{seed}.safetensors"
    if not path.is_file():
        raise MaedError(f"{path} does not exist; `sensors.py run --sets {name}` writes it")
    candidates = load_file(path)
    values, true, k = read(name, seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        data = from_given(values, settings=DataSettings(missing="mask", split="blocks", test=1e-9, seed=seed))
        if data.kind == "real":
            spectrum = spectra(data.train)[0]
            for ridge in (1e-3, 1e-2, 1e-1):
                p = spectrum.partial(ridge)
                for sign, matrix in (("absolute", p.abs()), ("positive", p.clamp(min=0))):
                    candidates[f"{sign} {ridge:g}"] = reduce(matrix.float(), EmbeddingSettings())
        near = np.exp(-((true / np.sort(true, axis=1)[:, k].mean()) ** 2) / 2).astype(np.float32)
        np.fill_diagonal(near, 0)
        candidates["truth"] = reduce(torch.from_numpy(near), EmbeddingSettings())
        rows: dict[str, dict[str, Any]] = {
            method: {
                "knn_recall": recall(vectors, true, k),
                "neighbor_error": float(np.mean(neighbor_error(vectors, data.train, data.validation, k))),
                "probe_loss": {},
            }
            for method, vectors in candidates.items()
        }
        seconds = {}
        for steps in LENGTHS:
            started = time.monotonic()
            for method, found in probe(candidates, data, steps=steps, seeds=2).items():
                if method in rows:
                    rows[method]["probe_loss"][str(steps)] = [found.probe_loss, found.probe_loss_se]
            seconds[str(steps)] = time.monotonic() - started
    return {"set": name, "seed": seed, "candidates": rows, "seconds": seconds} | {
        "commit": STARTED,
        "machine": describe_machine(),
    }


def study(given: argparse.Namespace) -> None:
    """Every set that is not studied yet, one seed."""
    stored: dict[str, Any] = {"schema": 1, "command": "python benchmarks/sensors.py study"}
    stored = read_json(STUDY) if STUDY.is_file() else stored
    found = stored.setdefault("sets", [])
    done = {each["set"] for each in found}
    for name in given.sets.split(","):
        one_of("set", name, (*SETS, *SOURCES))
        if name not in done:
            found.append(studied(name, 0))
            write_json(STUDY, stored)
            print(f"{name}: {found[-1]['seconds']}", flush=True)


def ordered(rows: dict[str, dict[str, Any]], score: str, apart: float) -> tuple[int, int]:
    """How many pairs of candidates a score puts in the order of recall, and of how many whose recalls are `apart`."""

    def value(row: dict[str, Any]) -> float:
        return row["neighbor_error"] if score == "neighbor error" else row["probe_loss"][score][0]

    pairs = [(a, b) for a in rows.values() for b in rows.values() if a["knn_recall"] > b["knn_recall"] + apart]
    return sum(value(a) < value(b) for a, b in pairs), len(pairs)


def run(given: argparse.Namespace) -> None:
    """Every cell that is not recorded, seeds in turn."""
    stored: dict[str, Any] = {"schema": 1, "command": "python benchmarks/sensors.py run"}
    stored = read_json(RESULTS) if RESULTS.is_file() else stored
    found = stored.setdefault("cells", [])
    done = {(each["set"], each["seed"]) for each in found}
    for seed in range(given.seeds):
        for name in given.sets.split(","):
            one_of("set", name, (*SETS, *SOURCES))
            if (name, seed) not in done:
                found.append(cell(name, seed))
                write_json(RESULTS, stored)
                print(f"{name}, seed {seed}: {found[-1]['chosen']} in {found[-1]['seconds']:.0f} s", flush=True)


def maps(given: argparse.Namespace) -> None:
    """The layout by what was taken in the first seed, beside the truth."""
    for cell in read_json(RESULTS)["cells"]:
        name = cell["set"]
        if name in SETS and cell["seed"] == 0:
            vectors = load_file(KEPT / f"{name}-0.safetensors")[taken_of(cell["candidates"])].double().numpy()
            coordinates, names = sensors(name, 0)[1:]
            drawn = recovered_layout(vectors, coordinates, GRIDS.get(name, ()), names=names)
            save(figure_of(drawn), PAGE.parent / "images" / f"sensors-{name}.png")


def docs(given: argparse.Namespace) -> None:
    """The tables of docs/sensors.md."""
    write_text(PAGE, render(PAGE.read_text(encoding="utf-8")))


def render(text: str) -> str:
    """The page with its tables made anew from the records."""
    cells, sets = read_json(RESULTS)["cells"], read_json(STUDY)["sets"]
    sources = cells_table([each for each in cells if each["set"] in SOURCES], SOURCES)
    sensors = cells_table([each for each in cells if each["set"] in SETS], SETS)
    return filled(text, {"cells": sensors, "sources": sources, "study": study_table(sets)})


def cells_table(cells: list[dict[str, Any]], sets: Iterable[str]) -> str:
    """Recall of what was taken and of every candidate, means over seeds, with their probe losses above the best."""
    methods = sorted({row["name"] for each in cells for row in each["candidates"]} - {"random", "maed"})
    methods = ["maed", *methods]
    rows = [["Set", "N", "Seeds", "Taken", "Recall", "Seconds", *methods]]
    for name in sets:
        same = [each for each in cells if each["set"] == name]
        if not same:
            continue
        of = [{row["name"]: row for row in each["candidates"]} for each in same]
        taken = [taken_of(rows_of.values()) for rows_of in of]
        shown = []
        for method in methods:
            found = [rows_of[method] for rows_of in of if method in rows_of]
            apart = f" ({_mean(found, 'probe_loss_above'):.4f} ± {_mean(found, 'probe_loss_se'):.4f})" if found else ""
            shown.append(f"{_mean(found, 'knn_recall'):.3f}{apart}" if found else "-")
        recalls = [rows_of[chosen]["knn_recall"] for rows_of, chosen in zip(of, taken, strict=True)]
        counts = ", ".join(f"{method} {taken.count(method)}" for method in sorted(set(taken)))
        numbers = [str(same[0]["positions"]), str(len(same)), counts, f"{np.mean(recalls):.3f}"]
        rows.append([name, *numbers, f"{np.median([each['seconds'] for each in same]):.0f}", *shown])
    return f"{markdown_table(rows)}\n\n{_origin(cells)}"


def taken_of(rows: Iterable[dict[str, Any]]) -> str:
    """The candidate that today's rule takes of recorded ones."""
    known = [field.name for field in fields(Candidate)]
    return best([Candidate(**{name: row[name] for name in known}) for row in rows if row["name"] != "random"])


def study_table(found: list[dict[str, Any]]) -> str:
    """Shares of pairs in the order of recall, by the probe after several lengths and by a simpler score."""
    scores = [*map(str, LENGTHS), "neighbor error"]
    titles = [f"Probe, {score} steps" if score.isdigit() else score.capitalize() for score in scores]
    rows = [["Set", "Candidates", "Pairs", *titles, "Recall of the best by 300 steps", "Best recall"]]
    total = np.zeros((len(scores), 2), dtype=int)
    for each in found:
        candidates = {method: row for method, row in each["candidates"].items() if method != "truth"}
        counts = np.array([ordered(candidates, score, APART) for score in scores])
        total += counts
        best = min(candidates.values(), key=lambda row: row["probe_loss"]["300"][0])["knn_recall"]
        most = max(row["knn_recall"] for row in candidates.values())
        shares = [f"{right} ({100 * right / pairs:.0f} %)" if pairs else "-" for right, pairs in counts]
        rows.append([each["set"], str(len(candidates)), str(counts[0][1]), *shares, f"{best:.3f}", f"{most:.3f}"])
    if found:
        shares = [f"{right} ({100 * right / pairs:.0f} %)" for right, pairs in total]
        rows.append(["all", "", str(total[0][1]), *shares, "", ""])
    return f"{markdown_table(rows)}\n\n{_origin(found)}"


def _origin(cells: list[dict[str, Any]]) -> str:
    """Commits, seeds and machines."""
    commits = ", ".join(sorted({str(each["commit"])[:7] for each in cells}))
    seeds = ", ".join(map(str, sorted({each["seed"] for each in cells})))
    described = [each["machine"] for each in cells]
    machines = "; ".join(sorted({f"{machine['processor']}, {machine['cores']} cores" for machine in described}))
    torch_versions = ", ".join(sorted({each["machine"]["versions"]["torch"] for each in cells}))
    return f"Commits {commits}; seeds {seeds}; {machines}; PyTorch {torch_versions}."


def _mean(rows: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([row[name] for row in rows]))


if __name__ == "__main__":
    sys.exit(command("sensors", __doc__, {"run": run, "study": study, "maps": maps, "docs": docs}, "sets", SETS))
