"""Pages of runs, built by a process of their own while the server answers."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import queue
import shutil
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from maed.errors import MaedError
from maed.report import page
from maed.run_folder import RunFolder
from maed.settings import ReportSettings

_PATIENCE = 1.0
"""Seconds that a request waits for a page before it says that the page is being built."""

_FRESH = 60.0
"""Seconds for which a page is shown though its run has changed: one that changes all the time is shown too."""

_PAGES = 16
"""Most pages that are kept."""


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
