"""The sections of a page: how to read each, its tables, charts and pictures, and what is absent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from maed.plots import charts
from maed.records import Results
from maed.report import tables
from maed.report.contents import Contents
from maed.report.interactive import Figure, interactive
from maed.report.printed import Picture, Printer


@dataclass
class TableBlock:
    """A table: the header row, the others, and a sentence below."""

    rows: tables.Rows
    caption: str = ""


@dataclass
class ChartBlock:
    """A plotly figure, what it shows in words, and a sentence below."""

    chart: Figure
    alt: str
    caption: str = ""


@dataclass
class Place:
    """The place of a block of the page's script: `explorer` or `signals`."""

    name: str


Block = Picture | TableBlock | ChartBlock | Place


@dataclass
class Section:
    """A section of the page: how to read it, and its blocks; what is absent is said in a sentence each."""

    name: str
    title: str
    reading: str
    blocks: list[Block] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def add(self, block: Block | None) -> None:
        """Add a block, if there is one."""
        if block is not None:
            self.blocks.append(block)

    def add_chart(self, chart: Figure | None, alt: str, caption: str) -> None:
        """Add a chart, if there is one."""
        self.add(None if chart is None else ChartBlock(chart, alt, caption))


Runs = Mapping[str, Contents]
"""Runs by their names, the page's own first."""


def sections(runs: Runs, printer: Printer, explored: Mapping[str, Any] | None) -> list[Section]:
    """All sections of a page.

    Args:
        runs: The page's own, then those that it is compared with.
        printer: Draws the pictures of the page's own.
        explored: The facts of the explorer, where it has any.
    """
    contents = next(iter(runs.values()))
    made = [
        _explore(contents, explored),
        _candidates(contents),
        _geometry(contents),
        _accuracy(contents),
        _embedding(contents, printer),
        _autoencoder(contents, explored),
        _time(contents),
    ]
    if len(runs) > 1:
        made.insert(1, _compared(runs, printer))
    return made


def _explore(contents: Contents, explored: Mapping[str, Any] | None) -> Section:
    section = Section(
        "explore",
        "Look around",
        "Point at a position, or tap it, and see what it tells about all others, whose vectors lie near its own, and "
        "where the embedding puts it. Click or press Enter to hold it, Escape to let go; arrow keys move.",
    )
    if contents.similarity is None:
        section.absent.append("Not run: this folder has no similarity (`maed similarity` makes one).")
    if contents.vectors is None:
        section.absent.append("Not run: this folder has no embedding (`maed embed` makes one).")
    if explored and explored["positions"]:
        section.add(Place("explorer"))
        section.absent += explored["notes"]
    return section


def _compared(runs: Runs, printer: Printer) -> Section:
    section = Section(
        "compared",
        "Beside other runs",
        "The first run is this page's own. Numbers compare where the data, their positions and the neighbors that "
        "recall counts are the same.",
    )
    several = {name: contents.results for name, contents in runs.items()}
    for rank, (name, contents) in enumerate(runs.items()):
        if rank:
            picture = Printer(contents, printer.settings, printer.folder / f"beside-{rank}").unshuffled()
            section.add(None if picture is None else replace(picture, caption=f"{name}: {picture.caption}"))
    if geometry := _with_runs(several, tables.geometry_rows):
        section.add(TableBlock(geometry, "Geometry found, by run and method."))
    if accuracies := _with_runs(several, tables.accuracy_rows):
        section.add(TableBlock(accuracies, "What Perceivers reach in the test, by run and encoding."))
    section.add_chart(_accuracies(several), "Test results by encoding and run", "Test results by run.")
    losses = interactive(charts.training({name: c.autoencoder.history for name, c in runs.items()}))
    section.add_chart(losses, "Losses over steps, by run", "Masked loss of the autoencoder, by run.")
    draws = interactive(charts.draws({name: c.draws.history for name, c in runs.items()}))
    alt = "Recall, Spearman and agreement of halves against draws, by run"
    section.add_chart(draws, alt, "The similarity against draws, by run.")
    curves = interactive(charts.accuracy({name: c.compared for name, c in runs.items()}))
    section.add_chart(curves, "Validation results over steps, by run", "Validation results while training, by run.")
    if not section.blocks:
        section.absent.append("None of these runs has results to compare.")
    return section


def _with_runs(several: Mapping[str, Results], rows_of: Callable[[Results], tables.Rows]) -> tables.Rows:
    """The tables of several runs as one, with a first column that names the run."""
    found = {name: rows for name, results in several.items() if (rows := rows_of(results))}
    if not found:
        return []
    header = ["Run", *next(iter(found.values()))[0]]
    return [header, *([name, *row] for name, rows in found.items() for row in rows[1:])]


