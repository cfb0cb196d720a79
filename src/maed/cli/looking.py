"""The verbs that show what came out."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from maed.cli.common import console, printable, say
from maed.cli.parsing import Parser, settings_group, verb
from maed.errors import MaedError


def _add_report(parser: Parser) -> None:
    parser.add_argument("folder", type=str, metavar="DIR", help="folder written by `maed run` or `maed compare`")
    text = "folders of other runs to show beside this one: geometry, accuracies and curves"
    parser.add_argument("--compare", type=str, nargs="+", default=[], metavar="OTHER", help=text)
    from maed.settings import ReportSettings

    settings_group(parser, ReportSettings, "report")


@verb("report", "Write the HTML page and the figures of a run.", _add_report, "report")
def _report(given: Namespace, command: str) -> None:
    from maed.report import write_report

    say(f"wrote {write_report(Path(given.folder), given.report, [Path(other) for other in given.compare])}")


def _add_serve(parser: Parser) -> None:
    text = "folder written by `maed run` or `maed compare`, or a folder that contains such folders"
    parser.add_argument("folder", type=str, metavar="DIR", help=text)
    text = "address to listen on; any other than 127.0.0.1 lets other machines read the runs, without a password"
    parser.add_argument("--host", type=str, default="127.0.0.1", metavar="ADDRESS", help=text)
    parser.add_argument("--port", type=int, default=8000, help="port; 0 for any free port")
    parser.add_argument("--open", action="store_true", help="open the list of runs in a browser")
    from maed.settings import ReportSettings

    settings_group(parser, ReportSettings, "report")


@verb(
    "serve",
    "Show the pages and the progress of many runs over local http, without writing anything.",
    _add_serve,
    "report",
    "serve",
)
def _serve(given: Namespace, command: str) -> None:
    from maed.server import serve

    serve(Path(given.folder), host=given.host, port=given.port, settings=given.report, say=say, open_browser=given.open)


def _add_results(parser: Parser) -> None:
    text = "results.json files, or folders of them; default: `results`"
    parser.add_argument("paths", type=str, nargs="*", metavar="PATH", help=text)
    parser.add_argument("--markdown", action="store_true", help="print Markdown tables")


@verb("results", "Print the tables of recorded results.", _add_results)
def _results(given: Namespace, command: str) -> None:
    from maed.files import read_json
    from maed.records import Results, is_results
    from maed.report import tables

    files: list[Path] = []
    for path in map(Path, given.paths or ["results"]):  # a folder may hold other records too
        files += [f for f in sorted(path.glob("*.json")) if is_results(read_json(f))] if path.is_dir() else [path]
    if not files:
        paths = ", ".join(given.paths or ["results"])
        raise MaedError(f"path must be a results.json or a folder of them; {paths} holds none")
    for results in map(Results.read, files):
        say(tables.markdown(results)) if given.markdown else tables.print_tables(results, console())


def _add_info(parser: Parser) -> None:
    parser.add_argument("path", type=str, metavar="PATH", help="a file or folder")


@verb("info", "Describe a file or folder: kind, shape, origin.", _add_info)
def _info(given: Namespace, command: str) -> None:
    from maed.cli.inspection import describe

    for line in describe(Path(given.path)):
        say(printable(line))
