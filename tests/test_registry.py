"""Names that users choose by: a file of the package each, or an entry point of somebody else's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import maed
from maed.errors import MaedError
from maed.registry import BASELINES, ESTIMATORS, REDUCTIONS, Registry

SOURCE = Path(maed.__file__).parents[1]
THEIRS = """
import numpy as np
from maed.embedding import Reduction
from maed.similarity.estimators.contrast import Contrast


class Opposite(Contrast):
    def estimate(self, sums):
        values, error = super().estimate(sums)
        return -values, error


class Columns(Reduction):
    needs_neighbors = False

    def reduce(self, similarity, d, k, steps):
        return similarity[:, :d]
"""
LEARN = """
import sys
import numpy as np
import maed
X = np.random.default_rng(0).normal(size=(60, 9)).cumsum(axis=1)
few = maed.presets.load("digits", {"autoencoder": {"steps": 20}, "similarity": {"draws": 2048, "seed": 0}})
few.autoencoder.init = "random"
made = [
    maed.PositionLearner(dim=3, settings=few, estimator=name, reduction="columns", force=True).fit(X)
    for name in ("contrast", "opposite")
]
assert np.array_equal(made[0].similarity_, -made[1].similarity_) and made[0].similarity_.any()
assert made[1].embedding_.provenance["estimator"] == "opposite"
assert made[1].embedding_.provenance["reduction"] == "columns"
"""


def fresh(code: list[str], *path: Path) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, with folders in front of what it imports from."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*path, SOURCE))), "OMP_NUM_THREADS": "1"}
    return subprocess.run([sys.executable, *code], capture_output=True, text=True, env=environment, timeout=300)


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder in which a distribution of somebody else's is installed."""
    folder = tmp_path / "site"
    information = folder / "their_maed-1.0.dist-info"
    information.mkdir(parents=True)
    (folder / "their_maed.py").write_text(THEIRS)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: their-maed\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(
        "[maed.estimators]\nopposite = their_maed:Opposite\ncontrast = their_maed:Opposite\n\n"
        "[maed.reductions]\ncolumns = their_maed:Columns\ngone = their_maed:Gone\n"
    )
    return folder


def test_names_of_the_package_are_its_files() -> None:
    assert ESTIMATORS.built_in == ("ablation", "contrast", "mean-loss")
    assert BASELINES.built_in == ("correlation", "dependence")
    assert REDUCTIONS.built_in == ("diffusion", "heat", "isomap", "laplacian", "pca", "spectral", "tsne", "umap")


@pytest.mark.parametrize("registry", [ESTIMATORS, BASELINES, REDUCTIONS], ids=lambda registry: registry.kind)
def test_every_name_has_a_class(registry: Registry) -> None:
    for name in registry.built_in:
        assert registry.get(name).__name__.lower() == name.replace("-", "")


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(MaedError) as refused:
        ESTIMATORS.check("similarity.estimator", "contrats")
    assert refused.value.argument == "similarity.estimator"
    assert "'contrast'" in str(refused.value)


def test_an_estimator_and_a_reduction_of_somebody_else_learn(theirs: Path) -> None:
    done = fresh(["-c", LEARN], theirs)
    assert done.returncode == 0, done.stderr


def test_a_reduction_of_somebody_else_on_the_command_line(theirs: Path, tmp_path: Path) -> None:
    similarity = np.random.default_rng(0).random((9, 9), dtype=np.float32)
    (tmp_path / "run" / "similarity").mkdir(parents=True)
    tensors = {"similarity": similarity, "standard_error": np.full_like(similarity, 0.01)}
    save_file(tensors, tmp_path / "run" / "similarity" / "model.safetensors")
    config = {"schema": 1, "n": 9, "made_with": {"source": "x", "similarity": {"estimator": "opposite"}}}
    (tmp_path / "run" / "similarity" / "config.json").write_text(json.dumps(config))
    embed = ["-m", "maed", "embed", "--run", str(tmp_path / "run"), "--embedding.dim=2", "--embedding.force=true"]
    done = fresh([*embed, "--embedding.reduction=columns"], theirs)
    assert done.returncode == 0, done.stderr
    vectors = load_file(tmp_path / "run" / "embedding" / "model.safetensors")["vectors"]
    mean = (similarity + similarity.T) / 2
    np.fill_diagonal(mean, 0)
    expected = mean[:, :2] - mean[:, :2].mean(axis=0)
    assert np.allclose(vectors, expected / np.sqrt((expected**2).mean()), atol=1e-5)
    assert "columns,gone}" in fresh(["-m", "maed", "embed", "--help"], theirs).stdout.replace("\n", "")
    done = fresh([*embed, "--embedding.reduction=gone", "--overwrite"], theirs)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "'gone' (their_maed:Gone)" in done.stderr


def test_listing_names_imports_none_of_them(theirs: Path) -> None:
    code = (
        "import sys; from maed.registry import ESTIMATORS, REDUCTIONS; from maed.settings import Settings\n"
        "assert {'opposite', 'contrast'} <= set(ESTIMATORS.names) and 'gone' in REDUCTIONS.names\n"
        "assert ESTIMATORS.names.count('contrast') == 1; Settings(); import maed.similarity, maed.embedding\n"
        "assert not {'torch', 'numpy', 'their_maed'} & set(sys.modules)"
    )
    done = fresh(["-c", code], theirs)
    assert done.returncode == 0, done.stderr


def test_methods_of_a_kind_do_not_import_one_another() -> None:
    for registry in (ESTIMATORS, BASELINES, REDUCTIONS):
        package = f"maed.{registry.folder.replace('/', '.')}"
        for file in (SOURCE / "maed" / registry.folder).glob("*.py"):
            assert f"from {package}" not in file.read_text(), file
