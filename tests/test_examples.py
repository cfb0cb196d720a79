"""The scripts of `examples/` run, with few steps, on the data that they name."""

import ast
import re
import runpy
import sys
from importlib import import_module
from pathlib import Path

import pytest

from maed.registry import ESTIMATORS

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
LITTLE = {"own_estimator": ["--budget", "4000 draws"], "array_to_map": [], "vit": ["--steps", "120"]}
"""Arguments that make a script short; `--steps 3` for the others."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_an_example_prints_what_it_compares(
    script: Path,
    data_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    reads = "FOLDER" in script.read_text(encoding="utf-8")
    if reads and not (data_folder / "sensors").is_dir():
        pytest.skip("no sensors among the data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ESTIMATORS, "added", {})  # what a script adds is there for as long as it runs
    sensors = [str(data_folder / "sensors")] if reads else []
    monkeypatch.setattr(sys, "argv", [str(script), *sensors, *LITTLE.get(script.stem, ["--steps", "3"])])

    runpy.run_path(str(script), run_name="__main__")

    compared = [float(number) for number in re.findall(r"\d+\.\d+", capsys.readouterr().out)]
    assert len(compared) in (2, 3)
    assert all(number > 0 for number in compared)
    assert len(set(compared)) > 1  # what a model is told makes a difference


@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_an_example_takes_public_names_alone(script: Path) -> None:
    for module, name in imported(script.read_text(encoding="utf-8")):
        assert name in import_module(module).__all__, f"{module}.{name}"


def imported(code: str) -> list[tuple[str, str]]:
    """What code imports from packages of maed; `maed` itself and its public modules need no look."""
    return [
        (str(node.module), alias.name)
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("maed.")
        for alias in node.names
    ]
