"""Kills, damage, full disks and malformed files, counted: whatever is done to a run, it ends as if nothing had been.

    python benchmarks/torture.py quick            # a few of each, under two minutes; nothing is recorded
    python benchmarks/torture.py long             # about an hour; results/reliability/ and docs/reliability.md
    python benchmarks/torture.py long --only fuzz # one part of it, beside what is recorded of the others
    python benchmarks/torture.py docs             # the tables of docs/reliability.md

Two runs are tortured, `digits` with two Perceivers and a field without labels, each a few seconds long. This process
imports everything once and forks for each `maed run`, so that most of the time is spent where a kill can hurt.

- `kills`: SIGKILL, SIGTERM or SIGINT at a random moment of a stage, and again, until the run ends; then every number in
  its folder is compared with those of a run that nobody disturbed, bit for bit (what took how long is not compared).
- `damage`: of a stopped or finished run one file is changed (a bit flipped, cut short, emptied, overwritten, deleted,
  swapped with another); the same command then ends as if nothing had been, or says in one line what is wrong, and ends
  so after that has been deleted. A file that was not read again has to be refused by its reader.
- `disk`, `permissions`, `clock`: no space left, or no file beyond some size; a folder or file without rights; a clock
  that is years off, and files from the future.
- `fuzz`: mutated files for every reader, with bounded time and memory: read, or refused in one line.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from maed.cli import main as command_line
from maed.errors import MaedError
from maed.files import read_json, write_json, write_text
from maed.machine import commit, describe_machine
from maed.report.tables import markdown_table
from maed.tensors import read_tensors
from pages import filled

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "reliability" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"

_SMALL = (
    *("--autoencoder.steps", "60", "--autoencoder.validate_every", "20", "--autoencoder.width", "16"),
    *("--similarity.draws", "4096", "--similarity.batch_size", "64", "--evaluation.probe_steps", "8"),
    *("--evaluation.probe_seeds", "1", "--trainer.threads", "1", "--trainer.checkpoint_seconds", "0"),
    *("--trainer.accelerator", "cpu", "--trainer.progress", "none", "--embedding.force", "true"),
    *("--report.reductions", "[pca]"),
    *("--report.positions", "1", "--report.channels", "1", "--report.signals", "1"),
)
RUNS: dict[str, tuple[str, ...]] = {
    "digits": (
        *("run", "digits", "--data.limit", "300", *_SMALL, "--positions", "trainable,maed", "--seeds", "1"),
        *("--train.steps", "24", "--train.validate_every", "8", "--perceiver.latents", "4"),
        *("--perceiver.latent_width", "16", "--perceiver.layers", "1", "--perceiver.heads", "1"),
    ),
    "field": ("run", "field:ring:24", "--data.samples", "300", *_SMALL),
}
STAGES = ("load", "pretrain", "similarity", "embed", "baselines", "probes", "models", "report")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DAMAGES = ("bit", "cut", "empty", "zeros", "noise", "longer", "deleted", "swapped")
_PATIENCE = 180.0  # seconds after which a run hangs
_TIMES = re.compile(r"seconds|started|machine|commit|_s$|^files$|^command$")
_LOOKED_AT = {".csv", ".html", ".png", ".md", ".ckpt"}  # once a run is finished, nothing is computed from these


@dataclass
class Tally:
    """What was done, and what came of it.

    Args:
        done: how many of each kind.
        outcomes: how many ended how.
        failures: what should not have happened, a line each.
    """

    done: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    def fail(self, line: str) -> None:
        """Note it, and say it now."""
        self.failures.append(line)
        print(f"FAILED: {line}", file=sys.stderr, flush=True)


# --- runs in processes of their own ---------------------------------------------------------------------------------


@dataclass
class Ended:
    """How a process ended: its exit code, minus the signal where one killed it; and what it wrote to standard error."""

    code: int
    errors: str

    @property
    def is_one_line(self) -> bool:
        """Whether it was refused as it has to be: exit code 2, one line, which warnings may come before."""
        lines = [line for line in self.errors.splitlines() if not line.startswith("maed: warning: ")]
        return self.code == 2 and len(lines) == 1 and lines[0].startswith("maed: ")

    def __str__(self) -> str:
        return f"exit code {self.code}: {self.errors.strip()[-600:]}"


class Child:
    """A forked process that does something, or hangs and is ended.

    Args:
        do: returns the exit code.
        scratch: a folder for what it prints.
    """

    def __init__(self, do: Callable[[], int], scratch: Path) -> None:
        self.errors, self.told = scratch / "stderr", scratch / "stdout"
        self.told.unlink(missing_ok=True)
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # not while Python forks
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
                for number, path in ((1, self.told), (2, self.errors)):
                    os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
                code = do()
            except KeyboardInterrupt:  # before the command line begins, or behind its end
                code = 130
            except BaseException:  # as the interpreter would end
                traceback.print_exc()
            finally:
                with suppress(Exception):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        self._code: int | None = None

    @property
    def is_running(self) -> bool:
        """Whether it still works."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code is None

    def stage(self, out: Path) -> str:
        """What a run in `out` is at: its first line says that the data are loaded."""
        return stage_of(out) if self.told.is_file() and self.told.stat().st_size else "load"

    def kill(self, number: int) -> None:
        """Send a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Its end; one that takes too long is killed, which counts as exit code -9."""
        deadline = time.monotonic() + _PATIENCE
        while self.is_running and time.monotonic() < deadline:
            time.sleep(0.002)
        if self.is_running:
            self.kill(signal.SIGKILL)
            while self.is_running:
                time.sleep(0.002)
        assert self._code is not None
        return Ended(self._code, self.errors.read_text(errors="replace") if self.errors.is_file() else "")


