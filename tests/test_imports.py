"""What using the package wakes: a process that learns positions needs no framework, and --help needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = ("pytorch_lightning", "lightning_fabric", "torchmetrics", "transformers", "plotly", "jinja2", "matplotlib")


def loaded(code: str) -> set[str]:
    """Top-level modules in a fresh process after some code."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


LEARN = """
import warnings, numpy as np, maed
warnings.simplefilter("ignore")
X = np.random.default_rng(0).normal(size=(60, 12)).cumsum(axis=1)
maed.PositionLearner(dim=4, random_state=0, budget="800 draws", force=True).fit(X)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import maed", ("torch", "numpy", *HEAVY)),
        (f"import maed.similarity, maed.stages, maed.integrations\n{LEARN}", HEAVY),
        ("from maed.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass", ("torch", *HEAVY)),
        ("from maed.cli import main\ntry: main(['run', '--help'])\nexcept SystemExit: pass", ("torch", *HEAVY)),
    ],
    ids=["maed", "learn", "help", "run-help"],
)
def test_what_stays_asleep(code: str, absent: tuple[str, ...]) -> None:
    assert loaded(code) & set(absent) == set()
