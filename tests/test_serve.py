"""`maed serve`: what it answers over http, what it never reads or writes, and its pages in headless Chromium."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from explorer import fits, resize, synthetic_run
from maed.cli import main
from maed.engine.progress import ProgressFile
from maed.errors import MaedError
from maed.files import read_json
from maed.records import Progress, Results, Score, Summary
from maed.run_folder import RunFolder, StageFolder
from maed.server.app import Impatient, Server, started
from maed.server.runs import QUIET, find_runs, overview
from maed.settings import ReportSettings

pytestmark = pytest.mark.network  # of the loopback address

HOSTILE = "<script>window.hacked=1</script><img src=x onerror='window.hacked=2'>&amp;"
BOLD = "it's <b>bold"
SECRET = "what lies outside of the folder"
SCRIPT = Path(sys.executable).with_name("maed")
SMALL = ReportSettings(reductions=["pca"])
HOUR = 3600


def finished_run(folder: Path, *, side: int = 8, recall: float = 0.9, accuracy: float | None = 0.5) -> Path:
    """A whole run, with its report, and with a Perceiver's accuracies where one is given."""
    synthetic_run(folder, side)
    results = Results.read(folder / "results.json")
    assert results.geometry is not None
    results.geometry["maed"]["knn_recall"] = recall
    if accuracy is not None:
        means = {"maed": accuracy, "none": accuracy - 0.1}
        results.scores = [Score(name, seed, mean, seconds=9.0) for name, mean in means.items() for seed in range(3)]
        results.summary = [Summary(name, mean, mean - 0.01, mean + 0.01, seeds=3) for name, mean in means.items()]
    results.write(folder / "results.json")
    for part in ("embedding", "autoencoder"):
        save_missing(folder / part)
    (folder / "report.html").write_text("written by `maed run`")
    return folder


def save_missing(folder: Path) -> None:
    """What marks a stage as finished, where a made-up run lacks it."""
    if not (folder / "model.safetensors").is_file():
        save_file({"weight": np.zeros(1, dtype=np.float32)}, folder / "model.safetensors")


def begun_run(folder: Path, steps: int = 1000) -> Path:
    """A run whose autoencoder has been begun: settings, and nothing of how far it is."""
    stage = RunFolder(folder).autoencoder
    stage.path.mkdir(parents=True)
    made_with = {"source": "sensors", "autoencoder": {"steps": steps}}
    stage.config.write_text(json.dumps({"schema": 1, "n": 64, "made_with": made_with}))
    return folder


def log(folder: Path, *steps: int, of: int = 1000, validation: bool = False) -> Path:
    """What the autoencoder's training writes once it has made these steps, and has been validated after the last."""
    told = ProgressFile(RunFolder(folder).autoencoder, of)
    for step in steps:
        told.add(step, {"train_loss": 1 / step**0.5})
    if validation:
        told.add(steps[-1], {"validation_loss": 1.1 / steps[-1] ** 0.5})
    told.stepped(steps[-1])
    return folder


def age(folder: Path, seconds: float) -> None:
    """Make a folder look as if nothing had been written in it for so long."""
    then = time.time() - seconds
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (then, then))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two whole runs, one stopped, one damaged, one of a hostile name; a secret beside them, and links to it."""
    above = tmp_path_factory.mktemp("serve")
    root = above / "runs"
    finished_run(root / "a", recall=0.95, accuracy=0.45)
    finished_run(root / "group" / "b", recall=0.8, accuracy=0.6)
    age(log(begun_run(root / "halted"), 50, 100), 2 * HOUR)
    damaged = finished_run(root / "damaged", side=5)
    file = damaged / "embedding" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    hostile = begun_run(root / BOLD)
    config = read_json(hostile / "autoencoder" / "config.json")
    config["made_with"]["source"] = HOSTILE
    (hostile / "autoencoder" / "config.json").write_text(json.dumps(config))
    (above / "secret.json").write_text(json.dumps({"source": SECRET, "positions": 7}))
    linked = begun_run(root / "linked")
    (linked / "results.json").symlink_to(above / "secret.json")
    (root / "elsewhere").symlink_to(finished_run(above / "outside", side=4))
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    """A server of these runs, at a port of its own."""
    yield from serving(root)


def serving(root: Path) -> Iterator[Server]:
    with started(root, host="127.0.0.1", port=0, settings=SMALL) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.end()
        thread.join()


def raw(server: Server, request: bytes) -> bytes:
    """Whatever the server answers to these bytes."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(request)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def get(server: Server, target: str, method: str = "GET", **headers: str) -> tuple[int, Message, str]:
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, target, headers=headers)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read().decode()


