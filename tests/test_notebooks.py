"""The notebooks: each runs from the first cell to the last on small settings, and is committed as it was executed."""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from test_examples import imported

nbformat = pytest.importorskip("nbformat", reason="needs maed[notebooks]")
papermill = pytest.importorskip("papermill", reason="needs maed[notebooks]")
shells = pytest.importorskip("IPython.core.interactiveshell", reason="needs maed[notebooks]")

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"

LITTLE: dict[str, Any] = {
    "autoencoder": {"steps": 12, "validate_every": 6, "batch_size": 16},
    "similarity": {"draws": 1024, "batch_size": 64},
    "embedding": {"force": True},
    "perceiver": {"latents": 4, "latent_width": 16, "layers": 1},
    "train": {"steps": 4, "batch_size": 16, "validate_every": 2, "tune": None, "tune_steps": None},
    "trainer": {"progress": "none"},
}
PIXELS = {**LITTLE, "data": {"permute": 0, "limit": 300, "image_size": 12}}
BYTES = {**LITTLE, "data": {"limit": 200, "length": 96}, "similarity": {"draws": 256, "batch_size": 64, "signals": 200}}
BYTES["autoencoder"] = {**LITTLE["autoencoder"], "width": 8, "depth": 2, "scored": 64}

SMALL: dict[str, dict[str, Any]] = {
    "training_ae_cifar10": {"CHANGES": PIXELS},
    "training_ae_imdb": {"CHANGES": BYTES},
    "perceiver_imdb_vanilla_training": {"CHANGES": BYTES},
    "perceiver_imdb_maed_training": {"CHANGES": BYTES},
    "run_perceiver_w_maed_encoder": {"CHANGES": PIXELS},
    "visualize_positional_embeddings": {"CHANGES": PIXELS},
    "visualize_autoencoder": {
        "CHANGES": {**PIXELS, "autoencoder": {**LITTLE["autoencoder"], "visible_fraction": 0.01}}
    },
    "frequencies_of_speech": {"LEARN": {"method": "partial"}, "LABELS": [40, None], "STEPS": 2, "SEEDS": [0]},
    "my_own_sensors": {"SENSORS": 24, "READINGS": 900, "BUDGET": "8000 draws", "EPOCHS": 1},
}
"""What stands in the place of each notebook's parameters."""


def test_each_notebook_has_small_settings_here() -> None:
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(SMALL)


class Shell(shells.InteractiveShell):  # type: ignore[name-defined]
    """Runs cells in this process: a kernel would import everything anew, which takes longer than what cells do."""

    def enable_gui(self, gui: str | None = None) -> None:
        """`%matplotlib inline` asks for none."""


def real_data(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAED_DATA", str(request.getfixturevalue("data_folder")))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_runs(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = dict(SMALL[name])
    if name != "my_own_sensors":
        real_data(request, monkeypatch)
        parameters["OUT"] = "run"
    if name == "frequencies_of_speech" and not Path(os.environ["MAED_DATA"], "sensors/phoneme").is_dir():
        pytest.skip("no sensors/phoneme among the data")
    source = NOTEBOOKS / f"{name}.ipynb"
    if name == "my_own_sensors":  # as a user does, in a kernel of its own
        executed = papermill.execute_notebook(
            source, tmp_path / "executed.ipynb", parameters, cwd=tmp_path, progress_bar=False
        )
        drawn = ["image/png" in output.get("data", {}) for cell in executed.cells for output in cell.get("outputs", [])]
        assert any(drawn)
        return
    monkeypatch.chdir(tmp_path)
    cells = papermill.parameterize.parameterize_notebook(
        papermill.iorw.load_notebook_node(str(source)), parameters
    ).cells
    shell = Shell.instance()
    shell.reset(new_session=False)
    results = [shell.run_cell(cell.source) for cell in cells if cell.cell_type == "code"]
    for result in results:
        result.raise_error()
    assert any("image/png" in shell.display_formatter.format(result.result)[0] for result in results)


@pytest.mark.slow
def test_the_baseline_is_a_script(
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real_data(request, monkeypatch)
    preset = tmp_path / "small.yaml"
    preset.write_text(json.dumps(PIXELS))  # JSON is YAML
    script = str(NOTEBOOKS / "baseline_perceiver_cifar.py")
    monkeypatch.setattr(sys, "argv", [script, "--preset", str(preset), "--out", str(tmp_path / "run")])
    runpy.run_path(script, run_name="__main__")
    assert re.search(r"trainable, seed 0: \d+\.\d % test accuracy\n$", capsys.readouterr().out)
    assert (tmp_path / "run/models/trainable-0/metrics.json").is_file()


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_takes_public_names_alone(name: str) -> None:
    cells = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code").replace("%matplotlib inline", "")
    for module, public in imported(code):
        assert public in import_module(module).__all__, f"{module}.{public}"


@pytest.mark.parametrize("name", SMALL)
def test_a_notebook_is_committed_as_it_was_executed(name: str) -> None:
    path = NOTEBOOKS / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    assert [cell for cell in code if "parameters" in cell.metadata.get("tags", [])] == code[:1]
    outputs = [output for cell in code for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert all(output.get("name") != "stderr" for output in outputs)  # no warnings, no bars
    said = path.read_text(encoding="utf-8")
    assert not re.search(r"/(work|tmp|home|root|usr)/", said)  # no place of the machine that it was executed on
    assert len(said) < 900_000
