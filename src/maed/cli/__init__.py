"""The command line: one verb for each stage, one for all of them, and some to look at what came out."""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace
from rich.console import Console

from maed._version import __version__
from maed.errors import MaedError, nearest
from maed.files import is_main_process
from maed.presets import COMPARED, plainly, read_preset
from maed.records import RENAMED
from maed.registry import ENCODINGS
from maed.settings import CHOSEN_BY_NAME, Settings

if TYPE_CHECKING:
    from maed.data.geometry import Geometry
    from maed.embedding import PositionEmbedding
    from maed.stages import Context

_COMPARED = "none,trainable,fourier,maed"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `maed`; returns the exit code: 0, or 2 for input that cannot be used."""
    argv = list(sys.argv[1:] if arguments is None else arguments)
    quiet = nullcontext() if is_main_process() else redirect_stdout(io.StringIO())
    try:
        with quiet, warnings.catch_warnings():
            warnings.showwarning = _show_warning
            parser = build_parser(argv[:1])
            parsed = parser.parse_args(_preset_first(argv) or ["--help"])
            verb = parsed.verb
            _VERBS[verb](parser.instantiate_classes(parsed)[verb], _command(argv))
    except MaedError as error:
        print(f"maed: {_printable(str(error))}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder that cannot be written, a full disk
        print(f"maed: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("maed: stopped; the same command goes on where this was", file=sys.stderr)
        return 130
    return 0


def _command(argv: list[str]) -> str:
    """What results.json records: the command without `--out`, for where it was written is no part of an experiment."""
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


class Parser(ArgumentParser):
    """Errors are one line that names what was wrong, and the nearest name."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a one-line `MaedError`."""
        raise MaedError(_one_line(message, self))


class Preset(ActionConfigFile):
    """`--config NAME|FILE`: settings from a preset of the package or from a YAML file; flags win over it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Apply the preset, without the keys that this verb does not have."""
        content = read_preset(str(values))
        compares = set(COMPARED) <= {action.dest for action in parser._actions}
        kept = {key: value for key, value in content.items() if compares or key not in COMPARED}
        ActionConfigFile.apply_config(parser, namespace, self.dest, yaml.safe_dump(kept))


def build_parser(asked: Sequence[str] = ()) -> Parser:
    """The parser of all verbs; the arguments of all of them, or of one that is `asked` for, which takes less time."""
    parser = Parser(prog="maed", description=_DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"maed {__version__}")
    verbs = parser.add_subcommands(dest="verb", metavar="VERB", required=True, title="verbs", description="")
    for name, (text, add) in _ARGUMENTS.items():
        verb = Parser(prog=f"maed {name}", description=text, allow_abbrev=False)
        if name in asked or not asked:
            add(verb)
        verb.usage = _usage(verb)
        verbs.add_subcommand(name, verb, help=text)
    return parser


def _usage(parser: Parser) -> str:
    """The verb, what it must be given and its own options; the settings are listed below, not here."""
    words = [parser.prog]
    for action in parser._actions:
        if not action.option_strings:
            words.append(f"[{action.metavar}]" if action.nargs in ("?", "*") else str(action.metavar))
        elif "." not in action.dest and action.dest != "help":
            shown = " ".join(filter(None, (action.option_strings[0], action.metavar)))
            words.append(shown if getattr(action, "required", False) else f"[{shown}]")
    if any("." in action.dest for action in parser._actions):
        words.append("[--GROUP.SETTING VALUE ...]")
    return " ".join(words)


_DESCRIPTION = "Position embeddings learned from data. Start with `maed run photos`."


def _settings(parser: Parser, *, source: bool | str = True, run: bool = True) -> None:
    """The arguments that the verbs of the walk share."""
    if source:
        from maed.data.source import listed

        optional: dict[str, Any] = {} if source is True else {"nargs": "?", "default": source}
        parser.add_argument("source", type=str, metavar="SOURCE", help=listed(), **optional)
    parser.add_argument("--out", type=str | None, metavar="DIR", help="where to write", default=None)
    if run:
        parser.add_argument("--run", type=str | None, metavar="DIR", help="where earlier stages lie", default=None)
    parser.add_argument("--config", action=Preset, metavar="NAME|FILE", help="a preset, or a YAML file of settings")
    parser.add_argument("--overwrite", action="store_true", help="replace stages that were made with other settings")
    parser.add_class_arguments(Settings, as_group=False)
    for name, registry in CHOSEN_BY_NAME.items():
        parser._option_string_actions[f"--{name}"].metavar = f"{{{','.join(registry.names)}}}"
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
    text = (
        f"comma-separated encodings to compare, of {', '.join(ENCODINGS.names)}; '' for no Perceivers; "
        f"{_COMPARED} where not given, without fourier where no coordinates are known"
    )
    parser.add_argument("--positions", type=str | None, default=None, metavar="A,B,...", help=text)
    parser.add_argument("--seeds", type=int, default=3, metavar="COUNT", help="seeds for each encoding")


