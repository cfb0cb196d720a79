"""Few labels and tasks beyond classes: which labels a model knows, what it learns, how that is judged, and answered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn import metrics as sk

from maed.cli import main
from maed.data import from_arrays, load
from maed.data.signals import SignalData
from maed.data.splits import nested_order
from maed.errors import MaedError
from maed.files import read_json
from maed.models import load_classifier, train_classifier
from maed.models.learned import chosen_task, known_labels
from maed.plots import charts
from maed.prediction import predict
from maed.records import Results, Score, Summary
from maed.registry import TASKS
from maed.run_folder import STAGE
from maed.settings import DataSettings, PerceiverSettings, Settings, TrainerSettings, TrainSettings
from maed.tasks import Metric
from test_trials import images

N = 8
SENSORS = [f"s{i}" for i in range(N)]
TINY = [
    *("--perceiver.latents=4", "--perceiver.latent_width=16", "--perceiver.layers=1", "--perceiver.heads=2"),
    *("--train.warmup=2", "--train.learning_rate=0.01", "--train.batch_size=32", "--embedding.dim=4"),
    *("--trainer.progress=none", "--trainer.threads=1", "--seeds=1"),
]


def chosen(**train: Any) -> Settings:
    defaults = {"epochs": 2, "batch_size": 12, "warmup": 2, "learning_rate": 1e-2}
    return Settings(
        perceiver=PerceiverSettings(latents=4, latent_width=16, layers=1, heads=2),
        train=TrainSettings(**(defaults | train)),
        trainer=TrainerSettings(accelerator="cpu", progress="none", precision="32-true", threads=1),
    )


def fit(folder: Path, data: SignalData, encoding: str = "random", *, seed: int = 0, **options: Any) -> dict[str, Any]:
    train = options.pop("train", {})
    return train_classifier(data, encoding, seed=seed, folder=folder, dim=8, settings=chosen(**train), **options)


def halves(n: int = 300) -> np.ndarray:
    """Signals whose sensors of one half say about the same, each around a mean of its own."""
    generator = np.random.default_rng(0)
    levels = np.repeat(generator.normal(size=(n, 2)), N // 2, axis=1)
    return (levels + 0.2 * generator.normal(size=(n, N)) + 10 * np.arange(N)).astype(np.float32)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sensors, and columns that may be learned."""
    X = halves()
    frame = pd.DataFrame(X, columns=SENSORS)
    levels = X[:, [0, N - 1]] - X[:, [0, N - 1]].mean(axis=0)
    frame["warm"], frame["wet"] = 100 * levels[:, 0] + 7, levels[:, 1]
    frame["up"], frame["down"] = (levels > 0).astype(int).T
    frame["kind"], frame["same"] = np.where(levels[:, 0] > 0, "a", "b"), 1.5
    frame["who"] = frame["kind"] + (frame.index % 2).astype(str)
    frame["gap"] = frame["wet"].where(frame.index != 3)
    path = tmp_path_factory.mktemp("table") / "table.csv"
    frame.to_csv(path, index=False)
    return path


# -- few labels ---------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 99), st.data())
@settings(max_examples=60, deadline=None)
def test_every_beginning_of_the_order_has_all_classes_by_their_shares(sizes, seed, data):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    order = nested_order(labels, len(labels), np.random.default_rng(seed))
    assert sorted(order) == list(range(len(labels)))
    m = data.draw(st.integers(len(sizes), len(labels)))
    counts = np.bincount(labels[order[:m]], minlength=len(sizes))
    assert counts.min() > 0
    due = [(c - 0.5) / n for c, n in zip(counts, sizes, strict=True) if c > 1]
    next_due = [(c + 0.5) / n for c, n in zip(counts, sizes, strict=True) if c < n]
    assert not due or not next_due or max(due) <= min(next_due)  # no class is ahead of another by more than a place


@given(st.integers(2, 29), st.integers(30, 60), st.integers(0, 9))
@settings(max_examples=30, deadline=None)
def test_fewer_labels_are_a_part_of_more_and_the_test_is_the_same(few, more, seed):
    data = images()
    small, large = (known_labels(data, count, seed) for count in (few, more))
    rows = [{row.tobytes() for row in part.train.values} for part in (small, large)]
    assert (len(rows[0]), len(rows[1])) == (few, more)
    assert rows[0] <= rows[1] <= {row.tobytes() for row in data.train.values}
    assert small.test is data.test


