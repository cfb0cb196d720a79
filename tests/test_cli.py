"""The command line: its help, and one line with exit code 2 for every input that cannot be used."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import maed
from maed import PositionEmbedding, presets
from maed.cli import main, parsing
from maed.errors import MaedError
from maed.files import read_json
from maed.presets import preset_path
from maed.records import RENAMED
from maed.settings import CHOSEN_BY_NAME, Settings, TrainSettings

Refused = Callable[..., str]
VERBS = (
    "run",
    "pretrain",
    "similarity",
    "embed",
    "train",
    "compare",
    "predict",
    "evaluate",
    "report",
    "serve",
    "results",
    "export",
    "info",
)
CONFIGS = sorted(Path(maed.__file__).parent.glob("presets/*.yaml"))
SCRIPT = Path(sys.executable).with_name("maed")
TINY = (
    *("--autoencoder.steps=3", "--autoencoder.width=8", "--similarity.draws=200", "--train.epochs=1"),
    *("--perceiver.latents=4", "--perceiver.latent_width=8", "--perceiver.layers=1", "--trainer.progress=none"),
    "--embedding.force=true",  # there is nothing to find in noise
    *("--similarity.method=maed", "--evaluation.probe_steps=0"),
    *("--report.reductions=[]", "--report.positions=2", "--report.channels=2", "--report.signals=2"),
)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory, so that a default `runs/` or `results` would be seen."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAED_DATA", raising=False)
    return tmp_path


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused: exit code 2, one line of `maed: `, and nothing written. Gives the line."""

    def run(*arguments: str) -> str:
        before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
        code = main(list(arguments))
        said = capsys.readouterr().err
        assert code == 2
        assert said.startswith("maed: ")
        assert said.count("\n") == 1
        assert said.endswith("\n")
        assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before
        return said

    return run


# --- help ---------------------------------------------------------------------------------------------------------


