"""Everything that takes time, side by side in one run, for docs/performance.md.

    python benchmarks/bench.py run             # `make bench`: every cell that is not recorded yet, about 20 minutes
    python benchmarks/bench.py run --quick     # `make bench-quick`: smaller cells, in about four minutes
    python benchmarks/bench.py docs            # the tables of docs/performance.md

A cell runs in a process of its own, so that its peak of memory is its own; contestants within it take turns. Each is
written to `results/bench/{full,quick}.json` as soon as it is done, with commit and machine: after a stop the same
command goes on. TorchDR and perceiver-pytorch take part where they are installed (`pip install torchdr==0.5 faiss-cpu
'perceiver-pytorch==0.8.*'`). What is timed on GPUs stands in gpu.yaml.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from maed.errors import MaedError, one_of
from maed.files import read_json, write_json, write_text
from maed.machine import commit, describe_machine, keep_freed_memory
from maed.report.tables import NOTHING, markdown_table
from pages import done, filled

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "bench"
PAGE = ROOT / "docs" / "performance.md"

Rows = list[dict[str, Any]]


# --- cells: each returns rows of what was measured ----------------------------------------------------------------


def training(n: int, kind: Literal["set", "unet"], batch: int, repeats: int) -> Rows:
    """Training steps of an autoencoder: set-style with 16 visible and 256 scored positions, or the original's U-Net."""
    import autoencoder

    own: dict[str, Any] = (
        {"visible": 16, "scored": 256} if kind == "set" else {"visible": max(1, n // 100), "scored": min(n, 1024)}
    )
    found = autoencoder.step(n=n, kind=kind, batch=batch, repeats=repeats, **own)
    return [{"samples_per_s": found["samples_per_s"], "share": found["share"] if kind == "set" else None}]


def streaming(n: int, repeats: int) -> Rows:
    """Draws that are streamed into a similarity of all pairs."""
    import autoencoder

    found = autoencoder.streaming(n=n, repeats=repeats)
    return [{"samples_per_s": found["samples_per_s"], "share": found["share"]}]


def candidates(side: int) -> Rows:
    """The sparse similarity of correlation: 32 candidates of each of side^2 positions, from 360 signals."""
    from maed.data import load
    from maed.settings import DataSettings
    from maed.similarity.pairs import correlated_pairs

    data = load(f"field:torus:{side}x{side}", DataSettings(samples=400, permute=0))
    started = time.perf_counter()
    found = correlated_pairs(data.train)
    seconds = time.perf_counter() - started
    return [{"seconds": seconds, "positions_per_s": side**2 / seconds, "found": found.facts["candidate_recall"]}]


def reductions(height: int, width: int) -> Rows:
    """Every reduction of one similarity of all pairs: the correlation of 360 signals on a torus."""
    from maed.data import load
    from maed.embedding import reduce
    from maed.evaluation.geometry import geometry_metrics
    from maed.registry import REDUCTIONS
    from maed.settings import DataSettings, EmbeddingSettings, EvaluationSettings
    from maed.similarity.moments import absolute_correlation

    data = load(f"field:torus:{height}x{width}", DataSettings(samples=400, permute=0))
    assert data.geometry is not None
    similarity = absolute_correlation(data.train)
    values, error = similarity.arrays()
    for name in REDUCTIONS.built_in:
        REDUCTIONS.get(name)  # what it imports is not timed
    rows: Rows = []
    for name in REDUCTIONS.built_in:
        settings = EmbeddingSettings(reduction=name, dim=2 if name == "tsne" else 64)
        started = time.perf_counter()
        vectors = reduce(values, settings, error)
        seconds = time.perf_counter() - started
        metrics = geometry_metrics(vectors, data.geometry, EvaluationSettings())
        rows.append({"name": f"{name}, {settings.dim} channels", "seconds": seconds, **metrics})
    return rows


def perceiver(size: str, rounds: int) -> Rows:
    """Training steps of Perceivers that compute the same, in turns."""
    import perceiver as steps

    names = ["eager 32", "eager bf16", "fused 32", "fused bf16", "perceiver-pytorch 32", "perceiver-pytorch bf16"]
    rows = steps.steps(steps.SIZES[size], names, batch=64, rounds=rounds)
    return [{"name": row["name"], "seconds": row["median"], "ratio": row["ratio"]} for row in rows]


def pipeline(source: str, samples: int, budget: str) -> Rows:
    """From signals to positions, by every method and by others' libraries: what is found, and in what time."""
    from maed import PositionLearner
    from maed.data import load
    from maed.evaluation.geometry import geometry_metrics
    from maed.settings import DataSettings, EvaluationSettings

    data = load(source, DataSettings(samples=samples, permute=0))
    assert data.geometry is not None
    geometry = data.geometry
    signals = data.train.take(np.arange(len(data.train))).numpy()
    X = np.ascontiguousarray(signals.reshape(*signals.shape[:2], -1))
    columns = np.ascontiguousarray(X.transpose(1, 0, 2).reshape(X.shape[1], -1))  # what others call samples
    columns = (columns - columns.mean(axis=1, keepdims=True)) / columns.std(axis=1, keepdims=True)

    def learned(method: str, within: str | None = None) -> Callable[[], Any]:
        return lambda: (
            PositionLearner(method=method, budget=within, random_state=0, force=True).fit(X).embedding_.vectors
        )

    ways: dict[str, Callable[[], Any]] = {
        "maed, correlation": learned("correlation"),
        "maed, partial": learned("partial"),
        "maed, autoencoder": learned("maed"),
        f"maed, autoencoder, {budget}": learned("maed", budget),
        "umap-learn, correlation of columns, 64 channels": lambda: _umap(columns),
    }
    if importlib.util.find_spec("torchdr") is not None:
        ways["TorchDR, UMAP of standardized columns, 64 channels"] = lambda: _torchdr("UMAP", columns, 64)
        ways["TorchDR, TSNE of standardized columns, 2 channels"] = lambda: _torchdr("TSNE", columns, 2)
    rows: Rows = []
    for name, way in ways.items():
        started = time.perf_counter()
        vectors = way()
        seconds = time.perf_counter() - started
        metrics = geometry_metrics(_tensor(vectors), geometry, EvaluationSettings())
        rows.append({"name": name, "seconds": seconds, **metrics})
    return rows


def _umap(columns: np.ndarray) -> Any:
    import umap

    return umap.UMAP(n_components=64, metric="correlation", random_state=0).fit_transform(columns)


def _torchdr(kind: str, columns: np.ndarray, channels: int) -> Any:
    import torchdr  # type: ignore[import-not-found]

    return getattr(torchdr, kind)(n_components=channels, random_state=0).fit_transform(columns)


def _tensor(vectors: Any) -> Any:
    import torch

    return torch.as_tensor(np.asarray(vectors), dtype=torch.float32)


def imports() -> Rows:
    """A fresh interpreter that imports the package, and one that prints the help."""
    rows: Rows = []
    for name, words in (("import maed", ["-c", "import maed"]), ("maed --help", ["-m", "maed", "--help"])):
        taken = []
        for _ in range(5):
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], check=True, stdout=subprocess.DEVNULL)
            taken.append(time.perf_counter() - started)
        rows.append({"name": name, "seconds": min(taken)})
    return rows


