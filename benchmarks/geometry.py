"""The study of docs/geometry.md: how much of a known geometry is found, by what, after how long.

    python benchmarks/geometry.py run                           # every cell of geometry.yaml that is not recorded yet
    python benchmarks/geometry.py run targets --row photos --seeds 0
    python benchmarks/geometry.py tables                        # docs/geometry.md and its figures from the records
    python benchmarks/geometry.py forget targets --row photos   # to measure it again, after the code changed

`geometry.yaml` beside this file says what is run. A cell is one source with its settings and one seed; it goes to
`results/geometry.json` as soon as it is finished. `run` can be stopped at any time and continues where it stopped,
also in the middle of a training; started twice, each process takes the cells that the other has not:

    OMP_NUM_THREADS=1 taskset -c 0 python benchmarks/geometry.py run &
    OMP_NUM_THREADS=1 taskset -c 1 python benchmarks/geometry.py run
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jsonargparse import ArgumentParser

import maed
from geometry_tables import EMPTY, write_docs
from maed.data import SignalData, load
from maed.errors import MaedError, one_of
from maed.experiments.comparison import Comparison
from maed.files import write_json
from maed.machine import commit, describe_machine
from maed.registry import BASELINES
from maed.run_folder import RunFolder
from maed.settings import (
    AutoencoderSettings,
    DataSettings,
    EmbeddingSettings,
    PerceiverSettings,
    Settings,
    SimilaritySettings,
    TrainerSettings,
    TrainSettings,
)
from maed.similarity import baseline_for
from maed.stages import Baseline, Context, Embed, Pretrain, Similarity, check_evaluation, evaluate, execute
from study import read_study

ROOT = Path(__file__).resolve().parents[1]
PLAN = Path(__file__).with_suffix(".yaml")
RESULTS = ROOT / "results" / "geometry.json"
WORK = ROOT / "runs" / "geometry"
DOCS = ROOT / "docs" / "geometry.md"

MAGNITUDES = "correlation of magnitudes"
"""The baseline of who guessed right that only the sizes of values go together."""

_GROUPS = {
    "data": DataSettings,
    "autoencoder": AutoencoderSettings,
    "similarity": SimilaritySettings,
    "embedding": EmbeddingSettings,
    "perceiver": PerceiverSettings,
    "train": TrainSettings,
}
_PARTS = tuple(name for name in _GROUPS if name != "embedding")
_PACKAGE = Path(maed.__file__).parent
_IN_A_ROW = (*_GROUPS, "source", "permuted", "title", "targets", "above", "minutes", "like", "vary")


# --- what is run --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One measurement: a source with its settings and one seed.

    Args:
        group, row: where it stands in the plan.
        varied: the settings that the row varies, by their dotted names.
        seed: seed of data, permutation, weights and draws.
        source: as `maed.data.load` takes it.
        settings: all of them; the embedding's are those of the first reduction.
        reductions: each is made of the similarity and of the baselines.
        trains: whether a Perceiver is trained with each embedding of maed.
    """

    group: str
    row: str
    varied: dict[str, Any]
    seed: int
    source: str
    settings: Settings
    reductions: tuple[EmbeddingSettings, ...]
    trains: bool = False

    def __str__(self) -> str:
        varied = "".join(f", {name} {value}" for name, value in self.varied.items())
        return f"{self.group}/{self.row}{varied}, seed {self.seed}"

    def key(self) -> tuple[str, str, str, int]:
        return self.group, self.row, json.dumps(self.varied), self.seed

    def folder(self, work: Path) -> Path:
        values = "".join(f"-{name.rpartition('.')[2]}-{value}" for name, value in self.varied.items())
        return work / f"{self.group}-{self.row}{values}-{self.seed}"

    def shared_folder(self, work: Path) -> Path:
        """Where the autoencoder and the baselines lie: cells that agree in their settings train one together."""
        parts = {name: asdict(getattr(self.settings, name)) for name in ("data", "autoencoder")}
        text = json.dumps([self.source, parts, self.settings.similarity.signals], sort_keys=True)
        return work / "shared" / hashlib.sha256(text.encode()).hexdigest()[:16]

    def made_with(self) -> dict[str, Any]:
        """What decides what is measured: a recorded cell with the same is not run again."""
        decisive = _PARTS if self.trains else ("data", "autoencoder", "similarity")
        settings = {name: asdict(getattr(self.settings, name)) for name in decisive}
        return {"source": self.source, **settings, "reductions": [asdict(reduction) for reduction in self.reductions]}


