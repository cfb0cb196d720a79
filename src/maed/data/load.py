"""The door of this room: a source's name or arrays in, `SignalData` out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maed.data import arrays, tables
from maed.data.prepare import assemble, assemble_like
from maed.data.signals import SignalData, Signals
from maed.data.source import Source
from maed.data.sources import embedded, fields, hub, objects
from maed.errors import MaedError, nearest
from maed.settings import DataSettings

SOURCES = ("photos", "digits", "cifar10", "imdb")
"""Sources with a name of their own; `field:KIND[:N]`, a hub repository or a path is one too."""

_EXPECTED = (
    f"{', '.join(SOURCES)}, field:KIND[:N] ({', '.join(fields.KINDS)}), hub:OWNER/NAME, "
    "a .npy, .npz, .csv or .parquet file, or a folder of parquet files"
)


def load(source: str, settings: DataSettings | None = None) -> SignalData:
    """Load a data set: read it, cut it into splits, limit, normalize and permute it.

    Args:
        source: `photos`, `digits`, `cifar10`, `imdb`, `field:KIND[:N]` (see `maed.data.sources.fields`),
            `hub:OWNER/NAME`, or the path of a `.npy`, `.npz`, `.csv` or `.parquet` file or of a folder in the hub's layout.
        settings: how it is read and cut; the defaults where None.

    Returns:
        Three splits of `(n, N, C)` numbers or `(n, N)` token ids, and what is known about them.

    Raises:
        MaedError: an unknown source, or data that cannot be used; one line that names the argument.
    """
    settings = settings or DataSettings()
    try:
        opened = _open(source, settings)
    except OSError as error:
        raise MaedError(f"source: {source!r} cannot be read ({error.strerror or error})") from None
    return assemble(source, opened, settings)


def from_arrays(X: Any, y: Any = None, *, coordinates: Any = None, settings: DataSettings | None = None) -> SignalData:
    """Make a data set of arrays.

    Args:
        X: `(n, N)` or `(n, N, C)` numbers, or `(n, N)` token ids (int16, int32 or int64; or any whole numbers with
            `settings.type` tokens).
        y: n labels, whole numbers or names; None without.
        coordinates: the true `(N, D)` coordinates of the positions, where they are known. Nothing learns from them.
        settings: how they are cut and normalized; the defaults where None.

    Raises:
        MaedError: arrays that cannot be used; one line that names the argument.
    """
    settings = settings or DataSettings()
    return assemble("arrays", arrays.array_source(X, y, coordinates, settings), settings)


def from_given(X: Any, *, coordinates: Any = None, settings: DataSettings | None = None) -> SignalData:
    """Make a data set of whatever holds unlabeled signals: `maed.data.sources.objects` says what that may be.

    At most a quarter of a gigabyte of signals is kept, a uniform sample of them.

    Args:
        X: arrays, tensors, tables, columns, data sets, or an iterator of batches.
        coordinates: the true `(N, D)` coordinates of the positions, where they are known. Nothing learns from them.
        settings: how they are cut and normalized; the defaults where None.

    Raises:
        MaedError: what cannot be used; one line that names the argument.
    """
    settings = settings or DataSettings()
    source = objects.given_source(X, settings, np.random.default_rng([settings.seed, 1]), coordinates)
    return assemble("arrays", source, objects.within_memory(source, settings))


def like(X: Any, data: SignalData, settings: DataSettings) -> Signals:
    """More signals, normalized as those of `data` are; X may be whatever `from_given` takes."""
    source = objects.given_source(X, settings, np.random.default_rng([settings.seed, 1]))
    return assemble_like(source, settings, data)


def _open(source: str, settings: DataSettings) -> Source:
    """Find out what `source` is, and open it."""
    if source in ("photos", "digits"):
        return embedded.photos(settings) if source == "photos" else embedded.digits(settings)
    if source in hub.KNOWN:
        return hub.named(source, settings)
    if source.startswith("field:"):
        return fields.field(source.removeprefix("field:"), settings)
    if source.startswith("hub:"):
        return hub.repository(source.removeprefix("hub:"), settings)
    path = Path(source).expanduser()
    if source and path.is_dir():
        return hub.folder(path, settings)
    if not path.is_file():
        if path.suffix.lower() in _FILES or len(path.parts) > 1:
            raise MaedError(f"source: {source!r} does not exist; it may be {_EXPECTED}")
        names = (*SOURCES, *(f"field:{kind}" for kind in fields.KINDS))
        raise MaedError(f"source: {source!r} is unknown{nearest(source, names)}; it may be {_EXPECTED}")
    opener = _FILES.get(path.suffix.lower())
    if opener is None:
        raise MaedError(f"source: {source!r} is a {path.suffix or 'nameless'} file; it may be {_EXPECTED}")
    if not path.stat().st_size:
        raise MaedError(f"source: {source!r} is an empty file")
    return opener(path, settings)


def _npy(path: Path, settings: DataSettings) -> Source:
    return arrays.array_source(arrays.read_npy(path), None, None, settings)


def _npz(path: Path, settings: DataSettings) -> Source:
    found = arrays.read_npz(path)
    return arrays.array_source(found["inputs"], found.get("labels"), found.get("coordinates"), settings)


def _csv(path: Path, settings: DataSettings) -> Source:
    return tables.from_tables({"train": tables.read_csv(path)}, settings, origin=str(path))


def _parquet(path: Path, settings: DataSettings) -> Source:
    return tables.from_tables({"train": tables.read_parquet([path])}, settings, origin=str(path))


_FILES: dict[str, Callable[[Path, DataSettings], Source]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".csv": _csv,
    ".parquet": _parquet,
}
