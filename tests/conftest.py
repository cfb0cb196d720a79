"""What tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder with the real data sets `cifar10` and `imdb`; the test is skipped where it is absent."""
    folder = Path(os.environ.get("MAED_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data").resolve()
    missing = [name for name in ("cifar10", "imdb") if not (folder / name).is_dir()]
    if missing:
        pytest.skip(f"real data not found ({', '.join(missing)}): set MAED_DATA to a folder that holds them")
    return folder


@pytest.fixture(scope="session")
def seed_file() -> Path:
    """The embedding that the seed project published; the test is skipped where it is absent."""
    data = Path(os.environ.get("MAED_DATA") or Path(__file__).parents[1] / ".." / "shared" / "data").resolve()
    file = data.parent / "reference" / "pos_embeddings_IMDB_tSNE_2048x64.pth"
    if not file.is_file():
        pytest.skip(f"the seed's published embedding is not at {file}")
    return file
