"""Files of strangers: nothing in them is ever run, and what cannot be used is named in one line.

Every test that takes `trap` fails, at its end, if anything in a planted pickle was run.
"""

import codecs
import json
import os
import pickle
import shlex
import shutil
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import torch
import yaml
from huggingface_hub import hf_hub_download
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from maed import PositionEmbedding
from maed.autoencoder import load_autoencoder
from maed.cli import main
from maed.cli.inspection import describe
from maed.data import load
from maed.data.geometry import Geometry, grid, line
from maed.data.geometry_spec import parse_geometry
from maed.embedding import open_embedding, storage
from maed.embedding.legacy import read_legacy
from maed.engine.checkpoints import read_checkpoint
from maed.errors import MaedError
from maed.experiments.comparison import Comparison
from maed.files import read_json
from maed.models.architectures.maed import Maed
from maed.settings import (
    AutoencoderSettings,
    DataSettings,
    EmbeddingSettings,
    PerceiverSettings,
    Settings,
    SimilaritySettings,
    TrainerSettings,
    TrainSettings,
)
from maed.similarity import load_similarity
from maed.stages import Context, Embed, Pretrain, Similarity, execute
from stages import context

numpy_core = np.zeros(0).__reduce__()[0].__module__
"""`numpy._core.multiarray`, or `numpy.core.multiarray` before numpy 2."""


# --- the trap -----------------------------------------------------------------------------------------------------


