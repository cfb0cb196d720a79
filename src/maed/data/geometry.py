"""The true geometry of the positions, where somebody knows it. Only evaluation and figures may read it."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist

from maed.errors import MaedError

GeometryKind = Literal["line", "grid", "points", "ring", "torus", "sphere", "swissroll"]

ROLL = (1.5 * np.pi, 4.5 * np.pi)
"""First and last angle of the swiss roll, which is its radius there too (scikit-learn's `make_swiss_roll`)."""

ROLL_HEIGHT = 21.0
"""Height of the swiss roll."""

MEASURED = 10_000
"""Positions up to which all are measured; beyond, metrics are of a fixed sample of `SAMPLED` of them."""

SAMPLED = 2_000


def sampled_note(n: int) -> str | None:
    """What a reader of the metrics of n positions must know; None where all are measured."""
    if n <= MEASURED:
        return None
    return (
        f"Metrics of {n:,} positions are those of a fixed random sample: recall of {SAMPLED:,} among all positions, "
        f"Spearman and trustworthiness among the {SAMPLED:,}, and the coordinate R² of {MEASURED:,}."
    )


@dataclass(frozen=True)
class Geometry:
    """The true geometry of positions: coordinates and distances.

    Args:
        kind: The shape that they lie on; `points` for coordinates of unknown kind. Decides the true distances and
            the `k` of kNN recall.
        coordinates: `(N, D)`, Cartesian; rows in storage order, NaN for positions that have no place. On a ring cosine
            and sine, on a torus those of each angle, on a sphere of radius 1 and on a swiss roll three.
        shape: Side lengths of a line, grid or torus (`(N,)`, `(height, width)`, or more of a torus), for figures; empty
            for the others.
        names: N names of the places, by which those of an embedding are found; empty if a file has none.
    """

    kind: GeometryKind
    coordinates: np.ndarray
    shape: tuple[int, ...] = ()
    names: tuple[str, ...] = ()

    @property
    def neighbors(self) -> int:
        """The `k` of kNN recall@k: 4 on a line or ring, otherwise 8."""
        return 4 if self.kind in ("line", "ring") else 8

    @property
    def is_euclidean(self) -> bool:
        """True if the true distance is that of the coordinates themselves."""
        return self.kind in ("line", "grid", "points")

    @property
    def placed(self) -> np.ndarray:
        """Positions with known coordinates, `(N,)` bool; the others are left out of metrics."""
        return np.isfinite(self.coordinates).all(axis=1)

    def at(self, rows: np.ndarray) -> Geometry:
        """The geometry of some positions `(m,)`, whose places keep their meaning, but no sides."""
        kind = self.kind if self.kind in ("line", "ring", "torus", "sphere", "swissroll") else "points"
        names = tuple(np.asarray(self.names, dtype=object)[rows]) if self.names else ()
        return Geometry(kind, self.coordinates[rows], (), names)

    def distances(self, rows: np.ndarray | None = None) -> np.ndarray:
        """True distances, `(N, N)` float64, or from positions `(m,)` to all, `(m, N)`; time and memory grow with it.

        Euclidean for lines, grids and points; else within the shape, in radians: along the ring, along great circles of
        the sphere, on the torus the root of all angles' squares; on the swiss roll Euclidean once it is unrolled.

        Returns:
            `(N, N)` or `(m, N)` float64.
        """
        places = self.coordinates.astype(np.float64)
        if self.kind == "swissroll":
            places = unrolled(places)
        some = places if rows is None else places[rows]
        if self.kind in ("ring", "sphere"):
            return _angles(some, places)
        if self.kind == "torus":
            angles = [_angles(some[:, i : i + 2], places[:, i : i + 2]) for i in range(0, places.shape[1], 2)]
            return np.hypot.reduce(angles)
        return cdist(some, places)

    def permuted(self, order: np.ndarray) -> Geometry:
        """The geometry of positions stored in another `order` (new position i was position `order[i]`)."""
        names = tuple(self.names[i] for i in order) if self.names else ()
        return Geometry(self.kind, self.coordinates[order], self.shape, names)


def grid(height: int, width: int) -> Geometry:
    """A grid of `height * width` positions in row-major order; coordinates are (row, column)."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    coordinates = np.stack([rows.ravel(), columns.ravel()], axis=1).astype(np.float32)
    return Geometry("grid", coordinates, (height, width))


def line(length: int) -> Geometry:
    """`length` positions on a line, one apart."""
    return Geometry("line", np.arange(length, dtype=np.float32)[:, None], (length,))


def ring(length: int) -> Geometry:
    """`length` positions evenly around the unit circle, in its order."""
    return Geometry("ring", _circle(length))


def torus(*sides: int) -> Geometry:
    """A flat torus in row-major order, of two sides or more: along each of them, positions lie on rings."""
    along = np.meshgrid(*map(np.arange, sides), indexing="ij")
    rings = [_circle(side)[places.ravel()] for side, places in zip(sides, along, strict=True)]
    return Geometry("torus", np.concatenate(rings, axis=1), sides)


def sphere(count: int) -> Geometry:
    """`count` positions spread evenly over the unit sphere, from its north pole to its south pole.

    They are a Fibonacci lattice (Gonzalez 2010, arXiv 0912.4540): equal steps of height, each turned by the golden
    angle.

    Returns:
        The geometry, with coordinates `(count, 3)`.
    """
    index = np.arange(count)
    z = 1 - (2 * index + 1) / count
    angle, radius = index * np.pi * (3 - 5**0.5), np.sqrt(1 - z * z)
    return Geometry("sphere", np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1))


def swissroll(count: int, generator: np.random.Generator) -> Geometry:
    """`count` positions drawn evenly from a swiss roll: a sheet of height 21 and length about 90, rolled up.

    The roll is that of scikit-learn's `make_swiss_roll`: `(t cos t, height, t sin t)` with t from 1.5 pi to 4.5 pi.
    That one draws t evenly, which crowds the middle; here the length along the sheet is drawn evenly.

    Returns:
        The geometry, with coordinates `(count, 3)`.
    """
    table = np.linspace(*ROLL, 10_001)
    lengths = arc_length(table)
    t = np.interp(generator.uniform(lengths[0], lengths[-1], count), lengths, table)
    height = generator.uniform(0, ROLL_HEIGHT, count)
    return Geometry("swissroll", np.stack([t * np.cos(t), height, t * np.sin(t)], axis=1))


def arc_length(t: np.ndarray) -> np.ndarray:
    """Length of the spiral `t (cos t, sin t)` from its center to angle `t`, the integral of sqrt(1 + t^2)."""
    return (t * np.sqrt(1 + t * t) + np.arcsinh(t)) / 2


def unrolled(coordinates: np.ndarray) -> np.ndarray:
    """Positions of a swiss roll `(N, 3)` on the flat sheet: arc length and height, `(N, 2)` float64."""
    places = np.asarray(coordinates, dtype=np.float64)
    radius = np.hypot(places[:, 0], places[:, 2])  # which is the angle t
    return np.stack([arc_length(radius), places[:, 1]], axis=1)


def points(coordinates: np.ndarray) -> Geometry:
    """Positions at the given `(N, D)` coordinates; one column counts as a line. A row with NaN is no place.

    Returns:
        The geometry of N positions.

    Raises:
        MaedError: No such numbers, an infinite one, or fewer than two places.
    """
    coordinates = np.asarray(coordinates)
    if coordinates.ndim != 2 or coordinates.dtype.kind not in "fiu":
        raise MaedError(
            f"coordinates must be numbers of shape (N, D), got {coordinates.dtype} of shape {coordinates.shape}"
        )
    if np.isinf(coordinates).any():
        raise MaedError("coordinates must be finite, or NaN for positions with no known place; some are infinite")
    places = coordinates.astype(np.float32)
    lacking = np.isnan(places).any(axis=1)
    if (~lacking).sum() < min(2, len(places)):
        raise MaedError(
            f"coordinates must be known for at least 2 positions; {lacking.sum()} of {len(places)} have none"
        )
    if lacking.any():
        some = ", ".join(map(str, np.flatnonzero(lacking)[:8])) + (", ..." if lacking.sum() > 8 else "")
        warnings.warn(
            f"{lacking.sum()} of {len(places)} positions have no coordinates and are left out of geometry "
            f"metrics and figures: {some}",
            stacklevel=3,
        )
        places[lacking] = np.nan  # part of a place is none
    kind: GeometryKind = "line" if places.shape[1] == 1 else "points"
    return Geometry(kind, places)


def permutation(n: int, seed: int) -> np.ndarray:
    """The order that `--data.permute SEED` puts `n` positions in, `(n,)`: position i holds what was at `order[i]`."""
    return np.random.default_rng(seed).permutation(n)


def _circle(count: int) -> np.ndarray:
    """Cosine and sine of `count` even steps around the circle, `(count, 2)`."""
    angle = 2 * np.pi * np.arange(count) / count
    return np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _angles(some: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Angles between unit vectors `(m, D)` and `(N, D)`, `(m, N)`: twice the arctangent of half chord over half sum.

    The arccosine of the product would lose half of the digits for near vectors (Kahan 2006, "How futile are mindless
    assessments of roundoff", section 12).
    """
    return 2 * np.arctan2(cdist(some, places), cdist(some, -places))