def run(
    name: str, out: Path, scratch: Path, before: Callable[[], None] = lambda: None, more: Sequence[str] = ()
) -> Child:
    """Start `maed run` of one of `RUNS` with `more` arguments; `before` is done in its process first."""

    def do() -> int:
        from maed.similarity import streaming

        streaming._SAVE_EVERY = 0.0  # as often as a kill can come
        before()
        return command_line([*RUNS[name], *more, "--out", str(out)])

    return Child(do, scratch)


def stage_of(folder: Path) -> str:
    """What a run is at, or will be once its data are loaded, by what lies in its folder."""
    for stage, done in (
        ("pretrain", "autoencoder/model.safetensors"),
        ("similarity", "similarity/model.safetensors"),
        ("embed", "embedding/model.safetensors"),
    ):
        if not (folder / done).is_file():
            return stage
    if not (folder / "auto.json").is_file():
        made = [*folder.glob("baselines/*/embedding/model.safetensors")]
        return "baselines" if len(made) < _METHODS else "probes"
    return "models" if not _are_trained(folder) else "report"


_METHODS = 3  # training-free ones for real signals


def _are_trained(folder: Path) -> bool:
    results = folder / "results.json"
    return results.is_file() and (not (folder / "models").is_dir() or len(read_json(results)["scores"] or ()) == 2)


def numbers(folder: Path) -> dict[str, Any]:
    """Every number that a run has made, by its file."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("model.safetensors")):
        found[str(path.relative_to(folder))] = {
            name: (str(tensor.dtype), tuple(tensor.shape), tensor.contiguous().view(torch.uint8).numpy().tobytes())
            for name, tensor in read_tensors(path).items()
            if tensor.ndim
        }
    for path in sorted(folder.rglob("*.json")):
        if path.name not in ("progress.json", "partial.json"):
            found[str(path.relative_to(folder))] = _timeless(read_json(path))
    return found


def _timeless(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _timeless(value) for name, value in content.items() if not _TIMES.search(name)}
    return [_timeless(value) for value in content] if isinstance(content, list) else content


def _known(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Records without entries that were never written: a digest under another name says nothing, and harms nothing."""
    return {
        name: {key: content[key] for key in content if key in wanted[name]} if name.endswith(".json") else content
        for name, content in found.items()
        if name in wanted
    }


def difference(found: dict[str, Any], wanted: dict[str, Any]) -> str | None:
    """The first file in which two runs differ."""
    name = next((name for name in sorted({*found, *wanted}) if found.get(name) != wanted.get(name)), None)
    if name is None or not (name.endswith(".json") and name in found and name in wanted):
        return name
    parts = {key: (found[name].get(key), wanted[name].get(key)) for key in {*found[name], *wanted[name]}}
    return name + "".join(
        f", {key}: {one!r:.200} and not {other!r:.200}" for key, (one, other) in parts.items() if one != other
    )


