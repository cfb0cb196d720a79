"""The generated parts of docs/geometry.md and its figures, from results/geometry.json alone (see geometry.py)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from maed.errors import MaedError
from maed.evaluation.comparison import interval
from maed.files import write_text
from maed.plots.palette import BLUE, GREEN, INK, ORANGE, SKY, VERMILION
from maed.plots.style import save
from maed.report.tables import NOTHING, Rows, markdown_table
from study import MEASURES, Cell, Study, over_seeds, study_cells, study_origin, target_rows

EMPTY: Study = {"schema": 1, "study": "geometry", "rows": [], "defaults": {}, "cells": []}
"""The records before the first cell."""

NOT_RUN = "*Not run yet.*"

_MARKERS = re.compile(r"(<!-- begin (\S+) -->\n)(.*?)(<!-- end \2 -->)", flags=re.DOTALL)
_COLORS = (VERMILION, BLUE, GREEN, ORANGE, SKY)
_SHAPES = "os^Dv"

Column = tuple[str, str, str]
"""A heading, what it is of (`maed`, `baseline` for the first one, or a baseline's name) and the measure."""

_QUALITY: list[Column] = [
    ("Recall@k, similarity", "maed", "entries_knn_recall"),
    ("Recall@k, embedding", "maed", "knn_recall"),
    ("Spearman, embedding", "maed", "spearman"),
    ("Coordinate R²", "maed", "coordinate_r2"),
    ("Split-half", "maed", "split_half"),
]
_BASELINE: list[Column] = [
    ("Baseline: recall@k, embedding", "baseline", "knn_recall"),
    ("Spearman", "baseline", "spearman"),
    ("R²", "baseline", "coordinate_r2"),
]
_STREAMING: Column = ("Streaming, seconds", "maed", "streaming")
_SECONDS: Column = ("Seconds", "maed", "seconds")


def write_docs(path: Path, study: Study) -> list[Path]:
    """Renew the page and the figures of the groups that were run; returns what was written."""
    text = path.read_text(encoding="utf-8")
    write_text(path, render(text, study))
    written = [path]
    for name, draw in FIGURES.items():
        if study_cells(study, name):
            written.append(path.parent / "images" / f"geometry-{name}.svg")
            save(draw(study), written[-1])
    return written


def render(text: str, study: Study) -> str:
    """The page with every part between its markers made anew; the words around them stay."""

    def renewed(match: re.Match[str]) -> str:
        begin, name, _, end = match.groups()
        if name not in PARTS:
            raise MaedError(f"docs: <!-- begin {name} -->, but that is no part; they are {', '.join(PARTS)}")
        return f"{begin}\n{PARTS[name](study)}\n\n{end}"

    return _MARKERS.sub(renewed, text)


# --- tables -------------------------------------------------------------------------------------------------------


def recorded(study: Study) -> str:
    """How many cells, which seeds, commits and machines."""
    return study_origin(cell for cell in study["cells"] if not cell.get("outdated"))


def targets(study: Study) -> str:
    """What was asked, and what came of it."""
    rows = target_rows(study)
    return markdown_table(rows) if rows else NOT_RUN


def details(study: Study) -> str:
    """All measures of the rows that have targets: of maed and of every baseline."""
    names = [name for name in MEASURES if name not in ("changed", "test_accuracy", "seconds", "streaming")]
    rows: Rows = [["Source", "Of", *(MEASURES[name].title.format(k="k") for name in names), "Seeds"]]
    for title, _, cells in _rows(study, "targets"):
        for of in ("maed", *cells[0]["baselines"]):
            values = [over_seeds(cells, of, name) for name in names]
            shown = [MEASURES[name].spread(found.values()) for name, found in zip(names, values, strict=True)]
            rows.append([title, _started(of, cells[0]), *shown, str(len(cells))])
    return markdown_table(rows) if len(rows) > 1 else NOT_RUN


def _started(of: str, cell: Cell) -> str:
    """A warm start says so, and what it started from."""
    return f"maed, started from {cell['started_from']}" if of == "maed" and cell["started_from"] else of


def varied(group: str, columns: Sequence[Column]) -> Callable[[Study], str]:
    """The table of a group: a line for each row and each value that it varies."""

    def table(study: Study) -> str:
        rows: Rows = []
        names: list[str] = []
        refused: list[str] = []
        for title, values, cells in _rows(study, group):
            names += [name for name in values if name not in names]
            shown = [_spread(cells, of, name) for _, of, name in columns]
            rows.append([title, *(_say(values.get(name)) for name in names), *shown, str(len(cells))])
            where = ", ".join([title, *(f"{_say(value)}" for value in values.values())])
            refused += [f"{where}, seed {cell['seed']}: {why}" for cell in cells if (why := _refused(cell))]
        if not rows:
            return NOT_RUN
        header = ["Source", *(name.rpartition(".")[2].replace("_", " ") for name in names)]
        header += [heading for heading, _, _ in columns]
        image = f"![](images/geometry-{group}.svg)\n\n" if group in FIGURES else ""
        notes = "".join(f"\n\nRefused: {line}." for line in refused)
        return f"{image}{markdown_table([[*header, 'Seeds'], *rows])}{notes}"

    return table


def _refused(cell: Cell) -> str | None:
    """Why there is no embedding of maed, where a stage refused."""
    first: dict[str, Any] = next((entry for entry in cell["embeddings"] if entry["of"] == "maed"), {})
    return cell.get("refused") or first.get("refused")


_KEPT = ("knn_recall", "spearman", "coordinate_r2", "trustworthiness")


def reductions(group: str, names: Sequence[str] = _KEPT, *, baselines: bool = True) -> Callable[[Study], str]:
    """What each reduction of a group keeps, of maed's similarity and of the baseline's."""

    def table(study: Study) -> str:
        titles = [MEASURES[name].title.format(k="k").removesuffix(", embedding") for name in names]
        rows: Rows = [["Source", "Similarity", "Reduction", *titles, "Seconds to reduce", "Seeds"]]
        for title, _, cells in _rows(study, group):
            for of in ("maed", *(cells[0]["baselines"] if baselines else ())):
                entries = [entry for entry in cells[0]["embeddings"] if entry["of"] == of]
                for number, entry in enumerate(entries):
                    shown = [MEASURES[name].spread(over_seeds(cells, of, name, number).values()) for name in names]
                    took = [[one for one in cell["embeddings"] if one["of"] == of][number]["seconds"] for cell in cells]
                    seconds = f"{sum(took) / len(took):.2f}"
                    rows.append([title, of, _label(cells[0], number, entry), *shown, seconds, str(len(cells))])
        return markdown_table(rows) if len(rows) > 1 else NOT_RUN

    return table


def _label(cell: Cell, number: int, entry: dict[str, Any]) -> str:
    """A reduction with those of its settings that are not the defaults."""
    settings = {k: v for k, v in cell["made_with"]["reductions"][number].items() if k != "reduction"}
    return ", ".join([entry["reduction"], *(f"{name.removeprefix('n_')} {value}" for name, value in settings.items())])


def _rows(study: Study, group: str) -> Iterable[tuple[str, dict[str, Any], list[Cell]]]:
    """Title, varied values and cells of all seeds, in the order of the plan."""
    titles = {row["row"]: row["title"] for row in study["rows"] if row["group"] == group}
    found: dict[str, list[Cell]] = {}
    cells = study_cells(study, group)
    order = list(titles)
    for cell in sorted(cells, key=lambda cell: order.index(cell["row"])):  # stable: varied values stay in order
        found.setdefault(f"{cell['row']} {cell['varied']}", []).append(cell)
    for same in found.values():
        yield titles[same[0]["row"]], same[0]["varied"], same


def _values(cells: Sequence[Cell], of: str, name: str) -> dict[int, float]:
    """seed -> value; `baseline` is the first of the cell's."""
    baselines = cells[0]["baselines"] or [NOTHING]
    return over_seeds(cells, baselines[0] if of == "baseline" else of, name)


def _spread(cells: Sequence[Cell], of: str, name: str) -> str:
    return MEASURES[name].spread(_values(cells, of, name).values())


def _say(value: Any) -> str:
    if value is None:
        return NOTHING
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)