def _add_train(parser: Parser) -> None:
    _settings(parser)
    text = f"the encoding: {', '.join(ENCODINGS.names)}"
    parser.add_argument("--positions", type=str, required=True, metavar="ENCODING", help=text)
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights and of the order of the signals")


def _add_predict(parser: Parser) -> None:
    text = "a folder models/ENCODING-SEED that `maed train`, `compare` or `run` wrote"
    parser.add_argument("model", type=str, metavar="MODEL_DIR", help=text)
    text = (
        "a .npy, .npz, .csv, .parquet or .txt file, an image file, a folder of images or .txt files, a folder in the "
        "hub's layout (its test split), or - for texts from standard input, one a line"
    )
    parser.add_argument("input", type=str, metavar="INPUT", help=text)
    text = "a .csv, .jsonl or .parquet file to write; CSV to standard output where not given"
    parser.add_argument("--out", type=str | None, default=None, metavar="FILE", help=text)
    parser.add_argument("--lines", action="store_true", help="each line of a .txt file is a text")
    parser.add_argument("--probabilities", action="store_true", help="a column for the probability of each class")
    parser.add_argument("--batch_size", type=int, default=64, metavar="COUNT", help="signals labeled at a time")
    from maed.settings import DataSettings, TrainerSettings

    read = {"type", "columns", "label", "missing"}
    parser.add_class_arguments(DataSettings, "data", skip=set(DataSettings.__dataclass_fields__) - read)
    read = {"accelerator", "threads"}
    parser.add_class_arguments(TrainerSettings, "trainer", skip=set(TrainerSettings.__dataclass_fields__) - read)
    for group in ("data", "trainer"):
        _remove_bare(parser, group)


def _add_embed(parser: Parser) -> None:
    _settings(parser, source=False)


_EMBEDDING = "a folder that holds an embedding, OWNER/NAME of the hub, or a .pth file of the original"
_COORDINATES = (
    "grid:HEIGHTxWIDTH, line:LENGTH, ring:N, torus:HEIGHTxWIDTH, sphere:N, or a .npy or .csv file of (N, D) "
    "numbers; those the embedding holds where not given"
)


def _add_evaluate(parser: Parser) -> None:
    parser.add_argument("embedding", type=str, metavar="EMBEDDING_DIR", help=_EMBEDDING)
    text = f"where the positions truly lie: {_COORDINATES}"
    parser.add_argument("--coordinates", type=str | None, default=None, metavar="WHAT", help=text)
    text = "where to write geometry.json; the embedding's folder where not given, nowhere if it is not in a folder"
    parser.add_argument("--out", type=str | None, default=None, metavar="DIR", help=text)
    from maed.settings import EvaluationSettings

    parser.add_class_arguments(EvaluationSettings, "evaluation")
    _remove_bare(parser, "evaluation")


def _add_export(parser: Parser) -> None:
    parser.add_argument("embedding", type=str, metavar="EMBEDDING", help=_EMBEDDING)
    text = (
        "npy: numpy's file, float32 (N, d); csv: a header, then one row a position; onnx: a model that looks positions "
        "up; folder: an embedding again, as changed by --dim and --resample"
    )
    formats = Literal["npy", "csv", "onnx", "folder"]
    parser.add_argument("--format", type=formats, required=True, metavar="npy|csv|onnx|folder", help=text)
    text = "channels: more of them keep all distances, fewer are the principal components"
    parser.add_argument("--dim", type=int | None, default=None, metavar="D", help=text)
    text = "interpolate to as many positions: grid:HEIGHTxWIDTH or line:LENGTH; needs the geometry, and is labeled so"
    parser.add_argument("--resample", type=str | None, default=None, metavar="WHAT", help=text)
    text = (
        "the line or grid that the positions truly lie on, for --resample: line:LENGTH, grid:HEIGHTxWIDTH, or a .npy "
        "or .csv file of (N, 1) numbers; that which the embedding holds where not given"
    )
    parser.add_argument("--coordinates", type=str | None, default=None, metavar="WHAT", help=text)
    text = "root mean square over all numbers, such as 0.02 for an untrained BERT; as they are where not given"
    parser.add_argument("--rms", type=float | None, default=None, metavar="X", help=text)
    text = "where to write; vectors.FORMAT in the embedding's folder where not given, or NAME.FORMAT here without one"
    parser.add_argument("--out", type=str | None, default=None, metavar="FILE", help=text)


