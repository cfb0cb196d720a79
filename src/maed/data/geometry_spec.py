"""A geometry as users write it: a name and a size, or a file of coordinates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from maed.data.arrays import read_npy
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
"""How they are written."""


def parse_geometry(text: str) -> Geometry:
    """Read `grid:HEIGHTxWIDTH`, `line:LENGTH`, `ring:N`, `torus:HEIGHTxWIDTH`, `sphere:N`, or a file of coordinates.

    A file is `.npy` or `.csv` and holds `(N, D)` numbers. A swiss roll has no name here: its positions are drawn.
    """
    name, _, size = text.partition(":")
    expected = f"it must be {NAMES} or a file of (N, D) numbers"
    if name in _NAMED:
        written, make = _NAMED[name]
        sides = parse_sides(size)
        if len(sides) != written.count("x") + 1:
            raise MaedError(f"coordinates: {text!r}; {expected}")
        return make(*sides)
    path = Path(text)
    if not path.is_file():
        raise MaedError(f"coordinates: {text!r} is no file; {expected}")
    try:
        numbers = read_npy(path) if path.suffix == ".npy" else np.loadtxt(path, delimiter=",", ndmin=2)
    except MaedError as error:
        raise MaedError(f"coordinates: {error}") from None
    except (ValueError, OSError) as error:
        reason = (str(error).splitlines() or ["no numbers"])[0]
        raise MaedError(f"coordinates: {text!r} cannot be read as (N, D) numbers ({reason})") from None
    return points(numbers)


def parse_sides(size: str) -> list[int]:
    """Whole numbers of 1 or more in `12` or `12x8`; empty where `size` is neither."""
    try:
        sides = [int(part) for part in size.split("x")]
    except ValueError:
        return []
    return sides if min(sides) >= 1 else []
