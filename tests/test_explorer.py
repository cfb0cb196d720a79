"""The explorer: what it is given, and the page as it is looked around in, in headless Chromium."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from explorer import fits, opened, point_at, resize, synthetic_run
from maed.cli import main
from maed.embedding import reduce
from maed.errors import MaedError
from maed.files import read_json
from maed.plots.layout import row_major
from maed.records import Results, Score, Summary
from maed.report import write_report
from maed.report.contents import read_contents
from maed.report.explorer import explorer_data, views
from maed.report.explorer.blocks import Blocks, quantized
from maed.report.explorer.views import Kept
from maed.run_folder import RunFolder
from maed.settings import ReportSettings
from maed.similarity import Accumulator, estimate

SIDE = 8
HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>&amp;%{x}"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run of 8 x 8 positions, and its page."""
    folder = synthetic_run(tmp_path_factory.mktemp("grid") / "run", SIDE)
    write_report(folder, ReportSettings())
    return folder


@pytest.fixture
def page(browser: Any, run: Path) -> Iterator[Any]:
    """The page of that run, opened anew."""
    scheme(browser, "light")
    resize(browser, 1280)
    opened(browser, run / "report.html")
    settled(browser)
    yield browser
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert severe == []


# What the tests do to a page.


def settled(browser: Any) -> None:
    """Wait until every view shows the chosen position, and a screen reader was told.

    It is the page's own timer that waits, so that a busy machine delays it as it delays the page.
    """
    browser.execute_async_script("setTimeout(() => requestAnimationFrame(arguments[0]), 700)")


def scheme(browser: Any, name: str) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": name}]}
    )


def said(browser: Any) -> str:
    """What the live region says."""
    return browser.execute_script("return document.getElementById('here').textContent")


def says(browser: Any, words: str) -> bool:
    """Whether the live region comes to say something: a busy machine takes its time."""
    until = time.monotonic() + 20
    while words not in said(browser) and time.monotonic() < until:
        time.sleep(0.05)
    return words in said(browser)


def chosen(browser: Any) -> int:
    return int(said(browser).split()[1].rstrip(",."))


def choose(browser: Any, control: str, value: str) -> None:
    """Take another option of a control, as a user does."""
    browser.execute_script(
        "const c = document.getElementById(arguments[0]); c.value = arguments[1];"
        "c.dispatchEvent(new Event('change', {bubbles: true}))",
        control,
        value,
    )
    settled(browser)


def drawn(browser: Any, plot: str) -> np.ndarray:
    """The values that a map shows, as rows of an image."""
    rows = browser.execute_script(
        "return document.getElementById(arguments[0]).data[0].z.map(r => [...r].map(v => Number.isNaN(v) ? null : v))",
        plot,
    )
    return np.array(rows, dtype=np.float64)


def hover(browser: Any, plot: str, row: int, column: int, side: int = SIDE) -> None:
    """Point at a cell, with an event that the page's own script sends to whatever lies on top there.

    Where the mouse of the browser is, is told by what was painted last: on a busy machine, by a page that has scrolled
    or grown since.
    """
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": 1, "y": 1})
    browser.execute_script("document.getElementById(arguments[0]).scrollIntoView({block: 'center'})", plot)
    settled(browser)
    browser.execute_script(
        "const r = document.querySelector(`#${arguments[0]} .nsewdrag`).getBoundingClientRect();"
        "const [clientX, clientY] = [r.left + arguments[1] * r.width, r.top + arguments[2] * r.height];"
        "const top = document.elementFromPoint(clientX, clientY);"
        "for (const kind of ['mouseout', 'mousemove'])"  # from outside: Plotly tells of no cell twice
        "  top.dispatchEvent(new MouseEvent(kind, {clientX, clientY, bubbles: true, view: window}))",
        *(plot, (column + 0.5) / side, (row + 0.5) / side),
    )
    settled(browser)


def press(browser: Any, *keys: str) -> None:
    """Press keys where the focus is."""
    for key in keys:
        for kind in ("keyDown", "keyUp"):
            browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": kind, "key": key, "code": key})
    settled(browser)


def focus(browser: Any, name: str) -> None:
    browser.execute_script("document.getElementById(arguments[0]).focus()", name)


def position_at(run: Path, row: int, column: int) -> int:
    """The stored index of a place of the grid."""
    places = row_major(read_contents(run).coordinates)
    return int(np.flatnonzero(places == row * SIDE + column)[0])


