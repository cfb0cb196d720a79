"""Running stages as tests do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from maed.data import SignalData
from maed.run_folder import RunFolder
from maed.settings import Settings
from maed.stages import Context


def context(
    folder: Path,
    settings: Settings,
    data: SignalData,
    *,
    upstream: Path | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Context:
    """What stages work with, in a folder."""
    return Context(RunFolder(folder, upstream, overwrite), settings, data, say)
