"""Writing files: whole or not at all, and readable by whom the user lets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maed.files import read_json, write_json


@pytest.mark.skipif(os.name != "posix", reason="permissions as POSIX has them")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_files_have_the_permissions_that_the_user_asks_for(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        write_json(tmp_path / "x.json", {"a": 1})
    finally:
        os.umask(before)

    assert (tmp_path / "x.json").stat().st_mode & 0o777 == 0o666 & ~mask
    assert read_json(tmp_path / "x.json") == {"a": 1}
