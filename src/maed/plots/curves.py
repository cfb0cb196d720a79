"""Curves and intervals: training, accuracy, and what more draws bring."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from maed.plots.style import BLUE, GREEN, INK, SKY, VERMILION, color_of, legend, panels, plain, tidy
from maed.records import Score, Summary


def training_curves(history: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw training and validation loss over steps; entries of `history` without a value are skipped."""
    ax, _ = panels(ax, 1, 1, (6.4, 3.0))
    for key, label, color, width in (
        ("train_loss", "training", SKY, 1.0),
        ("validation_loss", "validation", VERMILION, 2.0),
    ):
        steps, values = known_points(history, key)
        if steps:
            ax.plot(steps, values, color=color, linewidth=width, label=label, marker="o" if len(steps) == 1 else None)
    return _labeled(ax, "step", "masked loss")


def accuracy_curves(scores: Sequence[Score], *, ax: Axes | None = None) -> Axes:
    """Draw validation accuracy over steps, a line for each trained model, a color for each encoding."""
    ax, _ = panels(ax, 1, 1, (6.4, 3.2))
    named: set[str] = set()
    for score in scores:
        steps, values = known_points(score.history, "validation_accuracy")
        name = score.positions
        label = None if name in named else plain(name)
        named.add(name)
        ax.plot(steps, [100 * value for value in values], color=color_of(name), linewidth=1.5, alpha=0.85, label=label)
    return _labeled(ax, "step", "validation accuracy, %")


def accuracy_intervals(summary: Sequence[Summary], scores: Sequence[Score] = (), *, ax: Axes | None = None) -> Axes:
    """Draw mean test accuracy of each encoding with its 95 % interval; small dots are the seeds of `scores`."""
    ordered = sorted(summary, key=lambda entry: entry.mean)
    ax, _ = panels(ax, 1, 1, (6.4, 0.8 + 0.42 * len(ordered)))
    for height, entry in enumerate(ordered):
        name, mean = entry.positions, 100 * entry.mean
        seeds = [100 * row.value for row in scores if row.positions == name and row.value is not None]
        ax.scatter(seeds, [height - 0.24] * len(seeds), s=14, color=color_of(name), alpha=0.6, linewidths=0)
        if entry.low is not None and entry.high is not None and entry.seeds != 1:
            ax.plot([100 * entry.low, 100 * entry.high], [height] * 2, color=color_of(name), linewidth=2.2)
        ax.scatter([mean], [height], s=56, color=color_of(name), zorder=3, linewidths=0)
    ax.set_yticks(range(len(ordered)), [plain(entry.positions) for entry in ordered])
    ax.set_ylim(-0.6, len(ordered) - 0.4)
    ax.set_xlabel("test accuracy, % (dot: mean over seeds; line: 95 % interval; small dots: seeds)")
    tidy(ax)
    ax.grid(axis="x", color=INK, alpha=0.2, linewidth=0.6)
    ax.tick_params(axis="y", length=0, labelsize=10)
    return ax


def against_draws(history: Sequence[Mapping[str, Any]], *, ax: Axes | None = None) -> Axes:
    """Draw what the similarity has found after so many draws: recall and Spearman of its own entries, and agreement.

    Args:
        history: entries with `draws`, and any of `knn_recall`, `spearman` and `split_half`, as
            `similarity/config.json` has them.
        ax: where to draw.
    """
    ax, _ = panels(ax, 1, 1, (6.4, 3.0))
    for key, label, color, dashes in (
        ("knn_recall", "recall of true neighbors", VERMILION, "-"),
        ("spearman", "Spearman with true distances", BLUE, "--"),
        ("split_half", "agreement of two halves", GREEN, ":"),
    ):
        draws, values = known_points(history, key, over="draws")
        if draws:
            ax.plot(draws, values, color=color, linestyle=dashes, linewidth=1.8, marker="o", markersize=3, label=label)
    ax.set_xscale("log", base=2)
    return _labeled(ax, "draws", "of the similarity's entries")


def _labeled(ax: Axes, x: str, y: str) -> Axes:
    ax.set(xlabel=x, ylabel=y)
    tidy(ax)
    legend(ax)
    return ax


def known_points(history: Sequence[Mapping[str, Any]], key: str, over: str = "step") -> tuple[list[float], list[float]]:
    """Steps and values of `key`, where there is a value."""
    known = [(entry[over], entry[key]) for entry in history if entry.get(key) is not None]
    return [step for step, _ in known], [value for _, value in known]