def built(server: Server, target: str) -> str:
    """A page that may have to be built first."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        status, headers, text = get(server, target)
        if status != 202:
            assert status == 200, text
            return text
        assert headers["Refresh"] == "2"
        assert "is being built" in text
        time.sleep(0.2)
    raise TimeoutError(target)


# Which runs there are, and how they are doing


def test_runs_are_found_to_some_depth_and_links_are_not_followed(root: Path) -> None:
    assert list(find_runs(root)) == ["a", "damaged", "group/b", "halted", BOLD, "linked"]


def test_a_run_itself_is_served_alone(root: Path) -> None:
    assert find_runs(root / "a") == {"a": root / "a"}


def test_source_code_with_folders_of_these_names_is_no_run(tmp_path: Path) -> None:
    for stage in ("autoencoder", "similarity", "embedding", "perceiver"):
        (tmp_path / "maed" / stage).mkdir(parents=True)
    assert find_runs(tmp_path) == {}


def test_states(tmp_path: Path) -> None:
    def state(folder: Path, later: float = 0.0) -> str:
        return overview(tmp_path, folder.name, folder, time.time() + later).state

    begun = begun_run(tmp_path / "begun")
    assert (state(begun), state(begun, QUIET + 60)) == ("going on", "stopped")
    save_missing(begun / "autoencoder")
    assert (state(begun), state(begun, HOUR)) == ("going on", "done")  # the next stage may be about to begin
    whole = finished_run(tmp_path / "whole")
    assert state(whole) == "done"
    (whole / "report.html").unlink()  # `maed run` ends with it
    assert (state(whole), state(whole, HOUR)) == ("going on", "stopped")


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("results.json", b"{", "not a JSON file"),
        ("results.json", b"[]", "not a results.json of maed"),
        ("results.json", b'{"scores": null, "geometry": {"maed": [1]}}', "is not as maed writes it"),
        ("results.json", b'{"scores": null, "summary": [1]}', "not a results.json of maed"),
        ("similarity/model.safetensors", b"cut short", "similarity/model.safetensors: not a safetensors file"),
        ("embedding/config.json", b"\xff", "embedding/config.json: not a JSON file"),
    ],
)
def test_what_cannot_be_read_is_damaged_with_the_reason(tmp_path: Path, file: str, content: bytes, reason: str) -> None:
    folder = finished_run(tmp_path / "run", side=4)
    (folder / file).write_bytes(content)
    found = overview(tmp_path, "run", folder)
    assert found.state == "damaged"
    assert reason in found.reason
    assert str(tmp_path) not in found.reason


@pytest.mark.parametrize("kind", ["file", "folder", "pipe"])
def test_a_run_that_leads_out_of_the_folder_is_not_read(tmp_path: Path, kind: str) -> None:
    folder = finished_run(tmp_path / "runs" / "run", side=4)
    outside = finished_run(tmp_path / "outside", side=4)
    if kind == "file":
        (folder / "results.json").unlink()
        (folder / "results.json").symlink_to(outside / "results.json")
    elif kind == "folder":
        shutil.rmtree(folder / "embedding")
        (folder / "embedding").symlink_to(outside / "embedding")
    else:  # reading it would never end
        os.mkfifo(folder / "embedding" / "README.md")
    found = overview(tmp_path / "runs", "run", folder)
    assert found.state == "damaged"
    assert ("not a plain file" if kind == "pipe" else "is a link") in found.reason


def test_steps_and_time_left_are_read(tmp_path: Path) -> None:
    stage = RunFolder(begun_run(tmp_path / "run")).autoencoder
    Progress(step=300, steps=1000, begun=50, seconds=50.0).write(stage.progress)  # 5 steps a second since a stop
    part = overview(tmp_path, "run", tmp_path / "run").current
    assert part is not None
    assert (part.title, part.progress, part.far.left) == ("Autoencoder", ", step 300 of 1,000", 140)
    assert part.remaining == "about 2 min left"


@pytest.mark.parametrize("stored", ["[]", '{"step": "many"}', '{"points": 7}', '{"seconds": "x"}'])
def test_progress_of_another_shape_is_damaged(tmp_path: Path, stored: str) -> None:
    folder = begun_run(tmp_path / "run")
    RunFolder(folder).autoencoder.progress.write_text(stored)
    found = overview(tmp_path, "run", folder)
    assert found.state == "damaged"
    assert "autoencoder/progress.json" in found.reason or "not as maed writes it" in found.reason


def test_a_learning_rate_that_was_given_up_does_not_stop_a_run(tmp_path: Path) -> None:
    folder = finished_run(tmp_path / "run", side=4)
    (folder / "models" / "tune" / "maed-1e-05" / "logs").mkdir(parents=True)
    tried = folder / "models" / "tune" / "maed-1e-05" / "logs" / "metrics.csv"
    tried.write_text("step\n")
    assert [part.title for part in overview(tmp_path, "run", folder).parts if not part.finished] == [
        "Perceiver maed, learning rate 1e-05"
    ]
    os.utime(tried, (1, 1))  # others have been written since
    assert all(part.finished for part in overview(tmp_path, "run", folder).parts)


# What stages tell of themselves


def test_progress_is_written_once_a_second_and_at_the_end(tmp_path: Path) -> None:
    told = ProgressFile(StageFolder(tmp_path), 10_000)
    told.stepped(1)
    for step in range(2, 1000):  # in less than a second
        told.stepped(step)
    assert Progress.read(tmp_path / "progress.json").step == 1
    told.write()
    assert Progress.read(tmp_path / "progress.json").step == 999


def test_a_long_curve_is_thinned_and_its_validations_and_ends_stay(tmp_path: Path) -> None:
    told = ProgressFile(StageFolder(tmp_path), 5000)
    for step in range(1, 5001):
        told.add(step, {"train_loss": 1 / step})
        if step % 1000 == 0:
            told.add(step, {"validation_loss": float("nan") if step == 2000 else 2 / step})
    points = told.record.points
    assert 100 < len(points) <= 400
    assert [point["step"] for point in points if "validation_loss" in point] == [1000, 3000, 4000, 5000]
    assert (points[0]["step"], points[-2]["step"]) == (1, 5000)


def test_a_training_that_goes_on_keeps_its_curve_and_measures_its_pace_anew(tmp_path: Path) -> None:
    log(begun_run(tmp_path / "run"), 50, 100, 150)
    told = ProgressFile(RunFolder(tmp_path / "run").autoencoder, 1000, done=100)
    told.add(200, {"train_loss": 0.1})
    assert [point["step"] for point in told.record.points] == [50, 100, 200]
    assert told.record.begun == 100


# What is answered


def test_the_index_lists_runs(server: Server) -> None:
    status, _, text = get(server, "/")
    assert status == 200
    rows = dict(re.findall(r'<tr data-run="([^"]*)">(.*?)</tr>', text, re.DOTALL))
    assert len(rows) == 6
    assert all(shown in rows["a"] for shown in ("synthetic", "64", "done", "95.0 % @8", "0.900"))
    assert "60.0 % [59.0, 61.0] maed" in rows["group/b"]
    assert "stopped" in rows["halted"]
    assert "Autoencoder, step 100 of 1,000" in rows["halted"]
    assert "embedding/model.safetensors: not a safetensors file" in rows["damaged"]
    assert "results.json is a link" in rows["linked"]


@pytest.mark.slow
def test_a_run_has_the_page_of_its_report(server: Server) -> None:
    text = built(server, "/run?run=a")
    assert 'id="explorer"' in text
    assert 'id="compared"' not in text
    assert '<a href="/">All runs</a>' in text


@pytest.mark.slow
def test_runs_are_compared(server: Server) -> None:
    text = built(server, "/compare?run=group%2Fb&run=a")
    compared = text[text.index('<section id="compared">') :]
    assert re.findall(r'<th scope="row">([^<]*)</th>', compared)[:4] == ["group/b", "group/b", "a", "a"]


@pytest.mark.slow
def test_a_page_is_kept_until_its_run_changes(server: Server, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maed.server.pages._FRESH", 0.0)
    folder = finished_run(root / "changing", side=4)
    try:
        assert "90.0 %" in built(server, "/run?run=changing")
        status, _, _ = get(server, "/run?run=changing")
        assert status == 200
        results = read_json(folder / "results.json")
        results["geometry"]["maed"]["knn_recall"] = 0.123
        (folder / "results.json").write_text(json.dumps(results))
        assert "12.3 %" in built(server, "/run?run=changing")
    finally:
        shutil.rmtree(folder)


@pytest.mark.slow
def test_a_run_with_only_some_stages_has_a_page(server: Server, root: Path) -> None:
    folder = root / "some"
    (folder / "embedding").mkdir(parents=True)
    vectors = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
    save_file({"vectors": vectors}, folder / "embedding" / "model.safetensors")
    try:
        assert "Not run: no Perceiver was trained in this folder" in built(server, "/run?run=some")
    finally:
        shutil.rmtree(folder)


def test_a_run_with_nothing_to_show_yet_says_so(server: Server) -> None:
    until = time.monotonic() + 60
    while (answer := get(server, "/run?run=halted"))[0] == 202 and time.monotonic() < until:
        time.sleep(0.2)
    assert answer[0] == 200
    assert "Nothing of it can be explored yet" in answer[2]
    assert "/live?run=halted" in answer[2]


def test_progress_is_told(server: Server) -> None:
    status, headers, text = get(server, "/live.json?run=halted")
    told = json.loads(text)
    assert (status, headers["Content-Type"]) == (200, "application/json")
    assert told["state"] == "stopped"
    assert told["sentence"].startswith("Autoencoder, step 100 of 1,000. Nothing was written for 2 hours")
    assert told["share"] == 0.1
    assert told["rows"] == [["Autoencoder", "stopped", "step 100 of 1,000", ""]]
    assert told["loss"]["data"][0]["x"] == [50, 100]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/nothing", 404),
        ("/run", 400),
        ("/run?run=a&run=a", 400),
        ("/run?run=nothing", 404),
        ("/run?run=elsewhere", 404),
        ("/run?run=damaged", 500),
        ("/run?run=linked", 500),
        ("/compare?run=a", 400),
        ("/compare?run=a&run=a", 400),
        ("/compare?run=a&run=nothing", 404),
        ("/compare?" + "&".join(f"run={i}" for i in range(9)), 400),
        ("/live?run=nothing", 404),
        ("/live.json?run=nothing", 404),
        ("/report.html", 404),
        ("/a/results.json", 404),
    ],
)
def test_what_is_not_there_is_refused(server: Server, target: str, status: int) -> None:
    found, _, text = get(server, target)
    assert found == status
    assert SECRET not in text


def test_every_answer_has_the_policy_and_is_not_kept(server: Server) -> None:
    for target in ("/", "/run?run=a", "/live?run=a", "/live.json?run=a", "/nothing", "/run?run=damaged"):
        _, headers, _ = get(server, target)
        policy = headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src '")
        assert "unsafe-eval" not in policy
        assert "'unsafe-inline'" not in policy.split("script-src")[1]
        assert policy.endswith("connect-src 'self'; frame-ancestors 'none'")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Server"].strip() == "maed"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "MKCOL", "get"])
def test_other_methods_are_refused(server: Server, method: str) -> None:
    status, headers, _ = get(server, "/", method)
    assert (status, headers["Allow"]) == (405, "GET, HEAD")


def test_head_sends_no_body(server: Server) -> None:
    status, headers, text = get(server, "/", "HEAD")
    assert (status, text) == (200, "")
    assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize("host", ["localhost", "localhost:9000", "127.0.0.1", "127.0.0.1:8000", "[::1]:8000"])
def test_it_goes_by_local_names(server: Server, host: str) -> None:
    assert get(server, "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "evil.example:8000", "10.0.0.1", "a@localhost", "", "[", "x/y"]
)
def test_it_goes_by_no_other_name(server: Server, host: str) -> None:
    status, _, text = get(server, "/", Host=host)
    assert status == 421
    assert "synthetic" not in text


def test_one_that_others_reach_goes_by_numbers_and_by_its_own_name(root: Path) -> None:
    with started(root, host="0.0.0.0", port=0, settings=SMALL) as server:
        called = ("192.168.1.5:8000", "[fe80::1]", "localhost", socket.gethostname(), "evil.example", "")
        assert [server.is_called(name) for name in called] == [True, True, True, True, False, False]


def test_two_names_or_none_are_refused(server: Server) -> None:
    two = raw(server, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")
    assert int(two.split()[1]) in (400, 421)
    assert int(raw(server, b"GET / HTTP/1.0\r\n\r\n").split()[1]) in (400, 421)


def test_who_connects_and_asks_nothing_is_let_go(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Impatient, "PATIENCE", 0.2)
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        assert connection.recv(100) == b""


def test_who_has_said_all_is_answered(server: Server) -> None:
    assert raw(server, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 200")


PIECES = st.sampled_from(
    [
        *(
            "..",
            ".",
            "%2e%2e",
            "%252e%252e",
            "..%2f",
            "%2f",
            "\\",
            "%5c",
            "//",
            "%00",
            "\x00",
            "file:",
            "~",
            "c:",
            "?",
            "#",
        ),
        *("a", "group", "linked", "results.json", "secret.json", "outside", "elsewhere", "etc", "passwd", "&run="),
    ]
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.one_of(PIECES, st.text(max_size=4)), max_size=8),
    start=st.sampled_from(["/", "//", "/run?run=", "/compare?run=a&run=", "/live?run=", "/live.json?run=", ""]),
    quoted=st.booleans(),
)
def test_no_address_reads_anything_outside(
    server: Server, root: Path, pieces: list[str], start: str, quoted: bool
) -> None:
    path = "/".join(pieces)
    target = start + (quote(path) if quoted else path)
    answer = raw(server, f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("utf-8", "surrogatepass"))
    assert SECRET.encode() not in answer
    assert b"root:x:" not in answer
    assert str(root).encode() not in answer
    assert int(answer.split()[1]) in (200, 202, 400, 404, 421, 500)
    assert get(server, "/nothing")[0] == 404  # it is still there


@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.json", "a/../../outside", "a\0", "%2e%2e/outside", "./a"])
def test_no_name_of_a_run_is_a_path(server: Server, name: str) -> None:
    for page in ("run", "live", "live.json"):
        assert get(server, f"/{page}?{urlencode({'run': name})}")[0] == 404


@pytest.mark.slow
def test_nothing_is_written(server: Server, root: Path) -> None:
    def state() -> dict[Path, tuple[int, int]]:
        return {path: (found.st_mtime_ns, found.st_size) for path in root.rglob("*") for found in [path.lstat()]}

    before = state()
    for target in ("/", "/live?run=a", "/live.json?run=a", "/live.json?run=halted"):
        assert get(server, target)[0] == 200
    built(server, "/run?run=group/b")
    built(server, "/compare?run=a&run=group/b")
    get(server, "/run?run=damaged")
    assert state() == before


@pytest.mark.slow
def test_a_fault_that_only_a_page_finds_is_shown_in_the_index_too(server: Server, root: Path) -> None:
    folder = finished_run(root / "mixed", side=4)
    vectors = np.zeros((5, 3), dtype=np.float32)
    save_file({"vectors": vectors}, RunFolder(folder).embedding("correlation").model)
    try:
        assert '<a href="/run?run=mixed">' in get(server, "/")[2]
        until = time.monotonic() + 60
        while (answer := get(server, "/run?run=mixed"))[0] == 202 and time.monotonic() < until:
            time.sleep(0.2)
        assert answer[0] == 500
        assert "must be of one run" in answer[2]
        index = get(server, "/")[2]
        assert "must be of one run" in index
        assert '<a href="/run?run=mixed">' not in index
        assert str(root) not in answer[2] + index
    finally:
        shutil.rmtree(folder)


# The verb


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "does not exist"),
        (lambda folder: folder.write_text("x"), "is a file"),
        (lambda folder: folder.mkdir(), "holds no run"),
    ],
)
def test_a_folder_without_runs_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Any, said: str
) -> None:
    make(tmp_path / "runs")
    assert main(["serve", str(tmp_path / "runs"), "--port", "0"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken_is_named(server: Server, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(root), "--port", str(server.server_port)]) == 2
    assert f"port: {server.server_port}" in capsys.readouterr().err


@pytest.mark.parametrize(("host", "port", "argument"), [("127.0.0.1", 70_000, "port"), ("no.such.invalid", 0, "host")])
def test_an_address_that_cannot_be_had_is_refused(root: Path, host: str, port: int, argument: str) -> None:
    with pytest.raises(MaedError) as refused, started(root, host=host, port=port, settings=SMALL):
        pass
    assert refused.value.argument == argument


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_cleanly_while_a_page_is_built(root: Path, tmp_path: Path, how: signal.Signals) -> None:
    command = [str(SCRIPT), "serve", str(root), "--port", "0"]
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, **pipes, env=environment) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"6 runs of .* at http://127\.0\.0\.1:(\d+)/", line)
            assert found, line
            connection = http.client.HTTPConnection("127.0.0.1", int(found[1]), timeout=30)
            connection.request("GET", "/run?run=a")
            assert connection.getresponse().status in (200, 202)
            process.send_signal(how)
            out, error = process.communicate(timeout=60)
        finally:
            process.kill()  # nobody else would end it
    assert (process.returncode, error) == (0, "")
    assert out.strip() == "stopped"
    assert list(tmp_path.iterdir()) == []


# In the browser


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    """A browser, of which nothing goes wrong and which asks no other host."""
    resize(browser, 1280)
    browser.execute_cdp_cmd("Network.enable", {})
    browser.get_log("performance")
    yield browser
    browser.get("about:blank")
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert any(url.startswith("http://127.0.0.1:") for url in asked)
    assert [url for url in asked if not url.startswith(("http://127.0.0.1:", "data:", "blob:", "about:"))] == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def wait(browser: Any, condition: str, patience: float = 60) -> Any:
    """Wait until a script's value is true, and return it."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if value := browser.execute_script(f"return {condition}"):
            return value
        time.sleep(0.1)
    raise TimeoutError(f"{condition}: {browser.execute_script('return document.body.innerText')[:500]}")