def helped(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("arguments", [(), ("--help",)])
def test_help_lists_the_verbs(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys, *arguments)
    assert all(f"\n    {verb} " in text or f"\n    {verb}\n" in text for verb in VERBS)


def test_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert helped(capsys, "--version") == f"maed {maed.__version__}\n"


@pytest.mark.parametrize("verb", ["run", "pretrain", "similarity", "train", "compare", "embed"])
def test_help_lists_every_setting_and_no_bare_group(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys, verb, "--help")
    words = text.replace("[", " ").replace("]", " ").replace(",", " ").split()
    assert ("SOURCE" in words) == (verb != "embed")
    assert ("--run" in words) == (verb != "run")
    assert {"--out", "--config", "--overwrite"} <= set(words)
    for group, members in dataclasses.asdict(Settings()).items():
        assert {f"--{group}.{name}" for name in members} <= set(words)
        assert f"--{group}" not in words


@pytest.mark.parametrize(
    ("verb", "shown"),
    [
        ("evaluate", ("EMBEDDING_DIR", "SOURCE", "--coordinates", "--evaluation.n_neighbors", "--out")),
        ("report", ("DIR", "--report.channels")),
        ("results", ("PATH", "--markdown")),
        ("info", ("PATH",)),
    ],
)
def test_help_of_the_verbs_that_look(verb: str, shown: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    text = helped(capsys, verb, "--help")
    assert all(word in text for word in shown)
    assert ("--data." in text) == (verb == "evaluate")


# --- names and values of settings ---------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["runn", "digits"], "did you mean 'run'?"),
        (["frobnicate"], "'frobnicate'"),
        (["-x"], "-x: "),
        (["run", "digit"], "source: unknown source 'digit'"),
        (["pretrain"], "source must"),
        (["pretrain", "nowhere/x.npy"], "source: 'nowhere/x.npy' does not exist"),
        (["pretrain", "hub:nobody"], "must be hub:OWNER/NAME, got 'hub:nobody'"),
        (["run", "digits", "photos"], "'photos':"),
        (["run", "digits", "--config", "digit"], "did you mean 'digits'?"),
        (["run", "digits", "--config", "x.yaml"], "config: 'x.yaml' is"),
        (["run", "digits", "--positions", "none,mead"], "positions: unknown encoding 'mead'"),
        (["compare", "digits", "--positions", "nome"], "positions: unknown encoding 'nome'"),
        (
            ["train", "digits", "--positions", "fourrier"],
            "positions: unknown encoding 'fourrier'",
        ),
        (["train", "digits"], "positions must"),
        (["run", "digits", "--seeds", "-1"], "seeds must"),
        (["run", "digits", "--seeds", "two"], "must be of type int"),
        (["run", "digits", "--autoencoder.stepz", "3"], "--autoencoder.stepz:"),
        (["run", "digits", "--autoencodr.steps=3"], "did you mean '--autoencoder.steps'?"),
        (["run", "digits", "--data", "x"], "--data:"),
        (["embed", "--run", "x", "--train", "{}"], "--train:"),
        (["report", "x", "--report", "{}"], "--report:"),
        (["run", "digits", "--autoencoder.steps"], "--autoencoder.steps: expected one argument"),
        (["run", "digits", "--autoencoder.steps", "x"], "autoencoder.steps"),
        (["run", "digits", "--autoencoder.steps", "1.5"], "autoencoder.steps"),
        (["run", "digits", "--data.limit", "x"], "data.limit"),
        (["run", "digits", "--data.columns", "a"], "data.columns"),
        (["run", "digits", "--autoencoder.width", ""], "autoencoder.width"),
        (["run", "digits", "--trainer.tensorboard", "maybe"], "trainer.tensorboard"),
        (
            ["run", "digits", "--similarity.estimator", "contrst"],
            "did you mean 'contrast'?",
        ),
        (["run", "digits", "--data.type", "imag"], "did you mean 'image'?"),
        (["run", "digits", "--data.missing", "xyz"], "data.missing:"),
        (["run", "digits", "--trainer.accelerator", "gpuu"], "did you mean 'gpu'?"),
        (
            ["run", "digits", "--similarity.until", "stabel"],
            "did you mean 'stable'?",
        ),
        (["run", "digits", "--similarity.tolerance", "1"], "must be above 0 and below 1"),
        (
            ["run", "digits", "--autoencoder.kind", "u-net"],
            "did you mean 'unet'?",
        ),
        (["run", "digits", "--autoencoder.loss", "gausian"], "did you mean 'gaussian'?"),
        (["run", "digits", "--data.validation", "1"], "must be above 0 and below 1"),
        (["run", "digits", "--autoencoder.width", "7"], "autoencoder.width"),
        (["embed"], "the folder that `maed similarity` wrote"),
    ],
)
def test_names_and_values_that_are_not_known(refused: Refused, arguments: list[str], said: str) -> None:
    assert said in refused(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("setting", "least"),
    [
        *(("data.limit", 1), ("data.length", 1), ("data.permute", 0), ("data.seed", 0)),
        *(("autoencoder.steps", 1), ("autoencoder.seed", 0), ("autoencoder.warmup", 0), ("autoencoder.patience", 1)),
        *(("autoencoder.learning_rate", 0), ("autoencoder.depth", 1), ("similarity.repeats", 1)),
        *(("similarity.draws", 2), ("similarity.seconds", 0), ("similarity.seed", 0), ("embedding.dim", 1)),
        *(("embedding.diffusion_steps", 0), ("perceiver.latents", 1), ("train.learning_rate", 0), ("train.epochs", 1)),
        *(("trainer.threads", 1), ("evaluation.folds", 2), ("evaluation.n_neighbors", 1), ("report.signals", 1)),
    ],
)
def test_values_below_the_least(refused: Refused, setting: str, least: int) -> None:
    line = refused("pretrain", "digits", f"--{setting}={least - 1}")
    assert line.startswith(f"maed: {setting} must ")
    assert f" {least}, got {least - 1}" in line


