"""The door of this room: a source's name or arrays in, `SignalData` out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from maed.data.arrays import array_source
from maed.data.prepare import assemble, assemble_like
from maed.data.signals import SignalData, Signals
from maed.data.source import Source, listed
from maed.data.windows import windowed
from maed.errors import MaedError, nearest
from maed.registry import SOURCES
from maed.settings import DataSettings


def load(source: str, settings: DataSettings | None = None) -> SignalData:
    """Load a data set: read it, cut it into splits, limit, normalize and permute it.

    Args:
        source: a name or path that one of `maed.data.sources` takes: `photos`, `field:ring:64`, `signals.npy`, ...
        settings: How the data are read and split; None for the defaults.

    Returns:
        Three splits of `(n, N, C)` numbers or `(n, N)` token ids, and what is known about them.

    Raises:
        MaedError: An unknown source, or data that cannot be used; one line that names the argument.
    """
    settings = settings or DataSettings()
    try:
        opened = _open(source, settings)
    except OSError as error:
        raise MaedError(f"source: {source!r} cannot be read ({error.strerror or error})") from None
    return assemble(source, windowed(opened, settings), settings)


def from_arrays(X: Any, y: Any = None, *, coordinates: Any = None, settings: DataSettings | None = None) -> SignalData:
    """Make a data set of arrays.

    Args:
        X: `(n, N)` or `(n, N, C)` numbers, or `(n, N)` token ids (int16, int32 or int64; or any whole numbers with
            `settings.type` tokens).
        y: n labels, whole numbers or names; None without.
        coordinates: The true `(N, D)` coordinates of the positions, if known. Nothing learns from them.
        settings: How the data are split and normalized; None for the defaults.

    Returns:
        The signals, split and normalized.

    Raises:
        MaedError: Arrays that cannot be used; one line that names the argument.
    """
    settings = settings or DataSettings()
    return assemble("arrays", windowed(array_source(X, y, coordinates, settings), settings), settings)


def from_given(X: Any, *, coordinates: Any = None, settings: DataSettings | None = None) -> SignalData:
    """Make a data set of whatever holds unlabeled signals: `maed.data.objects` says what that may be.

    At most a quarter of a gigabyte of signals is kept, a uniform sample of them.

    Args:
        X: Arrays, tensors, tables, columns, data sets, or an iterator of batches.
        coordinates: The true `(N, D)` coordinates of the positions, if known. Nothing learns from them.
        settings: How the data are split and normalized; None for the defaults.

    Returns:
        The signals, split and normalized.

    Raises:
        MaedError: The data cannot be used; the message is one line that names the argument.
    """
    from maed.data import objects

    settings = settings or DataSettings()
    source = objects.given_source(X, settings, np.random.default_rng([settings.seed, 1]), coordinates)
    source = windowed(source, settings)
    return assemble("arrays", source, objects.within_memory(source, settings))


def like(X: Any, data: SignalData, settings: DataSettings) -> Signals:
    """More signals, normalized as those of `data` are; X may be whatever `from_given` takes.

    Where each position is a column of a table, those of another table are found by name, in any order.

    Returns:
        The signals, normalized as those of `data`.
    """
    from maed.data.objects import as_table, given_source
    from maed.data.tables import columns_in_order

    table = as_table(X) if len(data.columns) == data.positions else None
    if table is not None:
        names = [name for name in table.column_names if name != settings.group]
        settings = replace(settings, columns=columns_in_order(names, data.columns, "X", "the table"))
        X = table
    source = given_source(X, settings, np.random.default_rng([settings.seed, 1]))
    return assemble_like(windowed(source, settings), settings, data)


_ELSEWHERE = {
    ".h5ad": "hand maed.learn what anndata.read_h5ad makes of it",
    **dict.fromkeys((".fif", ".edf", ".bdf", ".vhdr", ".set"), "hand maed.learn what mne.io.read_raw makes of it"),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), "it could run anything when it is read; save the array as .npy"),
    **dict.fromkeys((".xls", ".ods"), "save the sheet as .xlsx or .csv"),
    **dict.fromkeys((".rds", ".rdata"), "save the table in R by write.csv(x, 'x.csv')"),
    **dict.fromkeys((".feather", ".arrow"), "hand maed.learn what pyarrow.feather.read_table makes of it"),
    ".txt": "name a table .csv, .tsv or .dat",
}
"""Files that others read, and what to do with them."""


def _open(text: str, settings: DataSettings) -> Source:
    """Find out what `text` is, and open it."""
    if settings.streaming and not text.startswith("hub:"):
        raise MaedError(f"data.streaming must be left out unless the source is hub:OWNER/NAME, got {text!r}")
    path = Path(text).expanduser()
    is_folder = bool(text) and path.is_dir()
    for name in (text.partition(":")[0], path.suffix[1:].lower(), *["folder"] * is_folder):
        if name in SOURCES.names and (source := SOURCES.get(name)).takes(text):
            return source.open(text, settings)
    if path.is_file():
        if path.suffix.lower() in _ELSEWHERE:
            way = _ELSEWHERE[path.suffix.lower()]
            raise MaedError(f"source: {text!r} is a {path.suffix} file; {way}")
        raise MaedError(f"source must be {listed()}; {text!r} is a {path.suffix or 'nameless'} file")
    if path.suffix or len(path.parts) > 1:
        raise MaedError(f"source: {text!r} does not exist; it must be {listed()}")
    sources = [SOURCES.get(name) for name in SOURCES.built_in]
    names = [name for source in sources for name in (source.example, *source.names)]
    raise MaedError(
        f"source: unknown source {text!r}{nearest(text, [*names, *SOURCES.plugged_in])} (known: {listed()})"
    )