# --- figures ------------------------------------------------------------------------------------------------------


def draws_figure(study: Study) -> Figure:
    """Recall against draws and against the time that they took; a line for each estimator, a panel for each source.

    The words of a row's title before its first comma name the source, the others the estimator.
    """
    lines: dict[str, dict[str, list[list[Cell]]]] = {}
    for title, _, cells in _rows(study, "draws"):
        source, _, label = title.partition(", ")
        lines.setdefault(source, {}).setdefault(label, []).append(cells)
    figure, panels = _panels(len(lines), 3)
    for axes, (source, estimators) in zip(panels, lines.items(), strict=True):
        last = next(iter(estimators.values()))[-1]
        k = last[0]["neighbors"]
        for ax, x_label, name, what in zip(
            axes,
            ("draws", "draws", "seconds of streaming"),
            ("entries_knn_recall", "knn_recall", "knn_recall"),
            ("similarity", "embedding", "embedding"),
            strict=True,
        ):
            for number, (label, points) in enumerate(estimators.items()):
                x = [_place(cells, "draws" if x_label == "draws" else None, "similarity") for cells in points]
                _line(ax, x, points, "maed", name, label, number)
            _level(ax, last, name)
            _finish(ax, x_label, f"{source}: recall@{k}, {what}")
    _legend(figure, panels[0][0])
    return figure


def training_figure(study: Study) -> Figure:
    """Quality against training steps and against the seconds that they took."""
    return _quality_figure(study, "training", {"training steps": "steps", "seconds of training": None})


def visible_figure(study: Study) -> Figure:
    """Quality against the number of visible positions, at equal steps and draws."""
    return _quality_figure(study, "visible", {"visible fraction": "autoencoder.visible_fraction"})