NAMES = "[...document.querySelectorAll('#runs tbody tr')].map(row => row.dataset.run)"
READY = "performance.getEntriesByName('explorer-ready').length"


def test_the_index_sorts_and_opens_a_run(page: Any, server: Server) -> None:
    page.get(server.url)
    heads = "[...document.querySelectorAll('#runs thead th')]"
    page.execute_script(f"{heads}.find(head => head.textContent.startsWith('Recall')).querySelector('button').click()")
    assert page.execute_script(f"return {NAMES}")[:2] == ["a", "group/b"]
    page.execute_script(f"{heads}.find(head => head.textContent.startsWith('Best')).querySelector('button').click()")
    assert page.execute_script(f"return {NAMES}")[:2] == ["group/b", "a"]
    last = f"{heads}.find(head => head.textContent.startsWith('Last')).querySelector('button')"
    page.execute_script(f"{last}.click(); {last}.click()")
    assert page.execute_script(f"return {NAMES}")[0] == "halted"  # 2 hours, which are more than 5 s
    page.execute_script("document.querySelector('a[href=\"/run?run=group%2Fb\"]').click()")
    wait(page, READY)
    assert page.execute_script("return document.querySelector('#geometry tbody td').textContent") == "–"
    page.execute_script("document.querySelector('.kicker a').click()")
    wait(page, "document.getElementById('runs')")