# What the page is given


def test_codes_keep_large_entries_and_their_order() -> None:
    matrix = np.random.default_rng(0).standard_normal((50, 50)) ** 3
    codes, levels = quantized(matrix, 256)
    off = ~np.eye(50, dtype=bool)
    assert np.abs(levels[codes] - matrix)[off].max() < 0.02 * np.ptp(matrix)
    order = np.argsort(matrix[off])
    assert np.all(np.diff(codes[off][order].astype(int)) >= 0)


def test_blocks_keep_to_their_budget() -> None:
    blocks = Blocks(budget=1000)
    noise = np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8)
    assert blocks.add(noise) is None
    assert blocks.add(np.zeros(5000, dtype=np.uint8)) is not None
    assert 0 < blocks.left < 1000


def test_vectors_keep_the_proportions_of_their_distances() -> None:
    vectors = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32)
    blocks = Blocks(budget=10**6)
    reference = blocks.add_vectors(vectors)
    assert reference is not None
    worst = reference["scale"] / 2
    assert worst <= np.abs(vectors).max() / 254 + 1e-9


def test_mean_loss_comes_from_the_stored_sums(run: Path) -> None:
    contents = read_contents(run)
    found = views.similarities(RunFolder(run), contents)
    assert list(found) == ["contrast", "mean-loss", "correlation"]
    stored = load_file(run / "similarity" / "model.safetensors")
    import torch

    parts = [torch.from_numpy(stored[name]) for name in ("counts", "sums", "squares")]
    sums = Accumulator(*(part[0] for part in parts), *(part.sum(dim=0) for part in parts))
    assert torch.equal(found["mean-loss"].values, estimate(sums, "mean-loss").values)


def test_the_page_says_how_its_mean_loss_differs_from_the_seeds(page: Any) -> None:
    text = page.execute_script("return document.body.innerText")
    assert "mean-loss is made here of the losses that contrast took" in text


@pytest.mark.slow
def test_views_are_computed_once_and_again_when_the_similarity_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = synthetic_run(tmp_path / "run", 6)
    explorer_data(RunFolder(folder), read_contents(folder), ReportSettings())
    made: list[str] = []

    def counted(similarity: Any, settings: Any, error: Any) -> Any:
        made.append(settings.reduction)
        return reduce(similarity, settings, error)

    monkeypatch.setattr(views, "reduce", counted)
    explorer_data(RunFolder(folder), read_contents(folder), ReportSettings())
    assert made == []
    path = RunFolder(folder).similarity("correlation").model
    tensors = load_file(path)
    save_file({**tensors, "similarity": tensors["similarity"] / 2}, path)
    explorer_data(RunFolder(folder), read_contents(folder), ReportSettings())
    assert sorted(made) == ["pca", "tsne"]


def test_what_is_kept_but_broken_is_computed_again(tmp_path: Path) -> None:
    (tmp_path / "kept.safetensors").write_bytes(b"cut short")
    kept = Kept(tmp_path / "kept.safetensors")
    assert kept.get("a", {"of": 1}, lambda: np.ones(3)).sum() == 3
    again = Kept(tmp_path / "kept.safetensors")
    assert again.get("a", {"of": 1}, lambda: np.zeros(3)).sum() == 3
    assert again.get("a", {"of": 2}, lambda: np.zeros(3)).sum() == 0


def test_a_reduction_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = synthetic_run(tmp_path / "run", 5)

    def refuse(*_: Any) -> None:
        raise MaedError("embedding.reduction: umap needs umap-learn")

    monkeypatch.setattr(views, "reduce", refuse)
    facts, _ = explorer_data(RunFolder(folder), read_contents(folder), ReportSettings(reductions=["umap"]))
    assert facts is not None
    assert any("umap needs umap-learn" in note for note in facts["notes"])


def test_an_unknown_reduction_is_refused() -> None:
    with pytest.raises(MaedError, match=r"report\.reductions: unknown reduction 'tnse'"):
        ReportSettings(reductions=["tnse"])


@pytest.mark.slow
def test_pages_of_equal_runs_are_equal(run: Path) -> None:
    first = (run / "report.html").read_bytes()
    assert write_report(run, ReportSettings()).read_bytes() == first


# Looking around


