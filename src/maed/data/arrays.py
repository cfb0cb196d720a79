"""Arrays handed over in Python, and those in .npy and .npz files: the checks at the door."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from maed.data.geometry import points
from maed.data.images import resize_pixels
from maed.data.source import Source, Stored, first_line, with_classes
from maed.errors import MaedError, nearest
from maed.settings import DataSettings

if TYPE_CHECKING:
    from maed.data.signals import SignalKind

INPUTS = ("inputs", "X", "x", "signals", "data", "values", "features", "pixel_values", "input_ids", "images")
"""Names under which signals are found, the first of them the proper one."""

_KEYS = {
    "inputs": INPUTS,
    "labels": ("labels", "label", "y", "Y", "targets", "target", "classes"),
    "coordinates": ("coordinates", "coords", "locations", "positions", "pos"),
}
_BLOCK = 1 << 22  # values converted at a time
_APART = 4  # rows of a file for each row that is read, up to which all between them is read too


class FileArray:
    """An array of HDF5 or zarr, of which signals are read once their rows are chosen.

    Args:
        stored: An `h5py.Dataset` or a `zarr.Array`.
        origin: What messages call the file.
        turned: True if the file has the axes the other way round, as MATLAB writes them.
    """

    def __init__(self, stored: Any, origin: str, *, turned: bool = False) -> None:
        self._stored, self._origin, self._turned = stored, origin, turned
        self.shape = tuple(stored.shape[::-1] if turned else stored.shape)
        self.dtype, self.ndim = np.dtype(stored.dtype), len(self.shape)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.asarray(self[np.arange(len(self))], dtype=dtype)

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        """The signals `rows`, `(m,)` indices in any order."""
        if not len(rows):
            return np.empty((0, *self.shape[1:]), dtype=self.dtype)
        needed, places = np.unique(rows, return_inverse=True)  # files are read in their own order
        first, span = int(needed[0]), int(needed[-1] - needed[0]) + 1
        # where they lie together, all between them is read at once: far faster than one after another
        together = span <= _APART * len(needed)
        wanted: Any = slice(first, first + span) if together else needed
        try:
            stored = getattr(self._stored, "oindex", self._stored)  # zarr's own brackets pair indices of several axes
            found = stored[(Ellipsis, wanted) if self._turned else wanted]
        except Exception as error:  # whatever a broken file makes the library raise
            raise MaedError(f"{self._origin}: cannot be read ({first_line(error)})") from None
        values = np.asarray(found).T if self._turned else np.asarray(found)
        return values[needed[places] - first] if together else values[places]


def array_source(inputs: Any, labels: Any, coordinates: Any, settings: DataSettings) -> Source:
    """A source from arrays.

    Args:
        inputs: `(n, N)` or `(n, N, C)` numbers; `(n, N)` token ids; with `data.type` image, `(n, height, width)` or
            `(n, height, width, C)` pixels. Whole numbers of shape `(n, N)` and type int16, int32 or int64 are token
            ids where `data.type` is `auto`.
        labels: n whole numbers or names, or None.
        coordinates: `(N, D)` numbers, or None.
        settings: `type` and `image_size` are read.

    Raises:
        MaedError: An array of a rank, type or length that cannot be.
    """
    array = _array(inputs, "inputs")
    kind = _kind(array, settings)
    if settings.type == "auto" and array.ndim == 2 and array.dtype.kind in "iu":
        taken, other = ("token ids", "real") if kind == "tokens" else ("numbers", "tokens")
        warnings.warn(
            f"whole numbers ({array.dtype}) in an array are read as {taken}; --data.type {other} "
            f"(kind={other!r} in Python) reads them otherwise",
            stacklevel=3,
        )
    labels = None if labels is None else _array(labels, "labels", strings=True)
    if labels is not None and labels.shape[:1] != array.shape[:1]:
        raise MaedError(f"labels must have one row for each of {len(array)} signals, got shape {labels.shape}")
    geometry = None if coordinates is None else points(_array(coordinates, "coordinates"))
    positions = array.shape[1] * array.shape[2] if settings.type == "image" else array.shape[1]
    if geometry is not None and len(geometry.coordinates) != positions:
        raise MaedError(
            f"coordinates must have one row for each of {positions} positions, got {len(geometry.coordinates)}"
        )

    def read(rows: np.ndarray) -> tuple[np.ndarray, None]:
        return _rows(array, rows, kind, settings), None

    stored = Stored(len(array), read, labels)
    normalization: Literal["channel", "position"] = "channel" if settings.type == "image" else "position"
    return with_classes(Source(kind, {"train": stored}, geometry=geometry, normalization=normalization))


def read_npy(path: Path) -> np.ndarray:
    """A `.npy` file, memory-mapped. Python objects in it are never unpickled."""
    with path.open("rb") as file:
        if file.read(6) != b"\x93NUMPY":
            raise MaedError(f"{path}: not a .npy file")
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # whatever a broken header makes numpy raise
        raise _unreadable(path, error) from None


def read_npz(path: Path, settings: DataSettings | None = None) -> dict[str, np.ndarray]:
    """The arrays `inputs`, `labels` and `coordinates` of a `.npz` file; all but `inputs` may be missing.

    See `chosen_arrays`.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise MaedError(f"{path}: not a .npz file")
        with archive:
            return chosen_arrays(path, archive, settings or DataSettings())
    except MaedError:
        raise
    except Exception as error:  # whatever a broken archive, or an array of more than memory, makes numpy raise
        raise _unreadable(path, error) from None


