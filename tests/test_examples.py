"""The scripts of `examples/` run, with few steps, on the data that they name."""

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("script", EXAMPLES, ids=lambda script: script.stem)
def test_an_example_prints_its_comparison(
    script: Path, data_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    reads = "FOLDER" in script.read_text(encoding="utf-8")
    if reads and not (data_folder / "sensors").is_dir():
        pytest.skip("no sensors among the data")
    monkeypatch.setattr(sys, "argv", [str(script), *([str(data_folder / "sensors")] if reads else []), "--steps", "3"])

    runpy.run_path(str(script), run_name="__main__")

    (line,) = capsys.readouterr().out.splitlines()
    compared = [float(number) for number in re.findall(r"\d+\.\d+", line)]
    assert len(compared) == 3
    assert all(number > 0 for number in compared)
    assert len(set(compared)) > 1  # what a model is told makes a difference