@dataclass
class Undisturbed:
    """A run that nobody disturbed.

    Args:
        name: of `RUNS`.
        folder: what it made.
        numbers: all of them.
        seconds: what each stage took.
    """

    name: str
    folder: Path
    numbers: dict[str, Any]
    seconds: dict[str, float]


def undisturbed(name: str, scratch: Path) -> Undisturbed:
    """Do a run twice: what it makes, how long each stage takes, and that both are the same."""
    made: list[dict[str, Any]] = []
    spent: dict[str, float] = {}
    for number in range(2):
        out = scratch / f"{name}-{number}"
        child, before = run(name, out, scratch), time.monotonic()
        while child.is_running:
            stage, now = child.stage(out), time.monotonic()
            spent[stage] = spent.get(stage, 0.0) + (now - before) / 2
            before = now
            time.sleep(0.002)
        ended = child.wait()
        if ended.code:
            raise MaedError(f"{name}: undisturbed, it ends with {ended}")
        made.append(numbers(out))
    if (where := difference(made[0], made[1])) is not None:
        raise MaedError(f"{name}: two undisturbed runs differ in {where}")
    shutil.rmtree(scratch / f"{name}-1")
    print(f"{name}: {', '.join(f'{stage} {spent[stage]:.1f} s' for stage in STAGES if stage in spent)}", flush=True)
    return Undisturbed(name, scratch / f"{name}-0", made[0], spent)


# --- kills ----------------------------------------------------------------------------------------------------------


def kills(
    runs: Sequence[Undisturbed], wanted: int, chance: random.Random, scratch: Path, keep: Path, until: float
) -> Tally:
    """Kill runs until each stage of each has been killed `wanted` times, and compare how they end.

    Args:
        runs: undisturbed.
        wanted: kills in each stage, over all runs that have it.
        chance: random numbers.
        scratch: a folder.
        keep: receives copies of stopped runs.
        until: the time (`time.monotonic`) when no other run is begun.
    """
    tally, kept = Tally(), 0
    while time.monotonic() < until:
        print(f"kills: {tally.done.total()}", flush=True)
        lacking = [stage for stage in STAGES if tally.done[stage] < wanted]
        if not lacking:
            break
        reference = chance.choice([each for each in runs if lacking[-1] in each.seconds] or list(runs))
        out = scratch / "killed"
        shutil.rmtree(out, ignore_errors=True)
        for starts in range(60):
            reached = STAGES.index(stage_of(out))
            ahead = [
                stage
                for stage in lacking
                if stage in reference.seconds and (stage == "load" or STAGES.index(stage) >= reached)
            ]
            last = starts == 59 or not ahead
            # a stage of a run comes but once: where it is now comes first
            here = STAGES[reached] if STAGES[reached] in ahead and chance.random() < 0.7 else None
            target = "report" if last else here or chance.choice(ahead)
            child = run(reference.name, out, scratch)
            while child.is_running and (last or STAGES.index(child.stage(out)) < STAGES.index(target)):
                time.sleep(0.001)
            wait = time.monotonic() + chance.uniform(0, reference.seconds.get(target, 1.0))
            while child.is_running and time.monotonic() < wait:
                time.sleep(0.001)
            number = chance.choice(SIGNALS)
            stage = child.stage(out)
            child.kill(number)
            ended = child.wait()
            if ended.code == 0:  # it was over before
                where = difference(numbers(out), reference.numbers)
                tally.outcomes["identical" if where is None else "different"] += 1
                if where is not None:
                    tally.fail(f"{reference.name}, killed {starts} times: {where} differs")
                break
            tally.done[stage] += 1
            tally.outcomes[signal.Signals(number).name] += 1
            stopped = ended.code == -number or (
                number != signal.SIGKILL and ended.code == 130
            )  # Lightning asks to stop
            if not stopped or "Traceback" in ended.errors or "Exception ignored" in ended.errors:
                tally.fail(f"{reference.name}, {signal.Signals(number).name} in {stage}: {ended}")
            lacking = [stage for stage in STAGES if tally.done[stage] < wanted]
            if out.is_dir() and kept < 24 and chance.random() < 0.5:
                shutil.copytree(out, keep / f"{reference.name}-{kept}")
                kept += 1
    return tally


# --- damage ---------------------------------------------------------------------------------------------------------


