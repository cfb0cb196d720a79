"""What the wheel and the source distribution hold, and that the same tree makes the same bytes."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import maed

ROOT = Path(__file__).parents[1]


def build(folder: Path) -> dict[str, Path]:
    """Build both with the backend of this environment: a build in one of its own would need an index."""
    code = (
        "import sys; from hatchling.build import build_sdist, build_wheel; "
        "build_wheel(sys.argv[1]); build_sdist(sys.argv[1])"
    )
    folder.mkdir()
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}
    subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=ROOT, env=environment, check=True, capture_output=True
    )
    return {path.suffix: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("hatchling")
    return build(tmp_path_factory.mktemp("built") / "one")


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_licenses(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built[".whl"]) as wheel:
        names = set(wheel.namelist())
        metadata = wheel.read(f"maed-{maed.__version__}.dist-info/METADATA").decode()
    package = ROOT / "src" / "maed"
    files = {path.relative_to(package.parent) for path in package.rglob("*") if path.is_file()}
    wanted = {str(path) for path in files if "__pycache__" not in path.parts}
    assert {"maed/py.typed", "maed/presets/photos.yaml", "maed/report/page.html.j2"} < wanted
    assert "maed/report/explorer/explorer.js" in wanted
    assert {name for name in names if name.startswith("maed/")} == wanted
    licenses = {Path(name).name for name in names if "/licenses/" in name}
    assert licenses == {"LICENSE", *(path.name for path in (ROOT / "licenses").iterdir())}
    assert f"Version: {maed.__version__}" in metadata
    assert "Provides-Extra: all" in metadata


@pytest.mark.slow
def test_the_source_distribution_holds_what_tests_and_docs_need_and_no_caches(built: dict[str, Path]) -> None:
    with tarfile.open(built[".gz"]) as archive:
        names = [name.partition("/")[2] for name in archive.getnames()]
    for needed in ("tests/conftest.py", "docs/api.md", "examples/vit.py", "Makefile", "constraints.txt", "LICENSE"):
        assert needed in names
    assert not [name for name in names if re.search(r"__pycache__|\.pyc$|_cache/|(^|/)runs/|\.venv", name)]


@pytest.mark.slow
def test_the_same_tree_makes_the_same_bytes(built: dict[str, Path], tmp_path: Path) -> None:
    again = build(tmp_path / "two")
    for suffix, path in built.items():
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(again[suffix].read_bytes()).digest()
