"""What verbs share when they run: the data and the folder of a run, and how they speak."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jsonargparse import Namespace
from rich.console import Console

from maed.cli.parsing import Parser
from maed.errors import MaedError, require_extra
from maed.registry import ENCODINGS, TASKS
from maed.settings import Settings

if TYPE_CHECKING:
    from maed.stages import Context


@contextmanager
def open_context(given: Namespace, *, models_only: bool = False) -> Iterator[Context]:
    """The run folder, its settings and its data; no other process may write there until the verb is done.

    Args:
        given: the arguments of the verb.
        models_only: it trains models alone, each of which is locked by itself.
    """
    from maed.data import load
    from maed.files import locked
    from maed.run_folder import RunFolder
    from maed.stages import Context

    settings = Settings(**{name: getattr(given, name) for name in Settings.__dataclass_fields__})
    upstream = Path(given.run) if getattr(given, "run", None) else None
    out = Path(given.out) if given.out else upstream or Path("runs") / Path(given.source.replace(":", "-")).stem
    several = settings.trainer.devices.isdigit() and int(settings.trainer.devices) > 1
    if several or settings.trainer.accelerator == "tpu":  # Lightning's loop
        require_extra("trainer.devices", "perceiver", package="pytorch_lightning")
    if settings.trainer.tensorboard:
        require_extra("trainer.tensorboard", "tensorboard")
    if out.exists() and not out.is_dir():
        raise MaedError(f"out: {out} is a file; it must be a folder")
    data = load(given.source, settings.data)
    say(describe_data(data))
    with nullcontext() if models_only else locked(out):
        yield Context(RunFolder(out, upstream, given.overwrite), settings, data, say)


def one_process(verb: str) -> None:
    """Refuse the verbs whose work is done by one process where `torchrun` has started several."""
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        raise MaedError(
            f"{verb}: torchrun has started {os.environ['WORLD_SIZE']} processes, among which only `train` and "
            f"`compare` share their work; `maed {verb}` without torchrun uses several devices where it can"
        )


def describe_data(data: Any) -> str:
    """Sizes and content of signals, in a line."""
    sizes = f"{len(data.train)} / {len(data.validation)} / {len(data.test)} signals (train / validation / test)"
    content = f"{data.channels} channels" if data.channels else f"{data.vocabulary} token ids"
    return f"{data.source}: {sizes}, {data.positions} positions, {content}"


def console() -> Console:
    """Where tables are printed; a pipe or a log is as wide as they are."""
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
        f"comma-separated encodings to compare, of {', '.join(ENCODINGS.names)}; '' for no Perceivers; "
        f"{_COMPARED} by default, without fourier where no coordinates are known"
    )
    parser.add_argument("--positions", type=str | None, default=None, metavar="A,B,...", help=text)
    parser.add_argument("--seeds", type=int, default=3, metavar="COUNT", help="seeds for each encoding")
    add_learned(parser, several=True)


def add_learned(parser: Parser, *, several: bool) -> None:
    """Add what models learn: the task, how many labels they are given, and what they begin with."""
    text = (
        f"what models learn: {', '.join(TASKS.names)}; by default what the labels are: classification of one column of "
        "classes, multilabel of several columns of 0 and 1"
    )
    parser.add_argument("--task", type=str | None, default=None, metavar="TASK", help=text)
    each = "comma-separated numbers of labels, each given to every encoding" if several else "the number of labels"
    text = f"{each}: so many training signals, drawn anew for each seed, or all; positions are learned from all signals"
    parser.add_argument("--labels", type=str | None, default=None, metavar="A,B,..." if several else "COUNT", help=text)
    text = (
        "masked: the encoder first reconstructs hidden values of all training signals, without labels; DIR: it is the "
        "one that a run, or a folder of it, has pretrained; none, the default: it begins with random weights"
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
            raise MaedError(f"labels: {word!r}; it must be a whole number, 1 or more, or all")
    found = sorted({inf if word == "all" else int(word) for word in words})
    if len(found) > 1 and not several:
        raise MaedError(f"labels: {given.labels}; one number for one model; `maed compare` takes several")
    return [None if count == inf else int(count) for count in found]


def pretrain_of(given: Namespace, *, several: bool = True) -> list[str | None]:
    """`--pretrain none,masked`, none twice; None is random weights. Names beside these are folders."""
    words = ["none"] if given.pretrain is None else [word.strip() for word in given.pretrain.split(",")]
    found = [None if word == "none" else word for word in dict.fromkeys(filter(None, words))]
    if not found or len(list(filter(None, found))) > 1 or (len(found) > 1 and not several):
        kinds = "none, masked or a folder, or none with one of the others" if several else "none, masked or a folder"
        raise MaedError(f"pretrain: {given.pretrain!r}; it must be {kinds}")
    return found


def learned_of(given: Namespace) -> dict[str, Any]:
    """What models learn in a comparison: `task`, `labels` and `pretrain`."""
    return {"task": task_of(given), "labels": labels_of(given), "pretrain": pretrain_of(given)}


def fitting(asked: list[str] | None, run: Context) -> list[str]:
    """What was asked for; otherwise the usual encodings that these data can have."""
    if asked is not None:
        return asked
    known = run.data.geometry is not None
    return [name for name in _COMPARED.split(",") if known or not ENCODINGS.get(name).needs_geometry]


def encodings_of(given: Namespace) -> list[str] | None:
    """`--positions a,b,c`, each known, none twice; None by default."""
    if given.seeds < 0:
        raise MaedError(f"seeds: {given.seeds}; it must be 0 or more")
    if given.positions is None:
        return None
    names = [name.strip() for name in given.positions.split(",") if name.strip()]
    return list(dict.fromkeys(ENCODINGS.check("positions", name) for name in names))
