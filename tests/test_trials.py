"""Comparisons: learning rates tuned on equal terms, stopped and resumed, shown while they run, and on Ray."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from maed.cli import main
from maed.data.geometry import grid
from maed.data.signals import SignalData, Signals
from maed.errors import MaedError
from maed.experiments.comparison import TUNING_SEED, Comparison
from maed.experiments.live import Lines, LiveTable, board
from maed.experiments.run import new_results
from maed.experiments.trials import Cluster, Metrics, Trial, _kept, _work, check_cluster, run_trials
from maed.files import read_json, write_json
from maed.models import training
from maed.records import Results, Tried
from maed.report import markdown
from maed.report.tables import tuning_rows
from maed.settings import PerceiverSettings, Settings, TrainerSettings, TrainSettings
from stages import context

SIDE = 4
DIVERGES = 1e19
"""A learning rate with which no loss stays finite."""


def images(n: int = 120, seed: int = 0) -> SignalData:
    """4 x 4 images whose upper half, or lower half, is bright."""
    labels = np.arange(n) % 2
    upper = np.repeat(np.arange(SIDE) < SIDE // 2, SIDE)
    noise = np.random.default_rng(seed).normal(0, 0.7, (n, SIDE * SIDE))
    values = (np.where(upper == (labels == 0)[:, None], 1.0, -1.0) + noise).astype(np.float32)[:, :, None]
    scales = {"mean": np.zeros((1, 1), np.float32), "scale": np.ones((1, 1), np.float32)}
    train, validation, test = (
        Signals(values[a:b], labels[a:b], **scales) for a, b in ((0, n // 2), (n // 2, 3 * n // 4), (3 * n // 4, n))
    )
    return SignalData("images", "real", train, validation, test, classes=("up", "down"), geometry=grid(SIDE, SIDE))


def settings(cluster: str | None = None, **train: Any) -> Settings:
    defaults = {"epochs": 2, "batch_size": 12, "warmup": 2, "validate_every": 3}
    return Settings(
        perceiver=PerceiverSettings(latents=4, latent_width=16, layers=1, heads=2),
        train=TrainSettings(**(defaults | train)),
        trainer=TrainerSettings(accelerator="cpu", progress="none", precision="32-true", threads=1, cluster=cluster),
    )


def compared(
    folder: Path, *encodings: str, seeds: int = 2, data: SignalData | None = None, said: Any = None, **options: Any
) -> dict[str, Any]:
    """results.json of a comparison."""
    run = context(folder, settings(**options), data or images(), say=said or (lambda line: None))
    Comparison(run).run(encodings or ("none", "fourier"), seeds, new_results(run, "maed compare"))
    return read_json(folder / "results.json")


def table(results: dict[str, Any]) -> list[Any]:
    """What a comparison found, without how long it took."""
    rows = [{**row, "seconds": 0} for key in ("tuning", "scores") for row in results[key] or []]
    return [rows, results["summary"], results["paired"]]


def trial(encoding: str = "none", seed: int = 0, folder: Path = Path("nowhere"), **options: Any) -> Trial:
    return Trial(encoding, seed, folder, 8, settings(), **options)


# -- rows and lines -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_rows_are_in_the_order_asked_for_and_those_done_before_come_first(tmp_path):
    asked = [
        trial(encoding, seed, tmp_path / f"{encoding}-{seed}") for seed in (0, 1) for encoding in ("none", "random")
    ]
    asked[2].train(images())
    done = [each for each, _ in run_trials(images(), asked, board=Lines(lambda line: None))]
    assert done == [asked[2], asked[0], asked[1], asked[3]]

    found = compared(tmp_path / "run")["scores"]
    assert [(row["positions"], row["seed"]) for row in found] == [
        (encoding, seed) for seed in range(2) for encoding in ("none", "fourier")
    ]
    assert [row["learning_rate"] for row in found] == [1e-3] * 4


def test_a_line_for_a_start_and_one_for_an_end(tmp_path):
    said: list[str] = []
    found = compared(tmp_path, "none", seeds=1, said=said.append)
    accuracy = f"{100 * found['scores'][0]['value']:.2f} %"
    assert said == ["perceiver: none, seed 0", f"perceiver: none, seed 0: test accuracy {accuracy}"]


def test_a_folder_of_other_settings_is_refused_before_anything_is_trained(tmp_path):
    trial("random", 1, tmp_path / "b").train(images())
    other = replace(trial("random", 1, tmp_path / "b", overwrite=False), settings=settings(epochs=3))
    with pytest.raises(MaedError, match="holds a Perceiver"):
        list(run_trials(images(), [trial("none", 0, tmp_path / "a"), other], board=Lines(lambda line: None)))
    assert not (tmp_path / "a").exists()


# -- tuning -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_encoding_is_compared_with_its_best_rate(tmp_path):
    found = compared(tmp_path, tune=[3e-2, 1e-6, DIVERGES], tune_steps=6)
    tried = found["tuning"]
    assert [(row["positions"], row["learning_rate"]) for row in tried] == [
        (encoding, rate) for encoding in ("none", "fourier") for rate in (1e-6, 3e-2, DIVERGES)
    ]
    assert {row["seed"] for row in tried} == {TUNING_SEED}
    assert [row["steps"] for row in tried] == [6, 6, None] * 2
    assert [row["validation"] for row in tried if row["learning_rate"] == DIVERGES] == [None, None]
    for encoding in ("none", "fourier"):
        finite = {r["learning_rate"]: r["validation"] for r in tried if r["positions"] == encoding}
        del finite[DIVERGES]
        best = min(rate for rate, accuracy in finite.items() if accuracy == max(finite.values()))
        assert [r["learning_rate"] for r in tried if r["positions"] == encoding and r["chosen"]] == [best]
        assert {r["learning_rate"] for r in found["scores"] if r["positions"] == encoding} == {best}
    assert (tmp_path / "models" / "tune" / "fourier-0.03" / "metrics.json").is_file()
    assert found["seconds"]["tuning"] == sum(row["seconds"] or 0 for row in tried)


def test_of_equal_rates_the_lower_one_is_chosen(tmp_path):
    rates = [2e-9, 1e-9]  # nothing is learned with either
    tried = compared(tmp_path, "none", seeds=1, tune=rates, tune_steps=1)["tuning"]
    assert tried[0]["validation"] == tried[1]["validation"]
    assert [(row["learning_rate"], row["chosen"]) for row in tried] == [(1e-9, True), (2e-9, False)]


@pytest.mark.slow
def test_tuning_does_not_read_the_test_split(tmp_path):
    data = images()
    other = replace(data, test=replace(data.test, values=data.test.values[::-1] * 9))
    first, second = (
        compared(tmp_path / name, "none", seeds=1, data=given, tune=[1e-3, 1e-2])
        for name, given in (("a", data), ("b", other))
    )
    assert [{**row, "seconds": 0} for row in first["tuning"]] == [{**row, "seconds": 0} for row in second["tuning"]]
    a, b = (read_json(tmp_path / name / "models/tune/none-0.001/metrics.json") for name in "ab")
    assert a["fingerprint"] == b["fingerprint"]  # of the data that it was given


def test_no_finite_rate_is_an_error_that_names_the_encoding(tmp_path):
    with pytest.raises(MaedError, match=r"^train\.tune.*1e\+19;"):
        compared(tmp_path, "fourier", tune=[DIVERGES])


@pytest.mark.slow
def test_a_training_is_the_same_whatever_rates_were_tried(tmp_path):
    """So that a rate that is added to the grid costs its own trials alone."""
    plain = compared(tmp_path, "none", seeds=1, learning_rate=1e-3)
    stamp = (tmp_path / "models/none-0/metrics.json").stat().st_mtime_ns
    tuned = compared(tmp_path, "none", seeds=1, tune=[1e-3])
    assert (tmp_path / "models/none-0/metrics.json").stat().st_mtime_ns == stamp
    assert plain["scores"] == tuned["scores"]


@pytest.mark.parametrize("rates", [[], [0.0], [-1.0], [1e-3, 1e-3], [float("inf")]], ids=str)
def test_impossible_rates_are_refused(rates):
    with pytest.raises(MaedError, match=r"train\.tune"):
        TrainSettings(tune=rates)


def tuned(*accuracies: float | None, chosen: int) -> list[list[str]]:
    rows = [Tried("maed", 0, 10.0**-i, validation=a, chosen=i == chosen) for i, a in enumerate(accuracies)]
    return tuning_rows(Results(tuning=rows))[1:]


def test_the_table_of_rates_says_where_the_best_one_lies():
    assert tuned(0.5, 0.75, 0.6, chosen=1) == [
        ["maed", "0.1", "0.01: 60.0 %, 0.1: 75.0 %, 1: 50.0 %", "inside the grid"]
    ]
    assert tuned(0.8, 0.7, chosen=0)[0][3] == "at the edge of the grid: higher ones may be better"
    assert tuned(0.6, 0.7, chosen=1)[0][3] == "at the edge of the grid: lower ones may be better"
    assert tuned(None, 0.8, 0.7, chosen=1)[0][2:] == ["0.01: 70.0 %, 0.1: 80.0 %, 1: not finite", "inside the grid"]
    assert tuned(0.7, chosen=0)[0][3] == "the only one tried"
    assert tuning_rows(Results()) == []


@pytest.mark.slow
def test_the_rates_are_among_the_tables_only_where_they_were_tuned(tmp_path):
    found = compared(tmp_path, "none", seeds=1, tune=[1e-3])
    assert "| none | 0.001 |" in markdown(Results.of(found))
    assert "Learning rate" not in markdown(Results.of({key: value for key, value in found.items() if key != "tuning"}))


# -- stopped and run again ----------------------------------------------------------------------------------------

DIGITS = (
    *("compare", "digits", "--positions=none,fourier", "--seeds=2", "--data.limit=200", "--perceiver.layers=1"),
    *("--perceiver.latents=4", "--perceiver.latent_width=8", "--embedding.dim=8", "--train.epochs=4"),
    *("--train.batch_size=25", "--train.validate_every=3", "--train.tune=[1e-3,1e-2]", "--train.tune_steps=9"),
    *("--trainer.precision=32-true", "--trainer.accelerator=cpu", "--trainer.threads=1", "--trainer.progress=lines"),
)


def begun(folder: Path, output: int) -> None:
    """What the process of `stopped` does."""
    torch.set_num_threads(1)  # other threads of this process are not in its copy
    sys.stdout = open(output, "w")  # noqa: SIM115
    sys.exit(main([*DIGITS, f"--out={folder}"]))


def stopped(folder: Path, how: signal.Signals, line: int) -> int:
    """Start the comparison and stop it when it has said so many lines; its exit code.

    It runs in a copy of this process: one of its own would take longer to import than to compare.
    """
    read, write = os.pipe()
    process = multiprocessing.get_context("fork").Process(target=begun, args=(folder, write))
    process.start()
    os.close(write)
    with open(read) as said:  # noqa: PTH123
        for number, _ in enumerate(said, 1):
            if number == line:
                os.kill(process.pid or 0, how)
    process.join()
    return process.exitcode or 0


@pytest.mark.slow
def test_a_comparison_that_is_killed_again_and_again_ends_as_an_undisturbed_one(tmp_path):
    assert main([*DIGITS, f"--out={tmp_path / 'whole'}"]) == 0
    generator = np.random.default_rng(int.from_bytes(os.urandom(4)))
    for how, code in ((signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGKILL, -9)):
        line = int(generator.integers(3, 12))  # a training is said to start, has validated, or is done
        assert stopped(tmp_path / "cut", how, line) == code, line
    assert main([*DIGITS, f"--out={tmp_path / 'cut'}"]) == 0
    whole, cut = (read_json(tmp_path / name / "results.json") for name in ("whole", "cut"))
    assert table(cut) == table(whole)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["metrics.json", "results.json"])
def test_a_stop_while_a_file_is_written_changes_nothing(name, tmp_path, monkeypatch):
    """The last moment of a training, and the moments after it."""
    whole = compared(tmp_path / "whole", "none")

    def killed(path: Path, value: Any, **how: Any) -> None:
        if path.name == name:
            raise KeyboardInterrupt
        write_json(path, value, **how)

    with monkeypatch.context() as patch:
        patch.setattr(training, "write_json", killed)
        patch.setattr("maed.records.write_json", killed)
        with pytest.raises(KeyboardInterrupt):
            compared(tmp_path / "cut", "none")
    assert table(compared(tmp_path / "cut", "none")) == table(whole)


# -- the live table -----------------------------------------------------------------------------------------------


def shown(live: LiveTable) -> list[list[str]]:
    """The rows of the table, below its header, and its caption."""
    console = Console(record=True, width=140, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(live.render())
    *lines, caption = console.export_text().splitlines()
    rows = [line.strip("│").split("│") for line in lines if "│" in line]
    return [[cell.strip() for cell in row] for row in [*rows, [caption]]]


def test_the_live_table_fills():
    asked = [trial(encoding, seed) for seed in range(2) for encoding in ("none", "maed")]
    now = iter([0.0, 0.0, 5.0, 65.0])
    live = LiveTable("Comparison", asked, clock=lambda: next(now))
    assert shown(live) == [
        ["none", "waiting", "waiting", "–"],
        ["maed", "waiting", "waiting", "–"],
        ["0 of 4 trained, 0.0 s"],
    ]
    live.finished(asked[0], {"test_accuracy": 0.5})
    live.started(asked[1])
    live.went_on(asked[2], 3, 40, None)
    live.went_on(asked[3], 20, 40, 0.625)
    assert shown(live) == [
        ["none", "50.0 %", "3/40", "50.0 %"],
        ["maed", "running", "20/40, 62.5 %", "–"],
        ["1 of 4 trained, 5.0 s"],
    ]
    for each, accuracy in zip(asked[1:], (0.7, 0.6, 0.7), strict=True):
        live.finished(each, {"test_accuracy": accuracy})
    # standard deviation 0.0707, over the root of 2, times the t-quantile 12.706
    assert shown(live) == [
        ["none", "50.0 %", "60.0 %", "55.0 ± 63.5 %"],
        ["maed", "70.0 %", "70.0 %", "70.0 ± 0.0 %"],
        ["4 of 4 trained, 1 min 05 s"],
    ]


def test_the_live_table_of_rates_has_no_mean_and_shows_what_failed():
    asked = [replace(trial(), settings=settings(learning_rate=rate), tuning=True) for rate in (1e-3, DIVERGES)]
    live = LiveTable("Learning rates", asked, clock=lambda: 0.0)
    live.finished(asked[0], {"validation_accuracy": 0.5, "test_accuracy": 0.9})
    live.finished(asked[1], None)
    assert live.columns == ["learning rate 0.001", "learning rate 1e+19"]
    assert shown(live)[0] == ["none", "50.0 %", "not finite"]


def test_on_a_terminal_a_comparison_is_one_table_without_bars_of_its_own(tmp_path):
    asked = [trial(encoding, 0, tmp_path / encoding).with_trainer(progress="bar") for encoding in ("none", "random")]
    said: list[str] = []
    with (tmp_path / "screen").open("w") as screen:
        console = Console(file=screen, force_terminal=True, width=100)
        with board("Comparison", asked, asked[0].settings.trainer, said.append, console) as live:
            done = dict(run_trials(images(), asked, board=live))
    text = (tmp_path / "screen").read_text()
    for metrics in done.values():
        assert f"{100 * metrics['test_accuracy']:.1f} %" in text
    assert "2 of 2 trained" in text
    assert "Epoch" not in text
    assert not said


class Steps(Lines):
    """Remembers what it is told of the steps."""

    def __init__(self) -> None:
        super().__init__(lambda line: None)
        self.seen: list[tuple[int, int, float | None]] = []

    def went_on(self, trial: Trial, step: int, steps: int, accuracy: float | None) -> None:
        self.seen.append((step, steps, accuracy))


def test_a_board_is_told_every_step_and_the_latest_validation(tmp_path):
    told = Steps()
    ((_, metrics),) = run_trials(images(), [trial("none", 0, tmp_path)], board=told)
    assert metrics is not None
    assert {steps for _, steps, _ in told.seen} == {10}
    assert sorted({step for step, _, _ in told.seen}) == list(range(1, 11))
    assert [a for step, _, a in told.seen if step == 2] == [None]
    assert told.seen[-1] == (10, 10, metrics["history"][-1]["validation_accuracy"])


# -- Ray ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["", "yes", "ray://", "ray://host", "http://host:1", "ray://a b:1"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(MaedError, match=r"trainer\.cluster.*must be local, ray://HOST:PORT, or null"):
        TrainerSettings(cluster=address)


def test_a_worker_has_one_device():
    with pytest.raises(MaedError, match=r"trainer\.devices.*with trainer\.cluster"):
        TrainerSettings(cluster="local", devices="2")


def test_where_ray_is_missing_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MaedError, match=r"trainer.cluster: .*'maed\[ray\]'"):
        check_cluster("local")


def test_torchrun_and_a_cluster_do_not_go_together(monkeypatch):
    pytest.importorskip("ray", reason="needs Ray (pip install maed[ray])")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(MaedError, match=r"trainer.cluster: local under torchrun"):
        check_cluster("local")


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    """A Ray of two workers on this machine, which the tests share."""
    ray = pytest.importorskip("ray", reason="needs Ray (pip install maed[ray])")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield ray
    ray.shutdown()


def on_ray(cluster: Cluster, trial: Trial) -> Metrics | None:
    """What comes of one trial."""
    ((_, metrics),) = run_trials(images(), [trial], cluster=cluster, board=Lines(lambda line: None))
    return metrics


def test_the_table_is_the_same_on_ray(ray, tmp_path):
    here = compared(tmp_path / "here", tune=[1e-3, DIVERGES], tune_steps=6)
    there = compared(tmp_path / "there", tune=[1e-3, DIVERGES], tune_steps=6, cluster="local")
    assert table(there) == table(here)
    again = compared(tmp_path / "there", tune=[1e-3, DIVERGES], tune_steps=6, cluster="local")
    assert again["scores"] == there["scores"]  # seconds too: nothing was trained again


def test_what_a_worker_refuses_is_refused_in_the_same_words(ray, tmp_path):
    hopeless = replace(trial(folder=tmp_path / "here"), settings=settings(learning_rate=DIVERGES))
    with pytest.raises(MaedError) as here:
        hopeless.train(images())
    with pytest.raises(MaedError) as there, Cluster("local") as cluster:
        on_ray(cluster, replace(hopeless, folder=tmp_path / "there"))
    assert str(there.value).replace("/there/", "/here/") == str(here.value)
    assert ray.is_initialized()  # it was there before


class Lost(Trial):
    """A trial whose worker is killed, the first time or every time."""

    def finished(self, data: SignalData) -> Metrics | None:
        return None

    def train(self, data: SignalData, callbacks: Any = ()) -> Metrics | None:
        mark = self.folder.with_suffix(".lost")
        if self.encoding == "random" or not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train(data)


def test_a_lost_worker_is_replaced_once(ray, tmp_path):
    lost = Lost("none", 0, tmp_path / "none", 8, settings())
    with Cluster("local") as cluster:
        metrics = on_ray(cluster, lost)
    whole = trial("none", 0, tmp_path / "whole").train(images())
    assert metrics is not None
    assert whole is not None
    assert metrics["history"] == whole["history"]


def test_a_worker_that_is_lost_again_is_one_line(ray, tmp_path):
    lost = Lost("random", 0, tmp_path / "random", 8, settings())
    line = "the worker that trained random, seed 0 was lost"
    with pytest.raises(MaedError, match=line) as error, Cluster("local") as cluster:
        on_ray(cluster, lost)
    assert "\n" not in str(error.value)


def test_a_worker_that_does_not_see_our_files_sends_them(ray, tmp_path):
    elsewhere = trial("none", 0, tmp_path / "not" / "there" / "none-0")
    metrics, files = _work(images(), elsewhere, send=True)
    assert not (tmp_path / "not").exists()
    assert isinstance(metrics, dict)

    kept = _kept(ray, elsewhere, ray.put(metrics), ray.put(files))

    assert kept == metrics
    assert {path.name for path in elsewhere.folder.iterdir()} == {"config.json", "model.safetensors", "metrics.json"}
    assert elsewhere.finished(images()) == metrics


def test_a_cluster_that_does_not_answer_is_one_line(monkeypatch):
    ray = pytest.importorskip("ray", reason="needs Ray (pip install maed[ray])")

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("ray client connection timeout\nmore")  # as it says after half a minute

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", unreachable)
    line = r"^trainer.cluster: ray://nowhere:1 cannot be reached \(ray client connection timeout\)$"
    with pytest.raises(MaedError, match=line), Cluster("ray://nowhere:1") as cluster:
        cluster.connect()