def _add_report(parser: Parser) -> None:
    parser.add_argument("folder", type=str, metavar="DIR", help="a folder written by `maed run` or `maed compare`")
    text = "folders of other runs, whose geometry, accuracies and curves the page puts beside its own"
    parser.add_argument("--compare", type=str, nargs="+", default=[], metavar="OTHER", help=text)
    from maed.settings import ReportSettings

    parser.add_class_arguments(ReportSettings, "report")
    _remove_bare(parser, "report")


def _add_serve(parser: Parser) -> None:
    text = "a folder written by `maed run` or `maed compare`, or one that has such folders below it"
    parser.add_argument("folder", type=str, metavar="DIR", help=text)
    text = "the address to listen at; any other than 127.0.0.1 lets other machines read the runs, without a password"
    parser.add_argument("--host", type=str, default="127.0.0.1", metavar="ADDRESS", help=text)
    parser.add_argument("--port", type=int, default=8000, help="the port; 0 for any that is free")
    parser.add_argument("--open", action="store_true", help="open the list of runs in a browser")
    from maed.settings import ReportSettings

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
    "predict": ("Label new text, images or arrays with a trained Perceiver.", _add_predict),
    "evaluate": ("Measure an embedding against the true coordinates.", _add_evaluate),
    "export": ("Write an embedding for other programs, or one of other channels or positions.", _add_export),
    "report": ("Write the HTML page and the figures of a run.", _add_report),
    "serve": ("Show the pages of many runs, and how they go on, over local http; writes nothing.", _add_serve),
    "results": ("Print the tables of recorded results.", _add_results),
    "info": ("Say what a file or folder is, its shape and where it came from.", _add_info),
}


# What the verbs do. Heavy imports wait until a verb is run, so that --help answers at once.


def _open_run(given: Namespace, source: str | None = None) -> Context:
    """The run folder, its settings and its data."""
    from maed.data import load
    from maed.run_folder import RunFolder
    from maed.stages import Context

    settings = Settings(**{name: getattr(given, name) for name in Settings.__dataclass_fields__})
    source = source or given.source
    upstream = Path(given.run) if getattr(given, "run", None) else None
    out = Path(given.out) if given.out else upstream or Path("runs") / Path(source.replace(":", "-")).stem
    if out.exists() and not out.is_dir():
        raise MaedError(f"out: {out} is a file; it may be a folder")
    data = load(source, settings.data)
    _say(_describe(data))
    return Context(RunFolder(out, upstream, given.overwrite), settings, data, _say)


def _one_process(verb: str) -> None:
    """Refuse the verbs whose work is done by one process where `torchrun` has started several."""
    if "TORCHELASTIC_RUN_ID" in os.environ and os.environ.get("WORLD_SIZE", "1") != "1":
        raise MaedError(
            f"{verb}: torchrun has started {os.environ['WORLD_SIZE']} processes, among which only `train` and "
            f"`compare` share their work; `maed {verb}` without torchrun uses several devices where it can"
        )


def _run(given: Namespace, command: str) -> None:
    from maed.experiments.run import run_all
    from maed.report import print_tables

    asked = _encodings(given)
    _one_process("run")
    run = _open_run(given)
    print_tables(run_all(run, _fitting(asked, run), given.seeds, command=command), _console())


def _pretrain(given: Namespace, command: str) -> None:
    _one_process("pretrain")
    from maed.stages import Pretrain, execute

    context = _open_run(given)
    execute([Pretrain()], context)
    _say(f"wrote {context.folder.autoencoder.path}")


def _similarity(given: Namespace, command: str) -> None:
    _one_process("similarity")
    from maed.stages import Similarity, execute

    context = _open_run(given)
    execute([Similarity()], context)
    _say(f"wrote {context.folder.similarity().path}")


def _embed(given: Namespace, command: str) -> None:
    from maed.run_folder import RunFolder
    from maed.stages.embed import embed_again

    if not (given.run or given.out):
        raise MaedError("run: give the folder that `maed similarity` wrote to")
    upstream, out = RunFolder(Path(given.run or given.out)), Path(given.out or given.run)
    for method in ("maed", *upstream.baselines()):
        target = embed_again(RunFolder(out, upstream.path, given.overwrite), method, given.embedding, _say)
        _say(f"wrote {target.path}")


