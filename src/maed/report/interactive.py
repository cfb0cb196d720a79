"""Charts as plotly figures: plain data, which the page draws in its own colors, light or dark."""

from __future__ import annotations

from html import escape
from typing import Any

from maed.plots.charts import Chart, Interval, Line
from maed.plots.palette import INK

Figure = dict[str, Any]
"""A plotly figure: `data` and `layout`."""


def interactive(chart: Chart) -> Figure | None:
    """A chart as a plotly figure; None if it has nothing to show."""
    if not chart:
        return None
    names = list(dict.fromkeys(entry.name for entry in chart.intervals))
    traces = [
        {
            "type": "scatter",
            "mode": "lines+markers" if len(line.x) < 40 else "lines",
            "x": line.x,
            "y": line.y,
            "name": label(line.name),
            "legendgroup": label(line.name),
            "showlegend": line.named,
            "line": {"color": line.color, "dash": line.dash, "width": 2},
            "marker": {"size": 5},
            **({"error_y": _ends(line)} if line.low else {}),
        }
        for line in chart.lines
    ]
    for run in dict.fromkeys(entry.run for entry in chart.intervals):
        traces += _intervals(run, [entry for entry in chart.intervals if entry.run == run], chart.unit)
    height = 110 + 34 * len(names) if names else 320
    layout: Figure = {
        "xaxis": {"title": {"text": chart.x}, **({"type": "log", "dtick": 1} if chart.log else {})},
        "yaxis": {"title": {"text": chart.y}},
        "height": height,
        "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
        "hovermode": "closest" if names else "x unified",
    }
    if names:
        layout["yaxis"] |= {"type": "category", "automargin": True, "showgrid": False}
    return {"data": traces, "layout": layout}


def _ends(line: Line) -> dict[str, Any]:
    """The intervals of a line."""
    above = [high - y for high, y in zip(line.high, line.y, strict=True)]
    below = [y - low for low, y in zip(line.low, line.y, strict=True)]
    ends = {"type": "data", "symmetric": False, "array": above, "arrayminus": below}
    return {**ends, "thickness": 1.6, "width": 3, "color": line.color}


def label(text: Any) -> str:
    """Text of a chart: plotly reads some HTML in labels, and names come from data."""
    return escape(str(text), quote=False)


def _intervals(run: str, rows: list[Interval], unit: str) -> list[dict[str, Any]]:
    """The means of a run with their intervals, and their seeds, if there are any."""
    gray = rows[0].color if run else INK
    seeds = [(label(row.name), value) for row in rows for value in row.seeds]
    means = {
        "type": "scatter",
        "mode": "markers",
        "name": label(run) or "mean",
        "showlegend": bool(run),
        "x": [row.mean for row in rows],
        "y": [label(row.name) for row in rows],
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [0.0 if row.high is None else row.high - row.mean for row in rows],
            "arrayminus": [0.0 if row.low is None else row.mean - row.low for row in rows],
            "thickness": 2.4,
            "width": 0,
            "color": gray,
        },
        "marker": {"size": 11, "color": [row.color for row in rows]},
        "hovertemplate": f"mean %{{x:.4~g}}{unit}<extra>%{{y}}</extra>",
    }
    dots = {
        "type": "scatter",
        "mode": "markers",
        "name": f"{label(run)}, seeds" if run else "seeds",
        "showlegend": False,
        "x": [value for _, value in seeds],
        "y": [name for name, _ in seeds],
        "marker": {"size": 6, "opacity": 0.45, "color": gray},
        "hovertemplate": f"one seed: %{{x:.4~g}}{unit}<extra>%{{y}}</extra>",
    }
    return [dots, means] if seeds else [means]
