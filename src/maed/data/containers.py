"""Files that hold arrays by name, besides numpy's own: MATLAB's, HDF5, and zarr without names of axes."""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maed.data.arrays import FileArray, array_source, chosen_arrays
from maed.data.source import Source, first_line
from maed.errors import MaedError, require_extra
from maed.files import read_json
from maed.settings import DataSettings

_DESCRIBED = (".zarray", ".zmetadata", "zarr.json")
_HDF5 = b"\x89HDF\r\n\x1a\n"


def open_matlab(path: Path, settings: DataSettings) -> Source:
    """A `.mat` file of any version; those from 7.3 on are HDF5, in which axes lie the other way round.

    Raises:
        MaedError: The file cannot be read, or several matrices may be the signals.
    """
    from scipy.io import loadmat

    with path.open("rb") as file:
        start = file.read(520)
    if _HDF5 in start:
        return open_hdf5(path, settings, matlab=True)
    try:
        stored: dict[str, Any] = {name: value for name, value in loadmat(path).items() if not name.startswith("__")}
    except Exception as error:  # whatever a broken header makes scipy raise
        raise MaedError(f"{path}: cannot be read as .mat ({first_line(error)})") from None
    for name, value in stored.items():
        if hasattr(value, "toarray"):
            warnings.warn(
                f"{path}: the sparse matrix {name!r} is read as a dense one; entries that it does not store are 0",
                stacklevel=3,
            )
            stored[name] = value.toarray()
    return _source(path, {name: value for name, value in stored.items() if _may_be(value)}, [*stored], settings)


def open_hdf5(path: Path, settings: DataSettings, *, matlab: bool = False) -> Source:
    """An HDF5 file, whose arrays are called by their paths in it; one of netCDF has names of axes, which xarray reads.

    Raises:
        MaedError: h5py is not installed, the file cannot be read, or several arrays may be the signals.
    """
    where = f"{path}, unless it is saved by save(..., '-v7')" if matlab else str(path)
    require_extra(where, "xarray", package="h5py")
    import h5py

    found: dict[str, Any] = {}
    everything: list[str] = []

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("#"):
            everything.append(name)
            words = matlab and item.attrs.get("MATLAB_class", b"") in (b"char", b"cell")
            if _may_be(item) and not words and not item.is_virtual:
                found[name] = item

    try:
        file = h5py.File(path, "r")  # closed with the last of its arrays
        if "_NCProperties" in file.attrs:
            file.close()
            from maed.data.labeled import open_labeled

            return open_labeled(path, settings)
        file.visititems(visit)  # follows no links, so that no other file is opened
        if any(item.external for item in found.values()):
            raise MaedError(
                f"{path}: its values are stored in other files, which are not opened; save them in one file"
            )
        return _source(path, _lazy(path, found, matlab), everything, settings)
    except MaedError:
        raise
    except Exception as error:  # whatever a broken file makes the library raise
        raise MaedError(f"{path}: cannot be read as HDF5 ({first_line(error)})") from None


def open_zarr(path: Path, settings: DataSettings) -> Source:
    """A folder of zarr: by xarray where the axes have names, otherwise its arrays as they are.

    Raises:
        MaedError: Zarr is not installed, the folder cannot be read, an array of it is pickled, or several arrays may be
            the signals.
    """
    require_extra(str(path), "xarray", package="zarr")
    import zarr

    try:
        if found := [file for file in _metadata(path) if _PICKLED.search(json.dumps(read_json(file)))]:
            raise MaedError(
                f"{path}: {found[0].relative_to(path)} uses the codec pickle, which can execute code when read; "
                "store it with another codec"
            )
        root = zarr.open(path, mode="r")
        if isinstance(root, zarr.Array):
            return array_source(FileArray(root, str(path)), None, None, settings)
        arrays = dict(root.arrays())
    except MaedError:
        raise
    except Exception as error:  # whatever a broken folder makes the library raise
        raise MaedError(f"{path}: cannot be read as zarr ({first_line(error)})") from None
    axes = [getattr(a.metadata, "dimension_names", None) or a.attrs.get("_ARRAY_DIMENSIONS") for a in arrays.values()]
    if axes and all(axes):
        from maed.data.labeled import open_labeled

        return open_labeled(path, settings)
    may_be = {name: array for name, array in arrays.items() if _may_be(array)}
    return _source(path, _lazy(path, may_be), [*arrays], settings)


_PICKLED = re.compile(r'"(id|name)": "(numcodecs\.)?pickle"')


def _metadata(path: Path) -> list[Path]:
    """The files in a folder of zarr that say how its arrays are coded, behind links too."""
    return [
        Path(folder, name)
        for folder, _, names in os.walk(path, followlinks=True)
        for name in names
        if name in _DESCRIBED
    ]


def _lazy(path: Path, stored: Mapping[str, Any], turned: bool = False) -> dict[str, Any]:
    """Arrays of a file, read when their values are asked for."""
    return {name: FileArray(array, str(path), turned=turned) for name, array in stored.items()}


def _may_be(array: Any) -> bool:
    """True if it holds numbers, or texts that may be labels."""
    return getattr(array, "dtype", np.dtype("V")).kind in "biufU" and getattr(array, "ndim", 0) > 0


def _source(path: Path, arrays: Mapping[str, Any], everything: list[str], settings: DataSettings) -> Source:
    """The arrays that are meant, as a source."""
    if not arrays:
        raise MaedError(f"{path}: holds no array of numbers; it holds {', '.join(everything[:8]) or 'nothing'}")
    found = chosen_arrays(path, arrays, settings)
    return array_source(found["inputs"], found.get("labels"), found.get("coordinates"), settings)
