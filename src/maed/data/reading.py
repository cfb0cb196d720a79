"""How far reading is, for whoever waits for it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from maed.files import is_main_process

_LINES = 10.0  # seconds between two lines where there is no terminal


@contextmanager
def progress(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Yield whom to tell how much is done: a bar on a terminal, elsewhere a line every ten seconds."""
    if not is_main_process():
        yield lambda done: None
    elif sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda done: bar.update(task, completed=done)
    else:
        last = [time.monotonic()]

        def line(done: int) -> None:
            if time.monotonic() - last[0] >= _LINES:
                last[0] = time.monotonic()
                print(f"{title}: {100 * done / max(total, 1):.0f} %", file=sys.stderr, flush=True)

        yield line
