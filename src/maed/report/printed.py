"""The figures of a run for print, written beside the page, and the few of them that are in it."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from maed import plots
from maed.plots import charts
from maed.plots.layout import ASSIGNABLE, FEWEST, recovered_layout, row_major, to_grid
from maed.report import tables
from maed.report.contents import Contents, Examples
from maed.report.header import is_shuffled, knows_order
from maed.settings import ReportSettings

MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}

_MOSAIC = 4
"""Signals, to a side, that are shown as stored and put in order."""

_NAMED = 200
"""Most positions whose names are written beside them: of more, they would hide one another."""


@dataclass
class Picture:
    """A figure, inlined; below `least` CSS pixels its container scrolls, above `most` it grows no more."""

    uri: str
    alt: str
    caption: str
    least: int
    most: int


@dataclass
class Printer:
    """Draws what a run holds, and writes it to a folder.

    Args:
        contents: Contents of the run folder.
        settings: Settings, with the number of figures of each kind.
        folder: Folder for the figures.
        layout: `(N, 2)`, from the embedding alone, if there is one and it is not too large.
    """

    contents: Contents
    settings: ReportSettings
    folder: Path
    layout: np.ndarray | None = None

    def __post_init__(self) -> None:
        vectors = self.contents.vectors
        if vectors is not None and vectors.shape[1] and FEWEST <= len(vectors) <= ASSIGNABLE:
            self.layout = recovered_layout(vectors)

    def write_all(self) -> None:
        """Write every figure that the run has parts for; those that the page inlines are written by it."""
        contents, settings = self.contents, self.settings
        suffix = ".png" if contents.is_grid or (contents.shape == () and (contents.positions or 0) > 1000) else ".svg"
        if contents.similarity is not None:
            chosen = plots.spread_positions(
                contents.coordinates, len(contents.similarity), settings.positions, contents.kind
            )
            where = contents.coordinates, contents.shape, contents.kind
            maps = plots.similarity_maps(contents.similarity, chosen, *where, names=contents.names)
            self._save(f"similarity{suffix}", maps)
            self._save("matrix.png", plots.similarity_matrix(contents.similarity, *where, names=contents.names))
        if contents.draws.history:
            self._save("draws.svg", plots.against_draws(contents.draws.history))
        if self.layout is not None:
            large = ".png" if len(self.layout) > 600 else ".svg"
            names = contents.names if len(self.layout) <= _NAMED else None
            drawn = plots.recovered_layout(self.layout, contents.coordinates, contents.shape, names=names)
            self._save(f"layout{large}", drawn)
        if contents.examples is not None and not contents.examples.is_tokens:
            self._write_reconstructions(contents.examples, suffix)
        if contents.autoencoder.history:
            self._save("training.svg", plots.training_curves(contents.autoencoder.history))
        if means := tables.summaries(contents.results):
            self._save("accuracy.svg", plots.accuracy_intervals(means, contents.results.scores or []))
        if charts.label_curves(means := tables.summaries(contents.results)):
            self._save("labels.svg", plots.label_curves(means))
        if any(model.history for model in contents.compared):
            self._save("perceivers.svg", plots.accuracy_curves(contents.compared))

    def _write_reconstructions(self, examples: Examples, suffix: str) -> None:
        """All signals with the fraction that the autoencoder was trained with; a few with every fraction."""
        contents, at, few = self.contents, examples.trained, self.settings.signals
        original, visible, made = examples.original, examples.visible, examples.reconstruction
        where = contents.coordinates, contents.shape
        self._save(f"reconstructions{suffix}", plots.reconstructions(original, visible[at], made[at], *where))
        if len(examples.fractions) > 1:
            shown = original[:few], examples.fractions, visible[:, :few], made[:, :few]
            self._save(f"fractions{suffix}", plots.reconstructions_by_fraction(*shown, *where))

    def channels(self) -> Picture | None:
        """The first channels of the embedding."""
        contents, most = self.contents, self.settings.channels
        if contents.vectors is None or not contents.vectors.shape[1]:
            return None
        many = contents.is_grid or (contents.positions or 0) > 1000
        where = contents.coordinates, contents.shape, contents.kind
        drawn = plots.embedding_channels(contents.vectors, *where, channels=most)
        count, dim = contents.vectors.shape
        caption = f"{min(most, dim)} of {dim} channels of {count:,} positions, drawn {drawn_on(contents)}."
        name = "channels.png" if many else "channels.svg"
        return self._picture(name, drawn, "The first channels of the embedding", caption, 480)

    def unshuffled(self) -> Picture | None:
        """The picture that convinces: shuffled images put in order by the embedding that the run leads with."""
        contents, layout, method = self.contents, self.layout, "maed"
        taken = contents.baselines.get(contents.results.chosen or "")
        if layout is not None and taken is not None and taken.vectors is not None:
            layout, method = recovered_layout(taken.vectors), str(contents.results.chosen)
        examples = contents.examples
        images = None if examples is None or examples.is_tokens else examples.original
        if layout is None or contents.coordinates is None or not contents.is_grid or images is None:
            return None
        count = min(math.isqrt(len(images)), _MOSAIC) ** 2  # a full square
        drawn = plots.unshuffled(images[:count], layout, contents.coordinates, contents.shape, method=method)
        near = near_share(layout, contents.coordinates)
        knows = method == "maed" and knows_order(contents)
        straight = f"stored in their true order, which {'the U-Net knows by construction' if knows else 'nothing read'}"
        stored = "stored in shuffled order" if is_shuffled(contents) else straight
        without = "coordinates or labels" if knows else "coordinates, labels or the storage order"
        caption = (
            f"Real signals, {stored}; then every position put where the embedding of {method} places it; and the "
            f"layout that says where. The embedding was made without {without}; only the orientation of the picture, "
            f"which no data can tell, is taken from the truth. {tables.percent(near)} of the positions lie within one "
            "step of their true place."
        )
        alt = "Signals as stored, put in order by the embedding, and the layout that it makes"
        return self._picture("unshuffled.png", drawn, alt, caption, 320)  # all of it on a phone: it is what convinces

    def _save(self, name: str, drawn: Axes) -> Path:
        plots.save(plots.figure_of(drawn), self.folder / name)
        return self.folder / name

    def _picture(self, name: str, drawn: Axes, alt: str, caption: str, least: int) -> Picture:
        path = self._save(name, drawn)
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        # keeps letters near the size of the page's text
        most = max(least, round(110 * plots.figure_of(drawn).get_figwidth()))
        return Picture(f"data:{MEDIA[path.suffix]};base64,{data}", alt, caption, least, most)


def drawn_on(contents: Contents) -> str:
    """Describe the axis of a drawing."""
    if contents.coordinates is None:
        return "in storage order, as the true coordinates are not known"
    if contents.is_grid:
        return "on the true grid"
    return "along the true line" if contents.coordinates.shape[1] == 1 else "at the true coordinates"


def near_share(layout: np.ndarray, coordinates: np.ndarray) -> float:
    """The share of positions whose place on the grid is within one step, diagonals too, of the true one."""
    places = coordinates[np.argsort(row_major(coordinates))]
    steps = np.abs(places[to_grid(layout, coordinates)] - coordinates).max(axis=1)
    return float(np.mean(steps <= 1))
