"""Processes that share one command: the same result as one, one line when one is lost, and state to go on from."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maed import ranks
from maed.autoencoder.training import build_autoencoder, draw_stream, pretrain
from maed.cli import main
from maed.data.signals import SignalData, Signals
from maed.errors import MaedError
from maed.files import is_main_process, read_json
from maed.settings import AutoencoderSettings, SimilaritySettings, TrainerSettings
from maed.similarity import load_similarity, share_stream, stream, streaming
from maed.stages import similarity as similarity_stage

pytestmark = [pytest.mark.network, pytest.mark.slow, pytest.mark.xdist_group("ranks")]

CPU = torch.device("cpu")
SMALL = AutoencoderSettings(width=8, layers=1, heads=1, scored=6, batch_size=10, steps=6, validate_every=3)
TRAINER = TrainerSettings(accelerator="cpu", progress="none")


@pytest.fixture(scope="module")
def server() -> Any:
    """A process that has imported everything and is forked into ranks: importing takes longer than what they do."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["maed.models.training", "maed.experiments.run", __name__])
    return context


def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def begin(server: Any, folder: Path, work: Any, world: int = 2) -> list[BaseProcess]:
    """Start `work(rank)` in each of `world` processes, their output in files of the folder."""
    meeting = port()
    started = []
    for rank in range(world):
        started.append(server.Process(target=_rank, args=(work, rank, world, meeting, folder)))
        started[-1].start()
    return started


def _rank(work: Any, rank: int, world: int, meeting: int, folder: Path) -> None:
    names = {"RANK": rank, "WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": meeting}
    os.environ.update({name: str(value) for name, value in names.items()})
    for stream_, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / f"{rank}.{name}", os.O_WRONLY | os.O_CREAT), stream_)
    torch.set_num_threads(1)
    code = work(rank)
    sys.stdout.flush()
    os._exit(code or 0)


def ended(processes: list[BaseProcess], folder: Path) -> list[int | None]:
    """Their exit codes; what they wrote is shown where a test fails."""
    for process in processes:
        process.join(120)
    for process in processes:
        process.kill()
    for path in sorted(folder.glob("*.err")):
        print(f"{path.name}: {path.read_text()}")
    return [process.exitcode for process in processes]


def lines(folder: Path) -> list[str]:
    """What all ranks have written to standard error, warnings left out."""
    written = "".join(path.read_text() for path in sorted(folder.glob("*.err")))
    return [line for line in written.splitlines() if line.strip() and "warning" not in line]


def data(*, padded: bool = False) -> SignalData:
    generator = np.random.default_rng(0)
    values = generator.normal(size=(60, 9, 1)).cumsum(axis=1).astype(np.float32)
    mask = generator.random((60, 9)) < 0.8 if padded else None
    zero, one = np.zeros((9, 1), np.float32), np.ones((9, 1), np.float32)
    signals = Signals(values, mask=mask, mean=zero, scale=one)
    return SignalData(train=signals, validation=signals, test=signals, source="made", kind="real")


# -- the same as one process ----------------------------------------------------------------------------------------


@dataclass
class Case:
    data: SignalData
    settings: SimilaritySettings


CASES = [
    Case(data(), SimilaritySettings(draws=1_300, batch_size=64)),
    Case(data(padded=True), SimilaritySettings(draws=300, batch_size=32, estimator="mean-loss")),
    Case(data(), SimilaritySettings(draws=9_000, batch_size=256, until="stable", tolerance=0.05)),
    Case(data(), SimilaritySettings(draws=100, batch_size=20, estimator="ablation")),
]


def arguments(case: Case) -> dict[str, Any]:
    shape: dict[str, Any] = {"n": 9, "channels": 1, "vocabulary": 0, "loss": "mse"}
    model = build_autoencoder(SMALL, **shape).eval()
    given = {"model": model, "signals": case.data.train, "settings": case.settings, "visible": 3, "loss": "mse"}
    return {**given, "outputs": 1, "device": CPU}


