"""Pretraining an encoder by hidden values: what it sees, who begins with it, how it goes on, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maed.cli import main
from maed.data.signals import SignalData, Signals
from maed.engine import lightning
from maed.errors import MaedError
from maed.evaluation.comparison import compare_all, summarize
from maed.experiments.comparison import TUNING_SEED, Comparison
from maed.experiments.live import Lines
from maed.experiments.run import new_results
from maed.experiments.trials import Trial, _work, run_trials
from maed.files import read_json
from maed.models import Start, batches, check_fits, load_classifier, training
from maed.models.architectures.maed import Maed
from maed.models.config import ClassifierConfig
from maed.models.training import start_of, train_classifier
from maed.records import Results, Score
from maed.registry import TASKS
from maed.run_folder import STAGE, RunFolder
from maed.server.progress import Part
from maed.settings import PerceiverSettings, Settings, TrainerSettings, TrainSettings
from stages import context
from test_perceiver_training import Kill, Killed
from test_trials import DIVERGES, images

TINY = [
    *("--perceiver.latents=4", "--perceiver.latent_width=16", "--perceiver.layers=1", "--perceiver.heads=2"),
    *("--train.warmup=2", "--train.learning_rate=0.01", "--train.batch_size=32", "--train.epochs=1"),
    *("--train.pretrain_steps=3", "--embedding.dim=4", "--trainer.progress=none", "--trainer.threads=1"),
]
DIGITS = ["digits", "--data.limit=200", *TINY]


def chosen(**train: Any) -> Settings:
    defaults = {"epochs": 2, "batch_size": 12, "warmup": 2, "learning_rate": 1e-2, "validate_every": 3}
    pretraining = {"pretrain_steps": 8, "pretrain_batch_size": 12, "pretrain_learning_rate": 1e-2}
    return Settings(
        perceiver=PerceiverSettings(latents=8, latent_width=32, layers=1, heads=2),
        train=TrainSettings(**(defaults | pretraining | train)),
        trainer=TrainerSettings(accelerator="cpu", progress="none", precision="32-true", threads=1),
    )


def pretrained(folder: Path, data: SignalData, encoding: str = "random", **train: Any) -> dict[str, Any]:
    settings, callbacks = chosen(**train), train.pop("callbacks", ())
    return train_classifier(
        data, encoding, seed=0, folder=folder, dim=8, settings=settings, task="masked", pretraining=True,
        callbacks=callbacks,
    )  # fmt: skip


def texts(n: int = 96, length: int = 12, vocabulary: int = 6) -> SignalData:
    """A token at all even places and another at all odd ones, so that places tell which of two is hidden."""
    generator = np.random.default_rng(0)
    labels, values = np.arange(n) % 2, generator.integers(0, vocabulary, (n, 2))[:, np.arange(length) % 2]
    mask = np.arange(length) < np.where(labels == 1, length, length // 2)[:, None]
    train, validation, test = (
        Signals(values[a:b], labels[a:b], mask[a:b]) for a, b in ((0, n // 2), (n // 2, 3 * n // 4), (3 * n // 4, n))
    )
    return SignalData("texts", "tokens", train, validation, test, vocabulary=vocabulary, classes=("short", "long"))


def model(data: SignalData, encoding: str = "random", task: str = "masked", **train: Any) -> Maed:
    config = ClassifierConfig.of(data, encoding, 8, chosen().perceiver)
    kind = TASKS.get(task)
    config = replace(config, task=task, classes=kind.output_names(data), facts=kind.facts(data, TrainSettings(**train)))
    table = torch.zeros(config.table_shape) if encoding == "none" else torch.randn(config.table_shape)
    return Maed(config, table)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# -- what is hidden, and how it is asked for ----------------------------------------------------------------------


@given(st.integers(2, 20), st.floats(0.01, 0.99), st.integers(1, 30), st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_what_is_hidden_is_real_and_something_is_always_seen(n, share, scored, seed):
    mask = torch.rand(5, n, generator=torch.Generator().manual_seed(seed)) < 0.5
    mask[:, :2] = True
    task = TASKS.get("masked")((), 1, {"hidden_fraction": share, "scored": scored, "vocabulary": 0})
    values = torch.arange(n).float().expand(5, n)[..., None]
    seen = task.seen(values, mask, torch.empty(5, 0))
    shown, (targets, hidden) = seen.mask, seen.target
    assert shown.any(dim=1).all()
    assert not (shown & ~mask).any()
    assert (mask & ~shown).sum(dim=1).tolist() == [
        min(max(1, round(float(np.float32(real) * np.float32(share)))), real - 1) for real in mask.sum(dim=1).tolist()
    ]
    asked = torch.arange(n) if seen.asked is None else seen.asked
    assert len(asked) == len(asked.unique()) == min(n, scored)
    assert torch.equal(targets[..., 0], asked.float().expand(5, -1))
    assert torch.equal(hidden, (mask & ~shown)[:, asked])


def test_a_validation_hides_and_asks_for_the_same_every_time():
    data, task = texts(), model(texts(), pretrain_scored=4).config.learned()
    prepared = task.prepared(data).validation
    assert (prepared.labels & ~prepared.mask).sum() == 0
    rows = np.arange(8)
    seen = [task.seen(prepared.take(rows), prepared.real(rows), prepared.targets(rows)) for _ in range(2)]
    assert torch.equal(seen[0].mask, seen[1].mask)
    assert torch.equal(seen[0].asked, seen[1].asked)


def test_the_loss_is_the_mean_over_what_is_hidden():
    hidden = torch.rand(6, 10) < 0.5
    task = TASKS.get("masked")((), 2, {"hidden_fraction": 0.5, "scored": 99, "vocabulary": 0})
    told, values = torch.randn(6, 10, 2), torch.randn(6, 10, 2)
    expected = torch.nn.functional.mse_loss(told[hidden], values[hidden])
    assert task.outputs == 2
    assert torch.allclose(task.loss(told, (values, hidden), training=True), expected)

    task = TASKS.get("masked")((), 0, {"hidden_fraction": 0.5, "scored": 99, "vocabulary": 7})
    told, tokens = torch.randn(6, 10, 7), torch.randint(7, (6, 10))
    expected = torch.nn.functional.cross_entropy(told[hidden], tokens[hidden])
    assert task.outputs == 7
    assert torch.allclose(task.loss(told, (tokens, hidden), training=True), expected)
    measures = task.metrics()
    for part in (slice(0, 2), slice(2, 6)):
        task.update(measures, told[part], (tokens[part], hidden[part]))
    right = (told.argmax(dim=2) == tokens)[hidden].float().mean()
    found = {name: metric.compute() for name, metric in measures.items()}
    assert torch.allclose(torch.stack([*found.values()]), torch.stack([expected, right]), atol=1e-6)


@pytest.mark.parametrize("data", [images(), texts()], ids=["real", "tokens"])
def test_what_is_asked_for_is_told_as_if_all_were(data):
    perceiver, rows = model(data), np.arange(5)
    torch.nn.init.normal_(perceiver.perceiver.decoder.final_layer.weight)
    values, mask = data.train.take(rows), data.train.real(rows)
    asked = torch.tensor([7, 0, 3])
    every = perceiver(values, mask)
    assert torch.allclose(perceiver(values, mask, asked=asked), every[:, asked], atol=1e-5)
    assert (every[:, 0] - every[:, 1]).abs().max() > 1e-3


def test_without_encodings_every_query_is_the_same():
    data = images()
    perceiver = model(data, "none")
    torch.nn.init.normal_(perceiver.perceiver.decoder.final_layer.weight)
    told = perceiver(data.train.take(np.arange(5)))
    assert torch.allclose(told, told[:, :1].expand_as(told), atol=1e-5)


# -- what a pretraining sees, and who begins with it --------------------------------------------------------------


@pytest.mark.slow
def test_it_sees_every_training_signal_and_no_label(tmp_path):
    data = images()
    first = pretrained(tmp_path / "a", data)
    assert (first["labels"], first["metric"], first["history"][-1]["step"]) == (None, "hidden_loss", 8)
    swapped = replace(data, train=replace(data.train, labels=1 - data.train.labels))
    assert {**pretrained(tmp_path / "b", swapped), "seconds": 0} == {**first, "seconds": 0}
    encoders = [load_classifier(tmp_path / name).encoder_state() for name in "ab"]
    assert same(*encoders)

    seen: list[int] = []
    take = batches.take

    def noted(signals, rows, **others):
        seen.extend(rows if len(signals) == len(data.train) else ())
        return take(signals, rows, **others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "take", noted)
        pretrained(tmp_path / "c", data)
    assert set(seen) == set(range(len(data.train)))


@pytest.mark.slow
def test_tokens_are_told_by_their_places_where_encodings_say_them(tmp_path):
    data, found = texts(960, length=8, vocabulary=4), {}
    for encoding in ("none", "random"):
        found[encoding] = pretrained(tmp_path / encoding, data, encoding, pretrain_steps=80, pretrain_batch_size=32)
    assert found["none"]["test_hidden_loss"] > 0.3  # with log 2, 0.69, for a guess between the two that are seen
    assert found["random"]["test_hidden_loss"] < 0.1
    assert found["random"]["metrics"]["token_accuracy"] > 0.95


def test_a_training_begins_with_the_encoder_and_a_head_of_its_own(tmp_path):
    data = images()
    there, table = model(data), None
    there.save_pretrained(tmp_path)
    here = model(data, task="classification")
    before, table = {name: tensor.clone() for name, tensor in here.state_dict().items()}, there.position_table
    Start(tmp_path).take_over(here)
    after, found = here.state_dict(), load_classifier(tmp_path).state_dict()
    own = {name for name in after if name.startswith("perceiver.decoder.")}
    assert own
    assert all(torch.equal(after[name], before[name]) for name in own)
    assert all(torch.equal(after[name], found[name]) for name in after if name not in own)
    assert torch.equal(here.position_table, table)


@pytest.mark.slow
def test_settings_of_pretraining_are_no_part_of_a_training_without_it(tmp_path):
    data, given = images(), {"seed": 0, "folder": tmp_path, "dim": 8}
    first = train_classifier(data, "random", **given, settings=chosen(epochs=1))
    again = train_classifier(data, "random", **given, settings=chosen(epochs=1, pretrain_steps=99), overwrite=False)
    assert again == first
    starts = [start_of(data, "random", **given, settings=chosen(**train)) for train in ({}, {"pretrain_hidden": 0.9})]
    assert starts[0].fingerprint != starts[1].fingerprint
    others = {"epochs": 1, "pretrain_steps": 8, "label_smoothing": 0.1, "hide": 0.2, "learning_rate": 1.0}
    assert start_of(data, "random", **given, settings=chosen(**others)) == starts[0]


# -- in a comparison ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_pretraining_serves_all_labels_and_rates_of_a_seed(tmp_path, monkeypatch, capsys):
    began: list[str] = []
    train = training._train_and_test

    def noted(job: Any, *others: Any) -> Any:
        began.append(job.folder.name)
        return train(job, *others)

    monkeypatch.setattr(training, "_train_and_test", noted)
    out = tmp_path / "run"
    command = ["compare", *DIGITS, "--out", str(out), "--positions=none,fourier", "--seeds=1", "--labels=20,all"]
    command += ["--pretrain=none,masked", "--train.tune=[0.01,0.02]", "--train.tune_steps=1"]
    assert main(command) == 0
    arms = [f"{p}{e}" for p in ("", "pretrained-") for e in ("none", "fourier")]
    models = [f"{n}{arm}-0" for n in ("20-", "") for arm in arms]
    tuned = [f"{arm}-{rate}" for arm in arms for rate in (0.01, 0.02)]
    encoders = [f"{e}-{seed}" for seed in (TUNING_SEED, 0) for e in ("none", "fourier")]
    assert sorted(began) == sorted([*models, *tuned, *encoders])
    assert {path.name for path in (out / "models" / "pretrain").iterdir()} == set(encoders)
    place = STAGE.fullmatch("models/20-pretrained-fourier-0")
    assert place is not None
    assert (place["labels"], place["encoding"], place["pretrained"]) == ("20", "fourier", "pretrained-")
    assert STAGE.fullmatch("models/pretrain/fourier-0")["pretraining"]

    results = Results.read(out / "results.json")
    assert [(row.labels, row.positions, row.pretrained, row.seeds) for row in results.summary] == [
        (n, e, p, 1) for n in (20, 200) for p in (None, "masked") for e in ("none", "fourier")
    ]
    pairs = [("fourier", "none"), ("fourier, pretrained", "none, pretrained")]
    pairs += [("none, pretrained", "none"), ("fourier, pretrained", "fourier")]
    assert [(row.a, row.b) for row in results.paired] == pairs * 2
    assert {row.arm: row.learning_rate for row in results.tuning if row.chosen}.keys() == {
        "none", "fourier", "none, pretrained", "fourier, pretrained"
    }  # fmt: skip
    assert results.seconds["pretraining"] > 0
    said = capsys.readouterr()
    assert "fourier, pretrained" in said.out
    assert (said.out + said.err).count("pretrain: no training signals are without labels") == 1
    metrics = read_json(out / "models" / "20-pretrained-fourier-0" / "metrics.json")
    made = read_json(out / "models" / "pretrain" / "fourier-0" / "metrics.json")
    assert metrics["pretrained"] == "masked"
    assert metrics["pretraining"] == {"steps": 3, "seconds": made["seconds"], "history": made["history"]}
    began.clear()
    assert main(command) == 0
    assert began == []
    assert replace(Results.read(out / "results.json"), started=None) == replace(results, started=None)
    assert main(["report", str(out)]) == 0
    assert main(["compare", *DIGITS, "--out", str(out), "--positions=none", "--pretrain=masked", "--seeds=1",
                 "--train.pretrain_hidden=0.3"]) == 2  # fmt: skip
    assert "holds a Perceiver with other settings" in capsys.readouterr().err


def test_arms_are_never_mixed_in_one_mean():
    rows = [Score("maed", seed, 0.5 + 0.1 * (p is not None), pretrained=p) for seed in (0, 1) for p in (None, "masked")]
    assert [(row.arm, round(row.mean, 6), row.seeds) for row in summarize(rows)] == [
        ("maed", 0.5, 2), ("maed, pretrained", 0.6, 2)
    ]  # fmt: skip
    assert [(row.a, row.b, round(row.mean, 6)) for row in compare_all(rows)] == [("maed, pretrained", "maed", 0.1)]


class KillTraining(Kill):
    """Kills a pretraining or the training after it."""

    def __init__(self, pretraining: bool) -> None:
        self.pretraining = pretraining

    def on_train_batch_end(self, trainer, module, *_):
        if (module.setting != "train.") == self.pretraining:
            super().on_train_batch_end(trainer)


@pytest.mark.slow
@pytest.mark.parametrize("pretraining", [True, False])
def test_a_kill_in_either_phase_changes_nothing(pretraining, tmp_path, monkeypatch):
    def trained(folder: Path) -> tuple[Any, Any]:
        run = context(folder, chosen(), images())
        metrics = Comparison(run, labels=(20,), pretrain=("masked",)).train("trainable", 0)
        del metrics["seconds"], metrics["pretraining"]["seconds"]
        return metrics, load_classifier(folder / "models" / "20-pretrained-trainable-0").state_dict()

    whole = trained(tmp_path / "whole")
    build = lightning.build_trainer
    with monkeypatch.context() as patch:
        kill = KillTraining(pretraining)
        patch.setattr(
            training, "build_trainer", lambda *a, callbacks, **k: build(*a, callbacks=[*callbacks, kill], **k)
        )
        with pytest.raises(Killed):
            trained(tmp_path / "cut")
    assert (tmp_path / "cut" / "models" / "pretrain" / "trainable-0" / "model.safetensors").is_file() != pretraining
    metrics, weights = trained(tmp_path / "cut")
    assert metrics == whole[0]
    assert same(weights, whole[1])


@pytest.mark.slow
def test_a_worker_without_the_files_is_given_the_encoder(tmp_path):
    data, run = images(), context(tmp_path / "here", chosen(), images())
    trial = Comparison(run, pretrain=("masked",)).trial("random", 0, None, pretrain="masked")
    assert isinstance(trial.start, Trial)
    trial.start.train(data)
    expected = trial.train(data)
    given = {path.name: path.read_bytes() for path in trial.start.folder.iterdir() if path.is_file()}
    lost = tmp_path / "lost" / "models"
    away = replace(trial, folder=lost / "a", start=replace(trial.start, folder=lost / "b"))
    metrics, files = _work(data, away, True, given)
    assert isinstance(metrics, dict)
    assert expected is not None
    assert {**metrics, "seconds": 0} == {**expected, "seconds": 0}
    assert "model.safetensors" in files


class FakeRay(SimpleNamespace):
    """What `run_trials` asks of Ray: jobs, of which the last to be started is the first to end."""

    exceptions = SimpleNamespace(RayError=OSError, RayTaskError=KeyError)

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 3}}]

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **_: Any) -> Any:
        def start(*given: Any) -> tuple[Any, Any]:
            self.started.append(given[1])
            key = object(), object()
            self.jobs[key[0]], self.jobs[key[1]] = given, given
            return key

        return lambda work: SimpleNamespace(remote=start)

    def wait(self, keys: list[Any], num_returns: int) -> tuple[list[Any], list[Any]]:
        return [keys[-1]], keys[:-1]

    def get(self, key: Any) -> Any:
        return _work(*self.jobs[key])[0]


@pytest.mark.slow
def test_workers_pretrain_before_they_train(tmp_path):
    data, run = images(), context(tmp_path / "run", chosen(), images())
    comparison, ray = Comparison(run, labels=(10, None), pretrain=(None, "masked")), FakeRay(started=[], jobs={})
    trials = [
        comparison.trial("random", seed, None, labels=labels, pretrain=pretrain)
        for seed in (0, 1)
        for labels in (10, None)
        for pretrain in (None, "masked")
    ]
    starts = list(dict.fromkeys(trial.start for trial in trials if isinstance(trial.start, Trial)))
    cluster: Any = SimpleNamespace(connect=lambda: ray, address="ray://there:10001")
    done = [each for each, _ in run_trials(data, [*starts, *trials], cluster=cluster, board=Lines(lambda line: None))]
    assert set(done) == {*starts, *trials}
    assert len(starts) == 2
    for trial in trials:
        if isinstance(trial.start, Trial):
            assert done.index(trial.start) < done.index(trial)
    here = context(tmp_path / "here", chosen(), data)
    alone = Comparison(here, labels=(10,), pretrain=("masked",)).train("random", 1)
    assert trials[5].start is starts[1]
    found = read_json(trials[5].folder / "metrics.json")
    assert found["test_accuracy"] == alone["test_accuracy"]
    assert found["fingerprint"] == alone["fingerprint"]


def test_who_watches_is_told_what_is_pretrained():
    names = {
        "models/pretrain/fourier-0": "Perceiver fourier, pretraining, seed 0",
        "models/300-pretrained-maed-1": "Perceiver maed, 300 labels, pretrained, seed 1",
        "models/tune/pretrained-none-0.001": "Perceiver none, pretrained, learning rate 0.001",
    }
    assert {name: Part(name, True, 0.0).title for name in names} == names
    assert Part("models/pretrain/fourier-0", False, 0.0).task == "masked"


# -- an encoder from elsewhere ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has pretrained on all digits that it knows."""
    out = tmp_path_factory.mktemp("pretrained") / "run"
    assert main(["train", *DIGITS, "--out", str(out), "--positions=fourier", "--pretrain=masked"]) == 0
    return out