def test_hovering_a_cell_shows_the_similarity_of_its_position(page: Any, run: Path) -> None:
    hover(page, "plot-similarity", 2, 5)
    i = position_at(run, 2, 5)
    contents = read_contents(run)
    assert says(page, f"Position {i}, row 2, column 5.")
    wanted = np.empty(SIDE * SIDE)
    assert contents.similarity is not None
    assert contents.coordinates is not None
    wanted[row_major(contents.coordinates)] = contents.similarity[i]
    values = drawn(page, "plot-similarity").ravel()
    there = np.isfinite(values)
    assert there.sum() == SIDE * SIDE - 1
    np.testing.assert_allclose(values[there], wanted[there], atol=0.02 * np.ptp(wanted))


def test_neighbors_are_listed_and_ringed(page: Any, run: Path) -> None:
    hover(page, "plot-similarity", 3, 3)
    i = position_at(run, 3, 3)
    contents = read_contents(run)
    assert contents.similarity is not None
    assert contents.vectors is not None
    by_similarity = np.argsort(-np.where(np.arange(64) == i, -np.inf, contents.similarity[i]), kind="stable")[:8]
    distances = np.linalg.norm(contents.vectors - contents.vectors[i], axis=1)
    by_vectors = np.argsort(np.where(np.arange(64) == i, np.inf, distances))[:8]
    listed = "return [...document.querySelectorAll(`#${arguments[0]} li`)].map(li => Number(li.dataset.position))"
    assert page.execute_script(listed, "similar") == by_similarity.tolist()
    assert set(page.execute_script(listed, "close")[:4]) == set(by_vectors[:4].tolist())
    rings = page.execute_script("return document.getElementById('plot-similarity').layout.shapes.length")
    assert rings == 9  # 8 neighbors and itself
    page.execute_script("document.querySelector('#similar li button').click()")
    settled(page)
    assert chosen(page) == by_similarity[0]


def test_estimator_encoding_and_reduction_are_switched(page: Any) -> None:
    before = drawn(page, "plot-similarity"), drawn(page, "plot-vectors")
    choose(page, "estimator", "mean-loss")
    assert not np.array_equal(drawn(page, "plot-similarity"), before[0], equal_nan=True)
    choose(page, "reduction", "tsne")
    assert not np.array_equal(drawn(page, "plot-vectors"), before[1], equal_nan=True)
    assert page.execute_script("return document.getElementById('plot-row').data[0].y.length") == 2
    choose(page, "encoding", "fourier")
    assert page.execute_script("return document.getElementById('reduction').disabled")
    assert "fourier" in page.execute_script("return document.getElementById('about-vectors').textContent")
    assert page.execute_script("return document.getElementById('plot-row').data[0].y.length") == 64
    names = page.execute_script("return [...document.getElementById('encoding').options].map(o => o.value)")
    assert names == ["maed", "correlation", "fourier", "sinusoidal", "random"]


def test_the_keyboard_moves_holds_and_lets_go(page: Any, run: Path) -> None:
    hover(page, "plot-similarity", 4, 4)
    focus(page, "plot-similarity")
    press(page, "ArrowRight", "ArrowUp")
    assert says(page, f"Position {position_at(run, 3, 5)}, row 3, column 5")
    press(page, "Enter")
    assert says(page, "held")
    hover(page, "plot-similarity", 0, 0)
    assert says(page, "row 3, column 5, held")
    press(page, "Escape")
    assert "held" not in said(page)
    hover(page, "plot-similarity", 0, 0)
    assert says(page, "row 0, column 0")
    press(page, "ArrowUp", "ArrowLeft")  # no further: it stays
    assert says(page, "row 0, column 0")


