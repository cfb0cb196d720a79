"""What tests share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from functools import cache, wraps
from pathlib import Path
from typing import Any

import pytest

import maed
from maed import cli

# Before torch is imported: ranks are forked from a server that has it, whichever test has started that.
os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")

# A shell ignores SIGINT in what it runs in the background, and all that is started there: but tests press Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--installed",
        action="store_true",
        help="test an installed wheel instead of this checkout, and run the commands of the pages too",
    )


def pytest_configure(config: pytest.Config) -> None:
    source = Path(__file__).parents[1] / "src"
    if config.getoption("--installed") and Path(maed.__file__).resolve().is_relative_to(source.resolve()):
        raise pytest.UsageError(f"--installed: maed is imported from {source}, not from a wheel (see `make installed`)")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they take; keep a module's shared work in one worker; begin with what is long.

    Without `--installed`, tests marked so are left out.

    Tests that share a fixture of their module are a group of pytest-xdist, so that one worker alone makes it. With
    `--no-loadscope-reorder`, tests are handed out in this order: groups, slow tests, and the many quick ones, with
    which all workers come to their end together.
    """
    if not config.getoption("--installed"):
        items[:] = [item for item in items if item.get_closest_marker("installed") is None]
    for item in items:
        if not isinstance(item, pytest.Function):
            continue
        for fixture, mark in (("browser", "browser"), ("data_folder", "extern"), ("original_file", "extern")):
            if fixture in item.fixturenames:
                item.add_marker(mark)
        shared = any(found[-1].scope == "module" for found in item._fixtureinfo.name2fixturedefs.values())
        if shared and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))

    def group(item: pytest.Item) -> str:
        found = item.get_closest_marker("xdist_group")
        return "" if found is None else found.args[0]

    def place(item: pytest.Item) -> int:
        marks = {mark.name for mark in item.iter_markers()}
        if "xdist_group" in marks:
            return 0 if "browser" in marks else 1
        return 2 if "slow" in marks else 3

    first: dict[str, int] = {}
    for item in items:
        first[group(item)] = min(first.get(group(item), 3), place(item))
    items.sort(key=lambda item: first[group(item)] if group(item) else place(item))


@pytest.fixture(autouse=True, scope="session")
def parsers_once() -> Iterator[None]:
    """The parser of a verb is built once in a process: that takes longer than most of what `main` is called for."""
    build = cli.build_parser
    built = cache(build)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cli, "build_parser", wraps(build)(lambda asked=(): built(tuple(asked))))
        yield


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the real data sets `cifar10` and `imdb`; the test is skipped where it is absent."""
    folder = Path(os.environ.get("MAED_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data").resolve()
    missing = [name for name in ("cifar10", "imdb") if not (folder / name).is_dir()]
    if missing:
        pytest.skip(f"real data not found ({', '.join(missing)}): set MAED_DATA to a folder that holds them")
    return folder


@pytest.fixture(scope="session")
def original_file() -> Path:
    """The embedding that the original published; the test is skipped where it is absent."""
    data = Path(os.environ.get("MAED_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data").resolve()
    file = data.parent / "reference" / "pos_embeddings_IMDB_tSNE_2048x64.pth"
    if not file.is_file():
        pytest.skip(f"the original's published embedding is not at {file}")
    return file


@pytest.fixture
def short_learning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the steps and of the draws that `maed.learn` chooses, and a step of each probe for each position.

    What is chosen is the same, how long it takes is not: examples of pages learn with defaults, several times.
    """
    from maed.evaluation import probe
    from maed.stages import choices

    less = {"_PLATEAU": 160, "_STEPS": 20, "_STEPS_TOKENS": 10, "_PAIRS": 1 << 20, "_PROBED": 1}
    for name, value in less.items():
        monkeypatch.setattr(choices, name, value)
    monkeypatch.setattr(probe, "_HELD_OUT", 256)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium with a profile of its own; the test is skipped where it, or selenium, is absent."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install maed[dev])")
    from explorer import chromium  # here, for it imports the whole of maed

    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started