@pytest.mark.slow
def test_the_encoder_of_another_run_is_an_artifact(run, tmp_path, capsys):
    folder = RunFolder(run).pretraining("fourier", 0).path
    assert isinstance(load_classifier(folder), Maed)
    for name, asked in (("run", run), ("folder", folder)):
        few = [*DIGITS, "--data.limit=150", "--labels=20", "--positions=fourier", "--pretrain", str(asked)]
        assert main(["train", *few, "--out", str(tmp_path / name)]) == 0
        assert not (tmp_path / name / "models" / "pretrain").exists()
    metrics = read_json(tmp_path / "run" / "models" / "20-pretrained-fourier-0" / "metrics.json")
    assert (metrics["pretrained"], metrics["pretraining"]["steps"]) == ("masked", 3)
    capsys.readouterr()
    assert main(["info", str(folder)]) == 0
    assert "test loss of hidden positions" in capsys.readouterr().out
    np.save(tmp_path / "new.npy", np.zeros((2, 64), np.float32))
    assert main(["predict", str(folder), str(tmp_path / "new.npy")]) == 2
    assert "is a pretrained encoder, which a training can start from (--pretrain" in capsys.readouterr().err


# -- what cannot be -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--positions=none",), "holds no pretrained encoder of none"),
        (("--positions=fourier", "--perceiver.latents=5"), "does not fit; perceiver.latents is 4 there and 5 here"),
        (("--positions=fourier", "--data.permute=1"), "does not fit; order is as stored there and permuted"),
        (("--positions=fourier", "--embedding.dim=6"), "does not fit; dim is 4 there and 6 here"),
        (("--positions=fourier", "--seeds=2"), "holds no encoder of fourier and seed 1"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused_before_any_work(run, tmp_path, capsys, options, said):
    out = tmp_path / "out"
    command = ["compare", *DIGITS, "--out", str(out), "--pretrain", str(run), "--seeds=1", *options]
    assert main(command) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (out / "models").exists()


def test_other_signals_other_vocabulary_and_other_encodings_are_named(tmp_path):
    model(texts(length=12)).save_pretrained(tmp_path / "a")
    for data, encoding, said in (
        (texts(length=14), "random", "positions is 12 there and 14 here"),
        (texts(vocabulary=9), "random", "vocabulary is 6 there and 9 here"),
        (texts(), "trainable", "encoding is random there and trainable here"),
        (images(), "random", "kind is tokens there and real here"),
    ):
        config = ClassifierConfig.of(data, encoding, 8, chosen().perceiver)
        with pytest.raises(MaedError, match=f"^pretrain: .* does not fit; {said}"):
            check_fits(tmp_path / "a", config)
    model(texts(), task="classification").save_pretrained(tmp_path / "b")
    with pytest.raises(
        MaedError, match=r"^pretrain must be a pretrained encoder; .* holds a Perceiver of classification"
    ):
        check_fits(tmp_path / "b", ClassifierConfig.of(texts(), "random", 8, chosen().perceiver))
    with pytest.raises(MaedError, match=r"^pretrain: the frozen vectors of random must be those"):
        Start(tmp_path / "a").identity(
            ClassifierConfig.of(texts(), "random", 8, chosen().perceiver), torch.zeros(12, 8)
        )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--pretrain=maksed",), "maksed holds no pretrained encoder of random"),
        (("--pretrain=masked,runs",), "pretrain must be none, masked or a folder, or none with one of the others, got"),
        (("--pretrain=masked", "--perceiver.architecture=image"), "must be maed with --pretrain masked"),
        (
            ("--pretrain=masked", "--train.pretrain_hidden=1"),
            "train.pretrain_hidden must be above 0 and below 1, got 1.0",
        ),
        (("--pretrain=masked", "--train.pretrain_steps=0"), "train.pretrain_steps must be at least 1, got 0"),
        (("--pretrain=masked", f"--train.pretrain_learning_rate={DIVERGES}"), "lower train.pretrain_learning_rate"),
    ],
)
def test_what_cannot_be_pretrained_is_refused_in_a_line(tmp_path, capsys, options, said):
    out = tmp_path / "out"
    assert main(["compare", *DIGITS, "--out", str(out), "--positions=random", "--seeds=1", *options]) == 2
    assert said in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (out / "models" / "pretrained-random-0" / "metrics.json").exists()


def test_signals_of_which_nothing_can_be_hidden_are_refused(tmp_path):
    data = texts()
    single = replace(data, train=replace(data.train, mask=np.arange(12) < np.ones((len(data.train), 1))))
    run = context(tmp_path, chosen(), single)
    with pytest.raises(MaedError, match=r"^masked needs training signals with at least 2 real positions"):
        Comparison(run, pretrain=("masked",)).run(["random"], 1, new_results(run, ""))
    forecast = replace(images(), train=images().train)
    wide = {
        name: replace(getattr(forecast, name), values=np.repeat(getattr(forecast, name).values, 3, axis=2))
        for name in ("train", "validation", "test")
    }
    run = context(tmp_path, chosen(), replace(forecast, **wide))
    with pytest.raises(MaedError, match=r"^pretrain must be none with --task forecast, which reads 2 of 3 channels"):
        Comparison(run, task="forecast", pretrain=("masked",)).check("random")
    assert not (tmp_path / "models").exists()
