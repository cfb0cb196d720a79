"""The HTML page of a run: one self-contained file, and its figures beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import markupsafe
from matplotlib.figure import Figure

from maed import plots
from maed.data.geometry import unrolled
from maed.embedding import PositionEmbedding
from maed.errors import MaedError
from maed.files import write_text
from maed.plots.layout import ASSIGNABLE, FEWEST, recovered_layout
from maed.report import header
from maed.report.contents import Contents, read_contents
from maed.report.explorer import explorer_data
from maed.report.printed import Picture, Printer
from maed.report.sections import ChartBlock, TableBlock, sections
from maed.report.web import SCRIPTS, inlined, plotly, policy, script, style, templates
from maed.run_folder import RunFolder
from maed.settings import ReportSettings


def write_report(folder: Path, settings: ReportSettings, compare: Sequence[Path] = ()) -> Path:
    """Write `report.html` and `figures/` from what a run folder holds, and return the page's path.

    The page needs no network. Parts that are absent are named in it. What the explorer shows beyond the run's own
    stages is computed once and kept in `explorer/`.

    Args:
        folder: The run's.
        settings: Settings of the page.
        compare: Folders of other runs, whose geometry, accuracies and curves are put beside its own.

    Raises:
        MaedError: A folder holds no part of a run, a part is broken, or parts are of different runs.
    """
    runs = {folder.resolve().name: read_contents(folder)}
    for other in compare:
        if not other.is_dir():
            raise MaedError(f"compare must be a folder that `maed run` wrote; {other} is no folder")
        path = other.resolve()
        names = (path.name, f"{path.parent.name}/{path.name}")
        runs[next((name for name in names if name not in runs), str(path))] = read_contents(other)
    run = RunFolder(folder)
    printer = Printer(next(iter(runs.values())), settings, run.figures)
    printer.write_all()
    write_text(run.report, _page(run, runs, settings, printer, run.views))
    return run.report


def served_page(folders: Mapping[str, Path], settings: ReportSettings, scratch: Path) -> str:
    """The same page of the first of `folders`, the others beside it, to be served: nothing is written in any of them.

    Args:
        folders: Folders of runs, by their names on the page.
        settings: Settings of the page.
        scratch: a folder for what is computed, which is found there again the next time.

    Raises:
        MaedError: See `write_report`.
    """
    runs = {name: read_contents(folder) for name, folder in folders.items()}
    printer = Printer(next(iter(runs.values())), settings, RunFolder(scratch).figures)
    run = RunFolder(next(iter(folders.values())))
    return _page(run, runs, settings, printer, RunFolder(scratch).views, served=True)


def _page(
    folder: RunFolder,
    runs: Mapping[str, Contents],
    settings: ReportSettings,
    printer: Printer,
    kept: Path,
    *,
    served: bool = False,
) -> str:
    """The page of the first of `runs`, which lies in `folder`; `kept` is a file for what the explorer computes."""
    contents = next(iter(runs.values()))
    facts, blocks = explorer_data(folder, contents, settings, kept)
    made = sections(runs, printer, facts)
    charts = [block.chart for section in made for block in section.blocks if isinstance(block, ChartBlock)]
    environment = templates()
    environment.filters["code"] = _code
    for kind in (Picture, TableBlock, ChartBlock):
        environment.tests[kind.__name__.lower()] = lambda block, kind=kind: isinstance(block, kind)
    scripts = [script(name) for name in SCRIPTS]
    results = contents.results
    return environment.get_template("page.html.j2").render(
        source=contents.source,
        lead=header.lead(contents),
        command=results.command or "",
        tiles=header.tiles(results),
        facts=header.facts(contents),
        settings=header.settings_text(results),
        notes=[str(note) for note in results.notes],
        headline=printer.unshuffled(),
        sections=made,
        style=style("explorer.css"),
        scripts=scripts,
        plotly=plotly(),
        policy=policy((*scripts, plotly())),
        data=inlined({"explorer": facts, "charts": charts}),
        served=served,
        blocks={name: markupsafe.Markup(text) for name, text in blocks.items()},
    )


def embedding_figure(embedding: PositionEmbedding) -> Figure | None:
    """The layout that an embedding makes, for its card; None if it is too small, or too large to be laid out."""
    if not FEWEST <= embedding.n <= ASSIGNABLE:
        return None
    geometry = embedding.geometry
    geometry = geometry if geometry is not None and geometry.placed.all() else None
    coordinates = None if geometry is None else geometry.coordinates
    if geometry is not None and geometry.kind == "swissroll":
        coordinates = unrolled(geometry.coordinates)
    shape = () if geometry is None else geometry.shape
    return plots.figure_of(plots.recovered_layout(recovered_layout(embedding.numpy()), coordinates, shape))


def _code(sentence: str) -> markupsafe.Markup:
    """A sentence of ours with what stands between backticks as code; everything is escaped first."""
    return markupsafe.Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(sentence))))
