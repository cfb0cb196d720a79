"""What a stop, a disk or a second process can do to files: it is noticed, named, and gone on from."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maed.engine.checkpoints import read_checkpoint, write_checkpoint
from maed.errors import MaedError
from maed.files import locked, read_json, write_json
from maed.similarity import Similarity, load_similarity, write_similarity
from maed.tensors import read_tensors, write_tensors

TENSORS = {
    "vectors": torch.arange(12.0).view(3, 4) / 7,
    "half": torch.ones(5, dtype=torch.bfloat16),
    "count": torch.tensor(3),
    "none": torch.empty(0, 2),
}
FACTS = {"schema": 1, "n": 12, "loss": 0.125, "names": ["a", "ä"], "made_with": {"data": {"permute": None}}}
CHECKPOINT: dict[str, Any] = {"state_dict": {"weight": torch.arange(9.0)}, "global_step": 3, "fingerprint": "that"}


def flipped(path: Path, place: float, bit: int) -> None:
    """Flip a bit of a file, so far from its beginning."""
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)


places = st.floats(0, 1, exclude_max=True)
bits = st.integers(0, 7)


@given(places, bits)
@settings(deadline=None)
def test_a_flipped_bit_in_tensors_is_noticed_or_changes_nothing(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("files") / "model.safetensors"
    write_tensors(path, TENSORS)
    flipped(path, place, bit)
    with suppress(MaedError):
        found = read_tensors(path)
        assert found.keys() == TENSORS.keys()
        assert all(torch.equal(found[name], TENSORS[name]) for name in found)


def test_every_number_of_a_tensor_is_watched(tmp_path):
    path = tmp_path / "model.safetensors"
    write_tensors(path, TENSORS)
    whole = path.read_bytes()
    begins = 8 + int.from_bytes(whole[:8], "little")
    for place in range(begins, len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(MaedError, match="damaged"):
            read_tensors(path)


def test_tensors_of_others_have_no_digest_and_are_read(tmp_path):
    from safetensors.torch import save_file

    save_file(TENSORS, tmp_path / "theirs.safetensors")
    assert read_tensors(tmp_path / "theirs.safetensors").keys() == TENSORS.keys()


@given(places, bits)
@settings(deadline=None)
def test_a_flipped_bit_in_sealed_json_is_noticed_or_changes_nothing(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("files") / "config.json"
    write_json(path, FACTS, sealed=True)
    flipped(path, place, bit)
    with suppress(MaedError):
        found = read_json(path)  # what is flipped in the name of the digest, or in a space, harms nothing
        assert {name: found.get(name) for name in FACTS} == FACTS


def test_a_similarity_in_the_place_of_another_is_noticed(tmp_path):
    for number, name in enumerate("ab"):
        write_similarity(tmp_path / name, Similarity(torch.full((3, 3), float(number)), torch.ones(3, 3)), None, {})
    (tmp_path / "a" / "model.safetensors").replace(tmp_path / "b" / "model.safetensors")

    with pytest.raises(MaedError, match="delete"):
        load_similarity(tmp_path / "b")
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text('"no record"')
    with pytest.raises(MaedError, match="delete"):
        load_similarity(tmp_path / "b")
    (tmp_path / "b" / "config.json").write_text(json.dumps({"n": config["n"]}))  # somebody meant it
    assert not load_similarity(tmp_path / "b").values.any()


def test_a_change_that_is_meant_is_accepted_without_the_digest(tmp_path):
    path = tmp_path / "config.json"
    write_json(path, FACTS, sealed=True)
    changed = {**json.loads(path.read_text()), "n": 13}
    path.write_text(json.dumps(changed))
    with pytest.raises(MaedError, match="digest"):
        read_json(path)
    del changed["digest"]
    path.write_text(json.dumps(changed))
    assert read_json(path) == {**FACTS, "n": 13}


@pytest.mark.skipif(not hasattr(signal, "SIGXFSZ"), reason="a limit on files as POSIX has it")
@pytest.mark.parametrize(
    ("write", "content"),
    [(write_checkpoint, {"weight": torch.ones(1 << 16)}), (write_tensors, {"w": torch.ones(1 << 16)})],
)
def test_a_full_disk_is_an_error_of_the_system_and_leaves_what_was_there(tmp_path, write, content):
    import resource

    path = tmp_path / "file"
    path.write_text("before")
    limit, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, limit[1]))
    try:
        with pytest.raises(OSError, match=r"cannot be written|too large"):
            write(path, content)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    assert [file.read_text() for file in tmp_path.iterdir()] == ["before"]


@given(places, bits)
@settings(deadline=None, max_examples=50)
def test_a_flipped_bit_in_a_checkpoint_is_noticed_or_changes_nothing(tmp_path_factory, place, bit):
    path = tmp_path_factory.mktemp("files") / "last.ckpt"
    write_checkpoint(path, CHECKPOINT)
    flipped(path, place, bit)
    found = read_checkpoint(path)
    if found is not None:
        assert torch.equal(found["state_dict"]["weight"], CHECKPOINT["state_dict"]["weight"])
        assert found["global_step"] == 3


HOLDER = """
import sys, time
from pathlib import Path
from maed.files import locked, replacing
with locked(Path(sys.argv[1])), replacing(Path(sys.argv[1]) / "config.json"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_a_folder_is_for_one_process_and_a_killed_one_leaves_it(tmp_path):
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLDER, folder], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(MaedError, match=f"process {process.pid}"), locked(folder):
            pass
        os.kill(process.pid, signal.SIGKILL)
    assert any(folder.glob(".config.json.*"))  # half-written
    with locked(folder):
        assert {path.name for path in folder.iterdir()} == {".lock", ".lock.json"}
    assert not any(folder.iterdir())


def test_a_lock_keeps_what_was_written_and_leaves_nothing_of_its_own(tmp_path):
    with locked(tmp_path / "a" / "run"):
        (tmp_path / "a" / "run" / "result").touch()
    assert [path.name for path in (tmp_path / "a" / "run").iterdir()] == ["result"]
    with pytest.raises(ValueError, match="refused"), locked(tmp_path / "b" / "run"):
        raise ValueError("refused")
    assert not (tmp_path / "b").exists()