def damage(path: Path, kind: str, chance: random.Random, others: Sequence[Path]) -> None:
    """Do something to a file that disks, copies and people do."""
    content = bytearray(path.read_bytes())
    place = chance.randrange(len(content)) if content else 0
    if kind == "deleted":
        path.unlink()
        return
    if kind == "swapped":
        content = bytearray(chance.choice(others).read_bytes())
    elif kind == "bit" and content:
        content[place] ^= 1 << chance.randrange(8)
    elif kind == "cut":
        content = content[:place]
    elif kind == "empty":
        content.clear()
    elif kind in ("zeros", "noise"):
        end = min(len(content), place + chance.choice((1, 16, 512)))
        content[place:end] = bytes(end - place) if kind == "zeros" else chance.randbytes(end - place)
    elif kind == "longer":
        content += chance.randbytes(chance.choice((1, 64)))
    path.write_bytes(content)


def damages(
    references: dict[str, Undisturbed], count: int, chance: random.Random, scratch: Path, kept: Path, seconds: float
) -> Tally:
    """Damage stopped and finished runs, one file at a time, and go on with them, for so many seconds at the most."""
    tally, until = Tally(), time.monotonic() + seconds
    stopped = sorted(kept.iterdir())
    for number in range(count):
        if time.monotonic() > until:
            break
        source = chance.choice(stopped) if stopped and number % 4 == 0 else chance.choice([*references.values()]).folder
        reference = references[source.name.split("-")[0]]
        out = scratch / "damaged"
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(source, out)
        files = [path for path in sorted(out.rglob("*")) if path.is_file() and not path.name.startswith(".lock")]
        if not files:
            continue
        # in the short form no file is exchanged with another: a record of a stopped run may take another one's place
        path, kind = chance.choice(files), chance.choice(DAMAGES if count > 100 else DAMAGES[:-1])
        name, before = str(path.relative_to(out)), path.read_bytes()
        damage(path, kind, chance, files)
        tally.done[kind] += 1
        told = f"{source.name}, {name} {kind} ({number})"
        ended = run(reference.name, out, scratch, without_page).wait()
        if number % 50 == 49:
            print(f"damage: {number + 1} of {count}", flush=True)
        if ended.is_one_line:
            advice = remedied(out, ended.errors)
            tally.outcomes["named in one line" if advice else "named, and not what to do"] += 1
            if not advice:
                print(f"no advice: {told}: {ended}", file=sys.stderr, flush=True)
                shutil.rmtree(path.parent if path.parent != out else path, ignore_errors=True)
                path.unlink(missing_ok=True)
            more = ("--overwrite",) * ("--overwrite" in ended.errors)
            again = run(reference.name, out, scratch, without_page, more).wait()
            if again.code or (where := difference(numbers(out), reference.numbers)) is not None:
                tally.fail(f"{told}: after {ended}, deleted: {again if again.code else f'{where} differs'}")
            continue
        if ended.code:
            tally.fail(f"{told}: {ended}")
            continue
        unread = path.is_file() and path.read_bytes() != before and not is_refused(path) and name in reference.numbers
        try:
            where = difference(_known(numbers(out), reference.numbers), reference.numbers)
        except MaedError as error:  # what was not read again, and is refused
            where = None if name in str(error) else str(error)
            tally.outcomes["not read again; refused by who reads it"] += 1
        else:
            tally.outcomes["made anew, or harmless"] += 1
        if where is not None:
            tally.fail(f"{told}: {where} differs{' and is taken for whole' if unread else ''}")
    return tally


def without_page() -> None:
    """Write no page at the end of a run, which would take as long as all else, and holds no number of its own."""
    from maed.experiments import run as whole

    def write_report(folder: Path, *_: Any) -> Path:
        (folder / "report.html").touch()
        return folder / "report.html"

    vars(whole)["write_report"] = write_report


def remedied(out: Path, errors: str) -> bool:
    """Delete what a line says to delete."""
    found = re.findall(r"delete (\S+?)[,;]? (?:and|or)\b", errors)
    for text in found:
        path = Path(text)
        if out in path.parents or path == out:
            shutil.rmtree(path, ignore_errors=True)
            path.unlink(missing_ok=True)
    return bool(found) or "--overwrite" in errors


def is_refused(path: Path) -> bool:
    """Whether who reads a file of numbers says that it is damaged."""
    try:
        if path.suffix == ".safetensors":
            read_tensors(path)
        elif path.suffix == ".json":
            read_json(path)
    except MaedError:
        return True
    return path.suffix in _LOOKED_AT


