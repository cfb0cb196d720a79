"""Arrays whose axes have names, as xarray has them: some axes count signals, the others make positions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np

from maed.data.geometry import Geometry, points
from maed.data.source import Source, Stored, first_line, with_classes
from maed.data.tables import LABELS
from maed.errors import MaedError, nearest, require_extra
from maed.settings import DataSettings

_SIGNALS = (
    *("time", "times", "t", "valid_time", "date", "day", "month", "year", "week", "hour", "step"),
    *("sample", "samples", "signal", "signals", "obs", "observation", "record", "n", "batch", "index"),
    *("trial", "trials", "epoch", "epochs", "run", "subject", "session", "case", "event", "shot", "frame"),
    *("member", "number", "realization", "ensemble", "replicate", "specimen", "spectrum"),
)
"""Names of axes along which signals lie, in small letters."""
_NAMELESS = ("dim_0", "phony_dim_0")
_AXES = (
    "x",
    "y",
    "z",
    "row",
    "rows",
    "column",
    "columns",
    "height",
    "width",
    "depth",
    "level",
    "wavelength",
    "frequency",
)
"""Axes whose whole numbers are places; those of others, such as `station`, may be mere numbers of things."""


def open_labeled(path: Path, settings: DataSettings) -> Source:
    """A file of netCDF, or a folder of zarr whose axes have names. Values are read where rows are chosen.

    Raises:
        MaedError: Xarray is not installed, or the file cannot be read or used.
    """
    require_extra(str(path), "xarray", package="xarray")
    import xarray as xr

    try:
        # what times are called is not needed, and some files have times that no calendar knows
        options: dict[str, Any] = {"engine": "zarr", "consolidated": None} if path.is_dir() else {}
        opened = xr.open_dataset(path, decode_times=False, decode_timedelta=False, **options)
    except Exception as error:  # each of the engines has errors of its own
        raise MaedError(f"{path}: cannot be read by xarray ({first_line(error)})") from None
    return labeled_source(opened, settings, str(path))


def labeled_source(data: Any, settings: DataSettings, origin: str) -> Source:
    """A source of an `xarray.DataArray` or of one variable of an `xarray.Dataset`.

    Axes called `time`, `sample` and the like count signals (several: every combination is one); all others together
    make the positions, the last of them running fastest. True places are taken from latitudes and longitudes, or from
    the coordinates of the axes, where these have one meaning. What was understood is said.

    Args:
        data: The array or data set; it may lie in a file.
        settings: `columns` names the variable, `label` and `group` name variables along the signals; `type` is read.
        origin: Name of the table in messages.

    Raises:
        MaedError: Several variables and none named, or no axis that counts signals.
    """
    import xarray as xr

    array, others = _variable(data, settings, origin)
    counting = [name for name in array.dims if str(name).lower() in _SIGNALS]
    if not counting and array.dims and array.dims[0] in _NAMELESS:
        counting = [array.dims[0]]
    axes = [name for name in array.dims if name not in counting]
    shape = " x ".join(f"{name} {size}" for name, size in array.sizes.items())
    if not counting or not axes:
        lacks = "counts signals" if not counting else "makes positions"
        raise MaedError(
            f"{origin}: no axis of {array.name or 'the array'} ({shape}) {lacks}; rename one axis to time or "
            "sample and another to something else (data.rename(NAME='sample'))"
        )
    if settings.type in ("text", "image"):
        raise MaedError(
            f"data.type must be real for {origin}, which holds numbers with named axes; got {settings.type}"
        )
    if settings.type == "tokens" and array.dtype.kind not in "iu":
        raise MaedError(
            f"data.type must not be tokens for {origin}, which holds {array.dtype}; token ids are whole numbers"
        )
    sizes = tuple(array.sizes[name] for name in counting)
    count, positions = int(np.prod(sizes)), int(np.prod([array.sizes[name] for name in axes]))
    fills = [array.attrs[name] for name in ("_FillValue", "missing_value") if name in array.attrs]
    fills = [fill for each in fills for fill in np.atleast_1d(each) if np.issubdtype(np.asarray(fill).dtype, np.number)]

    def read(rows: np.ndarray) -> tuple[np.ndarray, None]:
        needed, places = np.unique(rows, return_inverse=True)  # files are read in their own order
        chosen = {
            name: xr.DataArray(index, dims="_signal")
            for name, index in zip(counting, np.unravel_index(needed, sizes), strict=True)
        }
        values = array.isel(chosen).transpose("_signal", *axes).values.reshape(len(needed), positions)
        if settings.type == "tokens":
            return values.astype(np.int64)[places], None
        with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is refused later
            numbers = values.astype(np.float32)
        numbers[np.isin(values, np.array(fills).astype(values.dtype))] = np.nan  # as the values have them
        return numbers[places][..., None], None

    geometry, names, where = _places(array, axes)
    said = [
        f"variable {array.name!r}" if array.name is not None else "",
        f"{', '.join(map(str, counting))} counts signals",
    ]
    said += [f"{' x '.join(f'{name} {array.sizes[name]}' for name in axes)} are positions", where]
    stored_fills = [array.encoding.get(name, np.nan) for name in ("_FillValue", "missing_value")]
    if fills or any(fill == fill for fill in stored_fills):  # NaN is missing anyway
        said.append("fill values are missing values")
    if others:
        said.append(f"not read: {', '.join(others[:8])} (--data.columns [{others[0]}] reads it)")
    warnings.warn(f"{origin}: {'; '.join(filter(None, said))}", stacklevel=3)

    def along(argument: str, name: str | None) -> np.ndarray | None:
        """A variable with one value for each signal."""
        if name is None:
            return None
        known = [*array.coords, *getattr(data, "data_vars", ())]
        if name not in known or not set(data[name].dims) <= set(counting):
            fit = [str(each) for each in known if set(data[each].dims) <= set(counting)]
            raise MaedError(
                f"{argument}: {name!r} has no value for each signal{nearest(name, fit)} ({origin} has "
                f"{', '.join(fit) or 'nothing'} of that kind)"
            )
        return (
            data[name].broadcast_like(array.isel(dict.fromkeys(axes, 0), drop=True)).transpose(*counting).values.ravel()
        )

    usual = next((name for name in LABELS if name in array.coords and set(array[name].dims) <= set(counting)), None)
    labels, groups = along("data.label", settings.label or usual), along("data.group", settings.group)
    kind = "tokens" if settings.type == "tokens" else "real"
    stored = Stored(count, read, labels, groups)
    return with_classes(Source(kind, {"train": stored}, geometry=geometry, columns=names))  # type: ignore[arg-type]


def _variable(data: Any, settings: DataSettings, origin: str) -> tuple[Any, list[str]]:
    """The array to read, and the names of others that it could have been."""
    if not hasattr(data, "data_vars"):
        return data, []
    shapes = {
        str(name): " x ".join(f"{axis} {size}" for axis, size in variable.sizes.items())
        for name, variable in data.data_vars.items()
        if variable.dtype.kind in "biuf" and variable.ndim > 1 and not str(name).endswith(("_bnds", "_bounds"))
    }
    asked = settings.columns or []
    if len(asked) > 1 or (not asked and len(shapes) != 1):
        found = "; ".join(f"{name} ({shape})" for name, shape in shapes.items()) or "none with two axes of numbers"
        first = next(iter(shapes), "")
        hint = f" (such as {f'X[{first!r}]' if origin == 'X' else f'[{first}]'})" if shapes else ""
        raise MaedError(f"data.columns must name one variable of {origin}{hint}, got {len(asked)}; it has {found}")
    if asked and asked[0] not in shapes:
        hint, known = nearest(asked[0], shapes), ", ".join(shapes)
        raise MaedError(f"data.columns: {origin} has no variable {asked[0]!r}{hint} (it has {known})")
    name = asked[0] if asked else next(iter(shapes))
    return data[name], [other for other in shapes if other != name]


def _places(array: Any, axes: list[Any]) -> tuple[Geometry | None, tuple[str, ...], str]:
    """True places and names of the positions, each if known, and a few words on the former."""
    plane = array.isel({name: 0 for name in array.dims if name not in axes}, drop=True)
    known = [plane.coords[name] for name in axes if name in plane.coords]
    names: tuple[str, ...] = ()
    if len(known) == len(axes):
        labels = [[f"{v:g}" if each.dtype.kind == "f" else str(v) for v in each.values] for each in known]
        crossed = np.meshgrid(*[np.asarray(each, dtype=object) for each in labels], indexing="ij")
        names = tuple(",".join(each) for each in zip(*(part.ravel() for part in crossed), strict=True))
    small = {str(name).lower(): name for name in plane.coords}
    lat, lon = (next((small[name] for name in each if name in small), None) for each in (_LATITUDES, _LONGITUDES))
    if lat is not None and lon is not None and {*plane[lat].dims, *plane[lon].dims} == set(axes):
        degrees = [
            plane[name].broadcast_like(plane).transpose(*axes).values.ravel().astype(float) for name in (lat, lon)
        ]
        up, along = np.radians(degrees[0]), np.radians(degrees[1])
        if np.nanmax(np.abs(degrees[0])) <= 90:
            sphere = np.stack([np.cos(up) * np.cos(along), np.cos(up) * np.sin(along), np.sin(up)], axis=1)
            lacking = int(np.isnan(sphere).any(axis=1).sum())
            some = f", which {lacking} positions lack: they are left out of metrics" if lacking else ""
            found = Geometry("sphere", sphere.astype(np.float32))
            return found, names, f"true places are on the sphere, by {lat}, {lon}{some}"
    meant = [each.dtype.kind == "f" or (each.dtype.kind in "iu" and str(each.name).lower() in _AXES) for each in known]
    if len(known) < len(axes) or not all(meant) or not axes:
        return None, names, ""
    units = {each.attrs.get("units") for each in known}
    if len(units) > 1 or len(axes) > 3:
        return None, names, f"no true places: {', '.join(map(str, axes))} are of several units"
    grids = np.meshgrid(*[each.values.astype(float) for each in known], indexing="ij")
    where = f"true places are the coordinates of {', '.join(map(str, axes))}"
    return points(np.stack([part.ravel() for part in grids], axis=1)), names, where


_LATITUDES, _LONGITUDES = ("lat", "latitude", "nav_lat"), ("lon", "longitude", "long", "nav_lon")
