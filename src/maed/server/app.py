"""`maed serve`: the pages of many runs over local http. It reads below one folder, and writes nothing there."""

from __future__ import annotations

import errno
import ipaddress
import itertools
import json
import multiprocessing
import os
import queue
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import markupsafe

from maed.errors import MaedError
from maed.records import Score
from maed.report import page
from maed.report.explorer import charts
from maed.report.tables import duration
from maed.run_folder import RunFolder
from maed.server.progress import Part, curve
from maed.server.runs import Overview, find_runs, overview
from maed.settings import ReportSettings

_HERE = Path(__file__).parent / "served"

_PATIENCE = 1.0
"""Seconds that a request waits for a page before it says that the page is being built."""

_FRESH = 60.0
"""Seconds for which a page is shown though its run has changed: one that changes all the time is shown too."""

_PAGES = 16
"""Most pages that are kept."""

_MOST = 8
"""Most runs side by side."""

_LISTED = 200
"""Most parts of a run that its progress lists."""

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_HTML, _JSON = "text/html; charset=utf-8", "application/json"


def serve(
    root: Path,
    *,
    host: str,
    port: int,
    settings: ReportSettings,
    say: Callable[[str], None],
    open_browser: bool = False,
) -> None:
    """Serve the runs in `root` until Ctrl-C.

    Args:
        root: a run folder, or a folder that has runs below it.
        host: address to listen at.
        port: 0 for any that is free.
        settings: what pages of runs show.
        say: told where the server is.
        open_browser: whether to open the index in the user's browser.

    Raises:
        MaedError: no such folder, no run in it, or an address that cannot be listened at.
    """
    with started(root, host=host, port=port, settings=settings) as server, _terminated_as_interrupted():
        try:
            count = len(find_runs(server.site.root))
            say(f"{count} run{'' if count == 1 else 's'} of {root} at {server.url} (Ctrl-C ends)")
            if not server.local:
                say("everybody who reaches this machine can read them: there is no password")
            if open_browser:
                webbrowser.open(server.url)
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            say("stopped")


@contextmanager
def started(root: Path, *, host: str, port: int, settings: ReportSettings) -> Iterator[Server]:
    """A server that listens, for `serve_forever` in this thread or another; its temporary folder goes with it."""
    if not root.exists():
        raise MaedError(f"folder: {root} is not there; it may be a folder that `maed run` wrote, or one of many")
    if not root.is_dir():
        raise MaedError(f"folder: {root} is a file; it may be a folder that `maed run` wrote, or one of many")
    if not find_runs(root.resolve()):
        raise MaedError(f"folder: {root} holds no run; it may be a folder that `maed run` wrote, or one of many")
    if not 0 <= port < 2**16:
        raise MaedError(f"port: {port}; it may be 1 to 65535, or 0 for any that is free")
    with tempfile.TemporaryDirectory(prefix="maed-serve-", ignore_cleanup_errors=True) as scratch:
        server = _listening(host, port, Site(root.resolve(), settings, Path(scratch)))
        try:
            yield server
        finally:
            server.server_close()
            server.site.pages.close()


def _listening(host: str, port: int, site: Site) -> Server:
    try:
        return Server(host, port, site)
    except socket.gaierror:
        raise MaedError(f"host: {host!r} is not known; it may be 127.0.0.1") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise MaedError(f"port: {port} is taken; --port may be another one, or 0 for any that is free") from None
        if error.errno == errno.EACCES:
            raise MaedError(f"port: {port} is not for you; --port may be 1024 or more") from None
        raise MaedError(f"host: {host!r}: {error.strerror or error}; it may be 127.0.0.1") from None


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Let SIGTERM end the server as Ctrl-C does, so that its temporary folder is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@dataclass(frozen=True)
class Answer:
    """What is sent for a request.

    Args:
        body: text, or its bytes.
        status: of HTTP.
        kind: content type.
        scripts: which alone may run.
        headers: further ones.
    """

    body: str | bytes
    status: HTTPStatus = HTTPStatus.OK
    kind: str = _HTML
    scripts: tuple[str, ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)


