"""What benchmarks share that keep records and write their tables into a page of the docs."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

from maed.errors import MaedError

Verb = Callable[[argparse.Namespace], None]


def filled(text: str, tables: Mapping[str, str]) -> str:
    """A page with each table between its two marks, `<!-- begin NAME -->` and `<!-- end NAME -->`."""
    for name, table in tables.items():
        before, begin, rest = text.partition(f"<!-- begin {name} -->")
        end = f"<!-- end {name} -->"
        text = f"{before}{begin}\n{table}\n{end}{rest.partition(end)[2]}"
    return text


def command(program: str, description: str | None, verbs: Mapping[str, Verb], what: str, known: Sequence[str]) -> int:
    """The command line of a benchmark whose cells are a set and a seed; what cannot be is one line and exit code 2.

    Args:
        program: what errors start with.
        description: of the help.
        verbs: `run`, which gets `--WHAT` (names with commas between them, all by default) and `--seeds`, and others.
        what: `sets` or the like.
        known: their names.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    subs = parser.add_subparsers(required=True)
    for name, verb in verbs.items():
        sub = subs.add_parser(name, help=verb.__doc__)
        sub.set_defaults(do=verb)
        if name in ("run", "study"):
            sub.add_argument(f"--{what}", default=",".join(known))
        if name == "run":
            sub.add_argument("--seeds", type=int, default=3)
    return done(program, parser.parse_args())


def done(program: str, given: argparse.Namespace) -> int:
    """Do the verb `given.do`; the exit code, 2 with one line for what cannot be."""
    try:
        given.do(given)
    except MaedError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return 2
    return 0
