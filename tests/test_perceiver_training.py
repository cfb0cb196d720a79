"""What a practitioner asks of a training: larger steps, averages, augmentation, several processes, sound refusals."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from maed.cli import main
from maed.data.geometry import grid
from maed.data.signals import SignalData, Signals
from maed.errors import MaedError
from maed.files import read_json
from maed.models import train_classifier
from maed.models.architectures.maed import Maed
from maed.models.batches import Augmentation, Batch, ShuffledBatches, every_signal
from maed.models.config import ClassifierConfig
from maed.models.memory import check_memory, kept_bytes
from maed.models.training import PerceiverModule
from maed.settings import PerceiverSettings, Settings, TrainerSettings, TrainSettings

SIDE, D = 4, 8
UNSCALED = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
"""Mean and scale of signals that are taken as they are."""


def images(n: int = 240, classes: int = 2, seed: int = 0) -> SignalData:
    """4 x 4 images whose upper half, or lower half, is bright."""
    generator = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    upper = np.repeat(np.arange(SIDE) < SIDE // 2, SIDE)
    values = np.where(upper == (labels % 2 == 0)[:, None], 1.0, -1.0) + generator.normal(0, 0.5, (n, SIDE * SIDE))
    mean, scale = UNSCALED
    train, validation, test = (
        Signals(values[a:b].astype(np.float32)[:, :, None], labels[a:b], mean=mean, scale=scale)
        for a, b in ((0, n // 2), (n // 2, 3 * n // 4), (3 * n // 4, n))
    )
    names = tuple(f"class {i}" for i in range(classes))
    return SignalData("images", "real", train, validation, test, classes=names, geometry=grid(SIDE, SIDE))


def chosen(dropout: float = 0.0, **train) -> Settings:
    defaults = {"epochs": 3, "batch_size": 24, "learning_rate": 5e-3, "warmup": 5, "validate_every": 4}
    return Settings(
        perceiver=PerceiverSettings(latents=4, latent_width=16, layers=1, heads=2, dropout=dropout),
        train=TrainSettings(**(defaults | train)),
        trainer=TrainerSettings(accelerator="cpu", progress="none", precision="32-true"),
    )


def fit(folder: Path, data: SignalData | None = None, encoding: str = "trainable", seed: int = 0, **train) -> dict:
    callbacks = train.pop("callbacks", ())
    return train_classifier(
        data or images(), encoding, seed=seed, folder=folder, dim=D, settings=chosen(**train), callbacks=callbacks
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


class Killed(Exception):
    pass


class Kill(pl.Callback):
    def on_train_batch_end(self, trainer, *_):
        if trainer.global_step == 6:
            raise Killed


@pytest.mark.slow
@pytest.mark.parametrize(
    "train",
    [
        {"average": 0.9},
        {"accumulate": 2, "batch_size": 12},
        {"flip": True, "crop": 1},
        {"hide": 0.3, "dropout": 0.1},
        {"label_smoothing": 0.1, "schedule": "constant", "average": 0.5, "accumulate": 3, "batch_size": 8},
    ],
    ids=str,
)
def test_a_killed_training_goes_on_to_the_same_end_bit_for_bit(train, tmp_path):
    whole = fit(tmp_path / "whole", **train)
    with pytest.raises(Killed):
        fit(tmp_path / "cut", **train, callbacks=(Kill(),))
    resumed = fit(tmp_path / "cut", **train)
    assert {**resumed, "seconds": 0} == {**whole, "seconds": 0}
    expected = weights(tmp_path / "whole")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(tmp_path / "cut").items())


@pytest.mark.slow
def test_accumulated_batches_make_the_step_of_a_large_one(tmp_path):
    large = fit(tmp_path / "large", batch_size=24, epochs=2)
    small = fit(tmp_path / "small", batch_size=8, accumulate=3, epochs=2)
    assert small["epochs"] == large["epochs"] == 2
    curves = [[point["train_loss"] for point in found["history"]] for found in (small, large)]
    assert curves[0] == pytest.approx(curves[1], rel=1e-3)
    first, second = weights(tmp_path / "large"), weights(tmp_path / "small")
    for name in first:
        if not name.endswith("key.bias"):  # has no effect, so its gradient is rounding, which AdamW makes steps of
            assert torch.allclose(first[name], second[name], atol=1e-5), name


@pytest.mark.slow
def test_the_average_is_what_is_tested_and_saved_and_leaves_the_table(tmp_path):
    plain, averaged = (fit(tmp_path / str(a), encoding="random", average=a) for a in (None, 0.99))
    assert [point["train_loss"] for point in plain["history"]] == [p["train_loss"] for p in averaged["history"]]
    first, second = weights(tmp_path / "None"), weights(tmp_path / "0.99")
    table = "perceiver.input_preprocessor.positions.table"
    assert torch.equal(first[table], second[table])
    assert any(not torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_label_smoothing_is_in_the_loss_of_training_and_not_in_that_of_validation(tmp_path):
    smoothed = fit(tmp_path, label_smoothing=0.5, epochs=40)
    last = smoothed["history"][-1]
    assert last["train_loss"] > 0.56 > last["validation_loss"]  # the entropy of (0.75, 0.25) is 0.562 nats
    assert smoothed["test_accuracy"] > 0.9


def test_a_constant_rate_stays():
    module = PerceiverModule(classifier(), TrainSettings(schedule="constant", warmup=4), steps=100, seed=0)
    schedule = module.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [schedule(step) for step in (0, 3, 4, 99)] == [0.25, 1, 1, 1]


# -- augmentation -------------------------------------------------------------------------------------------------


def batch_of(n: int = 64, mask: torch.Tensor | None = None) -> Batch:
    """Images in which every pixel has its own number."""
    pixels = torch.arange(1.0, SIDE * SIDE + 1)[None, :, None].expand(n, -1, 1)
    return Batch(pixels.clone(), mask, torch.arange(n))


def test_flips_mirror_rows_of_about_half_of_the_images():
    torch.manual_seed(0)
    changed = Augmentation(TrainSettings(flip=True), grid(SIDE, SIDE), permuted=False, kind="real")(batch_of())
    rows = changed.values[:, :, 0].unflatten(1, (SIDE, SIDE))
    straight = torch.arange(1.0, 17).view(SIDE, SIDE)
    mirrored = [torch.equal(row, straight.flip(1)) for row in rows]
    assert all(m or torch.equal(row, straight) for m, row in zip(mirrored, rows, strict=True))
    assert 16 < sum(mirrored) < 48


def test_crops_shift_and_fill_with_the_mean():
    torch.manual_seed(0)
    changed = Augmentation(TrainSettings(crop=1), grid(SIDE, SIDE), permuted=False, kind="real")(batch_of())
    padded = torch.nn.functional.pad(torch.arange(1.0, 17).view(SIDE, SIDE), (1, 1, 1, 1))
    windows = {tuple(padded[y : y + SIDE, x : x + SIDE].flatten().tolist()) for y in range(3) for x in range(3)}
    found = {tuple(image.tolist()) for image in changed.values[:, :, 0]}
    assert found <= windows
    assert len(found) > 5


def test_a_mask_moves_with_its_image():
    torch.manual_seed(0)
    mask = torch.ones(64, SIDE * SIDE, dtype=torch.bool)
    mask[:, 0] = False
    augment = Augmentation(TrainSettings(flip=True, crop=1), grid(SIDE, SIDE), permuted=False, kind="real")
    changed = augment(batch_of(mask=mask))
    assert changed.mask is not None
    assert not changed.mask[changed.values[:, :, 0] == 1].any()  # pixel number 1 is the one that is not real
    assert changed.mask[changed.values[:, :, 0] > 1].all()


@given(hide=st.floats(0.01, 0.99), seed=st.integers(0, 1000), real=st.integers(1, 16))
@settings(max_examples=30, deadline=None)
def test_hidden_positions_were_real_and_no_signal_is_left_bare(hide, seed, real):
    torch.manual_seed(seed)
    mask = (torch.arange(16) < real).expand(32, -1)
    hidden = Augmentation(TrainSettings(hide=hide), None, permuted=True, kind="tokens")
    changed = hidden(Batch(torch.zeros(32, 16, dtype=torch.long), mask, torch.zeros(32)))
    assert changed.mask is not None
    assert not (changed.mask & ~mask).any()
    assert changed.mask.any(dim=1).all()
    unmasked = hidden(batch_of(32)).mask
    assert unmasked is not None
    assert unmasked.any(dim=1).all()


@pytest.mark.slow
def test_what_a_permutation_does_not_allow_is_refused(tmp_path):
    permuted = replace(images(), permutation=np.arange(SIDE * SIDE))
    with pytest.raises(MaedError, match=r"train.flip: True, but positions are permuted"):
        fit(tmp_path, permuted, flip=True)
    with pytest.raises(MaedError, match=r"train.crop: 2"):
        fit(tmp_path, replace(images(), geometry=None), crop=2)
    with pytest.raises(MaedError, match=r"train\.crop must be below 4"):
        fit(tmp_path, crop=4)
    assert fit(tmp_path, permuted, hide=0.2)["epochs"] == 3


# -- several processes --------------------------------------------------------------------------------------------


@given(n=st.integers(1, 40), size=st.integers(1, 12), world=st.integers(1, 5), step=st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_processes_share_a_batch_and_their_weights_make_its_mean(n, size, world, step):
    signals = Signals(np.arange(n, dtype=np.float32)[:, None, None], np.arange(n), None, *UNSCALED)
    whole = ShuffledBatches(signals, size, seed=1)[step]
    shares = [ShuffledBatches(signals, size, seed=1, rank=rank, world=world)[step] for rank in range(world)]
    seen = [label for share in shares if share.weight for label in share.labels.tolist()]
    assert sorted(seen) == sorted(whole.labels.tolist())
    mean = sum(share.weight * float(share.labels.double().mean()) for share in shares) / world
    assert mean == pytest.approx(float(whole.labels.double().mean()))


@given(n=st.integers(5, 60), size=st.integers(1, 20), world=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_processes_test_every_signal_once_in_as_many_batches(n, size, world):
    signals = Signals(np.zeros((n, 1, 1), np.float32), np.arange(n), None, *UNSCALED)
    shares = [list(every_signal(signals, size, rank=rank, world=world)) for rank in range(world)]
    assert sorted(label for share in shares for batch in share for label in batch.labels.tolist()) == list(range(n))
    assert len({len(share) for share in shares}) == 1
    assert all(len(batch.labels) <= max(1, size // world) for share in shares for batch in share)


@pytest.mark.network
@pytest.mark.slow
def test_two_processes_train_the_same_model_as_one(tmp_path, capsys):
    base = ["train", "digits", "--positions", "fourier", "--data.limit", "200", "--trainer.precision", "32-true"]
    base += ["--perceiver.latents", "4", "--perceiver.latent_width", "16", "--perceiver.layers", "1"]
    base += ["--train.steps", "8", "--train.validate_every", "4", "--train.batch_size", "30", "--trainer.progress=none"]
    base += ["--trainer.accelerator", "cpu"]
    assert main([*base, "--out", str(tmp_path / "one"), "--trainer.devices", "1"]) == 0
    said = capsys.readouterr().out
    command = [sys.executable, "-m", "maed", *base, "--out", str(tmp_path / "two")]
    command += ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout == said  # only the first process speaks
    one, two = (read_json(tmp_path / name / "models" / "fourier-0" / "metrics.json") for name in ("one", "two"))
    assert one["test_accuracy"] == two["test_accuracy"]
    assert one["history"][-1]["validation_loss"] == pytest.approx(two["history"][-1]["validation_loss"], rel=1e-4)


# -- refusals -----------------------------------------------------------------------------------------------------


def classifier(**perceiver) -> Maed:
    settings = PerceiverSettings(**({"latents": 4, "latent_width": 16, "layers": 1, "heads": 2} | perceiver))
    config = ClassifierConfig("real", SIDE * SIDE, ("a", "b"), "random", D, channels=1, perceiver=settings)
    return Maed(config, torch.randn(SIDE * SIDE, D))


def test_a_class_that_a_split_lacks_is_named(tmp_path):
    data = images(classes=3)
    assert data.test.labels is not None
    rows = np.flatnonzero(data.test.labels != 2)
    data = replace(data, test=replace(data.test, values=data.test.values[rows], labels=data.test.labels[rows]))
    with pytest.raises(MaedError, match="no test signal of images is of class 'class 2';"):
        fit(tmp_path, data)


def test_every_further_signal_keeps_as_much():
    model = classifier(layers=4)
    kept = [
        kept_bytes(model, Batch(torch.randn(n, 16, 1), None, torch.zeros(n).long()), half_precision=False)
        for n in (1, 2, 3, 4)
    ]
    added = np.diff(kept)
    assert added[0] > 4 * 16 * D  # at the least the inputs that the latents attend to, float32
    assert added == pytest.approx(added[0], rel=0.1)


def test_a_batch_beyond_the_memory_names_one_that_fits():
    model, batch = classifier(), Batch(torch.randn(2, 16, 1), None, torch.zeros(2).long())
    limits: dict[str, Any] = {"accumulate": 1, "half_precision": False}
    line = r"train\.batch_size: 1000000"
    with pytest.raises(MaedError, match=line) as error:
        check_memory(model, batch, batch_size=10**6, available=2**28, **limits)
    fits = int(str(error.value).split(" fits")[0].split()[-1])
    check_memory(model, batch, batch_size=fits, available=2**28, **limits)  # what it names is accepted
    with pytest.raises(MaedError, match="even one signal"):
        check_memory(model, batch, batch_size=2, available=2**15, **limits)


@pytest.mark.slow
def test_a_training_that_diverges_names_its_last_good_checkpoint(tmp_path):
    data = images()
    poisoned = data.train.values.copy()
    poisoned[ShuffledBatches(data.train, 24, seed=0).rows(4)[0]] = np.inf
    data = replace(data, train=replace(data.train, values=poisoned))
    with pytest.raises(
        MaedError, match=r"not finite at step 4; the last good checkpoint is .*last.ckpt, of step 4; lo"
    ):
        fit(tmp_path, data)
