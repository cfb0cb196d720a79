"""Helpers that verbs share: opening data and run folders, reading flags, printing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace

from maed import ranks
from maed.cli.parsing import Parser
from maed.errors import MaedError, require_extra
from maed.registry import ENCODINGS, TASKS
from maed.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from maed.stages import Context


@contextmanager
def open_context(given: Namespace, *, models_only: bool = False) -> Iterator[Context]:
    """The run folder, its settings and its data; no other process may write there until the verb is done.

    Of several processes that share the command the first one alone comes back; the others help until it is done.

    Args:
        given: The arguments of the verb.
        models_only: True if the command only trains models, each of which is locked by itself.
    """
    from maed.data import load
    from maed.files import locked
    from maed.run_folder import RunFolder
    from maed.stages import Context

    settings = Settings(**{name: getattr(given, name) for name in Settings.__dataclass_fields__})
    if ranks.place() is not None:  # Lightning's loop
        require_extra("torchrun", "perceiver", package="pytorch_lightning")
        trainer = settings.trainer
        cuda = trainer.accelerator in ("auto", "gpu", "cuda")
        ranks.start(trainer.rendezvous_timeout, cuda=cuda, threads=trainer.threads)
    upstream = Path(given.run) if getattr(given, "run", None) else None
    out = Path(given.out) if given.out else upstream or Path("runs") / Path(given.source.replace(":", "-")).stem
    several = settings.trainer.devices.isdigit() and int(settings.trainer.devices) > 1
    if several or settings.trainer.accelerator == "tpu":  # Lightning's loop
        require_extra("trainer.devices", "perceiver", package="pytorch_lightning")
    if settings.trainer.tensorboard:
        require_extra("trainer.tensorboard", "tensorboard")
    if out.exists() and not out.is_dir():
        raise MaedError(f"out must be a folder, got the file {out}")
    data = load(given.source, settings.data)
    say(describe_data(data))
    context = Context(RunFolder(out, upstream, given.overwrite), settings, data, say)
    if ranks.rank():
        ranks.work(context)
    with ranks.together(partial(_same_data, there=describe_data(data))):
        pass
    with nullcontext() if models_only else locked(out):
        yield context


def _same_data(context: Context, *, there: str) -> None:
    """Refuse data that another process reads otherwise than process 0, which reads what `there` says."""
    if (found := describe_data(context.data)) != there:
        raise MaedError(f"source: process {ranks.rank()} reads other data than process 0: {found}; not {there}")


_SHARED = ("run", "pretrain", "similarity", "train", "compare")
"""Verbs whose work several processes divide."""


def check_processes(verb: str) -> None:
    """Refuse a verb whose work is done by one process where `torchrun` or Slurm has started several."""
    if verb not in _SHARED and (place := ranks.place()) is not None:
        raise MaedError(
            f"{verb}: runs in one process, and {place.world} were started; run `maed {verb}` without torchrun or srun "
            f"({', '.join(_SHARED)} divide their work among processes)"
        )


def describe_data(data: Any) -> str:
    """Sizes and content of signals, in a line."""
    sizes = f"{len(data.train)} / {len(data.validation)} / {len(data.test)} signals (train / validation / test)"
    content = f"{data.channels} channels" if data.channels else f"{data.vocabulary} token ids"
    return f"{data.source}: {sizes}, {data.positions} positions, {content}"


def console() -> Console:
    """The console for tables; without a terminal it is wide enough for all of them."""
    from rich.console import Console  # `maed --help` is quicker without it

    return Console() if sys.stdout.isatty() else Console(width=160)


def printable(line: str) -> str:
    """Text that may come from a stranger's file as one line, without what a terminal would take for commands."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(line.split()))


def say(line: str) -> None:
    """Print a line, now."""
    print(line, flush=True)


_COMPARED = "none,trainable,fourier,maed"


