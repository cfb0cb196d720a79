"""The scripts of the pages: what only computes, run by node. Lint and types are for `make scripts`."""

import shutil
import subprocess
from pathlib import Path

import pytest


@pytest.mark.extern
@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
def test_what_only_computes() -> None:
    file = Path(__file__).parent / "scripts" / "pure.test.mjs"
    done = subprocess.run(["node", "--test", str(file)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