def _train(given: Namespace, command: str) -> None:
    ENCODINGS.check("positions", given.positions)
    from maed.experiments.comparison import Comparison

    metrics = Comparison(_open_run(given)).train(given.positions, given.seed)
    accuracy = f"test accuracy {100 * metrics['test_accuracy']:.2f} % of {metrics['test_signals']} signals"
    _say(f"{given.positions}, seed {given.seed}: {accuracy}")


def _compare(given: Namespace, command: str) -> None:
    from maed.experiments.run import compare_only
    from maed.report import print_tables

    asked = _encodings(given)
    context = _open_run(given)
    encodings = _fitting(asked, context)
    print_tables(compare_only(context, encodings, given.seeds, command=command), _console())


def _predict(given: Namespace, command: str) -> None:
    from maed.prediction import label_input

    _one_process("predict")
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
        _say(f"wrote {out}")
    if score.known:
        share = f"{100 * score.right / score.known:.2f} %"
        print(f"accuracy {share} of {score.known} signals", file=sys.stderr)


def _evaluate(given: Namespace, command: str) -> None:
    from maed.evaluation.geometry import geometry_metrics
    from maed.files import write_json

    embedding = _open_embedding(given.embedding)
    geometry = embedding.true_geometry(_given_geometry(embedding, given.coordinates))
    metrics = geometry_metrics(embedding.vectors, geometry, given.evaluation)
    k = given.evaluation.n_neighbors or geometry.neighbors
    for name, value in metrics.items():
        _say(f"{name}{f'@{k}' if name == 'knn_recall' else ''}: {value:.4f}")
    folder = Path(given.out or given.embedding)
    if given.out or folder.is_dir():
        target = folder / "geometry.json"
        write_json(target, {"schema": 1, "neighbors": k, "coordinates": given.coordinates or "its own", **metrics})
        _say(f"wrote {target}")


def _open_embedding(name: str) -> PositionEmbedding:
    """An embedding, wherever it is; what the hub's client logs of its attempts comes back as one line at the end."""
    from huggingface_hub.utils.logging import set_verbosity_error

    from maed.embedding import open_embedding

    set_verbosity_error()
    return open_embedding(name)


def _given_geometry(embedding: PositionEmbedding, text: str | None) -> Geometry | None:
    """What `--coordinates` says; None where the embedding's own are meant, which then have to be there."""
    from maed.data.geometry_spec import NAMES, parse_geometry

    if text:
        return parse_geometry(text)
    if embedding.geometry is None:
        raise MaedError(
            f"coordinates: not given, and the embedding holds none; it must be {NAMES} or a file of (N, D) numbers"
        )
    return None


def _export(given: Namespace, command: str) -> None:
    from maed.embedding.export import WRITERS

    to_folder = given.format == "folder"
    if to_folder and not given.out:
        raise MaedError("out: not given; with --format folder it may be a new folder")
    if to_folder and given.rms is not None:
        raise MaedError(f"rms: {given.rms} with --format folder, whose vectors are of unit size; it may be left out")
    if given.coordinates and not given.resample:
        raise MaedError("coordinates: given without --resample, which alone reads them")
    resampled = _line_or_grid(given.resample) if given.resample else None
    embedding = _open_embedding(given.embedding)
    if resampled is not None:
        embedding = embedding.resampled(resampled, _given_geometry(embedding, given.coordinates))
    if given.dim is not None:
        embedding = embedding.with_dim(given.dim)
    target = Path(given.out) if given.out else _beside(given.embedding, given.format)
    if to_folder:
        _check_free(target, embedding)
        embedding.save_pretrained(target)
    elif target.is_dir():
        raise MaedError(f"out: {target} is a folder; it may be a file")
    else:
        WRITERS[given.format](embedding, target, rms=given.rms)
    _say(f"wrote {target}")


def _line_or_grid(text: str) -> Geometry:
    """What `--resample` says."""
    from maed.data.geometry_spec import parse_geometry, parse_sides

    name, _, size = text.partition(":")
    if len(parse_sides(size)) != {"line": 1, "grid": 2}.get(name):
        raise MaedError(f"resample: {text!r}; it may be grid:HEIGHTxWIDTH or line:LENGTH")
    return parse_geometry(text)