def test_a_trial_of_a_rate_is_judged_by_labels_that_it_has():
    data = images()
    known = {row.tobytes() for row in known_labels(data, 20, 1).train.values}
    trial = known_labels(data, 20, 1, tuning=True)
    assert (len(trial.train), len(trial.validation), trial.test) == (16, 4, trial.validation)
    assert {row.tobytes() for part in (trial.train, trial.validation) for row in part.values} == known
    with pytest.raises(MaedError, match=r"train\.tune"):
        known_labels(data, 3, 1, tuning=True)


@pytest.mark.slow
def test_no_label_beyond_the_few_matters(tmp_path):
    data = images()
    found = fit(tmp_path / "a", data, labels=10)
    every = known_labels(data, None, 0)
    few = {row.tobytes() for row in known_labels(data, 10, 0).train.values}
    told = np.array([row.tobytes() in few for row in data.train.values])
    assert data.train.labels is not None
    assert data.validation.labels is not None
    # all others are swapped in pairs, so that classes keep their shares and the draw stays the same
    order = np.arange(len(told))
    other = np.flatnonzero(~told)
    order[other] = np.roll(other, 2)
    swapped = replace(
        every,
        train=replace(data.train, values=np.where(told[:, None, None], data.train.values, data.train.values[order])),
        validation=replace(data.validation, labels=1 - data.validation.labels),
    )
    again = fit(tmp_path / "b", swapped, labels=10)
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert (found["labels"], found["test_accuracy"]) == (10, again["test_accuracy"])
    # as many steps as with all labels, and one look at the validation, for the record
    whole = fit(tmp_path / "c", data)
    assert [point["step"] for point in found["history"]] == [whole["history"][-1]["step"]]
    assert fit(tmp_path / "c", data, labels=len(data.train), overwrite=False) == whole


@pytest.mark.slow
def test_a_comparison_has_a_curve_for_each_encoding(tmp_path, capsys):
    out = tmp_path / "run"
    command = [
        "compare",
        "digits",
        "--data.limit=200",
        "--positions=none,fourier",
        "--labels=all,20",
        "--out",
        str(out),
    ]
    assert main([*command, *TINY, "--train.epochs=1", "--train.tune=[0.01]", "--train.tune_steps=1"]) == 0
    results = Results.read(out / "results.json")
    assert [(row.labels, row.positions) for row in results.summary] == [
        (labels, encoding) for labels in (20, 200) for encoding in ("none", "fourier")
    ]
    assert [(row.labels, row.a, row.b) for row in results.paired] == [(n, "fourier", "none") for n in (20, 200)]
    names = {path.name for path in (out / "models").iterdir()}
    assert names == {"tune", *(f"{n}{e}-0" for n in ("20-", "") for e in ("none", "fourier"))}
    assert {STAGE.fullmatch(f"models/{name}")["encoding"] for name in names - {"tune"}} == {"none", "fourier"}
    assert [line.x for line in charts.label_curves(results.summary).lines] == [[20, 200]] * 2
    assert main(["report", str(out)]) == 0
    assert (out / "figures" / "labels.svg").is_file()
    capsys.readouterr()
    assert main([*command, *TINY, "--train.patience=2"]) == 2
    assert "train.patience must be null with 20 labels" in capsys.readouterr().err


def test_a_curve_needs_two_numbers_of_labels():
    assert not charts.label_curves([Summary("none", 0.5, None, None, 1, labels=20)])


# -- metrics ------------------------------------------------------------------------------------------------------


def counted(task: Any, *batches: tuple[torch.Tensor, Any]) -> dict[str, Any]:
    metrics = task.metrics()
    for outputs, target in batches:
        task.update(metrics, outputs, target)
    return task.measured({name: metric.compute().tolist() for name, metric in metrics.items()})


