"""The demo: positions of shuffled photos and shuffled MNIST images, and their worth to a Perceiver."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from maed.data import load
from maed.embedding import PositionEmbedding
from maed.errors import MaedError, require_extra
from maed.files import locked
from maed.plots import figure_of, recovered_layout
from maed.registry import BASELINES
from maed.run_folder import RunFolder
from maed.settings import DataSettings, PerceiverSettings, Settings, TrainSettings
from maed.stages import Context, Embed, Pretrain, Similarity, execute
from maed.stages.choices import choose

_SEEDS = 2

_SETTINGS = Settings(
    perceiver=PerceiverSettings(latents=16, latent_width=64, layers=2),
    train=TrainSettings(epochs=3, steps=260, batch_size=32, learning_rate=2e-3, validate_every=130),
)

_SIDE = 14  # pixels of MNIST's images here: a quarter of them, for the whole is to take minutes


def demo(out: Path, say: Callable[[str], None], *, command: str = "maed demo", overwrite: bool = False) -> Path:
    """Learn positions of `photos` and of `mnist`, shuffled, by the choices of `maed.learn`, then train Perceivers.

    The Perceivers are told nothing, train a table, are told the geometry, are given what the best training-free method
    found (by probe loss), and what the autoencoder found: two seeds each, on MNIST at 14 x 14. `photos/` and `mnist/`
    below `out` are runs like any other; an interrupted demo continues.

    Args:
        out: a folder.
        say: Prints a line.
        command: The command line that results.json records.
        overwrite: Start again.

    Returns:
        The page of the photos with MNIST beside them. Parts that need a missing extra are left out, with a message:
        where MNIST cannot be read; without the extra `report` a picture of the photos' layout, by the autoencoder.
    """
    with locked(out / "photos"), locked(out / "mnist"):
        return _demo(out, say, command, overwrite)


def _demo(out: Path, say: Callable[[str], None], command: str, overwrite: bool) -> Path:
    photos = _context("photos", DataSettings(permute=0), out, say, overwrite)
    try:
        require_extra("report", "report")
    except MaedError as error:
        say(f"photos only, without a page: {error}")
        layout = _layout(photos)
        say("`pip install 'maed[all]'` adds MNIST, Perceivers with each encoding, and a page that compares them")
        return layout
    from maed.experiments.comparison import SKIPPED
    from maed.experiments.run import compare_only, run_all  # these need the extra
    from maed.report import write_report

    photos.settings.evaluation.probe_steps = 0  # MNIST shows how methods are judged
    results = run_all(photos, (), 0, command=command)
    results.notes = [note for note in results.notes if not note.startswith(SKIPPED)]  # nobody asked for Perceivers
    results.write(photos.folder.results)
    try:
        mnist = _context("mnist", DataSettings(permute=0, image_size=_SIDE), out, say, overwrite)
    except MaedError as error:  # the package that brings it is an extra
        say(f"photos only: {error}")
        return write_report(photos.folder.path, photos.settings.report)
    found = run_all(mnist, (), 0, command=command)
    losses = {name: row["mean"] for name, row in (found.probe_loss or {}).items() if name in BASELINES.names}
    encodings = ("none", "trainable", "fourier", min(losses, key=losses.__getitem__), "maed")
    try:
        require_extra("compare", "perceiver")
    except MaedError as error:
        say(f"no Perceivers: {error}")
    else:
        compare_only(mnist, encodings, _SEEDS, command=command)
    return write_report(photos.folder.path, photos.settings.report, [mnist.folder.path])


def _layout(photos: Context) -> Path:
    """Learn the positions of photos, and draw them for the embedding's card."""
    execute([Pretrain(), Similarity(), Embed()], photos)
    stage, geometry = photos.folder.embedding(), photos.data.geometry
    embedding = PositionEmbedding.from_pretrained(stage.path)
    assert geometry is not None
    drawn = recovered_layout(embedding.numpy(), geometry.coordinates, geometry.shape)
    embedding.save_pretrained(stage.path, figure=figure_of(drawn))
    return stage.figure


def _context(source: str, data: DataSettings, out: Path, say: Callable[[str], None], overwrite: bool) -> Context:
    """A run of `source` with the settings that suit it."""
    loaded = load(source, data)
    settings, lines = choose(loaded, replace(_SETTINGS, data=data), set(), reading_order=False)
    for line in lines:
        say(f"{source}: {line}")
    return Context(RunFolder(out / source, None, overwrite), settings, loaded, say)