Cell = tuple[Callable[..., Rows], dict[str, Any]]


def cells(quick: bool) -> dict[str, Cell]:
    """What is measured, by name."""
    steps = 10 if quick else 100
    found: dict[str, Cell] = {"import": (imports, {})}
    for n, batch in ((1_024, 16), (2_048, 16), (50_176, 2)):
        unet = {"n": n, "kind": "unet", "batch": batch, "repeats": 1 if quick or n > 10_000 else 5}
        found[f"training-set-{n}"] = (training, {"n": n, "kind": "set", "batch": 128, "repeats": steps})
        found[f"training-unet-{n}"] = (training, unet)
    for n in (1_024, 2_048) if quick else (1_024, 2_048, 4_096):
        found[f"streaming-{n}"] = (streaming, {"n": n, "repeats": max(10, steps // 5)})
    for side in (64, 128) if quick else (64, 128, 256, 512, 1_024):
        found[f"candidates-{side**2}"] = (candidates, {"side": side})
    for height, width in ((32, 32),) if quick else ((32, 32), (32, 64)):
        found[f"reductions-{height * width}"] = (reductions, {"height": height, "width": width})
    found["perceiver-imdb-cpu"] = (perceiver, {"size": "imdb-cpu", "rounds": 3 if quick else 20})
    source, samples = ("field:torus:16x16", 1_000) if quick else ("field:torus:32x32", 5_000)
    found["pipeline"] = (pipeline, {"source": source, "samples": samples, "budget": "10 s"})
    return found


# --- running ------------------------------------------------------------------------------------------------------


def run(given: argparse.Namespace) -> None:
    """Do cells that are not recorded yet."""
    path = RESULTS / ("quick.json" if given.quick else "full.json")
    recorded: dict[str, Any] = read_json(path) if path.is_file() else {"schema": 1, "cells": {}}
    wanted = given.only.split(",") if given.only else list(cells(given.quick))
    for name in wanted:
        one_of("only", name, cells(given.quick))
    for name in wanted:
        if name in recorded["cells"] and not given.again:
            continue
        started = time.monotonic()
        command = [sys.executable, __file__, "one", name, *["--quick"] * given.quick]
        finished = subprocess.run(command, capture_output=True, text=True)
        if finished.returncode:
            raise MaedError(f"{name}: {(finished.stderr.strip().splitlines() or ['it was stopped'])[-1]}")
        found = json.loads(finished.stdout.splitlines()[-1])
        found |= {"seconds": time.monotonic() - started, "commit": commit(), "machine": describe_machine()}
        recorded["cells"][name] = found | {"date": datetime.now(UTC).date().isoformat()}
        write_json(path, recorded)
        print(f"{name}: {found['seconds']:.0f} s", flush=True)


def one(given: argparse.Namespace) -> None:
    """One cell, in this process, which keeps freed memory as trainings do."""
    warnings.simplefilter("ignore")
    keep_freed_memory()
    function, arguments = cells(given.quick)[given.name]
    rows = function(**arguments)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # in KiB on Linux
    print(json.dumps({"rows": rows, "peak_gib": peak}))


# --- tables -------------------------------------------------------------------------------------------------------

_TITLES = {
    "name": "What",
    "seconds": "Seconds",
    "samples_per_s": "Signals/s",
    "positions_per_s": "Positions/s",
    "share": "Share of the matrix limit",
    "ratio": "Times as fast as the first",
    "found": "Of the 8 most correlated, among candidates",
    "knn_recall": "Recall@8",
    "spearman": "Spearman",
    "coordinate_r2": "Coordinate R²",
}
_SHARES = ("share", "found", "knn_recall")


def docs(given: argparse.Namespace) -> None:
    """Write the tables of docs/performance.md."""
    write_text(PAGE, render(PAGE.read_text(encoding="utf-8")))


def render(text: str) -> str:
    """docs/performance.md with the tables of what is recorded."""
    found = {name: RESULTS / f"{name}.json" for name in ("full", "quick")}
    return filled(text, {f"bench-{name}": _tables(path) for name, path in found.items()})


def _tables(path: Path) -> str:
    if not path.is_file():
        return "Nothing is recorded yet."
    recorded = read_json(path)["cells"]
    groups: dict[str, list[tuple[str, dict[str, Any]]]] = {}
    for name in cells(path.stem == "quick"):
        if name in recorded:
            groups.setdefault(name.partition("-")[0], []).append((name, recorded[name]))
    parts = []
    for group in groups.values():
        columns = [title for title in _TITLES if any(title in row for _, cell in group for row in cell["rows"])]
        rows = [["Cell", *(_TITLES[column] for column in columns), "Peak memory"]]
        for name, cell in group:
            memory = f"{cell['peak_gib']:.2f} GiB"
            rows += [[name, *(_text(column, row.get(column)) for column in columns), memory] for row in cell["rows"]]
        parts.append(markdown_table(rows))
    machines = {f"{c['machine']['processor']}, {c['machine']['threads']} threads" for c in recorded.values()}
    commits = {str(cell["commit"])[:12] for cell in recorded.values()}
    command = f"`python benchmarks/bench.py run{' --quick' if path.stem == 'quick' else ''}`"
    return "\n\n".join([f"{command}, commit {', '.join(sorted(commits))}, {', '.join(sorted(machines))}.", *parts])


def _text(column: str, value: Any) -> str:
    if value is None:
        return NOTHING
    if column == "name":
        return str(value)
    if column in _SHARES:
        return f"{100 * value:.1f} %"
    if column in ("samples_per_s", "positions_per_s"):
        return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"
    return f"{value:.3g}" if column == "seconds" else f"{value:.2f}" if column == "ratio" else f"{value:.3f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    subs = parser.add_subparsers(required=True)
    for name, verb in (("run", run), ("one", one), ("docs", docs)):
        sub = subs.add_parser(name, help=verb.__doc__)
        sub.set_defaults(do=verb)
        if name != "docs":
            sub.add_argument("--quick", action="store_true", help="smaller cells")
        if name == "run":
            sub.add_argument("--only", help="cells, with commas between them")
            sub.add_argument("--again", action="store_true", help="recorded ones too")
        if name == "one":
            sub.add_argument("name")
    return done("bench", parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