def help_with(number: int, context: Any) -> None:
    share_stream(**arguments(CASES[number]))


def streams(rank: int) -> None:
    """Each case, by one process and by all of them."""
    ranks.start(20, cuda=False)
    streaming._SAVE_EVERY = 0.01  # many legs
    if rank:
        with pytest.raises(ranks.Served):
            ranks.work(None)
        return ranks.leave(done=True)
    for number, case in enumerate(CASES):
        given = {
            **arguments(case),
            "watch": lambda halves: {"seen": float(halves[0].seen.sum() + halves[1].seen.sum())},
        }
        alone = stream(**given)
        with ranks.together(partial(help_with, number)):
            shared = stream(**given, shared=True)
        assert shared.draws == alone.draws
        assert shared.changed == alone.changed
        seen = [[(entry["draws"], entry["seen"]) for entry in found.history] for found in (shared, alone)]
        assert seen[0] == seen[1]
        for mine, theirs in zip(shared.halves, alone.halves, strict=True):
            for a, b in zip(mine.tensors(), theirs.tensors(), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)
    return ranks.leave(done=True)


@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_sum_what_one_sums(server, tmp_path, world):
    assert ended(begin(server, tmp_path, streams, world), tmp_path) == [0] * world


UNET = replace(SMALL, kind="unet", depth=2, width=4)


def train(folder: Path, context: Any, *, settings: AutoencoderSettings = SMALL) -> None:
    pretrain(data(padded=settings is SMALL), settings, TRAINER, folder, shared=ranks.world() > 1, examples=False)


def trainings(folder: Path, rank: int) -> None:
    ranks.start(20, cuda=False)
    if rank:
        with pytest.raises(ranks.Served):
            ranks.work(None)
    else:
        with ranks.together(partial(train, folder)):
            train(folder, None)
        other = folder.with_name("unet")
        with ranks.together(partial(train, other, settings=UNET)):
            train(other, None, settings=UNET)
    ranks.leave(done=True)


