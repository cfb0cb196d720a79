"""The plain loop and Lightning: the same weights from either, whole, stopped and resumed."""

import csv
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maed.autoencoder import pretrain, training
from maed.autoencoder.training import AutoencoderTask
from maed.data.signals import SignalData
from maed.engine import lightning, loop
from maed.engine.checkpoints import read_checkpoint, write_checkpoint
from maed.engine.device import precision, training_device
from maed.engine.loop import Plan, Trained
from maed.engine.optimization import adamw
from maed.errors import MaedError
from maed.files import read_json
from maed.settings import AutoencoderSettings, TrainerSettings
from test_autoencoder import TRAINER, Killed, pairs, quick, unet, words

LOOPS = {"plain": loop.fit, "lightning": lightning.fit_task}


def trained(
    way: str, data: SignalData, settings: AutoencoderSettings, trainer: TrainerSettings, folder: Path
) -> dict[str, torch.Tensor]:
    """The weights of an autoencoder trained by one of the two loops."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_loop", lambda *_, **__: LOOPS[way])
        return pretrain(data, settings, trainer, folder).state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def rows(folder: Path) -> list[dict[str, str]]:
    """The log, without Lightning's count of epochs."""
    with (folder / "logs" / "metrics.csv").open(newline="") as file:
        return [{name: cell for name, cell in row.items() if name != "epoch"} for row in csv.DictReader(file)]


def killed_at(step: int, patch: pytest.MonkeyPatch, error: type[BaseException] = Killed) -> None:
    original = AutoencoderTask.training_step

    def training_step(self, batch, number):
        if number == step:
            raise error
        return original(self, batch, number)

    patch.setattr(AutoencoderTask, "training_step", training_step)


