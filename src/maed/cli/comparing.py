"""The verbs that train models and use them."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from jsonargparse import Namespace

from maed.cli.common import (
    add_compared,
    add_learned,
    console,
    encodings_of,
    fitting,
    labels_of,
    learned_of,
    open_context,
    pretrain_of,
    say,
    task_of,
)
from maed.cli.parsing import Parser, settings_arguments, settings_group, verb
from maed.registry import ENCODINGS


def _add_train(parser: Parser) -> None:
    settings_arguments(parser)
    text = f"encoding: {', '.join(ENCODINGS.names)}"
    parser.add_argument("--positions", type=str, required=True, metavar="ENCODING", help=text)
    parser.add_argument("--seed", type=int, default=0, help="random seed of weights and of the order of signals")
    add_learned(parser, several=False)


@verb("train", "Train and test one Perceiver with one position encoding.", _add_train, "perceiver")
def _train(given: Namespace, command: str) -> None:
    ENCODINGS.check("positions", given.positions)
    from maed.experiments.comparison import Comparison

    task, labels, pretrain = task_of(given), labels_of(given, several=False), pretrain_of(given, several=False)
    with open_context(given, models_only=True) as context:
        comparison = Comparison(context, task, labels, pretrain)
        metrics, metric = comparison.train(given.positions, given.seed), comparison.metric
    value = metric.text(metrics[f"test_{metric.name}"], max(2, metric.digits))
    say(f"{given.positions}, seed {given.seed}: test {metric.title} {value} of {metrics['test_signals']} signals")


def _add_compare(parser: Parser) -> None:
    settings_arguments(parser)
    add_compared(parser)


@verb(
    "compare",
    "Train Perceivers with several encodings and seeds, under equal conditions.",
    _add_compare,
    "perceiver",
)
def _compare(given: Namespace, command: str) -> None:
    from maed.experiments.run import compare_only
    from maed.report import print_tables

    asked, learned = encodings_of(given), learned_of(given)
    with open_context(given) as context:
        encodings = fitting(asked, context)
        results = compare_only(context, encodings, given.seeds, command=command, **learned)
        print_tables(results, console())


def _add_predict(parser: Parser) -> None:
    text = "folder models/[TASK-][LABELS-][pretrained-]ENCODING-SEED written by `maed train`, `compare` or `run`"
    parser.add_argument("model", type=str, metavar="MODEL_DIR", help=text)
    text = (
        "a .npy, .npz, .csv, .parquet or .txt file, an image file, a folder of images or .txt files, a folder in the "
        "hub's layout (its test split), or - for texts from standard input, one per line"
    )
    parser.add_argument("input", type=str, metavar="INPUT", help=text)
    text = "output file: .csv, .jsonl or .parquet, or .npy for filled or forecast signals; default: CSV on stdout"
    parser.add_argument("--out", type=str | None, default=None, metavar="FILE", help=text)
    parser.add_argument("--lines", action="store_true", help="treat each line of a .txt file as one text")
    parser.add_argument("--probabilities", action="store_true", help="add a column with the probability of each class")
    parser.add_argument("--batch_size", type=int, default=64, metavar="COUNT", help="signals per batch")
    from maed.settings import DataSettings, TrainerSettings

    settings_group(parser, DataSettings, "data", {"type", "columns", "label", "missing"})
    settings_group(parser, TrainerSettings, "trainer", {"accelerator", "threads"})


@verb("predict", "Label, fill or forecast new signals with a trained Perceiver.", _add_predict, "perceiver")
def _predict(given: Namespace, command: str) -> None:
    from maed.prediction import label_input

    out = Path(given.out) if given.out else None
    try:
        score = label_input(
            Path(given.model),
            given.input,
            out,
            data=given.data,
            trainer=given.trainer,
            batch_size=given.batch_size,
            lines=given.lines,
            probabilities=given.probabilities,
        )
        sys.stdout.flush()
    except BrokenPipeError:  # who reads the rows, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return
    if out is not None:
        say(f"wrote {out}")
    if score.known:
        share = f"{100 * score.right / score.known:.2f} %"
        print(f"accuracy {share} of {score.known} signals", file=sys.stderr)