def test_two_ticked_runs_are_compared(page: Any, server: Server) -> None:
    page.get(server.url)
    assert page.execute_script("return document.getElementById('compare').disabled")
    for name in ("a", "group/b"):
        page.execute_script("document.querySelector(`tr[data-run='${arguments[0]}'] input`).click()", name)
    assert page.execute_script("return document.getElementById('ticked').textContent") == "2 runs ticked."
    page.execute_script("document.getElementById('compare').click()")
    wait(page, READY)
    rows = page.execute_script(
        "return [...document.querySelectorAll('#compared tbody th')].map(cell => cell.textContent)"
    )
    assert set(rows) == {"a", "group/b"}


def test_the_index_shows_a_new_run_and_keeps_ticks_order_and_focus(page: Any, server: Server, root: Path) -> None:
    page.get(server.url)
    page.execute_script("window.mine = true; document.querySelector('tr[data-run=a] input').click()")
    page.execute_script("document.querySelector('tr[data-run=a] input').focus()")
    try:
        begun_run(root / "z new")
        wait(page, f"{NAMES}.includes('z new')")
        assert page.execute_script("return window.mine && document.querySelector('tr[data-run=a] input').checked")
        assert page.execute_script("return document.activeElement.closest('tr').dataset.run") == "a"
    finally:
        shutil.rmtree(root / "z new")
    wait(page, f"!{NAMES}.includes('z new')")