def test_metrics_are_those_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    told, true = (torch.randn(40, 2, generator=generator) for _ in range(2))
    outputs, truth = told.numpy(), true.numpy()  # older versions of scikit-learn take no tensors
    facts = {"mean": [3.0, -1.0], "scale": [10.0, 2.0]}
    found = counted(TASKS.get("regression")(("a", "b"), 1, facts), (told[:25], true[:25]), (told[25:], true[25:]))
    assert list(found) == ["r2", "rmse a", "rmse b"]
    assert found["r2"] == pytest.approx(sk.r2_score(truth, outputs), abs=1e-5)
    for i, name in enumerate("ab"):
        units = facts["scale"][i] * sk.root_mean_squared_error(truth[:, i], outputs[:, i])
        assert found[f"rmse {name}"] == pytest.approx(units, rel=1e-5)

    given, labels = (true > 0).float(), truth > 0
    found = counted(TASKS.get("multilabel")(("a", "b"), 1, {}), (told[:25], given[:25]), (told[25:], given[25:]))
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(labels, outputs), abs=1e-5)
    assert found["average precision"] == pytest.approx(sk.average_precision_score(labels, outputs), abs=1e-5)
    assert found["f1"] == pytest.approx(sk.f1_score(labels, outputs > 0, average="macro"), abs=1e-5)


def test_what_is_hidden_is_what_is_counted():
    values, mask = torch.randn(6, 10, 2), torch.ones(6, 10, dtype=torch.bool)
    mask[0, 3:] = False
    task = TASKS.get("imputation")((), 2, {"hidden_fraction": 0.5})
    seen = task.seen(values, mask, torch.empty(6, 0))
    hidden = seen.target[1]
    assert hidden.sum(dim=1).tolist() == [2, 5, 5, 5, 5, 5]
    assert torch.equal(seen.mask, mask & ~hidden)
    assert not (hidden & ~mask).any()
    outputs = values + torch.randn(6, 10, 2)
    found = counted(task, (outputs, seen.target))
    truth, told = values[hidden].flatten().numpy(), outputs[hidden].flatten().numpy()
    assert found["r2"] == pytest.approx(sk.r2_score(truth, told), abs=1e-5)
    assert found["relative rmse"] == pytest.approx(sk.root_mean_squared_error(truth, told), rel=1e-5)
    assert task.loss(outputs, seen.target, training=True) == pytest.approx(sk.mean_squared_error(truth, told), rel=1e-5)

    task = TASKS.get("forecast")((), 4, {"horizon": 1})
    values = torch.randn(6, 10, 4)
    seen = task.seen(values, mask, torch.empty(6, 0))
    assert torch.equal(seen.values, values[..., :3])
    found = counted(task, (torch.zeros(6, 10, 1), seen.target))
    truth, last = values[mask][:, 3].numpy(), values[mask][:, 2].numpy()
    assert found["r2"] == pytest.approx(sk.r2_score(truth, 0 * truth), abs=1e-5)
    assert found["persistence r2"] == pytest.approx(sk.r2_score(truth, last), abs=1e-5)