@pytest.mark.parametrize("value", ["-0.1", "1"])
def test_dropout_out_of_range(refused: Refused, value: str) -> None:
    assert "perceiver.dropout" in refused("run", "digits", f"--perceiver.dropout={value}")


@pytest.mark.parametrize("value", [".nan", ".inf"])
def test_numbers_that_are_not_finite(refused: Refused, value: str) -> None:
    assert "autoencoder.learning_rate" in refused("run", "digits", f"--autoencoder.learning_rate={value}")


@pytest.mark.slow
@pytest.mark.parametrize("setting", RENAMED)
def test_a_setting_by_its_old_name_is_refused_with_the_new_one(refused: Refused, here: Path, setting: str) -> None:
    new = RENAMED[setting]
    assert new in refused("run", "digits", f"--{setting}=1")
    group, name = setting.split(".")
    (here / "old.yaml").write_text(f"{group}: {{{name}: 1}}\n")
    assert refused("run", "digits", "--config", "old.yaml").startswith(f"maed: {setting}: ")
    assert new in refused("run", "digits", "--config", "old.yaml")


def test_a_value_by_its_old_name_is_refused_with_the_new_one(refused: Refused, here: Path) -> None:
    assert "'original-imdb'" in refused("run", "digits", "--data.split=seed-imdb")
    (here / "old.yaml").write_text("data: {split: seed-imdb}\n")
    assert "'original-imdb'" in refused("run", "digits", "--config", "old.yaml")


@pytest.mark.parametrize("setting", CHOSEN_BY_NAME)
def test_help_lists_the_names(capsys: pytest.CaptureFixture[str], setting: str) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    assert f"--{setting} {{{','.join(CHOSEN_BY_NAME[setting].names)}}}" in capsys.readouterr().out


# --- presets ------------------------------------------------------------------------------------------------------


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    """The settings that a command would run with."""
    with pytest.raises(SystemExit) as stop:
        main([*arguments, "--print_config"])
    assert stop.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["run", "pretrain"])
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_preset_is_read(path: Path, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    chosen = yaml.safe_load(path.read_text())
    settings = printed(capsys, verb, "digits", "--config", path.stem)
    for group, members in chosen.items():
        if group in ("positions", "seeds"):
            assert settings.get(group) == (members if verb == "run" else None)
        else:
            assert {name: settings[group][name] for name in members} == members


def test_there_are_presets() -> None:
    assert {"cifar10-cpu", "digits", "imdb-cpu"} <= {path.stem for path in CONFIGS}


def test_a_preset_is_read_in_python_too() -> None:
    settings = presets.load("cifar10-cpu", {"data": {"permute": 0}, "train": {"steps": 7}})
    preset = yaml.safe_load(preset_path("cifar10-cpu").read_text())
    assert (settings.data.permute, settings.train.steps) == (0, 7)
    assert settings.train.epochs == preset["train"]["epochs"]
    assert settings.train.tune == [5e-4, 1e-3, 2e-3, 4e-3]


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("cifar", {}, "did you mean 'cifar10-cpu'"),
        ("digits", {"data": {"permut": 0}}, "did you mean 'permute'"),
        ("digits", {"dat": {}}, "did you mean 'data'"),
        ("digits", {"data": {"permute": "x"}}, "data.permute"),
        ("digits", {"train": {"steps": -4}}, "train.steps"),
    ],
)
def test_what_a_preset_may_not_hold_is_named_in_python_too(name: str, changes: Any, said: str) -> None:
    with pytest.raises(MaedError, match=re.escape(said)) as refused:
        presets.load(name, changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("turn", [1, -1])
def test_flags_win_over_a_preset_wherever_they_stand(turn: int, capsys: pytest.CaptureFixture[str]) -> None:
    flags = [["--config", "digits"], ["--autoencoder.steps", "7", "--seeds", "5"]][::turn]
    settings = printed(capsys, "run", "digits", *flags[0], *flags[1])
    assert (settings["autoencoder"]["steps"], settings["seeds"]) == (7, 5)
    preset = yaml.safe_load(preset_path("digits").read_text())
    assert settings["train"]["batch_size"] == preset["train"]["batch_size"] != TrainSettings().batch_size


def test_positions_of_a_preset_are_not_those_of_train(refused: Refused, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "train", "digits", "--positions=none", "--config=digits")["positions"] == "none"
    assert "positions" in refused("train", "digits", "--config", "digits")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("autoencoder: {stepz: 3}", "did you mean 'steps'?"),
        ("autoencodr: {steps: 3}", "did you mean 'autoencoder'?"),
        ("position: none", "did you mean 'positions'?"),
        ("autoencoder: 3", "config: autoencoder must"),
        ("autoencoder: {steps: x}", "autoencoder.steps"),
        ("autoencoder: {steps: 0}", "autoencoder.steps"),
        ("autoencoder: {width: }", "autoencoder.width"),
        ("data: {type: imag}", "did you mean 'image'?"),
        ("positions: nome", "positions: unknown encoding 'nome'"),
        ("- a", "holds no settings"),
        ("", "holds no settings"),
        ("a: [", "is not YAML"),
    ],
)
def test_config_files_that_cannot_be_used(refused: Refused, here: Path, content: str, said: str) -> None:
    (here / "mine.yaml").write_text(content)
    assert said in refused("run", "digits", "--config", "mine.yaml")