def chosen_arrays(path: Path, arrays: Mapping[str, Any], settings: DataSettings) -> dict[str, np.ndarray]:
    """Choose `inputs`, `labels` and `coordinates` among the arrays of a file; all but `inputs` are optional.

    `data.columns` and `data.label` name the first two. Otherwise usual names, such as `X` and `y`, are taken too,
    and so is a single array of any name: it is said. Labels may be a row or column of a matrix.

    Args:
        path: Path of the file, for messages.
        arrays: Arrays by name; those that are not chosen are not read.
        settings: `columns` and `label` are read.

    Raises:
        MaedError: No array, or several, may be the signals.
    """
    there = list(arrays)
    found = ", ".join(there[:10]) + (", ..." if len(there) > 10 else "") or "nothing"
    for argument, asked in (("data.columns", settings.columns or []), ("data.label", [settings.label])):
        if wrong := [name for name in asked if name is not None and name not in there]:
            raise MaedError(
                f"{argument}: {path} has no array {wrong[0]!r}{nearest(wrong[0], there)} (it holds {found})"
            )
    if len(settings.columns or []) > 1:
        raise MaedError(f"data.columns must name one array of {path}, got {len(settings.columns or [])}")
    taken = {key: next((name for name in names if name in there), None) for key, names in _KEYS.items()}
    if settings.columns:
        taken = {key: None if name == settings.columns[0] else name for key, name in taken.items()}
        taken["inputs"] = settings.columns[0]
    elif taken["inputs"] is None and len(there) == 1:
        taken["inputs"] = there[0]
    if settings.label is not None:
        taken["labels"] = settings.label
    if taken["inputs"] is None:
        hint = nearest("inputs", there)
        raise MaedError(
            f"{path}: no array is named 'inputs'{hint} (name one with --data.columns [NAME]; the file holds {found})"
        )
    given = {"inputs": settings.columns is not None, "labels": settings.label is not None}
    said = [f"{name!r} for {key}" for key, name in taken.items() if name not in (None, key) and not given.get(key)]
    left = [name for name in there if name not in taken.values()]
    if said:
        others = f"; not read: {', '.join(left[:8])}" if left else ""
        warnings.warn(f"{path}: reads {', '.join(said)}{others}", stacklevel=3)
    read = {key: arrays[name] for key, name in taken.items() if name is not None}
    if "labels" in read and np.ndim(read["labels"]) == 2 and 1 in np.shape(read["labels"]):  # as MATLAB has vectors
        read["labels"] = np.asarray(read["labels"]).ravel()
    return read