# --- disk, rights and clock -----------------------------------------------------------------------------------------


def surroundings(
    references: dict[str, Undisturbed], count: int, chance: random.Random, scratch: Path, kept: Path
) -> dict[str, Tally]:
    """No space, no rights, and a clock that is wrong: refused in one line, or the same numbers; then all is well."""
    tallies = {"disk": Tally(), "permissions": Tally(), "clock": Tally()}
    sources = [*sorted(kept.iterdir()), None, None]
    for number in range(count):
        for what, tally in tallies.items():
            source = chance.choice(sources)
            reference = references[source.name.split("-")[0]] if source else chance.choice([*references.values()])
            with folder_for(what, chance, scratch, source) as (out, kind):
                if source is not None:
                    shutil.copytree(source, out, dirs_exist_ok=True)
                before = DISTURBANCES[what](out, chance)
                ended = run(reference.name, out, scratch, before).wait()
                tally.done[kind] += 1
                told = f"{what}, {kind}, {source.name if source else reference.name} ({number})"
                if ended.code and not ended.is_one_line:
                    tally.fail(f"{told}: {ended}")
                    continue
                tally.outcomes["named in one line" if ended.code else "identical"] += 1
                for path in out.rglob("*"):
                    path.chmod(0o755 if path.is_dir() else 0o644)
                moved = scratch / "moved"  # where there is space
                shutil.rmtree(moved, ignore_errors=True)
                shutil.copytree(out, moved)
            again = run(reference.name, moved, scratch).wait()
            if again.code or (where := difference(numbers(moved), reference.numbers)) is not None:
                tally.fail(f"{told}: then {again if again.code else f'{where} differs'}")
    return tallies


@contextmanager
def folder_for(what: str, chance: random.Random, scratch: Path, source: Path | None) -> Iterator[tuple[Path, str]]:
    """A folder to run in, and what is wrong with it: for `disk` a small file system where one can be mounted.

    It has room for the copy of `source` and a little more.
    """
    out = scratch / "disturbed"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    files = [] if source is None else [path for path in source.rglob("*") if path.is_file()]
    size = sum(4 + path.stat().st_size // 1024 for path in files) + chance.choice((64, 256, 1024, 2048))
    mounted = what == "disk" and chance.random() < 0.5
    if mounted:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(out)]
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    try:
        kinds = {"disk": "no space left" if mounted else "no file beyond a size", "clock": "years off"}
        yield out, kinds.get(what, "no rights")
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(out)], capture_output=True, check=False)


def _small_files(out: Path, chance: random.Random) -> Callable[[], None]:
    limit = chance.choice((1 << 10, 1 << 14, 1 << 16, 1 << 18)) if not out.is_mount() else resource.RLIM_INFINITY

    def before() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))

    return before


def _no_rights(out: Path, chance: random.Random) -> Callable[[], None]:
    paths = [out, *(path for path in sorted(out.rglob("*")) if not path.name.startswith(".lock"))]
    path = chance.choice(paths)
    path.chmod(0o555 if path.is_dir() else chance.choice((0o444, 0o000)))
    return without_overrides


