"""Writing so that nothing is ever half-written, and reading so that damage is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from errno import EIO
from math import isfinite
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from maed.errors import MaedError

CONFIG = "config.json"
"""The file that says what a folder holds, in the folders of stages, models and artifacts."""

_UNFINISHED = ".unfinished"
"""Suffix of files that a killed process can leave behind."""

_DIGEST, _DIGEST_OF = "digest", re.compile("sha256:[0-9a-f]{64}")
"""The entry of a sealed JSON file that holds the digest of the others."""


def is_main_process() -> bool:
    """True if this process writes and speaks: of those of one command (`torchrun`, Slurm, Lightning), the first."""
    names = ["RANK", "LOCAL_RANK", "NODE_RANK"]
    if "RANK" not in os.environ and "SLURM_STEP_NUM_TASKS" in os.environ:  # a step of `srun`
        names.append("SLURM_PROCID")
    return all(os.environ.get(name, "0") == "0" for name in names)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path`, on failure it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=_UNFINISHED, dir=path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0o077)  # the system tells it only to who sets it
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # as open() would; mkstemp's 0600 hides results from who shares them
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any, *, sealed: bool = False) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all. Not-a-number becomes null.

    A `sealed` object ends with a `digest` of its other entries, which `read_json` checks and leaves out.
    """
    content = plain(value)
    if sealed:
        content = {**content, _DIGEST: _digest(content)}
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; one that is missing, broken, or not what was sealed raises `MaedError` naming it."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MaedError(f"{path}: no such file") from None
    except (ValueError, RecursionError) as error:  # not UTF-8, endless numbers or nesting
        raise damaged(path, f"not a JSON file ({error})") from None
    if isinstance(content, dict) and _DIGEST_OF.fullmatch(str(content.get(_DIGEST))):
        written = content.pop(_DIGEST)
        if written != _digest(content):
            raise damaged(path, otherwise=f'; if somebody meant to change it, take out its line "{_DIGEST}"')
    return content


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()}"


@contextmanager
def written(path: Path) -> Iterator[Path]:
    """`replacing`, for libraries that have errors of their own for a full disk.

    Raises:
        OSError: The file cannot be written.
    """
    with replacing(path) as temporary:
        try:
            yield temporary
        except (RuntimeError, SafetensorError) as error:  # of torch, and of safetensors
            raise OSError(EIO, f"cannot be written ({' '.join(str(error).split())[:120]})", str(path)) from error


def damaged(path: Path, found: str = "damaged, its content is not what was written", otherwise: str = "") -> MaedError:
    """The error for a file of a run or an artifact that cannot be read.

    Args:
        path: The file.
        found: The problem.
        otherwise: Another way out.
    """
    of_stage = path.name == CONFIG or (path.parent / CONFIG).is_file()
    stage = path.parent if of_stage else path  # the files of a stage go together
    return MaedError(f"{path}: {found}; copy it again, or delete {stage} and run again{otherwise}")


@contextmanager
def locked(folder: Path, *, below: bool = True) -> Iterator[None]:
    """Keep other processes from working in `folder` too, and remove what one that was killed has left half-written.

    The operating system lifts the lock when a process ends, however it ends: there are no stale ones. Of the processes
    of one training (`torchrun`) the first one locks for all.

    Args:
        folder: Created if it does not exist.
        below: True if files in folders below also belong to it.

    Raises:
        MaedError: Another process holds it; it is named.
    """
    if not is_main_process():
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    holder, lock = folder / ".lock.json", FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise MaedError(
            f"out: {folder} is in use{_holder(holder)}; wait until it is done, or choose another --out"
        ) from None
    try:
        for left in (folder.rglob if below else folder.glob)(f".*{_UNFINISHED}"):
            left.unlink(missing_ok=True)
        since = datetime.now(UTC).isoformat(timespec="seconds")
        command = " ".join([Path(sys.argv[0]).name, *sys.argv[1:]])
        write_json(holder, {"process": os.getpid(), "host": platform.node(), "command": command, "since": since})
        yield
    finally:
        holder.unlink(missing_ok=True)
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # where nothing was written
            for path in made:
                path.rmdir()


def _holder(path: Path) -> str:
    """Describe the process that holds a lock, as far as it is known."""
    try:
        found = read_json(path)
        return f" by process {found['process']} on {found['host']} since {found['since']} ({found['command']})"
    except (MaedError, KeyError, TypeError, OSError):
        return " by another process"


def plain(value: Any) -> Any:
    """Numpy scalars and arrays, paths and tuples as JSON has them; not-a-number as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if type(value).__module__ == "numpy":  # which importing takes longer than `maed --help`
        return plain(value.tolist())
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not isfinite(value):
        return None
    return value
