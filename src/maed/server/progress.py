"""How far a run is, read from what its stages write while they work: no process is asked, and nothing is written."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maed.files import read_json
from maed.report.tables import duration

_TITLES = {
    "autoencoder": "Autoencoder",
    "similarity": "Similarity",
    "embedding": "Embedding",
    "baseline/similarity": "Baseline, similarity",
    "baseline/embedding": "Baseline, embedding",
}

_POINTS = 600
"""Most points of a curve."""

_LOG = 32 * 2**20
"""Most bytes of a log that are read, of its end."""

Point = dict[str, float | int]


@dataclass(frozen=True)
class Part:
    """A stage, or a training of a Perceiver.

    Args:
        name: its folder below that of the run.
        finished: whether what it was to make is there.
        written: when a file of it was last written, seconds since 1970.
        step: steps done, of optimisation or batches of draws; None where that is not known.
        steps: steps in all, as far as known. A training may end sooner.
        left: seconds until then, at the pace so far.
        seconds: what a finished one took.
    """

    name: str
    finished: bool
    written: float
    step: int | None = None
    steps: int | None = None
    left: float | None = None
    seconds: float | None = None

    @property
    def tunes(self) -> bool:
        """Whether it only tells a learning rate's worth."""
        return self.name.startswith("perceiver/tune/")

    @property
    def title(self) -> str:
        """What it is called."""
        if self.name in _TITLES:
            return _TITLES[self.name]
        name = self.name.rpartition("/")[2]
        found = re.fullmatch(r"(.+?)-([0-9][0-9.e-]*)", name)
        encoding, number = found.groups() if found else (name, "")
        return f"Perceiver {encoding}{', learning rate' if self.tunes else ', seed'} {number}"

    @property
    def progress(self) -> str:
        """Step of steps, as words to append."""
        if self.step is None:
            return ""
        of = "" if self.steps is None else f" of {self.steps:,}"
        return f", {'batch' if self.name == 'similarity' else 'step'} {self.step:,}{of}"

    @property
    def remaining(self) -> str:
        """The time that is left, in words; empty where it is not known."""
        if self.left is None:
            return ""
        if self.left < 90:
            return f"about {max(1, round(self.left / 10)) * 10} s left"
        return f"about {duration(60 * round(self.left / 60)).removesuffix(' 00 s')} left"


def read_parts(folder: Path, files: Mapping[str, os.stat_result], results: Mapping[str, Any]) -> list[Part]:
    """The parts of a run, in the order in which they were first, or were begun.

    Args:
        folder: of the run.
        files: by their paths below it.
        results: its results.json, which has the settings of the whole run.
    """
    grouped: dict[str, list[str]] = {}
    for path in files:
        if part := _part_of(path):
            grouped.setdefault(part, []).append(path)
    parts = [_read_part(folder, name, files, paths, results) for name, paths in grouped.items()]
    parts.sort(key=lambda part: (list(_TITLES).index(part.name) if part.name in _TITLES else 9, part.written))
    return [part for part in parts if not _given_up(part, parts)]


def curve(folder: Path, part: Part) -> list[Point]:
    """What a training has logged so far: points of `step` and of the losses and accuracies that were logged there."""
    return _thinned(_rows(folder / part.name / "logs" / "metrics.csv"))