def without_overrides() -> None:
    """Give up root's right to write where nobody may (CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, data = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if os.geteuid() == 0 and libc.capget(header, data) == 0:
        data[0] &= ~0b110
        libc.capset(header, data)


def _wrong_clock(out: Path, chance: random.Random) -> Callable[[], None]:
    shift, real = chance.choice((-1, 1)) * chance.uniform(1e5, 3e8), time.time
    for path in out.rglob("*"):
        at = real() + chance.uniform(-3e8, 3e8)
        os.utime(path, (at, at))

    def before() -> None:
        time.time = lambda: real() + shift

    return before


DISTURBANCES: dict[str, Callable[[Path, random.Random], Callable[[], None]]] = {
    "disk": _small_files,
    "permissions": _no_rights,
    "clock": _wrong_clock,
}


# --- malformed files ------------------------------------------------------------------------------------------------


def fuzz(reference: Undisturbed, count: int, chance: random.Random, scratch: Path) -> Tally:
    """Mutate files of every kind that is read, a share of `count` each; a reader may refuse, never crash or hang."""
    from torture_readers import readers  # here, for it makes the files

    tally = Tally()
    cases = readers(reference.folder, scratch / "seeds")
    for name, (path, read) in cases.items():
        share, begin = -(-count // len(cases)), 0
        first, at, told = chance.randrange(1 << 30), scratch / "at", scratch / "outcomes"
        while begin < share:  # a crash ends the process; the next one goes on behind it
            at.write_text(f"{begin}")
            told.write_text("{}")
            ended = Child(partial(_fuzz_some, path, read, first, range(begin, share), at, told), scratch).wait()
            reached, outcomes = int(at.read_text()), json.loads(told.read_text())
            tally.outcomes.update({key: outcomes[key] for key in ("read", "refused") if key in outcomes})
            for line in outcomes.get("failed", []):
                tally.fail(f"{name}: {line}")
            if ended.code:
                tally.fail(f"{name}, mutation {first + reached}: {ended}")
            begin = share if not ended.code else reached + 1
        tally.done[name] += share
    return tally


def _fuzz_some(
    path: Path, read: Callable[[Path], object], first: int, numbers: Sequence[int], at: Path, told: Path
) -> int:
    """Read mutated forms of a file, by their numbers; in a process of its own, with 3 GiB, and 20 s for each."""
    warnings.simplefilter("ignore")
    outcomes: dict[str, Any] = {"read": 0, "refused": 0, "failed": []}
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (3 << 30), resource.RLIM_INFINITY))

    def late(*_: Any) -> None:
        raise TimeoutError("took more than 20 s")

    signal.signal(signal.SIGALRM, late)
    whole = path.read_bytes()
    for number in numbers:
        at.write_text(f"{number}")
        path.write_bytes(mutated(whole, random.Random(first + number)))
        signal.alarm(20)
        try:
            read(path)
            outcomes["read"] += 1
        except MaedError as error:
            outcomes["refused"] += 1
            if "\n" in str(error).strip():
                outcomes["failed"].append(f"mutation {first + number}: several lines: {error}")
        except Exception as error:
            line = " ".join(str(error).split())[:200]
            outcomes["failed"].append(f"mutation {first + number}: {type(error).__name__}: {line}")
        finally:
            signal.alarm(0)
        told.write_text(json.dumps(outcomes))
    path.write_bytes(whole)
    return 0


_INTERESTING = (
    b"\x00",
    b"\xff",
    b"-1",
    b"0",
    b"NaN",
    b"1e999",
    b"null",
    b"[]",
    b"{}",
    b'"',
    b"\n",
    b",",
    b"../",
    b"!!",
)


def mutated(content: bytes, chance: random.Random) -> bytes:
    """One to four changes: bits, bytes, numbers, pieces moved, left out, doubled or cut off."""
    found = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        size = len(found)
        place = chance.randrange(size + 1) if chance.random() < 0.5 else min(size, int(chance.expovariate(1 / 64)))
        end = min(size, place + chance.choice((1, 2, 4, 8, 64, 1024)))
        kind = chance.randrange(9)
        if kind == 0 and place < size:
            found[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            found[place:end] = chance.randbytes(end - place)
        elif kind == 2:
            del found[place:end]
        elif kind == 3:
            found[place:place] = found[place:end] * chance.choice((1, 2, 50))
        elif kind == 4:
            found[place:end] = chance.choice(_INTERESTING)
        elif kind == 5:
            found[place : place + 8] = chance.choice((0, 1, 1 << 31, 1 << 40, (1 << 63) - 1)).to_bytes(8, "little")
        elif kind == 6:
            del found[place:]
        elif kind == 7 and size > 1:
            other = chance.randrange(size)
            found[place:end] = found[other : other + end - place]
        elif digits := [*re.finditer(rb"\d+", bytes(found[:4096]))]:
            match = chance.choice(digits)
            numbers = (b"0", b"-1", b"1", b"99999999999", b"1e400", b"0.5", b"18446744073709551616")
            found[match.start() : match.end()] = chance.choice(numbers)
    return bytes(found)


# --- the whole ------------------------------------------------------------------------------------------------------

PARTS = ("kills", "damage", "surroundings", "fuzz")
SIZES = {  # kills a stage, damaged files, rounds of no space, no rights and a wrong clock, mutated files
    "quick": {"kills": 1, "damage": 10, "surroundings": 1, "fuzz": 1_150},
    "long": {"kills": 26, "damage": 520, "surroundings": 25, "fuzz": 20_000},
}


def torture(sizes: dict[str, int], parts: Sequence[str], seed: int, seconds: float) -> dict[str, Tally]:
    """Do parts of it, in a temporary folder."""
    torch.set_num_threads(1)
    _import_all()
    chance, until, found = random.Random(seed), time.monotonic() + seconds, dict[str, Tally]()
    with tempfile.TemporaryDirectory() as folder:
        scratch, kept = Path(folder), Path(folder) / "kept"
        kept.mkdir()
        references = {name: undisturbed(name, scratch) for name in RUNS}
        runs = [*references.values()]
        if {"kills", "damage", "surroundings"} & {*parts}:
            wanted = sizes["kills"] if "kills" in parts else 1
            found["kills"] = kills(runs, wanted, chance, scratch, kept, until)
        if "damage" in parts:
            found["damage"] = damages(references, sizes["damage"], chance, scratch, kept, seconds)
        if "surroundings" in parts:
            found |= surroundings(references, sizes["surroundings"], chance, scratch, kept)
        if "fuzz" in parts:
            found["fuzz"] = fuzz(runs[0], sizes["fuzz"], chance, scratch)
    return found if "kills" in parts else {name: tally for name, tally in found.items() if name != "kills"}


def _import_all() -> None:
    """What every run imports, once, before the processes are forked; nothing is computed here."""
    import pytorch_lightning  # noqa: F401
    import transformers  # noqa: F401

    import maed.experiments.run
    import maed.models.training
    import maed.report.page  # noqa: F401


def table(found: dict[str, dict[str, Any]]) -> str:
    """What was done to runs and files, and what came of it."""
    rows = [["Part", "Seed", "Times", "Of which", "What came of it", "Failures"]]
    for name, row in found.items():
        outcomes = ", ".join(f"{key}: {value:,}" for key, value in sorted(row["outcomes"].items()))
        kinds = ", ".join(f"{key} {value:,}" for key, value in row["done"].items())
        if name.startswith("fuzz"):
            kinds = f"{len(row['done'])} kinds of files, of each {min(row['done'].values()):,}"
        rows.append(
            [name, row.get("seed", ""), f"{sum(row['done'].values()):,}", kinds, outcomes, f"{len(row['failures'])}"]
        )
    return markdown_table(rows)


def record(found: dict[str, Tally], seed: int, seconds: float) -> None:
    """Write parts into results/reliability.json, beside the others."""
    recorded: dict[str, Any] = read_json(RESULTS) if RESULTS.is_file() else {"schema": 1, "parts": {}}
    facts: dict[str, Any] = {"seed": seed, "seconds": round(seconds), "commit": commit(), "machine": describe_machine()}
    facts["date"] = datetime.now(UTC).date().isoformat()
    for name, tally in found.items():
        order = STAGES if name == "kills" else sorted(tally.done)
        done = {key: tally.done[key] for key in order if tally.done[key]}
        row = {"done": done, "outcomes": dict(sorted(tally.outcomes.items())), "failures": tally.failures}
        recorded["parts"][name] = row | facts
    write_json(RESULTS, recorded)


def docs() -> None:
    """Write the table of docs/reliability.md."""
    write_text(PAGE, render(PAGE.read_text(encoding="utf-8")))


def render(text: str) -> str:
    """docs/reliability.md with the table of what is recorded."""
    recorded = read_json(RESULTS)
    commits = sorted({str(row["commit"])[:12] for row in recorded["parts"].values()})
    machine = next(iter(recorded["parts"].values()))["machine"]
    where = f"`python benchmarks/torture.py long`, commit {', '.join(commits)}, {machine['processor']}"
    return filled(text, {"torture": f"{where}\n\n{table(recorded['parts'])}"})


def main() -> int:
    """The command line; exit code 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*SIZES, "docs"))
    parser.add_argument("--only", default=",".join(PARTS), help="parts, with commas between them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=3600, help="when no other run is killed, or damaged")
    given = parser.parse_args()
    if given.what == "docs":
        docs()
        return 0
    started = time.monotonic()
    found = torture(SIZES[given.what], given.only.split(","), given.seed, given.seconds)
    seconds = time.monotonic() - started
    shown = {name: vars(tally) for name, tally in found.items()}
    Console(width=160).print(table(shown), markup=False, highlight=False)
    failures = sum(len(tally.failures) for tally in found.values())
    print(f"{failures} failures in {seconds:.0f} s, seed {given.seed}")
    if given.what == "long":
        record(found, given.seed, seconds)
        docs()
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
