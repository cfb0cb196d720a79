"""The queue of GPU jobs: every job runs at toy size, which changes sizes alone; what is recorded, skipped, merged."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import gpu
import gpu_jobs
from maed import PositionEmbedding
from maed.cli import build_parser
from maed.errors import MaedError
from maed.files import read_json, write_json
from maed.settings import Settings

pytestmark = pytest.mark.xdist_group("gpu_queue")  # for one worker: the jobs at toy size take a minute

JOBS, START = gpu.read_plan()
BY_NAME = {job.name: job for job in JOBS}
FIRST = [job.name for job in JOBS if not job.arguments.get("seed")]
"""Jobs of other seeds do the same with other numbers."""
TRAININGS = [job.name for job in {job.group["name"]: job for job in JOBS if "settings" in job.arguments}.values()]

SIZES = {
    *("data.limit", "data.image_size", "perceiver.image_size"),
    *("train.epochs", "train.batch_size", "train.validate_every"),
    *("perceiver.latents", "perceiver.latent_width", "perceiver.layers", "perceiver.blocks"),
    *("autoencoder.steps", "autoencoder.validate_every", "autoencoder.width", "autoencoder.depth"),
    "autoencoder.scored",
    *("train.pretrain_steps", "train.pretrain_batch_size"),
}
ARGUMENTS = {"batch", "rounds", "positions", "config", "repeats", "draws", "limit_size", "signals", "seeds", "budget"}
ARGUMENTS |= {"run", "more"}


@pytest.fixture(scope="module")
def tiny(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results of the first seed's jobs at toy size, by the command itself."""
    out = tmp_path_factory.mktemp("gpu")
    chosen = ["--only", *FIRST, "--seconds", "900", "--out", str(out), "--data", str(data_folder)]
    assert gpu.main(["next", "--tiny", *chosen]) == 0
    return read_json(out / "results.json")


@pytest.mark.slow
def test_every_job_runs_at_toy_size(tiny: dict[str, Any]) -> None:
    assert list(tiny) == FIRST
    for record in tiny.values():
        assert record["tiny"]
        assert "result" in record
    trained = [record["result"] for record in tiny.values() if BY_NAME[record["job"]].group["function"] == "train"]
    assert all(0 <= result["test_accuracy"] <= 1 and result["history"] for result in trained)


@pytest.mark.slow
def test_the_table_that_was_trained_with_is_the_artifact(tiny: dict[str, Any]) -> None:
    for name in ("imdb-12-maed-0", "cifar10-shuffled-maed-0"):
        embedding = PositionEmbedding.from_pretrained(BY_NAME[name].embedding / "embedding")
        table = tiny[name]["result"]["table"]
        assert table["sha256"] == gpu_jobs.digest(embedding.vectors)
        loud = embedding.vectors if table["rms"] is None else embedding.table(rms=table["rms"])
        assert table["arrived"] == gpu_jobs.digest(loud)


def test_a_table_that_changed_on_its_way_is_refused(tmp_path: Path) -> None:
    place = gpu_jobs.Place(tmp_path, tmp_path, "cpu", 1.0)
    arrival = gpu_jobs.Arrival(torch.ones(3, 2), place)
    module: Any = type("Module", (), {"classifier": type("Model", (), {"position_table": torch.full((3, 2), 1.001)})})

    with pytest.raises(MaedError, match="table"):
        arrival.on_train_start(None, module)


@pytest.mark.slow
@pytest.mark.parametrize("name", [job.name for job in JOBS if "settings" in job.arguments])
def test_tiny_and_full_differ_in_sizes_alone(name: str) -> None:
    job = BY_NAME[name]
    full, small = (asdict(gpu_jobs.settings_of(job.sized(size), "cpu")) for size in (False, True))
    differing = {f"{group}.{key}" for group in full for key in full[group] if full[group][key] != small[group][key]}

    assert differing <= SIZES
    assert {k: v for k, v in job.sized(True).items() if k != "settings"} == {
        k: v for k, v in job.arguments.items() if k != "settings"
    }


@pytest.mark.parametrize("name", [job.name for job in JOBS if "settings" not in job.arguments])
def test_timings_of_toy_size_differ_in_sizes_alone(name: str) -> None:
    assert set(BY_NAME[name].tiny) <= ARGUMENTS


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAININGS)
def test_the_command_that_is_recorded_asks_for_the_same_settings(name: str) -> None:
    arguments = BY_NAME[name].arguments
    words = gpu_jobs.command(arguments, "somewhere")
    parser = build_parser([words.split()[1]])
    parsed = parser.instantiate_classes(parser.parse_args(shlex.split(words)[1:]))

    given = parsed[parsed.verb]
    settings = gpu_jobs.settings_of(arguments, "cpu")
    assert all(getattr(given, group) == getattr(settings, group) for group in vars(Settings()) if group != "trainer")


@pytest.mark.slow
def test_both_arms_differ_in_the_table_alone(tiny: dict[str, Any]) -> None:
    for group in ("imdb-12", "imdb-long", "cifar10-shuffled", "cifar10-ordered"):
        arms = [record for record in tiny.values() if record["group"] == group and record["arguments"]["seed"] == 0]
        assert len(arms) > 1
        for record in arms:
            assert record["result"]["settings"] == arms[0]["result"]["settings"]
            one, other = dict(record["arguments"]), dict(arms[0]["arguments"])
            del one["positions"], other["positions"]
            assert one == other
            frozen = record["arguments"]["positions"] != "trainable"
            table = np.prod((1024 if "cifar10" in group else 2048, 64))
            assert record["result"]["parameters"] == arms[0]["result"]["parameters"] - frozen * table


