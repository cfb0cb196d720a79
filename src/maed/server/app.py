"""`maed serve`: the pages of many runs over local http. It reads below one folder, and writes nothing there."""

from __future__ import annotations

import errno
import ipaddress
import os
import signal
import socket
import sys
import tempfile
import threading
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from typing import Any
from urllib.parse import urlsplit

from maed.errors import MaedError
from maed.report import page
from maed.server.runs import find_runs
from maed.server.site import Answer, Site
from maed.settings import ReportSettings

_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


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
