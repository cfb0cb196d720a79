"""Runs below a folder: where they are, what state they are in, what came out. No tensor is read, nothing written."""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Literal

from safetensors import SafetensorError, safe_open

from maed.errors import MaedError
from maed.files import read_json
from maed.records import Results
from maed.report import tables
from maed.run_folder import CONFIG, EXAMPLES, METRICS, MODEL, STAGE, RunFolder, StageFolder
from maed.server.progress import Part, read_parts, whole
from maed.tasks import metric_of

State = Literal["done", "going on", "stopped", "damaged"]

DEPTH = 3
"""Depth to which runs are searched below the folder."""

QUIET = 600.0
"""Seconds without a write after which something unfinished counts as stopped: testing a Perceiver writes nothing."""

SETTLED = 20.0
"""Seconds after which a run in which nothing is unfinished counts as done: between two stages nothing is, either."""

_FOLDERS = 5_000  # that are looked into for runs
_FILES = 20_000  # of one run
_LEVELS = 5  # of folders in a run: models/tune/maed-0.001/logs
_LISTED = 3  # encodings

_RUN = RunFolder(Path())
_RESULTS, _REPORT, _VIEWS = (path.as_posix() for path in (_RUN.results, _RUN.report, _RUN.views))
_MARKS = (CONFIG, METRICS, MODEL, EXAMPLES)
_EXPLORABLE = (_RUN.results, _RUN.embedding().model, _RUN.similarity().model, _RUN.autoencoder.examples)
"""Files with a section in the page, in addition to every trained model."""


@dataclass(frozen=True)
class Overview:
    """A run in a line of a table.

    Args:
        name: Path of the run below the folder that is served.
        state: `done` where nothing is unfinished; what is unfinished is `going on` if it was written lately, otherwise
            `stopped`; `damaged` where the folder cannot be read.
        reason: Why it is damaged.
        source: Origin of the signals.
        positions: N.
        parts: The stages and trainings that it has, those first that were first.
        recall: Recall@k of the embedding of `maed`, and k.
        spearman: Spearman correlation of that embedding.
        best: Encodings with their test accuracies, the best first.
        written: When a file of it was last written, in seconds since 1970.
        signature: Changes with all that its page shows.
        explorable: True if anything of the run can be shown on a page.
    """

    name: str
    state: State
    reason: str = ""
    source: str = ""
    positions: int | None = None
    parts: list[Part] = field(default_factory=list)
    recall: str = tables.NOTHING
    spearman: str = tables.NOTHING
    best: list[str] = field(default_factory=list)
    written: float = 0.0
    signature: str = ""
    explorable: bool = False

    @property
    def current(self) -> Part | None:
        """The unfinished part that was written last."""
        return max((part for part in self.parts if not part.finished), key=lambda part: part.written, default=None)

    @property
    def stage(self) -> str:
        """The progress of the run, in words."""
        if self.state != "done" and self.current is not None:
            return f"{self.current.title}{self.current.progress}"
        trained = sum(part.is_model and not part.tunes and not part.pretrains for part in self.parts)
        if trained:
            return f"{trained} Perceiver{'' if trained == 1 else 's'}"
        main = [part.title for part in self.parts if part.is_main]
        return main[-1] if main else tables.NOTHING


def find_runs(root: Path) -> dict[str, Path]:
    """The run folders below `root`, or `root` itself, by their paths below it; links are not followed.

    Args:
        root: a resolved path.
    """
    if RunFolder(root).is_run:
        return {root.name or "run": root}
    found: dict[str, Path] = {}
    waiting = deque([(root, 0)])
    for _ in range(_FOLDERS):
        if not waiting:
            break
        folder, depth = waiting.popleft()
        for entry in _entries(folder):
            if entry.name.startswith(".") or not entry.is_dir(follow_symlinks=False):
                continue
            path = Path(entry.path)
            if RunFolder(path).is_run:
                found[path.relative_to(root).as_posix()] = path
            elif depth + 1 < DEPTH:
                waiting.append((path, depth + 1))
    return dict(sorted(found.items()))