# --- data ---------------------------------------------------------------------------------------------------------

WHOLE, LABELS = normal(60, 16), np.arange(60) % 2


def with_value(value: float) -> np.ndarray:
    values = WHOLE.copy()
    values[3, 2] = values[5, 4] = value
    return values


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (WHOLE[0], "shape (16,)"),
        (WHOLE.astype(complex), "dtype complex128"),
        (np.full((9, 4), "a"), "dtype <U1"),
        (with_value(np.nan), "inputs: 2 values are NaN, the first in signal "),
        (with_value(np.nan), "--data.missing mask"),
        (with_value(np.inf), "inputs: 2 values are infinite"),
    ],
)
def test_arrays_that_cannot_be_used(refused: Refused, here: Path, values: np.ndarray, said: str) -> None:
    np.save(here / "x.npy", values)
    assert said in refused("pretrain", "x.npy", "--out", "out")


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (np.zeros(60, int), "60 signals"),
        (LABELS[:59], "shape (59,)"),
    ],
)
def test_labels_that_cannot_be_used(refused: Refused, here: Path, labels: np.ndarray, said: str) -> None:
    np.savez(here / "x.npz", inputs=WHOLE, labels=labels)
    assert said in refused("pretrain", "x.npz", "--out", "out")


def test_an_empty_file(refused: Refused, here: Path) -> None:
    (here / "x.npy").touch()
    assert "source: 'x.npy' is an empty file" in refused("run", "x.npy", "--out", "out")


def test_infinity_is_never_masked(refused: Refused, here: Path) -> None:
    np.save(here / "x.npy", with_value(np.inf))
    assert "2 values are infinite" in refused("pretrain", "x.npy", "--data.missing", "mask", "--out", "out")


def test_missing_values_can_be_masked(here: Path) -> None:
    np.save(here / "x.npy", with_value(np.nan))
    assert main(["pretrain", "x.npy", "--data.missing", "mask", "--out", "out", *TINY]) == 0
    assert (here / "out/autoencoder/model.safetensors").is_file()


class Trap:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("sprung"),)


