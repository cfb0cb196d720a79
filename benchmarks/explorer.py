"""How long a report takes to open in headless Chromium, how long a hover takes to be shown, and how large the file is.

    python benchmarks/explorer.py runs/cifar10/report.html     # of a report that is there
    python benchmarks/explorer.py --side 32                    # of a made-up run of 32 x 32 positions, as CIFAR-10 has
    python benchmarks/explorer.py runs/cifar10/report.html --picture explorer.png [--width 390] [--dark] [--space]

Opening ends when the explorer has drawn its first position; a hover, when every linked view has been updated. Needs
chromium, chromedriver and selenium.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from maed.data.geometry import Geometry, grid
from maed.files import write_json
from maed.records import Results
from maed.report import write_report
from maed.run_folder import RunFolder, StageFolder
from maed.settings import EmbeddingSettings, ReportSettings

SWITCHES = (
    "headless no-sandbox disable-quic disable-dev-shm-usage no-first-run disable-background-networking "
    "disable-component-update disable-sync hide-scrollbars use-angle=swiftshader enable-unsafe-swiftshader"
)
"""A browser without a screen and without network of its own; WebGL is drawn by the processor."""


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """Headless Chromium with a profile of its own, and a window of 1280 x 900."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for switch in SWITCHES.split():
        options.add_argument(f"--{switch}")
    options.add_argument(f"--user-data-dir={profile}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        resize(browser, 1280)
        yield browser
    finally:
        browser.quit()


def resize(browser: Any, width: int, height: int = 900) -> None:
    """Give the window another size, in CSS pixels."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def fits(browser: Any, width: int, patience: float = 30) -> bool:
    """Whether the page can be read without scrolling sideways, once its plots are drawn for the window's new size."""
    until = time.monotonic() + patience
    while browser.execute_script("return document.documentElement.scrollWidth") > width:
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def opened(browser: Any, page: Path, patience: float = 60) -> float:
    """Open a report, wait until its explorer stands, and return the seconds that took from the start of the loading."""
    browser.get(page.resolve().as_uri())
    until = time.monotonic() + patience
    while time.monotonic() < until:
        found = browser.execute_script("return performance.getEntriesByName('explorer-ready').map(e => e.startTime)")
        if found:
            return float(found[0]) / 1000
        time.sleep(0.05)
    trouble = browser.execute_script("return document.getElementById('trouble')?.textContent")
    raise TimeoutError(f"{page}: the explorer did not start within {patience:.0f} s ({trouble})")


def point_at(browser: Any, plot: str, across: float, down: float, kind: str = "mouseMoved") -> None:
    """Move the mouse to a place of a plot, as shares of its width and height; it must be in the window."""
    box = browser.execute_script(
        "const r = document.querySelector(`#${arguments[0]} .nsewdrag`).getBoundingClientRect();"
        "return [r.left, r.top, r.width, r.height]",
        plot,
    )
    place = {"x": box[0] + across * box[2], "y": box[1] + down * box[3]}
    button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
    browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": kind, **place, **button})


def hovers(browser: Any, count: int = 30) -> list[float]:
    """Move over the first map, and return the milliseconds from each event until all views were updated."""
    plot = browser.execute_script(
        "const maps = ['plot-similarity', 'plot-vectors'].map((id) => document.getElementById(id));"
        "const map = maps.find((node) => node.checkVisibility());"
        "map.scrollIntoView({block: 'center'}); return map.id"
    )
    browser.execute_script("performance.clearMeasures()")
    for step in range(count):
        share = 0.08 + 0.84 * ((step * 0.7548776662) % 1)
        point_at(browser, plot, share, 0.08 + 0.84 * ((step * 0.5698402910) % 1))
        time.sleep(0.25)
    return list(
        browser.execute_script("return performance.getEntriesByName('explorer-shown').map(entry => entry.duration)")
    )


def measured(browser: Any, page: Path) -> dict[str, float]:
    """Seconds of the first opening, milliseconds of a hover (median and 95th percentile), megabytes of the file."""
    opening = opened(browser, page)
    times = sorted(hovers(browser))
    return {
        "opening_s": round(opening, 2),
        "hovers": len(times),
        "hover_ms": round(statistics.median(times), 1),
        "hover_95_ms": round(times[int(0.95 * (len(times) - 1))], 1),
        "size_mb": round(page.stat().st_size / 1e6, 2),
    }


def picture(
    browser: Any, page: Path, target: Path, *, width: int = 1280, height: int = 1000, dark: bool, space: bool
) -> None:
    """Write a screenshot of the explorer as a PNG; `space` turns its layout to 3-D."""
    resize(browser, width, height)
    features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    opened(browser, page)
    if space:
        browser.execute_script("document.querySelector('[name=dimensions][value=\"3\"]').click()")
    browser.execute_script("document.getElementById('explorer').scrollIntoView(); window.scrollBy(0, -24)")
    time.sleep(3)  # what is drawn when it is seen
    target.parent.mkdir(parents=True, exist_ok=True)
    browser.save_screenshot(str(target))


def synthetic_run(folder: Path, side: int, *, whole: bool = True) -> Path:
    """A made-up run folder of `side * side` positions of an image, stored in shuffled order, as the stages write it.

    Args:
        folder: where to write.
        side: of the grid.
        whole: with sums of draws and similarities, N^2 numbers; otherwise an embedding and reconstructions alone.
    """
    generator = np.random.default_rng(0)
    n = side * side
    truth = grid(side, side).permuted(generator.permutation(n))
    vectors = _waves(truth, side)
    similarity = {"estimator": "contrast", "draws": 4096}
    made_with = {"source": "synthetic", "similarity": similarity, "embedding": asdict(EmbeddingSettings())}
    run = RunFolder(folder)
    _embedding(run.embedding(), vectors, truth, {"estimator": "contrast", "reduction": "heat"}, made_with)
    if whole:
        _similarities(run, truth, generator, made_with)
        baseline = {"source": "synthetic", "baseline": "correlation", "embedding": asdict(EmbeddingSettings())}
        provenance = {"estimator": "correlation", "reduction": "heat"}
        _embedding(run.embedding("correlation"), vectors[:, ::-1].copy(), truth, provenance, baseline)
    _examples(run.autoencoder, truth, side, generator)
    geometry = {"maed": {"knn_recall": 0.9, "spearman": 0.9}, "correlation": {"knn_recall": 0.8, "spearman": 0.7}}
    seconds = {"pretrain": 92.4, "similarity": 3601.0, "baseline": 5.5}
    results = Results(command="maed run synthetic", source="synthetic", positions=n, neighbors=8)
    replace(results, geometry=geometry, seconds=seconds).write(run.results)
    return folder


def _waves(truth: Geometry, side: int, channels: int = 64) -> np.ndarray:
    """Cosines of the coordinates, low frequencies strongest, `(N, channels)` float32 of unit mean square."""
    modes = sorted(((a, b) for a in range(12) for b in range(12) if a + b), key=sum)[:channels]
    row, column = (truth.coordinates.T + 0.5) * np.pi / side
    waves = np.stack([np.cos(a * row) * np.cos(b * column) / np.hypot(a, b) ** 1.5 for a, b in modes], axis=1)
    waves -= waves.mean(axis=0)
    return (waves / np.sqrt(np.mean(waves**2))).astype(np.float32)


def _embedding(
    stage: StageFolder, vectors: np.ndarray, truth: Geometry, provenance: dict[str, Any], made_with: dict[str, Any]
) -> None:
    config = {
        "schema": 1,
        "n": vectors.shape[0],
        "d": vectors.shape[1],
        "source": "synthetic",
        "geometry": {"kind": truth.kind, "shape": list(truth.shape)},
        "provenance": provenance,
        "made_with": made_with,
    }
    write_json(stage.config, config)
    save_file({"vectors": vectors, "coordinates": truth.coordinates}, stage.model)


def _similarities(run: RunFolder, truth: Geometry, generator: np.random.Generator, made_with: dict[str, Any]) -> None:
    """Losses that fall where a position near by is seen, as sums over draws; and a correlation."""
    n = len(truth.coordinates)
    near = np.exp(-truth.distances() / 2)
    counts = np.full((2, n, n), 200.0)
    means = np.stack([1 - 0.5 * near, np.ones((n, n))]) + 0.01 * generator.standard_normal((2, n, n))
    deviation = 0.2
    stage, baseline = run.similarity(), run.similarity("correlation")
    contrast = (means[1] - means[0]) / deviation
    np.fill_diagonal(contrast, 0)
    tensors = {
        "similarity": contrast.astype(np.float32),
        "standard_error": np.full((n, n), 0.05, dtype=np.float32),
        "counts": counts,
        "sums": means * counts,
        "squares": (means**2 + deviation**2) * counts,
    }
    made = {key: made_with[key] for key in ("source", "similarity")}
    write_json(stage.config, {"schema": 1, "n": n, "made_with": made})
    save_file(tensors, stage.model)
    correlation = (near * (1 - np.eye(n))).astype(np.float32)
    error = np.full((n, n), 0.01, dtype=np.float32)
    tensors = {"similarity": correlation, "standard_error": error}
    write_json(baseline.config, {"schema": 1, "made_with": {"source": "synthetic", "baseline": "correlation"}})
    save_file(tensors, baseline.model)


def _examples(stage: StageFolder, truth: Geometry, side: int, generator: np.random.Generator) -> None:
    """Color gradients at four visible fractions; what is visible at one is visible at the next."""
    n, count = side * side, 8 if side < 100 else 2
    rows, columns = truth.coordinates.T / side
    images = np.stack([np.stack([rows, columns, (rows * s) % 1], axis=1) for s in range(1, count + 1)])
    fractions = np.array([0.02, 0.1, 0.25, 0.5], dtype=np.float32)
    drawn = generator.random((count, n))
    visible = np.stack([drawn < fraction for fraction in fractions])
    noise = generator.standard_normal((len(fractions), *images.shape))
    made = images[None] + noise * (0.3 - 0.4 * fractions[:, None, None, None])
    tensors = {
        "original": images.astype(np.float32),
        "fractions": fractions,
        "visible": visible,
        "reconstruction": made.astype(np.float32),
    }
    history = [
        {"step": s, "train_loss": 1 / (1 + s / 300), "validation_loss": 1.1 / (1 + s / 300) if s % 250 == 0 else None}
        for s in range(0, 3000, 50)
    ]
    write_json(stage.metrics, {"history": history, "visible": round(0.1 * n)})
    save_file(tensors, stage.examples)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", nargs="?", type=Path, help="a report.html")
    parser.add_argument("--side", type=int, help="instead: a made-up run of SIDE x SIDE positions")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write a screenshot of the explorer, and no times")
    parser.add_argument("--width", type=int, default=1280, help="of the screenshot's window")
    parser.add_argument("--height", type=int, default=1000, help="of the screenshot's window")
    parser.add_argument("--dark", action="store_true", help="the screenshot in dark colors")
    parser.add_argument("--space", action="store_true", help="the screenshot with the layout in 3-D")
    given = parser.parse_args()
    if (given.report is None) == (given.side is None):
        sys.exit("explorer: give a report.html or --side")
    with tempfile.TemporaryDirectory() as temporary:
        page = given.report
        if page is None:
            run = synthetic_run(Path(temporary) / "run", given.side, whole=given.side <= 64)
            page = write_report(run, ReportSettings())
        if given.picture is not None:
            with chromium(Path(temporary) / "profile") as browser:
                size = {"width": given.width, "height": given.height}
                picture(browser, page, given.picture, **size, dark=given.dark, space=given.space)
            return
        for repeat in range(3):  # a browser that has seen plotly.js has it compiled: each time another one
            with chromium(Path(temporary) / f"profile-{repeat}") as browser:
                print(json.dumps(measured(browser, page)), flush=True)


if __name__ == "__main__":
    main()