def read_plan(path: Path) -> dict[str, Any]:
    """Read the YAML file, and put `common` and what a row is `like` into each row."""
    plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    for name, group in plan["groups"].items():
        for row_name, row in group["rows"].items():
            merged = deepcopy(group.get("common") or {})
            for layer in (_liked(plan, row or {}), row or {}):
                merged = _merge(merged, layer)
            group["rows"][row_name] = merged
            for key in merged:
                one_of(f"{path.name}: {name}.{row_name}", key, _IN_A_ROW)
    return plan


def _liked(plan: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The settings of the row `GROUP/ROW` that a row is `like`, without what is asked of that one."""
    if "like" not in row:
        return {}
    group, _, name = row["like"].partition("/")
    kept = ("source", "permuted", "data", "autoencoder", "similarity")
    return {key: value for key, value in plan["groups"][group]["rows"][name].items() if key in kept}


def _merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """`above` over `below`; settings one by one."""
    result = deepcopy(below)
    for key, value in above.items():
        result[key] = {**result.get(key, {}), **value} if key in _GROUPS and key != "embedding" else value
    return result


def cells_of(plan: dict[str, Any], seeds: Sequence[int], groups: Sequence[str] = ()) -> list[Cell]:
    """The cells of some groups, or of all: every row with the first seed before any with the second."""
    for group in groups:
        one_of("group", group, tuple(plan["groups"]))
    return [
        cell
        for group in groups or plan["groups"]
        for seed in seeds
        for row in plan["groups"][group]["rows"]
        for cell in _cells(group, row, plan["groups"][group]["rows"][row], seed)
    ]


def _cells(group: str, name: str, row: dict[str, Any], seed: int) -> Iterator[Cell]:
    vary = row.get("vary", {})
    if "perceiver" in row and "train" not in row:
        raise MaedError(f"{group}/{name}: perceiver, but no train, without which none is trained")
    for values in itertools.product(*vary.values()):
        varied = dict(zip(vary, values, strict=True))
        chosen = deepcopy(row)
        for setting, value in varied.items():
            settings_group, _, member = setting.rpartition(".")
            (chosen.setdefault(settings_group, {}) if settings_group else chosen)[member] = value
        given = {part: dict(chosen.get(part) or {}) for part in _PARTS}
        given["data"] |= {"seed": seed, "permute": seed if chosen.get("permuted", True) else None}
        given["autoencoder"]["seed"] = given["similarity"]["seed"] = seed
        try:
            reductions = tuple(EmbeddingSettings(**one) for one in chosen.get("embedding") or [{}])
            settings = Settings(
                **{part: _GROUPS[part](**given[part]) for part in given},
                embedding=reductions[0],
                trainer=TrainerSettings(progress="none"),
            )
        except (TypeError, MaedError) as error:
            raise MaedError(f"{group}/{name}: {error}") from None
        yield Cell(group, name, varied, seed, chosen["source"], settings, reductions, "train" in chosen)


@cache
def _parser() -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    for part, kind in _GROUPS.items():
        parser.add_class_arguments(kind, part)
    return parser


def check(cell: Cell) -> None:
    """Refuse what the types of the settings do not allow, which dataclasses let pass."""
    given = {part: asdict(getattr(cell.settings, part)) for part in _GROUPS}
    for reduction in cell.reductions:
        try:
            _parser().parse_object({**given, "embedding": asdict(reduction)})
        except Exception as error:  # jsonargparse raises argparse's own and others
            raise MaedError(f"{cell}: {' '.join(str(error).split())}") from None
    if cell.settings.autoencoder.init not in ("random", *BASELINES.names):
        raise MaedError(
            f"{cell}: autoencoder.init: {cell.settings.autoencoder.init!r}; it must be random or a baseline"
        )


# --- the records --------------------------------------------------------------------------------------------------


@contextmanager
def locked(folder: Path, mode: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Hold `folder` against other processes; yields whether it could be had. A process that dies lets go."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, mode)
        held = True
    except BlockingIOError:
        held = False
    try:
        yield held
    finally:
        os.close(handle)


class Records:
    """The results file. Settings are kept as they differ from the defaults, which stand in it once.

    Every change is made under a lock and written whole, so that several processes share one file.
    """

    def __init__(self, path: Path, plan: dict[str, Any]) -> None:
        self.path, self.plan = path, plan

    def read(self) -> dict[str, Any]:
        return (read_study(self.path) if self.path.is_file() else None) or {**EMPTY, "defaults": _defaults()}

    def has(self, cell: Cell) -> bool:
        """Whether the cell is recorded, with the same settings."""
        there = self.read()
        return any(
            _key(one) == cell.key() and _made_with(one, there["defaults"]) == cell.made_with() for one in there["cells"]
        )

    def update(self, add: dict[str, Any] | None = None, drop: Iterable[Cell] = ()) -> None:
        """Add a record in place of the cell's old one, or drop some; titles and targets become those of the plan.

        Cells whose settings are no longer those of the plan stay, marked `outdated`: no table shows them.
        """
        with locked(self.path.parent):
            there = self.read()
            seeds = sorted({*self.plan["seeds"], *(cell["seed"] for cell in there["cells"])})
            seeds += [] if add is None or add["seed"] in seeds else [add["seed"]]
            planned = {cell.key(): cell.made_with() for cell in cells_of(self.plan, seeds)}
            dropped = {cell.key() for cell in drop}
            cells = {_key(cell): (cell, _made_with(cell, there["defaults"])) for cell in there["cells"]}
            if add is not None:
                cells[_key(add)] = (add, _made_with(add, {}))
            defaults, order = _defaults(), {key: i for i, key in enumerate(planned)}
            kept = []
            for key in sorted(cells.keys() - dropped, key=lambda key: (order.get(key, len(order)), key)):
                cell, made_with = cells[key]
                record = {**cell, "made_with": _difference(made_with, defaults)}
                record.pop("outdated", None)
                kept.append(record if planned.get(key) == made_with else {**record, "outdated": True})
            write_json(self.path, {**there, "rows": self._rows(), "defaults": defaults, "cells": kept})

    def _rows(self) -> list[dict[str, Any]]:
        """What tables need of the plan beside the cells."""
        shown = ("targets", "above", "minutes")
        return [
            {"group": group, "row": name, "title": row.get("title", name)}
            | {key: row[key] for key in shown if key in row}
            for group, content in self.plan["groups"].items()
            for name, row in content["rows"].items()
        ]


def _defaults() -> dict[str, Any]:
    return {part: asdict(kind()) for part, kind in _GROUPS.items()}


def _key(record: dict[str, Any]) -> tuple[str, str, str, int]:
    return record["group"], record["row"], json.dumps(record["varied"]), record["seed"]


def _difference(made_with: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """The settings that are not the defaults."""

    def given(part: str, settings: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in settings.items() if value != defaults[part].get(name, ...)}

    parts = {part: given(part, made_with[part]) for part in _PARTS if part in made_with}
    reductions = [given("embedding", one) for one in made_with["reductions"]]
    return {"source": made_with["source"], **parts, "reductions": reductions}


def _made_with(record: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """All settings of a record whose file has these defaults. A setting that came later had its default then."""
    now, there = _defaults(), record["made_with"]

    def whole(part: str, given: dict[str, Any]) -> dict[str, Any]:
        return {**now[part], **defaults.get(part, {}), **given}

    parts = {part: whole(part, there[part]) for part in _PARTS if part in there}
    return {"source": there["source"], **parts, "reductions": [whole("embedding", one) for one in there["reductions"]]}


# --- measuring ----------------------------------------------------------------------------------------------------


def prepare(cell: Cell, data: SignalData, work: Path) -> bool:
    """Train what the cell shares with others; False where another process is at it."""
    shared = cell.shared_folder(work)
    if RunFolder(shared).autoencoder.is_finished:
        return True
    with locked(shared, fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
        if held:
            say(f"{cell}: training")
            with suppress(MaedError):  # measure meets and records it
                execute([Pretrain()], Context(RunFolder(shared, overwrite=True), cell.settings, data))
    return held


def _baselines(context: Context) -> dict[str, tuple[Path, str]]:
    """Make the baselines; returns where the similarity of each lies, and by what method it was made."""
    where = {}
    for method in (baseline_for(context.data),):
        execute([Baseline(method)], context)
        where[method] = context.folder.path, method
    if context.settings.data.variant == "magnitude":
        train = replace(context.data.train, values=np.abs(context.data.train.values))
        where[MAGNITUDES] = context.folder.path / "magnitudes", "correlation"
        folder = RunFolder(where[MAGNITUDES][0], overwrite=True)
        execute([Baseline("correlation")], Context(folder, context.settings, replace(context.data, train=train)))
    return where


def measure(cell: Cell, data: SignalData, work: Path) -> dict[str, Any]:
    """Walk through the stages and measure every embedding. What the stages refuse is recorded as refused."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    own, shared = cell.folder(work), cell.shared_folder(work)
    before = Context(RunFolder(shared, overwrite=True), cell.settings, data)
    context = Context(RunFolder(own, shared, overwrite=True), cell.settings, data)
    record: dict[str, Any] = {
        **{"group": cell.group, "row": cell.row, "varied": cell.varied, "seed": cell.seed},
        **{"made_with": cell.made_with(), "positions": data.positions, "neighbors": context.recall_k()},
        **{"baselines": [], "started_from": None, "seconds": {}, "entries": {}, "embeddings": []},
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        where = _baselines(before)
        record["baselines"] = list(where)
        for name, (folder, method) in where.items():
            record["seconds"][name] = RunFolder(folder).similarity(method).work.seconds
        try:
            _learn(record, before, context)
            where = {"maed": (own, "maed"), **where}
        except MaedError as error:
            record["refused"] = str(error)
        _embed(record, cell, data, own, where)
    notes = [str(one.message) for one in caught if Path(one.filename).is_relative_to(_PACKAGE)]
    machine = describe_machine()
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    on = machine["accelerator"] or f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}"
    return {
        **record,
        **({"notes": list(dict.fromkeys(notes))} if notes else {}),
        "machine": f"{machine['processor']}, {on}, {versions}",
        "commit": commit(),
        "started": started,
    }


def _learn(record: dict[str, Any], before: Context, context: Context) -> None:
    """Autoencoder and similarity into `record`."""
    if context.settings.autoencoder.init in BASELINES.names:
        record["started_from"] = context.settings.autoencoder.init
    execute([Pretrain()], before)
    execute([Similarity()], context)
    trained, streamed = before.folder.autoencoder.work, context.folder.similarity().work
    losses = [point["validation_loss"] for point in trained.history]
    record |= {"visible": trained.visible, "steps": trained.history[-1]["step"], "draws": streamed.draws}
    record["loss"] = {"first": losses[0], "last": losses[-1], "best": min(losses)}
    record["split_half"] = streamed.split_half
    record["changed"] = streamed.changed[-1][1] if len(streamed.changed) > 1 else None
    record["seconds"] |= {"pretrain": trained.seconds, "similarity": streamed.seconds}


def _embed(record: dict[str, Any], cell: Cell, data: SignalData, own: Path, where: dict[str, tuple[Path, str]]) -> None:
    """Each reduction of each similarity, made anew so that its time is that of the whole, and its metrics."""
    for number, reduction in enumerate(cell.reductions):
        for of, (upstream, method) in where.items():
            out = own / "reductions" / f"{number}-{reduction.reduction}" / of.replace(" ", "-")
            settings = replace(cell.settings, embedding=reduction)
            context = Context(RunFolder(out, upstream), settings, data)
            for old in ("maed", method):  # a Perceiver that was stopped goes on
                shutil.rmtree(context.folder.embedding(old).path, ignore_errors=True)
            entry: dict[str, Any] = {"of": of, "reduction": reduction.reduction}
            start = time.perf_counter()
            try:
                execute([Embed(method)], context)
                entry["seconds"] = time.perf_counter() - start
                metrics = evaluate(context, method) or {}
                entries = {name: metrics.pop(name) for name in list(metrics) if name.startswith("entries_")}
                record["entries"][of] = {name.removeprefix("entries_"): value for name, value in entries.items()}
                entry |= metrics
            except MaedError as error:
                entry |= {"seconds": time.perf_counter() - start, "refused": str(error)}
            if cell.trains and of == "maed" and "refused" not in entry:
                trained = Comparison(Context(RunFolder(out), settings, data)).train("maed", cell.seed)
                entry |= {"test_accuracy": trained["test_accuracy"], "training_seconds": trained["seconds"]}
            record["embeddings"].append(entry)


# --- the verbs ----------------------------------------------------------------------------------------------------


def run(given: argparse.Namespace) -> int:
    """Run the chosen cells that are not recorded yet; returns how many failed."""
    plan = read_plan(given.plan)
    records = Records(given.results, plan)
    waiting = _chosen(plan, given)
    for cell in {cell.key()[:3]: cell for cell in waiting}.values():
        check(cell)
    records.update()
    failed = 0
    while waiting:
        later: list[Cell] = []
        for number, cell in enumerate(waiting):
            if records.has(cell):
                say(f"{cell}: recorded")
                continue
            if absent := _absent(cell):
                say(f"{cell}: skipped, {absent}")
                continue
            left = [*waiting[number + 1 :], *later]
            with locked(cell.folder(given.work), fcntl.LOCK_EX | fcntl.LOCK_NB) as mine:
                if not mine or records.has(cell):
                    say(f"{cell}: another process is at it, or has just recorded it")
                    continue
                try:
                    if not _run_cell(cell, records, given.work, len(left)):
                        later.append(cell)
                    elif given.discard:
                        _discard(cell, left, given.work)
                except MaedError as error:
                    say(f"{cell}: failed, {error}")
                    failed += 1
        waiting = later
        if later:
            time.sleep(2)
    return failed


def _run_cell(cell: Cell, records: Records, work: Path, left: int) -> bool:
    """Run and record a cell; False where another process is training its autoencoder."""
    start = time.perf_counter()
    data = load(cell.source, cell.settings.data)
    if cell.trains and not data.labeled:
        raise MaedError(f"train: {cell.source} has no labels for a Perceiver to learn")
    checked = Context(RunFolder(cell.folder(work)), cell.settings, data)
    Pretrain().check(checked)
    Similarity().check(checked)
    check_evaluation(checked)
    if not prepare(cell, data, work):
        return False
    say(f"{cell}: started, {left} after it")
    with locked(cell.shared_folder(work), fcntl.LOCK_SH):
        record = measure(cell, data, work)
    records.update(add=record)
    say(f"{cell}: {_summary(record)} ({time.perf_counter() - start:.0f} s)")
    return True


def _absent(cell: Cell) -> str | None:
    """Why the data cannot be had: those that are not made here must lie in `$MAED_DATA`; nothing is downloaded."""
    if cell.source not in ("cifar10", "imdb"):
        return None
    root = os.environ.get("MAED_DATA")
    there = root is not None and (Path(root) / cell.source).is_dir()
    return None if there else f"no {cell.source} in $MAED_DATA ({root or 'not set'})"


def _discard(cell: Cell, others: Iterable[Cell], work: Path) -> None:
    """Remove the cell's folder, and what it shares with others once neither they nor another process need it."""
    shutil.rmtree(cell.folder(work))
    shared = cell.shared_folder(work)
    if shared not in {other.shared_folder(work) for other in others}:
        with locked(shared, fcntl.LOCK_EX | fcntl.LOCK_NB) as held:
            if held:
                shutil.rmtree(shared)


def _summary(record: dict[str, Any]) -> str:
    if "refused" in record:
        return f"refused, {record['refused']}"
    parts = list(record.get("notes", []))
    for entry in record["embeddings"]:
        found = {"recall": entry.get("knn_recall"), "Spearman": entry.get("spearman"), "R2": entry.get("coordinate_r2")}
        shown = ", ".join(f"{name} {value:.3f}" for name, value in found.items() if value is not None)
        parts.append(f"{entry['reduction']} of {entry['of']}: {shown or entry.get('refused', 'no geometry')}")
    return "; ".join(parts)


def forget(given: argparse.Namespace) -> int:
    """Drop the records and the work of the chosen cells, so that they are run anew."""
    plan = read_plan(given.plan)
    cells = _chosen(plan, given)
    for cell in cells:
        shutil.rmtree(cell.folder(given.work), ignore_errors=True)
        shutil.rmtree(cell.shared_folder(given.work), ignore_errors=True)
    Records(given.results, plan).update(drop=cells)
    return 0


def tables(given: argparse.Namespace) -> int:
    """Write the generated parts of the page, and its figures."""
    for path in write_docs(given.docs, (read_study(given.results) if given.results.is_file() else None) or EMPTY):
        say(f"wrote {path}")
    return 0


def _chosen(plan: dict[str, Any], given: argparse.Namespace) -> list[Cell]:
    seeds = plan["seeds"] if given.seeds is None else [int(seed) for seed in given.seeds.split(",")]
    cells = cells_of(plan, seeds, given.groups)
    if given.row is not None:
        one_of("row", given.row, tuple(dict.fromkeys(cell.row for cell in cells)))
    return [cell for cell in cells if given.row in (None, cell.row)]


def say(line: str) -> None:
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in (run, forget, tables):
        sub = verbs.add_parser(verb.__name__, help=verb.__doc__, description=verb.__doc__)
        sub.set_defaults(do=verb)
        sub.add_argument("--results", type=Path, default=RESULTS, help="the records (results/geometry.json)")
        if verb is tables:
            sub.add_argument("--docs", type=Path, default=DOCS, help="the page (docs/geometry.md)")
            continue
        sub.add_argument("groups", nargs="*", metavar="GROUP", help="groups of the plan; all by default")
        sub.add_argument("--row", help="one row of them")
        sub.add_argument("--seeds", help="comma-separated; those of the plan by default")
        sub.add_argument("--work", type=Path, default=WORK, help="where the stages lie (runs/geometry)")
        sub.add_argument("--plan", type=Path, default=PLAN, help="another plan than geometry.yaml")
        if verb is run:
            sub.add_argument("--discard", action="store_true", help="remove a cell's stages once it is recorded")
    given = parser.parse_args(arguments)
    try:
        return 1 if given.do(given) else 0
    except MaedError as error:
        print(f"geometry: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("geometry: stopped; the same command goes on where this was", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
