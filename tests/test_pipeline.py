"""The walk from data to report: what it writes, that it repeats, that it goes on, and that it never overwrites."""

import json
import re
import shutil
import signal
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import maed
from maed import PositionEmbedding
from maed.autoencoder.training import AutoencoderTask
from maed.cli import main
from maed.data import from_arrays, load
from maed.data.geometry import grid, permutation
from maed.evaluation.comparison import compare_all, summarize
from maed.experiments.run import origin_notes, run_all
from maed.files import read_json
from maed.records import MadeWith, Results, Score
from maed.report.tables import geometry_rows
from maed.settings import (
    AutoencoderSettings,
    DataSettings,
    EmbeddingSettings,
    EvaluationSettings,
    ReportSettings,
    Settings,
    SimilaritySettings,
    TrainerSettings,
)
from maed.stages import Context, Pretrain, Similarity, execute
from stages import context

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*positions are constant", "ignore:.*neighbor graph falls into", "ignore:nothing is known of"
)

MODEL = (
    *("--trainer.progress=none", "--trainer.precision=32-true", "--autoencoder.width=16", "--perceiver.layers=1"),
    *("--perceiver.latents=4", "--perceiver.latent_width=8", "--train.epochs=1", "--embedding.dim=8"),
    "--embedding.force=true",  # so little training may find no dependence
    *("--similarity.method=maed", "--evaluation.probe_steps=0"),
    *("--report.reductions=[]", "--report.positions=2", "--report.channels=2", "--report.signals=2"),
)
DIGITS = (
    *("--data.limit=300", "--data.permute=3", "--autoencoder.steps=60", "--autoencoder.validate_every=30"),
    *("--similarity.draws=2000", *MODEL),
)
ENCODINGS = ("none", "fourier", "correlation", "maed")
COMPARED = ("--positions", ",".join(ENCODINGS), "--seeds", "2")


def done(*arguments: str | Path) -> None:
    assert main([str(argument) for argument in arguments]) == 0


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on permuted digits, with two seeds of four encodings. Read only."""
    folder = tmp_path_factory.mktemp("finished") / "digits"
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MAED_DATA", raising=False)
        done("run", "digits", "--out", folder, *DIGITS, *COMPARED)
    return folder


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may change."""
    folder = tmp_path / "copied"
    shutil.copytree(finished, folder)
    return folder


def vectors(folder: Path) -> torch.Tensor:
    return load_file(folder / "model.safetensors")["vectors"]


def stamps(folder: Path) -> dict[Path, int]:
    """When each stage was finished."""
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("model.safetensors")}


def without_pictures(page: Path) -> str:
    return re.sub(r"base64,[^\"]*", "", page.read_text())


def measured(results: dict[str, Any]) -> dict[str, Any]:
    """What a run found, without when and how long."""
    found = {key: results[key] for key in ("geometry", "split_half", "summary", "paired", "settings", "positions")}
    rows = [{key: value for key, value in row.items() if key != "seconds"} for row in results["scores"]]
    return {**found, "scores": rows}


# --- what is written ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "files", "tensors"),
    [
        ("autoencoder", "config.json model.safetensors last.ckpt", {"position_vectors"}),
        (
            "similarity",
            "config.json model.safetensors",
            {"similarity", "standard_error", "counts", "sums", "squares"},
        ),
        ("embedding", "config.json model.safetensors README.md", {"vectors", "coordinates"}),
        ("baselines/correlation/similarity", "config.json model.safetensors", {"similarity", "standard_error"}),
        ("baselines/correlation/embedding", "config.json model.safetensors README.md", {"vectors", "coordinates"}),
        *(
            (f"models/{encoding}-{seed}", "config.json model.safetensors metrics.json last.ckpt", set())
            for encoding in ENCODINGS
            for seed in range(2)
        ),
    ],
)
def test_every_folder_and_file(finished: Path, folder: str, files: str, tensors: set[str]) -> None:
    assert set(files.split()) <= {path.name for path in (finished / folder).iterdir()}
    assert tensors <= set(load_file(finished / folder / "model.safetensors"))
    assert read_json(finished / folder / "config.json")["schema"] == 1


def test_nothing_else_lies_at_the_top(finished: Path) -> None:
    folders = {"autoencoder", "similarity", "embedding", "baselines", "models", "figures", "explorer"}
    assert {path.name for path in finished.iterdir()} == folders | {"auto.json", "results.json", "report.html"}
    assert {path.name for path in (finished / "models").iterdir()} == {
        f"{encoding}-{seed}" for encoding in ENCODINGS for seed in range(2)
    }