def whole(value: Any) -> int | None:
    """A whole number from a file; None of anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _part_of(path: str) -> str:
    """The part that a file belongs to; empty of files beside them."""
    names = path.split("/")[:-1]
    for length in (1, 2):
        if "/".join(names[:length]) in _TITLES:
            return "/".join(names[:length])
    if names[:2] == ["perceiver", "tune"]:
        return "/".join(names[:3]) if len(names) > 2 else ""
    return "/".join(names[:2]) if names[:1] == ["perceiver"] and len(names) > 1 else ""


def _given_up(part: Part, parts: Iterable[Part]) -> bool:
    """Whether it is a learning rate with which the loss was not finite: unfinished, and others were tried after it."""
    return part.tunes and not part.finished and any(other.written > part.written for other in parts if other.finished)


def _read_part(
    folder: Path, name: str, files: Mapping[str, os.stat_result], paths: list[str], results: Mapping[str, Any]
) -> Part:
    wanted = ["model.safetensors", *(["metrics.json"] if name.startswith("perceiver/") else [])]
    finished = all(f"{name}/{file}" in files for file in wanted)
    written = max(files[path].st_mtime for path in paths)
    if finished:
        return Part(name, True, written, seconds=_seconds(folder, name, files))
    if name == "similarity":
        return Part(name, False, written, *_streamed(folder, files))
    if name == "autoencoder" or name.startswith("perceiver/"):
        steps = _steps(folder, name, files, results)
        return Part(name, False, written, *_trained(folder / name / "logs" / "metrics.csv", steps))
    return Part(name, False, written)


def _seconds(folder: Path, name: str, files: Mapping[str, os.stat_result]) -> float | None:
    """What a finished part took, where it says so."""
    for file in ("metrics.json", "config.json"):
        if f"{name}/{file}" in files:
            seconds = read_json(folder / name / file).get("seconds")
            if isinstance(seconds, float | int):
                return float(seconds)
    return None


def _streamed(folder: Path, files: Mapping[str, os.stat_result]) -> tuple[int | None, int | None, float | None]:
    """Batches done, in all, and seconds left, by the last save of a stream of draws."""
    made_with = read_json(folder / "similarity" / "config.json").get("made_with") or {}
    settings = made_with.get("similarity") or {}
    draws, size = settings.get("draws"), settings.get("batch_size")
    batches = max(2, -(-draws // size)) if draws and size else None
    if "similarity/partial.json" not in files:
        return None, batches, None
    saved = read_json(folder / "similarity" / "partial.json")
    done, seconds = int(saved["done"]), float(saved["seconds"])
    return done, batches, seconds / done * (batches - done) if batches and done else None


def _steps(folder: Path, name: str, files: Mapping[str, os.stat_result], results: Mapping[str, Any]) -> int | None:
    """How many steps a training has, where the run's settings tell."""
    if name == "autoencoder":
        made_with = read_json(folder / name / "config.json").get("made_with") if f"{name}/config.json" in files else {}
        return whole(((made_with or {}).get("autoencoder") or {}).get("steps"))
    train = (results.get("settings") or {}).get("train") or {}
    if name.startswith("perceiver/tune/"):
        return whole(train.get("tune_steps") or train.get("steps"))
    # epochs may end it sooner, or alone do: then the trainings before it tell
    ended = [(row.get("history") or [{}])[-1].get("step") for row in results.get("classification") or []]
    return max((step for step in map(whole, ended) if step is not None), default=whole(train.get("steps")))


def _trained(log: Path, steps: int | None) -> tuple[int | None, int | None, float | None]:
    """Steps done, in all, and seconds left, by Lightning's log: its folder was last changed when it was first written.

    A training that goes on starts a new log, so that its pace is that of now.
    """
    rows = _rows(log)
    if not rows:
        return None, steps, None
    first, done = int(rows[0]["step"]), int(rows[-1]["step"])
    try:
        elapsed = log.stat().st_mtime - log.parent.stat().st_mtime
    except OSError:
        return done, steps, None
    if steps is None or done <= first or elapsed <= 0:
        return done, steps, None
    return done, steps, max(0.0, elapsed / (done - first) * (steps - done))


def _rows(log: Path) -> list[Point]:
    """The rows of a log: steps count from 1, and a cell that is empty or cut short is left out."""
    try:
        with log.open("rb") as file:
            header = file.readline().decode("utf-8", "replace")
            if log.stat().st_size > _LOG:
                file.seek(-_LOG, os.SEEK_END)
                file.readline()
            text = file.read(_LOG).decode("utf-8", "replace")
    except OSError:
        return []
    points: list[Point] = []
    names = header.strip().split(",")
    for cells in csv.reader(line for line in text.split("\n")[:-1] if "\0" not in line):
        found = {key: number for key, cell in zip(names, cells, strict=False) if (number := _number(cell)) is not None}
        if "step" in found and len(cells) == len(names):
            points.append({**found, "step": int(found["step"]) + 1})
    return points


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None  # nor not-a-number


def _thinned(points: list[Point]) -> list[Point]:
    """Every so many of the training's points, and each of a validation."""
    logged = [point for point in points if "train_loss" in point]
    stride = -(-len(logged) // _POINTS) or 1
    kept = [*logged[::stride][:-1], *logged[-1:]]
    kept += [point for point in points if "train_loss" not in point]
    return sorted(kept, key=lambda point: point["step"])
