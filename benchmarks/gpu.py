"""A queue of jobs for whoever has a GPU for ten minutes: always the most valuable thing next (docs/gpu.md).

    python benchmarks/gpu.py list                            # what is recorded, what is next
    python benchmarks/gpu.py pack .gpu --seconds 520         # the data of the next jobs, to be carried there
    python benchmarks/gpu.py next --seconds 520 --data .gpu --out OUT
    python benchmarks/gpu.py merge OUT                       # into results/gpu and docs/gpu.md
    python benchmarks/gpu.py inputs [NAME ...]               # the embeddings that jobs need, learned on a CPU
    python benchmarks/gpu.py count [GROUP ...]               # the operations behind the estimates of gpu.yaml

`next` runs every job of gpu.yaml that is not recorded and still fits, each in a process of its own, writes
OUT/results.json whenever one is done, and stops what takes longer than there is time for. `--tiny` runs toy sizes of
all jobs on a CPU.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from maed.errors import MaedError, one_of
from maed.files import read_json, write_json, write_text

ROOT = Path(__file__).parents[1]
PLAN = ROOT / "benchmarks" / "gpu.yaml"
RECORDS = ROOT / "results" / "gpu"
INPUTS = RECORDS / "inputs"
PAGE = ROOT / "docs" / "gpu.md"

_PFLOPS = 0.8  # of a large bfloat16 product on an H100, measured
_RESERVE = 5.0  # seconds that are left for stopping and writing
_SLACK = 1.05  # what a job may take beyond what another of its group took

Record = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One training, or one table of timings.

    Args:
        name: of the job and of its record.
        group: of gpu.yaml, as it stands there.
        arguments: of its function, at full size.
        tiny: what is other at toy size.
    """

    name: str
    group: Mapping[str, Any]
    arguments: dict[str, Any]
    tiny: dict[str, Any]

    @property
    def embedding(self) -> Path | None:
        """The folder below results/gpu/inputs that it reads."""
        return None if self.group.get("embedding") is None else INPUTS / self.group["embedding"]

    def sized(self, tiny: bool) -> dict[str, Any]:
        """The arguments to run it with."""
        if not tiny:
            return self.arguments
        if "settings" not in self.arguments:
            return self.arguments | self.tiny
        return self.arguments | {"settings": self.arguments["settings"] | self.tiny}


def read_plan(path: Path = PLAN) -> tuple[list[Job], float]:
    """All jobs in their order, and the seconds that each takes to start."""
    plan = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [job for group in plan["groups"] for job in _jobs(group)], float(plan["start"])


def _jobs(group: Mapping[str, Any]) -> Iterator[Job]:
    arguments = dict(group.get("arguments", {}))
    arguments |= {key: group[key] for key in ("source", "config", "settings", "step_tflop") if key in group}
    tiny = dict(group.get("tiny", {}))
    if "positions" not in group:
        yield Job(group["name"], group, arguments, tiny)
        return
    for seed in group["seeds"]:
        for encoding in group["positions"]:
            chosen = {"positions": encoding, "seed": seed}
            yield Job(f"{group['name']}-{encoding}-{seed}", group, arguments | chosen, tiny)


# --- what is recorded, and what is next ---------------------------------------------------------------------------


def records(*folders: Path) -> dict[str, Record]:
    """Every record below results/gpu and in the results.json of other folders, by the name of its job."""
    found = {path.stem: read_json(path) for path in sorted(RECORDS.glob("*.json"))}
    for folder in folders:
        if (folder / "results.json").is_file():
            found |= read_json(folder / "results.json")
    return found


def is_done(job: Job, record: Record | None) -> bool:
    """Whether the record is of this job as it stands in the plan, and whole."""
    return record is not None and "result" in record and _plain(job.arguments) == record["planned"]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def expected(job: Job, found: Mapping[str, Record], start: float) -> float:
    """Seconds that a job takes: as measured of another of its group, else by its operations."""
    if "longest" in job.group:
        return float(job.group["longest"]["seconds"])
    same = [record for record in found.values() if record["group"] == job.group["name"] and not record["tiny"]]
    if finished := [record["seconds"] for record in same if "result" in record]:
        return _SLACK * max(finished)
    if stopped := [record["stopped"]["needs"] for record in same if record.get("stopped", {}).get("needs")]:
        return _SLACK * max(stopped)
    return start + job.group["pflop"] / (job.group["share"] * _PFLOPS)


