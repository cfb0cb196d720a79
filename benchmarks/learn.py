"""How long `method="maed"` takes with its defaults, what memory, and what it finds: 5,000 signals of 500 sensors.

    python benchmarks/learn.py [--seeds 3]

Each seed runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import numpy as np

from maed.machine import commit, describe_machine

if TYPE_CHECKING:
    from maed import PositionEmbedding


def one(
    seed: int, *, signals: int = 5_000, device: str = "auto", budget: str | None = None
) -> tuple[dict[str, float], PositionEmbedding]:
    """Learn from one draw of `field:sphere:500`, its sensors shuffled: what was measured, and the embedding."""
    from maed import PositionLearner
    from maed.data import load
    from maed.evaluation.geometry import geometry_metrics
    from maed.settings import DataSettings, EvaluationSettings

    data = load("field:sphere:500", DataSettings(samples=signals * 10 // 9 + 1, permute=seed, seed=seed))
    X = np.ascontiguousarray(data.train.values[:signals, :, 0])
    assert X.shape == (signals, 500)
    assert data.geometry is not None
    started = time.monotonic()
    learner = PositionLearner(method="maed", random_state=seed, device=device, budget=budget, force=True)
    embedding = learner.fit(X).embedding_
    seconds = time.monotonic() - started
    metrics = geometry_metrics(embedding.vectors, data.geometry, EvaluationSettings())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seed": seed, "seconds": seconds, "peak_gib": peak, **metrics}, embedding


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one is not None:
        print(json.dumps(one(given.one)[0]))
        return
    machine = describe_machine()
    print(f"commit {commit()}, {machine['processor']}, {machine['threads']} threads")
    for seed in range(given.seeds):
        command = [sys.executable, __file__, "--one", str(seed)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        print(", ".join(f"{name} {value:.4g}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
