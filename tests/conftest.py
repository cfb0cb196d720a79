"""What tests share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

# A shell ignores SIGINT in what it runs in the background, and all that is started there: but tests press Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Headless Chromium with a profile of its own; the test is skipped where it, or selenium, is absent."""
    if not shutil.which("chromium") or not shutil.which("chromedriver"):
        pytest.skip("needs chromium and chromedriver (apt-get install chromium chromium-driver)")
    pytest.importorskip("selenium.webdriver", reason="needs selenium (pip install maed[dev])")
    from explorer import chromium  # here, for it imports the whole of maed

    with chromium(tmp_path_factory.mktemp("profile")) as started:
        yield started
