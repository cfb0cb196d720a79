"""The command line: one verb for each stage, one for all of them, and some to look at what came out."""

from __future__ import annotations

import io
import os
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from maed import ranks
from maed._version import __version__

# isort: off
from maed.cli import learning, comparing, artifacts, looking  # noqa: F401  # they register in the order of --help

# isort: on
from maed.cli.common import check_processes, printable
from maed.cli.parsing import VERBS, Parser, usage
from maed.errors import MaedError, require_extra
from maed.files import is_main_process

_WAITING = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}
"""Variables that say how PyTorch's threads wait for one another: by default in a loop that keeps their cores busy.
Where other work needs these cores too, a step then takes several times as long."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `maed`; returns the exit code: 0, or 2 for input that cannot be used or a process that was lost."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    if not _WAITING & os.environ.keys():  # before torch is imported, which reads it then
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    quiet = nullcontext() if is_main_process() else redirect_stdout(io.StringIO())
    interrupts: list[int] = []
    ranks.hush()
    try:
        with quiet, warnings.catch_warnings(), _noted(interrupts):
            warnings.showwarning = _show_warning
            parser = build_parser(argv[:1])
            parsed = parser.parse_args(_preset_first(argv) or ["--help"])
            verb = parsed.verb
            check_processes(verb)
            require_extra(verb, *VERBS[verb].extras)
            VERBS[verb].do(parser.instantiate_classes(parsed)[verb], _command(argv))
            ranks.leave(done=True)
    except ranks.Served:
        ranks.leave(done=True)
    except (KeyboardInterrupt, Exception) as error:
        gone = ranks.lost(error)
        code, line = 2, _line(gone or error)
        # of Ctrl-C libraries make errors of their own, and of SIGTERM Lightning makes an interrupt
        if interrupts or (isinstance(error, KeyboardInterrupt) and not ranks.ending()):
            code, line = 130, "stopped; run the same command again to continue"
        said = ranks.speaks(line or str(error), gone=gone is not None)
        if line is not None and said:
            print(f"maed: {line}", file=sys.stderr, flush=True)
        if line is None:
            if ranks.here() is None:
                raise
            traceback.print_exc()  # now, for this process may be ended by who has started it
            code = 1
        ranks.leave(done=False, gone=gone is not None)
        return code
    return 0


def _line(error: BaseException) -> str | None:
    """An error as the line that users read; None of one that is a fault of ours."""
    if isinstance(error, MaedError):
        return printable(str(error))
    if isinstance(error, OSError):  # a folder that cannot be written, a full disk
        return f"{error.filename or 'a file'}: {error.strerror or error}"
    return None


@contextmanager
def _noted(interrupts: list[int]) -> Iterator[None]:
    """Note each Ctrl-C, besides what Python makes of it."""

    def noted(number: int, frame: Any) -> None:
        interrupts.append(number)
        signal.default_int_handler(number, frame)

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, noted)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _command(argv: list[str]) -> str:
    """The command that results.json records: without `--out`, which is no part of an experiment."""
    kept, skip = [], False
    for word in argv:
        if not (skip or word == "--out" or word.startswith("--out=")):
            kept.append(word)
        skip = word == "--out"
    return shlex.join(["maed", *kept])


def _preset_first(argv: list[str]) -> list[str]:
    """Move `--config` before other flags: a preset is the ground that flags build on, wherever it is written."""
    rest = list(argv)
    presets: list[str] = []
    for i in reversed(range(1, len(rest))):
        if rest[i] == "--config" or rest[i].startswith("--config="):
            end = i + (2 if rest[i] == "--config" else 1)
            presets[:0] = rest[i:end]
            del rest[i:end]
    flag = next((i for i in range(1, len(rest)) if rest[i].startswith("-")), len(rest))
    return [*rest[:flag], *presets, *rest[flag:]]


def build_parser(asked: Sequence[str] = ()) -> Parser:
    """The parser of all verbs; the arguments of all of them, or of one that is `asked` for, which takes less time."""
    parser = Parser(prog="maed", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"maed {__version__}", help="Show the version and exit.")
    verbs = parser.add_subcommands(dest="verb", metavar="VERB", required=True, title="verbs", description="")
    for name, verb in VERBS.items():
        own = Parser(prog=f"maed {name}", description=verb.text, allow_abbrev=False)
        if name in asked or not asked:
            verb.add(own)
        own.usage = usage(own)
        verbs.add_subcommand(name, own, help=verb.text)
    return parser


_DESCRIPTION = "Position embeddings learned from data. Start with `maed demo`, or `maed run SOURCE` for your own data."


def _show_warning(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    """Our own warnings as one line; those of libraries about themselves are not the user's business."""
    if is_main_process() and issubclass(category, UserWarning) and f"{Path(__file__).parents[1]}" in filename:
        print(f"maed: warning: {message}", file=sys.stderr)
