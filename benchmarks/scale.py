"""The similarity by one process on one core, and by two on two cores, in turn: seconds and CPU seconds of the stage.

    python benchmarks/scale.py [--rounds 3] [--draws 32768] [--processes 2]

On `cifar10` (1,024 positions) with the draws of the preset `cifar10-cpu`, by an autoencoder of 200 steps, which is made
first. The stage is timed from the line that it begins with to the one that it ends with; CPU time is that of each
process in between. Where other jobs run, wall times compare shares of the machine. Then the largest CPU time tells what
the stage takes on free cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from maed.machine import commit, describe_machine

SOURCE = ["cifar10", "--config", "cifar10-cpu", "--autoencoder.steps", "200"]
QUIET = ["--trainer.accelerator", "cpu", "--trainer.progress", "none"]


def used(out: Path) -> dict[str, float]:
    """CPU seconds of the processes of `maed` that write to a folder."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0") if folder.name.isdigit() else []
            if str(out).encode() in words and not {b"taskset", b"torch.distributed.run"} & set(words):
                user, system = (folder / "stat").read_text().rpartition(")")[2].split()[11:13]
                found[folder.name] = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        except OSError:  # it has ended
            continue
    return found


def timed(launch: list[str], command: list[str], out: Path) -> tuple[float, list[float]]:
    """Seconds of the stage, and CPU seconds of each process in it, the most first."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    marks: list[tuple[float, dict[str, float]]] = []
    with subprocess.Popen(
        [*launch, *command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("similarity: "):  # with so many draws, and that two halves agree
                marks.append((time.monotonic(), used(out)))
    if process.returncode or len(marks) != 2:
        raise SystemExit(f"{' '.join(command)}: failed")
    (begun, before), (ended, after) = marks
    return ended - begun, sorted((after[name] - before[name] for name in before if name in after), reverse=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--draws", type=int, default=32_768)
    parser.add_argument("--processes", type=int, default=2)
    given = parser.parse_args()
    print(f"commit {commit()}, {describe_machine()['processor']}", flush=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(given.processes), "-m", "--"]
    launches = {"one": ["taskset", "-c", "0", sys.executable, "-m"], "several": torchrun}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        trained = [sys.executable, "-m", "maed", "pretrain", *SOURCE, *QUIET, "--out", str(root / "base")]
        subprocess.run(trained, check=True, stdout=subprocess.DEVNULL)
        command = ["maed", "similarity", *SOURCE, *QUIET, "--run", str(root / "base")]
        command += ["--similarity.draws", str(given.draws)]
        for number in range(given.rounds):
            (one, own), (several, shares) = (
                timed(launch, command, root / f"{name}-{number}") for name, launch in launches.items()
            )
            row = {
                "seconds": [round(one, 1), round(several, 1)],
                "cpu": [[round(each, 1) for each in spent] for spent in (own, shares)],
                "ratio": round(one / several, 2),
                "ratio of cpu": round(max(own) / max(shares), 2),
                "load": os.getloadavg()[0],
            }
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
