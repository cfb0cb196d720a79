"""A geometry as users write it: a name and a size, or a file of coordinates."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from maed.data.arrays import read_npy
from maed.data.delimited import read_delimited
from maed.data.geometry import Geometry, grid, line, points, ring, sphere, torus
from maed.errors import MaedError

_NAMED: dict[str, tuple[str, Callable[..., Geometry]]] = {
    "grid": ("HEIGHTxWIDTH", grid),
    "line": ("LENGTH", line),
    "ring": ("N", ring),
    "torus": ("HEIGHTxWIDTH", torus),
    "sphere": ("N", sphere),
}
"""Geometries that a name and a size make: how the size is written, and what makes them."""

NAMES = ", ".join(f"{name}:{written}" for name, (written, _) in _NAMED.items())
"""Geometries by name, with the form of their sizes."""


def parse_geometry(text: str) -> Geometry:
    """Read `grid:HEIGHTxWIDTH`, `line:LENGTH`, `ring:N`, `torus:HEIGHTxWIDTH`, `sphere:N`, or a file of coordinates.

    A torus may have three sides, `torus:DEPTHxHEIGHTxWIDTH`. A file is `.npy` and holds `(N, D)` numbers, or a table in
    text, which may name its columns and places. A swiss roll has no name here: its positions are drawn.

    Returns:
        The geometry of N positions.
    """
    name, _, size = text.partition(":")
    expected = f"it must be {NAMES} or a file of (N, D) numbers"
    if name in _NAMED:
        written, make = _NAMED[name]
        sides = parse_sides(size)
        if len(sides) != written.count("x") + 1 and not (name == "torus" and len(sides) == 3):
            raise MaedError(f"coordinates: {text!r} is not valid; {expected}")
        return make(*sides)
    path = Path(text)
    if not path.is_file():
        raise MaedError(f"coordinates: {text!r} does not exist; {expected}")
    try:
        return points(read_npy(path)) if path.suffix == ".npy" else _places(path)
    except MaedError as error:
        message = str(error)
        raise MaedError(message if error.argument == "coordinates" else f"coordinates: {message}") from None


def _places(path: Path) -> Geometry:
    """A table of coordinates, as people write them: with or without names of columns, perhaps with names of places.

    Texts, or whole numbers in the first of three columns or more of which every one is there once and the others are
    fractions, are names.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that columns have no names, which coordinates need not have
        table = read_delimited(path)
    columns = [table.column(i) for i in range(table.num_columns)]
    texts = [i for i, column in enumerate(columns) if pa.types.is_string(column.type)]
    numbers = [i for i in range(len(columns)) if i not in texts]
    try:
        values = [pc.fill_null(columns[i].cast(pa.float64()), float("nan")).to_numpy() for i in numbers]
    except pa.ArrowException as error:
        reason = str(error).splitlines()[0]
        raise MaedError(f"{str(path)!r} cannot be read as (N, D) numbers ({reason})") from None
    names: tuple[str, ...] = tuple(columns[texts[0]].to_pylist()) if texts else ()
    whole = [bool((column == np.round(column)).all()) for column in values]
    numbered = not texts and len(values) > 2 and whole[0] and not all(whole[1:])
    if numbered and len(np.unique(values[0])) == len(values[0]):
        names, values = tuple(f"{value:.0f}" for value in values[0]), values[1:]
    if names:
        warnings.warn(
            f"{path}: the names of places ({', '.join(map(str, names[:3]))}, ...) are not read as coordinates",
            stacklevel=3,
        )
    if not values:
        raise MaedError(f"{str(path)!r} cannot be read as (N, D) numbers (no column of numbers)")
    return replace(points(np.stack(values, axis=1)), names=names if len(set(names)) == len(names) else ())


def parse_sides(size: str) -> list[int]:
    """Whole numbers of 1 or more in `12` or `12x8`; empty if `size` is neither."""
    try:
        sides = [int(part) for part in size.split("x")]
    except ValueError:
        return []
    return sides if min(sides) >= 1 else []