def add_compared(parser: Parser) -> None:
    """Add what is compared: encodings and seeds."""
    text = (
        f"comma-separated encodings to compare, out of {', '.join(ENCODINGS.names)}; '' trains no Perceivers; default: "
        f"{_COMPARED}, without fourier if no coordinates are known"
    )
    parser.add_argument("--positions", type=str | None, default=None, metavar="A,B,...", help=text)
    parser.add_argument("--seeds", type=int, default=3, metavar="COUNT", help="random seeds per encoding")
    add_learned(parser, several=True)


def add_learned(parser: Parser, *, several: bool) -> None:
    """Add what models learn: the task, how many labels they are given, and their initial weights."""
    text = (
        f"what the models learn: {', '.join(TASKS.names)}; default: classification for one column of classes, "
        "multilabel for several columns of 0 and 1"
    )
    parser.add_argument("--task", type=str | None, default=None, metavar="TASK", help=text)
    each = "comma-separated numbers of labeled training signals" if several else "number of labeled training signals"
    text = f"{each}, or all, drawn for each seed; positions are always learned from all training signals"
    parser.add_argument("--labels", type=str | None, default=None, metavar="A,B,..." if several else "COUNT", help=text)
    text = (
        "none (default): random initial weights; masked: first train the encoder without labels to reconstruct hidden "
        "values of all training signals; DIR: an encoder pretrained by another run (its folder, or one inside it)"
    )
    text += "; none,masked compares both" if several else ""
    parser.add_argument("--pretrain", type=str | None, default=None, metavar="A,B" if several else "WHAT", help=text)


def task_of(given: Namespace) -> str | None:
    """`--task`, if there is such a task; None by default."""
    return None if given.task is None else TASKS.check("task", given.task)


def labels_of(given: Namespace, *, several: bool = True) -> list[int | None]:
    """`--labels 50,100,all`, the smallest first, none twice; None is all of them."""
    words = [word.strip() for word in ("all" if given.labels is None else given.labels).split(",")]
    for word in words:
        if word != "all" and not (word.isdecimal() and int(word)):
            raise MaedError(f"labels must be whole numbers of at least 1, or all, got {word!r}")
    found = sorted({inf if word == "all" else int(word) for word in words})
    if len(found) > 1 and not several:
        raise MaedError(f"labels must be one number for one model, got {given.labels}; `maed compare` takes several")
    return [None if count == inf else int(count) for count in found]


def pretrain_of(given: Namespace, *, several: bool = True) -> list[str | None]:
    """Parse `--pretrain none,masked`, without repeats; None is random weights, and other names are folders."""
    words = ["none"] if given.pretrain is None else [word.strip() for word in given.pretrain.split(",")]
    found = [None if word == "none" else word for word in dict.fromkeys(filter(None, words))]
    if not found or len(list(filter(None, found))) > 1 or (len(found) > 1 and not several):
        kinds = "none, masked or a folder, or none with one of the others" if several else "none, masked or a folder"
        raise MaedError(f"pretrain must be {kinds}, got {given.pretrain!r}")
    return found


def learned_of(given: Namespace) -> dict[str, Any]:
    """Arguments of a comparison: `task`, `labels` and `pretrain`."""
    return {"task": task_of(given), "labels": labels_of(given), "pretrain": pretrain_of(given)}


def fitting(asked: list[str] | None, run: Context) -> list[str]:
    """The encodings asked for, otherwise the default ones that these data allow."""
    if asked is not None:
        return asked
    known = run.data.geometry is not None
    return [name for name in _COMPARED.split(",") if known or not ENCODINGS.get(name).needs_geometry]


def encodings_of(given: Namespace) -> list[str] | None:
    """`--positions a,b,c`, each known, none twice; None by default."""
    if given.seeds < 0:
        raise MaedError(f"seeds must be at least 0, got {given.seeds}")
    if given.positions is None:
        return None
    names = [name.strip() for name in given.positions.split(",") if name.strip()]
    return list(dict.fromkeys(ENCODINGS.check("positions", name) for name in names))
