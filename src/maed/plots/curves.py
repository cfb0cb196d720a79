"""Curves and intervals with matplotlib: training, accuracy, and what more draws bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from maed.plots import charts
from maed.plots.palette import INK
from maed.plots.style import legend, panels, plain, tidy
from maed.records import Score, Summary

_STYLES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}


def training_curves(history: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw training and validation loss over steps; entries of `history` without a value are skipped.

    Returns:
        The Axes that were drawn in.
    """
    return _draw(charts.training({"": history}), ax)


def accuracy_curves(scores: Sequence[Score], *, ax: Axes | None = None) -> Axes:
    """Draw validation accuracy over steps, a line for each trained model, a color for each encoding.

    Returns:
        The Axes that were drawn in.
    """
    return _draw(charts.accuracy({"": scores}), ax)


def against_draws(history: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw what the similarity has found after so many draws: recall and Spearman of its own entries, and agreement.

    Args:
        history: Entries with `draws`, and any of `knn_recall`, `spearman` and `split_half`, as
            `similarity/config.json` has them.
        ax: Axes to draw on.

    Returns:
        The Axes that were drawn in.
    """
    ax = _draw(charts.draws({"": history}), ax)
    ax.set_xscale("log", base=2)
    return ax


def accuracy_intervals(summary: Sequence[Summary], scores: Sequence[Score] = (), *, ax: Axes | None = None) -> Axes:
    """Draw mean test accuracy of each encoding with its 95 % interval; small dots are the seeds of `scores`.

    Returns:
        The Axes that were drawn in.
    """
    chart = charts.accuracies({"": (summary, scores)})
    rows = chart.intervals
    ax, _ = panels(ax, 1, 1, (6.4, 0.8 + 0.42 * len(rows)))
    for height, row in enumerate(rows):
        ax.scatter(row.seeds, [height - 0.24] * len(row.seeds), s=14, color=row.color, alpha=0.6, linewidths=0)
        if row.low is not None and row.high is not None:
            ax.plot([row.low, row.high], [height] * 2, color=row.color, linewidth=2.2)
        ax.scatter([row.mean], [height], s=56, color=row.color, zorder=3, linewidths=0)
    ax.set_yticks(range(len(rows)), [plain(row.name) for row in rows])
    ax.set_ylim(-0.6, len(rows) - 0.4)
    ax.set_xlabel(f"{chart.x} (dot: mean over seeds; line: 95 % interval; small dots: seeds)")
    tidy(ax)
    ax.grid(axis="x", color=INK, alpha=0.2, linewidth=0.6)
    ax.tick_params(axis="y", length=0, labelsize=10)
    return ax


def label_curves(summary: Sequence[Summary], *, ax: Axes | None = None) -> Axes:
    """Draw what encodings reach with so many labels, on a logarithmic scale, with 95 % intervals.

    Returns:
        The Axes that were drawn in.
    """
    ax = _draw(charts.label_curves(summary), ax)
    ax.set_xscale("log")
    return ax


def _draw(chart: charts.Chart, ax: Axes | None) -> Axes:
    ax, _ = panels(ax, 1, 1, (6.4, 3.0))
    for line in chart.lines:
        look = {"color": line.color, "linestyle": _STYLES[line.dash], "linewidth": 1.7}
        marker = "o" if len(line.x) == 1 else None
        if line.low:
            ax.fill_between(line.x, line.low, line.high, color=line.color, alpha=0.15, linewidth=0)
            marker = "o"
        ax.plot(line.x, line.y, label=plain(line.name) if line.named else None, marker=marker, **look)  # type: ignore[arg-type]
    ax.set(xlabel=chart.x, ylabel=chart.y)
    tidy(ax)
    legend(ax)
    return ax
