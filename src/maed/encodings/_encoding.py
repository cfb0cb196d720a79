"""The base class of position encodings, and their tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from maed.data.geometry import Geometry
from maed.errors import MaedError
from maed.registry import ENCODINGS


class Encoding(ABC):
    """A kind of position vectors. It has no state: subclasses set what is said here, and make a table.

    A built-in encoding is a file of this folder; another package adds one by an entry point of the group
    `maed.encodings` (see `maed.registry.Registry`).

    Attributes:
        trained: True if its table is always trained.
        tunable: True if `perceiver.fine_tune` trains its table.
        needs_geometry: True if it reads the coordinates of the positions.
        embedding: Source of the embedding that it reads: `maed`, or the name of a baseline; None for none.
        resampled: True if its embedding was resampled to the grid of the data, and so used the geometry.
        reference: Comparisons hold references against all others, the lowest number first; None for no reference.
    """

    trained: ClassVar[bool] = False
    tunable: ClassVar[bool] = False
    needs_geometry: ClassVar[bool] = False
    embedding: ClassVar[str | None] = None
    resampled: ClassVar[bool] = False
    reference: ClassVar[int | None] = None

    @staticmethod
    @abstractmethod
    def table(n: int, d: int, *, seed: int, geometry: Geometry | None, vectors: Tensor | None) -> Tensor:
        """Make the vectors of N positions.

        Args:
            n: Positions N.
            d: Channels of a vector.
            seed: Seed of random numbers.
            geometry: Coordinates of the N positions; never None where `needs_geometry`.
            vectors: `(N, d)`, the embedding; never None where there is an `embedding`.

        Returns:
            `(N, d)` float32 of unit mean square over all entries (`unit_mean_square`), or zeros.
        """

    @classmethod
    def trains_table(cls, fine_tune: bool) -> bool:
        """True if a training changes the table, `perceiver.fine_tune` being what it is."""
        return cls.trained or (fine_tune and cls.tunable)


def position_table(
    encoding: str, n: int, d: int, *, seed: int, geometry: Geometry | None = None, vectors: Tensor | None = None
) -> Tensor:
    """Make the vectors that a target model is given for its positions.

    Args:
        encoding: One of `maed.registry.ENCODINGS`.
        n: Positions N.
        d: Channels of a vector.
        seed: Seed of `trainable` and `random`; with the same seed they start from the same table.
        geometry: The true geometry; `fourier` reads it.
        vectors: `(N, d)`, the embedding; encodings that were learned read it.

    Returns:
        `(N, d)` float32 of unit mean square over all entries; zeros for `none`. Vectors that have it already come
        back bit-identical.

    Raises:
        MaedError: Unknown encoding, no coordinates where they are needed, or vectors missing or unfit.
    """
    kind = ENCODINGS.get(encoding, "positions")
    if n < 1 or d < 1:
        raise MaedError(f"positions must be a table with at least 1 row and 1 channel, got shape ({n}, {d})")
    if kind.needs_geometry and geometry is None:
        raise MaedError(f"positions: {encoding} needs coordinates, which this source does not have")
    if kind.needs_geometry and geometry is not None and len(geometry.coordinates) != n:
        raise MaedError(f"positions: {encoding} must have {n} coordinates, got {len(geometry.coordinates)}")
    if kind.embedding is not None:
        if vectors is None:
            raise MaedError(f"positions: {encoding} needs an embedding of shape ({n}, {d}), got none")
        if tuple(vectors.shape) != (n, d):
            raise MaedError(f"positions: vectors of {encoding} must have shape ({n}, {d}), got {tuple(vectors.shape)}")
    if kind.needs_geometry and geometry is not None and not geometry.placed.all():
        lacking = int((~geometry.placed).sum())
        raise MaedError(f"positions: {encoding} needs the place of every position; {lacking} have none")
    made: Tensor = kind.table(n, d, seed=seed, geometry=geometry, vectors=vectors)
    return made


def unit_mean_square(table: Tensor) -> Tensor:
    """Scale to unit mean square over all entries; a table that has it to rounding is returned as it is."""
    square = table.double().square().mean()
    if square == 0 or not torch.isfinite(square):
        raise MaedError("positions: the vectors must be finite and not all zero")
    if abs(square - 1) < 1e-5:
        return table
    return (table.double() / square.sqrt()).float()