def _unreadable(path: Path, error: Exception) -> MaedError:
    """A message for what numpy could not load."""
    if "object" in str(error).lower():
        return MaedError(f"{path}: holds Python objects, which are never unpickled; it must hold numbers")
    reason = first_line(error)
    if "pickle" in reason:  # what numpy says of any file that it does not know
        reason = "not numpy's format"
    return MaedError(f"{path}: cannot be read ({reason})")


def _array(value: Any, name: str, strings: bool = False) -> np.ndarray:
    """Anything array-like as an array of numbers (or, for labels, of names)."""
    if isinstance(value, FileArray) and name == "inputs":
        return value  # type: ignore[return-value]  # of what an array can do, it does what is done here
    try:
        array = np.asarray(np.ma.filled(value.astype(float), np.nan) if np.ma.isMaskedArray(value) else value)
    except ValueError:
        raise MaedError(f"{name} must have rows of one length, got several") from None
    allowed = "biufUO" if strings else "biuf"
    if array.dtype.kind not in allowed:
        raise MaedError(f"{name} must hold {('numbers or names' if strings else 'numbers')}, got dtype {array.dtype}")
    return array


def _kind(array: np.ndarray, settings: DataSettings) -> SignalKind:
    """`real` or `tokens`, after the checks of rank and dtype."""
    type_, shape = settings.type, array.shape
    if type_ == "text":
        raise MaedError("data.type must be auto, real, tokens or image for an array, got text")
    if settings.image_size is not None and type_ != "image":
        raise MaedError("data.image_size must be left out for an array, unless --data.type is image")
    ranks = {"auto": (2, 3), "real": (2, 3), "tokens": (2,), "image": (3, 4)}[type_]
    if array.ndim not in ranks:
        meant = {
            "tokens": "(n, N) for token ids",
            "image": "(n, height, width) or (n, height, width, C) for images",
        }.get(type_, "(n, N) or (n, N, C)")
        raise MaedError(f"inputs must be {meant}, got shape {shape}")
    if 0 in shape:
        raise MaedError(f"inputs must have at least 1 on every side, got shape {shape}")
    if type_ == "tokens" and array.dtype.kind not in "iu":
        raise MaedError(f"inputs must be whole numbers (token ids), got dtype {array.dtype}")
    signed = array.dtype.kind == "i" and array.dtype.itemsize > 1
    return "tokens" if type_ == "tokens" or (type_ == "auto" and signed and array.ndim == 2) else "real"


def _rows(array: np.ndarray, rows: np.ndarray, kind: SignalKind, settings: DataSettings) -> np.ndarray:
    """A copy of some rows in the type they are kept in: ids as they are, small whole numbers, or float32."""
    target = array.dtype.newbyteorder("=") if kind == "tokens" else _kept(array.dtype)
    values = np.empty((len(rows), *array.shape[1:]), dtype=target)
    step = max(1, _BLOCK // max(1, math.prod(array.shape[1:])))
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is refused later
        for start in range(0, len(rows), step):
            values[start : start + step] = array[rows[start : start + step]]
    if settings.type == "image":
        values = values if values.ndim == 4 else values[..., None]
        return values if settings.image_size is None else resize_pixels(values, settings.image_size)
    return values if kind == "tokens" or values.ndim == 3 else values[..., None]


def _kept(dtype: np.dtype) -> np.dtype:
    """The type in which real channels are kept: one or two bytes where they are enough."""
    if dtype.kind == "b" or dtype == np.uint8:
        return np.dtype(np.uint8)
    return np.dtype(np.int16) if dtype.kind == "i" and dtype.itemsize <= 2 else np.dtype(np.float32)
