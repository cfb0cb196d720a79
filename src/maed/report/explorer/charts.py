"""Curves and accuracies as plotly figures: plain data, which the page draws in its own colors, light or dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from maed import plots
from maed.plots.curves import known_points
from maed.records import Results, Score, Summary
from maed.report.tables import summaries

Chart = dict[str, Any]
"""A plotly figure: `data` and `layout`."""

_RUN_COLORS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""Of runs that are compared (Okabe and Ito's palette), the page's own first."""

_DASHES = ("solid", "dash", "dot", "dashdot")


def label(text: Any) -> str:
    """Text of a chart: plotly reads some HTML in labels, and names come from data."""
    return escape(str(text), quote=False)


def training_curves(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Chart | None:
    """Training and validation loss over steps, by the names of runs; None where nothing was recorded."""
    lines = (("train_loss", "training", "dot"), ("validation_loss", "validation", "solid"))
    traces = _lines(histories, lines, over="step")
    return _chart(traces, "step", "masked loss", 320) if traces else None


def accuracy_curves(runs: Mapping[str, Sequence[Score]]) -> Chart | None:
    """Validation accuracy over steps, a line for each model, a color for each encoding, a dash for each run."""
    traces, named = [], set()
    for index, (run, scores) in enumerate(runs.items()):
        for score in scores:
            steps, values = known_points(score.history, "validation_accuracy")
            if not steps:
                continue
            shown = label(score.positions) if len(runs) == 1 else f"{label(score.positions)}, {label(run)}"
            percents, dash = [100 * value for value in values], _DASHES[index % len(_DASHES)]
            line = _line(steps, percents, shown, plots.color_of(score.positions), dash=dash)
            traces.append({**line, "legendgroup": shown, "showlegend": shown not in named})
            named.add(shown)
    return _chart(traces, "step", "validation accuracy, %", 340) if traces else None


def accuracy_intervals(runs: Mapping[str, Results]) -> Chart | None:
    """Mean test accuracy of each encoding with its 95 % interval, and each seed, by the `results` of runs."""
    traces: list[dict[str, Any]] = []
    rows: list[str] = []
    for index, (run, results) in enumerate(runs.items()):
        known = sorted(summaries(results), key=lambda entry: entry.mean)
        rows += [entry.positions for entry in known]
        several = len(runs) > 1
        colors = [_RUN_COLORS[index % len(_RUN_COLORS)]] * len(known)
        if not several:
            colors = [plots.color_of(entry.positions) for entry in known]
        seeds = [(row.positions, row.value) for row in results.scores or [] if row.value is not None]
        seeds = [(name, value) for name, value in seeds if name in {entry.positions for entry in known}]
        if seeds:
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": "seeds" if not several else f"{label(run)}, seeds",
                    "showlegend": False,
                    "x": [100 * value for _, value in seeds],
                    "y": [label(name) for name, _ in seeds],
                    "marker": {"size": 6, "opacity": 0.45, "color": colors[0] if several else "#7a7a7a"},
                    "hovertemplate": "one seed: %{x:.1f} %<extra>%{y}</extra>",
                }
            )
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": label(run) if several else "mean",
                "showlegend": several,
                "x": [100 * entry.mean for entry in known],
                "y": [label(entry.positions) for entry in known],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "array": [_reach(entry, entry.high) for entry in known],
                    "arrayminus": [_reach(entry, entry.low) for entry in known],
                    "thickness": 2.4,
                    "width": 0,
                    "color": colors[0] if several and colors else "#7a7a7a",
                },
                "marker": {"size": 11, "color": colors},
                "hovertemplate": "mean %{x:.1f} %<extra>%{y}</extra>",
            }
        )
    names = list(dict.fromkeys(rows))
    if not names:
        return None
    chart = _chart(traces, "test accuracy, %", "", 110 + 34 * len(names))
    chart["layout"]["yaxis"] |= {"type": "category", "automargin": True, "showgrid": False}
    chart["layout"]["hovermode"] = "closest"
    return chart


def against_draws(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Chart | None:
    """Recall, Spearman and split-half agreement of the similarity against the draws made so far; None where unknown."""
    halves = ("split_half", "agreement of two halves", "dash")
    lines = (("knn_recall", "recall", "solid"), ("spearman", "Spearman", "dot"), halves)
    traces = _lines(histories, lines, over="draws")
    if not traces:
        return None
    chart = _chart(traces, "draws", "of the similarity's entries", 320)
    chart["layout"]["xaxis"] |= {"type": "log", "dtick": 1}
    return chart


def _reach(entry: Summary, end: float | None) -> float:
    """How far an interval goes from its mean; a single seed has none."""
    return 0.0 if end is None or entry.seeds == 1 else abs(100 * (end - entry.mean))


def _lines(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], lines: Sequence[tuple[str, str, str]], *, over: str
) -> list[dict[str, Any]]:
    """A color for each run, and for each of `lines`, which are a key, what it is called and a dash, a line in it."""
    traces = []
    for index, (run, history) in enumerate(histories.items()):
        for key, title, dash in lines:
            x, y = known_points(history, key, over)
            name = title if len(histories) == 1 else f"{label(run)}, {title}"
            if x:
                traces.append(_line(x, y, name, _RUN_COLORS[index % len(_RUN_COLORS)], dash=dash))
    return traces


def _line(x: Sequence[float], y: Sequence[float], name: str, color: str, *, dash: str) -> dict[str, Any]:
    line = {"color": color, "dash": dash, "width": 2}
    few = len(x) < 40
    mode = "lines+markers" if few else "lines"
    return {"type": "scatter", "mode": mode, "x": [*x], "y": [*y], "name": name, "line": line, "marker": {"size": 5}}


def _chart(traces: list[dict[str, Any]], x: str, y: str, height: int) -> Chart:
    axes = {"xaxis": {"title": {"text": x}}, "yaxis": {"title": {"text": y}}}
    legend = {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"}
    return {"data": traces, "layout": {**axes, "height": height, "legend": legend, "hovermode": "x unified"}}
