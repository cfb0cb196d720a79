"""The HTML page of a run: one self-contained file, and its figures beside it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
import numpy as np
from matplotlib.figure import Figure

from maed.config import ReportSettings
from maed.data.geometry import unrolled
from maed.embedding import PositionEmbedding
from maed.files import write_text
from maed.report import figures, tables
from maed.report.contents import Contents, read_contents
from maed.report.layout import ASSIGNABLE, FEWEST, recovered_layout, row_major, to_grid
from maed.report.tokens import Pieces, text_examples

MEDIA = {".svg": "image/svg+xml", ".png": "image/png"}


@dataclass
class Picture:
    """A figure, inlined; below `least` CSS pixels its container scrolls, above `most` it grows no more."""

    uri: str
    alt: str
    caption: str
    least: int
    most: int


@dataclass
class TableBlock:
    """A table: the header row, the others, and a sentence below."""

    rows: tables.Rows
    caption: str = ""


@dataclass
class TextBlock:
    """Token signals as marked text."""

    examples: list[dict[str, Pieces]]


@dataclass
class Section:
    """A section of the page: how to read it, and its blocks; what is absent is said in a sentence each."""

    name: str
    title: str
    reading: str
    blocks: list[Picture | TableBlock | TextBlock] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)


@dataclass
class Drawing:
    """What the sections draw from: a run's parts, its layout, and where figures are written."""

    contents: Contents
    settings: ReportSettings
    folder: Path
    layout: np.ndarray | None  # (N, 2), from the embedding alone

    def picture(self, name: str, figure: Figure, alt: str, caption: str, least: int = 420) -> Picture:
        """Write `figure` to the folder and inline it."""
        path = self.folder / name
        figures.save(figure, path)
        data = base64.b64encode(path.read_bytes()).decode("ascii")
        most = max(least, round(110 * figure.get_figwidth()))  # keeps letters near the size of the page's text
        return Picture(f"data:{MEDIA[path.suffix]};base64,{data}", alt, caption, least, most)

    def suffix(self) -> str:
        """PNG for what is drawn as images or as thousands of points, SVG for charts."""
        many = self.contents.shape == () and (self.contents.positions or 0) > 1000
        return ".png" if self.contents.is_grid or many else ".svg"


def write_report(folder: Path, settings: ReportSettings) -> Path:
    """Write `report.html` and `figures/` from what a run folder holds, and return the page's path.

    The page needs no network and runs no script. Parts that are absent are named in it.

    Raises:
        MaedError: where the folder holds no part of a run, a part is broken, or parts are of different runs.
    """
    contents = read_contents(folder)
    drawing = Drawing(contents, settings, folder / "figures", _layout(contents))
    makers: tuple[Callable[[Drawing], Section], ...] = (
        _geometry,
        _accuracy,
        _similarity,
        _embedding,
        _autoencoder,
        _time,
    )
    page = _template().render(
        source=contents.source,
        lead=_lead(contents),
        command=contents.results.get("command") or "",
        tiles=_tiles(contents.results),
        facts=_facts(contents),
        settings=_settings_text(contents.results),
        notes=[str(note) for note in contents.results.get("notes") or []],
        headline=_headline(drawing),
        sections=[make(drawing) for make in makers],
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def embedding_figure(embedding: PositionEmbedding) -> Figure | None:
    """The layout that an embedding makes, for its card; None where it is too small, or too large to be laid out."""
    if not FEWEST <= embedding.n <= ASSIGNABLE:
        return None
    geometry = embedding.geometry
    coordinates = None if geometry is None else geometry.coordinates
    if geometry is not None and geometry.kind == "swissroll":
        coordinates = unrolled(geometry.coordinates)
    shape = () if geometry is None else geometry.shape
    return figures.recovered_layout_figure(recovered_layout(embedding.numpy()), coordinates, shape)


def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = _code
    environment.tests["picture"] = lambda block: isinstance(block, Picture)
    environment.tests["table"] = lambda block: isinstance(block, TableBlock)
    return environment.get_template("page.html.j2")


def _code(sentence: str) -> markupsafe.Markup:
    """A sentence of ours with what stands between backticks as code; everything is escaped first."""
    return markupsafe.Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(markupsafe.escape(sentence))))