class Call:
    """Whoever unpickles it calls a function."""

    def __init__(self, function: Callable, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


class Trap:
    """Pickles that write the file `marker` when they are loaded, each of them in three ways."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def calls(self) -> list[Call]:
        path = str(self.marker)
        command = f'{shlex.quote(sys.executable)} -c \'open("{path}", "w")\''
        return [Call(os.system, command), Call(open, path, "w"), Call(Path.write_text, self.marker, "run")]

    def pickled(self, protocol: int = 2) -> bytes:
        return pickle.dumps(self.calls(), protocol)

    def plant(self, path: Path, kind: str = "pickle") -> Path:
        """A pickle as it is, or as `torch.save` has it: in a zip archive."""
        if kind == "pickle":
            path.write_bytes(self.pickled())
        else:
            torch.save({"state_dict": self.calls(), "global_step": 3}, path)
        return path

    def sprung(self) -> bool:
        """Whether anything was run since the last look."""
        found = self.marker.exists()
        self.marker.unlink(missing_ok=True)
        return found


@pytest.fixture
def trap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trap]:
    trap = Trap(tmp_path_factory.mktemp("trap") / "sprung")
    yield trap
    assert not trap.sprung(), "something in a file was run"


PLANTED = pytest.mark.parametrize("kind", ["pickle", "torch"])


def said(function: Callable, *arguments: Any, **named: Any) -> str:
    """The one line that a call is refused with."""
    with pytest.raises(MaedError) as caught:
        function(*arguments, **named)
    text = str(caught.value)
    assert text.isprintable()
    assert len(text) < 1500
    return text


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The one line that a command is refused with, exit code 2."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith("maed: ")
        assert error.count("\n") == 1
        assert error[:-1].isprintable()
        return error

    return run


@pytest.mark.parametrize("way", range(3))
def test_each_way_of_the_trap_works(trap: Trap, way: int) -> None:
    pickle.loads(pickle.dumps(trap.calls()[way]))
    assert trap.sprung()


def test_the_trap_works_wherever_a_careless_reader_springs_it(trap: Trap, tmp_path: Path) -> None:
    readers: list[tuple[str, Callable[[Path], Any]]] = [
        ("pickle", lambda path: pickle.loads(path.read_bytes())),
        ("pickle", lambda path: torch.load(path, weights_only=False)),
        ("torch", lambda path: torch.load(path, weights_only=False)),
        ("pickle", lambda path: np.load(path, allow_pickle=True)),
    ]
    for kind, read in readers:
        with suppress(RuntimeError):  # of torch, which asks only later whether it was a file of its own
            read(trap.plant(tmp_path / "file", kind))
        assert trap.sprung()
    np.load(objects(trap, tmp_path / "x.npy"), allow_pickle=True)
    assert trap.sprung()
    np.load(objects(trap, tmp_path / "x.npz"), allow_pickle=True)["inputs"]
    assert trap.sprung()
    yaml.unsafe_load(TAGS[0].format(path=trap.marker))
    assert trap.sprung()


def objects(trap: Trap, path: Path) -> Path:
    """An array of Python objects that are traps."""
    array = np.array([trap.calls(), trap.calls()], dtype=object)
    if path.suffix == ".npz":
        np.savez(path, inputs=array)
    else:
        np.save(path, array, allow_pickle=True)
    return path


# --- the folder of an embedding -----------------------------------------------------------------------------------


def vectors(n: int = 6, d: int = 3) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(0))


def saved(folder: Path, truth: Geometry | None = None, **config: Any) -> Path:
    """An embedding's folder, its config.json changed."""
    PositionEmbedding(vectors(), source="digits", geometry=truth).save_pretrained(folder)
    if config:
        changed = {**read_json(folder / "config.json"), **config}
        (folder / "config.json").write_text(json.dumps(changed))
    return folder


@PLANTED
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_an_embedding_is_never_unpickled(trap: Trap, tmp_path: Path, name: str, kind: str) -> None:
    folder = saved(tmp_path)
    trap.plant(folder / name, kind)
    for read in (PositionEmbedding.from_pretrained, open_embedding, lambda path: list(describe(path))):
        assert name in said(read, folder)


def test_pickles_beside_an_embedding_are_not_read(trap: Trap, tmp_path: Path) -> None:
    folder = saved(tmp_path)
    for name in ("pytorch_model.bin", "model.bin", "model.pt", "model.pkl", "config.pkl", "training_args.bin"):
        trap.plant(folder / name, "torch")
    assert torch.equal(PositionEmbedding.from_pretrained(folder).vectors, vectors())
    (folder / "model.safetensors").unlink()
    assert "model.safetensors: no such file" in said(PositionEmbedding.from_pretrained, folder)


@pytest.mark.parametrize("verb", ["info", "evaluate", "export"])
def test_verbs_name_a_pickle_in_one_line(trap: Trap, tmp_path: Path, printed: Callable[..., str], verb: str) -> None:
    trap.plant(saved(tmp_path) / "model.safetensors")
    more = {"info": [], "evaluate": ["--coordinates", "line:6"], "export": ["--format", "npy"]}[verb]
    assert "model.safetensors: not a safetensors file" in printed(verb, tmp_path, *more)
    assert {path.name for path in tmp_path.iterdir()} == {"README.md", "config.json", "model.safetensors"}


@pytest.mark.parametrize(
    ("config", "line"),
    [
        ({"n": "6"}, "n"),
        ({"n": True}, "must be a whole number"),
        ({"n": 6.0}, "n"),
        ({"d": -3}, "d"),
        ({"d": 0}, "d"),
        ({"n": 10**400}, "must be a kind and a shape of"),
        ({"source": None}, "must be text"),
        ({"source": ["x"] * 10_000}, "['x',"),
        ({"source": "\ud800"}, "not a JSON file"),
        ({"provenance": [1]}, "provenance"),
        ({"provenance": {"metrics": [1]}}, "provenance.metrics"),
        ({"provenance": {"versions": "torch"}}, "provenance.versions"),
        ({"provenance": {"split_half": "all"}}, "provenance.split_half"),
        ({"provenance": {"made_with": {"data": {"permute": -1}}}}, "provenance.made_with"),
        ({"made_with": "maed"}, "made_with"),
        ({"made_with": {"data": [1]}}, "made_with.data"),
        ({"made_with": {"data": {"permute": "0"}}}, "made_with.data.permute"),
        ({"made_with": {"data": {"permute": -1}}}, "made_with.data.permute"),
        ({"made_with": {"embedding": 8}}, "made_with.embedding"),
        ({"fingerprint": 16}, "not those that config.json was written with"),
        ({"geometry": "grid"}, "geometry"),
        ({"geometry": {"kind": "klein-bottle"}}, "{'kind': 'klein-bottle'}"),
        ({"geometry": {"kind": ["grid"]}}, "must be a kind and a shape of 6 positions"),
        ({"geometry": {"kind": {}, "shape": {}}}, "must be a kind and a shape of 6 positions"),
        ({"geometry": {"kind": "grid", "shape": [2, 4]}}, "must be a kind and a shape of 6 positions"),
        ({"geometry": {"kind": "grid", "shape": [-2, -3]}}, "must be a kind and a shape of 6 positions"),
        ({"geometry": {"kind": "grid", "shape": [1, 2, 3]}}, "must be a kind and a shape of 6 positions"),
        ({"geometry": {"kind": "grid", "shape": "2x3"}}, "must be a kind and a shape of 6 positions"),
        # the product is 6 for numbers of 64 bits
        ({"geometry": {"kind": "grid", "shape": [2**63 + 3, 2]}}, "must be a kind and a shape of 6 positions"),
        ({"geometry": {"kind": "grid", "shape": [6]}}, "grid of shape [6]"),
        ({"geometry": {"kind": "grid", "shape": []}}, "(6, 2)"),
        ({"geometry": {"kind": "grid", "shape": [3, 2]}}, "grid of shape [3, 2]"),
        ({"geometry": {"kind": "line", "shape": [6]}}, "(6, 2)"),
        ({"geometry": {"kind": "torus", "shape": [2, 3]}}, "(6, 2)"),
        ({"geometry": {"kind": "sphere", "shape": []}}, "(6, 2)"),
        ({"geometry": {"kind": "swissroll"}}, "(6, 2)"),
    ],
)
def test_a_config_that_does_not_fit(tmp_path: Path, config: dict, line: str) -> None:
    folder = saved(tmp_path, grid(2, 3), **config)
    assert line in said(PositionEmbedding.from_pretrained, folder)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, f'{{"schema": 1, "n": {"9" * 5000}}}', '{"schema": NaN}', "", "null", "\x00", '{"schema": [[]]}'],
    ids=["deep", "long", "NaN", "empty", "null", "zero", "nested"],
)
def test_json_that_is_none_or_describes_nothing(tmp_path: Path, text: str) -> None:
    (saved(tmp_path) / "config.json").write_text(text)
    assert "config.json: " in said(PositionEmbedding.from_pretrained, tmp_path)


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        ({}, "hold ['vectors']"),
        ({"vectors": torch.zeros(18)}, "config.json says"),
        ({"vectors": torch.zeros(3, 6)}, "config.json says"),
        ({"vectors": torch.zeros(6, 3, 1)}, "config.json says"),
        ({"vectors": torch.full((6, 3), torch.nan)}, "torch.float32"),
        ({"vectors": torch.full((6, 3), 1e300, dtype=torch.float64)}, "torch.float64"),
        ({"vectors": torch.zeros(6, 3, dtype=torch.bool)}, "torch.bool"),
        ({"vectors": torch.zeros(6, 3, dtype=torch.complex64)}, "torch.complex64"),
        ({"vectors": torch.zeros(6, 3, dtype=torch.uint8)}, "torch.uint8"),
        ({"vectors": torch.zeros(6, 3).to(torch.float8_e4m3fn)}, "not those that config.json was written with"),
        ({"vectors": vectors(), "coordinates": torch.zeros(6, 2)}, "['coordinates', 'vectors']"),
        ({f"x{i}": torch.zeros(1) for i in range(5000)}, "['x0', 'x1',"),
        ({"vec\ntors\x1b[2J": torch.zeros(1)}, "hold ['vectors']"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, tensors: dict[str, torch.Tensor], line: str) -> None:
    save_file(tensors, saved(tmp_path) / "model.safetensors")
    assert line in said(PositionEmbedding.from_pretrained, tmp_path)


@pytest.mark.parametrize(
    "coordinates",
    [torch.full((6, 2), torch.nan), torch.zeros(5, 2), torch.zeros(6), torch.zeros(6, 0), torch.full((6, 2), -7.0)],
    ids=["nan", "few", "flat", "none", "outside"],
)
def test_coordinates_that_do_not_fit(tmp_path: Path, coordinates: torch.Tensor) -> None:
    save_file({"vectors": vectors(), "coordinates": coordinates}, saved(tmp_path, grid(2, 3)) / "model.safetensors")
    assert "coordinates" in said(PositionEmbedding.from_pretrained, tmp_path)


