"""Position encodings, the classifier and its training on signals small enough to reason about."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from safetensors.torch import load_file

from maed.data.geometry import line
from maed.data.signals import SignalData, SignalKind, Signals
from maed.encodings import position_table
from maed.errors import MaedError
from maed.files import read_json
from maed.models import ClassifierConfig, PositionEncoding, train_classifier
from maed.models.architectures.maed import Maed
from maed.models.batches import ShuffledBatches, take
from maed.registry import ENCODINGS
from maed.settings import PerceiverSettings, Settings, TrainerSettings, TrainSettings

N, D = 16, 8
SMALL = PerceiverSettings(latents=4, latent_width=16, layers=1, heads=2)


def table(encoding: str, n: int = N, d: int = D, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(n, d, generator=torch.Generator().manual_seed(99))
    return position_table(encoding, n, d, seed=seed, geometry=line(n), vectors=vectors)


def classifier(encoding: str = "maed", kind: SignalKind = "real", seed: int = 0, **settings) -> Maed:
    config = ClassifierConfig(
        kind=kind,
        positions=N,
        classes=("low", "high"),
        encoding=encoding,
        dim=D,
        channels=0 if kind == "tokens" else 3,
        vocabulary=11 if kind == "tokens" else 0,
        perceiver=replace(SMALL, **settings),
    )
    return Maed(config, table(encoding), seed=seed)


def signals(kind: str = "real", batch: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    if kind == "tokens":
        return torch.randint(0, 11, (batch, N), generator=generator)
    return torch.randn(batch, N, 3, generator=generator)


def rms(tensor: torch.Tensor) -> float:
    return float(tensor.detach().square().mean().sqrt())


def test_the_encoding_starts_as_loud_as_it_is_told():
    encoding = PositionEncoding(table("maed"), trained=False)
    encoding.start(0.3)
    assert rms(encoding()) == pytest.approx(0.3, abs=1e-5)


# -- the classifier -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["real", "tokens"])
@pytest.mark.parametrize("encoding", [name for name in ENCODINGS.names if name != "none"])
def test_positions_are_as_loud_as_the_content_that_they_join(encoding, kind):
    model = classifier(encoding, kind)
    values = signals(kind)
    model.calibrate(values)
    assert rms(model.preprocessor.positions()) == pytest.approx(rms(model.preprocessor.content(values)), rel=1e-5)


def test_calibration_leaves_out_what_is_not_real():
    model = classifier()
    values, mask = signals(), torch.ones(5, N, dtype=torch.bool)
    mask[:, 3:] = False
    values[:, 3:] = 1e6
    model.calibrate(values, mask)
    content = model.preprocessor.content(values[:, :3])
    assert rms(model.preprocessor.positions()) == pytest.approx(rms(content), rel=1e-5)


def test_encodings_differ_in_their_table_alone():
    models = {encoding: classifier(encoding) for encoding in ENCODINGS.names}
    reference = models["none"].state_dict()
    for encoding, model in models.items():
        state = model.state_dict()
        assert state.keys() == reference.keys()
        differing = [name for name in state if not torch.equal(state[name], reference[name])]
        assert differing == ([] if encoding == "none" else ["perceiver.input_preprocessor.positions.table"])
    trained = {name: sum(p.numel() for p in m.parameters()) for name, m in models.items()}
    assert trained.pop("trainable") == trained["none"] + N * D
    assert len(set(trained.values())) == 1


def test_making_a_classifier_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    classifier()
    assert torch.equal(before, torch.get_rng_state())


def step(model: Maed) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    model(signals()).sum().backward()
    optimizer.step()


@pytest.mark.parametrize("encoding", ["maed", "correlation", "fourier", "sinusoidal", "random"])
def test_a_frozen_table_is_the_given_one_bit_for_bit(encoding, tmp_path):
    model = classifier(encoding)
    assert torch.equal(model.preprocessor.positions.table, table(encoding))
    step(model)
    assert torch.equal(model.preprocessor.positions.table, table(encoding))
    model.save_pretrained(tmp_path)
    loaded = Maed.from_pretrained(tmp_path)
    assert torch.equal(loaded.preprocessor.positions.table, table(encoding))


@pytest.mark.parametrize(("encoding", "fine_tune"), [("trainable", False), ("maed", True), ("random", True)])
def test_a_trained_table_starts_as_the_given_one_and_moves(encoding, fine_tune):
    model = classifier(encoding, fine_tune=fine_tune)
    assert torch.equal(model.preprocessor.positions.table, table(encoding))
    step(model)
    assert not torch.equal(model.preprocessor.positions.table, table(encoding))


@pytest.mark.parametrize("encoding", ["none", "fourier", "sinusoidal"])
def test_formulas_are_never_fine_tuned(encoding):
    model = classifier(encoding, fine_tune=True)
    step(model)
    assert torch.equal(model.preprocessor.positions.table, table(encoding))


@pytest.mark.parametrize("combine", ["add", "concatenate"])
@pytest.mark.parametrize("kind", ["real", "tokens"])
def test_save_and_load_give_equal_logits(kind, combine, tmp_path):
    model = classifier("trainable", kind, combine=combine).eval()
    model.save_pretrained(tmp_path)
    loaded = Maed.from_pretrained(tmp_path)
    assert torch.equal(loaded(signals(kind)), model(signals(kind)))
    assert loaded.config.classes == ("low", "high")


def test_broken_folders_are_named(tmp_path):
    with pytest.raises(MaedError, match="no such file"):
        Maed.from_pretrained(tmp_path)
    classifier().save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(MaedError, match="not a safetensors file"):
        Maed.from_pretrained(tmp_path)


def test_normalization_and_permutation_survive_and_are_applied(tmp_path):
    order = np.array([2, 0, 1])
    config = ClassifierConfig("real", 3, ("a", "b"), "none", 2, channels=1, perceiver=SMALL)
    config = replace(config, mean=np.array([[0.1]], np.float32), scale=np.array([[3.0]], np.float32), permutation=order)
    config.save(tmp_path / "config.json")
    loaded = ClassifierConfig.load(tmp_path / "config.json")
    stored = np.array([[[1], [2], [3]]], dtype=np.uint8)
    expected = (torch.tensor([[[3.0], [1.0], [2.0]]]) - 0.1) / 3
    assert torch.allclose(loaded.prepare(stored), expected)
    with pytest.raises(MaedError, match=r"\(3, 1\)"):
        loaded.prepare(stored[:, :2])


@pytest.mark.parametrize("kind", ["real", "tokens"])
def test_masked_positions_cannot_change_the_logits(kind):
    model = classifier("maed", kind).eval()
    mask = torch.arange(N) < torch.tensor([[16], [10], [1], [5], [0]])
    values = signals(kind)
    other = values.clone()
    other[~mask] = 7 if kind == "tokens" else torch.nan
    assert torch.equal(model(values, mask), model(other, mask))
    changed = values.clone()
    changed[0, 0] = 3
    assert not torch.allclose(model(changed, mask)[0], model(values, mask)[0])


def test_masked_positions_are_as_good_as_absent():
    # 10 of 16 positions masked give what a model of the first 10 positions gives
    model = classifier("maed").eval()
    short = Maed(replace(model.config, positions=10), table("maed")[:10])
    state = model.state_dict() | {"perceiver.input_preprocessor.positions.table": table("maed")[:10]}
    short.load_state_dict(state)
    mask = (torch.arange(N) < 10).expand(5, N)
    assert torch.allclose(model(signals(), mask), short.eval()(signals()[:, :10]), atol=1e-6)


def test_logits_are_those_of_the_forward_of_transformers():
    model = classifier().eval()
    mask = torch.arange(N) < torch.tensor([[16], [10], [1], [5], [3]])
    theirs = model.perceiver(inputs=signals(), attention_mask=mask.long()).logits
    assert torch.allclose(model(signals(), mask), theirs, atol=1e-6)
    assert torch.allclose(model(signals()), model.perceiver(inputs=signals()).logits, atol=1e-6)


def test_bfloat16_agrees_with_float32_and_masks_as_well():
    model = classifier().eval()
    mask = torch.arange(N) < torch.tensor([[16], [10], [1], [5], [3]])
    other = signals()
    other[~mask] = 100
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(model(signals(), mask), model(other, mask))
        narrow = model(signals(), mask)
    assert narrow.dtype == torch.bfloat16
    assert torch.allclose(narrow.float(), model(signals(), mask), atol=0.1)


def test_cross_heads_must_divide_the_channels():
    with pytest.raises(MaedError) as refused:
        classifier(cross_heads=3)
    assert refused.value.argument == "perceiver.cross_heads"


# -- the training -------------------------------------------------------------------------------------------------


def halves(n: int = 600, seed: int = 0) -> SignalData:
    """Which half of 8 positions holds the larger mean? The values alone, without positions, cannot tell."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, n)
    higher = np.where((np.arange(8) >= 4) == labels[:, None], 1.0, -1.0)
    values = (higher + generator.normal(0, 0.5, (n, 8))).astype(np.float32)[:, :, None]
    mean, scale = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    train, validation, test = (
        Signals(values[a:b], labels[a:b], mean=mean, scale=scale)
        for a, b in ((0, n // 2), (n // 2, 3 * n // 4), (3 * n // 4, n))
    )
    return SignalData("halves", "real", train, validation, test, classes=("left", "right"), geometry=line(8))


def quick(**train) -> Settings:
    defaults = {"epochs": 8, "batch_size": 32, "learning_rate": 5e-3, "warmup": 10}
    return Settings(
        perceiver=SMALL,
        train=TrainSettings(**(defaults | train)),
        trainer=TrainerSettings(accelerator="cpu", progress="none", precision="32-true"),
    )


def fit(folder: Path, encoding: str = "fourier", data: SignalData | None = None, seed: int = 0, **rest) -> dict:
    settings = rest.pop("settings", None) or quick()
    return train_classifier(data or halves(), encoding, seed=seed, folder=folder, dim=D, settings=settings, **rest)


def comparable(metrics: dict) -> dict:
    return {name: value for name, value in metrics.items() if name != "seconds"}


@pytest.mark.slow
def test_positions_make_the_halves_learnable_and_their_absence_does_not(tmp_path):
    assert fit(tmp_path / "fourier")["test_accuracy"] > 0.95
    assert fit(tmp_path / "none", "none")["test_accuracy"] < 0.65


def test_a_finished_training_leaves_what_the_design_names(tmp_path):
    settings = quick(epochs=2, validate_every=7)
    metrics = fit(tmp_path, settings=settings)
    assert read_json(tmp_path / "metrics.json") == metrics
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "model.safetensors", "metrics.json", "last.ckpt", "logs", "progress.json",
    }  # fmt: skip
    # 300 signals in batches of 32 are 10 steps an epoch; the last step is validated although 7 does not divide 20
    assert [point["step"] for point in metrics["history"]] == [7, 14, 20]
    assert metrics["history"][0].keys() == {"step", "train_loss", "validation_loss", "validation_accuracy"}
    assert metrics["validation_accuracy"] == max(point["validation_accuracy"] for point in metrics["history"])
    assert (metrics["epochs"], metrics["test_signals"]) == (2.0, 150)
    loaded = Maed.from_pretrained(tmp_path)
    data = halves()
    values, _, labels, _ = take(data.test, np.arange(150))
    correct = (loaded(values).argmax(1) == labels).float().mean()
    assert metrics["test_accuracy"] == pytest.approx(float(correct))
    geometric = position_table("fourier", 8, D, seed=0, geometry=data.geometry)
    assert torch.equal(loaded.preprocessor.positions.table, geometric)


def test_steps_end_the_training_before_its_epochs(tmp_path):
    metrics = fit(tmp_path, settings=quick(steps=15))
    assert metrics["epochs"] == pytest.approx((300 + 5 * 32) / 300)


@pytest.mark.slow
def test_a_finished_training_is_not_repeated_unless_something_changed(tmp_path):
    metrics = fit(tmp_path, settings=quick(epochs=1))
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    assert fit(tmp_path, settings=quick(epochs=1)) == metrics
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    assert fit(tmp_path, settings=quick(epochs=2))["epochs"] == 2
    assert fit(tmp_path, settings=quick(epochs=2), seed=1)["seed"] == 1


class Killed(Exception):
    pass


class Kill(pl.Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == self.step:
            raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_killed_training_goes_on_to_the_same_end(dropout, tmp_path):
    settings = quick(epochs=3, validate_every=7)  # neither divides the other: a stop within an epoch
    settings.perceiver = replace(SMALL, dropout=dropout)
    whole = fit(tmp_path / "whole", "trainable", settings=settings)
    with pytest.raises(Killed):
        fit(tmp_path / "cut", "trainable", settings=settings, callbacks=(Kill(17),))
    assert not (tmp_path / "cut" / "metrics.json").exists()
    resumed = fit(tmp_path / "cut", "trainable", settings=settings, callbacks=(Refuse(14),))
    assert comparable(resumed) == comparable(whole)
    weights, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("cut", "whole"))
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


class Refuse(pl.Callback):
    """Fails where a training that should have resumed begins anew."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_start(self, trainer, *_):
        assert trainer.global_step == self.step


class KillTest(pl.Callback):
    def on_test_start(self, *_):
        raise Killed


@pytest.mark.slow
@pytest.mark.parametrize("patience", [None, 1])
def test_a_training_killed_before_its_test_is_tested_without_more_steps(patience, tmp_path):
    settings = quick(patience=patience, learning_rate=1e-9, epochs=3)  # learns nothing, so patience 1 ends at step 20
    whole = fit(tmp_path / "whole", settings=settings)
    assert whole["epochs"] == (3 if patience is None else 2)
    with pytest.raises(Killed):
        fit(tmp_path / "cut", settings=settings, callbacks=(KillTest(),))
    assert comparable(fit(tmp_path / "cut", settings=settings)) == comparable(whole)


@pytest.mark.slow
def test_a_checkpoint_of_another_training_is_not_resumed(tmp_path):
    with pytest.raises(Killed):
        fit(tmp_path, settings=quick(epochs=2), callbacks=(Kill(15),))
    fit(tmp_path, settings=quick(epochs=2), seed=1, callbacks=(Refuse(0),))


def test_a_broken_checkpoint_is_not_resumed(tmp_path):
    (tmp_path / "last.ckpt").write_bytes(b"broken")
    (tmp_path / "best.ckpt").write_bytes(b"broken")
    assert fit(tmp_path, settings=quick(epochs=1), callbacks=(Refuse(0),))["epochs"] == 1


class Record(pl.Callback):
    def __init__(self) -> None:
        self.batches: list[torch.Tensor] = []
        self.modes: list[bool] = []

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        self.batches.append(batch[0].clone())
        self.modes.append(module.training and module.classifier.perceiver.training)

    def on_validation_batch_start(self, trainer, module, *_):
        assert not module.classifier.perceiver.training


@pytest.mark.slow
def test_every_encoding_sees_the_same_batches_in_training_mode(tmp_path):
    seen = {}
    for encoding in ("none", "trainable", "fourier"):
        seen[encoding] = Record()
        fit(tmp_path / encoding, encoding, settings=quick(epochs=2), callbacks=(seen[encoding],))
    for record in seen.values():
        assert len(record.batches) == 20
        assert all(record.modes)
        assert all(torch.equal(a, b) for a, b in zip(record.batches, seen["none"].batches, strict=True))


def test_a_step_is_a_function_of_seed_and_step():
    batches = ShuffledBatches(Signals(np.zeros((10, 8, 1), np.float32)), batch_size=4, seed=3)
    rows = [batches.rows(step).tolist() for step in range(6)]
    assert [len(part) for part in rows] == [4, 4, 2, 4, 4, 2]
    assert sorted(rows[0] + rows[1] + rows[2]) == list(range(10))
    assert sorted(rows[3] + rows[4] + rows[5]) == list(range(10))
    assert [batches.rows(step).tolist() for step in reversed(range(6))] == rows[::-1]
    assert ShuffledBatches(batches.signals, batch_size=4, seed=4).rows(0).tolist() != rows[0]


def test_training_leaves_the_global_generator_alone(tmp_path):
    before = torch.get_rng_state()
    fit(tmp_path, settings=quick(epochs=1))
    assert torch.equal(before, torch.get_rng_state())


def test_masked_tokens_train_in_bfloat16(tmp_path):
    generator = np.random.default_rng(0)
    values = generator.integers(1, 5, (60, 8)).astype(np.int16)
    mask = np.arange(8) < generator.integers(2, 9, (60, 1))
    part = Signals(np.where(mask, values, 0), generator.integers(0, 2, 60), mask)
    data = SignalData("words", "tokens", part, part, part, vocabulary=5, classes=("a", "b"))
    settings = quick(epochs=2)
    settings.trainer.precision = "bf16-mixed"
    metrics = fit(tmp_path, "random", data=data, settings=settings)
    assert 0 <= metrics["test_accuracy"] <= 1


def test_a_loss_that_is_not_finite_names_the_step(tmp_path):
    data = halves()
    poisoned = data.train.values.copy()
    poisoned[ShuffledBatches(data.train, 32, seed=0).rows(2)[0]] = np.inf
    data = replace(data, train=replace(data.train, values=poisoned))
    with pytest.raises(MaedError, match="not finite at step 2; no checkpoint had been written; lower train"):
        fit(tmp_path, data=data, settings=quick(epochs=1))
    assert not (tmp_path / "last.ckpt").exists()


def test_refused_trainings_are_named(tmp_path):
    with pytest.raises(MaedError, match="no labels"):
        fit(tmp_path, data=replace(halves(), classes=()))
    with pytest.raises(MaedError, match="needs coordinates"):
        fit(tmp_path, data=replace(halves(), geometry=None))
    with pytest.raises(MaedError, match="seed"):
        fit(tmp_path, seed=-1)