def _layout(contents: Contents) -> np.ndarray | None:
    """The layout that pictures are drawn with, where there is an embedding and it is not too large."""
    if contents.vectors is None or not FEWEST <= len(contents.vectors) <= ASSIGNABLE:
        return None
    return recovered_layout(contents.vectors)


def _lead(contents: Contents) -> list[str]:
    """What came out, in a sentence or two."""
    results, sentences = contents.results, []
    found = ((results.get("geometry") or {}).get("maed") or {}).get("knn_recall")
    if found is not None:
        order = ", stored in shuffled order" if _is_shuffled(contents) else ""
        k = results.get("neighbours") or "k"
        told = "without having been told where any position lies"
        if _knows_order(contents):
            told = "with a U-Net, which is told in what order positions are stored"
        sentences.append(
            f"From unlabelled signals{order}, the maed embedding finds {tables.percent(found)} of each position's {k} "
            f"nearest neighbours, {told}."
        )
    for entry in results.get("paired") or []:
        if (entry["a"], entry["b"]) == ("maed", "trainable"):
            sentences.append(
                f"With maed positions instead of trainable ones, the test accuracy of a Perceiver changes by "
                f"{tables.difference(entry)} points of per cent ({tables.verdict(entry)})."
            )
    return sentences


def _tiles(results: dict[str, Any]) -> list[tuple[str, str]]:
    """The numbers that a reader looks for first: value and label, where known."""
    geometry = results.get("geometry") or {}
    maed, k = geometry.get("maed") or {}, results.get("neighbours") or "k"
    tiles = [
        (tables.percent(maed.get("knn_recall")), f"of the {k} true neighbours of a position found by the embedding"),
        (tables.percent(maed.get("entries_knn_recall")), "found by the similarity itself"),
        (tables.percent((results.get("split_half") or {}).get("maed")), "agreement of two halves of the draws"),
    ]
    for entry in tables.summaries(results):
        if entry["positions"] == "maed":
            tiles.append((tables.percent(entry["mean"]), "test accuracy with maed positions"))
    return [tile for tile in tiles if tile[0] != tables.NOTHING]


