"""The gallery of docs/gallery.md: embeddings learned from sources of several kinds, each by one command.

    python benchmarks/gallery.py run [NAME ...]    runs what is missing (runs/gallery), records it in results/gallery
    python benchmarks/gallery.py page              writes docs/gallery.md from what is recorded

Sources that are generated here are written to runs/gallery/NAME.npz first.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_breast_cancer

from maed.cli import main as maed
from maed.embedding import PositionEmbedding
from maed.files import replacing, write_text
from maed.plots.layout import recovered_layout
from maed.records import Results
from maed.report.tables import candidate_rows, duration, geometry_rows, markdown_table
from maed.run_folder import RunFolder

ROOT = Path(__file__).parents[1]
RUNS = Path("runs/gallery")
RECORDS = ROOT / "results" / "gallery"
IMAGES = ROOT / "docs" / "images"
PAGE = ROOT / "docs" / "gallery.md"


@dataclass(frozen=True)
class Entry:
    """One source of the gallery.

    Args:
        title: heading on the page.
        about: what the signals are, and what is seen.
        source: what `maed run` is given; with `make`, the file that it writes.
        flags: settings, as flags.
        make: writes the source's file; None for sources that maed knows.
        labels: names of the positions for the picture; None for the picture of the embedding's card.
        lacking: why the tests cannot run the command.
    """

    title: str
    about: str
    source: str
    flags: str = ""
    make: Callable[[Path], None] | None = None
    labels: Callable[[], list[str]] | None = None
    lacking: str = ""

    def command(self, name: str) -> str:
        """The command line, as the page shows it."""
        return f"maed run {self.source} --positions '' {self.flags} --out {RUNS / name}"


def spectra(path: Path) -> None:
    """Spectra of 200 bands: mixtures of 40 substances, each a few absorption lines; bands in a random order."""
    generator = np.random.default_rng(0)
    bands, wave = 200, np.linspace(0, 1, 200)
    substances = np.zeros((40, bands))
    for substance in substances:
        for _ in range(generator.integers(3, 8)):
            center, width = generator.uniform(0, 1), generator.uniform(0.01, 0.03)
            substance += generator.uniform(0.3, 1) * np.exp(-(((wave - center) / width) ** 2) / 2)
    amounts = generator.gamma(0.3, size=(6_000, 40))
    signals = np.exp(-amounts @ substances) + 0.01 * generator.normal(size=(6_000, bands))
    order = generator.permutation(bands)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, inputs=signals[:, order].astype(np.float32), coordinates=wave[order, None])


def cells(path: Path) -> None:
    """scikit-learn's breast cancer data: 30 measurements of cell nuclei in 569 images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, inputs=load_breast_cancer().data.astype(np.float32))


ENTRIES = {
    "photos": Entry(
        "Patches of photographs, shuffled",
        "16 x 16 patches of the two photographs that scikit-learn ships, in three colors, pixels in a random order.",
        "photos",
        "--data.permute 0 --autoencoder.steps 3000",
    ),
    "cifar10": Entry(
        "CIFAR-10, shuffled",
        "32 x 32 images in three colors, with pixels in a random order. The images have been through JPEG (quality 75, "
        "halved chroma), whose blocks are part of what is learned.",
        "cifar10",
        "--data.permute 0 --autoencoder.steps 8000 --autoencoder.validate_every 1000 --similarity.draws 32768 "
        "--similarity.visible_fraction 0.0625",
        lacking="reads CIFAR-10 from the Hugging Face Hub",
    ),
    "digits": Entry(
        "Digits, shuffled",
        "scikit-learn's 8 x 8 digits, pixels in a random order. Three pixels are constant, others hardly vary, and "
        "strokes tie distant pixels together, so only part of the geometry can be found.",
        "digits",
        "--data.permute 0 --autoencoder.steps 1000 --autoencoder.visible_fraction 0.1 --similarity.draws 32768",
    ),
    "imdb": Entry(
        "Bytes of film reviews, shuffled",
        "The first 512 bytes of IMDB reviews, in a random order. The autoencoder started from the training-free "
        "`dependence`, whose own embedding is the row below it; only the gain belongs to maed. Nothing is known of two "
        "positions, the first, which is always `[CLS]`, and the last. Placed equally far from all others, they close "
        "the line to a ring in the picture.",
        "imdb",
        "--data.length 512 --data.permute 0 --autoencoder.init dependence --autoencoder.layers 0 --autoencoder.heads 1 "
        "--autoencoder.visible_fraction 0.2 --autoencoder.scored 128 --autoencoder.steps 4000 --similarity.draws 16384",
        lacking="reads IMDB from the Hugging Face Hub",
    ),
    "sphere": Entry(
        "Sensors on a sphere",
        "500 sensors on a sphere, listed in a random order, measure 5,000 samples of a smooth random field with noise. "
        "The layout is seen from one side.",
        "field:sphere:500",
        "--data.samples 5000 --data.permute 0 --autoencoder.steps 800 --similarity.draws 16384",
    ),
    "spectra": Entry(
        "Bands of spectra, shuffled",
        "6,000 generated spectra with 200 bands in a random order: mixtures of 40 substances with a few absorption "
        "lines each. The order of the bands along the wavelength is recovered.",
        f"{RUNS}/spectra.npz",
        "--autoencoder.steps 2000 --similarity.draws 32768",
        make=spectra,
    ),
    "cells": Entry(
        "Columns of a table",
        "scikit-learn's breast cancer data: 30 measurements of cell nuclei in 569 images. There is no known geometry: "
        "the layout shows which measurements are informative about each other. Radius, perimeter and area lie "
        "together, once as means, once as worst values and once as errors, and so do the mean and worst texture. "
        "Most other errors lie among themselves.",
        f"{RUNS}/cells.npz",
        "--autoencoder.steps 1000 --autoencoder.visible_fraction 0.2 --similarity.draws 16384",
        make=cells,
        labels=lambda: [str(name) for name in load_breast_cancer().feature_names],
    ),
}


