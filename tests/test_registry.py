"""Names that users choose by: a file of the package each, or an entry point of somebody else's."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import maed
from maed.cli import main
from maed.errors import MaedError
from maed.files import read_json
from maed.registry import BASELINES, ESTIMATORS, REDUCTIONS, Registry
from plug_ins import fresh, install, installed, printed

SOURCE = Path(maed.__file__).parents[1]
THEIRS = """
import torch
from maed.embedding import Reduction
from maed.encodings import Encoding, unit_mean_square
from maed.models import TargetModel
from maed.similarity import Similarity
from maed.similarity.baseline import Baseline
from maed.similarity.estimators.contrast import Contrast


class Opposite(Contrast):
    def estimate(self, sums):
        values, error = super().estimate(sums)
        return -values, error


class Columns(Reduction):
    needs_neighbors = False

    def reduce(self, similarity, d, k, steps):
        return similarity[:, :d]


class SameColumn(Baseline):
    kinds = ("real",)
    made = "made by looking at the columns of the digits"

    def similarity(self, data):
        column = torch.arange(data.positions) % 8
        same = (column[:, None] == column).float().fill_diagonal_(0)
        return Similarity(same, torch.full_like(same, 0.01))


class OfSameColumn(Encoding):
    embedding = "same-column"

    @staticmethod
    def table(n, d, *, vectors, **unused):
        return unit_mean_square(vectors)


class Pooled(TargetModel):
    kinds = ("real",)

    def __init__(self, config, table, *, seed=0):
        super().__init__(config, table)
        self.register_buffer("positions", table.clone())
        torch.manual_seed(seed)
        self.head = torch.nn.Linear(table.shape[1], len(config.classes))

    @property
    def position_table(self):
        return self.positions

    def calibrate(self, values, mask=None):
        pass

    def forward(self, values, mask=None):
        return self.head(values.mean(dim=2) @ self.positions)
"""
LEARN = """
import numpy as np
import maed
X = np.random.default_rng(0).normal(size=(60, 9)).cumsum(axis=1)
few = maed.presets.load("digits", {"autoencoder": {"steps": 20}, "similarity": {"draws": 2048, "seed": 0}})
few.autoencoder.init = "random"
made = [
    maed.PositionLearner(dim=3, settings=few, method="maed", estimator=name, reduction="columns", force=True).fit(X)
    for name in ("contrast", "opposite")
]
assert np.array_equal(made[0].similarity_, -made[1].similarity_) and made[0].similarity_.any()
assert made[1].embedding_.provenance["estimator"] == "opposite"
assert made[1].embedding_.provenance["reduction"] == "columns"
"""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder in which a distribution of somebody else's is installed."""
    estimators = {"opposite": "Opposite", "contrast": "Opposite"}  # a built-in keeps its name
    reductions = {"columns": "Columns", "gone": "Gone"}
    baselines, encodings = {"same-column": "SameColumn"}, {"same-column": "OfSameColumn"}
    architectures = {"pooled": "Pooled"}
    kinds = {"estimators": estimators, "reductions": reductions, "baselines": baselines, "encodings": encodings}
    return install(tmp_path / "site", THEIRS, {**kinds, "architectures": architectures})


def test_names_of_the_package_are_its_files() -> None:
    assert ESTIMATORS.built_in == ("ablation", "contrast", "mean-loss")
    assert BASELINES.built_in == ("correlation", "dependence", "magnitude", "partial")
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


@pytest.mark.slow
def test_an_estimator_and_a_reduction_of_somebody_else_learn(theirs: Path) -> None:
    with installed(theirs):
        exec(LEARN, {})