def lengthened(job: Job, found: Mapping[str, Record]) -> tuple[dict[str, Any], float]:
    """The arguments and operations of a job whose schedule is as long as a slot allows; both arms get the same one.

    Raises:
        MaedError: the job that tells how long an epoch takes is not recorded.
    """
    rule = job.group["longest"]
    reference = f"{rule['group']}-{job.group['positions'][0]}-{job.group['seeds'][0]}"
    record = found.get(reference)
    if record is None or "result" not in record:
        raise MaedError(f"{job.name}: waits for {reference}, which tells how long an epoch takes")
    result = record["result"]
    epoch = result["seconds"] / result["epochs"]
    # trainings of one group differ by a few per cent, and both arms have to fit
    fitting = int((rule["seconds"] - (record["seconds"] - result["seconds"]) - _RESERVE) / (_SLACK * epoch))
    epochs = max(1, min(rule["epochs"], fitting))
    settings = job.arguments["settings"] | {"train.epochs": epochs}
    return job.arguments | {"settings": settings}, job.group["pflop"] * epochs / rule["epochs"]


def lacks(job: Job, data: Path | None, memory_gib: float | None) -> str | None:
    """What keeps a job from running here; None where nothing does."""
    source = job.group.get("source")
    if source is not None and (data is None or not (data / source).is_dir()):
        return f"{job.name}: needs the folder {source} with its parquet files below --data, or MAED_DATA"
    if job.embedding is not None and not job.embedding.is_dir():
        return f"{job.name}: needs {job.embedding.relative_to(ROOT)}; `gpu.py inputs {job.embedding.name}` makes it"
    least = job.group.get("memory_gib", 0)
    if memory_gib is not None and memory_gib < least:
        return f"{job.name}: needs about {least} GiB of GPU memory; this device has {memory_gib:.0f}"
    return None


# --- running ------------------------------------------------------------------------------------------------------


def run_next(given: argparse.Namespace) -> int:
    """Run what is next, until the time is over."""
    started = time.monotonic()
    deadline = started + given.seconds
    jobs, start = read_plan(given.plan)
    given.out.mkdir(parents=True, exist_ok=True)
    data = given.data or (Path(os.environ["MAED_DATA"]) if "MAED_DATA" in os.environ else None)
    if data is not None:
        os.environ["MAED_DATA"] = str(data.resolve())
    workers = Workers(given.tiny)
    device = workers.probe()
    sha = given.commit or _carried_commit(data) or device["commit"]
    if sha is None:
        say("no commit is known: --commit names it")
    if not given.tiny and device.get("name") is None:
        raise MaedError("no GPU was found; --tiny runs toy sizes on the CPU")
    say(f"{device['name'] or 'CPU, toy sizes'}; {deadline - time.monotonic():.0f} s left")
    found = _written(given.out) if given.tiny else records(given.out)
    ran = 0
    for job in jobs:
        if is_done(job, found.get(job.name)) or (given.only and job.name not in given.only):
            continue
        left = deadline - time.monotonic() - _RESERVE
        takes = 0.0 if given.tiny else expected(job, found, start)
        reason = lacks(job, data, device.get("memory_gib"))
        if reason is None and takes > left:
            reason = f"{job.name}: takes about {takes:.0f} s, {max(0, left):.0f} s are left"
        try:
            arguments, pflop = job.sized(given.tiny), None if given.tiny else job.group["pflop"]
            if reason is None and "longest" in job.group and not given.tiny:
                arguments, pflop = lengthened(job, found)
        except MaedError as error:
            reason = str(error)
        if reason is not None:
            say(reason)
            continue
        say(f"{job.name}: about {takes:.0f} s")
        began, at = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        outcome = workers.run(job, arguments, pflop, device["tflops"] * 1e12, left)
        took = time.monotonic() - began
        if "error" in outcome:
            say(f"{job.name}: {outcome['error']} after {took:.0f} s")
            if "traceback" in outcome:
                write_text(given.out / "failed.txt", f"{job.name}\n{outcome['traceback']}")
            continue
        ran += 1
        record = {"schema": 1, "job": job.name, "group": job.group["name"], "tiny": given.tiny}
        record |= {"planned": job.arguments, "arguments": arguments, "commit": sha, "started": at}
        record |= {"seconds": took, "device": {key: device[key] for key in ("name", "memory_gib", "tflops")}}
        record |= {"machine": device["machine"], **outcome}
        found[job.name] = record
        write_json(given.out / "results.json", _written(given.out) | {job.name: record})
        say(f"{job.name}: {_stopped(record) or f'done in {took:.0f} s'}")
    say(f"{ran} job{'' if ran == 1 else 's'} in {time.monotonic() - started:.0f} s")
    return 0