class Site:
    """The pages by their addresses. Runs are looked up among those that were found: no address becomes a path.

    Args:
        root: resolved; nothing outside of it is read.
        settings: what pages of runs show.
        scratch: an empty folder that may be written in.
    """

    def __init__(self, root: Path, settings: ReportSettings, scratch: Path) -> None:
        self.root, self.pages = root, Pages(settings, scratch)
        self._templates = page.templates(_HERE)
        self._templates.filters["ago"] = ago
        self._templates.globals["query"] = lambda *names: urlencode([("run", name) for name in names])
        self._addresses: dict[str, Callable[[list[str]], Answer]] = {
            "/": self._index,
            "/run": self._run,
            "/compare": self._compare,
            "/live": self._live,
            "/live.json": self._progress,
        }

    def answer(self, target: str) -> Answer:
        """What a GET of `target`, a path with its query, is answered with."""
        try:
            parts = urlsplit(target)
            names = parse_qs(parts.query, errors="strict").get("run", []) if parts.query else []
        except ValueError:  # not an address, or too many fields
            return self.message(HTTPStatus.BAD_REQUEST, "This address cannot be read.")
        found = self._addresses.get(parts.path)
        if found is None:
            return self.message(HTTPStatus.NOT_FOUND, "There is no such page.")
        return found(names)

    def message(
        self,
        status: HTTPStatus,
        text: str,
        *,
        title: str = "",
        run: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """A page that says one thing, and leads to the progress of `run` where one is given."""
        title = title or status.phrase
        return self._page("message.html.j2", status=status, headers=headers or {}, title=title, text=text, run=run)

    def _index(self, names: list[str]) -> Answer:
        runs = [self._seen(name, folder) for name, folder in find_runs(self.root).items()]
        going = sum(run.state == "going on" for run in runs)
        scripts = (page.script("page.js"), page.script("index.js", _HERE))
        return self._page(
            "index.html.j2", scripts, title=self.root.name or str(self.root), runs=runs, going=going, most=_MOST
        )

    def _run(self, names: list[str]) -> Answer:
        if len(names) != 1:
            return self.message(HTTPStatus.BAD_REQUEST, "The address names no run, or more than one.")
        return self._explorer(names)

    def _compare(self, names: list[str]) -> Answer:
        names = list(dict.fromkeys(names))
        if not 2 <= len(names) <= _MOST:
            return self.message(HTTPStatus.BAD_REQUEST, f"Two to {_MOST} runs can be compared: tick them in the list.")
        return self._explorer(names)

    def _explorer(self, names: list[str]) -> Answer:
        """The page of the first run, the others beside it; one that takes long is announced, and asked for again."""
        runs = find_runs(self.root)
        seen = [self._seen(name, runs[name]) for name in names if name in runs]
        if len(seen) < len(names):
            return self._unknown()
        for run in seen:
            if run.state == "damaged":
                title = f"{run.name} is damaged"
                return self.message(HTTPStatus.INTERNAL_SERVER_ERROR, run.reason, title=title)
            if not run.explorable:
                text = "Nothing of it can be explored yet: no stage is finished."
                return self.message(HTTPStatus.OK, text, title=run.name, run=run.name)
        built = self.pages.get({run.name: runs[run.name] for run in seen}, "".join(run.signature for run in seen))
        if built is None:
            text = "What other reductions and estimators make of it is computed once, which can take a minute."
            headers = {"Refresh": "2"}
            title = f"The page of {' and '.join(names)} is being built"
            return self.message(HTTPStatus.ACCEPTED, text, title=title, headers=headers)
        if isinstance(built, str):
            title = f"{' and '.join(names)}: no page can be made"
            return self.message(HTTPStatus.INTERNAL_SERVER_ERROR, built, title=title)
        return Answer(built, scripts=(*map(page.script, page.SCRIPTS), page.plotly()))

    def _live(self, names: list[str]) -> Answer:
        run = self._one(names)
        if run is None:
            return self._unknown()
        scripts = (page.script("page.js"), page.script("live.js", _HERE))
        data = page.inlined({"live": f"/live.json?{urlencode({'run': run.name})}"})
        return self._page("live.html.j2", scripts, plotly=page.plotly(), title=run.name, run=run, data=data)

    def _progress(self, names: list[str]) -> Answer:
        run = self._one(names)
        if run is None:
            return Answer("{}", HTTPStatus.NOT_FOUND, _JSON)
        return Answer(json.dumps(progress(run, find_runs(self.root)[run.name])), kind=_JSON)

    def _one(self, names: list[str]) -> Overview | None:
        runs = find_runs(self.root)
        return self._seen(names[0], runs[names[0]]) if len(names) == 1 and names[0] in runs else None

    def _seen(self, name: str, folder: Path) -> Overview:
        """A run as it is; damaged where no page could be made of just what is there."""
        run = overview(self.root, name, folder)
        wrong = self.pages.wrong((name,), run.signature)
        if wrong and run.state != "damaged":
            return Overview(name, "damaged", wrong, written=run.written, signature=run.signature)
        return run

    def _unknown(self) -> Answer:
        return self.message(HTTPStatus.NOT_FOUND, "There is no such run in the folder that is served.")

    def _page(
        self,
        template: str,
        scripts: tuple[str, ...] = (),
        *,
        plotly: str | None = None,
        status: HTTPStatus = HTTPStatus.OK,
        headers: Mapping[str, str] | None = None,
        **values: Any,
    ) -> Answer:
        styles = [page.style("explorer.css"), page.style("served.css", _HERE)]
        given = {"styles": styles, "scripts": scripts, "plotly": plotly, "data": markupsafe.Markup("{}"), **values}
        allowed = (*scripts, *([plotly] if plotly else []))
        text = self._templates.get_template(template).render(given)
        return Answer(text, status, scripts=allowed, headers=headers or {})


def progress(run: Overview, folder: Path) -> dict[str, Any]:
    """What the page of a run that is going on shows: plain values, and plotly figures of what is trained now."""
    current = run.current if run.state in ("going on", "stopped") else None
    shown = current or max(run.parts, key=lambda part: part.written, default=None)
    points = curve(folder, shown) if shown is not None and run.state != "damaged" else []
    loss = charts.training_curves({"": points})
    if loss is not None and shown is not None and shown.name != "autoencoder":
        loss["layout"]["yaxis"]["title"] = {"text": "loss"}
    known = current is not None and current.step is not None and current.steps
    return {
        "state": run.state,
        "sentence": _sentence(run, current),
        "explorable": run.explorable,
        "share": current.step / current.steps if known else None,  # type: ignore[union-attr,operator]
        "title": "" if shown is None else shown.title,
        "rows": [_row(part, run.state) for part in run.parts[-_LISTED:]],
        "loss": loss,
        "accuracy": charts.accuracy_curves({"": [Score(shown.title if shown else "", 0, history=points)]}),
    }


def _sentence(run: Overview, current: Part | None) -> str:
    """How a run is doing."""
    if run.state == "damaged":
        return run.reason
    if run.state == "done":
        return f"This run has ended: {run.stage}."
    if current is None:
        what = "Between two stages"
    else:
        left = f"; {current.remaining}" if current.remaining and run.state == "going on" else ""
        what = f"{current.title}{current.progress}{left}"
    if run.state == "stopped":
        return f"{what}. Nothing was written for {ago(run.written).removesuffix(' ago')}: it was stopped, or is stuck."
    return f"{what}."


def _row(part: Part, state: str) -> list[str]:
    """A part as cells: what it is, its state, its step, its time."""
    if part.finished:
        return [part.title, "done", "", "" if part.seconds is None else duration(part.seconds)]
    left = part.remaining if state == "going on" else ""
    return [part.title, state, part.progress.removeprefix(", "), left]


def ago(moment: float) -> str:
    """How long a moment, in seconds since 1970, is past, in words."""
    if not moment:
        return "–"
    seconds = max(0.0, time.time() - moment)
    for size, name in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {name}{'' if count == 1 else 's'} ago"
    return f"{int(seconds)} s ago"


@dataclass
class _Built:
    """A page of runs, or why there is none."""

    signature: str
    path: Path | None = None
    wrong: str = ""
    at: float = 0.0


class Pages:
    """Pages of runs, built one at a time by a process of their own, and kept until a run changes.

    Args:
        settings: what they show.
        scratch: a folder for pages, and for what is computed for them.
    """

    def __init__(self, settings: ReportSettings, scratch: Path) -> None:
        self.settings, self.scratch = settings, scratch
        self._built: dict[tuple[str, ...], _Built] = {}
        self._waiting: set[tuple[str, ...]] = set()
        self._changed = threading.Condition()
        self._jobs: queue.Queue[tuple[dict[str, Path], str] | None] = queue.Queue()
        self._builder: tuple[BaseProcess, Connection] | None = None
        self._closed = False
        threading.Thread(target=self._work, daemon=True).start()

    def get(self, folders: dict[str, Path], signature: str) -> bytes | str | None:
        """A page; what is wrong, in a sentence; or None where it is being built.

        Args:
            folders: of the runs, by their names.
            signature: changes with what they hold.
        """
        key = tuple(folders)
        with self._changed:
            if not self._usable(key, signature) and key not in self._waiting:
                self._waiting.add(key)
                self._jobs.put((folders, signature))
            if not self._changed.wait_for(lambda: self._usable(key, signature), _PATIENCE):
                return None
            found = self._built.pop(key)
            self._built[key] = found  # the last that was asked for is the last to go
            return found.wrong if found.path is None else found.path.read_bytes()

    def wrong(self, key: tuple[str, ...], signature: str) -> str:
        """Why no page could be made of runs that have not changed since; empty where it was not tried, or was."""
        with self._changed:
            found = self._built.get(key)
            return found.wrong if found is not None and found.signature == signature else ""

    def close(self) -> None:
        """Build no more, and end the process that does; the scratch folder can go then."""
        with self._changed:
            self._closed = True
            self._jobs.put(None)
            builder = self._builder
        if builder is not None:
            builder[0].kill()
            builder[0].join()

    def _usable(self, key: tuple[str, ...], signature: str) -> bool:
        found = self._built.get(key)
        if found is None or found.signature == signature:
            return found is not None
        return found.path is not None and time.monotonic() - found.at < _FRESH

    def _work(self) -> None:
        """Have one page after the other built."""
        while (job := self._jobs.get()) is not None:
            folders, signature = job
            try:
                found = self._build(folders)
            except (EOFError, OSError):  # killed, as for its memory
                self._builder, found = None, "the process that was to make its page was killed; is memory short?"
            if self._closed:
                return
            wrong = _without_paths(found, folders) if isinstance(found, str) else ""
            path = found if isinstance(found, Path) else None
            self._keep(tuple(folders), _Built(signature, path, wrong, time.monotonic()))

    def _build(self, folders: dict[str, Path]) -> Path | str:
        """The file of a page, or what is wrong."""
        with self._changed:
            if self._builder is None and not self._closed:
                self._builder = _start_builder(self.settings, self.scratch)
            builder = self._builder
        if builder is None:
            raise EOFError
        builder[1].send(folders)
        found: Path | str = builder[1].recv()
        return found

    def _keep(self, key: tuple[str, ...], built: _Built) -> None:
        """Take a page in the place of an older one, and of the one that was not asked for longest."""
        with self._changed:
            self._waiting.discard(key)
            gone = [self._built.pop(key, None)]
            self._built[key] = built
            if len(self._built) > _PAGES:
                gone.append(self._built.pop(next(iter(self._built))))
            for old in gone:
                if old is not None and old.path is not None:
                    old.path.unlink(missing_ok=True)
            self._changed.notify_all()


def _start_builder(settings: ReportSettings, scratch: Path) -> tuple[BaseProcess, Connection]:
    """A process that builds pages, so that the server answers meanwhile and can end at once; and the line to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_build_pages, args=(theirs, settings, scratch), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def _build_pages(line: Connection, settings: ReportSettings, scratch: Path) -> None:
    """What that process does: for each dictionary of run folders, send back the file of a page, or what is wrong."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches it too; the server ends it
    for number in itertools.count():
        try:
            folders = line.recv()
        except EOFError:
            return
        try:
            line.send(_built_page(folders, settings, scratch, scratch / f"page-{number}-{os.getpid()}.html"))
        except MaedError as error:
            line.send(str(error))
        except Exception as error:  # a fault of ours, or a file that no check foresaw: the server stays up
            line.send(f"{type(error).__name__}: {error}")


def _built_page(folders: dict[str, Path], settings: ReportSettings, scratch: Path, path: Path) -> Path:
    """Write a page to `path`; what the run's own page has computed before is taken from its folder."""
    first = next(iter(folders.values()))
    kept = scratch / "kept" / first.relative_to(first.anchor)
    there, here = RunFolder(first).views, RunFolder(kept).views
    if there.is_file() and not here.is_file():
        here.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(there, here)
    path.write_text(page.served_page(folders, settings, kept), encoding="utf-8")
    return path


def _without_paths(text: str, folders: Mapping[str, Path]) -> str:
    """A message that names runs as the index does, not by where they lie on this machine."""
    for name, folder in folders.items():
        text = text.replace(str(folder), name)
    return text


class Server(ThreadingHTTPServer):
    """Listens, and knows by which names it may be called."""

    daemon_threads = True
    allow_reuse_address = os.name == "posix"  # elsewhere it would let two servers have one port

    def __init__(self, host: str, port: int, site: Site) -> None:
        self.site, self.host = site, host
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), Handler)
        self.local = ipaddress.ip_address(self.server_address[0]).is_loopback  # type: ignore[arg-type]

    @property
    def url(self) -> str:
        """Where the index is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_address[1]}/"

    def server_bind(self) -> None:
        """Bind; http.server would look its own name up, which can take seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.host, int(self.server_address[1])

    def is_called(self, header: str) -> bool:
        """Whether a Host header is one of ours. Another name may have been made to point here (DNS rebinding).

        Ports are not compared, for a tunnel may have another one. Nobody can make numbers point elsewhere.
        """
        try:
            name = urlsplit(f"//{header}").hostname
        except ValueError:
            return False
        if name is None or any(character in header for character in "/?#@\\"):
            return False
        if name in ("localhost", self.host.lower()):
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return not self.local and name == socket.gethostname().lower()
        return address.is_loopback or not self.local

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over clients that went away."""
        if not isinstance(sys.exception(), ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD; the connection ends with each answer."""

    server: Server
    timeout = 30
    server_version = "maed"
    sys_version = ""

    def do_GET(self) -> None:
        """Send a page."""
        self._answer(send=True)

    def do_HEAD(self) -> None:
        """Send what is said of a page."""
        self._answer(send=False)

    def __getattr__(self, name: str) -> Callable[[], None]:
        """Refuse all other methods."""
        if name.startswith("do_"):
            return self._refuse_method
        raise AttributeError(name)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: who asks is the user."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer what could not even be read."""
        status = HTTPStatus(code)
        self._send(Answer(f"{status.phrase}\n", status, "text/plain; charset=utf-8"), send=self.command != "HEAD")

    def _answer(self, *, send: bool) -> None:
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or not self.server.is_called(hosts[0].strip()):
            text = "This server does not go by that name.\n"
            answer = Answer(text, HTTPStatus.MISDIRECTED_REQUEST, "text/plain; charset=utf-8")
        else:
            answer = self.server.site.answer(self.path)
        self._send(answer, send=send)

    def _refuse_method(self) -> None:
        text, headers = "Only GET and HEAD: nothing can be changed here.\n", {"Allow": "GET, HEAD"}
        answer = Answer(text, HTTPStatus.METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", headers=headers)
        self._send(answer, send=True)

    def _send(self, answer: Answer, *, send: bool) -> None:
        body = answer.body.encode("utf-8", "replace") if isinstance(answer.body, str) else answer.body
        self.send_response(answer.status)
        policy = f"{page.policy(answer.scripts)}; connect-src 'self'; frame-ancestors 'none'"
        own = {"Content-Type": answer.kind, "Content-Length": str(len(body)), "Content-Security-Policy": policy}
        for name, value in {**own, **_HEADERS, **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if send:
            self.wfile.write(body)