def _facts(contents: Contents) -> list[tuple[str, str]]:
    """What was run, as names and values; only what is known."""
    results = contents.results
    machine = results.get("machine") or {}
    facts = {
        "Source": contents.source,
        "Positions": f"{contents.positions:,}" if contents.positions else "",
        "Order": _order_name(contents),
        "Command": results.get("command"),
        "Commit": results.get("commit"),
        "Version": results.get("maed"),
        "Started": results.get("started"),
        "Machine": ", ".join(f"{key}: {value}" for key, value in machine.items()) if machine else "",
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _settings_text(results: dict[str, Any]) -> str:
    return json.dumps(results["settings"], indent=2, ensure_ascii=False) if results.get("settings") else ""


def _headline(drawing: Drawing) -> Picture | None:
    """The picture that convinces: shuffled images put in order by the embedding, or else the recovered layout."""
    contents, layout = drawing.contents, drawing.layout
    images = contents.examples.get("original")
    if layout is None or contents.coordinates is None or not contents.is_grid or images is None or images.ndim != 3:
        return None
    figure = figures.unshuffled(images[: drawing.settings.signals], layout, contents.coordinates, contents.shape)
    near = _near_share(layout, contents.coordinates)
    knows = _knows_order(contents)
    straight = f"stored in their true order, which {'the U-Net knows by construction' if knows else 'nothing read'}"
    stored = "stored in shuffled order" if _is_shuffled(contents) else straight
    without = "coordinates or labels" if knows else "coordinates, labels or the storage order"
    caption = (
        f"Real signals, {stored}. Middle: every position put where the learned embedding places it. The embedding "
        f"was made without {without}; only the orientation of the picture, which no data "
        f"can tell, is taken from the truth. {tables.percent(near)} of the positions lie within one step of their "
        "true place."
    )
    return drawing.picture(
        "unshuffled.png", figure, "Signals as stored, as laid out by maed, and in truth", caption, 420
    )


def _geometry(drawing: Drawing) -> Section:
    contents = drawing.contents
    k = contents.results.get("neighbours") or "k"
    section = Section(
        "geometry",
        "Was the geometry found?",
        f"Recall@{k}: the share of each position's {k} true nearest neighbours that a method finds. Spearman: how well "
        "its distances rank all pairs. Trustworthiness and coordinate R² reach 1 at best. Split-half agreement "
        "needs no truth: two embeddings from separate halves of the draws, compared.",
    )
    rows = tables.geometry_rows(contents.results)
    if rows:
        section.blocks.append(TableBlock(rows))
    if not contents.results.get("geometry"):
        section.absent.append(
            "Geometry was not measured: it needs an embedding and the true coordinates (`maed run`, `maed evaluate`)."
        )
    section.blocks += _layout_picture(drawing, section)
    return section


def _layout_picture(drawing: Drawing, section: Section) -> list[Picture | TableBlock | TextBlock]:
    """The recovered layout beside the truth; `section` is told where there is none."""
    contents, layout = drawing.contents, drawing.layout
    if layout is None:
        reason = "no embedding" if contents.vectors is None else f"not between {FEWEST} and {ASSIGNABLE:,} positions"
        section.absent.append(f"No layout is drawn: this folder has {reason}.")
        return []
    figure = figures.recovered_layout_figure(layout, contents.coordinates, contents.shape)
    known = contents.coordinates is not None
    colours = "Colours say where a position truly lies" if known else "Colours say where a position is stored"
    mesh = "; lines join true neighbours, so that an even mesh means success" if contents.is_grid else ""
    caption = f"Each dot is a position, laid out by its embedding (Isomap). {colours}{mesh}."
    large = ".png" if len(layout) > 600 else ".svg"
    return [drawing.picture(f"layout{large}", figure, "The layout recovered from the embedding", caption, 480)]


def _accuracy(drawing: Drawing) -> Section:
    results = drawing.contents.results
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
    figure = figures.accuracy_intervals(_known_means(results), _known_tests(results))
    section.blocks.append(
        drawing.picture("accuracy.svg", figure, "Test accuracy of each encoding", "Test accuracy by encoding.", 480)
    )
    section.blocks.append(TableBlock(rows))
    if paired := tables.paired_rows(results):
        section.blocks.append(TableBlock(paired, "Differences are paired: same seed, same test signals."))
    else:
        section.absent.append("No paired differences: they need two encodings trained with the same seeds.")
    if tuning := tables.tuning_rows(results):
        caption = "Learning rates, chosen by validation accuracy with a seed of their own, as many for each encoding."
        section.blocks.append(TableBlock(tuning, caption))
    if any(run.get("history") for run in drawing.contents.perceivers):
        curves = figures.accuracy_curves(drawing.contents.perceivers)
        caption = "Validation accuracy while training; one line for each seed."
        section.blocks.append(drawing.picture("perceivers.svg", curves, "Validation accuracy over steps", caption, 480))
    return section


def _similarity(drawing: Drawing) -> Section:
    contents = drawing.contents
    section = Section(
        "similarity",
        "What does seeing one position tell about the others?",
        "Each panel takes one position (ringed or lined in red) and draws its similarity to all others: how much the "
        "autoencoder's prediction of them gains from seeing it. Each panel has its own scale.",
    )
    if contents.similarity is None:
        section.absent.append("Not run: this folder has no similarity (`maed similarity` makes one).")
        return section
    chosen = figures.spread_positions(contents.coordinates, len(contents.similarity), drawing.settings.positions)
    figure = figures.similarity_maps(contents.similarity, contents.coordinates, contents.shape, chosen)
    caption = f"Drawn {_drawn_on(contents)}; brighter or higher is more similar."
    name = f"similarity{drawing.suffix()}"
    section.blocks.append(drawing.picture(name, figure, "Similarity of a few positions to all others", caption, 480))
    return section


def _embedding(drawing: Drawing) -> Section:
    contents = drawing.contents
    section = Section(
        "embedding",
        "The position embedding",
        "Its first channels, the leading ones first. Smooth patterns over the true geometry, like the waves of "
        "a Fourier basis, say that neighbours were given similar vectors.",
    )
    if contents.vectors is None:
        section.absent.append("Not run: this folder has no embedding (`maed embed` makes one).")
        return section
    channels = drawing.settings.channels
    figure = figures.embedding_channels(contents.vectors, contents.coordinates, contents.shape, channels)
    count, dim = contents.vectors.shape
    caption = f"{min(channels, dim)} of {dim} channels of {count:,} positions, drawn {_drawn_on(contents)}."
    name = f"channels{drawing.suffix()}"
    section.blocks.append(drawing.picture(name, figure, "The first channels of the embedding", caption, 480))
    return section


def _autoencoder(drawing: Drawing) -> Section:
    contents = drawing.contents
    section = Section(
        "autoencoder",
        "What the masked autoencoder learned",
        "It is shown a few positions of a signal and predicts the rest. That it can is why its losses tell which "
        "positions belong together.",
    )
    if contents.examples:
        section.blocks.append(_examples(drawing))
    else:
        section.absent.append("No examples: this folder has no reconstructions (`maed pretrain` makes them).")
    if history := contents.autoencoder.get("history"):
        figure = figures.training_curves(history)
        caption = "Masked loss while training."
        if contents.autoencoder.get("visible"):
            caption += f" {contents.autoencoder['visible']} positions of each signal were shown."
        section.blocks.append(drawing.picture("training.svg", figure, "Loss over steps", caption, 480))
    else:
        section.absent.append("No training curve: this folder has no record of the training (`maed pretrain`).")
    return section


def _examples(drawing: Drawing) -> Picture | TextBlock:
    """Masked, reconstructed and original signals: images, curves or text."""
    contents, count = drawing.contents, drawing.settings.signals
    original, visible, made = (contents.examples[name][:count] for name in ("original", "visible", "reconstruction"))
    if original.ndim == 2:
        order = np.arange(original.shape[1])
        if contents.coordinates is not None:
            order = np.argsort(row_major(contents.coordinates))
        return TextBlock(text_examples(original[:3], visible[:3], made[:3], order))
    figure = figures.reconstructions(original, visible, made, contents.coordinates, contents.shape)
    caption = f"What was shown, what was made of it, and the original, {_drawn_on(contents)}."
    if contents.is_grid and original.shape[2] not in (1, 3):
        caption += f" The first of {original.shape[2]} channels."
    name = f"reconstructions{drawing.suffix()}"
    return drawing.picture(name, figure, "Shown, reconstructed and original signals", caption, 420)


def _time(drawing: Drawing) -> Section:
    section = Section("time", "How long it took", "Wall-clock time of each stage on the machine named below.")
    if rows := tables.seconds_rows(drawing.contents.results):
        section.blocks.append(TableBlock(rows))
    else:
        section.absent.append("No times were recorded.")
    return section


def _known_means(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [entry for entry in tables.summaries(results) if entry.get("mean") is not None]


def _known_tests(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for run in results.get("classification") or [] if run.get("test_accuracy") is not None]


def _drawn_on(contents: Contents) -> str:
    """What the axis of a drawing is."""
    if contents.coordinates is None:
        return "in storage order, as the true coordinates are not known"
    if contents.is_grid:
        return "on the true grid"
    return "along the true line" if contents.coordinates.shape[1] == 1 else "at the true coordinates"


def _knows_order(contents: Contents) -> bool:
    """Whether the autoencoder is one that is told the storage order."""
    made_with = contents.provenance.get("made_with") or contents.results.get("settings") or {}
    return (made_with.get("autoencoder") or {}).get("kind") == "unet"


def _is_shuffled(contents: Contents) -> bool:
    """Whether the storage order differs from the order of the true line or grid."""
    if contents.coordinates is None or not contents.shape:
        return False
    return not np.array_equal(row_major(contents.coordinates), np.arange(len(contents.coordinates)))


def _order_name(contents: Contents) -> str:
    if contents.coordinates is None or not contents.shape:
        return ""
    return "shuffled: storage order tells nothing" if _is_shuffled(contents) else "stored in true order"


def _near_share(layout: np.ndarray, coordinates: np.ndarray) -> float:
    """The share of positions whose place on the grid is within one step, diagonals too, of the true one."""
    places = coordinates[np.argsort(row_major(coordinates))]
    steps = np.abs(places[to_grid(layout, coordinates)] - coordinates).max(axis=1)
    return float(np.mean(steps <= 1))