def test_several_processes_train_the_autoencoder_of_one(server, tmp_path):
    from safetensors.torch import load_file

    assert ended(begin(server, tmp_path, partial(trainings, tmp_path / "two")), tmp_path) == [0, 0]
    train(tmp_path / "one", None)
    two, one = (load_file(tmp_path / name / "model.safetensors") for name in ("two", "one"))
    for name, weight in one.items():
        torch.testing.assert_close(two[name], weight, rtol=1e-3, atol=2e-4)
    assert (tmp_path / "unet" / "model.safetensors").is_file()  # its statistics are those of shares
    curves = [json.loads((tmp_path / name / "metrics.json").read_text())["history"] for name in ("two", "one")]
    for mine, theirs in zip(*curves, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


def test_shares_of_a_draw_have_its_mean_loss():
    whole = draw_stream(data(padded=True).train, 3, replace(SMALL, batch_size=5), steps=1, seed=0)[0]
    losses = torch.rand(whole.hidden.shape)

    def mean(values: torch.Tensor, hidden: torch.Tensor) -> float:
        return float((values * hidden).sum() / hidden.sum())

    for world in (2, 3, 7):
        total = 0.0
        for rank in range(world):
            share = whole.share(rank, world)
            own = losses[rank::world] if rank < 5 else losses[:1]
            total += mean(own, share.hidden) * share.weight / world
        assert total == pytest.approx(mean(losses, whole.hidden))


# -- a whole run ----------------------------------------------------------------------------------------------------

RUN = """
data: {limit: 300}
autoencoder: {width: 8, layers: 1, heads: 1, batch_size: 16, steps: 12, validate_every: 6}
similarity: {draws: 1024, batch_size: 128}
evaluation: {probe_steps: 2, probe_seeds: 1}
perceiver: {latents: 2, latent_width: 8, layers: 1}
train: {steps: 4, epochs: 1, batch_size: 16}
embedding: {force: true, dim: 4}
report: {reductions: []}
trainer: {accelerator: cpu, progress: lines}
"""


def test_a_run_of_two_processes_is_that_of_one(server, tmp_path, capfd):
    (tmp_path / "small.yaml").write_text(RUN)
    argv = ["run", "digits", "--config", str(tmp_path / "small.yaml"), "--positions", "maed", "--seeds", "1", "--out"]
    started = begin(server, tmp_path, partial(command, [*argv, str(tmp_path / "two")], 0.0))
    assert ended(started, tmp_path) == [0, 0]
    said = (tmp_path / "0.out").read_text()
    assert said.count("report: ") == said.count("autoencoder: step 12 of 12") == said.count("step 4 of 4") == 1
    assert (tmp_path / "1.out").read_text() == ""

    assert main([*argv, str(tmp_path / "one")]) == 0
    two, one = (
        {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("two", "one")
    )
    assert two == one
    capfd.readouterr()
    assert main([*argv, str(tmp_path / "two")]) == 0
    assert "nothing to do" in capfd.readouterr().out  # it is complete


# -- what goes wrong ------------------------------------------------------------------------------------------------

SOURCE = ["field:ring:16", "--data.samples", "200", "--trainer.accelerator", "cpu", "--trainer.progress", "none"]
TRAINED = [*SOURCE, "--autoencoder.width", "8", "--autoencoder.heads", "1", "--autoencoder.batch_size", "16"]
DRAWN = [*TRAINED, "--autoencoder.steps", "10", "--similarity.draws", "4096", "--similarity.batch_size", "64"]


def command(argv: list[str], pause: float, rank: int) -> int:
    """A command of `maed`; each draw of a similarity takes `pause` seconds longer."""
    add = streaming._Scoring.add

    def slow(self: Any, number: int, halves: Any) -> None:
        time.sleep(pause)
        add(self, number, halves)

    streaming._Scoring.add = slow  # type: ignore[method-assign]
    return main(argv)


def kill(process: BaseProcess, when: Path, others: list[BaseProcess]) -> None:
    until = time.monotonic() + 60
    while not when.exists() and time.monotonic() < until and all(other.is_alive() for other in others):
        time.sleep(0.01)
    assert when.exists()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    assert main(["pretrain", *DRAWN, "--out", str(folder)]) == 0
    return folder


@pytest.mark.parametrize("world", [2, 3])
def test_two_halves_agree_in_several_processes_as_in_one(server, tmp_path, trained, world):
    argv = ["similarity", *DRAWN, "--run", str(trained), "--out"]
    started = begin(server, tmp_path, partial(command, [*argv, str(tmp_path / "several")], 0.0), world)
    assert ended(started, tmp_path) == [0] * world

    assert main([*argv, str(tmp_path / "one")]) == 0
    found, expected = (
        read_json(tmp_path / name / "similarity" / "config.json")["split_half"] for name in ("several", "one")
    )
    assert found == pytest.approx(expected, abs=0.05)  # sums are equal up to rounding


def embedding_slowly(argv: list[str], begun: Path, rank: int) -> int:
    """A command of `maed`, whose process with a number above 0 takes its time to embed a half of the draws."""
    embedded = similarity_stage._embedded

    def slow(*given: Any) -> Any:
        if rank:
            begun.touch()
            time.sleep(60)
        return embedded(*given)

    similarity_stage._embedded = slow  # type: ignore[assignment]
    return main(argv)


def test_a_process_lost_while_embedding_a_half_leaves_what_was_drawn(server, tmp_path, trained):
    out, begun = tmp_path / "run", tmp_path / "begun"
    argv = ["similarity", *DRAWN, "--run", str(trained), "--out", str(out)]
    started = begin(server, tmp_path, partial(embedding_slowly, argv, begun))
    kill(started[1], begun, started)
    assert ended(started, tmp_path) == [2, -signal.SIGKILL]
    assert len(lines(tmp_path)) == 1
    assert re.match(r"maed: processes: process 1 of 2 was lost \(.*\); run the same command", lines(tmp_path)[0])

    assert main(argv) == 0
    assert (out / "similarity" / "config.json").is_file()


@pytest.mark.parametrize("victim", [1, 0])
def test_a_process_lost_while_drawing_leaves_what_was_drawn(server, tmp_path, trained, victim):
    out = tmp_path / "run"
    argv = ["similarity", *DRAWN, "--run", str(trained), "--out", str(out)]
    started = begin(server, tmp_path, partial(command, argv, 0.05))
    kill(started[victim], out / "similarity" / "progress.json", started)
    codes = ended(started, tmp_path)
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == 2
    assert len(lines(tmp_path)) == 1
    assert re.match(
        rf"maed: processes: process {victim} of 2 was lost \(.*\); run the same command", lines(tmp_path)[0]
    )

    assert main(argv) == 0
    whole = tmp_path / "whole"
    assert main(["similarity", *DRAWN, "--run", str(trained), "--out", str(whole)]) == 0
    found, expected = (load_similarity(folder / "similarity").values for folder in (out, whole))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_process_lost_while_training_leaves_a_checkpoint_that_one_process_goes_on_from(server, tmp_path):
    out = tmp_path / "run"
    argv = ["pretrain", *TRAINED, "--autoencoder.steps", "600", "--autoencoder.validate_every", "20"]
    argv += ["--out", str(out)]
    started = begin(server, tmp_path, partial(command, argv, 0.0))
    kill(started[1], out / "autoencoder" / "last.ckpt", started)
    assert ended(started, tmp_path) == [2, -signal.SIGKILL]
    assert len(lines(tmp_path)) == 1
    assert "process 1 of 2 was lost" in lines(tmp_path)[0]

    done = torch.load(out / "autoencoder" / "last.ckpt", weights_only=True)["global_step"]
    assert 20 <= done < 600
    assert main(argv) == 0
    assert json.loads((out / "autoencoder" / "progress.json").read_text())["begun"] == done
    history = json.loads((out / "autoencoder" / "metrics.json").read_text())["history"]
    assert [point["step"] for point in history] == list(range(20, 601, 20))


def test_an_autoencoder_that_one_process_has_begun_is_finished_by_one(server, tmp_path):
    argv = ["pretrain", *DRAWN, "--out", str(tmp_path / "run")]
    assert main(argv) == 0
    weights = tmp_path / "run" / "autoencoder" / "model.safetensors"
    whole = weights.read_bytes()
    weights.unlink()
    shutil.copy(tmp_path / "run" / "autoencoder" / "last.ckpt", tmp_path / "run" / "autoencoder" / "best.ckpt")
    assert ended(begin(server, tmp_path, partial(command, argv, 0.0)), tmp_path) == [0, 0]
    assert "goes on in one process" in (tmp_path / "0.out").read_text()
    assert weights.read_bytes() == whole


def test_torchrun_ends_the_others_and_one_of_them_says_so(tmp_path, trained):
    out = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(port())]
    argv = ["-m", "--", "maed", "similarity", *DRAWN, "--run", str(trained), "--out", str(out)]
    argv += ["--similarity.draws", "4000000"]
    with subprocess.Popen([*launch, *argv], stderr=subprocess.PIPE, text=True) as torchrun:
        until = time.monotonic() + 60
        while not (out / "similarity" / "progress.json").exists() and time.monotonic() < until:
            time.sleep(0.05)
        first = json.loads((out / ".lock.json").read_text())["process"]
        family = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
        os.kill(next(int(child) for child in family if int(child) != first), signal.SIGKILL)
        _, written = torchrun.communicate(timeout=60)
    said = [line for line in written.splitlines() if line.startswith("maed: ") and "warning" not in line]
    assert len(said) == 1
    assert said[0].startswith("maed: processes: ")
    assert re.search(r"rank +: 0 .*\n +exitcode +: 2 ", written)
    assert (out / "similarity" / "config.json").is_file()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rendezvous_that_fails_says_so_in_time(server, tmp_path, rank):
    argv = ["similarity", *SOURCE, "--trainer.rendezvous_timeout", "1", "--out", str(tmp_path / "run")]
    process = server.Process(target=_rank, args=(partial(command, argv, 0.0), rank, 2, port(), tmp_path))
    process.start()
    assert ended([process], tmp_path) == [2]
    assert len(lines(tmp_path)) == 1
    assert lines(tmp_path)[0].startswith("maed: rendezvous: the 2 processes did not meet at 127.0.0.1:")
    assert not (tmp_path / "run").exists()


def test_what_all_processes_refuse_is_said_once(server, tmp_path):
    argv = ["similarity", *SOURCE, "--out", str(tmp_path / "run"), "--embedding.dim", "99"]
    assert ended(begin(server, tmp_path, partial(command, argv, 0.0)), tmp_path) == [2, 2]
    assert len(lines(tmp_path)) == 1
    assert "dim" in lines(tmp_path)[0]


# -- who is who -----------------------------------------------------------------------------------------------------


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name in list(os.environ):
        if name.startswith("SLURM_") or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
            monkeypatch.delenv(name)

    def set_to(**variables: object) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, str(value))

    return set_to


