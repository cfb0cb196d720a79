"""Fitting an embedding to a model: another number of channels, another number of positions, another scale."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from maed.data.geometry import Geometry, GeometryKind
from maed.embedding.reduction import standardize
from maed.errors import MaedError

RESAMPLED: tuple[GeometryKind, ...] = ("line", "grid")
"""Geometries on which vectors can be interpolated."""


def project(vectors: Tensor, dim: int) -> Tensor:
    """Vectors in another number of channels.

    More channels: rotated into them by a matrix with orthonormal rows, the same for the same sizes, so that all
    distances stay and no channel is empty. Fewer: the leading principal components, which lose least of the squared
    distances. Time grows with N d `dim`, or N d^2.

    Args:
        vectors: `(N, d)`, centered.
        dim: channels, 1 or more.

    Returns:
        `(N, dim)` float32, each channel centered, unit mean square over all.
    """
    if dim < 1:
        raise MaedError(f"dim: {dim}; it may be 1 or more")
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
        MaedError: either is neither line nor grid, or they differ in kind, or places are missing.
    """
    for geometry in (there, wanted):
        if geometry.kind not in RESAMPLED:
            raise MaedError(f"resample: between positions of kind {geometry.kind}; it may be {' or '.join(RESAMPLED)}")
    if lacking := int((~there.placed).sum()):
        raise MaedError(f"resample: {lacking} positions have no place; each must have one")
    if there.kind != wanted.kind:
        raise MaedError(f"resample: from a {there.kind} to a {wanted.kind}; both may be of one kind")
    # a line that came as coordinates has no sides but its number of positions
    sides, target = (geometry.shape or (len(geometry.coordinates),) for geometry in (there, wanted))
    table = torch.empty(len(vectors), vectors.shape[1], dtype=torch.float64)
    table[_order(there, sides)] = vectors.detach().double().cpu()
    height, width = sides if len(sides) == 2 else (1, *sides)
    size = target if len(target) == 2 else (1, *target)
    image = table.T.reshape(1, -1, height, width)
    found = F.interpolate(image, size=tuple(size), mode="bicubic", align_corners=False, antialias=True)
    return standardize(found.flatten(2)[0].T)


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
        raise MaedError(f"resample: a grid of {sides[0]} x {sides[1]} with places missing; it may be whole")
    return order
