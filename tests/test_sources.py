"""Sources by name: what is listed, what a name, prefix or path opens, and a source that another package adds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from maed.data import load
from maed.data.source import SourceType, listed
from maed.errors import MaedError
from maed.registry import SOURCES
from maed.settings import DataSettings
from plug_ins import install, printed


def test_every_file_is_a_source_and_is_listed() -> None:
    assert {"photos", "field", "npy", "folder"} <= set(SOURCES.built_in)
    for name in SOURCES.built_in:
        source = SOURCES.get(name)
        assert issubclass(source, SourceType)
        assert source.example in listed()


@pytest.mark.slow
def test_a_name_wins_over_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    assert load("digits").positions == 64
    with pytest.raises(MaedError, match=r"digits: no train-"):
        load("./digits")


def test_a_folder_with_the_suffix_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.npy").mkdir()
    with pytest.raises(MaedError, match=r"no train-\*\.parquet"):
        load(str(tmp_path / "x.npy"))


@pytest.mark.parametrize("text", ["npy", "folder", "hub", "photos:3", "digits "])
def test_names_that_are_no_source_by_themselves(text: str) -> None:
    with pytest.raises(MaedError, match="unknown source") as error:
        load(text)
    assert error.value.argument == "source"


def test_suffixes_in_any_case(tmp_path: Path) -> None:
    with (tmp_path / "X.NPY").open("wb") as file:
        np.save(file, np.random.default_rng(0).normal(size=(20, 5)))
    assert load(str(tmp_path / "X.NPY"), DataSettings()).positions == 5


PLUG_IN = """
import numpy as np
from maed.data.source import FileType, Source, SourceType, Stored

class Moons(SourceType):
    example = "moons[:N]"

    @classmethod
    def takes(cls, text):
        return text.partition(":")[0] == "moons"

    @classmethod
    def open(cls, text, settings):
        n = int(text.partition(":")[2] or 7)
        values = np.random.default_rng(settings.seed).normal(size=(50, n, 1)).astype(np.float32)
        return Source("real", {"train": Stored.of(values)})

class Lines(FileType):
    example = "a .lines file"

    @classmethod
    def read(cls, path, settings):
        return Source("real", {"train": Stored.of(np.loadtxt(path, dtype=np.float32)[..., None])})
"""


@pytest.mark.slow
def test_a_source_of_another_package(tmp_path: Path) -> None:
    """It opens by its name and by its suffix, is listed and proposed, and a broken one is in nobody else's way."""
    sources = {
        "moons": "Moons",
        "lines": "Lines",
        "broken": "nowhere_to_be_found:Broken",
        "digits": "Moons",  # a built-in keeps its name
    }
    installed = install(tmp_path / "site", PLUG_IN, {"sources": sources})
    np.savetxt(tmp_path / "x.lines", np.random.default_rng(0).normal(size=(20, 4)))
    program = f"""
from maed.data import load
from maed.errors import MaedError
for source in ("moons", "moons:9", {str(tmp_path / "x.lines")!r}, "digits", "broken", "moon"):
    try:
        print(load(source).positions)
    except MaedError as error:
        print(error)
"""
    *opened, broken, unknown = printed(program, installed).splitlines()
    assert opened == ["7", "9", "4", "64"]
    assert "'broken' (nowhere_to_be_found:Broken) cannot be imported" in broken
    assert "did you mean 'moons'" in unknown
    assert "broken, lines, moons" in unknown


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("maed.data.signals", "pyarrow PIL sklearn datasets pandas"),
        ("maed.data.loading", "pyarrow PIL sklearn datasets pandas"),
        ("maed.data.source", "torch scipy pyarrow PIL sklearn datasets pandas"),
    ],
)
def test_a_module_does_not_wake_what_it_does_not_use(module: str, heavy: str) -> None:
    woken = printed(f"import sys, {module}; print(*(name for name in {heavy.split()!r} if name in sys.modules))")
    assert woken.split() == []


@pytest.mark.slow
def test_names_of_the_room_come_lazily() -> None:
    program = "import sys, maed.data; print('numpy' in sys.modules); from maed.data import *; print(load.__name__)"
    assert printed(program).split() == ["False", "load"]
