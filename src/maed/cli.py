"""The command line: one verb for each stage, one for all of them, and some to look at what came out."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace
from rich.console import Console

from maed import __version__
from maed.config import ENCODINGS, Settings, preset_path
from maed.errors import MaedError, nearest, one_of

if TYPE_CHECKING:
    from maed.pipeline import Run

_COMPARED = "none,trainable,fourier,maed"
_OUTSIDE = ("positions", "seeds")
"""Keys of a preset that only `run` and `compare` have; others pass over them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `maed`; returns the exit code: 0, or 2 for input that cannot be used."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _show_warning
    try:
        parser = build_parser()
        parsed = parser.parse_args(argv or ["--help"])
        verb = parsed.verb
        _VERBS[verb](parser.instantiate_classes(parsed)[verb], " ".join(["maed", *argv]))
    except MaedError as error:
        print(f"maed: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("maed: stopped; the same command goes on where this was", file=sys.stderr)
        return 130
    return 0


class Parser(ArgumentParser):
    """Errors are one line that names what was wrong, and the nearest name."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a one-line `MaedError`."""
        raise MaedError(_one_line(message, self))


class Preset(ActionConfigFile):
    """`--config NAME|FILE`: settings from a preset of the package or from a YAML file; flags after it win."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Apply the preset, without the keys that this verb does not have."""
        path = preset_path(str(values))
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise MaedError(f"config: {path} is not YAML ({str(error).splitlines()[0]})") from None
        if not isinstance(content, dict):
            raise MaedError(f"config: {path} holds no settings; it may hold groups such as `data:` and `train:`")
        known = {action.dest for action in parser._actions}
        kept = {key: value for key, value in content.items() if key in known or key not in _OUTSIDE}
        ActionConfigFile.apply_config(parser, namespace, self.dest, yaml.safe_dump(kept))


def build_parser() -> Parser:
    """The parser of all verbs."""
    parser = Parser(prog="maed", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"maed {__version__}")
    verbs = parser.add_subcommands(dest="verb", metavar="VERB", required=True, title="verbs", description="")
    for name, (text, add) in _ARGUMENTS.items():
        verb = Parser(prog=f"maed {name}", description=text, allow_abbrev=False)
        add(verb)
        verbs.add_subcommand(name, verb, help=text)
    return parser


_DESCRIPTION = "Position embeddings learned from data. Start with `maed run photos`."
_SOURCE = "photos, digits, cifar10, imdb, hub:OWNER/NAME, or a .npy, .npz, .csv or .parquet file or a folder of them"


def _settings(parser: Parser, *, source: bool | str = True, run: bool = True) -> None:
    """The arguments that the verbs of the walk share."""
    if source is True:
        parser.add_argument("source", type=str, metavar="SOURCE", help=_SOURCE)
    elif source:
        parser.add_argument("source", type=str, nargs="?", default=source, metavar="SOURCE", help=_SOURCE)
    parser.add_argument("--out", type=str | None, metavar="DIR", help="where to write", default=None)
    if run:
        parser.add_argument("--run", type=str | None, metavar="DIR", help="where earlier stages lie", default=None)
    parser.add_argument("--config", action=Preset, metavar="NAME|FILE", help="a preset, or a YAML file of settings")
    parser.add_argument("--overwrite", action="store_true", help="replace stages that were made with other settings")
    parser.add_class_arguments(Settings, as_group=False)
    for group in Settings.__dataclass_fields__:
        _remove_bare(parser, group)


def _remove_bare(parser: Parser, group: str) -> None:
    """A group is set by its members: `--data FILE` would be one more way to say `--config`."""
    action = parser._option_string_actions.pop(f"--{group}")
    parser._actions.remove(action)
    for shown in parser._action_groups:
        if action in shown._group_actions:
            shown._group_actions.remove(action)


def _add_run(parser: Parser) -> None:
    _settings(parser, source="photos", run=False)
    _add_compared(parser)


def _add_compare(parser: Parser) -> None:
    _settings(parser)
    _add_compared(parser)


def _add_compared(parser: Parser) -> None:
    text = f"comma-separated encodings to compare, of {', '.join(ENCODINGS)}; '' for no Perceivers"
    parser.add_argument("--positions", type=str, default=_COMPARED, metavar="A,B,...", help=text)
    parser.add_argument("--seeds", type=int, default=3, metavar="COUNT", help="seeds for each encoding")


def _add_train(parser: Parser) -> None:
    _settings(parser)
    text = f"the encoding: {', '.join(ENCODINGS)}"
    parser.add_argument("--positions", type=str, required=True, metavar="ENCODING", help=text)
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the order of the signals")


def _add_embed(parser: Parser) -> None:
    _settings(parser, source=False)


def _add_evaluate(parser: Parser) -> None:
    parser.add_argument("embedding", type=str, metavar="EMBEDDING_DIR", help="a folder written by `maed embed`")
    text = "grid:HEIGHTxWIDTH, line:LENGTH, or a .npy or .csv file of (N, D) numbers; those it holds where not given"
    parser.add_argument("--coordinates", type=str | None, default=None, metavar="WHAT", help=text)
    parser.add_argument("--out", type=str | None, default=None, metavar="DIR", help="where to write geometry.json")
    from maed.config import EvaluationSettings

    parser.add_class_arguments(EvaluationSettings, "evaluation")
    _remove_bare(parser, "evaluation")


def _add_report(parser: Parser) -> None:
    parser.add_argument("folder", type=str, metavar="DIR", help="a folder written by `maed run` or `maed compare`")
    from maed.config import ReportSettings

    parser.add_class_arguments(ReportSettings, "report")
    _remove_bare(parser, "report")


def _add_results(parser: Parser) -> None:
    text = "results.json files, or folders of them; `results` where not given"
    parser.add_argument("paths", type=str, nargs="*", metavar="PATH", help=text)
    parser.add_argument("--markdown", action="store_true", help="print Markdown, as the README has it")


def _add_info(parser: Parser) -> None:
    parser.add_argument("path", type=str, metavar="PATH", help="a file or folder")


_ARGUMENTS: dict[str, tuple[str, Callable[[Parser], None]]] = {
    "run": ("Do everything: learn positions, train Perceivers with each encoding, write a report.", _add_run),
    "pretrain": ("Train the masked autoencoder.", _settings),
    "similarity": ("Stream draws through the autoencoder into a similarity between positions.", _settings),
    "embed": ("Reduce the similarity to a position embedding.", _add_embed),
    "train": ("Train and test one Perceiver with one position encoding.", _add_train),
    "compare": ("Train a Perceiver with each of several encodings and seeds, on equal terms.", _add_compare),
    "evaluate": ("Measure an embedding against the true coordinates.", _add_evaluate),
    "report": ("Write the HTML page and the figures of a run.", _add_report),
    "results": ("Print the tables of recorded results.", _add_results),
    "info": ("Say what a file or folder is, its shape and where it came from.", _add_info),
}


# What the verbs do. Heavy imports wait until a verb is run, so that --help answers at once.


def _open_run(given: Namespace, source: str | None = None) -> Run:
    """The run folder, its settings and its data."""
    from maed.data import load
    from maed.pipeline import Run

    settings = Settings(**{name: getattr(given, name) for name in Settings.__dataclass_fields__})
    source = source or given.source
    upstream = Path(given.run) if getattr(given, "run", None) else None
    out = Path(given.out) if given.out else upstream or Path("runs") / Path(source.replace(":", "-")).stem
    if out.exists() and not out.is_dir():
        raise MaedError(f"out: {out} is a file; it may be a folder")
    data = load(source, settings.data)
    _say(_describe(data))
    return Run(out, settings, data, upstream=upstream, overwrite=given.overwrite, say=_say)


def _run(given: Namespace, command: str) -> None:
    from maed.pipeline import run_all
    from maed.report import print_tables

    encodings = _encodings(given)
    print_tables(run_all(_open_run(given), encodings, given.seeds, command=command), Console())


def _pretrain(given: Namespace, command: str) -> None:
    run = _open_run(given)
    run.pretrain()
    _say(f"wrote {run.out / 'autoencoder'}")


def _similarity(given: Namespace, command: str) -> None:
    run = _open_run(given)
    if given.similarity.estimator in ("correlation", "dependence"):
        run.baseline()
        _say(f"wrote {run.out / 'baseline' / 'similarity'}")
    else:
        run.similarity()
        _say(f"wrote {run.out / 'similarity'}")


def _embed(given: Namespace, command: str) -> None:
    from maed.pipeline import embed_folder

    if not (given.run or given.out):
        raise MaedError("run: not given; it may be the folder that `maed similarity` wrote to")
    upstream, out = Path(given.run or given.out), Path(given.out or given.run)
    for below in (Path(), Path("baseline")):
        source = upstream / below / "similarity"
        if not (below.name and not source.is_dir()):
            embed_folder(source, out / below / "embedding", given.embedding, overwrite=given.overwrite, say=_say)
            _say(f"wrote {out / below / 'embedding'}")


def _train(given: Namespace, command: str) -> None:
    one_of("positions", given.positions, ENCODINGS)
    run = _open_run(given)
    metrics = run.train(given.positions, given.seed)
    accuracy = f"test accuracy {100 * metrics['test_accuracy']:.2f} % of {metrics['test_signals']} signals"
    _say(f"{given.positions}, seed {given.seed}: {accuracy}")


def _compare(given: Namespace, command: str) -> None:
    from maed.files import read_json
    from maed.pipeline import compare, new_results
    from maed.report import print_tables

    encodings = _encodings(given)
    run = _open_run(given)
    if not run.data.labelled:
        raise MaedError(f"source: {run.data.source} has no labels of two classes or more, and `compare` needs them")
    results = new_results(run, command)
    before = run.out / "results.json"
    if before.is_file():  # what was measured of the geometry stays
        kept = read_json(before)
        results |= {key: kept.get(key) for key in ("geometry", "split_half")}
    compare(run, encodings, given.seeds, results)
    print_tables(results, Console())


def _evaluate(given: Namespace, command: str) -> None:
    from maed.data.geometry import parse_geometry
    from maed.embedding import PositionEmbedding
    from maed.evaluation.geometry import geometry_metrics
    from maed.files import write_json

    embedding = PositionEmbedding.from_pretrained(given.embedding)
    geometry = embedding.true_geometry(parse_geometry(given.coordinates) if given.coordinates else None)
    metrics = geometry_metrics(embedding.vectors, geometry, given.evaluation)
    k = given.evaluation.neighbours or geometry.neighbours
    for name, value in metrics.items():
        _say(f"{name}{f'@{k}' if name == 'knn_recall' else ''}: {value:.4f}")
    target = Path(given.out or given.embedding) / "geometry.json"
    write_json(target, {"schema": 1, "neighbours": k, "coordinates": given.coordinates or "its own", **metrics})
    _say(f"wrote {target}")


def _report(given: Namespace, command: str) -> None:
    from maed.report import write_report

    _say(f"wrote {write_report(Path(given.folder), given.report)}")


def _results(given: Namespace, command: str) -> None:
    from maed.files import read_json
    from maed.report import markdown, print_tables

    paths = [Path(path) for path in given.paths or ["results"]]
    files = [f for path in paths for f in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    if not files:
        raise MaedError(
            f"path: no .json file in {', '.join(map(str, paths))}; it may be a results.json or their folder"
        )
    for file in files:
        results = read_json(file)
        if not isinstance(results, dict) or "classification" not in results:
            raise MaedError(f"path: {file} is not a results.json")
        _say(markdown(results)) if given.markdown else print_tables(results, Console())


def _info(given: Namespace, command: str) -> None:
    from maed.inspection import describe

    for line in describe(Path(given.path)):
        _say(line)


_VERBS: dict[str, Callable[[Namespace, str], None]] = {
    "run": _run,
    "pretrain": _pretrain,
    "similarity": _similarity,
    "embed": _embed,
    "train": _train,
    "compare": _compare,
    "evaluate": _evaluate,
    "report": _report,
    "results": _results,
    "info": _info,
}


def _encodings(given: Namespace) -> list[str]:
    """`--positions a,b,c`, each known, none twice."""
    names = [name.strip() for name in given.positions.split(",") if name.strip()]
    if given.seeds < 0:
        raise MaedError(f"seeds: {given.seeds}; it may be 0 or more")
    return list(dict.fromkeys(one_of("positions", name, ENCODINGS) for name in names))


def _describe(data: Any) -> str:
    sizes = f"{len(data.train)} / {len(data.validation)} / {len(data.test)} signals (train / validation / test)"
    content = f"{data.channels} channels" if data.channels else f"{data.vocabulary} token ids"
    return f"{data.source}: {sizes}, {data.positions} positions, {content}"


def _say(line: str) -> None:
    print(line, flush=True)


def _show_warning(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    """Our own warnings as one line; those of libraries about themselves are not the user's business."""
    if issubclass(category, UserWarning) and f"{Path(__file__).parent}" in filename:
        print(f"maed: warning: {message}", file=sys.stderr)


_WORDINGS = (
    (r'Parser key "([^"]*)": Expected an? typing\.Literal\[(.*?)\]\. Got value: (.*)', r"\1: \3; it may be \2"),
    (r'Parser key "([^"]*)": Expected a <class \'(\w+)\'>\. Got value: (.*)', r"\1: \3; it may be of type \2"),
    (r'Parser key "([^"]*)":', r"\1:"),
    (r"argument VERB: invalid choice: ('[^']*') \(choose from (.*)\)", r"verb: \1 is unknown; it may be \2"),
    (r"the following arguments are required: \w+\.(\w+)", r"\1: not given; see --help"),
    (r"Subcommand '\w+' does not accept option '([^']*)'", r"config: \1 is no setting; --help lists them"),
)
"""How jsonargparse puts things, and how we do."""


def _one_line(message: str, parser: ArgumentParser) -> str:
    """jsonargparse's message as one line, with the nearest option or verb where a name was not known."""
    text = " ".join(message.split())
    for pattern, wording in _WORDINGS:
        text = re.sub(pattern, wording, text)
    unknown = [word.split("=")[0] for word in text.split() if word.startswith("--")]
    if "nrecognized" in text and unknown:
        return f"{unknown[0]}: no such option{nearest(unknown[0], parser._option_string_actions)}; `--help` lists them"
    return text
