"""`maed serve`: the pages of many runs over local http. It reads below one folder, and writes nothing there."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import signal
import socket
import tempfile
import threading
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from maed.errors import MaedError
from maed.server.runs import find_runs
from maed.server.site import Site, answer
from maed.settings import ReportSettings

_HEADERS = {
    "Server": "maed",
    "Cache-Control": "no-store",
    "Connection": "close",  # with each answer: nobody keeps one of them from others
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}

_MOST = 2_000
"""Most connections at a time; what comes beyond is answered 503 at once."""


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
        host: Address to listen at.
        port: 0 for any that is free.
        settings: Settings of the runs' pages.
        say: Prints a line, such as the address of the server.
        open_browser: True to open the index in the user's browser.

    Raises:
        MaedError: No such folder, no run in it, or an address that cannot be listened at.
    """
    with started(root, host=host, port=port, settings=settings) as server, _terminated_as_interrupted():
        try:
            count = len(find_runs(server.site.root))
            say(f"{count} run{'' if count == 1 else 's'} of {root} at {server.url} (Ctrl-C ends)")
            if not server.local:
                say("anyone who can reach this machine can read them: there is no password")
            if open_browser:
                webbrowser.open(server.url)
            server.serve_forever()
        except KeyboardInterrupt:
            say("stopped")


@contextmanager
def started(root: Path, *, host: str, port: int, settings: ReportSettings) -> Iterator[Server]:
    """A server that listens, for `serve_forever` in this thread or another; its temporary folder goes with it."""
    what = "folder must be one that `maed run` wrote, or contain such folders"
    if not root.exists():
        raise MaedError(f"{what}; {root} does not exist")
    if not root.is_dir():
        raise MaedError(f"{what}; {root} is a file")
    if not find_runs(root.resolve()):
        raise MaedError(f"{what}; {root} holds no run")
    if not 0 <= port < 2**16:
        raise MaedError(f"port must be 1 to 65535, or 0 for any free port, got {port}")
    with (
        tempfile.TemporaryDirectory(prefix="maed-serve-", ignore_cleanup_errors=True) as scratch,
        _listening(host, port) as listener,
    ):
        yield Server(host, listener, Site(root.resolve(), settings, Path(scratch)))


def _listening(host: str, port: int) -> socket.socket:
    """A socket at which nothing is accepted yet, so that a port that is taken is told before any work."""
    needed = f"host must be an address of this machine, such as 127.0.0.1, got {host!r}"
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_MOST)
    except socket.gaierror:
        raise MaedError(needed) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise MaedError(f"port: {port} is in use; choose another with --port, or 0 for any free port") from None
        if error.errno == errno.EACCES:
            raise MaedError(f"port must be at least 1024, got {port}, which is reserved for the system") from None
        raise MaedError(f"{needed} ({error.strerror or error})") from None


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


class Server(uvicorn.Server):
    """Serves a site at a socket that listens, and knows by which names it may be called."""

    def __init__(self, host: str, listener: socket.socket, site: Site) -> None:
        self.host, self.site, self.listener = host, site, listener
        address, self.server_port = listener.getsockname()[:2]
        self.local = ipaddress.ip_address(address).is_loopback

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            async with site.pages:
                yield

        guard = Middleware(Guard, is_called=self.is_called)
        app = Starlette(routes=site.routes, middleware=[guard], exception_handlers=site.faults, lifespan=lifespan)
        app.router.redirect_slashes = False
        super().__init__(
            uvicorn.Config(
                app,
                http=Impatient,
                loop="asyncio",
                ws="none",
                log_config=None,
                log_level="error",  # who asks is the user; what cannot be read is answered 400, and no news
                access_log=False,
                server_header=False,
                proxy_headers=False,
                headers=list(_HEADERS.items()),
                limit_concurrency=_MOST,
                timeout_graceful_shutdown=2,
            )
        )

    @property
    def url(self) -> str:
        """Address of the index."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.server_port}/"

    def serve_forever(self) -> None:
        """Answer until Ctrl-C, or `shutdown` in another thread."""
        asyncio.run(self.serve(sockets=[self.listener]))

    def end(self) -> None:
        """End `serve_forever`, from another thread."""
        self.should_exit = True

    def is_called(self, header: str) -> bool:
        """True if a Host header is one of ours. Another name may have been made to point here (DNS rebinding).

        Ports are not compared, for a tunnel may have another one. Nobody can make numbers point elsewhere.
        (Starlette's own middleware knows neither addresses of version 6 nor a header that comes twice.)
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


class Impatient(H11Protocol):
    """HTTP as h11 reads it, strictly; a connection on which no request has come after half a minute is closed."""

    PATIENCE = 30.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._last = self.loop.call_later(self.PATIENCE, lambda: None if self.cycle else transport.close())

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer who has said all and still listens."""
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._last.cancel()
        super().connection_lost(exc)


class Guard:
    """Lets a request through that calls the server by its name and only reads."""

    def __init__(self, app: ASGIApp, is_called: Callable[[str], bool]) -> None:
        self.app, self.is_called = app, is_called

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or have the site do so."""
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        hosts = Headers(scope=scope).getlist("host")
        if scope["method"] not in ("GET", "HEAD"):
            allow = {"Allow": "GET, HEAD"}
            refusal = answer("Only GET and HEAD: nothing can be changed here.\n", 405, "text/plain", headers=allow)
        elif len(hosts) != 1 or not self.is_called(hosts[0].strip()):
            refusal = answer("This server does not go by that name.\n", 421, "text/plain")
        else:
            return await self.app(scope, receive, send)
        return await refusal(scope, receive, send)