def overview(root: Path, name: str, folder: Path, now: float | None = None) -> Overview:
    """The state and progress of a run; one that cannot be read is `damaged`, with the reason.

    Args:
        root: Nothing outside of it is read.
        name: Name of the run.
        folder: Folder of the run.
        now: Seconds since 1970; None for the present.
    """
    written, signature = 0.0, ""
    try:
        files = scan(root, folder)
        written = max((found.st_mtime for found in files.values()), default=0.0)
        shown = {path: found for path, found in files.items() if _is_shown(path)}
        signature = repr(sorted((path, found.st_mtime_ns, found.st_size) for path, found in shown.items()))
        results = Results.read(folder / _RESULTS) if _RESULTS in files else Results()
        parts = read_parts(folder, files)
        unfinished = [f"{part.name}/" for part in parts if not part.finished]
        for path, found in shown.items():
            if not path.startswith(tuple(unfinished)) and (wrong := _fault(folder / path, found.st_mtime_ns)):
                raise MaedError(f"{path}: {wrong}")
        stages = [StageFolder(folder / part.name) for part in parts if not part.is_model]
        sources = [results.source, *(source for each in stages for source in (each.work.source, each.made_with.source))]
        positions = [results.positions, *(stage.work.n for stage in stages)]
        maed, k = results.metrics("maed"), results.neighbors
        recall = tables.percent(maed.get("knn_recall"))
        summary = tables.summaries(results)
        most = max((entry.labels or 0 for entry in summary), default=0)
        ranked = sorted(
            (entry for entry in summary if (entry.labels or 0) == most),
            key=lambda entry: metric_of(entry.task, entry.metric).better(entry.mean, 0.0),
            reverse=True,
        )
        return Overview(
            name,
            _state(parts, files, results, written, time.time() if now is None else now),
            source=str(next(filter(None, sources), "")),
            positions=whole(next(filter(None, positions), None)),
            parts=parts,
            recall=f"{recall} @{k}" if k and recall != tables.NOTHING else recall,
            spearman=tables.decimal(maed.get("spearman")),
            best=[f"{tables.accuracy(entry).rpartition(' (')[0]} {entry.arm}" for entry in ranked[:_LISTED]],
            written=written,
            signature=signature,
            explorable=any(Path(path) in _EXPLORABLE or path.endswith(f"/{METRICS}") for path in files),
        )
    except FileNotFoundError:  # a run that is going on, or was moved; the next look will tell
        reason = "a file went away while it was read"
    except (MaedError, OSError) as error:
        reason = str(error).replace(f"{folder}/", "").replace(str(folder), name)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:  # JSON of another shape
        reason = f"{_RESULTS} or a {CONFIG} is not as maed writes it ({error})"
    return Overview(name, "damaged", reason, written=written, signature=signature)


def scan(root: Path, folder: Path) -> dict[str, os.stat_result]:
    """The files of a run by their paths below it.

    Raises:
        MaedError: a link that leads out of `root`, something that is not a plain file, or far too many files.
    """
    files: dict[str, os.stat_result] = {}
    waiting = deque([(folder, 0)])
    while waiting:
        below, depth = waiting.popleft()
        for entry in _entries(below):
            path = Path(entry.path).relative_to(folder).as_posix()
            if entry.is_symlink() and not Path(entry.path).resolve().is_relative_to(root):
                raise MaedError(f"{path} is a link to outside the folder that is served")
            try:
                found = entry.stat()
            except FileNotFoundError:  # a temporary file that has been renamed
                continue
            if stat.S_ISDIR(found.st_mode):
                if depth < _LEVELS:
                    waiting.append((Path(entry.path), depth + 1))
            elif not stat.S_ISREG(found.st_mode):
                raise MaedError(f"{path} is not a plain file")
            else:
                files[path] = found
            if len(files) > _FILES:
                raise MaedError(f"holds more than {_FILES:,} files")
    return files


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Entries of a folder; empty if it is absent or cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []


def _is_shown(path: str) -> bool:
    """True if the page of a run is made of this file."""
    top, _, name = path.rpartition("/")
    stage = STAGE.fullmatch(top)
    return path in (_RESULTS, _VIEWS) or (
        name in _MARKS and stage is not None and not (stage["tuning"] or stage["pretraining"])
    )


@lru_cache(maxsize=16_384)
def _fault(path: Path, written: int) -> str:
    """The fault of a file unchanged since `written`; empty if it can be read."""
    try:
        if path.suffix == ".json":
            read_json(path)
        else:
            with safe_open(path, framework="numpy") as file:
                file.keys()
    except (SafetensorError, OSError):
        return "not a safetensors file, or cut short"
    except MaedError:
        return "not a JSON file"
    return ""


def _state(
    parts: list[Part], files: Mapping[str, os.stat_result], results: Results, written: float, now: float
) -> State:
    lately = now - written < QUIET
    if any(not part.finished for part in parts):
        return "going on" if lately else "stopped"
    if (results.command or "").startswith("maed run"):  # it ends with a report
        reported = files.get(_REPORT)
        if reported is not None and reported.st_mtime_ns >= files[_RESULTS].st_mtime_ns:
            return "done"
        return "going on" if lately else "stopped"
    return "going on" if now - written < SETTLED else "done"
