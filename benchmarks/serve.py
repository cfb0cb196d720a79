"""What `maed serve` takes under many requests at a time, malformed ones among them: memory, latency, and what gets out.

    python benchmarks/serve.py [--requests 1000] [--rounds 3]

Serves made-up runs on the loopback in a process of its own and sends all requests of a round at once, each over a
connection of its own. Every answer is searched for what lies beside the folder that is served, and nothing may have
been written in it. Exits with 1 where something got out, was written, or stayed without an answer. Needs Linux (/proc).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from urllib.parse import quote

from explorer import synthetic_run
from maed.engine.progress import ProgressFile
from maed.run_folder import RunFolder

SECRET = "what lies outside of the folder"
HOST = b"Host: localhost\r\n"
WELL_FORMED = [
    b"GET %s HTTP/1.1\r\n%s\r\n" % (target, HOST) for target in (b"/", b"/live.json?run=going", b"/run?run=a")
]
MALFORMED = [
    *(
        f"GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        for target in (
            "/../secret.txt",
            "/run?run=../secret.txt",
            f"/run?run={quote('../', safe='')}secret.txt",
            "/live.json?run=%2e%2e/%2e%2e/etc/passwd",
            "/linked",
            "/run?run=linked",
            "//etc/passwd",
            "/%00",
            "/?" + "&".join("run=a" for _ in range(5000)),
        )
    ),
    b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"Host: evil.example\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 200_000 + b"\r\n\r\n",
    b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 999999999\r\n\r\n" + b"x" * 50_000,
    b"GET / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nzz\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
    b"\x00" * 1000,
    b"nonsense\r\n\r\n",
]
CUT_SHORT = b"GET / HTTP/1.1\r\nHost: loc"


def main() -> int:
    """Serve, ask, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=1000, help="at a time")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # inherited by the server
    with tempfile.TemporaryDirectory() as above:
        root = Path(above) / "runs"
        synthetic_run(root / "a", 8)
        (Path(above) / "secret.txt").write_text(SECRET)
        (root / "linked").symlink_to(Path(above) / "secret.txt")
        going = RunFolder(root / "going").autoencoder
        shutil.copytree(RunFolder(root / "a").autoencoder.path, going.path)
        going.model.unlink(missing_ok=True)
        told = ProgressFile(going, 10_000)
        told.add(50, {"train_loss": 1.0})
        told.stepped(50)
        before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
        command = [sys.executable, "-m", "maed", "serve", str(root), "--port", "0", "--report.reductions=[]"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
                found = asyncio.run(measure(port, process.pid, given.requests, given.rounds))
            finally:
                process.terminate()
                _, error = process.communicate(timeout=60)
        found["written"] = before != {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
        found["stderr"] = error
    print(json.dumps(found, indent=2))
    return int(bool(found["leaked"] or found["written"] or found["unanswered"] or error))


async def measure(port: int, pid: int, requests: int, rounds: int) -> dict[str, object]:
    """Ask in rounds, and look at the server's memory."""
    while b" 202 " in (await ask(port, WELL_FORMED[2]))[0][:20]:  # its page is built once
        await asyncio.sleep(0.5)
    text, _ = await ask(port, WELL_FORMED[2])
    assert b" 200 " in text[:20], text[-3000:]
    idle = memory(pid)
    answers: list[tuple[bytes, float, bool]] = []
    peak = idle
    for _ in range(rounds):
        sent = [(WELL_FORMED if index % 2 else MALFORMED) for index in range(requests)]
        tasks = [asyncio.create_task(ask(port, kind[index // 2 % len(kind)])) for index, kind in enumerate(sent)]
        cut = [asyncio.create_task(ask(port, CUT_SHORT, leave=True)) for _ in range(50)]
        while not all(task.done() for task in tasks):
            peak = max(peak, memory(pid))
            await asyncio.sleep(0.05)
        answers += [(*task.result(), kind is WELL_FORMED) for task, kind in zip(tasks, sent, strict=True)]
        await asyncio.gather(*cut)
    seconds = sorted(took for _, took, fine in answers if fine)
    statuses = {
        name: Counter(
            text.split(b" ", 2)[1].decode() if text.startswith(b"HTTP/") else "closed"
            for text, _, fine in answers
            if fine == wanted
        )
        for name, wanted in (("well-formed", True), ("malformed", False))
    }
    cuts = statistics.quantiles(seconds, n=100)
    return {
        "requests at a time": requests,
        "rounds": rounds,
        "statuses": statuses,
        "seconds": {"p50": cuts[49], "p95": cuts[94], "p99": cuts[98], "most": seconds[-1]},
        "MiB of the server": {"idle": idle, "peak": peak, "after": memory(pid)},
        "leaked": sum(SECRET.encode() in text or b"root:x:" in text for text, _, _ in answers),
        "unanswered": sum(not text for text, _, fine in answers if fine),
    }


async def ask(port: int, request: bytes, *, leave: bool = False) -> tuple[bytes, float]:
    """The whole answer to some bytes, and the seconds until it was there."""
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    text = b""
    try:
        writer.write(request)
        await writer.drain()
        if leave:
            await asyncio.sleep(0.2)
        else:
            text = await asyncio.wait_for(reader.read(-1), timeout=120)
    except (ConnectionError, TimeoutError):
        pass  # cut off in the middle of what is too long
    finally:
        writer.close()
    return text, time.perf_counter() - begun


def memory(pid: int) -> float:
    """MiB that a process holds, without those that build pages for it."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


if __name__ == "__main__":
    sys.exit(main())