def test_every_control_is_reached_by_tab_and_has_a_name(page: Any) -> None:
    nameless = page.execute_script(
        "return [...document.querySelectorAll('#explorer :is([tabindex], select, input), #signals input')]"
        ".filter(e => !(e.getAttribute('aria-label') || e.labels?.length)).map(e => e.outerHTML.slice(0, 80))"
    )
    assert nameless == []
    assert page.execute_script("return document.getElementById('here').getAttribute('aria-live')") == "polite"
    focus(page, "estimator")
    reached = set()
    for _ in range(40):
        press_once(page, "Tab")
        reached.add(
            page.execute_script("return document.activeElement.id || document.activeElement.dataset.save || ''")
        )
    assert {"encoding", "reduction", "position", "hold", "plot-similarity", "plot-vectors", "svg", "png"} <= reached
    focus(page, "plot-similarity")
    press_once(page, "Tab")
    outline = page.execute_script("return getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


def press_once(browser: Any, key: str) -> None:
    event = {"key": key, "code": key, "windowsVirtualKeyCode": 9}
    browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyDown", **event})
    browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp", **event})


def test_the_layout_has_a_view_in_space(page: Any) -> None:
    page.execute_script("document.querySelector('[name=dimensions][value=\"3\"]').click()")
    until, there = time.monotonic() + 20, "return document.getElementById('plot-space').data?.length"
    while not page.execute_script(there) and time.monotonic() < until:
        time.sleep(0.05)
    kind, count = page.execute_script(
        "const d = document.getElementById('plot-space').data[0]; return [d.type, d.x.length]"
    )
    assert (kind, count) == ("scatter3d", SIDE * SIDE)
    assert not page.execute_script("return document.getElementById('plot-layout').checkVisibility()")


def test_the_layout_is_pointed_at_too(page: Any, run: Path) -> None:
    hover(page, "plot-similarity", 0, 0)
    there = page.execute_script(
        "const plot = document.getElementById('plot-layout'); plot.scrollIntoView({block: 'center'});"
        "const { xaxis, yaxis } = plot._fullLayout; const dots = plot.data.find(d => d.mode === 'markers');"
        "const box = plot.querySelector('.nsewdrag').getBoundingClientRect();"
        "return [xaxis.c2p(dots.x[40]) / box.width, yaxis.c2p(dots.y[40]) / box.height]"
    )
    point_at(page, "plot-layout", *there)
    settled(page)
    assert chosen(page) == 40


def test_the_whole_matrix_is_in_true_order_or_as_stored(page: Any, run: Path) -> None:
    page.execute_script("document.getElementById('plot-matrix').scrollIntoView()")
    settled(page)
    ordered = drawn(page, "plot-matrix")
    page.execute_script("document.querySelector('[name=order][value=stored]').click()")
    settled(page)
    stored = drawn(page, "plot-matrix")
    contents = read_contents(run)
    assert contents.coordinates is not None
    order = np.argsort(row_major(contents.coordinates))
    np.testing.assert_allclose(stored[np.ix_(order, order)], ordered, atol=1e-6)
    assert not np.array_equal(stored, ordered)


def test_the_visible_fraction_is_dragged_and_signals_are_stepped_through(page: Any) -> None:
    page.execute_script("document.getElementById('autoencoder').scrollIntoView()")
    settled(page)
    words = "return document.getElementById('about-signals').textContent"
    counts = []
    for fraction in range(4):
        page.execute_script(
            "const f = document.getElementById('fraction');f.value = arguments[0]; f.dispatchEvent(new Event('input'))",
            fraction,
        )
        settled(page)
        counts.append(int(page.execute_script(words).split()[0]))
    assert counts == sorted(set(counts))
    before = page.execute_script("return JSON.stringify(document.getElementById('plot-signals').data[2].z)")
    page.execute_script("document.getElementById('previous').click()")
    settled(page)
    assert page.execute_script("return document.getElementById('which').textContent") == "8 of 8"
    assert page.execute_script("return JSON.stringify(document.getElementById('plot-signals').data[2].z)") != before


def test_shares_are_written_with_the_digits_that_tell_them_apart(page: Any) -> None:
    written = page.execute_script("return [0, 0.00488, 0.00977, 0.0234, 0.0996, 0.104, 0.5, 1].map(percentText)")
    assert written == ["0 %", "0.49 %", "0.98 %", "2.3 %", "10 %", "10 %", "50 %", "100 %"]


def test_an_old_run_has_one_fraction(run: Path, tmp_path: Path) -> None:
    (tmp_path / "autoencoder").mkdir()
    stored = load_file(run / "autoencoder" / "examples.safetensors")
    old = {name: tensor[1].copy() for name, tensor in stored.items() if name in ("visible", "reconstruction")}
    save_file({"original": stored["original"], **old}, tmp_path / "autoencoder" / "examples.safetensors")
    facts, _ = explorer_data(RunFolder(tmp_path), read_contents(tmp_path), ReportSettings())
    assert facts is not None
    assert facts["signals"]["fractions"] == [pytest.approx(old["visible"].mean())]


# Tables


def test_tables_sort_by_number_whatever_the_unit(page: Any) -> None:
    column = "return [...document.querySelectorAll('#time tbody tr')].map(row => row.cells[0].textContent)"
    button = "document.querySelectorAll('#time thead button')[1].click()"
    page.execute_script(button)
    assert page.execute_script(column) == ["similarity", "pretrain", "baseline"]  # 1 h, 1 min 32 s, 5.5 s
    assert page.execute_script("return document.querySelectorAll('#time thead th')[1].ariaSort") == "descending"
    page.execute_script(button)
    assert page.execute_script(column) == ["baseline", "pretrain", "similarity"]
    page.execute_script("document.querySelectorAll('#time thead button')[0].click()")
    assert page.execute_script(column) == ["baseline", "pretrain", "similarity"]
    assert page.execute_script("return document.querySelectorAll('#time thead th')[1].ariaSort") is None


def test_missing_cells_are_last_either_way(page: Any) -> None:
    column = "return [...document.querySelectorAll('#geometry tbody tr')].map(row => row.cells[1].textContent)"
    for _ in range(2):
        page.execute_script("document.querySelectorAll('#geometry thead button')[1].click()")
        cells = page.execute_script(column)
        assert cells == sorted(cells, key=lambda cell: cell == "–")


# Screens, colors, safety


@pytest.mark.parametrize("width", [320, 768])
def test_a_narrow_screen_does_not_scroll_sideways(page: Any, width: int) -> None:
    resize(page, width)
    page.refresh()
    settled(page)
    settled(page)
    assert fits(page, width)
    page.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    settled(page)
    assert fits(page, width)


def test_a_tap_chooses_and_holds(page: Any) -> None:
    resize(page, 390)
    time.sleep(0.5)
    page.execute_script("document.getElementById('plot-similarity').scrollIntoView({block: 'center'})")
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):  # what browsers make of a tap
        point_at(page, "plot-similarity", 6.5 / SIDE, 1.5 / SIDE, kind)
    settled(page)
    assert says(page, "row 1, column 6, held")