def run(names: list[str]) -> None:
    for name in names or ENTRIES:
        entry, out = ENTRIES[name], RUNS / name
        if entry.make is not None:
            entry.make(Path(entry.source))
        flags = [*entry.flags.split(), "--positions", "", "--trainer.progress", "none", "--out", str(out)]
        if maed(["run", entry.source, *flags]):
            raise SystemExit(f"{name}: maed run failed")
        record(name)


def record(name: str) -> None:
    """Keep the results and the picture of a run."""
    entry, out = ENTRIES[name], RUNS / name
    run = RunFolder(out)
    results = replace(Results.read(run.results), command=entry.command(name))
    results.write(RECORDS / f"{name}.json")
    taken = run.embedding(results.chosen or "maed")
    IMAGES.mkdir(parents=True, exist_ok=True)
    target = IMAGES / f"gallery-{name}.png"
    if entry.labels is None:
        shutil.copyfile(taken.figure, target)
    else:
        with replacing(target) as temporary:
            _labeled(PositionEmbedding.from_pretrained(taken.path), entry.labels()).savefig(
                temporary, format="png", dpi=150
            )


def _labeled(embedding: PositionEmbedding, labels: list[str]) -> Figure:
    """The layout of an embedding, each position with its name."""
    layout = recovered_layout(embedding.numpy())
    figure = Figure(figsize=(9, 6.5), layout="constrained")
    figure.patch.set_alpha(0)
    ax = figure.subplots()
    ax.set_axis_off()
    kinds = ("mean", "error", "worst")
    colors = ("#0072B2", "#009E73", "#D55E00")
    for (x, y), label in zip(layout, labels, strict=True):
        color = next((c for kind, c in zip(kinds, colors, strict=True) if kind in label), "#000000")
        ax.scatter([x], [y], s=22, color=color)
        ax.annotate(label, (x, y), textcoords="offset points", xytext=(4, 3), fontsize=7.5, color=color)
    ax.margins(0.12)
    return figure


def page() -> str:
    """docs/gallery.md, from the records alone."""
    parts = [
        "# Gallery",
        "",
        "Embeddings learned from seven kinds of data, each with the command that made it. The left side of a picture",
        "shows the positions as the embedding alone lays them out, in colors that mark their true places. The right",
        "side shows the truth, where it is known; only the orientation of the layout is taken from it.",
        "",
        "`maed` is the autoencoder alone. The training-free methods beside it use the same data and reduction.",
        "The picture shows the embedding that a score without truth prefers, as `maed run` does by default; runs of",
        "older commits show `maed`, and say so. Each run has one seed; [the geometry study](geometry.md) has several,",
        "and explains the metrics. `python benchmarks/gallery.py run` makes everything on this page.",
    ]
    for name, entry in ENTRIES.items():
        path = RECORDS / f"{name}.json"
        if path.is_file():
            parts += ["", *_section(name, entry, Results.read(path))]
    return "\n".join(parts) + "\n"


def _section(name: str, entry: Entry, results: Results) -> list[str]:
    took = sum(results.seconds.get(stage) or 0.0 for stage in ("pretrain", "similarity"))
    machine, split_half = results.machine, (results.split_half or {}).get("maed")
    lines = [f"## {entry.title}", "", entry.about, ""]
    lacking = entry.lacking or ("a script of this repository writes its file" if entry.make else "")
    lines += [f"<!-- not run: {lacking} -->"] if lacking else []
    lines += ["```sh", *([f"python benchmarks/gallery.py run {name}  # writes {entry.source}"] if entry.make else [])]
    lines += [
        results.command or "",
        "```",
        "",
        f"![{entry.title}: the layout by the embedding](images/gallery-{name}.png)",
    ]
    for rows in filter(None, (candidate_rows(results), geometry_rows(results) if results.geometry else [])):
        lines += ["", markdown_table(rows).rstrip()]
    sentences = ["The picture shows `maed`, because this run is older than the automatic choice."]
    if results.chosen is not None:
        sentences = [f"The picture shows `{results.chosen}`, which was chosen."]
    if split_half is not None:
        sentences.append(f"Two halves of the autoencoder's draws agree on {100 * split_half:.1f} % of neighbors.")
    made = f"{results.positions} positions, seed 0, {duration(took)} of training and streaming"
    origin = f"commit {str(results.commit)[:12]}, {machine['processor']}, {machine['threads']} thread(s)"
    return [*lines, "", " ".join([*sentences, f"{made}; {origin}, beside other jobs."])]


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run", *names]:
            run(names)
        case ["record", *names]:
            for chosen in names or ENTRIES:
                record(chosen)
        case ["page"]:
            write_text(PAGE, page())
        case _:
            raise SystemExit(__doc__)
