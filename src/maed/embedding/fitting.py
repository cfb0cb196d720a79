"""Fitting an embedding to a model: another number of channels, another number of positions, another scale."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.neighbors import NearestNeighbors
from torch import Tensor

from maed.data.geometry import Geometry, GeometryKind, permutation, points
from maed.embedding.reduction import reduce, standardize
from maed.errors import MaedError
from maed.settings import EmbeddingSettings

if TYPE_CHECKING:
    from maed.embedding.position_embedding import PositionEmbedding

RESAMPLED: tuple[GeometryKind, ...] = ("line", "grid")
"""Geometries on which vectors can be interpolated."""

_NEAR = 8  # nearest in the vectors, among which neighbors on a grid are looked for
_SIDES = 0.5  # least share of them that is found where the sides are right; see `doubt_sides`


def project(vectors: Tensor, dim: int) -> Tensor:
    """Vectors in another number of channels.

    More channels: rotated into them by a matrix with orthonormal rows, the same for the same sizes, so that all
    distances stay and no channel is empty. Fewer: the leading principal components, which lose least of the squared
    distances. Time grows with N d `dim`, or N d^2.

    Args:
        vectors: `(N, d)`, centered.
        dim: Channels, 1 or more.

    Returns:
        `(N, dim)` float32, each channel centered, unit mean square over all.
    """
    if dim < 1:
        raise MaedError(f"dim must be at least 1, got {dim}")
    x = vectors.detach().double().cpu()
    x = x - x.mean(dim=0)
    d = x.shape[1]
    if dim == d:
        return standardize(x)
    if dim > d:
        drawn = torch.randn(dim, d, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        return standardize(x @ torch.linalg.qr(drawn).Q.T)
    _, directions = torch.linalg.eigh(x.T @ x)  # ascending
    return standardize(x @ directions.flip(1)[:, :dim])


def refitted(embedding: PositionEmbedding, dim: int, similarity: Path | None) -> tuple[Tensor, dict[str, Any]]:
    """An embedding's vectors in `dim` channels, and the provenance of these: projected, or reduced again.

    Args:
        embedding: The embedding to fit.
        dim: Channels.
        similarity: a `similarity/` folder of the run that made it; None to project.

    Returns:
        Vectors `(N, dim)`, and their provenance.

    Raises:
        MaedError: `dim` cannot be, or the folder is of other positions.
    """
    origin = embedding.provenance
    if similarity is None:
        kept = {**origin, "projected": origin.get("projected", embedding.dim)}
        if dim < embedding.dim:  # what was measured of them all does not hold of fewer
            kept = {k: v for k, v in kept.items() if k not in ("metrics", "split_half")}
        return project(embedding.vectors, dim), kept
    if origin.get("resampled"):
        raise MaedError("similarity: the embedding was resampled, and no similarity is stored for the new positions")
    from maed.similarity import load_similarity  # here, for loading an embedding needs nothing of it

    found = load_similarity(similarity)
    if found.n != embedding.n:
        raise MaedError(f"similarity must be of {embedding.n} positions; {similarity} is of {found.n}")
    made_with = dict(origin.get("made_with") or {})
    settings = EmbeddingSettings(**{**(made_with.get("embedding") or {}), "dim": dim})
    made_with["embedding"] = vars(settings)
    # what was measured of another reduction says nothing of this one
    kept = {k: v for k, v in origin.items() if k not in ("metrics", "split_half", "projected")}
    values, error = found.arrays()
    return reduce(values, settings, error), {**kept, "reduction": settings.reduction, "made_with": made_with}


def scaled(vectors: Tensor, dim: int | None, rms: float) -> Tensor:
    """Vectors in `dim` channels (as many as they have where None), of root mean square `rms`, `(N, dim)` float32."""
    table = vectors.detach().cpu()
    table = (table if dim in (None, table.shape[1]) else project(table, dim or 1)).double()
    return (table * (rms / table.square().mean().sqrt().clamp(min=1e-12))).float()


def resample(vectors: Tensor, there: Geometry, wanted: Geometry) -> Tensor:
    """Interpolate vectors between the positions of a line or grid, as vision transformers do with their tables.

    Cubic along each side, with cells whose edges meet those of the target (`align_corners=False`), averaged where the
    target is coarser (`antialias`). Time grows with d times the positions of both.

    Args:
        vectors: `(N, d)`.
        there: a line or grid of the N positions, in any order.
        wanted: a line or grid of the M positions that are wanted, in row-major order.

    Returns:
        `(M, d)` float32, each channel centered, unit mean square over all.

    Raises:
        MaedError: Either is neither line nor grid, or they differ in kind, or places are missing.
    """
    for geometry in (there, wanted):
        if geometry.kind not in RESAMPLED:
            raise MaedError(
                f"resample must start from a {' or '.join(RESAMPLED)}, got positions of kind {geometry.kind}"
            )
    if lacking := int((~there.placed).sum()):
        raise MaedError(f"resample needs the place of every position; {lacking} have none")
    if there.kind != wanted.kind:
        raise MaedError(f"resample must keep the kind, got {there.kind} to {wanted.kind}")
    # a line that came as coordinates has no sides but its number of positions
    sides, target = (geometry.shape or (len(geometry.coordinates),) for geometry in (there, wanted))
    table = torch.empty(len(vectors), vectors.shape[1], dtype=torch.float64)
    table[_order(there, sides)] = vectors.detach().double().cpu()
    height, width = sides if len(sides) == 2 else (1, *sides)
    size = target if len(target) == 2 else (1, *target)
    image = table.T.reshape(1, -1, height, width)
    found = F.interpolate(image, size=tuple(size), mode="bicubic", align_corners=False, antialias=True)
    return standardize(found.flatten(2)[0].T)


def doubt_sides(vectors: Tensor, there: Geometry) -> None:
    """Warn where neighbors on the line or grid that was claimed are far in the vectors: its sides may be others.

    Looked at is the share of neighbors along a side that are among the 8 nearest in the vectors, of the side where it
    is least. Where sides are right it was 0.62 (digits, from correlation) to 1.00 (photos, usps, fields); with other
    sides of as many positions 0.00 to 0.51, and below 0.2 in another order. Of more than 2,048 positions, as many are
    looked at.

    Args:
        vectors: `(N, d)`.
        there: a line or grid of the N positions, in any order.
    """
    n = len(vectors)
    if there.kind not in RESAMPLED or n < 2 * _NEAR:
        return
    sides = there.shape if len(there.shape) == 2 else (1, n)
    table = np.empty(vectors.shape)
    table[_order(there, there.shape or (n,))] = vectors.detach().cpu().numpy()
    sample = np.sort(np.random.default_rng(0).permutation(n)[:2_048])
    near = NearestNeighbors(n_neighbors=_NEAR + 1).fit(table).kneighbors(table[sample], return_distance=False)

    def share(height: int, width: int) -> float:
        row, column = np.divmod(sample, width)
        found = []
        for steps, inside, length in ((1, column, width), (width, row, height)):
            after = [(near == sample[:, None] + sign * steps).any(axis=1) for sign in (1, -1)]
            known = np.stack([inside < length - 1, inside > 0])
            if known.any():
                found.append(float(np.stack(after)[known].mean()))
        return min(found)

    claimed = share(*sides)
    others = {width: share(n // width, width) for width in range(2, n // 2 + 1) if n % width == 0}
    best = max(others, key=others.__getitem__, default=n)
    better = there.kind == "grid" and best != sides[1] and others[best] > max(_SIDES, 1.25 * claimed)
    if claimed < _SIDES or better:
        told = (
            f"; those of {n // best} x {best} are so to {others[best]:.0%}, if positions are stored row by row" * better
        )
        warnings.warn(
            f"geometry: only {claimed:.0%} of the neighbors along a side of the {there.kind} of "
            f"{' x '.join(map(str, there.shape or (n,)))} are among the {_NEAR} nearest in the vectors{told}",
            stacklevel=3,
        )


def resampled_from(origin: dict[str, Any], there: Geometry) -> dict[str, Any]:
    """The provenance of what was resampled from the positions of `there`."""
    kept = {k: v for k, v in origin.items() if k != "metrics"}  # measured on other positions
    made_with = {k: v for k, v in (kept.pop("made_with", None) or {}).items() if k != "data"}
    sides = " x ".join(map(str, there.shape or (len(there.coordinates),)))
    return {**kept, "made_with": made_with, "resampled": f"a {there.kind} of {sides}"}


def of_positions(given: Geometry, names: Sequence[str] | None, n: int, seed: int | None) -> Geometry:
    """The places of an embedding's positions among those of its source.

    Args:
        given: The places of the source.
        names: N names of positions, or None.
        n: Positions.
        seed: Seed of the permutation that the embedding was learned with, or None.

    Raises:
        MaedError: Another number of places, and names do not tell which are which.
    """
    numbers = map(str, range(len(given.coordinates) if len(given.coordinates) != n else 0))
    for known in (given.names, tuple(numbers)):
        rows = {name: row for row, name in enumerate(known)}
        found = [name for name in names or () if name in rows]
        if found and (len(found) == n or (len(found) > n // 2 and known == given.names)):
            places = np.full((n, given.coordinates.shape[1]), np.nan, dtype=np.float32)
            places[[i for i, name in enumerate(names or ()) if name in rows]] = given.coordinates[
                [rows[f] for f in found]
            ]
            return points(places)  # says which have no place
    if len(given.coordinates) != n:
        raise MaedError(f"coordinates must have one row for each of {n} positions, got {len(given.coordinates)}")
    return given if seed is None else given.permuted(permutation(n, seed))


def _order(geometry: Geometry, sides: tuple[int, ...]) -> np.ndarray:
    """The row-major place of each position, `(N,)`: its rank along each side."""
    places = geometry.coordinates
    if geometry.kind == "line":
        order = np.empty(len(places), dtype=np.int64)
        order[np.argsort(places[:, 0], kind="stable")] = np.arange(len(places))
        return order
    cells = places.round().astype(np.int64)
    order = cells[:, 0] * sides[1] + cells[:, 1]
    if len(np.unique(order)) < len(order):
        raise MaedError(f"resample needs a complete grid; one of {sides[0]} x {sides[1]} has missing places")
    return order