@pytest.mark.slow
@pytest.mark.parametrize(
    "group",
    [
        "imdb-12",
        "cifar10-shuffled",
        "speed-imdb",
        "speed-autoencoder",
        "learn",
        "unet-224",
        "many-65536",
        "imdb-pretrained",
    ],
)
def test_the_plan_has_the_operations_that_are_counted(group: str, data_folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("MAED_DATA", str(data_folder))
    job = next(job for job in JOBS if job.group["name"] == group)

    assert gpu_jobs.operations(job.group["function"], job.arguments) / 1e15 == pytest.approx(
        job.group["pflop"], rel=0.01
    )


def recorded(job: gpu.Job, **facts: Any) -> dict[str, Any]:
    there = {"job": job.name, "group": job.group["name"], "tiny": False, "planned": job.arguments, "seconds": 100.0}
    return {**there, "result": {"seconds": 90.0, "epochs": 12.0}, **facts}


def test_a_job_is_expected_to_take_what_another_of_its_group_took() -> None:
    job = BY_NAME["imdb-12-maed-0"]
    by_operations = gpu.expected(job, {}, START)

    assert by_operations == pytest.approx(START + job.group["pflop"] / (job.group["share"] * 0.8))
    assert gpu.expected(job, {"x": recorded(BY_NAME["imdb-12-trainable-0"])}, START) == pytest.approx(105)
    stopped = recorded(BY_NAME["imdb-12-trainable-0"], stopped={"step": 1, "steps": 2, "needs": 700.0})
    del stopped["result"]
    assert gpu.expected(job, {"x": stopped}, START) == pytest.approx(735)


def test_the_longest_schedule_fits_its_slot_and_is_the_same_for_both_arms() -> None:
    arms = [BY_NAME["imdb-long-trainable-0"], BY_NAME["imdb-long-maed-0"]]
    with pytest.raises(MaedError, match="imdb-12-trainable-0"):
        gpu.lengthened(arms[0], {})
    first = BY_NAME["imdb-12-trainable-0"]
    found = {first.name: recorded(first, seconds=190.0, result={"seconds": 180.0, "epochs": 12.0})}

    (one, flop), (other, _) = (gpu.lengthened(job, found) for job in arms)

    epochs = one["settings"]["train.epochs"]
    assert (
        epochs == other["settings"]["train.epochs"] == 29
    )  # 480 s less 10 to start and 5 of reserve, at 15.75 s an epoch
    assert flop == pytest.approx(arms[0].group["pflop"] * epochs / 50)


def test_a_record_of_other_arguments_does_not_count() -> None:
    job = BY_NAME["cifar10-shuffled-maed-1"]
    record = json.loads(json.dumps(recorded(job)))

    assert gpu.is_done(job, record)
    record["planned"]["settings"]["train.epochs"] = 61
    assert not gpu.is_done(job, record)


def test_what_a_job_lacks_is_one_line(tmp_path: Path) -> None:
    job = BY_NAME["speed-50176"]
    assert gpu.lacks(job, None, 80.0) is None
    assert "70 GiB" in (gpu.lacks(job, None, 24.0) or "")
    assert "cifar10" in (gpu.lacks(BY_NAME["cifar10-shuffled-maed-0"], tmp_path, 80.0) or "")


@pytest.mark.slow
def test_without_a_gpu_only_toy_sizes_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    assert gpu.main(["next", "--seconds", "60", "--out", str(tmp_path)]) == 2
    assert "--tiny" in capsys.readouterr().err


def test_results_of_toy_size_are_not_merged(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(gpu, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(gpu, "PAGE", tmp_path / "gpu.md")
    monkeypatch.setattr(gpu, "ROOT", tmp_path)
    (tmp_path / "gpu.md").write_text("x\n<!-- begin tables -->\n<!-- end tables -->\ny\n")
    job, toy = BY_NAME["imdb-12-trainable-0"], BY_NAME["imdb-12-maed-0"]
    whole = recorded(job)
    whole |= {"arguments": job.arguments, "commit": "abc", "device": {"name": "H", "tflops": 800.0}}
    whole |= {"machine": {"versions": {"torch": "2"}}}
    whole["result"] |= {"positions": "trainable", "seed": 0, "test_accuracy": 0.61, "share": 0.3}
    write_json(tmp_path / "out" / "results.json", {job.name: whole, toy.name: recorded(toy, tiny=True)})

    assert gpu.main(["merge", str(tmp_path / "out")]) == 0

    assert [path.stem for path in (tmp_path / "records").iterdir()] == [job.name]
    page = (tmp_path / "gpu.md").read_text()
    assert "| trainable | 61.0 % (1 seed) |" in page
    assert "59.3 %" in page


def test_the_page_has_the_recorded_tables() -> None:
    page = gpu.PAGE.read_text(encoding="utf-8")
    assert page == gpu.render(page), "python benchmarks/gpu.py merge writes it"
