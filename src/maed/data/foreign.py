"""Recordings of MNE and cells of AnnData, known by their attributes alone: neither package is needed here."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from scipy.sparse import issparse

from maed.data.geometry import points
from maed.data.source import Source, Stored
from maed.errors import MaedError
from maed.settings import DataSettings

_NO_SENSORS = (
    "stim",
    "eog",
    "ecg",
    "misc",
    "resp",
    "syst",
    "chpi",
    "exci",
    "ias",
    "gsr",
    "temperature",
    "eyegaze",
    "pupil",
)
"""Types of channels of MNE that are beside the sensors."""


def recording_source(X: Any) -> Source:
    """A source of MNE's `Raw` or `Epochs`: channels are positions, moments are signals.

    The moments of an epoch stay together: no epoch is in two splits, and no window spans two. Bad channels, and those
    that are no sensors, are left out with a line. True places are those of the montage.

    Args:
        X: Has `get_data()`, `(channels, moments)` or `(epochs, channels, moments)`, `ch_names`, and perhaps
            `get_channel_types()`, `info["bads"]` and `get_montage()`.

    Raises:
        MaedError: Fewer than two channels are left.
    """
    names = [str(name) for name in X.ch_names]
    types = [str(each) for each in X.get_channel_types()] if hasattr(X, "get_channel_types") else [""] * len(names)
    bad = set(getattr(X, "info", {}).get("bads", ()))
    kept = [i for i, name in enumerate(names) if types[i] not in _NO_SENSORS and name not in bad]
    if len(kept) < 2:
        raise MaedError(f"X must have at least 2 good sensor channels, got {len(kept)}")
    values = np.asarray(X.get_data())
    values = values[None] if values.ndim == 2 else values  # (epochs, channels, moments)
    epochs, _, moments = values.shape
    values = np.ascontiguousarray(values[:, kept].transpose(0, 2, 1), dtype=np.float32).reshape(-1, len(kept))
    said = [f"{len(kept)} channels are positions, {len(values)} moments are signals"]
    said += [f"those of {epochs} epochs stay together"] if epochs > 1 else []
    if left := [f"{name} ({'bad' if name in bad else types[i]})" for i, name in enumerate(names) if i not in kept]:
        said.append(f"left out: {', '.join(left[:8])}{', ...' if len(left) > 8 else ''}")
    montage = X.get_montage() if hasattr(X, "get_montage") else None
    known = {} if montage is None else montage.get_positions()["ch_pos"]
    places = np.array([np.asarray(known.get(names[i], (np.nan,) * 3), dtype=float) for i in kept])
    geometry = None
    if np.isfinite(places).all(axis=1).any():
        geometry = points(places)
        said.append("true places are read from the montage")
    warnings.warn(f"X: {'; '.join(said)}", stacklevel=4)
    groups = np.repeat(np.arange(epochs), moments) if epochs > 1 else None
    stored = Stored(len(values), lambda rows: (values[rows][..., None], None), None, groups)
    return Source("real", {"train": stored}, geometry=geometry, columns=tuple(names[i] for i in kept))


def cells_source(X: Any, settings: DataSettings) -> Source:
    """A source of AnnData: observations are signals, variables are positions; a sparse matrix is made dense by rows.

    Args:
        X: Has `X`, `(n, N)`, `var_names`, and perhaps `layers`.
        settings: `columns` names a layer instead of `X`; `type` is read.

    Raises:
        MaedError: No such layer, or no matrix.
    """
    layers = [str(name) for name in getattr(X, "layers", None) or ()]
    asked = settings.columns or []
    if len(asked) > 1 or not set(asked) <= set(layers):
        raise MaedError(
            f"data.columns must name one layer ({', '.join(layers) or 'there are none'}), got {', '.join(asked)}"
        )
    matrix = X.layers[asked[0]] if asked else X.X
    if matrix is None:
        raise MaedError(
            f"X has no main matrix; data.columns must name a layer ({', '.join(layers) or 'there are none'})"
        )
    said = [f"{matrix.shape[0]} observations are signals, {matrix.shape[1]} variables are positions"]
    said.append(f"read from the layer {asked[0]!r}" if asked else "read from X")
    if unread := [name for name in layers if name not in asked]:
        said.append(f"layers that are not read: {', '.join(unread)} (X.to_df(layer={unread[0]!r}) hands one over)")
    sparse = issparse(matrix)
    if sparse:
        matrix = matrix.tocsr()
        said.append("the sparse matrix is made dense; what it does not hold is 0, not missing")
    warnings.warn(f"X: {'; '.join(said)}", stacklevel=4)
    tokens = settings.type == "tokens"

    def read(rows: np.ndarray) -> tuple[np.ndarray, None]:
        values = matrix[rows].toarray() if sparse else np.asarray(matrix)[rows]
        return (values.astype(np.int64) if tokens else values.astype(np.float32)[..., None]), None

    stored = Stored(matrix.shape[0], read)
    return Source("tokens" if tokens else "real", {"train": stored}, columns=tuple(map(str, X.var_names)))