@pytest.mark.slow
def test_a_reduction_of_somebody_else_on_the_command_line(
    theirs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    similarity = np.random.default_rng(0).random((9, 9), dtype=np.float32)
    (tmp_path / "run" / "similarity").mkdir(parents=True)
    tensors = {"similarity": similarity, "standard_error": np.full_like(similarity, 0.01)}
    save_file(tensors, tmp_path / "run" / "similarity" / "model.safetensors")
    config = {"schema": 1, "n": 9, "made_with": {"source": "x", "similarity": {"estimator": "opposite"}}}
    (tmp_path / "run" / "similarity" / "config.json").write_text(json.dumps(config))
    embed = ["embed", "--run", str(tmp_path / "run"), "--embedding.dim=2", "--embedding.force=true"]
    done = fresh(["-m", "maed", *embed, "--embedding.reduction=columns"], theirs)
    assert done.returncode == 0, done.stderr
    vectors = load_file(tmp_path / "run" / "embedding" / "model.safetensors")["vectors"]
    mean = (similarity + similarity.T) / 2
    np.fill_diagonal(mean, 0)
    expected = mean[:, :2] - mean[:, :2].mean(axis=0)
    assert np.allclose(vectors, expected / np.sqrt((expected**2).mean()), atol=1e-5)
    with installed(theirs):
        with pytest.raises(SystemExit):
            main(["embed", "--help"])
        assert "columns,gone}" in capsys.readouterr().out.replace("\n", "")
        assert main([*embed, "--embedding.reduction=gone", "--overwrite"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "'gone' (theirs:Gone)" in said


FEW = (
    *("--data.limit=200", "--trainer.progress=none", "--trainer.precision=32-true", "--embedding.dim=4"),
    *("--perceiver.layers=1", "--perceiver.latents=4", "--perceiver.latent_width=8", "--train.steps=2"),
    *("--evaluation.probe_steps=5", "--evaluation.probe_seeds=1"),
)
"""Settings under which the digits are learned from in seconds."""


@pytest.mark.slow
def test_a_baseline_of_somebody_else_is_measured_and_compared_by_its_encoding(theirs: Path, tmp_path: Path) -> None:
    learned = ("--autoencoder.steps=10", "--autoencoder.width=16", "--similarity.draws=512", "--embedding.force=true")
    few = ("--report.reductions=[]", "--report.positions=2", "--report.channels=2", "--report.signals=2")
    compared = (*few, "--positions=same-column,none", "--seeds=1", f"--out={tmp_path / 'run'}")
    with installed(theirs):
        assert main(["run", "digits", *learned, *FEW, *compared]) == 0
    results = read_json(tmp_path / "run" / "results.json")
    assert list(results["geometry"]) == ["maed", "correlation", "magnitude", "partial", "same-column"]
    assert [row["positions"] for row in results["scores"]] == ["same-column", "none"]
    folder = tmp_path / "run" / "baselines" / "same-column"
    made = load_file(folder / "similarity" / "model.safetensors")["similarity"]
    assert np.array_equal(made[0], [0, *(position % 8 == 0 for position in range(1, 64))])
    card = (folder / "embedding" / "README.md").read_text()
    assert "made by looking at the columns of the digits" in card
    trained = load_file(tmp_path / "run" / "models" / "same-column-0" / "model.safetensors")
    embedding = load_file(folder / "embedding" / "model.safetensors")["vectors"]
    assert any(np.array_equal(tensor, embedding) for tensor in trained.values())


def test_a_learner_takes_a_baseline_of_somebody_else(theirs: Path) -> None:
    values = np.random.default_rng(0).normal(size=(40, 64))
    with installed(theirs):
        learner = maed.PositionLearner(dim=3, method="same-column").fit(values)
        assert learner.embedding_.label == "same-column"
    assert np.array_equal(learner.similarity_[0, :10], [0, 0, 0, 0, 0, 0, 0, 0, 1, 0])


def test_an_architecture_of_somebody_else_is_trained_and_predicts(theirs: Path, tmp_path: Path) -> None:
    chosen = ("--perceiver.architecture=pooled", "--positions=random", f"--out={tmp_path / 'run'}")
    folder = tmp_path / "run" / "models" / "random-0"
    np.save(tmp_path / "new.npy", np.random.default_rng(0).random((9, 64)))
    with installed(theirs):
        assert main(["train", "digits", *FEW, *chosen]) == 0
        assert main(["predict", str(folder), str(tmp_path / "new.npy"), f"--out={tmp_path / 'labels.csv'}"]) == 0
    assert read_json(folder / "config.json")["perceiver"]["architecture"] == "pooled"
    assert set(load_file(folder / "model.safetensors")) == {"positions", "head.weight", "head.bias"}
    assert read_json(folder / "metrics.json")["history"][-1]["step"] == 2
    assert len((tmp_path / "labels.csv").read_text().splitlines()) == 1 + 9


def test_listing_names_imports_none_of_them(theirs: Path) -> None:
    code = (
        "import sys; from maed.registry import ESTIMATORS, REDUCTIONS; from maed.settings import Settings\n"
        "assert {'opposite', 'contrast'} <= set(ESTIMATORS.names) and 'gone' in REDUCTIONS.names\n"
        "assert ESTIMATORS.names.count('contrast') == 1; Settings(); import maed.similarity, maed.embedding\n"
        "assert not {'torch', 'numpy', 'theirs'} & set(sys.modules)"
    )
    printed(code, theirs)


def test_methods_of_a_kind_do_not_import_one_another() -> None:
    for registry in (ESTIMATORS, BASELINES, REDUCTIONS):
        package = f"maed.{registry.folder.replace('/', '.')}"
        for file in (SOURCE / "maed" / registry.folder).glob("*.py"):
            assert f"from {package}" not in file.read_text(), file


def test_a_class_of_this_process_can_be_added_by_name() -> None:
    registry: Registry[object] = Registry("estimators", "similarity/estimators")
    registry.add("ours", dict)
    assert registry.get(registry.check("estimator", "ours")) is dict
    assert registry.names[-1] == "ours"
    with pytest.raises(MaedError) as refused:
        registry.add("contrast", dict)
    assert refused.value.argument == "name"
