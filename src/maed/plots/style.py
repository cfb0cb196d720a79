"""The style of all figures: Axes, colors, and writing files."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, GridSpecBase

from maed.files import replacing
from maed.plots.palette import INK


def plain(text: str) -> str:
    """Text that matplotlib does not read as mathematics."""
    return text.replace("$", r"\$")


def short(name: str) -> str:
    """The name of a position as a figure has room for it."""
    return plain(name if len(name) <= 24 else f"{name[:23]}…")


def panels(
    ax: Axes | None, count: int, columns: int, size: tuple[float, float], *, projection: str | None = None
) -> tuple[Axes, list[Axes]]:
    """Axes for `count` panels in `columns`, row by row.

    Args:
        ax: Axes for the panels: used as they are for one panel, divided for several; None for a new Figure.
        count: Number of panels.
        columns: Number of panels in a row.
        size: Size of a panel in inches, in a new Figure.
        projection: `"3d"`, for panels that are not `ax` itself.

    Returns:
        `ax`, or that of the new Figure; and the panels.
    """
    rows = -(-count // columns)
    if ax is None:
        figure = Figure(figsize=(columns * size[0], rows * size[1]), layout="constrained")
        figure.patch.set_alpha(0)
        ax = figure.add_subplot(projection=projection if count == 1 else None)
    if count == 1:
        return ax, [ax]
    ax.set_axis_off()
    figure = figure_of(ax)
    grid: GridSpecBase
    spec = ax.get_subplotspec()
    if spec is not None:
        grid = spec.subgridspec(rows, columns)
    else:  # placed by hand: there is nothing to divide but its box
        box = ax.get_position()
        grid = GridSpec(rows, columns, figure, left=box.x0, right=box.x1, bottom=box.y0, top=box.y1)
    return ax, [figure.add_subplot(grid[divmod(i, columns)], projection=projection) for i in range(count)]


def tidy(ax: Axes) -> None:
    """Gray axes, no box, no background."""
    ax.set_facecolor("none")
    if ax.name != "3d":
        ax.spines[["top", "right"]].set_visible(False)
        ax.spines[["left", "bottom"]].set_color(INK)
    ax.tick_params(colors=INK, labelsize=8)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set_color(INK)
        label.set_fontsize(9)


def headline(ax: Axes, text: str) -> None:
    """The title of a panel.

    Above axes that are not drawn it has its place: matplotlib would measure their ticks to keep clear of them, and that
    takes as long as all else in a figure.
    """
    ax.set_title(plain(text), fontsize=9.5, color=INK, y=None if ax.axison else 1.0)


def legend(ax: Axes) -> None:
    """A frameless legend, if there is anything to tell apart."""
    if ax.get_legend_handles_labels()[1]:
        ax.legend(frameon=False, labelcolor=INK, fontsize=8)


def figure_of(ax: Axes) -> Figure:
    """The Figure that Axes lie in."""
    figure = ax.get_figure(root=True)
    assert figure is not None  # they have not been removed
    return figure


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as its suffix says (`.svg`, `.png`), whole or not at all; equal figures give equal bytes."""
    path = Path(path)
    kind = path.suffix[1:]
    metadata = {"Date": None} if kind == "svg" else {}
    with replacing(path) as temporary, matplotlib.rc_context({"svg.hashsalt": "maed"}):
        figure.savefig(temporary, format=kind, dpi=160, transparent=True, metadata=metadata)
