"""The report: tables, the layout that un-shuffles images, and the page as a browser opens it."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from safetensors.numpy import save_file

from explorer import fits, opened, resize
from maed import plots
from maed.data.geometry import grid, line
from maed.errors import MaedError
from maed.files import read_json, write_json
from maed.plots.layout import ASSIGNABLE, align, recovered_layout, row_major, to_grid
from maed.records import Paired, Results, Score, Summary
from maed.report import header, markdown, print_tables, write_report
from maed.report.contents import read_contents
from maed.report.tables import accuracy_rows, duration, geometry_rows, paired_rows, percent, seconds_rows
from maed.report.tokens import text_examples
from maed.run_folder import RunFolder
from maed.settings import ReportSettings

RESULTS = Results(
    maed="0.1.0",
    command="maed run photos --data.permute 0",
    commit="0123456789abcdef",
    source="photos",
    positions=64,
    neighbors=8,
    settings={"data": {"permute": 0}, "autoencoder": {"steps": 3000}},
    machine={"cpu": "a processor", "cores": 2},
    started="2025-01-01T00:00:00",
    seconds={"pretrain": 92.4, "similarity": 31.0},
    split_half={"maed": 0.75},
    geometry={
        "maed": {
            "knn_recall": 0.8125,
            "entries_knn_recall": 0.876,
            "spearman": 0.9,
            "entries_spearman": 0.5,
            "coordinate_r2": 0.98,
            "trustworthiness": 0.991,
        },
        "correlation": {"knn_recall": 0.92, "spearman": 0.95, "trustworthiness": 0.99},
    },
    scores=[
        *(Score("maed", seed, 0.50 + 0.02 * seed, epochs=3, seconds=60.0) for seed in range(3)),
        Score("trainable", 0, 0.4, epochs=3, seconds=50.0),
    ],
    summary=[Summary("maed", 0.523, 0.501, 0.544, seeds=3), Summary("trainable", 0.4, None, None, seeds=1)],
    paired=[
        Paired("maed", "trainable", 0.032, 0.01, 0.054, seeds=3),
        Paired("maed", "fourier", -0.01, -0.03, 0.01, seeds=3),
        Paired("maed", "none", 0.2, None, None, seeds=1),
    ],
)


def waves(coordinates: np.ndarray, side: int, per_side: int = 4) -> np.ndarray:
    """A geometric embedding: cosines of the coordinates, low frequencies strongest, as diffusion maps have them."""
    modes = [(a, b) for a in range(per_side) for b in range(per_side) if a + b]
    row, column = (coordinates + 0.5).T * np.pi / side
    return np.stack(
        [np.cos(a * row) * np.cos(b * column) / np.hypot(a, b) ** 2 for a, b in sorted(modes, key=sum)], axis=1
    ).astype(np.float32)


def make_run(folder: Path, *, source: str = "photos", side: int = 8) -> Path:
    """A run folder with every part, as the stages write it: a grid stored in shuffled order."""
    generator = np.random.default_rng(0)
    truth = grid(side, side).permuted(generator.permutation(side * side))
    count = side * side
    distances = truth.distances()
    rows, columns = truth.coordinates.T
    images = np.stack([np.stack([rows, columns, (rows * s) % side], axis=1) for s in range(1, 5)]) * 255 / side
    visible = generator.random((4, count)) < 0.2
    for name in ("embedding", "similarity", "autoencoder"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    save_file(
        {"vectors": waves(truth.coordinates, side), "coordinates": truth.coordinates},
        folder / "embedding" / "model.safetensors",
    )
    config = {"schema": 1, "n": count, "d": 15, "source": source, "geometry": {"kind": "grid", "shape": [side, side]}}
    (folder / "embedding" / "config.json").write_text(json.dumps({**config, "provenance": {"method": "maed"}}))
    save_file({"similarity": np.exp(-distances / 2).astype(np.float32)}, folder / "similarity" / "model.safetensors")
    save_file(
        {
            "original": images.astype(np.float32),
            "visible": visible,
            "reconstruction": (images + 40 * generator.standard_normal(images.shape)).astype(np.float32),
        },
        folder / "autoencoder" / "examples.safetensors",
    )
    history = [
        {"step": s, "train_loss": 1 / (1 + s / 300), "validation_loss": 1.1 / (1 + s / 300) if s % 250 == 0 else None}
        for s in range(0, 3000, 50)
    ]
    metrics = {"history": history, "seconds": 92.4, "visible": 6}
    (folder / "autoencoder" / "metrics.json").write_text(json.dumps(metrics))
    for score in RESULTS.scores or []:
        steps = [{"step": s, "validation_accuracy": 0.5 * (1 - 1 / (1 + s / 50))} for s in range(0, 500, 50)]
        place = RunFolder(folder).model(score.positions, score.seed)
        write_json(place.config, {"encoding": score.positions})
        metrics = {"positions": score.positions, "seed": score.seed, "test_accuracy": score.value, "history": steps}
        write_json(place.metrics, metrics)
    replace(RESULTS, source=source).write(folder / "results.json")
    return folder


# Tables


def test_shares_are_per_cent_and_a_missing_one_is_a_dash() -> None:
    header, maed, correlation = geometry_rows(RESULTS)
    assert header[:3] == ["Method", "Recall@8, similarity", "Recall@8, embedding"]
    assert maed == ["maed", "87.6 %", "81.2 %", "0.500", "0.900", "0.980", "0.991", "75.0 %"]
    assert correlation == ["correlation", "–", "92.0 %", "–", "0.950", "–", "0.990", "–"]


def test_split_halves_are_shown_where_no_coordinates_are_known() -> None:
    rows = geometry_rows(Results(split_half={"maed": 0.5}))
    assert rows[1] == ["maed", "–", "–", "–", "–", "–", "–", "50.0 %"]


def test_accuracy_has_an_interval_from_two_seeds_on() -> None:
    _, maed, trainable = accuracy_rows(RESULTS)
    assert maed == ["maed", "52.3 % [50.1, 54.4] (3 seeds)", "0: 50.0 %, 1: 52.0 %, 2: 54.0 %", "1 min 00 s"]
    assert trainable[1] == "40.0 % (1 seed)"


def test_accuracy_without_a_summary_is_the_mean_over_seeds() -> None:
    rows = accuracy_rows(Results(scores=RESULTS.scores))
    assert rows[1][1] == "52.0 % (3 seeds)"


def test_a_difference_is_above_when_its_low_end_is_above_zero() -> None:
    rows = paired_rows(RESULTS)
    assert rows[1] == ["maed − trainable", "+3.2 [+1.0, +5.4] (3 seeds)", "above"]
    assert rows[2] == ["maed − fourier", "−1.0 [−3.0, +1.0] (3 seeds)", "not told apart"]
    assert rows[3] == ["maed − none", "+20.0 (1 seed)", "one seed: no interval"]


@pytest.mark.parametrize("make", [geometry_rows, accuracy_rows, paired_rows, seconds_rows])
def test_a_section_that_was_not_run_has_no_rows(make: Any) -> None:
    assert make(Results()) == []


@pytest.mark.parametrize(
    ("seconds", "text"), [(12.34, "12.3 s"), (59.99, "1 min 00 s"), (185, "3 min 05 s"), (3720, "1 h 02 min")]
)
def test_durations_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_not_a_number_is_a_dash() -> None:
    assert percent(float("nan")) == "–"


def test_markdown_has_the_command_the_commit_and_the_seeds_beside_the_tables() -> None:
    text = markdown(RESULTS)
    assert text.startswith("`maed run photos --data.permute 0`, commit 0123456789ab, seeds 0, 1, 2\n")
    assert "| maed | 52.3 % [50.1, 54.4] (3 seeds) |" in text
    assert "| maed − trainable | +3.2 [+1.0, +5.4] (3 seeds) | above |" in text


def test_a_pipe_in_a_name_does_not_end_its_cell() -> None:
    assert "| a\\|b |" in markdown(Results(split_half={"a|b": 0.5}))


def test_the_terminal_shows_the_same_cells_and_brackets_are_no_markup() -> None:
    console = Console(record=True, width=200, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    print_tables(replace(RESULTS, notes=["[red]skipped[/red]"]), console)
    text = console.export_text()
    assert "52.3 % [50.1, 54.4] (3 seeds)" in text
    assert "[red]skipped[/red]" in text


# Layout


def test_a_good_embedding_unshuffles_an_image_exactly() -> None:
    order = np.random.default_rng(1).permutation(64)
    shuffled = grid(8, 8).permuted(order)
    ramp = np.arange(64)[order]  # stored in shuffled order
    image = np.empty(64, dtype=int)
    image[to_grid(recovered_layout(waves(shuffled.coordinates, 8)), shuffled.coordinates)] = ramp
    np.testing.assert_array_equal(image, np.arange(64))


@pytest.mark.parametrize(
    "symmetry", [np.array([[0, 1], [1, 0]]), np.array([[-1, 0], [0, 1]]), np.array([[0, -3], [3, 0]])]
)
def test_align_resolves_turns_mirrors_and_scale(symmetry: np.ndarray) -> None:
    coordinates = grid(5, 7).coordinates
    np.testing.assert_allclose(align(coordinates @ symmetry + 4, coordinates), coordinates, atol=1e-9)


def test_align_cannot_make_a_random_layout_true() -> None:
    coordinates = grid(8, 8).coordinates
    layout = np.random.default_rng(0).standard_normal((64, 2))
    assert np.mean(to_grid(layout, coordinates) == row_major(coordinates)) < 0.2


def test_a_layout_that_knows_nothing_does_not_unshuffle() -> None:
    coordinates = grid(8, 8).permuted(np.random.default_rng(0).permutation(64)).coordinates
    places = to_grid(np.zeros((64, 2)), coordinates)
    assert np.mean(places == row_major(coordinates)) < 0.2


def test_a_layout_of_separate_clusters_is_finite() -> None:
    generator = np.random.default_rng(0)
    vectors = np.concatenate([generator.standard_normal((20, 4)) + 1000 * part for part in range(3)])
    layout = recovered_layout(vectors)
    assert layout.shape == (60, 2)
    assert np.isfinite(layout).all()


def test_a_layout_of_equal_vectors_is_finite() -> None:
    assert np.isfinite(recovered_layout(np.repeat(np.eye(4), 12, axis=0))).all()


def test_too_few_and_too_many_positions_are_refused() -> None:
    with pytest.raises(MaedError, match="4 positions"):
        recovered_layout(np.zeros((3, 2)))
    with pytest.raises(MaedError, match="2304"):
        to_grid(np.zeros((ASSIGNABLE + 1, 2)), np.zeros((ASSIGNABLE + 1, 2)))


# Text


def test_tokens_are_drawn_as_text_with_wrong_guesses_marked() -> None:
    original = np.array([[ord(letter) + 6 for letter in "cat"] + [0, 0]])
    guess = np.array([[ord(letter) + 6 for letter in "hut"] + [0, 0]])
    (example,) = text_examples(original, np.array([[True, False, False, True, True]]), guess, np.arange(5))
    assert example["shown"] == [("plain", "c"), ("hidden", "··"), ("plain", "▫")]
    assert example["reconstructed"] == [("plain", "c"), ("wrong", "u"), ("guessed", "t"), ("plain", "▫")]
    assert example["original"] == [("plain", "cat▫")]


# The page


def facts_of(page: str) -> dict[str, Any]:
    """What the explorer of a page was given."""
    return json.loads(page.split('id="data">')[1].split("</script>")[0])["explorer"]


def unpacked(page: str, reference: dict[str, Any]) -> bytes:
    """A block of a page, as its script unpacks it."""
    text = page.split(f'id="{reference["block"]}">')[1].split("</script>")[0]
    return gzip.decompress(base64.b64decode(text))


@pytest.mark.slow
def test_the_page_and_its_figures_are_written(tmp_path: Path) -> None:
    path = write_report(make_run(tmp_path), ReportSettings())
    page = path.read_text()
    assert path == tmp_path / "report.html"
    assert "default-src &#39;none&#39;" in page or "default-src 'none'" in page
    assert "52.3 % [50.1, 54.4] (3 seeds)" in page
    assert "maed run photos --data.permute 0" in page
    assert "100.0 % of the positions lie within one step" in page
    assert sorted(figure.name for figure in (tmp_path / "figures").iterdir()) == [
        "accuracy.svg",
        "channels.png",
        "layout.svg",
        "matrix.png",
        "perceivers.svg",
        "reconstructions.png",
        "similarity.png",
        "training.svg",
        "unshuffled.png",
    ]


@pytest.mark.slow
def test_names_from_data_are_escaped(tmp_path: Path) -> None:
    run = make_run(tmp_path, source="<script>alert(1)</script>")
    results = read_json(run / "results.json")
    results["notes"] = ["class <img src=x onerror=alert(2)>"]
    results["summary"][0]["positions"] = "<b>maed</b>"
    (run / "results.json").write_text(json.dumps(results))
    page = write_report(run, ReportSettings()).read_text()
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    assert "<b>maed</b>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


@pytest.mark.slow
def test_the_page_says_how_signals_were_held_out(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    replace(RESULTS, held_out="<b>as it was</b>").write(run / "results.json")
    assert "&lt;b&gt;as it was&lt;/b&gt;" in write_report(run, ReportSettings()).read_text()
    ways = {}
    for name, given in {
        "random": {"split": "stratified"},
        "blocks": {"split": "blocks"},
        "group": {"group": "rider<i>"},
    }.items():
        replace(RESULTS, settings={"data": given}).write(run / "results.json")
        ways[name] = dict(header.facts(read_contents(run)))["Held out"]
    assert len({*ways.values()}) == 3
    assert "rider<i>" in ways["group"]


def test_names_of_positions_are_written_in_figures(tmp_path: Path) -> None:
    run, names = make_run(tmp_path), [f"E{i}" for i in range(64)]
    config = read_json(run / "embedding" / "config.json")
    (run / "embedding" / "config.json").write_text(json.dumps({**config, "names": names}))
    contents = read_contents(run)
    assert contents.names == tuple(names)
    maps = plots.similarity_maps(contents.similarity, [5, 9], contents.coordinates, contents.shape, names=names)
    assert {"E5", "E9"} <= {part.get_title() for part in maps.figure.axes}
    matrix = plots.similarity_matrix(contents.similarity, order=np.arange(64)[::-1], names=names)
    assert [label.get_text() for label in matrix.get_yticklabels()] == names[::-1]
    layout = plots.recovered_layout(contents.vectors, contents.coordinates, contents.shape, names=names)
    written: dict[str, Any] = {text.get_text(): text for part in layout.figure.axes for text in part.texts}
    drawn = np.asarray(layout.figure.axes[1].collections[-1].get_offsets())
    assert {*names} <= {*written}
    np.testing.assert_allclose([written[name].xy for name in names], drawn)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "sentence"),
    [
        ("embedding", "Not run: this folder has no embedding"),
        ("similarity", "Not run: this folder has no similarity"),
        ("autoencoder", "No training curve: this folder has no record of the training"),
        ("results.json", "The settings were not recorded"),
    ],
)
def test_a_missing_part_is_named(tmp_path: Path, part: str, sentence: str) -> None:
    run = make_run(tmp_path)
    path = run / part
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert sentence in write_report(run, ReportSettings()).read_text()


def test_sections_that_were_not_run_say_so(tmp_path: Path) -> None:
    Results(source="digits").write(tmp_path / "results.json")
    page = write_report(tmp_path, ReportSettings()).read_text()
    assert "Geometry was not measured" in page
    assert "Not run: no Perceiver was trained" in page
    assert "No times were recorded" in page


def test_a_line_of_tokens_without_results_is_drawn(tmp_path: Path) -> None:
    truth = line(40).permuted(np.random.default_rng(0).permutation(40))
    (tmp_path / "embedding").mkdir()
    (tmp_path / "autoencoder").mkdir()
    angles = truth.coordinates * np.pi / 40
    vectors = np.concatenate([np.cos(angles), np.cos(2 * angles) / 4], axis=1).astype(np.float32)
    save_file({"vectors": vectors, "coordinates": truth.coordinates}, tmp_path / "embedding" / "model.safetensors")
    config = {"schema": 1, "source": "imdb", "provenance": {}, "geometry": {"kind": "line", "shape": [40]}}
    (tmp_path / "embedding" / "config.json").write_text(json.dumps(config))
    text = np.frombuffer(b"A film to see twice, and then once more.", dtype=np.uint8).astype(np.int64) + 6
    stored = np.stack([text[truth.coordinates[:, 0].astype(int)]] * 2)
    examples = {"original": stored, "visible": np.ones_like(stored, dtype=bool), "reconstruction": stored}
    save_file(examples, tmp_path / "autoencoder" / "examples.safetensors")
    page = write_report(tmp_path, ReportSettings()).read_text()
    ((example,),) = [signals[:1] for signals in json.loads(unpacked(page, facts_of(page)["signals"]["texts"]))]
    assert example["original"] == [["plain", "A film to see twice, and then once more."]]  # in true order


@pytest.mark.slow
def test_points_and_unknown_coordinates_are_drawn(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((30, 5)).astype(np.float32)
    signals = np.random.default_rng(1).standard_normal((2, 30, 1)).astype(np.float32)
    for name, extra in (("known", {"coordinates": vectors[:, :3].copy()}), ("unknown", {})):
        for part in ("embedding", "similarity", "autoencoder"):
            (tmp_path / name / part).mkdir(parents=True)
        save_file({"vectors": vectors, **extra}, tmp_path / name / "embedding" / "model.safetensors")
        save_file({"similarity": vectors @ vectors.T}, tmp_path / name / "similarity" / "model.safetensors")
        examples = {"original": signals, "visible": signals[..., 0] > 0, "reconstruction": signals * 2}
        save_file(examples, tmp_path / name / "autoencoder" / "examples.safetensors")
        page = write_report(tmp_path / name, ReportSettings()).read_text()
        drawn = {figure.name for figure in (tmp_path / name / "figures").iterdir()}
        assert drawn == {"channels.svg", "layout.svg", "matrix.png", "reconstructions.svg", "similarity.svg"}
        assert facts_of(page)["positions"]["drawn"]["kind"] == "points"
    assert "the true coordinates are not known" in page


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MaedError, match="holds no part of a run;"):
        write_report(tmp_path, ReportSettings())


def test_parts_of_different_runs_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    save_file({"similarity": np.eye(9, dtype=np.float32)}, run / "similarity" / "model.safetensors")
    with pytest.raises(MaedError, match=r"embedding 64, .*similarity 9"):
        write_report(run, ReportSettings())


def test_a_broken_part_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    (run / "similarity" / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(MaedError, match=r"similarity/model.safetensors: not a safetensors file"):
        write_report(run, ReportSettings())


# In a browser


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(make_run(tmp_path_factory.mktemp("run")), ReportSettings())


def scheme(browser: Any, name: str) -> str:
    """Emulate a color scheme; the background that the page then has."""
    features = [{"name": "prefers-color-scheme", "value": name}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    return browser.execute_script("return getComputedStyle(document.body).backgroundColor")


def test_the_page_opens_from_disk_without_errors_or_requests(browser: Any, report: Path) -> None:
    opened(browser, report)
    assert browser.title == "maed: photos"
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    widths = browser.execute_script("return [...document.images].map(image => image.naturalWidth)")
    assert len(widths) == 2
    assert min(widths) > 0
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert [name for name in loaded if not name.startswith(("data:", "blob:"))] == []


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_fits_its_window(browser: Any, report: Path, width: int) -> None:
    opened(browser, report)
    resize(browser, width)
    assert fits(browser, width)


def test_long_names_do_not_widen_the_page(browser: Any, tmp_path: Path) -> None:
    browser.get(write_report(make_run(tmp_path, source="x" * 300), ReportSettings()).as_uri())
    resize(browser, 390)
    assert fits(browser, 390)


def test_dark_mode_changes_the_background(browser: Any, report: Path) -> None:
    browser.get(report.as_uri())
    assert scheme(browser, "light") == "rgb(253, 253, 251)"
    assert scheme(browser, "dark") == "rgb(21, 23, 26)"
