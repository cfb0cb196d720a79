"""Distributions of somebody else's, and Python processes in which they are installed."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

import maed
from maed import cli
from maed.registry import ARCHITECTURES, BASELINES, ENCODINGS, ESTIMATORS, REDUCTIONS, SOURCES, TASKS, Registry


def install(folder: Path, code: str, entry_points: Mapping[str, Mapping[str, str]]) -> Path:
    """Make a folder that Python can import from, with a distribution whose module `theirs` plugs into maed.

    Args:
        folder: is created where it is not there.
        code: of the module.
        entry_points: for each kind of the registry, such as `estimators`, the names and the classes behind them; a
            class without a module is one of `theirs`.
    """
    information = folder / "theirs-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "theirs.py").write_text(code)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    lines = []
    for kind, names in entry_points.items():
        lines.append(f"[maed.{kind}]")
        lines += [f"{name} = {found if ':' in found else f'theirs:{found}'}" for name, found in names.items()]
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return folder


@contextmanager
def installed(folder: Path) -> Iterator[None]:
    """Let this process find what `install` made: faster than another one, but maed has been imported already."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        patch.setattr(cli, "build_parser", inspect.unwrap(cli.build_parser))  # what was built knows nothing of it
        for registry in (ARCHITECTURES, BASELINES, ENCODINGS, ESTIMATORS, REDUCTIONS, SOURCES, TASKS):
            found = Registry[object](registry.kind, registry.folder).plugged_in
            patch.setitem(vars(registry), "plugged_in", found)
        try:
            yield
        finally:
            sys.modules.pop("theirs", None)


def fresh(arguments: Sequence[str | Path], *folders: Path) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, with `folders` in front of what it imports from."""
    path = os.pathsep.join(map(str, (*folders, Path(maed.__file__).parents[1])))
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)


def printed(program: str, *folders: Path) -> str:
    """What a program prints in a process of its own, with `folders` in front of what it imports from."""
    done = fresh(["-c", program], *folders)
    assert done.returncode == 0, done.stderr
    return done.stdout