@pytest.mark.parametrize("verb", ["pretrain", "info", "evaluate"])
def test_a_pickle_is_refused_and_never_executed(refused: Refused, here: Path, verb: str) -> None:
    np.save(here / "x.npy", np.array([[Trap(), 1.0]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        np.load(here / "x.npy")
    np.load(here / "x.npy", allow_pickle=True)
    (here / "sprung").unlink()  # the trap works
    PositionEmbedding(torch.from_numpy(normal(16, 3))).save_pretrained(here / "e")
    line = refused(*([verb, "x.npy"] if verb != "evaluate" else ["evaluate", "e", "--coordinates", "x.npy"]))
    assert "x.npy" in line
    assert not (here / "sprung").exists()


def test_a_constant_position_is_only_warned_about(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = WHOLE.copy()
    values[:, 7] = 1.0
    np.save(here / "x.npy", values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.filters", [])  # as outside pytest
        assert main(["pretrain", "x.npy", "--out", "out", *TINY]) == 0
    said = capsys.readouterr().err
    assert said == "maed: warning: 1 of 16 positions are constant in the training signals; they are kept\n"
    assert read_json(here / "out/autoencoder/config.json")["n"] == 16


@pytest.mark.slow
def test_without_a_network_a_local_folder_is_proposed(here: Path) -> None:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(here / "cache")}
    environment.pop("MAED_DATA", None)
    done = subprocess.run(
        [SCRIPT, "run", "imdb", "--out", "out"], env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("maed: source: ")
    assert done.stderr.count("\n") == 1
    assert "a folder in the hub's layout: its path as the source, or in $MAED_DATA" in done.stderr
    assert not (here / "out").exists()


def test_the_console_script(here: Path) -> None:
    done = subprocess.run([SCRIPT, "runn"], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("maed: verb: ")
    assert "did you mean 'run'?" in done.stderr
    assert done.stderr.count("\n") == 1


# --- settings that do not fit the data: refused before any work ---------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--embedding.dim", "16"], "embedding.dim"),
        (["--evaluation.n_neighbors", "16"], "evaluation.n_neighbors"),
        (["--embedding.n_neighbors", "16"], "embedding.n_neighbors"),
        (["--evaluation.folds", "9"], "must be at most 8"),
        (["--autoencoder.visible_fraction", "0.001"], "16 positions"),
        (["--autoencoder.visible_fraction", "0.999"], "16 positions"),
        (["--autoencoder.visible_fraction", "0"], "autoencoder.visible_fraction"),
        (["--autoencoder.loss", "cross-entropy"], "autoencoder.loss"),
        (
            ["--autoencoder.init", "dependence"],
            "autoencoder.init: 'dependence'",
        ),
        (
            ["--autoencoder.init", "corelation"],
            "autoencoder.init: 'corelation' is no folder",
        ),
        (
            ["--autoencoder.init=correlation", "--autoencoder.kind=unet"],
            "must be random for a U-Net",
        ),
        (["--autoencoder.kind=unet", "--autoencoder.batch_size=1"], "autoencoder.batch_size"),
        (["--similarity.batch_size", "100"], "must be a multiple of similarity.repeats"),
        (
            ["--autoencoder.loss=gaussian", "--similarity.transform=root"],
            "similarity.transform",
        ),
        (["--similarity.visible_fraction", "0.001"], "similarity.visible_fraction"),
        (
            ["--similarity.estimator=ablation", "--similarity.visible_fraction=0.07"],
            "similarity.visible_fraction",
        ),
        (["--positions", "none,dependence"], "positions: dependence"),
    ],
)
def test_settings_that_do_not_fit_the_data(refused: Refused, here: Path, arguments: list[str], said: str) -> None:
    coordinates = np.arange(16.0)[:, None]
    np.savez(here / "x.npz", inputs=WHOLE, labels=LABELS, coordinates=coordinates)
    assert said in refused("run", "x.npz", "--out", "out", *arguments)


def test_as_many_neighbors_as_positions(refused: Refused, here: Path) -> None:
    np.save(here / "x.npy", WHOLE[:, :8])
    assert "embedding.n_neighbors" in refused("run", "x.npy", "--out", "out", "--embedding.n_neighbors", "8")


@pytest.mark.slow
def test_defaults_suit_a_few_positions(here: Path) -> None:
    np.save(here / "x.npy", WHOLE[:, :8])
    assert main(["run", "x.npy", "--out", "out", *TINY]) == 0


def test_correlation_is_not_for_tokens(refused: Refused, here: Path) -> None:
    np.savez(here / "x.npz", inputs=np.random.default_rng(0).integers(0, 5, (60, 16)), labels=LABELS)
    line = refused("run", "x.npz", "--out", "out", "--positions", "correlation", "--data.type", "tokens")
    assert "positions: correlation" in line


@pytest.mark.parametrize("verb", ["run", "compare", "train"])
def test_fourier_without_coordinates_is_refused_before_any_work(refused: Refused, here: Path, verb: str) -> None:
    np.savez(here / "x.npz", inputs=WHOLE, labels=LABELS)
    positions = "fourier" if verb == "train" else "none,fourier"
    line = refused(verb, "x.npz", "--positions", positions, "--out", "out")
    assert "x.npz" in line


@pytest.mark.parametrize("arguments", [["train", "--positions", "none"], ["compare"]])
def test_no_labels_where_a_verb_needs_them(refused: Refused, here: Path, arguments: list[str]) -> None:
    np.save(here / "x.npy", WHOLE)
    line = refused(arguments[0], "x.npy", *arguments[1:], "--out", "out")
    assert "x.npy" in line
    assert "labels" in line


@pytest.mark.slow
def test_run_without_labels_skips_the_perceivers_and_says_so(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save(here / "x.npy", WHOLE)
    assert main(["run", "x.npy", "--out", "out", *TINY, "--positions", "none,fourier"]) == 0
    assert "Perceivers skipped: x.npy has no labels." in capsys.readouterr().out
    results = read_json(here / "out/results.json")
    assert [results[key] for key in ("geometry", "scores", "summary", "paired")] == [None] * 4
    assert 0 <= results["split_half"]["maed"] <= 1
    assert "Perceivers skipped" in (here / "out/report.html").read_text()
    assert not (here / "out/models").exists()


@pytest.mark.slow
def test_the_usual_encodings_are_those_that_the_data_can_have(here: Path) -> None:
    np.savez(here / "x.npz", inputs=WHOLE, labels=LABELS)
    assert main(["run", "x.npz", "--out", "out", *TINY, "--seeds", "1", "--embedding.dim", "4"]) == 0
    rows = read_json(here / "out/results.json")["scores"]
    assert [row["positions"] for row in rows] == ["none", "trainable", "maed"]


# --- folders ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["run", "pretrain", "similarity"])
def test_out_is_a_file(refused: Refused, here: Path, verb: str) -> None:
    (here / "out").touch()
    assert "must be a folder" in refused(verb, "digits", "--out", "out")


def test_out_is_below_a_file(refused: Refused, here: Path) -> None:
    np.save(here / "x.npy", WHOLE)
    (here / "file").touch()
    assert "file" in refused("pretrain", "x.npy", "--out", "file/out", *TINY)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["similarity", "x.npz", "--run", "a"], "run: a/autoencoder holds no trained autoencoder;"),
        (["embed", "--run", "a"], "run: a/similarity holds no similarity;"),
        (["train", "x.npz", "--positions", "maed", "--run", "a"], "run: a/embedding holds no embedding;"),
        (["compare", "x.npz", "--positions", "none,maed", "--run", "a"], "run: a/embedding holds no embedding"),
        (["evaluate", "a"], "that maed wrote, or OWNER/NAME of the hub"),
        (["report", "a"], "a: holds no part of a run"),
        (["results"], "results: no such file"),
        (["results", "."], "must be a results.json"),
        (["results", "x.npz"], "x.npz: not a JSON file"),
        (["results", "other.json"], "other.json: not a results.json of maed"),
        (["info", "a"], "a does not exist"),
        (["info", "."], "no train-*.parquet"),
        (["info", "other.json"], "other.json: not a results.json of maed"),
        (["info", "strange"], "config.json"),
        (["info", "note.txt"], "'note.txt' is a .txt file"),
    ],
)
def test_folders_and_files_that_are_not_there_or_others(
    refused: Refused, here: Path, arguments: list[str], said: str
) -> None:
    np.savez(here / "x.npz", inputs=WHOLE, labels=LABELS)
    (here / "other.json").write_text('{"a": 1}')
    if arguments[-1] == "strange":
        (here / "strange").mkdir()
        (here / "strange/config.json").write_text('{"model_type": "bert"}')
    if arguments == ["results", "."]:
        (here / "other.json").unlink()
    (here / "note.txt").write_text("words")
    assert said in refused(*arguments)


@pytest.mark.parametrize(
    ("coordinates", "said"),
    [
        ("grid:4x5", "coordinates"),
        ("line:15", "coordinates"),
        ("grid:4", "coordinates: 'grid:4'"),
        ("line:0", "coordinates: 'line:0'"),
        ("nowhere.npy", "coordinates: 'nowhere.npy'"),
        ("nan.csv", "16 of 16"),
        (None, "coordinates"),
    ],
)
def test_coordinates_that_do_not_fit(refused: Refused, here: Path, coordinates: str | None, said: str) -> None:
    PositionEmbedding(torch.from_numpy(normal(16, 3))).save_pretrained(here / "e")
    (here / "nan.csv").write_text("1,nan\n" * 16)
    assert said in refused("evaluate", "e", *([] if coordinates is None else ["--coordinates", coordinates]))


def test_info_of_a_study(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [{"group": "draws", "seed": seed, "commit": "abc", "machine": "a machine"} for seed in (0, 1)]
    (here / "study.json").write_text(json.dumps({"study": "geometry", "cells": cells}))
    assert main(["info", "study.json"]) == 0
    expected = "study.json: the study `geometry`, 2 cells\ngroups: draws\n"
    assert capsys.readouterr().out == expected


def test_an_embedding_of_somebodys_own(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    PositionEmbedding(torch.arange(16.0)[:, None], source="by hand").save_pretrained(here / "e")
    assert main(["info", "e"]) == 0
    assert "16 positions, 1 channels\nsource: by hand\n" in capsys.readouterr().out
    assert main(["evaluate", "e", "--coordinates", "line:16", "--out", "g"]) == 0
    measured = json.loads((here / "g/geometry.json").read_text())
    assert measured["neighbors"] == 4
    assert [measured[name] for name in ("knn_recall", "spearman", "trustworthiness")] == pytest.approx([1, 1, 1])


def test_info_on_data(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(here / "x.npz", inputs=with_value(np.nan), labels=LABELS, coordinates=normal(16, 2))
    assert main(["info", "x.npz"]) == 0
    text = capsys.readouterr().out
    assert "x.npz: real signals, 16 positions, 1 channels" in text
    assert "classes: 0, 1" in text
    assert "geometry: points" in text


@pytest.mark.parametrize("words", [["--out", "x"], ["--out=x"]])
def test_where_a_run_is_written_is_no_part_of_its_command(words: list[str]) -> None:
    from maed.cli import _command

    assert _command(["run", "digits", *words, "--data.permute", "0"]) == "maed run digits --data.permute 0"


def test_ctrl_c_of_which_a_library_makes_an_error_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def do(*_: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            raise ModuleNotFoundError("cannot be imported") from None

    monkeypatch.setitem(parsing.VERBS, "results", dataclasses.replace(parsing.VERBS["results"], do=do))
    before = signal.getsignal(signal.SIGINT)
    assert main(["results", "x"]) == 130
    assert capsys.readouterr().err.count("\n") == 1
    assert signal.getsignal(signal.SIGINT) is before
