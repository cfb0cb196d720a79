"""The true geometry of the positions, where somebody knows it. Only evaluation and figures may read it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist

from maed.errors import MaedError

GeometryKind = Literal["line", "grid", "points"]


@dataclass(frozen=True)
class Geometry:
    """Where the positions truly lie.

    Args:
        kind: `line`, `grid`, or `points` for coordinates of unknown kind; decides the `k` of kNN recall.
        coordinates: `(N, D)`; rows in storage order.
        shape: side lengths of a line or grid (`(N,)` or `(height, width)`), for figures; empty for points.
    """

    kind: GeometryKind
    coordinates: np.ndarray
    shape: tuple[int, ...] = ()

    @property
    def neighbours(self) -> int:
        """The `k` of kNN recall@k: 4 on a line, otherwise 8."""
        return 4 if self.kind == "line" else 8

    def distances(self) -> np.ndarray:
        """True distances, `(N, N)` float64; Euclidean. Memory and time grow with N squared."""
        return cdist(self.coordinates, self.coordinates)

    def permuted(self, order: np.ndarray) -> Geometry:
        """The geometry of positions stored in another `order` (new position i was position `order[i]`)."""
        return Geometry(self.kind, self.coordinates[order], self.shape)


def grid(height: int, width: int) -> Geometry:
    """A grid of `height * width` positions in row-major order; coordinates are (row, column)."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    coordinates = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(np.float32)
    return Geometry("grid", coordinates, (height, width))


def line(length: int) -> Geometry:
    """`length` positions on a line, one apart."""
    return Geometry("line", np.arange(length, dtype=np.float32)[:, None], (length,))


def points(coordinates: np.ndarray) -> Geometry:
    """Positions at the given `(N, D)` coordinates; one column counts as a line."""
    coordinates = np.asarray(coordinates)
    if coordinates.ndim != 2 or coordinates.dtype.kind not in "fiu":
        raise MaedError(f"coordinates: {coordinates.dtype} of shape {coordinates.shape}; they may be numbers (N, D)")
    if not np.isfinite(coordinates).all():
        raise MaedError("coordinates: hold values that are not finite; they may be finite numbers (N, D)")
    kind: GeometryKind = "line" if coordinates.shape[1] == 1 else "points"
    return Geometry(kind, coordinates.astype(np.float32))


def parse_geometry(text: str) -> Geometry:
    """Read `grid:HEIGHTxWIDTH`, `line:LENGTH`, or a `.npy` or `.csv` file of `(N, D)` coordinates."""
    name, _, size = text.partition(":")
    expected = "it may be grid:HEIGHTxWIDTH, line:LENGTH or a file of (N, D) numbers"
    if name in ("grid", "line"):
        try:
            sides = [int(part) for part in size.split("x")]
        except ValueError:
            sides = []
        if any(side < 1 for side in sides) or len(sides) != (2 if name == "grid" else 1):
            raise MaedError(f"coordinates: {text!r}; {expected}")
        return grid(*sides) if name == "grid" else line(*sides)
    path = Path(text)
    if not path.is_file():
        raise MaedError(f"coordinates: {text!r} is no file; {expected}")
    try:
        if path.suffix == ".npy":
            return points(np.load(path, allow_pickle=False))
        return points(np.loadtxt(path, delimiter=",", ndmin=2))
    except (ValueError, OSError) as error:
        if isinstance(error, MaedError):
            raise
        raise MaedError(f"coordinates: {text!r} cannot be read as (N, D) numbers ({error})") from None


def permutation(n: int, seed: int) -> np.ndarray:
    """The order that `--data.permute SEED` puts `n` positions in, `(n,)`: position i holds what was at `order[i]`."""
    return np.random.default_rng(seed).permutation(n)
