"""Pages of runs, built by a process of their own while the server answers."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType

from anyio import BrokenWorkerProcess, CapacityLimiter, to_process

from maed.errors import MaedError
from maed.run_folder import RunFolder
from maed.settings import ReportSettings

_PATIENCE = 1.0
"""Seconds that a request waits for a page before it says that the page is being built."""

_FRESH = 60.0
"""Seconds for which a page is shown though its run has changed: one that changes all the time is shown too."""

_PAGES = 16
"""Most pages that are kept."""

_BUILDERS = 1
"""Most processes that build pages: each holds some 300 MiB, and they share what is kept in the scratch folder."""


@dataclass
class _Built:
    """A page of runs, or why there is none."""

    signature: str
    path: Path | None = None
    wrong: str = ""
    at: float = 0.0


class Pages:
    """Pages of runs, built by anyio's pool of processes, and kept until a run changes.

    Within `async with`; what is being built at its end is given up, and the process that builds it killed.

    Args:
        settings: Settings of the pages.
        scratch: a folder for pages, and for what is computed for them.
    """

    def __init__(self, settings: ReportSettings, scratch: Path) -> None:
        self.settings, self.scratch = settings, scratch
        self._built: dict[tuple[str, ...], _Built] = {}
        self._building: dict[tuple[str, ...], asyncio.Task[None]] = {}
        self._count = 0

    async def __aenter__(self) -> Pages:
        self._pool = CapacityLimiter(_BUILDERS)  # it belongs to the loop
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        building = list(self._building.values())
        for task in building:
            task.cancel()
        await asyncio.gather(*building, return_exceptions=True)

    async def get(self, folders: dict[str, Path], signature: str) -> bytes | str | None:
        """A page; what is wrong, in a sentence; or None where it is being built.

        Args:
            folders: of the runs, by their names.
            signature: changes with what they hold.
        """
        key = tuple(folders)
        if not self._usable(key, signature):
            if key not in self._building:
                self._building[key] = asyncio.create_task(self._build(folders, signature))
            await asyncio.wait([self._building[key]], timeout=_PATIENCE)
            if not self._usable(key, signature):
                return None
        found = self._built.pop(key)
        self._built[key] = found  # the last that was asked for is the last to go
        return found.wrong if found.path is None else found.path.read_bytes()

    def wrong(self, key: tuple[str, ...], signature: str) -> str:
        """The reason why no page could be made of unchanged runs; empty if it was made or not tried."""
        found = self._built.get(key)
        return found.wrong if found is not None and found.signature == signature else ""

    def _usable(self, key: tuple[str, ...], signature: str) -> bool:
        found = self._built.get(key)
        if found is None or found.signature == signature:
            return found is not None
        return found.path is not None and time.monotonic() - found.at < _FRESH

    async def _build(self, folders: dict[str, Path], signature: str) -> None:
        """Have a page built, in the place of an older one, and of the one that was not asked for longest."""
        key, self._count = tuple(folders), self._count + 1
        path = self.scratch / f"page-{self._count}.html"
        try:
            wrong = await to_process.run_sync(
                _build_page, folders, self.settings, self.scratch, path, cancellable=True, limiter=self._pool
            )
        except BrokenWorkerProcess:  # killed, as for its memory
            wrong = "the process that was to make its page was killed; is memory short?"
        except Exception as error:  # a fault of ours: the page must not be waited for forever
            wrong = f"its page cannot be made ({type(error).__name__}: {error})"
        finally:
            del self._building[key]
        for name, folder in folders.items():  # as the index calls them, not by where they lie on this machine
            wrong = wrong.replace(str(folder), name)
        gone = [self._built.pop(key, None)]
        self._built[key] = _Built(signature, None if wrong else path, wrong, time.monotonic())
        if len(self._built) > _PAGES:
            gone.append(self._built.pop(next(iter(self._built))))
        for old in gone:
            if old is not None and old.path is not None:
                old.path.unlink(missing_ok=True)


def _build_page(folders: Mapping[str, Path], settings: ReportSettings, scratch: Path, path: Path) -> str:
    """Write a page to `path`, in a process of the pool, or say what is wrong.

    What the run's own page has computed before is taken from its folder.
    """
    # anyio leaves none where the server's own has no file, as in a notebook, and libraries look into it
    sys.modules.setdefault("__main__", ModuleType("__main__"))
    from maed.report.page import served_page  # torch and matplotlib, which the server itself has no use for

    first = next(iter(folders.values()))
    kept = scratch / "kept" / first.relative_to(first.anchor)
    there, here = RunFolder(first).views, RunFolder(kept).views
    try:
        if there.is_file() and not here.is_file():
            here.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(there, here)
        path.write_text(served_page(folders, settings, kept), encoding="utf-8")
    except MaedError as error:
        return str(error)
    except Exception as error:  # a fault of ours, or a file that no check foresaw: the server stays up
        return f"{type(error).__name__}: {error}"
    return ""