def _candidates(contents: Contents) -> Section:
    section = Section(
        "candidates",
        "Which positions to take?",
        "Judged without truth. Probe loss: how well a small masked autoencoder predicts held-out signals when it is "
        "given these positions; lower is better; random vectors stand beside it. Neighbor error: how "
        "well a position is predicted from its nearest by ridge regression. Of methods within two standard errors "
        "of the best, maed is taken, or partial, unless its neighbors predict clearly worse or hardly repeat.",
    )
    if rows := tables.candidate_rows(contents.results):
        section.add(TableBlock(rows))
    else:
        section.absent.append("No positions were probed (`maed run` does it unless --evaluation.probe_steps is 0).")
    return section


def _geometry(contents: Contents) -> Section:
    k = contents.results.neighbors or "k"
    section = Section(
        "geometry",
        "Was the geometry found?",
        f"Recall@{k}: the share of each position's {k} true nearest neighbors that a method finds. Spearman: how well "
        "its distances rank all pairs. Trustworthiness and coordinate R² reach 1 at best. Split-half agreement "
        "needs no truth: two embeddings from separate halves of the draws, compared.",
    )
    if rows := tables.geometry_rows(contents.results):
        section.add(TableBlock(rows))
    if not contents.results.geometry:
        section.absent.append(
            "Geometry was not measured: it needs an embedding and the true coordinates (`maed run`, `maed evaluate`)."
        )
    chart = interactive(charts.draws({"": contents.draws.history}))
    caption = "What the similarity has found after so many draws; the scale is logarithmic."
    section.add_chart(chart, "Recall, Spearman and agreement of halves against draws", caption)
    return section


def _accuracy(contents: Contents) -> Section:
    results = contents.results
    section = Section(
        "accuracy",
        "Does it help a Perceiver?",
        "Every encoding gets the same Perceiver, the same channels, the same data and the same seeds. The interval is "
        "the 95 % t-interval over seeds; “above” means that the low end of the paired difference is above 0.",
    )
    rows = tables.accuracy_rows(results)
    if not rows:
        section.absent.append("Not run: no Perceiver was trained in this folder (`maed compare` trains them).")
        return section
    measured = tables.measured(tables.summaries(results))
    caption = "Large dots: means over seeds; lines: 95 % intervals; small dots: seeds."
    curve = charts.label_curves(tables.summaries(results))
    section.add_chart(_accuracies({"": results}), f"Test {measured} of each encoding", caption)
    caption = (
        "Positions were learned from all signals of the training split, without labels; the Perceiver was given so "
        "many labels of them, the same for every encoding of a seed. Bars: 95 % intervals over seeds, each with its "
        "own draw of the labels. The scale is logarithmic."
    )
    section.add_chart(interactive(curve), f"Test {measured} against the number of labels", caption)
    section.add(TableBlock(rows))
    if paired := tables.paired_rows(results):
        section.add(TableBlock(paired, "Differences are paired: same seed, same test signals."))
    else:
        section.absent.append("No paired differences: they need two encodings trained with the same seeds.")
    if tuning := tables.tuning_rows(results):
        caption = f"Learning rates, chosen by validation {measured} with a seed of their own, as many for each."
        section.add(TableBlock(tuning, caption))
    caption = f"Validation {measured} while training; one line for each seed."
    curves = interactive(charts.accuracy({"": contents.compared}))
    section.add_chart(curves, f"Validation {measured} over steps", caption)
    return section


def _embedding(contents: Contents, printer: Printer) -> Section:
    section = Section(
        "embedding",
        "The channels of the embedding",
        "The leading ones first. Smooth patterns over the true geometry, like the waves of a Fourier basis, say that "
        "neighbors were given similar vectors.",
    )
    section.add(printer.channels())
    if not section.blocks:
        section.absent.append("Not run: this folder has no embedding (`maed embed` makes one).")
    return section


def _autoencoder(contents: Contents, explored: Mapping[str, Any] | None) -> Section:
    section = Section(
        "autoencoder",
        "What the masked autoencoder learned",
        "It is shown a few positions of a signal and predicts the rest. That it can is why its losses tell which "
        "positions belong together.",
    )
    if explored and explored["signals"]:
        section.add(Place("signals"))
    else:
        section.absent.append("No examples: this folder has no reconstructions (`maed pretrain` makes them).")
    chart = interactive(charts.training({"": contents.autoencoder.history}))
    caption = "Masked loss while training."
    if contents.autoencoder.visible:
        caption += f" {contents.autoencoder.visible} positions of each signal were shown."
    section.add_chart(chart, "Loss over steps", caption)
    if chart is None:
        section.absent.append("No training curve: this folder has no record of the training (`maed pretrain`).")
    return section


def _time(contents: Contents) -> Section:
    section = Section("time", "How long it took", "Wall-clock time of each stage on the machine named below.")
    if rows := tables.seconds_rows(contents.results):
        section.add(TableBlock(rows))
    else:
        section.absent.append("No times were recorded.")
    return section


def _accuracies(runs: Mapping[str, Results]) -> Figure | None:
    found = {name: (tables.summaries(results), results.scores or []) for name, results in runs.items()}
    return interactive(charts.accuracies(found))