def test_plots_follow_the_color_scheme_at_once(page: Any) -> None:
    ink = "return document.getElementById('plot-row')._fullLayout.font.color"
    light = page.execute_script(ink)
    scheme(page, "dark")
    settled(page)
    assert page.execute_script(ink) != light
    assert page.execute_script("return getComputedStyle(document.body).backgroundColor") == "rgb(21, 23, 26)"
    scheme(page, "light")
    settled(page)
    assert page.execute_script(ink) == light


def test_nothing_is_asked_of_any_network(browser: Any, run: Path) -> None:
    browser.execute_cdp_cmd("Network.enable", {})
    browser.get_log("performance")
    opened(browser, run / "report.html")
    browser.execute_script("window.scrollTo(0, document.body.scrollHeight)")
    time.sleep(1)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith("file:") for url in asked)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_policy_runs_no_other_script(page: Any) -> None:
    page.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.other = 1'; document.body.append(s)"
    )
    assert page.execute_script("return window.other") is None
    refused = [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"]
    assert all("Content Security Policy" in entry["message"] for entry in refused)


def test_without_javascript_the_tables_are_there(browser: Any, run: Path) -> None:
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get((run / "report.html").as_uri())
        text = browser.find_element("tag name", "main").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert "needs JavaScript" in text
    assert "90.0 %" in text


def test_names_and_texts_of_data_show_as_text(browser: Any, tmp_path: Path) -> None:
    """A source, a class, an encoding, a note, another run's folder and a review, each with a script in it."""
    folder = synthetic_run(tmp_path / "run", 6)
    results = Results.read(folder / "results.json")
    results.source, results.notes = HOSTILE, [f"class {HOSTILE}"]
    results.scores = [Score(HOSTILE, seed, 0.5 + seed / 10, seconds=1.0) for seed in range(2)]
    results.summary = [Summary(HOSTILE, 0.55, 0.5, 0.6, seeds=2)]
    results.write(folder / "results.json")
    review = np.frombuffer(f"{HOSTILE} a fine film, says everyone.".encode(), dtype=np.uint8).astype(np.int64) + 6
    tokens = np.zeros((2, 36), dtype=np.int64)
    tokens[:, np.argsort(row_major(read_contents(folder).coordinates))] = review[:36]
    examples = {"original": tokens, "visible": np.ones((2, 36), dtype=bool), "reconstruction": tokens.copy()}
    save_file(examples, folder / "autoencoder" / "examples.safetensors")
    trained = folder / "models" / "x-0"
    trained.mkdir(parents=True)
    (trained / "config.json").write_text(json.dumps({"encoding": HOSTILE, "perceiver": {"fine_tune": True}}))
    table = np.random.default_rng(0).standard_normal((36, 64)).astype(np.float32)
    save_file({"perceiver.input_preprocessor.positions.table": table}, trained / "model.safetensors")
    history = [{"step": 1, "validation_accuracy": 0.4}, {"step": 2, "validation_accuracy": 0.5}]
    (trained / "metrics.json").write_text(
        json.dumps({"positions": HOSTILE, "seed": 0, "test_accuracy": 0.5, "history": history})
    )
    opened(browser, write_report(folder, ReportSettings(), [folder]))
    for place in range(0, 12000, 700):  # everything is drawn when it is seen
        browser.execute_script("window.scrollTo(0, arguments[0])", place)
        time.sleep(0.15)
    choose(browser, "encoding", f"{HOSTILE}, trained")
    assert browser.execute_script("return window.hacked") is None
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    text = browser.execute_script("return document.body.innerText")
    assert "<script>window.hacked=1</script>" in browser.execute_script(
        "return document.querySelector('h1').textContent"
    )
    assert f"class {HOSTILE}" in text
    assert HOSTILE[:20] in browser.execute_script("return document.getElementById('texts').textContent")
    ticks = browser.execute_script("return [...document.querySelectorAll('svg .ytick text')].map(t => t.textContent)")
    assert any("<script>" in tick for tick in ticks)
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.parametrize("known", [True, False])
def test_positions_are_called_by_their_names(browser: Any, tmp_path: Path, known: bool) -> None:
    folder, n = line_run(tmp_path / "run", 40, known=known), 40
    names = [f"E{i}" for i in range(n)]
    names[7] = HOSTILE
    config = read_json(folder / "embedding" / "config.json")
    (folder / "embedding" / "config.json").write_text(json.dumps({**config, "names": names}))
    opened(browser, write_report(folder, ReportSettings(reductions=["pca"])))
    settled(browser)
    browser.execute_script(
        "const c = document.getElementById('called'); c.value = arguments[0];"
        "c.dispatchEvent(new Event('input', {bubbles: true}))",
        "E8",
    )
    settled(browser)
    assert chosen(browser) == 8
    assert says(browser, "E8")
    listed = browser.execute_script(
        "return [...document.querySelectorAll('#close li span:first-child')].map(s => s.textContent)"
    )
    assert {HOSTILE, "E9"} <= {*listed}
    assert browser.execute_script("return document.getElementById('position').getAttribute('aria-valuetext')") == "E8"
    for plot in ("plot-layout", "plot-vectors"):  # beside the mouse, as text
        browser.execute_script("document.getElementById(arguments[0]).scrollIntoView({block: 'center'})", plot)
        told = browser.execute_async_script(
            "const [plot, done] = [document.getElementById(arguments[0]), arguments[1]];"
            "Plotly.Fx.hover(plot, [{curveNumber: 0, pointNumber: 7}]);"
            "const told = () => [...plot.querySelectorAll('.hoverlayer text')].map(t => t.textContent).join('');"
            "setTimeout(() => done(told()), 500)",
            plot,
        )
        assert "<script>" in told
    assert browser.execute_script("return window.hacked") is None
    assert browser.execute_script("return document.querySelectorAll('img[src=x]').length") == 0
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


# Other shapes of a run


def test_many_positions_have_maps_of_vectors_and_say_so(browser: Any, tmp_path: Path) -> None:
    side = 70  # more than 4,096 positions
    folder = synthetic_run(tmp_path / "run", side, whole=False)
    opened(browser, write_report(folder, ReportSettings()))
    assert "4,900 positions are more than 4,096: maps are derived from the vectors" in browser.execute_script(
        "return document.getElementById('explore').textContent"
    )
    assert not browser.execute_script("return document.getElementById('panel-similarity').checkVisibility()")
    hover(browser, "plot-vectors", 10, 60, side)
    assert says(browser, "row 10, column 60")
    values = drawn(browser, "plot-vectors")
    nearest = np.unravel_index(np.nanargmax(values), values.shape)
    assert np.abs(np.array(nearest) - [10, 60]).max() == 1


def line_run(folder: Path, n: int, *, known: bool) -> Path:
    """A run of `n` positions on a line, whose similarity falls with distance; without coordinates unless `known`."""
    places = np.arange(n, dtype=np.float32)[:, None]
    waves = np.concatenate([np.cos(np.pi * k * (places + 0.5) / n) / k for k in range(1, 9)], axis=1)
    near = np.exp(-np.abs(places - places.T) / 10).astype(np.float32)
    for part in ("embedding", "similarity"):
        (folder / part).mkdir(parents=True)
    coordinates = {"coordinates": places} if known else {}
    save_file({"vectors": waves.astype(np.float32), **coordinates}, folder / "embedding" / "model.safetensors")
    geometry = {"kind": "line", "shape": [n]} if known else None
    config = {"schema": 1, "n": n, "d": 8, "source": "a line", "geometry": geometry, "provenance": {}}
    (folder / "embedding" / "config.json").write_text(json.dumps(config))
    save_file({"similarity": near * (1 - np.eye(n, dtype=np.float32))}, folder / "similarity" / "model.safetensors")
    return folder


def test_on_a_long_line_a_resting_mouse_chooses_once(browser: Any, tmp_path: Path) -> None:
    """The own entry has no value: were it not drawn, its neighbor would be pointed at, then itself again, forever."""
    page = write_report(line_run(tmp_path / "run", 600, known=True), ReportSettings(reductions=["pca"]))
    opened(browser, page)
    browser.execute_script("document.getElementById('plot-similarity').scrollIntoView({block: 'center'})")
    settled(browser)
    browser.execute_script("performance.clearMeasures()")
    point_at(browser, "plot-similarity", 0.31, 0.5)
    time.sleep(1.5)
    shown = browser.execute_script("return performance.getEntriesByName('explorer-shown').length")
    assert shown == 1
    first = chosen(browser)
    focus(browser, "plot-similarity")
    press(browser, "ArrowRight", "ArrowRight", "ArrowLeft")
    assert says(browser, f"Position {first + 1},")
    press(browser, "End")
    assert says(browser, "Position 599, place 599")
    window = browser.execute_script("return document.getElementById('plot-similarity').layout.xaxis.range")
    assert window == [344, 599]


def test_where_nothing_is_known_maps_are_drawn_where_the_embedding_lays_positions_out(
    browser: Any, tmp_path: Path
) -> None:
    page = write_report(line_run(tmp_path / "run", 60, known=False), ReportSettings(reductions=["pca"]))
    opened(browser, page)
    settled(browser)
    about = browser.execute_script("return document.getElementById('about-similarity').textContent")
    assert "where the embedding lays positions out, as their true places are not known" in about
    assert "✓" not in browser.execute_script("return document.getElementById('panel-neighbors').textContent")
    focus(browser, "plot-similarity")
    before = chosen(browser)
    press(browser, "ArrowRight")
    assert chosen(browser) != before


@pytest.mark.slow
def test_other_runs_are_put_beside(browser: Any, run: Path, tmp_path: Path) -> None:
    other = synthetic_run(tmp_path / "other", SIDE)
    results = read_json(other / "results.json")
    results["geometry"]["maed"]["knn_recall"] = 0.123
    (other / "results.json").write_text(json.dumps(results))
    mine = synthetic_run(tmp_path / "mine", SIDE)
    opened(browser, write_report(mine, ReportSettings(), [other, run]))
    text = browser.execute_script("return document.getElementById('compared').textContent")
    assert "12.3 %" in text
    runs = browser.execute_script(
        "return [...document.querySelectorAll('#compared tbody th')].map(cell => cell.textContent)"
    )
    assert runs == ["mine", "mine", "other", "other", "run", "run"]


def test_a_run_to_compare_that_is_none_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(MaedError, match=r"compare.*is no folder"):
        write_report(run, ReportSettings(), [tmp_path / "nothing"])


@pytest.mark.slow
def test_the_command_line_puts_runs_beside(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine, other = (synthetic_run(tmp_path / name, 5) for name in ("mine", "other"))
    assert main(["report", str(mine), "--compare", str(other), str(run), "--report.reductions", "[pca]"]) == 0
    assert f"wrote {mine / 'report.html'}" in capsys.readouterr().out
    assert 'id="compared"' in (mine / "report.html").read_text()
    assert main(["report", str(mine), "--compare", "nothing"]) == 2
    assert "nothing is no folder" in capsys.readouterr().err