@pytest.mark.parametrize("n", [6, 4], ids=["line", "grid"])
def test_a_whole_embedding_is_still_read(tmp_path: Path, n: int) -> None:
    geometry = line(6) if n == 6 else grid(2, 3)
    assert PositionEmbedding.from_pretrained(saved(tmp_path, geometry)).geometry.shape == geometry.shape


fuzz = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzz
@given(data=st.data())
@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_an_embedding_that_is_cut_or_changed_anywhere(tmp_path: Path, name: str, data: st.DataObject) -> None:
    folder = saved(tmp_path, line(6))
    path = folder / name
    whole = path.read_bytes()
    end = len(whole.rstrip())
    cut = data.draw(st.integers(0, end - 1))
    path.write_bytes(whole[:cut])
    assert name in said(PositionEmbedding.from_pretrained, folder)
    path.write_bytes(whole[:cut] + bytes([data.draw(st.integers(0, 255))]) + whole[cut + 1 :])
    loads_or_is_refused(PositionEmbedding.from_pretrained, folder)


def loads_or_is_refused(read: Callable, path: Path) -> None:
    """A changed byte may mean another number; but it never means another error."""
    with suppress(MaedError):
        read(path)


# --- the hub ------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache of the hub's client, in its layout, that holds one repository."""
    repository = tmp_path / "cache" / "models--owner--positions"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123456789abcdef" * 2 + "01234567")
    saved(repository / "snapshots" / ("0123456789abcdef" * 2 + "01234567"))
    return tmp_path / "cache"


def snapshot(cache: Path) -> Path:
    return next(cache.glob("models--*/snapshots/*"))