def test_similarity_and_embedding_agree_with_their_configs(finished: Path) -> None:
    similarity = load_file(finished / "similarity/model.safetensors")
    assert similarity["similarity"].shape == similarity["standard_error"].shape == (64, 64)
    assert similarity["similarity"].diagonal().eq(0).all()
    # draws are whole batches; a digit shows 6 of 64, so i is hidden for j's loss more often than visible
    assert similarity["counts"].shape == (2, 64, 64)
    assert similarity["counts"][0].sum() == 8 * 256 * 6 * 58
    config = read_json(finished / "embedding/config.json")
    assert (config["n"], config["d"], config["source"]) == (64, 8, "digits")
    found = vectors(finished / "embedding").double()
    assert found.dtype == torch.float64
    assert torch.allclose(found.mean(dim=0), torch.zeros(8, dtype=torch.float64), atol=1e-6)
    assert float(found.square().mean()) == pytest.approx(1, abs=1e-5)


def test_what_was_found_is_recorded_while_draws_are_made(finished: Path) -> None:
    history = read_json(finished / "similarity/config.json")["history"]
    assert [entry["draws"] for entry in history] == [1024, 2048]
    found = read_json(finished / "results.json")["geometry"]["maed"]
    last = {name: history[-1][name] for name in ("knn_recall", "spearman")}
    assert last == {name: pytest.approx(found[f"entries_{name}"]) for name in last}
    assert all(0 <= entry["split_half"] <= 1 for entry in history)
    assert (finished / "figures" / "draws.svg").is_file()
    assert (finished / "figures" / "fractions.png").is_file()


def test_results_have_the_keys_and_types_of_the_contract(finished: Path) -> None:
    results = read_json(finished / "results.json")
    kinds: dict[str, type] = {
        **{"schema": int, "maed": str, "command": str, "commit": str, "source": str, "positions": int},
        **{"settings": dict, "machine": dict, "started": str, "seconds": dict, "split_half": dict, "geometry": dict},
        **{"scores": list, "summary": list, "paired": list},
    }
    assert {name: type(results[name]) for name in kinds} == kinds
    assert (results["schema"], results["maed"], results["source"]) == (2, maed.__version__, "digits")
    assert results["positions"] == 64
    assert results["command"].startswith("maed run digits ")
    assert results["settings"]["data"]["permute"] == 3
    assert results["settings"]["similarity"]["draws"] == 2000
    assert {"pretrain", "similarity"} <= set(results["seconds"])
    assert all(seconds >= 0 for seconds in results["seconds"].values())
    assert set(results["geometry"]) == {"maed", "correlation"}
    for metrics in results["geometry"].values():
        assert {"knn_recall", "spearman", "coordinate_r2", "trustworthiness"} <= set(metrics)
        assert 0 <= metrics["knn_recall"] <= 1
    assert 0 <= results["split_half"]["maed"] <= 1
    assert [(row["positions"], row["seed"]) for row in results["scores"]] == [
        (encoding, seed) for seed in range(2) for encoding in ENCODINGS
    ]
    for row in results["scores"]:
        keys = {"positions", "seed", "learning_rate", "value", "validation", "task", "labels", "metric"}
        keys |= {"epochs", "seconds", "history", "metrics", "pretrained"}
        assert set(row) == keys
        assert row["epochs"] == 1
        assert 0 <= row["value"] <= 1


def test_summary_and_pairs_follow_from_the_classification(finished: Path) -> None:
    results = read_json(finished / "results.json")
    by_name: dict[str, list[float]] = {name: [] for name in ENCODINGS}
    for row in results["scores"]:
        metrics = read_json(finished / "models" / f"{row['positions']}-{row['seed']}" / "metrics.json")
        expected = {"value": metrics["test_accuracy"], "validation": metrics["validation_accuracy"]}
        expected |= {name: metrics[name] for name in ("positions", "seed", "epochs", "seconds", "history")}
        expected |= {"learning_rate": metrics["settings"]["train"]["learning_rate"]}
        assert {name: row[name] for name in expected} == expected
        by_name[row["positions"]].append(row["value"])
    assert {entry["positions"]: entry["mean"] for entry in results["summary"]} == pytest.approx(
        {name: sum(values) / 2 for name, values in by_name.items()}
    )
    assert {entry["seeds"] for entry in results["summary"]} == {2}
    for entry in results["paired"]:
        gains = [a - b for a, b in zip(by_name[entry["a"]], by_name[entry["b"]], strict=True)]
        assert entry["mean"] == pytest.approx(sum(gains) / 2)
        half = 12.7062 * abs(gains[0] - gains[1]) / 2  # t of 1 degree of freedom; s / sqrt(2) of two values
        assert (entry["low"], entry["high"]) == pytest.approx((entry["mean"] - half, entry["mean"] + half), abs=1e-4)
    assert {("maed", "none"), ("maed", "correlation")} <= {(entry["a"], entry["b"]) for entry in results["paired"]}
    assert results["summary"] == [asdict(row) for row in summarize(Score(**row) for row in results["scores"])]
    assert results["paired"] == [asdict(row) for row in compare_all(Score(**row) for row in results["scores"])]