def test_names_and_sources_show_as_text(page: Any, server: Server) -> None:
    page.get(server.url)
    assert HOSTILE in page.execute_script("return document.getElementById('runs').innerText")
    assert page.execute_script("return document.querySelectorAll('#runs b, #runs img').length") == 0
    page.get(f"{server.url}live?run={quote(BOLD)}")
    wait(page, "document.getElementById('sentence').textContent")
    assert page.execute_script("return document.querySelector('h1').textContent.trim()") == BOLD
    assert page.execute_script("return window.hacked") is None


@pytest.mark.slow
def test_a_run_is_watched_until_it_ends(page: Any, tmp_path: Path) -> None:
    folder = begun_run(tmp_path / "runs" / "new", steps=300)
    for server in serving(tmp_path / "runs"):
        page.get(f"{server.url}live?run=new")
        page.execute_script("window.mine = true")  # gone if the page were loaded anew
        assert "Nothing was logged of it yet" in wait(page, "document.getElementById('nothing').innerText")
        log(folder, 50, 100, of=300)
        wait(page, "document.getElementById('sentence').textContent.startsWith('Autoencoder, step 100 of 300')")
        curve = "document.getElementById('plot-loss').data"
        assert wait(page, f"{curve} && {curve}[0].x.length") == 2
        log(folder, 50, 100, 150, 200, of=300, validation=True)
        wait(page, f"{curve}[0].x.length === 4 && {curve}.length === 2")
        assert page.execute_script("return document.getElementById('share').value") == pytest.approx(2 / 3)
        assert page.execute_script("return document.querySelector('#parts tbody td').textContent") == "going on"
        assert not page.execute_script("return document.getElementById('ended').checkVisibility()")
        finished_run(folder, side=5)
        wait(page, "document.getElementById('state').textContent === 'done'")
        assert page.execute_script("return document.getElementById('sentence').textContent").startswith(
            "This run has ended"
        )
        assert page.execute_script("return window.mine")
        page.execute_script("document.querySelector('#ended a').click()")
        wait(page, READY)
        page.get("about:blank")


