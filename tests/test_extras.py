"""What works without any extra, and what names the extra that it lacks before any work, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from maed.errors import EXTRAS, naming_extra

HIDE = f"import sys; sys.modules.update(dict.fromkeys({[n for names in EXTRAS.values() for n in names]}))"
REFUSED = f"""
{HIDE}
import contextlib, io, json
from maed.cli import main
for line in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as error, contextlib.redirect_stdout(io.StringIO()) as said:
        code = main(line)
    print(json.dumps([code, error.getvalue(), said.getvalue()]))

from maed.data import load
from maed.errors import MaedError
from maed.experiments.comparison import Comparison
from maed.experiments.trials import check_cluster
from maed.presets import load as preset
from maed.run_folder import RunFolder
from maed.settings import DataSettings
from maed.stages import Context
from pathlib import Path
context = Context(RunFolder(Path("run")), preset("digits"), load("digits", DataSettings(limit=100)))
for refused in (lambda: Comparison(context).check("fourier"), lambda: check_cluster("local")):
    try:
        refused()
    except MaedError as error:
        print(error.argument, "/", error)
"""
BASE = f"""
{HIDE}
import warnings
import numpy as np
import maed
from maed.cli import main
warnings.simplefilter("ignore")
X = np.random.default_rng(0).normal(size=(60, 12)).cumsum(axis=1)
embedding = maed.PositionLearner(dim=4, random_state=0, budget="800 draws", force=True).fit(X).embedding_
embedding.plot()
embedding.save_pretrained("saved")
assert maed.PositionEmbedding.from_pretrained("saved").n == 12
few = ["--data.limit=100", "--autoencoder.steps=4", "--autoencoder.width=8", "--similarity.draws=256", "--out=run"]
assert main(["pretrain", "digits", *few]) == main(["similarity", "digits", *few]) == 0
assert main(["embed", "--run=run", "--embedding.force=true"]) == main(["info", "run/embedding"]) == 0
"""
IMPORTED = f"""
{HIDE}
for module, name in (("experiments.run", "run_all"), ("report", "write_report")):
    try:
        exec(f"from maed.{{module}} import {{name}}")
    except ModuleNotFoundError as error:
        print(error)
"""


def alone(program: str, folder: Path, *arguments: str) -> str:
    """What a program prints in a fresh process."""
    command = [sys.executable, "-W", "ignore", "-c", program, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_base_install_learns_saves_and_plots(tmp_path: Path) -> None:
    alone(BASE, tmp_path)
    assert (tmp_path / "run" / "embedding" / "model.safetensors").is_file()


@pytest.mark.slow
def test_an_import_that_lacks_an_extra_names_it(tmp_path: Path) -> None:
    lines = alone(IMPORTED, tmp_path).splitlines()
    for line in lines:
        assert line.endswith(" is not installed; run `pip install 'maed[report]'`")
    assert len(lines) == 2


def test_an_import_that_lacks_something_else_is_left_as_it_is() -> None:
    other = ModuleNotFoundError("No module named 'theirs'", name="theirs")
    assert naming_extra(other) is other
    named = naming_extra(ModuleNotFoundError("No module named 'plotly'", name="plotly"))
    assert naming_extra(named) is named
    assert (named.name, str(named)) == ("plotly", "plotly is not installed; run `pip install 'maed[report]'`")


LACKING = {
    "perceiver": (
        ["train", "digits", "--positions=none"],
        ["compare", "digits"],
        ["predict", "models/maed-0", "new.npy"],
        ["pretrain", "digits", "--trainer.devices=2", "--trainer.accelerator=cpu"],
    ),
    "report": (["report", "run"], ["run", "photos"]),
    "serve": (["serve", "run"],),
    "data": (["pretrain", "hub:somebody/something"], ["pretrain", "table.xlsx"]),
    "mnist": (["pretrain", "mnist"],),
    "umap": (["similarity", "digits", "--embedding.reduction=umap"],),
    "onnx": (["export", "embedding", "--format=onnx"],),
    "tensorboard": (["pretrain", "digits", "--trainer.tensorboard=true"],),
    "xarray": (["pretrain", "table.h5"],),
}


@pytest.mark.slow
def test_what_lacks_an_extra_names_it_before_any_work(tmp_path: Path) -> None:
    for name in ("table.xlsx", "table.h5"):
        (tmp_path / name).write_bytes(b"not read")
    lines = [(extra, line) for extra, found in LACKING.items() for line in found]
    *answers, encoding, cluster = alone(REFUSED, tmp_path, json.dumps([line for _, line in lines])).splitlines()
    for (extra, line), answer in zip(lines, map(json.loads, answers), strict=True):
        code, error, said = answer
        assert (code, error.count("\n")) == (2, 1), (line, error)
        assert f"{extra}]'" in error or f"[{extra}," in error, (line, error)
        assert "step" not in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["table.h5", "table.xlsx"]
    assert encoding.startswith("positions / positions: fourier")
    assert "maed[perceiver]" in encoding
    assert cluster.startswith("trainer.cluster / ")
    assert "maed[ray]" in cluster


@pytest.mark.parametrize("extra", EXTRAS)
def test_every_extra_is_declared(extra: str) -> None:
    declared = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    optional = declared["optional-dependencies"]
    assert optional[extra]
    assert extra in optional["all"][0]


def test_the_lowest_versions_are_the_bounds_that_users_get() -> None:
    root = Path(__file__).parents[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    groups = {name: lines for name, lines in project["optional-dependencies"].items() if name in EXTRAS}
    users = [*project["dependencies"], *chain.from_iterable(groups.values())]
    bounds = {
        canonicalize_name(found.name): Version(next(iter(found.specifier)).version)
        for found in map(Requirement, users)
        if found.specifier and found.name not in ("torch", "ray")  # as in constraints.txt; skipped
    }
    lines = (root / ".ci" / "lowest.txt").read_text().splitlines()
    pinned = (line.partition("==") for line in lines if "==" in line)
    tested = {canonicalize_name(name): Version(found) for name, _, found in pinned}
    assert {name: tested.get(name) for name in bounds} == bounds
