"""The study in miniature: cells are recorded one by one, none twice, none lost; tables come from the records alone."""

import json
import multiprocessing
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import geometry
from geometry import Records, cells_of, check, locked, main, prepare, read_plan
from geometry_tables import EMPTY, FIGURES, NOT_RUN, PARTS, render
from maed.cli import main as maed
from maed.data import load
from maed.errors import MaedError
from maed.files import read_json
from study import measured, study_markdown, target_rows

pytestmark = pytest.mark.filterwarnings("ignore:.*positions are constant", "ignore:.*neighbor graph falls into")

SMALL = {"steps": 30, "width": 8, "layers": 1, "scored": 16, "batch_size": 16}
PLAN: dict[str, Any] = {
    "seeds": [0, 1],
    "groups": {
        "targets": {
            "common": {
                "autoencoder": SMALL,
                "similarity": {"draws": 512},
                "embedding": [{"reduction": "spectral", "force": True}],
            },
            "rows": {
                "ring": {
                    "title": "a ring",
                    "source": "field:ring:24",
                    "data": {"samples": 200, "variant": "magnitude"},
                    "targets": {"knn_recall": 0.0, "spearman": None},
                    "minutes": 5,
                },
                "cifar10": {"title": "absent", "source": "cifar10", "targets": {"knn_recall": 0.9}},
            },
        },
        "draws": {
            "common": {
                "embedding": [{"reduction": "spectral", "force": True}, {"reduction": "pca", "dim": 4, "force": True}]
            },
            "rows": {
                "ring": {
                    "title": "ring, contrast",
                    "like": "targets/ring",
                    "vary": {"similarity.draws": [512, 1024]},
                },
            },
        },
    },
}
PAGE = "\n".join(f"before {name}\n<!-- begin {name} -->\n<!-- end {name} -->\nafter" for name in PARTS)