@given(st.integers(2, 20), st.floats(0.01, 0.99), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_one_position_at_least_is_hidden_and_one_is_seen(n, share, seed):
    mask = torch.rand(5, n, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[:, :2] = True
    task = TASKS.get("imputation")((), 1, {"hidden_fraction": share})
    hidden = task.seen(torch.zeros(5, n, 1), mask, torch.empty(5, 0)).target[1]
    assert ((hidden & mask).any(dim=1) & (mask & ~hidden).any(dim=1)).all()


def test_less_may_be_better():
    assert Metric("loss", "loss", higher=False).better(1.0, 3.0) == 2.0
    assert Score.of({"positions": "none", "seed": 0, "test_accuracy": 0.5}).value == 0.5
    row = Score.of({"positions": "none", "seed": 0, "metric": "r2", "test_r2": 0.4, "validation_r2": 0.3})
    assert (row.value, row.validation) == (0.4, 0.3)


# -- each task, on the command line -------------------------------------------------------------------------------


def compared(out: Path, source: Path, *options: str) -> list[Score]:
    assert main(["compare", str(source), "--positions=random", "--out", str(out), *TINY, *options]) == 0
    return list(Results.read(out / "results.json").scores)


def rows(capsys: pytest.CaptureFixture[str], *command: str) -> pd.DataFrame:
    capsys.readouterr()
    assert main(["predict", *command]) == 0
    text = capsys.readouterr().out
    return pd.DataFrame([line.split(",") for line in text.splitlines()[1:]], columns=text.splitlines()[0].split(","))


@pytest.mark.slow
def test_regression(table, tmp_path, capsys):
    columns = f"--data.columns=[{','.join(SENSORS)}]"
    labels = ("--data.label=warm,wet", "--task=regression", "--train.epochs=12")
    (row,) = compared(tmp_path / "run", table, columns, *labels)
    assert (row.task, row.metric, row.labels) == ("regression", "r2", 216)
    assert row.value > 0.3
    assert list(row.metrics) == ["rmse warm", "rmse wet"]
    assert "rmse warm" in capsys.readouterr().out

    folder = tmp_path / "run" / "models" / "regression-random-0"
    data = load(str(table), DataSettings(columns=SENSORS, label="warm,wet"))
    told = torch.cat(list(predict(load_classifier(folder), data.test.values)))
    assert sk.r2_score(data.test.numbers, told) == pytest.approx(row.value, abs=1e-4)
    found = rows(capsys, str(folder), str(table))
    assert list(found.columns) == ["index", "warm", "wet"]
    everything = pd.read_csv(table)
    assert sk.r2_score(everything[["warm", "wet"]], found[["warm", "wet"]].astype(float)) > 0.3
    assert main(["info", str(folder)]) == 0
    assert "test R²: " in capsys.readouterr().out


@pytest.mark.slow
def test_multilabel_is_what_columns_of_0_and_1_are(table, tmp_path, capsys):
    columns = f"--data.columns=[{','.join(SENSORS)}]"
    (row,) = compared(tmp_path / "run", table, columns, "--data.label=up,down", "--train.epochs=6", "--labels=60")
    assert (row.task, row.metric, row.labels) == ("multilabel", "auroc", 60)
    assert row.value > 0.6
    found = rows(capsys, str(tmp_path / "run" / "models" / "multilabel-60-random-0"), str(table))
    assert list(found.columns) == ["index", "probability_up", "probability_down"]
    assert found["probability_up"].astype(float).between(0, 1).all()


@pytest.mark.slow
def test_imputation_beats_the_mean_and_fills_gaps_in_stored_order_and_units(table, tmp_path, capsys):
    options = (f"--data.columns=[{','.join(SENSORS)}]", "--task=imputation", "--data.permute=1", "--train.epochs=15")
    (row,) = compared(tmp_path / "run", table, *options)
    assert (row.task, row.metric, row.labels) == ("imputation", "r2", None)
    assert row.value > 0.2

    gaps = pd.DataFrame(halves()[:20], columns=SENSORS)
    truth = gaps.copy()
    gaps.iloc[3, 5] = gaps.iloc[4, 0] = np.nan
    gaps[SENSORS[::-1]].to_csv(tmp_path / "gaps.csv", index=False)  # in another order
    folder = str(tmp_path / "run" / "models" / "imputation-random-0")
    found = rows(capsys, folder, str(tmp_path / "gaps.csv"))[SENSORS].astype(float)
    known = gaps.notna().to_numpy()
    assert found.to_numpy()[known] == pytest.approx(truth.to_numpy()[known], rel=1e-6)
    assert np.abs(found - truth).to_numpy().max() < 4  # sensors are 10 apart
    np.save(tmp_path / "gaps.npy", gaps.to_numpy())
    assert main(["predict", folder, str(tmp_path / "gaps.npy"), "--out", str(tmp_path / "full.npy")]) == 0
    assert np.load(tmp_path / "full.npy") == pytest.approx(found.to_numpy(), abs=1e-4)


@pytest.mark.slow
def test_forecasts_beat_the_mean_and_go_beyond_the_end(tmp_path, capsys):
    t = np.arange(400)
    waves = np.sin(0.3 * t[:, None] + np.arange(N)) + 0.1 * np.random.default_rng(0).normal(size=(400, N))
    np.save(tmp_path / "waves.npy", waves.astype(np.float32))
    options = ("--data.window=6", "--data.stride=2", "--task=forecast", "--train.epochs=12")
    (row,) = compared(tmp_path / "run", tmp_path / "waves.npy", *options)
    assert row.value > 0.3
    assert set(row.metrics) == {"relative rmse", "persistence r2", "persistence relative rmse"}
    folder = str(tmp_path / "run" / "models" / "forecast-random-0")
    found = rows(capsys, folder, str(tmp_path / "waves.npy")).astype(float)
    assert found["index"].tolist() == list(range(5, 401))
    told = found.iloc[:-1, 1:].to_numpy()
    assert sk.r2_score(waves[5:].ravel(), told.ravel()) > 0.3
    np.save(tmp_path / "one.npy", waves[None, -5:].transpose(0, 2, 1))
    once = rows(capsys, folder, str(tmp_path / "one.npy")).astype(float)
    assert once.iloc[0, 1:].to_numpy() == pytest.approx(found.iloc[-1, 1:].to_numpy(), abs=1e-4)


def test_one_model_is_trained_for_a_task_with_few_labels(table, tmp_path, capsys):
    options = [f"--data.columns=[{','.join(SENSORS)}]", "--data.label=wet", "--task=regression", "--labels=30"]
    out = tmp_path / "run"
    assert (
        main(["train", str(table), "--positions=none", "--out", str(out), *options, *TINY[:-1], "--train.epochs=1"])
        == 0
    )
    assert "test R² " in capsys.readouterr().out
    assert read_json(out / "models" / "regression-30-none-0" / "metrics.json")["labels"] == 30


# -- what cannot be -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--data.label=kind", "--task=regression"), "are names (a, b, ...);"),
        (("--data.label=kind,up",), "'kind' holds text"),
        (("--data.label=same", "--task=regression"), "data.label: column 'same'"),
        (("--data.label=wett",), "data.label:"),
        (("--data.label=wet,wram",), "did you mean 'warm'"),
        (("--data.label=gap", "--task=regression"), "labels: 1 of 300 in column 'gap' are missing"),
        (("--data.label=wet",), "the labels of"),
        (("--data.label=wet,warm",), "regression"),
        (("--data.label=wet,up", "--task=multilabel"), "column 'wet' holds"),
        (("--data.label=up", "--task=multilabel"), "two label columns"),
        (("--task=regression",), "needs labels, and"),
        (("--task=forecast",), "--data.window 8 makes channels"),
        (("--task=imputation", "--labels=50"), "labels"),
        (
            ("--task=imputation", "--data.type=tokens", "--data.columns=[up,down]", "--embedding.dim=1"),
            "real channels",
        ),
        (("--task=regresion", "--data.label=wet"), "did you mean 'regression'"),
        (("--data.label=kind", "--labels=1000"), "216"),
        (("--data.label=kind", "--labels=1"), "labels"),
        (("--data.label=kind", "--labels=some"), "'some'"),
        (
            ("--data.label=kind", "--data.group=who"),
            "labels: no training signal of class b; whole groups of who are held out",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused_in_a_line_before_any_work(table, tmp_path, capsys, options, said):
    columns = () if any("columns" in option for option in options) else (f"--data.columns=[{','.join(SENSORS)}]",)
    out = tmp_path / "run"
    assert main(["compare", str(table), "--positions=none", "--out", str(out), *columns, *TINY, *options]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert said.format(table=table) in error
    assert not (out / "models").exists()


def test_other_architectures_tell_nothing_of_each_position(table, tmp_path, capsys):
    options = ("--task=imputation", f"--data.columns=[{','.join(SENSORS)}]", "--perceiver.architecture=image")
    assert main(["compare", str(table), "--positions=none", "--out", str(tmp_path / "run"), *options, *TINY]) == 2
    assert "perceiver.architecture" in capsys.readouterr().err


def test_positions_and_splits_are_the_same_for_every_task():
    """What learns positions reads no task, so that no test signal of one is a training signal of another."""
    X, y = halves(), np.random.default_rng(0).normal(size=300)
    for labels in (y, np.stack([y, y], axis=1)):
        data = from_arrays(X, labels)
        assert (data.labeled, data.train.labels) == (False, None)
        assert data.train.numbers.shape == (len(data.train), labels.ndim)
    assert chosen_task(None, from_arrays(X)) is None
    assert chosen_task(None, from_arrays(X, (y > 0).astype(int))) == "classification"
    assert chosen_task("regression", from_arrays(X, (y > 0).astype(int))) == "regression"
    many = from_arrays(X, np.arange(300))  # whole numbers, each once: measurements
    assert (many.classes, many.train.numbers.shape[1]) == ((), 1)