def _written(out: Path) -> dict[str, Record]:
    return read_json(out / "results.json") if (out / "results.json").is_file() else {}


def _stopped(record: Record) -> str | None:
    """What is said of a job that ran out of time."""
    stopped = record.get("stopped")
    if stopped is None:
        return None
    needs = "" if stopped.get("needs") is None else f"; it needs about {stopped['needs']:.0f} s"
    return f"stopped at step {stopped.get('step', 0)} of {stopped.get('steps', '?')}{needs}"


class Workers:
    """Runs each job in a process of its own, forked from one that has imported everything and touched no GPU.

    Args:
        tiny: on the CPU.
    """

    def __init__(self, tiny: bool) -> None:
        self.tiny = tiny
        os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # libraries that look for a GPU must not open it
        os.environ.setdefault("PYTHONWARNINGS", "ignore")
        here = str(Path(__file__).parent)  # before Python 3.14 the process to fork from does not know sys.path
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
        self.context: Any = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["gpu_preload"])

    def probe(self) -> dict[str, Any]:
        """The device; where a forked process cannot open it, jobs start from nothing, which takes longer."""
        device = self._call(_probe, (self.tiny,), 60.0)
        if "error" in device and not self.tiny:
            say(f"forked processes cannot use the GPU ({device['error']}); every job imports anew")
            self.context = multiprocessing.get_context("spawn")
            device = self._call(_probe, (self.tiny,), 60.0)
        if "error" in device:
            raise MaedError(f"the device cannot be used: {device['error']}")
        return device

    def run(
        self, job: Job, arguments: dict[str, Any], pflop: float | None, peak: float, seconds: float
    ) -> dict[str, Any]:
        """`{"result"}`, `{"stopped"}` after as many seconds, or `{"error"}`."""
        with tempfile.TemporaryDirectory() as folder:
            place = {"folder": Path(folder), "inputs": job.embedding or INPUTS, "peak": peak, "pflop": pflop}
            place["device"] = "cpu" if self.tiny else "cuda"
            began = time.monotonic()
            outcome = self._call(_work, (job.group["function"], arguments, place), seconds)
            progress = Path(folder) / "progress.json"
            if outcome.get("error") != "stopped" or not progress.is_file():
                return outcome
            noted = read_json(progress)
            before = time.monotonic() - began - noted["seconds"]
            return {"stopped": noted | {"needs": before + noted["seconds"] * noted["steps"] / noted["step"]}}

    def _call(self, function: Any, arguments: tuple[Any, ...], seconds: float) -> dict[str, Any]:
        receiver, sender = self.context.Pipe(duplex=False)
        process = self.context.Process(target=_reply, args=(sender, function, arguments))
        process.start()
        sender.close()
        try:
            if not receiver.poll(max(0.0, seconds)):
                process.terminate()
                return {"error": "stopped"}
            return receiver.recv()
        except EOFError:
            process.join()
            return {"error": f"its process ended with exit code {process.exitcode}"}
        finally:
            process.join(_RESERVE)
            if process.is_alive():
                process.kill()
            receiver.close()


