"""`maed export`: the vectors as numpy's file, CSV, ONNX model, or as another embedding; and what its page promises."""

import importlib.util
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import maed
from maed import PositionEmbedding
from maed.cli import build_parser, main
from maed.cli.inspection import describe
from maed.data.geometry import Geometry, grid, line, permutation
from maed.embedding.export import WRITERS, write_csv, write_npy, write_onnx
from maed.errors import MaedError
from maed.files import read_json, write_json

PAGE = Path(__file__).parents[1] / "docs" / "integrations" / "arrays.md"

with_onnx = pytest.mark.skipif(importlib.util.find_spec("onnx") is None, reason="onnx is an extra")
Refused = Callable[..., str]


def embedding(geometry: Geometry | None = None, n: int = 6, **provenance: Any) -> PositionEmbedding:
    vectors = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    return PositionEmbedding(vectors, source="digits", geometry=geometry, provenance=provenance)


def read_csv(path: Path) -> np.ndarray:
    return np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32, ndmin=2)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(here: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused: exit code 2, one line, and nothing written. Gives the line."""

    def run(*arguments: str) -> str:
        before = {path: path.stat().st_mtime_ns for path in here.rglob("*")}
        assert main(list(arguments)) == 2
        said = capsys.readouterr().err
        assert said.startswith("maed: ")
        assert said.count("\n") == 1
        assert {path: path.stat().st_mtime_ns for path in here.rglob("*")} == before
        return said

    return run


@pytest.fixture
def legacy(here: Path) -> Path:
    """A file such as the original's, of 6 positions in 3 channels."""
    torch.save(3 * embedding().numpy() + 1, here / "seed_6x3.pth", pickle_protocol=2)
    return here / "seed_6x3.pth"


# --- the formats --------------------------------------------------------------------------------------------------


def test_npy_is_numpys(tmp_path: Path) -> None:
    write_npy(embedding(), tmp_path / "x.npy")
    read = np.load(tmp_path / "x.npy", allow_pickle=False)
    assert (read.dtype, read.shape) == (np.float32, (6, 3))
    assert np.array_equal(read, embedding().numpy())


def test_csv_has_a_header_and_a_row_for_each_position(tmp_path: Path) -> None:
    write_csv(PositionEmbedding(torch.tensor([[0.5, -2.0], [0.1, 1e-9]])), str(tmp_path / "x.csv"))
    assert (tmp_path / "x.csv").read_text() == "c0,c1\n0.5,-2\n0.100000001,9.99999972e-10\n"


floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@pytest.mark.slow
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(vectors=arrays(np.float32, st.tuples(st.integers(1, 4), st.integers(1, 4)), elements=floats))
def test_csv_gives_back_every_bit(tmp_path: Path, vectors: np.ndarray) -> None:
    write_csv(PositionEmbedding(torch.from_numpy(vectors)), tmp_path / "x.csv")
    assert read_csv(tmp_path / "x.csv").tobytes() == vectors.tobytes()  # the sign of 0 too


@pytest.mark.slow
@with_onnx
@pytest.mark.parametrize("index", [4, [2, 0, 2], [-1], [], [[1, 2], [3, 0]], [[[5]]]], ids=str)
def test_onnx_looks_positions_up_whatever_the_shape(tmp_path: Path, index: Any) -> None:
    from onnx.reference import ReferenceEvaluator

    write_onnx(embedding(), tmp_path / "x.onnx")
    asked = np.array(index, dtype=np.int64)
    (output,) = ReferenceEvaluator(str(tmp_path / "x.onnx")).run(None, {"index": asked})
    found = np.asarray(output)
    assert found.dtype == np.float32
    assert np.array_equal(found, embedding().numpy()[asked])


@with_onnx
@pytest.mark.parametrize("rank", [0, 1, 2])
def test_onnx_says_what_it_takes_and_where_it_came_from(tmp_path: Path, rank: int) -> None:
    import onnx

    write_onnx(embedding(estimator="correlation"), tmp_path / "x.onnx", rank=rank)
    model = onnx.load(tmp_path / "x.onnx")
    onnx.checker.check_model(model, full_check=True)
    (given_,), (found,) = model.graph.input, model.graph.output
    assert (given_.name, found.name) == ("index", "vectors")
    assert given_.type.tensor_type.elem_type == onnx.TensorProto.INT64
    assert len(given_.type.tensor_type.shape.dim) == rank
    assert [d.dim_value for d in found.type.tensor_type.shape.dim] == [*[0] * rank, 3]
    assert {entry.key: entry.value for entry in model.metadata_props} == {
        "source": "digits",
        "label": "correlation",
        "fingerprint": embedding().fingerprint,
        "maed": maed.__version__,
    }


def test_onnx_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MaedError, match=r"^format: .*'maed\[onnx\]'"):
        write_onnx(embedding(), tmp_path / "x.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["npy", "csv", pytest.param("onnx", marks=with_onnx)])
def test_each_format_can_be_scaled(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"x.{name}"
    WRITERS[name](embedding(), path, rms=0.02)
    if name == "onnx":
        import onnx

        model = onnx.load(path)
        read = onnx.numpy_helper.to_array(model.graph.initializer[0])
        assert {entry.key: entry.value for entry in model.metadata_props}["rms"] == "0.02"
    else:
        read = np.load(path) if name == "npy" else read_csv(path)
    assert np.sqrt(np.square(read).mean()) == pytest.approx(0.02)
    assert np.array_equal(read, embedding().table(rms=0.02).numpy())


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("rms", [0, -1.0, float("nan"), float("inf")])
def test_sizes_that_cannot_be(tmp_path: Path, name: str, rms: float) -> None:
    (tmp_path / "x").write_text("before")
    if name != "onnx" or importlib.util.find_spec("onnx"):
        with pytest.raises(MaedError, match="must be a number above 0"):
            WRITERS[name](embedding(), tmp_path / "x", rms=rms)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


@pytest.mark.parametrize("name", ["npy", "csv"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Any, *arguments: Any, **named: Any) -> None:
        file.write(b"half" if name == "npy" else "half")
        raise OSError(28, "No space left on device")

    (tmp_path / "x").write_text("before")
    monkeypatch.setattr(np, "save" if name == "npy" else "savetxt", full)
    with pytest.raises(OSError, match="No space"):
        WRITERS[name](embedding(), tmp_path / "x")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


# --- the verb -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["npy", "csv", pytest.param("onnx", marks=with_onnx)])
def test_a_folder_gets_the_file_beside_its_vectors(here: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    embedding().save_pretrained(here / "e")
    before = {path.name: path.read_bytes() for path in (here / "e").iterdir()}
    assert main(["export", "e", "--format", name]) == 0
    assert capsys.readouterr().out == f"wrote e/vectors.{name}\n"
    after = {path.name: path.read_bytes() for path in (here / "e").iterdir()}
    assert after.pop(f"vectors.{name}")
    assert after == before
    WRITERS[name](embedding(), here / "again")
    assert (here / "again").read_bytes() == (here / "e" / f"vectors.{name}").read_bytes()
    assert main(["export", "e", "--format", name]) == 0  # over itself


def test_a_legacy_file_is_exported_here_by_its_name(legacy: Path, here: Path) -> None:
    (here / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(here / "work")
        assert main(["export", str(legacy), "--format", "npy"]) == 0
    found = np.load(here / "work" / "seed_6x3.npy")
    assert np.array_equal(found, PositionEmbedding.from_legacy(legacy).numpy())
    assert np.square(found).mean() == pytest.approx(1)


def test_an_embedding_of_the_hub_is_exported_here_by_its_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def from_hub(name: str) -> PositionEmbedding:
        opened.append(name)
        return embedding()

    monkeypatch.setattr("maed.embedding.open_embedding", from_hub)
    assert main(["export", "owner/name-v1.5", "--format", "csv"]) == 0
    assert main(["evaluate", "owner/name-v1.5", "--coordinates", "line:6", "--evaluation.folds", "2"]) == 0
    assert opened == ["owner/name-v1.5"] * 2
    assert [path.name for path in here.iterdir()] == ["name-v1.5.csv"]


def test_channels_size_and_place_are_as_asked(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    embedding().save_pretrained(here / "e")
    assert main(["export", "e", "--format=npy", "--dim=2", "--rms=0.5", "--out=new/x.npy"]) == 0
    assert capsys.readouterr().out == "wrote new/x.npy\n"
    assert np.array_equal(np.load(here / "new/x.npy"), embedding().with_dim(2).table(rms=0.5).numpy())
    assert not (here / "e" / "vectors.npy").exists()


def test_a_folder_keeps_what_was_changed(here: Path) -> None:
    embedding(grid(2, 3), split_half=0.5).save_pretrained(here / "e")
    assert main(["export", "e", "--format", "folder", "--resample", "grid:4x6", "--dim", "5", "--out", "big"]) == 0
    found = PositionEmbedding.from_pretrained(here / "big")
    expected = embedding(grid(2, 3)).resampled("grid:4x6").with_dim(5)
    assert torch.equal(found.vectors, expected.vectors)
    assert (found.label, found.geometry.shape, found.source) == ("maed-resampled", (4, 6), "digits")
    assert main(["export", "e", "--format", "folder", "--resample", "grid:4x6", "--dim", "5", "--out", "big"]) == 0


def test_a_legacy_file_becomes_a_folder(legacy: Path, here: Path) -> None:
    assert main(["export", str(legacy), "--format", "folder", "--out", "e"]) == 0
    found = PositionEmbedding.from_pretrained(here / "e")
    assert (found.fingerprint, found.label) == (PositionEmbedding.from_legacy(legacy).fingerprint, "seed")


def test_coordinates_are_those_of_the_source(here: Path) -> None:
    """Permuted positions are put back in their order before they are interpolated."""
    order = permutation(6, 4)
    straight = embedding()
    permuted = PositionEmbedding(straight.vectors[order], provenance={"made_with": {"data": {"permute": 4}}})
    for positions, name in ((straight, "straight"), (permuted, "permuted")):
        positions.save_pretrained(here / name)
        assert main(["export", name, "--format", "npy", "--resample", "line:3", "--coordinates", "line:6"]) == 0
    assert np.array_equal(np.load("straight/vectors.npy"), np.load("permuted/vectors.npy"))
    np.savetxt("places.csv", np.arange(6.0))
    assert main(["export", "straight", "--format=npy", "--resample=line:3", "--coordinates=places.csv", "--out=x"]) == 0
    assert np.array_equal(np.load("x"), np.load("straight/vectors.npy"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["e"], "format"),
        (["e", "--format", "nyp"], "did you mean 'npy'?"),
        (["e", "--format", "npy", "--dim", "0"], "dim must"),
        (["e", "--format", "npy", "--dim", "x"], "must be of type int, or null"),
        (["e", "--format", "npy", "--rms", "0"], "must be a number above 0"),
        (["e", "--format", "npy", "--rms", "loud"], "must be of type float, or null"),
        (["e", "--format", "npy", "--out", "e"], "must be a file"),
        (["e", "--format", "npy", "--out", "note/x"], "note"),
        (["e", "--format", "folder"], "with --format folder"),
        (
            ["e", "--format", "folder", "--out", "e", "--dim", "2"],
            "must be a new folder",
        ),
        (["e", "--format", "folder", "--out", "other"], "must be a new folder"),
        (["e", "--format", "folder", "--out", "note"], "must be a new folder"),
        (["e", "--format", "folder", "--out", "x", "--rms", "1"], "1.0"),
        (["e", "--format", "npy", "--coordinates", "line:6"], "without --resample"),
        (["e", "--format", "npy", "--resample", "line:9"], "coordinates must be grid:"),
        (
            ["e", "--format", "npy", "--resample", "ring:9"],
            "'ring:9'",
        ),
        (
            ["e", "--format", "npy", "--resample", "grid:9"],
            "'grid:9'",
        ),
        (
            ["e", "--format", "npy", "--resample", "line:0"],
            "'line:0'",
        ),
        (["e", "--format", "npy", "--resample", "x.npy"], "'x.npy'"),
        (
            ["e", "--format=npy", "--resample=line:9", "--coordinates=grid:2x3"],
            "grid to",
        ),
        (["e", "--format=npy", "--resample=line:9", "--coordinates=ring:6"], "line or grid"),
        (["e", "--format=npy", "--resample=line:9", "--coordinates=line:7"], "coordinates"),
        (["nowhere", "--format", "npy"], "'nowhere' is no folder"),
        (["nowhere.pth", "--format", "npy"], "nowhere.pth: no such file"),
        (["other", "--format", "npy"], "other/config.json: no such file"),
    ],
)
def test_what_cannot_be_exported(refused: Refused, here: Path, arguments: list[str], line: str) -> None:
    embedding().save_pretrained(here / "e")
    (here / "other").mkdir()
    (here / "other" / "mine.txt").write_text("words")
    (here / "note").write_text("words")
    assert line in refused("export", *arguments)


def test_help_reads_well(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["export", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    usage = "usage: maed export EMBEDDING --format npy|csv|onnx|folder [--dim D] [--resample WHAT] [--coordinates WHAT]"
    assert text.startswith(usage)
    assert "--data." not in text


# --- what evaluate and info say of the same embeddings ------------------------------------------------------------


def test_evaluate_writes_beside_a_folder_and_changes_nothing_else(here: Path) -> None:
    embedding(line(6), metrics={"knn_recall": 0.5}).save_pretrained(here / "e")
    before = {path.name: path.read_bytes() for path in (here / "e").iterdir()}
    for _ in range(2):
        assert main(["evaluate", "e", "--evaluation.folds", "2"]) == 0
        after = {path.name: path.read_bytes() for path in (here / "e").iterdir()}
        assert read_json(here / "e" / "geometry.json")["coordinates"] == "its own"
        del after["geometry.json"]
        assert after == before


def test_evaluate_writes_nothing_beside_a_legacy_file(
    legacy: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", legacy.name, "--coordinates", "line:6", "--evaluation.folds", "2"]) == 0
    said = capsys.readouterr().out
    assert said.startswith("knn_recall@4: ")
    assert "wrote" not in said
    assert [path.name for path in here.iterdir()] == [legacy.name]
    assert main(["evaluate", legacy.name, "--coordinates=line:6", "--evaluation.folds=2", "--out=g"]) == 0
    assert capsys.readouterr().out == f"{said}wrote g/geometry.json\n"


def test_evaluate_says_what_coordinates_may_be(refused: Refused, legacy: Path) -> None:
    assert "coordinates must be grid:" in refused("evaluate", legacy.name)


@pytest.mark.slow
def test_the_seeds_file_holds_hardly_any_geometry(
    original_file: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(original_file), "--coordinates", "line:2048", "--evaluation.n_neighbors", "10"]) == 0
    found = dict(line.split(": ") for line in capsys.readouterr().out.splitlines())
    assert 0.02 < float(found["knn_recall@10"]) < 0.03
    assert 0 < float(found["spearman"]) < 0.05
    assert not list(here.iterdir())


def described(path: Path) -> list[str]:
    return list(describe(path))


def test_info_of_an_embedding_says_where_it_came_from(tmp_path: Path) -> None:
    settings_ = {"autoencoder": {"seed": 7, "steps": 30, "kind": "set"}, "data": {"permute": 3, "seed": 0}}
    positions = embedding(
        grid(2, 3),
        estimator="contrast",
        reduction="heat",
        split_half=0.25,
        versions={"maed": "0.1.0", "torch": "2.6"},
        metrics={"knn_recall": 0.93216},
        made_with={"source": "digits", **settings_},
        note="by hand",
    )
    positions.save_pretrained(tmp_path)
    write_json(tmp_path / "geometry.json", {"schema": 1, "neighbors": 4, "coordinates": "line:6", "spearman": 0.5})
    assert described(tmp_path) == [
        f"{tmp_path}: a position embedding of 6 positions, 3 channels",
        "source: digits",
        "label: maed",
        "geometry: grid 2 x 3",
        f"fingerprint: {positions.fingerprint}",
        "estimator: contrast",
        "reduction: heat",
        "note: by hand",
        "seed: 7",
        "settings that are not the defaults: data.permute 3, autoencoder.steps 30",
        "versions: maed 0.1.0, torch 2.6",
        "metrics: knn_recall 0.9322, split_half 0.25",
        "geometry.json, against line:6: neighbors 4, spearman 0.5",
    ]


def test_info_of_an_embedding_made_by_hand(tmp_path: Path) -> None:
    embedding().save_pretrained(tmp_path)
    first = f"{tmp_path}: a position embedding of 6 positions, 3 channels"
    facts = ["label: maed", "geometry: not known", f"fingerprint: {embedding().fingerprint}"]
    assert described(tmp_path) == [first, "source: digits", *facts, "metrics: nothing was measured"]


def test_info_of_a_legacy_file(legacy: Path) -> None:
    lines = described(legacy)
    assert lines[:2] == [
        f"{legacy}: a file of the original: 6 positions, 3 channels, float32",
        "read without unpickling: nothing in the file was run",
    ]
    assert lines[-1] == f"fingerprint: {PositionEmbedding.from_legacy(legacy).fingerprint}"


def test_info_of_an_unfinished_embedding(tmp_path: Path) -> None:
    made_with = {"source": "digits", "similarity": {}, "embedding": {}}
    write_json(tmp_path / "config.json", {"schema": 1, "made_with": made_with})
    assert described(tmp_path) == [f"{tmp_path}: a position embedding, unfinished", "source: digits"]


def record(**changes: Any) -> dict[str, Any]:
    origin = {"label": "maed", "source": "photos", "fingerprint": "00ff", "trainable": False}
    fit = {"n": 196, "dim": 768, "rms": 0.02, "offset": 1}
    return {"where": "embeddings.position_embeddings", "kind": "parameter", **origin, **fit, **changes}


def test_info_of_a_model_with_positions_of_maeds(tmp_path: Path) -> None:
    config = {"model_type": "vit", "architectures": ["ViTModel"], "maed_positions": record()}
    write_json(tmp_path / "config.json", config)
    expected = [
        f"{tmp_path}: a model of transformers with positions of maed's: ViTModel",
        "embeddings.position_embeddings (parameter): 196 positions, 768 channels, from row 1",
        *("source: photos", "label: maed", "fingerprint: 00ff", "root mean square: 0.02", "trainable: no"),
    ]
    assert described(tmp_path) == expected
    second = record(where="decoder.table", trainable=True, offset=0, label="correlation")
    write_json(tmp_path / "config.json", {"model_type": "vit", "maed_positions": [record(), second]})
    lines = described(tmp_path)
    assert lines[0] == f"{tmp_path}: a model of transformers with positions of maed's: vit"
    assert lines[1:7] == expected[1:]
    assert lines[7] == "decoder.table (parameter): 196 positions, 768 channels"
    assert (lines[9], lines[-1]) == ("label: correlation", "trainable: yes")


@pytest.mark.slow
def test_info_of_a_model_that_was_saved(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    model = BertModel(BertConfig(vocab_size=9, max_position_embeddings=6, **sizes))
    maed.replace_positions(model, embedding()).save_pretrained(tmp_path)
    lines = described(tmp_path)
    assert "BertModel" in lines[0]
    assert "embeddings.position_embeddings (embedding): 6 positions, 8 channels" in lines
    assert f"fingerprint: {embedding().fingerprint}" in lines


def test_info_of_a_checkpoint(tmp_path: Path) -> None:
    parts: dict[str, Any] = {"optimizer_states": [], "lr_schedulers": [], "loops": {}, "callbacks": {}}
    weights = {"a": torch.zeros(3, 4), "b": torch.zeros(5)}
    checkpoint = {**parts, "state_dict": weights, "global_step": 250, "pytorch-lightning_version": "2.6.1"}
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert described(tmp_path / "last.ckpt") == [
        f"{tmp_path / 'last.ckpt'}: a Lightning checkpoint at step 250; read as weights alone",
        "tensors: 2, of 17 numbers",
        "versions: pytorch-lightning 2.6.1",
    ]


def test_info_of_what_evaluate_wrote(tmp_path: Path) -> None:
    embedding(line(6)).save_pretrained(tmp_path)
    assert main(["evaluate", str(tmp_path), "--evaluation.folds", "2"]) == 0
    lines = described(tmp_path / "geometry.json")
    assert lines[0] == f"{tmp_path / 'geometry.json'}: metrics of an embedding against its geometry"
    assert lines[1].startswith("against its own: neighbors 4, knn_recall ")
    assert f"geometry.json, {lines[1]}" == described(tmp_path)[-1]


# --- the page -----------------------------------------------------------------------------------------------------


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_examples_of_the_page_run(here: Path) -> None:
    scope: dict[str, Any] = {}
    ran = [block for block in blocks("python") if "onnx" not in block]
    for block in ran:
        exec(block, scope)
    assert len(ran) == 2
    vectors = scope["embedding"].numpy()
    assert scope["placed"].shape == (8, 49, 16)
    assert np.array_equal(scope["from_npy"], vectors)
    assert np.array_equal(scope["from_csv"], vectors)


@with_onnx
def test_the_example_of_onnx_runs(here: Path) -> None:
    scope: dict[str, Any] = {"np": np, "embedding": embedding(n=49)}
    (block,) = (block for block in blocks("python") if "onnx" in block)
    exec(block, scope)
    assert np.array_equal(scope["found"], scope["embedding"].numpy()[[0, 48, 7]])


def test_the_commands_of_the_page_do_what_it_says(here: Path, legacy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embedding(grid(2, 3)).save_pretrained(here / "my-positions")
    legacy.rename(here / "pos_embeddings_IMDB_tSNE_2048x64.pth")
    commands = "".join(blocks("sh")).splitlines()
    assert len(commands) == 7
    for command in commands:
        words = shlex.split(command, comments=True)[1:]
        assert build_parser(words[:1]).parse_args(words).verb == "export"
        if "OWNER/NAME" not in words:
            words = [word.replace("line:2048", "line:6") for word in words]  # of the file that stands in for it
            assert main(words) == 0
    assert (here / "my-positions" / "vectors.npy").is_file()
    assert read_csv(here / "table.csv").shape == (6, 32)
    found = {
        name: PositionEmbedding.from_pretrained(here / name) for name in ("original", "wider", "patches", "shorter")
    }
    assert {name: (e.n, e.dim, e.label) for name, e in found.items()} == {
        "original": (6, 3, "seed"),
        "wider": (6, 768, "maed"),
        "patches": (196, 3, "maed-resampled"),
        "shorter": (512, 3, "seed-resampled"),
    }
    assert read_json(here / "shorter/config.json")["provenance"]["resampled"] == "a line of 6"
