"""The verbs that learn positions, and the one that does everything."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from jsonargparse import Namespace

from maed.cli.common import (
    add_compared,
    console,
    encodings_of,
    fitting,
    learned_of,
    open_context,
    say,
)
from maed.cli.parsing import Parser, settings_arguments, verb
from maed.errors import MaedError, require_extra


def _add_run(parser: Parser) -> None:
    settings_arguments(parser, source="photos", run=False)
    add_compared(parser)


@verb("run", "Learn positions, train Perceivers with each encoding, and write a report.", _add_run, "report")
def _run(given: Namespace, command: str) -> None:
    from maed.experiments.run import run_all
    from maed.report import print_tables

    asked, learned = encodings_of(given), learned_of(given)
    if asked:
        require_extra("positions", "perceiver")
    with open_context(given) as run:
        encodings = fitting(asked, run)
        print_tables(run_all(run, encodings, given.seeds, command=command, **learned), console())


@verb("pretrain", "Train the masked autoencoder.", settings_arguments)
def _pretrain(given: Namespace, command: str) -> None:
    from maed.stages import Pretrain, execute

    with open_context(given) as context:
        execute([Pretrain()], context)
        say(f"wrote {context.folder.autoencoder.path}")


@verb("similarity", "Measure the similarity between positions with the autoencoder.", settings_arguments)
def _similarity(given: Namespace, command: str) -> None:
    from maed.stages import Similarity, execute

    with open_context(given) as context:
        execute([Similarity()], context)
        say(f"wrote {context.folder.similarity().path}")


@verb("embed", "Reduce the similarity to a position embedding.", partial(settings_arguments, source=False))
def _embed(given: Namespace, command: str) -> None:
    from maed.files import locked
    from maed.run_folder import RunFolder
    from maed.stages.embed import embed_again

    if not (given.run or given.out):
        raise MaedError("run must be the folder that `maed similarity` wrote; give --run DIR")
    upstream, out = RunFolder(Path(given.run or given.out)), Path(given.out or given.run)
    with locked(out):
        for method in ("maed", *upstream.baselines()):
            target = embed_again(RunFolder(out, upstream.path, given.overwrite), method, given.embedding, say)
            say(f"wrote {target.path}")


def _add_demo(parser: Parser) -> None:
    parser.add_argument("--out", type=str, default="runs", metavar="DIR", help="folder for the runs photos/ and mnist/")
    parser.add_argument("--overwrite", action="store_true", help="start again, even if parts are finished")


@verb("demo", "Learn the positions of shuffled photos and MNIST images, and train Perceivers with them.", _add_demo)
def _demo(given: Namespace, command: str) -> None:
    from maed.experiments.demo import demo

    made = demo(Path(given.out), say, command=command, overwrite=given.overwrite)
    say(f"open {made}" + (" in a browser" if made.suffix == ".html" else ""))