def test_only_two_files_of_a_repository_are_read(trap: Trap, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def watched(name: str, file: str, **options: Any) -> str:
        asked.append(file)
        return hf_hub_download(name, file, **options)

    monkeypatch.setattr(storage, "hf_hub_download", watched)
    for name in ("pytorch_model.bin", "modeling_maed.py", "README.md"):
        trap.plant(snapshot(cache) / name)
    read = PositionEmbedding.from_pretrained("owner/positions", cache_dir=cache, local_files_only=True)
    assert torch.equal(read.vectors, vectors())
    assert asked == ["config.json", "model.safetensors"]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_repository_that_lacks_a_file(cache: Path, name: str) -> None:
    (snapshot(cache) / name).unlink()
    line = said(PositionEmbedding.from_pretrained, "owner/positions", cache_dir=cache, local_files_only=True)
    assert f"embedding: 'owner/positions' is no folder, and its {name} " in line


@PLANTED
@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_repository_is_never_unpickled(trap: Trap, cache: Path, name: str, kind: str) -> None:
    trap.plant(snapshot(cache) / name, kind)
    assert name in said(PositionEmbedding.from_pretrained, "owner/positions", cache_dir=cache, local_files_only=True)


@pytest.mark.parametrize("name", ["nobody/nothing", "own er/x", "a/b/c", "/x", "x/", "..", "../x", "", "a\nb/c"])
def test_names_of_no_repository(cache: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cache)
    line = said(PositionEmbedding.from_pretrained, name, cache_dir=cache, local_files_only=True)
    assert line.startswith(
        ("embedding: ", "embedding must ", f"{name}/config.json: ", f"{Path(name) / 'config.json'}: ")
    )


def test_pickles_beside_data_are_not_read(trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder in the hub's layout, by its path, and as `hub:OWNER/NAME`, which finds folders too."""
    import datasets

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    folder = tmp_path / "owner" / "name"
    (folder / "data").mkdir(parents=True)
    pa.parquet.write_table(table(), folder / "data" / "train-00000-of-00001.parquet")
    for name in ("state.pkl", "weights.pt", "pytorch_model.bin", "dataset_infos.json", "data/train-0.pkl"):
        trap.plant(folder / name)
    script = f"open({str(trap.marker)!r}, 'w')\n"
    for name in ("load.py", "__init__.py", "data/train.py"):
        (folder / name).write_text(script)
    assert load(str(folder)).positions == 3
    (folder / "dataset_infos.json").unlink()  # datasets reads it, as JSON
    assert load("hub:owner/name").positions == 3
    (folder / "name.py").write_text(script)
    assert load(str(folder)).positions == 3
    assert "source: 'owner/name' cannot be read (" in said(load, "hub:owner/name")


# --- the original's files -------------------------------------------------------------------------------------


def archive(path: Path, content: bytes, name: str = "archive/data.pkl", method: int = zipfile.ZIP_STORED) -> Path:
    """What `torch.save` writes, with another pickle in it."""
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr(name, content)
        file.writestr("archive/version", "3\n")
    return path


class Array:
    """Is pickled as numpy's arrays are, and says whatever it is told to."""

    def __init__(self, shape: Any = (6, 4), dtype: Any = "f4", content: Any = b"\0" * 96, order: Any = "<") -> None:
        self.shape, self.dtype, self.content, self.order = shape, dtype, content, order

    def __reduce__(self) -> tuple:
        reconstruct = np.zeros(0).__reduce__()[0]
        dtype = DType(self.dtype, self.order)
        return reconstruct, (np.ndarray, (0,), b"b"), (1, self.shape, dtype, False, self.content)


class DType:
    """Is pickled as numpy's types are."""

    def __init__(self, name: Any, order: Any) -> None:
        self.name, self.order = name, order

    def __reduce__(self) -> tuple:
        return np.dtype, (self.name, False, True), (3, self.order, None, None, None, -1, -1, 0)


def nested(depth: int = 40) -> tuple:
    """2^depth empty tuples, none of them twice in memory: nobody lives to see its text or its hash."""
    found: tuple = ()
    for _ in range(depth):
        found = (found, found)
    return found


def test_an_array_made_by_hand_is_read(tmp_path: Path) -> None:
    content = np.arange(24, dtype="<f4")
    for protocol in (2, 3, 4):
        path = archive(tmp_path / "x.pth", pickle.dumps(Array(content=content.tobytes()), protocol))
        assert np.array_equal(read_legacy(path), content.reshape(6, 4))


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_a_legacy_file_is_never_unpickled(trap: Trap, tmp_path: Path, protocol: int) -> None:
    (tmp_path / "plain.pth").write_bytes(trap.pickled(protocol))
    assert "plain.pth: cannot be read" in said(read_legacy, tmp_path / "plain.pth")
    content = [pickle.dumps(call, protocol) for call in trap.calls()]
    for program in (trap.pickled(protocol), *content):
        path = archive(tmp_path / "zip.pth", program)
        for read in (read_legacy, open_embedding, PositionEmbedding.from_legacy, lambda path: list(describe(path))):
            line = said(read, path)
            assert "which is never loaded" in line or "holds more than an array" in line


@pytest.mark.parametrize("verb", ["info", "evaluate", "export"])
def test_verbs_name_a_hostile_legacy_file(trap: Trap, tmp_path: Path, printed: Callable[..., str], verb: str) -> None:
    path = trap.plant(tmp_path / "x.pth", "torch")
    more = {"info": [], "evaluate": ["--coordinates", "line:6"], "export": ["--format=csv", f"--out={tmp_path}/x"]}
    assert "x.pth: holds more than an array" in printed(verb, path, *more[verb])
    path = archive(tmp_path / "x.pth", pickle.dumps(trap.calls()[0]))
    assert ".system, which is never loaded" in printed(verb, path, *more[verb])
    assert [path.name for path in tmp_path.iterdir()] == ["x.pth"]


def text(word: str) -> bytes:
    return b"X" + struct.pack("<I", len(word.encode())) + word.encode()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        *(("os", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("pickle", "loads"), ("torch", "load")),
        *(("numpy", "load"), ("numpy", "fromfile"), ("numpy", "memmap"), ("numpy", "array"), ("numpy", "float32")),
        *(("numpy", "ndarray.tofile"), ("numpy", "ndarray.__class__"), ("numpy", "dtype.type.mro"), ("numpy", "f2py")),
        *((numpy_core, "_reconstruct.__globals__"), (numpy_core, "scalar"), (numpy_core, "fromstring")),
        *(("_codecs", "decode"), ("_codecs", "encode.__self__"), ("codecs", "encode"), ("_codecs", "register")),
        *(("numpy.core.numeric", "_frombuffer"), ("torch._utils", "_rebuild_tensor_v2"), ("copyreg", "_reconstructor")),
        *(("maed.embedding.legacy", "_Stated"), ("", ""), ("numpy\x1b[2J", "nd\narray"), ("x" * 5000, "y")),
    ],
)
def test_names_other_than_the_four_are_never_looked_up(tmp_path: Path, module: str, name: str) -> None:
    programs = [b"\x80\x04" + text(module) + text(name) + b"\x93."]  # STACK_GLOBAL, whose names may have dots
    if module and "\n" not in name:
        programs.append(b"\x80\x02c" + f"{module}\n{name}\n".encode() + b".")  # GLOBAL
    "".encode("cp437")  # of names in archives, where no other test has read one
    for program in programs:
        before = set(sys.modules)
        assert "which is never loaded" in said(read_legacy, archive(tmp_path / "x.pth", program))
        assert set(sys.modules) == before


@pytest.mark.parametrize("codec", ["trapcodec", "rot13", "utf-8", "zlib", "idna"])
def test_no_codec_but_latin1_is_looked_up(trap: Trap, tmp_path: Path, codec: str) -> None:
    def search(name: str) -> None:
        if name == "trapcodec":
            trap.marker.touch()

    codecs.register(search)
    try:
        with pytest.raises(LookupError):
            codecs.encode("x", "trapcodec")
        assert trap.sprung()
        program = b"\x80\x02c_codecs\nencode\n" + text("x") + text(codec) + b"\x86R."
        assert "encoding other than latin1" in said(read_legacy, archive(tmp_path / "x.pth", program))
    finally:
        codecs.unregister(search)


@pytest.mark.parametrize(
    "array",
    [
        *(Array(shape=(10**12, 64)), Array(shape=(2**62, 2**62)), Array(shape=(2**40, 0)), Array(shape=(-6, -4))),
        *(Array(shape=(6, 5)), Array(shape="64"), Array(shape=(6.0, 4.0)), Array(shape=nested()), Array(shape=())),
        *(Array(shape=(24,)), Array(shape=(2, 3, 4)), Array(dtype="O"), Array(dtype="O8"), Array(dtype="U1")),
        *(Array(dtype="i4"), Array(dtype="V4"), Array(dtype="M8"), Array(dtype="f16"), Array(dtype="c8")),
        *(Array(dtype=nested()), Array(dtype="\n" * 9999), Array(dtype=None), Array(order="|"), Array(order=nested())),
        *(Array(content=b""), Array(content=b"\0" * 95), Array(content=None), Array(content="text")),
        Array(shape=(6, 2), dtype="f8", content=np.full(12, 1e300).tobytes()),
        *(Array(content=b"\xff" * 96), Array(content=nested()), 1, "text", None, (), Array),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_arrays_that_are_none(tmp_path: Path, array: object, protocol: int) -> None:
    line = said(read_legacy, archive(tmp_path / "x.pth", pickle.dumps(array, protocol)))
    assert "it must be a file of torch.save that holds one numpy array of finite floats (N, d)" in line


def test_arrays_of_objects_are_never_unpickled(trap: Trap, tmp_path: Path) -> None:
    torch.save(np.array([trap.calls()] * 2, dtype=object), tmp_path / "x.pth")
    assert "x.pth: " in said(read_legacy, tmp_path / "x.pth")
    torch.save({"positions": torch.zeros(6, 4)}, tmp_path / "x.pth")  # no trap, but no array either
    assert "x.pth: holds more than an array" in said(read_legacy, tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("program", "line"),
    [
        # a few bytes that ask for a memo of 2^28 places: 4 GB, and 22 seconds
        (b"\x80\x02Nr\x00\x00\x00\x10.", "too many"),
        (b"\x80\x02N" + b"0N" * 500 + b".", "POP"),
        (b"\x80\x02" + b"N\x85" * 500 + b".", "too many"),
        (b"\x80\x04\x8d" + b"\xff" * 8 + b".", "cannot be read"),
        (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.", "cannot be read"),
        (b"\x80\x04\x95" + b"\xff" * 8 + b"N.", "cannot be read"),
        # what an array is made of may be called, not changed
        (b"\x80\x02c_codecs\nencode\n" + text("x") + b"b.", "only call"),
        (b"\x80\x02cnumpy\nndarray\n" + text("x") + b"b.", "cannot be read"),
        (b"\x80\x02cnumpy\nndarray\n)\x81.", "NEWOBJ"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02Pabc\n.", "PERSID"),
        (b"\x80\x02(ios\nsystem\n.", "INST"),
        (b"L" + b"9" * 10_000 + b"L\n.", "cannot be read"),
        (b".", "cannot be read"),
        (b"", "cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_programs_that_make_no_array(tmp_path: Path, program: bytes, line: str) -> None:
    assert line in said(read_legacy, archive(tmp_path / "x.pth", program))


def test_archives_that_are_bombs_or_none(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    bomb = archive(path, bytes(10**7), method=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 20_000
    assert "its data.pkl is compressed" in said(read_legacy, bomb)
    whole = archive(path, pickle.dumps(Array(), 2)).read_bytes()
    size = struct.pack("<II", *[len(pickle.dumps(Array(), 2))] * 2)
    path.write_bytes(whole.replace(size, struct.pack("<II", 0xFFFFFFF0, 0xFFFFFFF0)))
    assert "larger than" in said(read_legacy, path)
    path.write_bytes(whole.replace(size, struct.pack("<II", 0x3FFFFFFF, 0x3FFFFFFF)))
    assert "cannot be read" in said(read_legacy, path)
    with zipfile.ZipFile(path, "w") as file:
        for folder in ("archive", "other"):
            file.writestr(f"{folder}/data.pkl", b"")
    assert "holds no data.pkl" in said(read_legacy, path)
    assert "holds no data.pkl" in said(read_legacy, archive(path, b"", name="data.pkl"))
    (tmp_path / "folder.pth").mkdir()
    assert "folder.pth: cannot be read" in said(open_embedding, tmp_path / "folder.pth")
    assert "no.pth: no such file" in said(open_embedding, tmp_path / "no.pth")


@fuzz
@given(data=st.data())
def test_a_legacy_file_that_is_cut_or_changed_anywhere(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "x.pth"
    torch.save(np.arange(12, dtype=np.float32).reshape(6, 2), path, pickle_protocol=2)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:cut])
    assert "x.pth: " in said(read_legacy, path)
    path.write_bytes(whole[:cut] + bytes([data.draw(st.integers(0, 255))]) + whole[cut + 1 :])
    loads_or_is_refused(read_legacy, path)


# --- the stages of a run ------------------------------------------------------------------------------------------

TINY = Settings(
    autoencoder=AutoencoderSettings(steps=4, width=8, layers=1, validate_every=2, batch_size=8),
    similarity=SimilaritySettings(draws=512),
    embedding=EmbeddingSettings(force=True),
    perceiver=PerceiverSettings(latents=4, latent_width=8, layers=1),
    train=TrainSettings(epochs=1),
    trainer=TrainerSettings(progress="none", accelerator="cpu"),
)
FLAGS = [
    *("--autoencoder.steps=4", "--autoencoder.width=8", "--autoencoder.layers=1", "--autoencoder.validate_every=2"),
    *("--autoencoder.batch_size=8", "--similarity.draws=512", "--embedding.force=true", "--trainer.progress=none"),
    *("--trainer.accelerator=cpu", "--perceiver.latents=4", "--perceiver.latent_width=8", "--perceiver.layers=1"),
    *("--train.epochs=1", "--similarity.method=maed", "--evaluation.probe_steps=0"),
]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "x.npz"
    inputs = np.random.default_rng(0).normal(size=(60, 8)).cumsum(axis=1).astype(np.float32)
    np.savez(path, inputs=inputs, labels=np.arange(60) % 2)
    return path


def opened(source: Path, out: Path, *, upstream: Path | None = None) -> Context:
    return context(out, TINY, load(str(source), TINY.data), upstream=upstream)


@pytest.fixture(scope="module")
def finished(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All stages of a run, made once."""
    run = opened(source, tmp_path_factory.mktemp("finished"))
    execute([Pretrain()], run)
    execute([Similarity()], run)
    execute([Embed()], run)
    Comparison(run).train("none", 0)
    return run.folder.path


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of all stages, to plant something in."""
    return shutil.copytree(finished, tmp_path / "run")


@PLANTED
@pytest.mark.parametrize("last", ["planted", "whole"])
def test_training_never_resumes_from_a_pickle(
    trap: Trap, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, last: str
) -> None:
    run = opened(source, tmp_path)
    execute([Pretrain()], run)
    expected = load_file(tmp_path / "autoencoder" / "model.safetensors")
    (tmp_path / "autoencoder" / "model.safetensors").unlink()  # as if it had been stopped
    trap.plant(tmp_path / "autoencoder" / "best.ckpt", kind)
    if last == "planted":
        trap.plant(tmp_path / "autoencoder" / "last.ckpt", kind)
    execute([Pretrain()], run)  # from the beginning
    found = load_file(tmp_path / "autoencoder" / "model.safetensors")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.slow
@PLANTED
def test_a_perceiver_never_resumes_from_a_pickle(trap: Trap, source: Path, tmp_path: Path, kind: str) -> None:
    run = opened(source, tmp_path)
    before = Comparison(run).train("none", 0)
    folder = tmp_path / "models" / "none-0"
    for whole in (True, False):
        (folder / "metrics.json").unlink()
        trap.plant(folder / "best.ckpt", kind)
        if not whole:
            trap.plant(folder / "last.ckpt", kind)
        after = Comparison(run).train("none", 0)
        assert after["test_accuracy"] == before["test_accuracy"]


def test_a_whole_training_can_still_be_resumed(source: Path, finished: Path) -> None:
    checkpoint = read_checkpoint(finished / "autoencoder" / "last.ckpt")
    assert checkpoint is not None
    assert checkpoint["global_step"] == 4


@pytest.mark.parametrize(
    "content",
    [
        *({}, [], 1, None, {"global_step": 3}, {"state_dict": {}, "global_step": "3"}),
        {"state_dict": {}, "global_step": 3, "callbacks": [], "optimizer_states": [], "lr_schedulers": [], "loops": {}},
    ],
)
def test_what_is_no_checkpoint(tmp_path: Path, content: object, printed: Callable[..., str]) -> None:
    torch.save(content, tmp_path / "last.ckpt")
    assert read_checkpoint(tmp_path / "last.ckpt") is None
    assert "weights alone" in printed("info", tmp_path / "last.ckpt")


@PLANTED
def test_info_never_unpickles_a_checkpoint(trap: Trap, tmp_path: Path, printed: Callable[..., str], kind: str) -> None:
    path = trap.plant(tmp_path / "last.ckpt", kind)
    assert "last.ckpt" in printed("info", path)
    assert "it must be" in printed("info", path.rename(tmp_path / "last.pt"))


@pytest.mark.slow
@fuzz
@given(data=st.data())
def test_a_checkpoint_that_is_cut_or_changed_anywhere(finished: Path, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "last.ckpt"
    whole = (finished / "autoencoder" / "last.ckpt").read_bytes()
    cut = data.draw(st.integers(0, len(whole) - 1))
    path.write_bytes(whole[:cut])
    assert read_checkpoint(path) is None
    path.write_bytes(whole[:cut] + bytes([data.draw(st.integers(0, 255))]) + whole[cut + 1 :])
    read_checkpoint(path)  # whole, or None


@PLANTED
@pytest.mark.parametrize(
    ("stage", "read"),
    [
        ("autoencoder", load_autoencoder),
        ("similarity", load_similarity),
        ("embedding", PositionEmbedding.from_pretrained),
        ("models/none-0", Maed.from_pretrained),
    ],
)
def test_no_stage_is_ever_unpickled(
    trap: Trap, copied: Path, stage: str, read: Callable[[Path], object], kind: str
) -> None:
    read(copied / stage)
    trap.plant(copied / stage / "model.safetensors", kind)
    assert "model.safetensors: not " in said(read, copied / stage)
    (copied / stage / "model.safetensors").unlink()
    trap.plant(copied / stage / "pytorch_model.bin", kind)
    said(read, copied / stage)
    if stage != "similarity":  # whose config.json `load_similarity` does not read
        shutil.copy(copied / "similarity" / "model.safetensors", copied / stage)
        trap.plant(copied / stage / "config.json", kind)
        assert "config.json: not " in said(read, copied / stage)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "planted"),
    [
        ("similarity SOURCE", "autoencoder/model.safetensors"),
        ("similarity SOURCE", "autoencoder/config.json"),
        ("embed", "similarity/model.safetensors"),
        ("embed", "similarity/config.json"),
        ("train SOURCE --positions maed", "embedding/model.safetensors"),
        ("train SOURCE --positions maed", "embedding/config.json"),
        ("info", "autoencoder/config.json"),
        ("info", "models/none-0/config.json"),
    ],
)
def test_verbs_name_a_pickle_among_earlier_stages(
    trap: Trap, copied: Path, source: Path, tmp_path: Path, printed: Callable[..., str], verb: str, planted: str
) -> None:
    trap.plant(copied / planted)
    words = [str(source) if word == "SOURCE" else word for word in verb.split()]
    more = [(copied / planted).parent] if verb == "info" else ["--run", copied, "--out", tmp_path / "new", *FLAGS]
    assert f"{copied / planted}: not " in printed(*words, *more)
    assert not list(tmp_path.glob("new/*/model.safetensors"))


@pytest.mark.parametrize("planted", ["partial.json", "partial-0.safetensors", "partial-1.safetensors"])
@PLANTED
def test_streaming_never_goes_on_from_a_pickle(trap: Trap, copied: Path, source: Path, planted: str, kind: str) -> None:
    expected = load_similarity(copied / "similarity").values
    (copied / "similarity" / "model.safetensors").unlink()
    sums = {name: torch.zeros(8, 8, dtype=torch.float64) for name in ("visible_counts", "visible_sums")}
    there = {"done": 1, "counts": [0.0, 0.0], "seconds": 0.0, "changed": [], "neighbors": None}
    for name in ("partial-0.safetensors", "partial-1.safetensors"):
        save_file(sums, copied / "similarity" / name)
    (copied / "similarity" / "partial.json").write_text(json.dumps(there))
    trap.plant(copied / "similarity" / planted, kind)
    execute([Similarity()], opened(source, copied))  # from the beginning
    assert torch.equal(load_similarity(copied / "similarity").values, expected)
    assert not list((copied / "similarity").glob("partial*"))


@pytest.mark.parametrize(
    "there",
    [
        *([], {}, None, "x", {"done": 1}),
        {"done": "1", "counts": "x", "seconds": 0.0, "changed": [], "neighbors": None},
        {"done": 10**9, "counts": [0.0, 0.0], "seconds": 0.0, "changed": [], "neighbors": [[10**6]]},
        {"done": 10**9, "counts": [0.0, 0.0], "seconds": 0.0, "changed": [], "neighbors": None},
    ],
)
def test_partial_files_that_do_not_fit(copied: Path, source: Path, there: object) -> None:
    expected = load_similarity(copied / "similarity").values
    (copied / "similarity" / "model.safetensors").unlink()
    zeros = {f"{which}_{name}": torch.zeros(4, 4) for which in ("visible", "all") for name in ("counts", "sums")}
    zeros |= {f"{which}_squares": torch.zeros(4, 4) for which in ("visible", "all")}
    for name in ("partial-0.safetensors", "partial-1.safetensors"):
        save_file(zeros, copied / "similarity" / name)  # of 4 positions
    (copied / "similarity" / "partial.json").write_text(json.dumps(there))
    execute([Similarity()], opened(source, copied))
    assert torch.equal(load_similarity(copied / "similarity").values, expected)


@pytest.mark.parametrize(
    ("tensors", "line"),
    [
        ({}, "not the file of a similarity"),
        ({"similarity": torch.zeros(4, 4)}, "not the file of a similarity"),
        ({"similarity": torch.zeros(4, 3), "standard_error": torch.zeros(4, 3)}, "(N, N)"),
        ({"similarity": torch.zeros(4, 4), "standard_error": torch.zeros(3, 3)}, "(N, N)"),
        ({"similarity": torch.full((4, 4), torch.nan), "standard_error": torch.zeros(4, 4)}, "not finite"),
        ({"similarity": torch.zeros(4, 4).int(), "standard_error": torch.zeros(4, 4)}, "must be finite floats"),
    ],
)
def test_similarities_that_are_none(tmp_path: Path, tensors: dict[str, torch.Tensor], line: str) -> None:
    save_file(tensors, tmp_path / "model.safetensors")
    assert line in said(load_similarity, tmp_path)


@pytest.mark.parametrize(
    ("stage", "read", "change"),
    [
        ("autoencoder", load_autoencoder, {"n": 9}),
        ("autoencoder", load_autoencoder, {"n": "8"}),
        ("autoencoder", load_autoencoder, {"loss": "none"}),
        ("autoencoder", load_autoencoder, {"made_with": {}}),
        ("autoencoder", load_autoencoder, {"made_with": {"autoencoder": {"width": 7}}}),
        ("autoencoder", load_autoencoder, {"made_with": {"autoencoder": {"os": "system"}}}),
        ("models/none-0", Maed.from_pretrained, {"positions": 9}),
        ("models/none-0", Maed.from_pretrained, {"positions": "8"}),
        ("models/none-0", Maed.from_pretrained, {"positions": -1}),
        ("models/none-0", Maed.from_pretrained, {"mean": "x"}),
        ("models/none-0", Maed.from_pretrained, {"perceiver": {"latents": 0}}),
        ("models/none-0", Maed.from_pretrained, {"channels": None}),
        ("models/none-0", Maed.from_pretrained, {"more": 1}),
    ],
)
def test_models_whose_config_does_not_fit(
    copied: Path, stage: str, read: Callable[[Path], object], change: dict
) -> None:
    config = read_json(copied / stage / "config.json")
    (copied / stage / "config.json").write_text(json.dumps({**config, **change}))
    line = said(read, copied / stage)
    assert "config.json: not " in line or "model.safetensors: not the weights of this " in line


# --- data ---------------------------------------------------------------------------------------------------------


def table() -> pa.Table:
    values = np.random.default_rng(0).normal(size=(40, 3))
    return pa.table({**{f"x{i}": values[:, i] for i in range(3)}, "label": np.arange(40) % 2})


@pytest.mark.parametrize("name", ["x.npy", "x.npz"])
def test_arrays_of_objects_are_no_data(trap: Trap, tmp_path: Path, name: str) -> None:
    line = said(load, str(objects(trap, tmp_path / name)))
    assert "holds Python objects, which are never unpickled" in line
    if name == "x.npy":
        assert "holds Python objects, which are never unpickled" in said(parse_geometry, str(tmp_path / name))


@pytest.mark.parametrize("kind", ["pickle", "torch"])
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.csv", "x.parquet"])
def test_pickles_are_no_data(trap: Trap, tmp_path: Path, name: str, kind: str) -> None:
    path = trap.plant(tmp_path / name, kind)
    assert name in said(load, str(path))
    assert name in said(lambda path: list(describe(path)), path)
    line = said(parse_geometry, str(path))
    assert line.startswith("coordinates: ")
    assert name in line


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_pickles_are_no_splits(trap: Trap, tmp_path: Path, kind: str) -> None:
    trap.plant(tmp_path / "train-00000-of-00001.parquet", kind)
    assert "train-00000-of-00001.parquet: cannot be read as .parquet" in said(load, str(tmp_path))


@pytest.mark.parametrize("verb", ["pretrain", "info", "evaluate"])
def test_verbs_name_a_pickle_that_should_be_data(
    trap: Trap, tmp_path: Path, printed: Callable[..., str], verb: str
) -> None:
    for name in ("x.npy", "x.csv"):
        path = trap.plant(tmp_path / name)
        saved(tmp_path / "e")
        words = [verb, path] if verb != "evaluate" else [verb, tmp_path / "e", "--coordinates", path]
        assert name in printed(*words)


def test_types_in_a_parquet_file_are_never_unpickled(trap: Trap, tmp_path: Path) -> None:
    """Before version 14, pyarrow unpickled what a schema said of a type (CVE-2023-47248)."""
    metadata = {"ARROW:extension:name": "arrow.py_extension_type", "ARROW:extension:metadata": trap.pickled(0)}
    plain = table()
    fields = [field.with_metadata(metadata) for field in plain.schema]
    pa.parquet.write_table(plain.cast(pa.schema(fields)), tmp_path / "x.parquet")
    if int(pa.__version__.partition(".")[0]) < 21:  # the type is one that pyarrow does not load
        with pytest.raises(MaedError, match="unreadable"):
            load(str(tmp_path / "x.parquet"))
        return
    schema = pa.parquet.read_schema(tmp_path / "x.parquet")
    assert schema.field("x0").metadata[b"ARROW:extension:metadata"] == trap.pickled(0)
    assert load(str(tmp_path / "x.parquet")).positions == 3


def header(text: str, content: bytes = b"") -> bytes:
    """A `.npy` file with a header of somebody's own."""
    padded = text.encode() + b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded + content


HEADERS = {
    "large": "{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000, 1000)}",
    "larger": "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4611686018427387904)}",
    "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-2, -3)}",
    "words": "{'descr': '<f4', 'fortran_order': False, 'shape': ('a', 'b')}",
    "objects": "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3)}",
    "nested objects": "{'descr': [('a', [('b', '|O')])], 'fortran_order': False, 'shape': (2, 3)}",
    "records": "{'descr': [('a', '<f4'), ('b', '<f4')], 'fortran_order': False, 'shape': (2, 3)}",
    "call": "{'descr': __import__('os').system('touch x'), 'fortran_order': False, 'shape': (2, 3)}",
    "type": "{'descr': 'os.system', 'fortran_order': False, 'shape': (2, 3)}",
    "keys": "{}",
    "list": "[]",
    "brackets": "(" * 9000,
    "minus": "-" * 9000 + "1",
    "long": "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)}" + " " * 20_000,
    "digits": "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}",
}


@pytest.mark.parametrize("text", HEADERS.values(), ids=HEADERS)
def test_headers_that_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").write_bytes(header(text, bytes(24)))
    line = said(load, "x.npy")
    assert "x.npy" in line or line.startswith("inputs: of dtype")
    assert said(parse_geometry, "x.npy").startswith("coordinates: ")
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("inputs.npy", header(text, bytes(24)))
    line = said(load, "x.npz")
    assert "x.npz" in line or line.startswith("inputs: of dtype")
    assert not (tmp_path / "x").exists()


def test_archives_that_hold_no_arrays(tmp_path: Path) -> None:
    def refused(**members: bytes) -> str:
        with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name, content)
        return said(load, str(tmp_path / "x.npz"))

    assert "'inputs'" in refused(other=b"", more=b"")
    assert "inputs" in refused(inputs=b"not numpy's")
    assert "cannot be read" in refused(**{"inputs.npy": b"\x93NUMPY"})
    np.save(tmp_path / "x.npy", np.zeros((4, 3)))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    assert "not a .npz file" in said(load, str(tmp_path / "x.npz"))
    np.savez(tmp_path / "x.npz", inputs=np.zeros((4, 3)))
    (tmp_path / "x.npz").rename(tmp_path / "x.npy")
    assert "not a .npy file" in said(load, str(tmp_path / "x.npy"))
    assert "not a .npy file" in said(parse_geometry, str(tmp_path / "x.npy"))
    (tmp_path / "x.npy").write_bytes(b"")
    assert "not a .npy file" in said(parse_geometry, str(tmp_path / "x.npy"))


@pytest.mark.slow
@fuzz
@given(data=st.data())
@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.parquet", "x.csv"])
def test_data_that_are_cut_or_changed_anywhere(tmp_path: Path, name: str, data: st.DataObject) -> None:
    whole = DATA[name]
    cut = data.draw(st.integers(1, len(whole) - 1))
    path = tmp_path / name
    for content in (whole[:cut], whole[:cut] + bytes([data.draw(st.integers(0, 255))]) + whole[cut + 1 :]):
        path.write_bytes(content)
        with np.errstate(all="ignore"):
            loads_or_is_refused(lambda path: load(str(path), DataSettings(missing="mask")), path)
            if name in ("x.npy", "x.csv"):
                loads_or_is_refused(lambda path: parse_geometry(str(path)), path)


def _data() -> dict[str, bytes]:
    values = np.random.default_rng(0).normal(size=(24, 3))
    files = {name: BytesIO() for name in ("x.npy", "x.npz", "x.parquet")}
    np.save(files["x.npy"], values)
    np.savez(files["x.npz"], inputs=values)
    pa.parquet.write_table(table(), files["x.parquet"])
    rows = [",".join(f"x{i}" for i in range(3)), *(",".join(map(str, row)) for row in values)]
    return {**{name: file.getvalue() for name, file in files.items()}, "x.csv": "\n".join(rows).encode()}


DATA = _data()


# --- settings -----------------------------------------------------------------------------------------------------

TAGS = [
    "!!python/object/apply:builtins.open ['{path}', 'w']",
    "!!python/object/apply:os.system [\"touch '{path}'\"]",
    "!!python/object/new:os.system [\"touch '{path}'\"]",
    "!!python/object/apply:subprocess.check_output [['touch', '{path}']]",
    "!!python/name:os.system",
    "!!python/module:antigravity",
]


@pytest.mark.slow
@pytest.mark.parametrize("tag", TAGS)
def test_a_preset_makes_no_objects(trap: Trap, tmp_path: Path, printed: Callable[..., str], tag: str) -> None:
    value = tag.format(path=trap.marker)
    for text in (value, f"autoencoder: {value}", f"autoencoder:\n  steps: {value}", f"data:\n  label: {value}"):
        (tmp_path / "mine.yaml").write_text(text)
        assert "mine.yaml is not YAML (could not determine a constructor" in printed(
            "run", "digits", "--config", tmp_path / "mine.yaml", "--out", tmp_path / "out"
        )
    printed("run", "digits", "--autoencoder.steps", value, "--out", tmp_path / "out")
    printed("pretrain", "digits", "--data.columns", f"[{value}]", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


LAUGHS = "data: &a [x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefghijklmnop")
)
"""A line of 2 x 9^15 words, if it were ever written out."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[" * 5000, "mine.yaml is "),
        ("autoencoder: &a {steps: *a}", "config: autoencoder.steps"),
        (
            LAUGHS,
            "['x', 'x']",
        ),
        (
            "autoencoder: {class_path: os.system, init_args: {command: touch x}}",
            "'autoencoder.class_path'",
        ),
        ("data: {label: {class_path: subprocess.Popen}}", "data.label"),
    ],
    ids=["deep", "recursive", "laughs", "class", "class of a value"],
)
def test_presets_that_are_too_clever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Callable[..., str], text: str, line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(text)
    assert line in printed("run", "digits", "--config", "mine.yaml", "--out", "out")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.yaml"]


# --- what is printed ----------------------------------------------------------------------------------------------


def test_info_prints_no_control_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "digits\x1b[2J\nfingerprint: 0000\r\x07"
    PositionEmbedding(vectors(), source=hostile, provenance={"reduction": "\x9b31m"}).save_pretrained(tmp_path)
    assert main(["info", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.isprintable() for line in lines)
    assert "source: digits\N{REPLACEMENT CHARACTER}[2J fingerprint: 0000 \N{REPLACEMENT CHARACTER}" in lines


@pytest.mark.parametrize(
    "config",
    [
        *("[]", "1", "null", '"maed"', "{}", '{"made_with": [1]}', '{"made_with": {"autoencoder": 1}}'),
        *('{"made_with": {"similarity": 1}, "n": 1}', '{"architecture": "perceiver"}', '{"maed_positions": 7}'),
        *(
            '{"maed_positions": ["x"]}',
            '{"maed_positions": {"n": 1}}',
            '{"n": 1, "d": 1}',
            '{"made_with": "embedding"}',
        ),
    ],
)
def test_info_on_a_config_of_somebody_elses(tmp_path: Path, config: str) -> None:
    (tmp_path / "config.json").write_text(config)
    assert str(tmp_path) in said(lambda path: list(describe(path)), tmp_path)