def _quality_figure(study: Study, group: str, axes_of: dict[str, str | None]) -> Figure:
    """A row of panels for each source, a panel for each x; lines for recall and Spearman, the baseline's dashed."""
    sources: dict[str, list[list[Cell]]] = {}
    for title, _, cells in _rows(study, group):
        sources.setdefault(title, []).append(cells)
    measures = ("entries_knn_recall", "knn_recall", "spearman")
    across = len(axes_of) if len(axes_of) > 1 else len(sources)
    figure, panels = _panels(-(-len(sources) * len(axes_of) // across), across)
    places = [(title, points, *place) for title, points in sources.items() for place in axes_of.items()]
    for ax, (title, points, label, key) in zip((ax for row in panels for ax in row), places, strict=False):
        x = [_place(cells, key) for cells in points]
        for number, name in enumerate(measures):
            titled = MEASURES[name].title.format(k=points[0][0]["neighbors"])
            _line(ax, x, points, "maed", name, titled, number)
            _level(ax, points[-1], name, _COLORS[number])
        _finish(ax, label, title)
    _legend(figure, panels[0][0])
    return figure


def _place(cells: Sequence[Cell], key: str | None, stage: str = "pretrain") -> float:
    """Where cells of equal settings stand on the x axis: a varied setting, a number of theirs, or a stage's time."""
    nowhere = float("nan")  # where a stage refused: matplotlib leaves the point out
    if key is not None:
        return cells[0]["varied"].get(key, cells[0].get(key, nowhere))
    found = [cell["seconds"][stage] for cell in cells if stage in cell["seconds"]]
    return sum(found) / len(found) if found else nowhere


def _line(
    ax: Axes, x: Sequence[float], points: Sequence[Sequence[Cell]], of: str, name: str, label: str, number: int
) -> None:
    """Means over seeds with the 95 % interval as a band, of one seed none."""
    places, means, lows, highs = [], [], [], []
    for place, cells in zip(x, points, strict=True):
        if values := _values(cells, of, name):
            mean, low, high = interval(list(values.values()))
            places.append(place)
            means.append(mean)
            lows.append(mean if low is None else low)
            highs.append(mean if high is None else high)
    color = _COLORS[number]
    ax.plot(places, means, color=color, marker=_SHAPES[number], markersize=4, linewidth=1.5, label=label)
    ax.fill_between(places, lows, highs, color=color, alpha=0.18, linewidth=0)


def _level(ax: Axes, cells: Sequence[Cell], name: str, color: str = INK) -> None:
    """The baseline's mean as a dashed line."""
    found = _values(cells, "baseline", name)
    if found:
        label = f"{cells[0]['baselines'][0]}" if color == INK else None
        ax.axhline(sum(found.values()) / len(found), color=color, linestyle="--", linewidth=1.0, label=label)


def _panels(rows: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    figure = Figure(figsize=(3.6 * columns, 2.9 * rows), layout="constrained")
    return figure, [list(row) for row in figure.subplots(rows, columns, squeeze=False)]


def _legend(figure: Figure, ax: Axes) -> None:
    """One legend for all panels, below them: the lines of any panel are those of the others."""
    handles, labels = ax.get_legend_handles_labels()
    columns = min(len(labels), int(figure.get_figwidth() / 1.8))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, labelcolor=INK, fontsize=8)


def _finish(ax: Axes, x_label: str, title: str) -> None:
    """Gray axes without a box or a background, readable on light and dark."""
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:,g}")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(0, 1.02)
    ax.set_xlabel(x_label, color=INK, fontsize=9)
    ax.set_title(title, color=INK, fontsize=9)
    ax.set_facecolor("none")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(INK)
    ax.tick_params(which="both", colors=INK, labelsize=8)
    ax.grid(axis="y", color=INK, alpha=0.2, linewidth=0.6)


FIGURES: dict[str, Callable[[Study], Figure]] = {
    "draws": draws_figure,
    "training": training_figure,
    "visible": visible_figure,
}

_MAGNITUDES: Column = ("R² of magnitudes' correlation", "correlation of magnitudes", "coordinate_r2")

PARTS: dict[str, Callable[[Study], str]] = {
    "recorded": recorded,
    "targets": targets,
    "details": details,
    "draws": varied("draws", [*_QUALITY, ("Neighbors changed", "maed", "changed"), _STREAMING]),
    "training": varied("training", [*_QUALITY, *_BASELINE, _SECONDS]),
    "visible": varied("visible", [*_QUALITY, *_BASELINE, _SECONDS]),
    "autoencoders": varied("autoencoders", [*_QUALITY, *_BASELINE, _SECONDS]),
    "losses": varied("losses", [*_QUALITY, *_BASELINE, _MAGNITUDES, _SECONDS]),
    "reductions": reductions("reductions"),
    "perceivers": reductions("perceivers", ("test_accuracy", *_KEPT), baselines=False),
    "choices": reductions("choices"),
    "noise": varied("noise", [*_QUALITY, *_BASELINE, _SECONDS]),
}
"""What stands between `<!-- begin NAME -->` and `<!-- end NAME -->`."""