@pytest.mark.parametrize("width", [320, 390, 768])
@pytest.mark.parametrize("target", ["", "live?run=halted", "run?run=damaged"])
def test_a_narrow_screen_does_not_scroll_sideways(page: Any, server: Server, width: int, target: str) -> None:
    resize(page, width)
    page.get(server.url + target)
    time.sleep(1)
    assert fits(page, width)
    page.get_log("browser")  # that a damaged run is answered with 500 is logged as an error


def test_dark_colors_follow_the_system(page: Any, server: Server) -> None:
    page.get(server.url)
    ground = "return getComputedStyle(document.body).backgroundColor"
    colors = {}
    for name in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": name}]
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        colors[name] = page.execute_script(ground)
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})
    assert colors == {"light": "rgb(253, 253, 251)", "dark": "rgb(21, 23, 26)"}


def test_every_control_of_the_index_has_a_name(page: Any, server: Server) -> None:
    page.get(server.url)
    nameless = page.execute_script(
        "return [...document.querySelectorAll('input, button, a')]"
        ".filter(e => !(e.getAttribute('aria-label') || e.textContent.trim())).length"
    )
    assert nameless == 0


def test_a_server_that_is_gone_is_said_to_be(page: Any, tmp_path: Path) -> None:
    begun_run(tmp_path / "runs" / "new")
    for server in serving(tmp_path / "runs"):
        page.get(server.url)
        url = server.url
    wait(page, "document.getElementById('trouble').checkVisibility()")
    assert "does not answer" in page.execute_script("return document.getElementById('trouble').textContent")
    assert url.startswith("http://127.0.0.1:")
    page.get_log("browser")  # that the connection was refused