@pytest.mark.slow
def test_what_was_not_run_is_null(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done("run", "digits", "--out", copied, *DIGITS, "--positions", "")
    results = read_json(copied / "results.json")
    assert [results[key] for key in ("scores", "summary", "paired")] == [None] * 3
    assert results["geometry"] is not None
    assert "no positions were asked for" in capsys.readouterr().out


def test_a_perceiver_is_given_the_embedding_bit_for_bit(finished: Path) -> None:
    for encoding, folder in (("maed", "embedding"), ("correlation", "baselines/correlation/embedding")):
        state = load_file(finished / f"models/{encoding}-0/model.safetensors")
        tables = [tensor for name, tensor in state.items() if name.endswith("table")]
        assert len(tables) == 1
        assert torch.equal(tables[0], vectors(finished / folder))


# --- other ways to learn positions --------------------------------------------------------------------------------

QUICK = ("--data.limit=200", "--autoencoder.steps=20", "--autoencoder.validate_every=10", "--positions=", *MODEL)


@pytest.mark.slow
@pytest.mark.parametrize(
    "chosen",
    [
        ("--similarity.until=stable", "--similarity.tolerance=0.5", "--similarity.draws=20000"),
        ("--autoencoder.loss=gaussian", "--similarity.draws=512"),
        ("--similarity.estimator=ablation", "--similarity.draws=512"),
        ("--similarity.estimator=mean-loss", "--similarity.draws=512", "--similarity.visible_fraction=0.2"),
        ("--autoencoder.init=correlation", "--similarity.draws=512"),
    ],
    ids=lambda chosen: chosen[0],
)
def test_every_way_of_learning_runs_from_end_to_end(
    chosen: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done("run", "digits", "--out", tmp_path / "out", *QUICK, *chosen)
    results = read_json(tmp_path / "out/results.json")
    assert set(results["geometry"]) == {"maed", "correlation"}
    assert np.isfinite(vectors(tmp_path / "out/embedding")).all()
    stored, similarity = (read_json(tmp_path / f"out/{name}/config.json") for name in ("autoencoder", "similarity"))
    sums = load_file(tmp_path / "out/similarity/model.safetensors")
    kept = chosen[0].split("=")[1]
    if kept == "stable":
        assert 4096 < similarity["draws"] < 20_000
        assert similarity["changed"][-1][0] == similarity["draws"]
        assert similarity["changed"][-1][1] <= 0.5
        assert f"similarity: {similarity['draws']} draws; the last quarter of them changed" in capsys.readouterr().out
    else:
        assert (similarity["draws"], similarity["changed"]) == (512, [])
    shown = 13 if kept == "mean-loss" else stored["visible"]  # a fifth of 64
    assert stored["visible"] == 6
    each_signal = 512 * shown * (64 - shown)
    if kept == "ablation":
        assert sums["counts"].shape == (1, 64, 64)
        assert sums["counts"].sum() == each_signal
    elif kept != "stable":
        # of eight draws of a signal one at least hides a position that another hides, at all but a few positions
        assert sums["counts"].shape == (2, 64, 64)
        assert 0.99 * each_signal < sums["counts"][0].sum() <= each_signal


@pytest.mark.slow
@pytest.mark.parametrize(
    ("permute", "said"), [((), "positions were not permuted"), (("--data.permute=1",), "in a rando")]
)
def test_results_and_report_say_that_the_u_net_knows_the_order(
    permute: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    small = ("--autoencoder.kind=unet", "--autoencoder.depth=1", "--autoencoder.width=4", "--similarity.draws=256")
    done("run", "digits", "--out", tmp_path / "out", *QUICK, *small, *permute)
    results = read_json(tmp_path / "out/results.json")
    assert set(results["geometry"]) == {"maed", "correlation"}
    (note,) = [note for note in results["notes"] if "U-Net" in note]
    assert note.startswith("The U-Net knows the storage order by construction; ")
    assert said in note
    page = (tmp_path / "out/report.html").read_text()
    assert "The U-Net knows the storage order by construction" in page
    assert "with a U-Net, which is told in what order positions are stored" in page
    assert "or the storage order;" not in page  # what the page says of other autoencoders
    assert ("which the U-Net knows by construction" in page) == (not permute)
    run = ("--run", tmp_path / "out", "--out", tmp_path / "compared")
    done("compare", "digits", *run, *MODEL, "--data.limit=200", *permute, "--positions=none,maed", "--seeds=1")
    assert read_json(tmp_path / "compared/results.json")["notes"] == [note]


@pytest.mark.slow
def test_the_start_of_a_warm_start_is_shown_beside_its_result(finished: Path, tmp_path: Path) -> None:
    start = finished / "embedding"
    warm = ("--autoencoder.steps=10", f"--autoencoder.init={start}", "--similarity.draws=512", "--positions=")
    done("run", "digits", "--out", tmp_path / "out", *DIGITS, *warm)
    results = read_json(tmp_path / "out/results.json")
    assert set(results["geometry"]) == {"maed", "correlation", "start"}
    of_the_embedding = ("knn_recall", "spearman", "coordinate_r2", "trustworthiness")
    expected = read_json(finished / "results.json")["geometry"]["maed"]
    assert results["geometry"]["start"] == {name: expected[name] for name in of_the_embedding}
    note = (
        f"The autoencoder's position vectors started from the embedding in {start}: only what maed gains over the "
        "row `start` is its own."
    )
    assert note in results["notes"]
    rows = geometry_rows(Results.of(results))
    assert [row[0] for row in rows[1:]] == ["maed", "correlation", "start"]
    page = (tmp_path / "out/report.html").read_text()
    assert "position vectors started from the embedding in" in page
    assert f"<td>{100 * expected['knn_recall']:.1f} %</td>" in page


@pytest.mark.parametrize(
    ("init", "rows", "said"),
    [
        ("random", ("maed", "start"), []),
        (
            "correlation",
            ("maed", "correlation"),
            ["started from the correlation baseline: only what maed gains over the row `correlation`"],
        ),
        ("correlation", ("maed",), ["started from the correlation baseline: only what maed gains over that start is"]),
        ("mine", ("start",), ["started from the embedding in mine: only what maed gains over the row `start` is its"]),
        ("mine", (), ["started from the embedding in mine: only what maed gains over that start is its own"]),
    ],
)
def test_what_the_autoencoder_started_from_is_noted(init: str, rows: tuple[str, ...], said: list[str]) -> None:
    notes = origin_notes(MadeWith(autoencoder={"init": init}), rows)
    assert len(notes) == len(said)
    assert all(words in note for words, note in zip(said, notes, strict=True))


def tiny(folder: Path, draws: int, batch_size: int, *, mask: np.ndarray | None = None, **rest: Any) -> Context:
    """Sixteen positions, one of them visible in each draw."""
    values = np.random.default_rng(0).normal(size=(60, 16)).astype(np.float32)
    if mask is not None:
        values[~np.broadcast_to(mask, values.shape)] = np.nan
    settings = Settings(
        data=DataSettings(missing="mask"),
        autoencoder=AutoencoderSettings(steps=2, width=8, warmup=0),
        similarity=SimilaritySettings(
            estimator="mean-loss", draws=draws, batch_size=batch_size, visible_fraction=1 / 16
        ),
        trainer=TrainerSettings(accelerator="cpu", progress="none"),
    )
    return context(folder, settings, from_arrays(values, settings=settings.data), **rest)


def test_pairs_that_were_never_drawn_are_named(tmp_path: Path) -> None:
    run = tiny(tmp_path, draws=24, batch_size=8)
    execute([Pretrain()], run)
    with pytest.warns(UserWarning, match=r"similarity\.draws") as warned:
        execute([Similarity()], run)
    counts = load_file(tmp_path / "similarity/model.safetensors")["counts"][0]
    never = int((counts == 0).sum()) - 16  # the diagonal is none of them
    assert 0 < never < 120
    assert f"in 24 draws, {never} of 240 pairs" in str(warned[0].message)


def test_draws_that_miss_most_pairs_are_refused_and_do_not_stand_in_the_way(tmp_path: Path) -> None:
    run = tiny(tmp_path, draws=2, batch_size=2)
    execute([Pretrain()], run)
    with pytest.raises(maed.MaedError, match=r"similarity\.draws: in 4 draws,"):
        execute([Similarity()], run)
    assert not (tmp_path / "similarity").exists()
    execute([Similarity()], tiny(tmp_path, draws=512, batch_size=64))
    assert (tmp_path / "similarity/model.safetensors").is_file()


def test_a_stable_stream_of_few_draws_says_that_it_cannot_tell(tmp_path: Path) -> None:
    said: list[str] = []
    run = tiny(tmp_path, draws=512, batch_size=64, say=said.append)
    run.settings.similarity.until = "stable"
    execute([Pretrain()], run)
    execute([Similarity()], run)
    assert "similarity: 512 draws, too few to tell whether neighbors are stable" in said


def test_pairs_that_no_signal_has_are_not_waited_for(tmp_path: Path) -> None:
    even, place = (np.arange(60) % 2 == 0)[:, None], np.arange(16)
    real = np.where(even, place < 12, place >= 4)  # 208 of 240 pairs are ever together
    run = tiny(tmp_path, draws=1_024, batch_size=64, mask=real)
    execute([Pretrain()], run)
    execute([Similarity()], run)
    counts = load_file(tmp_path / "similarity/model.safetensors")["counts"][0]
    assert int((counts > 0).sum()) == 208


@pytest.mark.parametrize(("kind", "refused"), [("swissroll", True), ("ring", False)])
def test_the_seed_places_a_swiss_roll_and_no_ring(kind: str, refused: bool, tmp_path: Path) -> None:
    def run(seed: int, out: str) -> Context:
        settings = Settings(
            data=DataSettings(samples=50, seed=seed),
            autoencoder=AutoencoderSettings(steps=2, width=8, warmup=0),
            similarity=SimilaritySettings(draws=512),
            trainer=TrainerSettings(accelerator="cpu", progress="none"),
        )
        data = load(f"field:{kind}:24", settings.data)
        return context(tmp_path / out, settings, data, upstream=tmp_path / "first")

    execute([Pretrain()], run(0, "first"))
    if refused:
        with pytest.raises(maed.MaedError, match=r"data\.seed"):
            execute([Similarity()], run(1, "second"))
    else:
        execute([Similarity()], run(1, "second"))
    assert (tmp_path / "second").exists() != refused


# --- the same again -----------------------------------------------------------------------------------------------


def test_a_finished_run_is_only_read(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    done("run", "digits", "--out", copied, *DIGITS, *COMPARED)
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path != copied} == {
        path: at for path, at in before.items() if path != copied
    }
    changed = copied / "models" / "maed-1" / "model.safetensors"
    changed.write_bytes(changed.read_bytes()[:-1] + b"?")
    capsys.readouterr()
    assert main([*map(str, ("run", "digits", "--out", copied, *DIGITS, *COMPARED))]) == 2
    assert f"delete {changed.parent}" in capsys.readouterr().err


def test_a_record_in_the_place_of_another_is_noticed(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed = copied / "models" / "maed-1" / "config.json"
    shutil.copy(copied / "models" / "fourier-1" / "config.json", changed)
    capsys.readouterr()
    assert main([*map(str, ("run", "digits", "--out", copied, *DIGITS, *COMPARED))]) == 2
    assert f"delete {changed.parent}" in capsys.readouterr().err


@pytest.mark.parametrize("left", [None, "models/maed-0/metrics.json"])
def test_weights_without_the_record_of_their_training_are_named(
    copied: Path, left: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    (copied / "results.json").unlink()  # the run was stopped
    metrics = copied / "autoencoder" / "metrics.json"
    metrics.unlink()
    if left is not None:
        shutil.copy(copied / left, metrics)
    before = stamps(copied)
    assert main([*map(str, ("run", "digits", "--out", copied, *DIGITS, *COMPARED))]) == 2
    assert f"delete {metrics.parent}" in capsys.readouterr().err
    assert stamps(copied) == before


@pytest.mark.slow
def test_a_finished_run_is_not_done_again(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, results = stamps(copied), read_json(copied / "results.json")
    capsys.readouterr()
    done("run", "digits", "--out", copied, *DIGITS, *COMPARED)
    assert stamps(copied) == before
    assert measured(read_json(copied / "results.json")) == measured(results)
    text = capsys.readouterr().out
    for title in ("Geometry", "Test accuracy", "Paired differences of test accuracy", "Time"):
        assert re.search(rf"^{title} *$", text, flags=re.MULTILINE)
    assert f"{100 * results['summary'][0]['mean']:.1f} %" in text


@pytest.mark.slow
def test_verb_by_verb_makes_the_same_as_run(finished: Path, tmp_path: Path) -> None:
    """Every verb writes to a folder of its own, and reads the earlier stages with --run."""
    a, b, c, d, e = (tmp_path / name for name in "abcde")
    done("pretrain", "digits", "--out", a, *DIGITS)
    assert {path.name for path in a.iterdir()} == {"autoencoder"}
    done("similarity", "digits", "--run", a, "--out", b, *DIGITS)
    assert {path.name for path in b.iterdir()} == {"similarity"}
    done("embed", "--run", b, "--out", c, *DIGITS)
    assert {path.name for path in c.iterdir()} == {"embedding"}
    assert torch.equal(vectors(c / "embedding"), vectors(finished / "embedding"))
    for verb, *rest in (("train", "--positions", "maed", "--seed", "1"), ("train", "--positions", "correlation")):
        done(verb, "digits", "--run", c, "--out", d, *DIGITS, *rest)
    assert torch.equal(
        vectors(d / "baselines/correlation/embedding"), vectors(finished / "baselines/correlation/embedding")
    )
    for name in ("maed-1", "correlation-0"):
        mine, theirs = (read_json(folder / "models" / name / "metrics.json") for folder in (d, finished))
        assert {k: mine[k] for k in ("test_accuracy", "fingerprint")} == {
            k: theirs[k] for k in ("test_accuracy", "fingerprint")
        }
    done("compare", "digits", "--run", c, "--out", e, *DIGITS, "--positions", "none,maed", "--seeds", "1")
    theirs = {(row["positions"], row["seed"]): row for row in read_json(finished / "results.json")["scores"]}
    results = read_json(e / "results.json")
    assert len(results["scores"]) == 2
    for row in results["scores"]:
        assert row["value"] == theirs[row["positions"], row["seed"]]["value"]
    assert results["geometry"] is None
    done("report", e)
    assert "<html" in (e / "report.html").read_text()
    assert sorted(path.name for path in c.iterdir()) == ["embedding"]  # nothing was written where --run points


@pytest.mark.slow
def test_the_same_seed_finds_the_same_geometry_and_another_does_not(tmp_path: Path) -> None:
    settings = Settings(
        data=DataSettings(limit=200),
        autoencoder=AutoencoderSettings(steps=5, width=16),
        similarity=SimilaritySettings(draws=600),
        embedding=EmbeddingSettings(force=True),
        evaluation=EvaluationSettings(probe_steps=0),
        report=ReportSettings(positions=1, channels=1, signals=1, reductions=[]),
    )
    data = load("digits", settings.data)
    found = [
        run_all(context(tmp_path / name, settings, data), [], 0, command=name).geometry for name in ("first", "again")
    ]
    assert found[0] == found[1]
    settings.similarity.seed = 1
    other = run_all(context(tmp_path / "other", settings, data), [], 0, command="other").geometry
    assert other["maed"] != found[0]["maed"]
    assert other["correlation"] == found[0]["correlation"]


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["similarity", "embedding", "models/maed-1", "results.json"])
def test_a_run_stopped_between_stages_goes_on(finished: Path, copied: Path, gone: str) -> None:
    path = copied / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    (copied / "report.html").unlink()
    kept = stamps(copied)
    done("run", "digits", "--out", copied, *DIGITS, *COMPARED)
    again = stamps(copied)
    assert {path: again[path] for path in kept} == kept
    assert set(again) == set(stamps(finished))
    assert (copied / "report.html").is_file()
    assert measured(read_json(copied / "results.json")) == measured(read_json(finished / "results.json"))


@pytest.mark.slow
def test_a_training_stopped_in_the_middle_goes_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("pretrain", "digits", "--out", tmp_path / "out", *DIGITS)

    original = AutoencoderTask.training_step

    def stops_at_45(self: AutoencoderTask, batch: Any, step: int) -> torch.Tensor:
        if step == 45:
            raise KeyboardInterrupt
        return original(self, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(AutoencoderTask, "training_step", stops_at_45)
        assert main([str(argument) for argument in arguments]) == 130
    assert "maed: stopped; " in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # Lightning leaves it ignored
    assert not (tmp_path / "out/autoencoder/model.safetensors").exists()
    done(*arguments)
    mine, theirs = (load_file(folder / "autoencoder/model.safetensors") for folder in (tmp_path / "out", finished))
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    history = read_json(tmp_path / "out/autoencoder/metrics.json")["history"]
    assert [point["step"] for point in history] == [30, 60]


# --- never overwritten silently -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "digits", *DIGITS, *COMPARED, "--autoencoder.steps=61"], "autoencoder.steps is 60 there and 61 here"),
        (["pretrain", "digits", *DIGITS, "--data.limit=299"], "data.limit is 300 there and 299 here"),
        (["pretrain", "photos", *DIGITS, "--data.samples=50"], "source is digits there and photos here"),
        (["similarity", "digits", *DIGITS, "--similarity.draws=2001"], "similarity.draws is 2000 there and 2001 here"),
        (["embed", *DIGITS, "--embedding.dim=9"], "embedding.dim is 8 there and 9 here"),
        (["train", "digits", *DIGITS, "--positions=none", "--train.batch_size=32"], "models/none-0 holds a"),
        (["compare", "digits", *DIGITS, *COMPARED, "--data.seed=1"], "data.seed is 0 there and 1 here"),
    ],
)
def test_another_run_is_never_overwritten_silently(
    finished: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert main([*arguments, "--out", str(finished)]) == 2
    line = capsys.readouterr().err
    assert line.startswith("maed: out: ")
    assert line.count("\n") == 1
    assert said in line
    assert "--overwrite" in line
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


@pytest.mark.slow
def test_overwrite_replaces_what_differs_and_what_follows_from_it(copied: Path) -> None:
    before, old = stamps(copied), vectors(copied / "embedding")
    changed = [argument.replace("draws=2000", "draws=1500") for argument in DIGITS]
    done("run", "digits", "--out", copied, *changed, *COMPARED, "--overwrite")
    after = stamps(copied)
    replaced = {str(path.parent) for path in after if after[path] != before[path]}
    assert replaced == {"similarity", "embedding", "models/maed-0", "models/maed-1"}
    assert not torch.equal(vectors(copied / "embedding"), old)
    assert read_json(copied / "results.json")["settings"]["similarity"]["draws"] == 1500


@pytest.mark.parametrize("changed", ["--data.permute=4", None])
def test_earlier_stages_of_other_positions_are_refused(
    finished: Path, tmp_path: Path, changed: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [argument for argument in DIGITS if not argument.startswith("--data.permute")]
    settings += [] if changed is None else [changed]
    for verb, *rest in (("similarity",), ("train", "--positions", "maed")):
        assert main([verb, "digits", "--run", str(finished), "--out", str(tmp_path / "out"), *settings, *rest]) == 2
        line = capsys.readouterr().err
        assert line.startswith("maed: data.permute must be 3")
        assert line.endswith(f"got {None if changed is None else 4}\n")
    assert not (tmp_path / "out").exists()


# --- looking at what came out -------------------------------------------------------------------------------------


def test_coordinates_follow_the_permutation(finished: Path) -> None:
    embedding = PositionEmbedding.from_pretrained(finished / "embedding")
    expected = grid(8, 8).coordinates[permutation(64, 3)]
    assert embedding.geometry is not None
    assert np.array_equal(embedding.geometry.coordinates, expected)
    assert not np.array_equal(expected, grid(8, 8).coordinates)


@pytest.mark.parametrize("folder", ["embedding", "baselines/correlation/embedding"])
@pytest.mark.parametrize("coordinates", ["grid:8x8", None, "file"])
def test_evaluate_finds_what_the_run_found(
    finished: Path, tmp_path: Path, folder: str, coordinates: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    if coordinates == "file":
        coordinates = str(tmp_path / "grid.npy")
        np.save(coordinates, grid(8, 8).coordinates)
    chosen = () if coordinates is None else ("--coordinates", coordinates)
    done("evaluate", finished / folder, "--out", tmp_path / "out", *chosen)
    found = json.loads((tmp_path / "out/geometry.json").read_text())
    name = "maed" if folder == "embedding" else "correlation"
    expected = read_json(finished / "results.json")["geometry"][name]
    assert found["neighbors"] == 8
    for metric in ("knn_recall", "spearman", "coordinate_r2", "trustworthiness"):
        assert found[metric] == pytest.approx(expected[metric], rel=1e-12)
    assert f"knn_recall@8: {expected['knn_recall']:.4f}" in capsys.readouterr().out


def test_correlation_finds_the_grid_of_digits_in_part(finished: Path) -> None:
    """Against metrics that measure nothing: facts.md has a recall near 0.49 for correlation, chance is 8 of 63."""
    assert read_json(finished / "results.json")["geometry"]["correlation"]["knn_recall"] > 0.3


@pytest.mark.slow
def test_the_report_is_made_again(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = without_pictures(copied / "report.html")
    (copied / "report.html").unlink()
    shutil.rmtree(copied / "figures")
    done("report", copied, *(flag for flag in MODEL if flag.startswith("--report.")))
    assert f"wrote {copied / 'report.html'}" in capsys.readouterr().out
    assert without_pictures(copied / "report.html") == first
    assert any((copied / "figures").iterdir())


def test_results_prints_the_tables(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = read_json(finished / "results.json")
    shutil.copy(finished / "results.json", tmp_path / "digits.json")
    cells = {entry["positions"]: f"{100 * entry['mean']:.1f} %" for entry in results["summary"]}
    for path in (finished / "results.json", tmp_path):
        done("results", path, "--markdown")
        text = capsys.readouterr().out
        assert all(re.search(rf"^\| {name} \| {cell} ", text, flags=re.MULTILINE) for name, cell in cells.items())
        recall = 100 * results["geometry"]["maed"]["knn_recall"]
        assert re.search(rf"^\| maed \|.* {recall:.1f} % \|", text, flags=re.MULTILINE)
    done("results", finished / "results.json")
    plain = capsys.readouterr().out
    assert all(name in plain and cell in plain for name, cell in cells.items())
    assert "…" not in plain  # nothing is cut where the output is a pipe


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", ["a run with autoencoder, similarity, embedding, baselines, models", "digits, 64 positions"]),
        ("autoencoder", ["a masked autoencoder of 64 positions, 6 visible", "loss: mse", "source: digits"]),
        ("similarity", ["a similarity of 64 positions", "split-half agreement: 0.", "source: digits"]),
        ("embedding", ["a position embedding of 64 positions, 8 channels", "geometry: grid", "source: digits"]),
        ("baselines/correlation/similarity", ["a similarity of 64 positions", "split-half agreement: not measured"]),
        ("baselines/correlation/embedding", ["a position embedding of 64 positions", "estimator: correlation"]),
        ("models/maed-1", ["a Perceiver of 64 positions, encoding maed", "test accuracy: ", "source: digits"]),
        ("results.json", ["results of `maed run digits", "source: digits, 64 positions"]),
    ],
)
def test_info_of_everything(finished: Path, path: str, said: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    done("info", finished / path)
    text = capsys.readouterr().out
    assert text.startswith(f"{finished / path}: ")
    assert all(words in text for words in said)


# --- an embedding of another size ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_resampled_embedding_goes_by_that_name_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coarse = PositionEmbedding(torch.randn(16, 5, generator=torch.Generator().manual_seed(0)), geometry=grid(4, 4))
    coarse.save_pretrained(tmp_path / "coarse")
    done("export", tmp_path / "coarse", "--format=folder", "--resample=grid:8x8", "--out", tmp_path / "run/embedding")
    few = ("--data.limit=100", "--data.permute=3", *MODEL, "--run", tmp_path / "run")
    assert main([str(a) for a in ("train", "digits", "--positions=maed", *few)]) == 2
    assert "was resampled by its geometry; choose maed-resampled" in capsys.readouterr().err
    done("compare", "digits", "--positions=maed-resampled,none", "--seeds=1", *few)
    results = read_json(tmp_path / "run/results.json")
    assert [row["positions"] for row in results["scores"]] == ["maed-resampled", "none"]
    weights = load_file(tmp_path / "run/models/maed-resampled-0/model.safetensors")
    table = weights["perceiver.input_preprocessor.positions.table"]
    assert torch.equal(table, coarse.resampled("grid:8x8").vectors[torch.from_numpy(permutation(64, 3))])
    done("export", tmp_path / "coarse", "--format=folder", "--resample=grid:4x16", "--out", tmp_path / "wide/embedding")
    few = (*few[:-1], tmp_path / "wide")
    assert main([str(a) for a in ("train", "digits", "--positions=maed-resampled", *few)]) == 2
    assert "was resampled to (4, 16)" in capsys.readouterr().err


def test_the_embedding_of_a_run_carries_what_was_measured_and_its_picture(finished: Path) -> None:
    results = read_json(finished / "results.json")
    for name, folder in (
        ("maed", finished / "embedding"),
        ("correlation", finished / "baselines/correlation/embedding"),
    ):
        provenance = PositionEmbedding.from_pretrained(folder).provenance
        error = {"neighbor_error": results["neighbor_error"][name]}  # nothing was probed
        assert provenance["metrics"] == results["geometry"][name] | error
        assert provenance["versions"]["torch"] == torch.__version__
        assert (folder / "figure.png").is_file()
        assert "| kNN recall |" in (folder / "README.md").read_text()


# --- the library --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_learn_returns_an_embedding_that_is_saved_and_read(tmp_path: Path) -> None:
    line = np.random.default_rng(0).normal(size=(200, 20)).cumsum(axis=1)
    few = Settings(
        autoencoder=AutoencoderSettings(steps=20, width=16),
        similarity=SimilaritySettings(draws=1000),
        embedding=EmbeddingSettings(force=True),
        evaluation=EvaluationSettings(probe_steps=10, probe_seeds=1),
    )
    embedding = maed.learn(line, dim=5, settings=few, folder=tmp_path / "run")
    assert (embedding.n, embedding.dim, embedding.vectors.dtype) == (20, 5, torch.float32)
    assert embedding.geometry is None
    embedding.save_pretrained(tmp_path / "mine")
    read = PositionEmbedding.from_pretrained(tmp_path / "mine")
    assert torch.equal(read.vectors, embedding.vectors)
    assert read(2).shape == (2, 20, 5)
    before = stamps(tmp_path / "run")
    again = maed.learn(line, dim=5, settings=few, folder=tmp_path / "run")
    assert torch.equal(again.vectors, embedding.vectors)
    assert stamps(tmp_path / "run") == before
    assert few.embedding.dim is None  # the caller's settings are left alone


def test_learn_refuses_before_any_training(tmp_path: Path) -> None:
    signals = np.random.default_rng(0).normal(size=(50, 8))
    for settings, said in (
        (Settings(embedding=EmbeddingSettings(dim=8)), r"^embedding\.dim"),
        (Settings(embedding=EmbeddingSettings(n_neighbors=8)), r"^embedding\.n_neighbors"),
        (
            Settings(similarity=SimilaritySettings(estimator="ablation", visible_fraction=0.1)),
            "^similarity.visible_fraction",
        ),
        (Settings(autoencoder=AutoencoderSettings(init="dependence")), "'dependence'"),
    ):
        with pytest.raises(maed.MaedError, match=said):
            maed.learn(signals, settings=settings, folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# --- real data ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "positions", "baseline", "geometry"),
    [
        ("cifar10", ["--data.image_size=16"], 256, "correlation", "grid"),
        ("imdb", ["--data.length=64"], 64, "dependence", "line"),
    ],
)
def test_real_data_from_end_to_end(
    data_folder: Path, tmp_path: Path, name: str, arguments: list[str], positions: int, baseline: str, geometry: str
) -> None:
    tiny = ["--data.limit=200", "--autoencoder.steps=5", "--similarity.draws=512", *MODEL, *arguments]
    done("pretrain", data_folder / name, "--out", tmp_path, *tiny)
    before = stamps(tmp_path)
    done("run", data_folder / name, "--out", tmp_path, *tiny, "--positions=maed", "--seeds=1")
    assert {path: stamps(tmp_path)[path] for path in before} == before
    results = read_json(tmp_path / "results.json")
    assert results["positions"] == positions
    assert results["neighbors"] == (8 if geometry == "grid" else 4)
    assert set(results["geometry"]) == {"maed", baseline}
    assert len(results["scores"]) == 1
    assert read_json(tmp_path / "embedding/config.json")["geometry"]["kind"] == geometry
    assert (tmp_path / "report.html").is_file()


def test_positions_of_another_source_are_refused_unless_said_to_be_the_same(
    copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits = load("digits", DataSettings())
    np.savez(tmp_path / "mine.npz", inputs=digits.train.values, labels=digits.train.labels)
    train = ("train", tmp_path / "mine.npz", "--positions=maed", "--run", copied, *DIGITS)
    assert main([str(argument) for argument in train]) == 2
    line = capsys.readouterr().err.strip()
    assert "was learned from 'digits'," in line
    assert line.endswith("--perceiver.learned_from digits")
    done(*train, "--perceiver.learned_from=digits", "--overwrite")