def _beside(embedding: str, suffix: str) -> Path:
    """Where an export goes by itself: into the folder of the embedding; without one, here and by its name."""
    path = Path(embedding)
    if path.is_dir():
        return path / f"vectors.{suffix}"
    return Path(f"{path.stem if path.is_file() else path.name}.{suffix}")


def _check_free(folder: Path, embedding: PositionEmbedding) -> None:
    """Refuse to write an embedding over anything but itself."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        same = type(embedding).from_pretrained(folder).fingerprint == embedding.fingerprint
    except MaedError:
        same = False
    if not same:
        raise MaedError(f"out: {folder} holds something else; it may be a new folder")


def _report(given: Namespace, command: str) -> None:
    from maed.report import write_report

    _say(f"wrote {write_report(Path(given.folder), given.report, [Path(other) for other in given.compare])}")


def _serve(given: Namespace, command: str) -> None:
    from maed.server import serve

    _one_process("serve")
    serve(
        Path(given.folder),
        host=given.host,
        port=given.port,
        settings=given.report,
        say=_say,
        open_browser=given.open,
    )


def _results(given: Namespace, command: str) -> None:
    from maed.records import Results, read_study
    from maed.report import tables

    paths = [Path(path) for path in given.paths or ["results"]]
    files = [f for path in paths for f in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    if not files:
        raise MaedError(
            f"path: no .json file in {', '.join(map(str, paths))}; it may be a results.json or their folder"
        )
    for file in files:
        if (study := read_study(file)) is not None:
            _say(tables.study_markdown(study)) if given.markdown else tables.print_study(study, _console())
        else:
            results = Results.read(file)
            _say(tables.markdown(results)) if given.markdown else tables.print_tables(results, _console())


def _info(given: Namespace, command: str) -> None:
    from maed.cli.inspection import describe

    for line in describe(Path(given.path)):
        _say(_printable(line))


_VERBS: dict[str, Callable[[Namespace, str], None]] = {
    "run": _run,
    "pretrain": _pretrain,
    "similarity": _similarity,
    "embed": _embed,
    "train": _train,
    "compare": _compare,
    "predict": _predict,
    "evaluate": _evaluate,
    "export": _export,
    "report": _report,
    "serve": _serve,
    "results": _results,
    "info": _info,
}


def _fitting(asked: list[str] | None, run: Context) -> list[str]:
    """What was asked for; otherwise the usual encodings that these data can have."""
    if asked is not None:
        return asked
    known = run.data.geometry is not None
    return [name for name in _COMPARED.split(",") if known or not ENCODINGS.get(name).needs_geometry]


def _encodings(given: Namespace) -> list[str] | None:
    """`--positions a,b,c`, each known, none twice; None where not given."""
    if given.seeds < 0:
        raise MaedError(f"seeds: {given.seeds}; it may be 0 or more")
    if given.positions is None:
        return None
    names = [name.strip() for name in given.positions.split(",") if name.strip()]
    return list(dict.fromkeys(ENCODINGS.check("positions", name) for name in names))


def _describe(data: Any) -> str:
    sizes = f"{len(data.train)} / {len(data.validation)} / {len(data.test)} signals (train / validation / test)"
    content = f"{data.channels} channels" if data.channels else f"{data.vocabulary} token ids"
    return f"{data.source}: {sizes}, {data.positions} positions, {content}"


def _console() -> Console:
    """Where tables are printed; a pipe or a log is as wide as they are."""
    return Console() if sys.stdout.isatty() else Console(width=160)


def _printable(line: str) -> str:
    """Text that may come from a stranger's file as one line, without what a terminal would take for commands."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(line.split()))


def _say(line: str) -> None:
    print(line, flush=True)


def _show_warning(message: Any, category: Any, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    """Our own warnings as one line; those of libraries about themselves are not the user's business."""
    if issubclass(category, UserWarning) and f"{Path(__file__).parents[1]}" in filename:
        print(f"maed: warning: {message}", file=sys.stderr)


def _one_line(message: str, parser: ArgumentParser) -> str:
    """jsonargparse's message as one line, with the nearest option or verb where a name was not known."""
    text = plainly(message)
    found = re.search(r"nrecognized arguments: (\S+)", text)
    if found is None:
        return text
    unknown = found[1].split("=")[0]
    if (new := RENAMED.get(unknown.removeprefix("--"))) is not None:
        return f"{unknown}: is called --{new} now"
    if not unknown.startswith("-"):
        return f"{unknown!r}: one argument too many; `--help` lists them"
    return f"{unknown}: no such option{nearest(unknown, parser._option_string_actions)}; `--help` lists them"