def test_one_process_has_no_place(environment):
    assert ranks.place() is None
    environment(RANK=0, WORLD_SIZE=1)
    assert ranks.place() is None


def test_torchrun_says_who_is_who(environment):
    environment(RANK=5, WORLD_SIZE=8, LOCAL_RANK=1, LOCAL_WORLD_SIZE=4, MASTER_ADDR="gpu1", MASTER_PORT=29500)
    assert ranks.place() == ranks.Place(5, 8, 1, 4, "gpu1", 29500)
    assert not is_main_process()


def test_a_step_of_slurm_says_who_is_who(environment):
    environment(SLURM_PROCID=0, SLURM_NTASKS=8, SLURM_JOB_ID=1_234_567)
    assert ranks.place() is None  # a batch script is one process
    environment(SLURM_STEP_NUM_TASKS=8, SLURM_STEP_TASKS_PER_NODE="4(x2)", SLURM_STEP_NODELIST="gpu[07-08]")
    environment(SLURM_PROCID=6, SLURM_LOCALID=2)
    assert ranks.place() == ranks.Place(6, 8, 2, 4, "gpu07", 19_567)
    assert not is_main_process()
    environment(SLURM_STEP_NODELIST="one,two", MASTER_ADDR="10.0.0.1", MASTER_PORT=5000, SLURM_PROCID=0)
    assert (ranks.place() or ranks.Place(0, 0, 0, 0, "", 0)).address == "10.0.0.1"
    assert is_main_process()


@pytest.mark.parametrize(
    ("variables", "argument"),
    [
        ({"RANK": "a", "WORLD_SIZE": 2}, "RANK"),
        ({"RANK": 0, "WORLD_SIZE": 2}, "MASTER_ADDR"),
        ({"RANK": 2, "WORLD_SIZE": 2, "MASTER_ADDR": "a", "MASTER_PORT": 1}, "WORLD_SIZE"),
        ({"RANK": 0, "WORLD_SIZE": 3, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "a", "MASTER_PORT": 1}, "WORLD_SIZE"),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(environment, variables, argument):
    environment(**variables)
    with pytest.raises(MaedError) as error:
        ranks.place()
    assert str(error.value).startswith(argument)


def test_verbs_of_one_process_say_so(environment, capsys):
    environment(RANK=0, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=1)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err.startswith("maed: demo: ")