def _reply(sender: Any, function: Any, arguments: tuple[Any, ...]) -> None:
    try:
        sender.send(function(*arguments))
    except MaedError as error:
        sender.send({"error": str(error)})
    except Exception as error:  # whatever a job does, the next one goes on
        line = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        sender.send({"error": line, "traceback": traceback.format_exc()})


def _probe(tiny: bool) -> dict[str, Any]:
    """Name, memory and bfloat16 limit of the device."""
    import torch

    from autoencoder import matrix_limit
    from maed.machine import commit, describe_machine

    facts: dict[str, Any] = {"commit": commit(), "machine": describe_machine(), "name": None, "memory_gib": None}
    if tiny or not torch.cuda.is_available():
        return facts | {"tflops": matrix_limit(size=256) / 1e12}
    properties = torch.cuda.get_device_properties(0)
    facts |= {"name": properties.name, "memory_gib": properties.total_memory / 2**30}
    return facts | {"tflops": matrix_limit("cuda", torch.bfloat16, size=8192) / 1e12}


def _work(function: str, arguments: dict[str, Any], place: dict[str, Any]) -> dict[str, Any]:
    import torch

    from gpu_jobs import FUNCTIONS, Place

    if place["device"] == "cpu":
        torch.set_num_threads(1)
    return {"result": FUNCTIONS[function](arguments, Place(**place))}


def _carried_commit(data: Path | None) -> str | None:
    """The commit that `pack` wrote beside the data: a machine that is lent may have no checkout."""
    path = None if data is None else data / "commit"
    return path.read_text(encoding="utf-8").strip() if path is not None and path.is_file() else None


# --- the other verbs ----------------------------------------------------------------------------------------------


def show(given: argparse.Namespace) -> int:
    """List all jobs."""
    jobs, start = read_plan(given.plan)
    found = records()
    rows = [["Job", "State", "Seconds", "by", "PFLOP"]]
    following = "next"
    for job in jobs:
        record = found.get(job.name)
        state = "recorded" if is_done(job, record) else following
        if record is not None and state != "recorded":
            state = _stopped(record) or "recorded as it was planned before"
        following = "" if state == "next" else following
        same = any(other["group"] == job.group["name"] and "result" in other for other in found.values())
        by = "its slot" if "longest" in job.group else "a measurement" if same else "operations"
        rows.append([job.name, state, f"{expected(job, found, start):.0f}", by, f"{job.group['pflop']:.3g}"])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def pack(given: argparse.Namespace) -> int:
    """Copy the data of the next jobs."""
    from maed.machine import commit

    jobs, start = read_plan(given.plan)
    found = records()
    left, sources = given.seconds, []
    for job in jobs:
        takes = expected(job, found, start)
        if not is_done(job, found.get(job.name)) and takes <= left:
            left -= takes
            say(f"{job.name}: about {takes:.0f} s")
            sources += [job.group["source"]] if "source" in job.group else []
    folder = given.folder
    for source in dict.fromkeys(sources):
        there = Path(os.environ.get("MAED_DATA", ROOT / ".." / "shared" / "data")) / source
        if not there.is_dir():
            raise MaedError(f"{there} does not exist; MAED_DATA names the folder that holds {source}")
        shutil.copytree(there, folder / source, dirs_exist_ok=True, copy_function=shutil.copyfile)
    write_text(folder / "commit", f"{commit()}\n")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 2**20
    say(f"wrote {folder}: {size:.0f} MiB")
    return 0