class Study:
    """A plan, its records and its work in a folder of their own."""

    def __init__(self, folder: Path, plan: dict[str, Any] = PLAN) -> None:
        self.plan, self.results, self.work, self.page = (
            folder / name for name in ("plan.yaml", "results/geometry.json", "work", "docs/geometry.md")
        )
        folder.mkdir(exist_ok=True)
        self.write(plan)

    def write(self, plan: dict[str, Any]) -> None:
        self.plan.write_text(yaml.safe_dump(plan, sort_keys=False))

    def do(self, verb: str, *arguments: str) -> int:
        places = ("--plan", self.plan, "--results", self.results, "--work", self.work)
        return main([verb, *arguments, *map(str, places)])

    def cells(self) -> dict[str, dict[str, Any]]:
        """Name of a cell -> its record."""
        return {f"{c['group']}/{c['row']} {c['varied']} {c['seed']}": c for c in read_json(self.results)["cells"]}

    def stages(self) -> dict[Path, int]:
        """When each trained or streamed stage was finished."""
        found = (p for p in self.work.rglob("model.safetensors") if "reductions" not in p.parts)
        return {path: path.stat().st_mtime_ns for path in found}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that has been run. Read only."""
    study = Study(tmp_path_factory.mktemp("study"))
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MAED_DATA", raising=False)
        assert study.do("run") == 0
    return study


def changed(**ring: Any) -> dict[str, Any]:
    """The plan with other settings in `targets/ring`."""
    plan = json.loads(json.dumps(PLAN))
    plan["groups"]["targets"]["rows"]["ring"] |= ring
    return plan


# --- what is recorded ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_cell_is_recorded_in_the_order_of_the_plan_but_for_absent_data(finished: Study) -> None:
    assert [tuple(cell[key] for key in ("group", "row", "varied", "seed")) for cell in finished.cells().values()] == [
        ("targets", "ring", {}, 0),
        ("targets", "ring", {}, 1),
        ("draws", "ring", {"similarity.draws": 512}, 0),
        ("draws", "ring", {"similarity.draws": 1024}, 0),
        ("draws", "ring", {"similarity.draws": 512}, 1),
        ("draws", "ring", {"similarity.draws": 1024}, 1),
    ]


@pytest.mark.slow
def test_a_record_holds_the_measures_the_times_and_where_they_come_from(finished: Study) -> None:
    cell = finished.cells()["draws/ring {'similarity.draws': 512} 1"]
    assert (cell["positions"], cell["neighbors"], cell["steps"], cell["draws"]) == (24, 4, 30, 512)
    baselines = ["correlation", "correlation of magnitudes"]
    assert cell["baselines"] == baselines
    assert set(cell["seconds"]) == {"pretrain", "similarity", *baselines}
    assert [(entry["reduction"], entry["of"]) for entry in cell["embeddings"]] == [
        (reduction, of) for reduction in ("spectral", "pca") for of in ("maed", *baselines)
    ]
    metrics = {"knn_recall", "spearman", "coordinate_r2", "trustworthiness"}
    assert all(metrics <= set(entry) and entry["seconds"] > 0 for entry in cell["embeddings"])
    assert set(cell["entries"]) == {"maed", *baselines}
    assert {"first", "last", "best"} == set(cell["loss"])
    assert 0 <= cell["split_half"] <= 1
    assert {"machine", "commit", "started"} <= set(cell)
    # only what is not a default, and the seed everywhere
    assert cell["made_with"]["data"] == {"samples": 200, "variant": "magnitude", "seed": 1, "permute": 1}
    assert cell["made_with"]["similarity"] == {"draws": 512, "seed": 1}


@pytest.mark.slow
def test_the_magnitudes_of_a_magnitude_field_show_what_its_values_hide(finished: Study) -> None:
    cell = finished.cells()["targets/ring {} 0"]
    found = {of: measured(cell, of, "entries_knn_recall") for of in cell["baselines"]}
    assert found["correlation of magnitudes"] > found["correlation"]


@pytest.mark.slow
def test_a_perceiver_is_trained_with_each_reduction_where_the_row_asks(tmp_path: Path) -> None:
    row = {
        "title": "digits, 4 channels",
        "source": "digits",
        "data": {"limit": 200},
        "autoencoder": SMALL,
        "similarity": {"draws": 512},
        "embedding": [{"reduction": name, "dim": 4, "force": True} for name in ("pca", "laplacian")],
        "perceiver": {"latents": 4, "latent_width": 8, "layers": 1},
        "train": {"epochs": 1, "steps": 3},
    }
    plan = {"seeds": [0], "groups": {"perceivers": {"rows": {"digits": row}}}}
    study = Study(tmp_path, plan)
    assert study.do("run") == 0
    (cell,) = study.cells().values()
    trained = [entry for entry in cell["embeddings"] if "test_accuracy" in entry]
    assert [(entry["of"], entry["reduction"]) for entry in trained] == [("maed", "pca"), ("maed", "laplacian")]
    assert all(0 <= entry["test_accuracy"] <= 1 for entry in trained)
    assert cell["made_with"]["train"] == row["train"]
    table = PARTS["perceivers"](read_json(study.results))
    for entry in trained:
        assert f"| maed | {entry['reduction']}, dim 4, force True | {100 * entry['test_accuracy']:.1f} %" in table
    assert Records(study.results, read_plan(study.plan)).has(cells_of(read_plan(study.plan), [0])[0])
    row["train"] = {"epochs": 1, "steps": 4}
    study.write(plan)
    assert not Records(study.results, read_plan(study.plan)).has(cells_of(read_plan(study.plan), [0])[0])


@pytest.mark.slow
def test_equal_trainings_are_done_once(finished: Study) -> None:
    trained = [path for path in finished.stages() if path.parent.name == "autoencoder"]
    assert len(trained) == 2  # one for each seed


# --- the same again -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_second_run_skips(
    finished: Study, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAED_DATA", raising=False)
    records, stages = finished.results.read_bytes(), finished.stages()
    assert finished.do("run") == 0
    assert finished.results.read_bytes() == records
    assert finished.stages() == stages
    said = capsys.readouterr().out.splitlines()
    assert sum(line.endswith(": recorded") for line in said) == 6
    assert sum("skipped, no cifar10 in $MAED_DATA" in line for line in said) == 2


@pytest.mark.slow
def test_changed_settings_run_that_cell_alone_again(tmp_path: Path) -> None:
    study = Study(tmp_path)
    assert study.do("run", "targets", "--row", "ring") == 0
    before = study.cells()
    study.write(changed(similarity={"draws": 1024}, targets={"knn_recall": 0.5}))
    assert study.do("run", "targets", "--row", "ring", "--seeds", "1") == 0
    after = study.cells()
    assert after.keys() == before.keys()
    old, new = (after[f"targets/ring {{}} {seed}"] for seed in (0, 1))
    assert (old["draws"], new["draws"]) == (512, 1024)
    assert {**before["targets/ring {} 0"], "outdated": True} == old  # kept, and in no table
    assert "outdated" not in new
    rows = target_rows(read_json(study.results))
    assert rows[1][2] == "≥ 50.0 %"
    assert rows[1][4].startswith("1: ")

    study.write(PLAN)  # and back: what is recorded counts again
    assert study.do("forget", "targets", "--row", "ring", "--seeds", "1") == 0
    assert study.cells() == {"targets/ring {} 0": before["targets/ring {} 0"]}


@pytest.mark.slow
def test_a_setting_that_came_later_had_its_default(finished: Study, tmp_path: Path) -> None:
    study = Study(tmp_path)
    content = read_json(finished.results)
    del content["defaults"]["similarity"]["transform"]
    study.results.parent.mkdir()
    study.results.write_text(json.dumps(content))
    plan = read_plan(study.plan)
    assert Records(study.results, plan).has(cells_of(plan, [0], ["targets"])[0])


@pytest.mark.slow
def test_a_stop_keeps_what_was_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study, measure = Study(tmp_path), geometry.measure
    calls = []

    def stopped(*arguments: Any) -> dict[str, Any]:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return measure(*arguments)

    monkeypatch.setattr(geometry, "measure", stopped)
    assert study.do("run", "draws", "--seeds", "0") == 130
    (first,) = study.cells().values()
    trained = study.stages()
    assert study.do("run", "draws", "--seeds", "0") == 0
    assert len(calls) == 3  # the first was not measured again
    assert next(iter(study.cells().values())) == first
    assert trained.items() <= study.stages().items()
    study.do("run", "targets", "--row", "ring", "--seeds", "0", "--discard")
    kept = ["draws-ring-draws-1024-0", "draws-ring-draws-512-0", "shared"]
    assert sorted(path.name for path in study.work.iterdir()) == kept


def add(results: Path, plan: Path, record: dict[str, Any], seeds: range) -> None:
    for seed in seeds:
        settings = {**record["made_with"], **cells_of(read_plan(plan), [seed], ["targets"])[0].made_with()}
        Records(results, read_plan(plan)).update(add={**record, "seed": seed, "made_with": settings})


@pytest.mark.slow
def test_two_processes_keep_all_cells(finished: Study, tmp_path: Path) -> None:
    study = Study(tmp_path)
    record = finished.cells()["targets/ring {} 0"]
    context = multiprocessing.get_context("fork")
    parts = [range(8), range(8, 16)]
    processes = [context.Process(target=add, args=(study.results, study.plan, record, seeds)) for seeds in parts]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    assert sorted(cell["seed"] for cell in study.cells().values()) == list(range(16))
    assert not any(cell.get("outdated") for cell in study.cells().values())
    assert [path.name for path in study.results.parent.iterdir()] == ["geometry.json"]


def test_a_cell_that_another_process_is_at_is_left_to_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Study(tmp_path)
    cell = cells_of(read_plan(study.plan), [0], ["targets"])[0]
    with locked(cell.folder(study.work)):
        assert study.do("run", "targets", "--row", "ring", "--seeds", "0") == 0
    assert "another process is at it" in capsys.readouterr().out
    assert study.cells() == {}
    with locked(cell.shared_folder(study.work)):  # nor is its autoencoder trained twice
        assert not prepare(cell, load(cell.source, cell.settings.data), study.work)


# --- tables -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_page_and_its_figures_are_made_from_the_records_alone(finished: Study, tmp_path: Path) -> None:
    page = tmp_path / "geometry.md"
    page.write_text(PAGE)
    arguments = ["tables", "--results", str(finished.results), "--docs", str(page)]
    assert main(arguments) == 0
    text, drawn = page.read_text(), (tmp_path / "images/geometry-draws.svg").read_bytes()
    both = [finished.cells()[f"draws/ring {{'similarity.draws': 1024}} {seed}"] for seed in (0, 1)]
    recalls = [measured(one, "maed", "knn_recall") for one in both]
    assert "| ring, contrast | 1024 | " in text
    assert f"| {100 * sum(recalls) / 2:.1f} ± " in text
    assert both[0]["commit"] is None or both[0]["commit"][:12] in text
    assert text.count(NOT_RUN) == len(PARTS) - 4  # targets, details, draws and where they come from
    assert text.count("before ") == text.count("after") == len(PARTS)
    assert not (tmp_path / "images/geometry-training.svg").exists()
    assert main(arguments) == 0  # again: the same
    assert page.read_text() == text == render(text, read_json(finished.results))
    assert (tmp_path / "images/geometry-draws.svg").read_bytes() == drawn
    assert set(FIGURES) == {"draws", "training", "visible"}


def test_a_page_of_nothing_says_so_and_an_unknown_part_is_named() -> None:
    assert render(PAGE, EMPTY).count(NOT_RUN) == len(PARTS) - 1
    with pytest.raises(MaedError, match="begin others"):
        render("<!-- begin others -->\n<!-- end others -->", EMPTY)


@pytest.mark.slow
def test_targets_with_intervals_each_seed_and_every_baseline(finished: Study) -> None:
    header, recall, magnitudes, spearman, *rest = target_rows(read_json(finished.results))
    assert header[:3] == ["Source", "Measure", "Target"]
    assert recall[:3] == ["a ring", "Recall@4, embedding", "≥ 0.0 %"]
    assert recall[4].startswith("0: ")
    assert ", 1: " in recall[4]
    assert recall[5] == "yes"
    assert recall[6].startswith("correlation: ")
    assert magnitudes[2:6] == [""] * 4
    assert magnitudes[6].startswith("correlation of magnitudes: ")
    assert (spearman[2], spearman[5]) == ("reported", "–")
    assert [row[:4] for row in rest if row[0] == "absent"] == [
        ["absent", "Recall@k, embedding", "≥ 90.0 %", "not run yet"]
    ]


def hand_made(*, above: bool = False, start: str | None = None) -> dict[str, Any]:
    """Three seeds of one row: recall 0.90, 0.92, 0.94 against 0.85, 0.88, 0.91."""
    cells = [
        {
            **{
                "group": "targets",
                "row": "a",
                "varied": {},
                "seed": seed,
                "neighbors": 8,
                "baselines": ["correlation"],
            },
            **{"started_from": start, "seconds": {"pretrain": 60.0, "similarity": 30.0, "correlation": 6.0}},
            **{"entries": {}, "commit": None, "machine": "a machine"},
            "embeddings": [
                {"of": "maed", "reduction": "pca", "seconds": 1.5, "knn_recall": 0.90 + 0.02 * seed},
                {"of": "correlation", "reduction": "pca", "seconds": 0.0, "knn_recall": 0.85 + 0.03 * seed},
            ],
        }
        for seed in range(3)
    ]
    row = {"group": "targets", "row": "a", "title": "A", "targets": {"knn_recall": 0.91}, "minutes": 1.55}
    return {**EMPTY, "rows": [row | ({"above": ["knn_recall"]} if above else {})], "cells": cells}


def test_numbers_of_the_target_table() -> None:
    _, recall, minutes = target_rows(hand_made())
    # t(2) = 4.3027; standard deviations 0.02 and 0.01 over the root of 3
    assert recall[3:] == [
        "92.0 % [87.0, 97.0]",
        "0: 90.0 %, 1: 92.0 %, 2: 94.0 %",
        "yes",
        "correlation: 88.0 % [80.5, 95.5]",
        "+4.0 [+1.5, +6.5]",
        "above",
    ]
    assert minutes[2:6] == ["≤ 1.55", "1.5 [1.5, 1.5]", "0: 1.5, 1: 1.5, 2: 1.5", "yes"]
    assert target_rows(hand_made(above=True))[1][2:6:3] == ["≥ 91.0 %, above the baseline", "yes"]
    warm = target_rows(hand_made(start="correlation"))[2]
    assert (warm[3], warm[5]) == ("1.6 [1.6, 1.6]", "no")  # what it started from took time too


def test_a_target_above_the_baseline_needs_the_interval() -> None:
    study = hand_made(above=True)
    study["cells"] = study["cells"][:2]
    assert target_rows(study)[1][5] == "no"


@pytest.mark.slow
def test_maed_results_passes_over_a_study_among_results(finished: Study, capsys: pytest.CaptureFixture[str]) -> None:
    folder = finished.results.parent
    assert maed(["results", str(folder)]) == 2
    (folder / "run.json").write_text(json.dumps({"schema": 2, "scores": [], "command": "maed run it"}))
    capsys.readouterr()
    assert maed(["results", "--markdown", str(folder)]) == 0
    assert "maed run it" in capsys.readouterr().out
    assert "a ring" in study_markdown(read_json(finished.results))


# --- the plan -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_plan_of_the_study_is_sound() -> None:
    plan = read_plan(geometry.PLAN)
    assert len(plan["seeds"]) >= 3
    assert set(plan["groups"]) == {*PARTS} - {"recorded", "details"}
    cells = cells_of(plan, plan["seeds"])
    assert len({cell.key() for cell in cells}) == len(cells) == len({cell.folder(Path()) for cell in cells})
    rows = {cell.key()[:2]: cell for cell in cells if cell.seed == 0}
    for cell in rows.values():
        check(cell)


@pytest.mark.parametrize(
    ("ring", "message"),
    [
        ({"similarity": {"draw": 3}}, "targets/ring: .*draw"),
        ({"similarity": {"estimator": "contrats"}}, "targets/ring: .*contrats"),
        ({"autoencoder": {**SMALL, "init": "some/folder"}}, "autoencoder.init"),
        ({"seed": 3}, r"plan\.yaml: targets\.ring:"),
        ({"autoencoder": {**SMALL, "steps": 0}}, r"autoencoder\.steps"),
    ],
)
def test_a_plan_that_cannot_be_run_is_refused_before_any_work(
    ring: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study(tmp_path, changed(**ring))
    assert study.do("run", "targets", "--seeds", "0") == 2
    assert not study.work.exists()
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