CASES: dict[str, tuple[Callable[[], SignalData], AutoencoderSettings, dict[str, Any]]] = {
    "set": (pairs, quick(steps=60, learning_rate=0.01), {}),
    "tokens": (words, quick(), {}),
    "clipped": (pairs, quick(clip=0.01), {}),
    "unclipped": (pairs, quick(clip=0.0), {}),
    "gaussian": (pairs, quick(loss="gaussian", schedule="linear"), {}),
    "impatient": (pairs, quick(steps=90, patience=2, learning_rate=0.1), {}),
    "unet": (pairs, unet(clip=0.1), {}),
    "unet-bf16": (pairs, unet(), {"precision": "bf16-mixed"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_both_loops_make_the_same_weights(case, tmp_path, capsys):
    data, settings, changed = CASES[case]
    trainer = replace(TRAINER, progress="lines", **changed)
    weights, printed = {}, {}
    for way in LOOPS:
        weights[way] = trained(way, data(), settings, trainer, tmp_path / way)
        printed[way] = capsys.readouterr().out
    assert same(weights["plain"], weights["lightning"])
    assert printed["plain"] == printed["lightning"]
    assert rows(tmp_path / "plain") == rows(tmp_path / "lightning")
    plain, other = (read_json(tmp_path / way / "metrics.json") for way in LOOPS)
    assert plain["history"] == other["history"]
    assert plain["seconds"] > 0
    assert {path.name for path in (tmp_path / "plain").iterdir()} == {
        path.name for path in (tmp_path / "lightning").iterdir()
    }


@pytest.mark.slow
def test_clipping_bounds_what_a_step_can_do(tmp_path):
    clipped, free = (
        trained("plain", pairs(), quick(clip=clip), TRAINER, tmp_path / str(clip)) for clip in (0.001, 0.0)
    )
    assert not same(clipped, free)


@pytest.mark.slow
@pytest.mark.parametrize("way", LOOPS)
@pytest.mark.parametrize("at", [3, 7, 17])
@pytest.mark.parametrize("settings", [quick(learning_rate=0.01, clip=0.1), unet(patience=9)], ids=["set", "unet"])
@pytest.mark.parametrize("every", [120.0, 0.0], ids=["validations", "steps"])
def test_a_stopped_training_ends_as_the_whole_one_does(every, settings, at, way, tmp_path, monkeypatch):
    whole = trained("plain", pairs(), settings, TRAINER, tmp_path / "whole")
    with monkeypatch.context() as patch:
        killed_at(at, patch, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            trained(way, pairs(), settings, replace(TRAINER, checkpoint_seconds=every), tmp_path / "cut")
    assert not (tmp_path / "cut" / "model.safetensors").exists()
    if every == 0:
        assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == at
    assert same(trained(way, pairs(), settings, TRAINER, tmp_path / "cut"), whole)
    assert read_json(tmp_path / "cut/metrics.json")["history"] == read_json(tmp_path / "whole/metrics.json")["history"]


@pytest.mark.slow
@pytest.mark.parametrize("way", LOOPS)
def test_a_training_that_is_stopped_in_a_validation_makes_it_anew(way, tmp_path, monkeypatch):
    trainer = replace(TRAINER, checkpoint_seconds=0.0)
    whole = trained("plain", pairs(), quick(), TRAINER, tmp_path / "whole")

    def interrupted(self, batch):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(AutoencoderTask, "validation_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trained(way, pairs(), quick(), trainer, tmp_path / "cut")
    assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == 6
    assert same(trained(way, pairs(), quick(), trainer, tmp_path / "cut"), whole)
    assert read_json(tmp_path / "cut/metrics.json")["history"] == read_json(tmp_path / "whole/metrics.json")["history"]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("plain", "lightning"), ("lightning", "plain")])
def test_the_other_loops_checkpoints_are_ignored(first, second, tmp_path, monkeypatch):
    whole = trained("plain", pairs(), quick(), TRAINER, tmp_path / "whole")
    with monkeypatch.context() as patch:
        killed_at(17, patch)
        with pytest.raises(Killed):
            trained(first, pairs(), quick(), TRAINER, tmp_path / "cut")
    assert read_checkpoint(tmp_path / "cut" / "last.ckpt")["global_step"] == 14
    assert same(trained(second, pairs(), quick(), TRAINER, tmp_path / "cut"), whole)
    assert [point["step"] for point in read_json(tmp_path / "cut" / "metrics.json")["history"]] == [7, 14, 20]


@pytest.mark.slow
@pytest.mark.parametrize("lost", ["optimizer", "scheduler", "scaler", "progress", "losses"])
def test_a_checkpoint_that_lacks_a_part_is_ignored(lost, tmp_path, monkeypatch):
    whole = trained("plain", pairs(), quick(), TRAINER, tmp_path / "whole")
    with monkeypatch.context() as patch:
        killed_at(17, patch)
        with pytest.raises(Killed):
            trained("plain", pairs(), quick(), TRAINER, tmp_path / "cut")
    kept = torch.load(tmp_path / "cut" / "last.ckpt", weights_only=True)
    del kept[lost]
    write_checkpoint(tmp_path / "cut" / "last.ckpt", kept)
    steps = []
    original = AutoencoderTask.training_step

    def noted(self, batch, step):
        steps.append(step)
        return original(self, batch, step)

    monkeypatch.setattr(AutoencoderTask, "training_step", noted)
    assert same(trained("plain", pairs(), quick(), TRAINER, tmp_path / "cut"), whole)
    assert steps == list(range(20))


# -- a task small enough to script ----------------------------------------------------------------------------------


@dataclass
class Number:
    """A batch of one number."""

    value: float

    def to(self, _):
        return self


class Scripted:
    """A weight that grows by about one a step, and validations that find what they are told to."""

    def __init__(self, found: list[float]) -> None:
        linear = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(linear.weight)
        self.weight = linear.weight
        self.model: torch.nn.Module = linear
        self.found = iter(found)

    def optimizer(self):
        groups = [{"params": list(self.model.parameters()), "weight_decay": 0.0}]
        return adamw(groups, learning_rate=1.0, warmup=0, steps=9, schedule="constant")

    def training_step(self, batch, step):
        return -self.weight.sum()

    def validation_step(self, batch):
        return torch.tensor(next(self.found)), 1


def scripted(way: str, found: list[float], folder: Path, *, patience: int | None = None) -> Trained:
    plan = Plan(title="scripted", fingerprint="", steps=len(found), validate_every=1, clip=0.0, patience=patience)
    numbers = [Number(0.0)] * len(found)
    return LOOPS[way](Scripted(found), numbers, numbers[:1], plan, TRAINER, folder)


@pytest.mark.slow
@pytest.mark.parametrize("way", LOOPS)
@pytest.mark.parametrize(
    ("found", "best"),
    [
        ([3.0, 2.0, 2.0, 4.0], 2),  # of equals the first
        ([3.0, np.nan, 2.5], 3),
        ([np.nan, 5.0, 6.0], 2),  # anything is better than not-a-number
        ([np.inf, np.nan, 1.0], 3),
        ([np.nan, np.inf, np.nan], 1),
    ],
)
def test_the_best_validation_is_the_first_with_the_lowest_loss(found, best, way, tmp_path):
    result = scripted(way, found, tmp_path)
    assert float(result.weights["weight"]) == pytest.approx(best, abs=0.01)
    assert [point["step"] for point in result.history] == list(range(1, len(found) + 1))


@pytest.mark.parametrize("way", LOOPS)
@pytest.mark.parametrize(
    ("found", "steps"),
    [
        ([3.0, 2.0, 2.0, 2.0, 1.0, 0.0], 4),  # two validations that are no better
        ([3.0, 3.5, 2.0, 2.5, 1.0, 1.5], 6),
        ([3.0, np.nan, 1.0, 0.0], 2),
    ],
)
def test_patience_ends_a_training(found, steps, way, tmp_path):
    assert len(scripted(way, found, tmp_path, patience=2).history) == steps
    again = scripted(way, [9.0] * len(found), tmp_path, patience=2)
    if steps < len(found) and np.isfinite(found).all():
        assert len(again.history) == steps  # and is at its end when resumed


# -- devices and precision ------------------------------------------------------------------------------------------


def test_an_accelerator_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert training_device(TrainerSettings()).type == "cpu"
    for accelerator in ("gpu", "cuda", "mps"):
        with pytest.raises(MaedError, match=f"got '{accelerator}'") as refused:
            training_device(TrainerSettings(accelerator=accelerator))
        assert refused.value.argument == "trainer.accelerator"


def test_a_macs_gpu_trains(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    devices = {name: training_device(TrainerSettings(accelerator=name)).type for name in ("auto", "gpu", "mps", "cpu")}
    assert devices == {"auto": "mps", "gpu": "mps", "mps": "mps", "cpu": "cpu"}


@pytest.mark.slow
def test_half_precision_on_a_cpu_is_bfloat16(tmp_path):
    weights = [
        trained("plain", pairs(), unet(), replace(TRAINER, precision=kind), tmp_path / kind)
        for kind in ("16-mixed", "bf16-mixed", "32-true")
    ]
    assert same(weights[0], weights[1])
    assert not same(weights[0], weights[2])


@pytest.mark.parametrize("multiplies", [True, False])
def test_bfloat16_is_for_a_cpu_that_multiplies_it(monkeypatch, multiplies):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: multiplies, raising=False)
    assert precision(TrainerSettings()) == ("bf16-mixed" if multiplies else "32-true")
    assert precision(TrainerSettings(precision="32-true")) == "32-true"


def test_lightning_is_for_several_devices():
    assert training._loop(TrainerSettings()) is loop.fit
    assert training._loop(TrainerSettings(devices="1")) is loop.fit
    assert training._loop(TrainerSettings(devices="2")) is lightning.fit_task


@pytest.mark.slow
def test_a_bar_and_tensorboard_change_nothing(tmp_path, capsys):
    pytest.importorskip("tensorboard")
    plain = trained("plain", pairs(), quick(), TRAINER, tmp_path / "plain")
    shown = trained("plain", pairs(), quick(), replace(TRAINER, progress="bar", tensorboard=True), tmp_path / "shown")
    assert same(plain, shown)
    assert "20/20" in capsys.readouterr().out
    assert any((tmp_path / "shown" / "tensorboard").iterdir())


# -- what is imported -----------------------------------------------------------------------------------------------

FRESH = """
import sys
from pathlib import Path

import numpy as np
import maed.autoencoder
from maed.data.signals import SignalData, Signals
from maed.settings import AutoencoderSettings, TrainerSettings

values = np.random.default_rng(0).normal(size=(40, 12, 1)).astype(np.float32)
part = Signals(values, mean=np.zeros((1, 1), np.float32), scale=np.ones((1, 1), np.float32))
settings = AutoencoderSettings(**{settings!r})
maed.autoencoder.pretrain(
    SignalData("noise", "real", part, part, part), settings, TrainerSettings(accelerator="cpu"), Path({folder!r})
)
heavy = "pytorch_lightning lightning_fabric torchmetrics transformers matplotlib plotly jinja2".split()
print(*(name for name in heavy if name in sys.modules))
"""


@pytest.mark.slow
def test_training_an_autoencoder_wakes_nothing_heavy(tmp_path):
    code = FRESH.format(settings=asdict(quick(steps=3)), folder=str(tmp_path / "out"))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert ended.stdout.splitlines()[-1].strip() == ""