def merge(given: argparse.Namespace) -> int:
    """Bring the results of a run into results/gpu and the page."""
    jobs = {job.name: job for job in read_plan(given.plan)[0]}
    brought = _written(given.folder)
    if not brought:
        raise MaedError(f"{given.folder / 'results.json'}: no results; `gpu.py next --out {given.folder}` writes them")
    for name, record in brought.items():
        if record["tiny"]:
            say(f"{name}: left out, for it is of toy size")
            continue
        one_of("job", name, tuple(jobs))
        there = RECORDS / f"{name}.json"
        if "result" not in record and there.is_file() and "result" in read_json(there):
            continue  # an older, whole one is worth more
        write_json(there, record)
        say(f"{name}: {_stopped(record) or 'recorded'}")
    write_text(PAGE, render(PAGE.read_text(encoding="utf-8")))
    say(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


def render(text: str) -> str:
    """docs/gpu.md with its tables made anew from results/gpu."""
    from gpu_tables import tables
    from maed.report.tables import markdown_table
    from pages import filled

    jobs, start = read_plan()
    found = records()
    done = {job.name: found[job.name] for job in jobs if is_done(job, found.get(job.name))}
    plan = [["Job", "PFLOP", "Seconds, by operations"]]
    groups = {job.group["name"]: job for job in jobs}
    for name, job in groups.items():
        count = sum(other.group["name"] == name for other in jobs)
        title = f"{name}{f' ({count} jobs)' if count > 1 else ''}: {job.group['title']}"
        plan.append([title, f"{job.group['pflop']:.3g}", f"{expected(job, {}, start):.0f}"])
    made = f"{markdown_table(plan)}\n\n{tables(list(groups.values()), done)}"
    return filled(text, {"tables": made})


def inputs(given: argparse.Namespace) -> int:
    """Learn the embeddings that jobs need."""
    from gpu_inputs import INPUTS_OF, make

    for name in given.names or list(INPUTS_OF):
        one_of("input", name, tuple(INPUTS_OF))
        make(name, INPUTS / name, given.work)
        say(f"wrote {(INPUTS / name).relative_to(ROOT)}")
    return 0


def count(given: argparse.Namespace) -> int:
    """Count the operations of each group."""
    from gpu_jobs import operations, step_flop

    groups = {job.group["name"]: job for job in read_plan(given.plan)[0]}
    for name in given.groups or groups:
        one_of("group", name, tuple(groups))
        job = groups[name]
        arguments = job.arguments
        if "longest" in job.group:
            epochs = {"train.epochs": job.group["longest"]["epochs"]}
            arguments = arguments | {"settings": arguments["settings"] | epochs}
        say(f"{name}: {operations(job.group['function'], arguments) / 1e15:.4g} PFLOP (plan: {job.group['pflop']})")
        if job.group["function"] == "perceiver_step":
            each = {one: float(f"{flop / 1e12:.3g}") for one, flop in step_flop(arguments).items()}
            say(f"  a step: {each} TFLOP")
    return 0


def say(line: str) -> None:
    print(line, flush=True)


def seconds_of(text: str) -> float:
    """A positive number of seconds."""
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"seconds must be above 0, got {text}")
    return value


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, default=PLAN, help=argparse.SUPPRESS)
    verbs = parser.add_subparsers(dest="verb", required=True)

    def verb(name: str, do: Any) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=do.__doc__, description=do.__doc__)
        sub.set_defaults(do=do)
        return sub

    verb("list", show)
    sub = verb("next", run_next)
    sub.add_argument("--seconds", type=seconds_of, required=True, help="from now, everything included")
    sub.add_argument("--out", type=Path, required=True, help="folder for results.json")
    sub.add_argument("--data", type=Path, help="folder that holds cifar10 and imdb; MAED_DATA by default")
    sub.add_argument("--commit", help="of this code; of the checkout, or as packed, by default")
    sub.add_argument("--only", nargs="+", metavar="JOB", help="these jobs alone")
    sub.add_argument("--tiny", action="store_true", help="toy sizes, on the CPU")
    sub = verb("pack", pack)
    sub.add_argument("folder", type=Path)
    sub.add_argument("--seconds", type=seconds_of, default=520.0)
    verb("merge", merge).add_argument("folder", type=Path)
    sub = verb("inputs", inputs)
    sub.add_argument("names", nargs="*", metavar="NAME")
    sub.add_argument("--work", type=Path, default=Path("runs/gpu-inputs"), help="where the runs are kept")
    verb("count", count).add_argument("groups", nargs="*", metavar="GROUP")
    given = parser.parse_args(arguments)
    try:
        return given.do(given)
    except MaedError as error:
        print(f"gpu: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
