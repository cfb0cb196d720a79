"""Position encodings: the table of each kind, and the module that brings every one to the content on equal terms."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from maed.data.geometry import Geometry
from maed.errors import MaedError, one_of
from maed.settings import ENCODINGS

LEARNED = ("correlation", "dependence", "maed", "maed-resampled")
"""Encodings whose table is an embedding that an earlier stage has made; a resampled one used the geometry."""

TUNABLE = ("random", *LEARNED)
"""Encodings whose table `perceiver.fine_tune` trains; `trainable` is trained always, formulas and zeros never."""


def position_table(
    encoding: str,
    n: int,
    d: int,
    *,
    seed: int,
    geometry: Geometry | None = None,
    vectors: Tensor | None = None,
) -> Tensor:
    """The vectors that a Perceiver is given for its positions.

    Args:
        encoding: one of `maed.settings.ENCODINGS`.
        n: positions N.
        d: channels of a vector.
        seed: seed of `trainable` and `random`; with the same seed they start from the same table.
        geometry: the true geometry; only `fourier` reads it.
        vectors: `(N, d)`, the embedding; only the encodings in `LEARNED` read it.

    Returns:
        `(N, d)` float32 of unit mean square over all entries; zeros for `none`. Vectors that have it already come
        back bit-identical.

    Raises:
        MaedError: unknown encoding, `fourier` without coordinates, or vectors missing or unfit.
    """
    one_of("positions", encoding, ENCODINGS)
    if n < 1 or d < 1:
        raise MaedError(f"positions: a table of shape ({n}, {d}); both may be 1 or more")
    if encoding == "none":
        return torch.zeros(n, d)
    if encoding in ("trainable", "random"):
        return unit_mean_square(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))
    if encoding == "sinusoidal":
        return unit_mean_square(sinusoidal(n, d))
    if encoding == "fourier":
        if geometry is None:
            raise MaedError("positions: fourier needs coordinates, and none are known for this source")
        if len(geometry.coordinates) != n:
            raise MaedError(f"positions: fourier was given {len(geometry.coordinates)} coordinates for {n} positions")
        return unit_mean_square(fourier(geometry, d))
    return unit_mean_square(_checked(encoding, n, d, vectors))


def sinusoidal(n: int, d: int) -> Tensor:
    """Sines and cosines of the storage index, `(N, d)`.

    Vaswani et al. 2017 (arXiv 1706.03762, section 3.5): channels 2i and 2i + 1 are sine and cosine of
    index / 10000^(2i / d). With d odd the last cosine is left out.
    """
    index = torch.arange(n, dtype=torch.float64)[:, None]
    frequency = 10000.0 ** -(torch.arange(0, d, 2, dtype=torch.float64) / d)
    angle = index * frequency  # (N, ceil(d / 2))
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :d].float()


def fourier(geometry: Geometry, d: int) -> Tensor:
    """Fourier features of the true coordinates, `(N, d)`.

    Perceiver (arXiv 2103.03206, section 3.2): each coordinate is scaled to x in [-1, 1]; the features are the raw x,
    then sin(pi f x) and cos(pi f x) with f spread evenly from 1 to the Nyquist frequency, half the resolution. There
    are as many bands as fit into d; what is left is zeros, and a d too small for one band is cut.
    """
    coordinates = torch.as_tensor(geometry.coordinates, dtype=torch.float64)  # (N, D)
    dims = coordinates.shape[1]
    low, high = coordinates.amin(0), coordinates.amax(0)
    x = torch.where(high > low, 2 * (coordinates - low) / (high - low) - 1, 0.0)
    bands = max(1, (d - dims) // (2 * dims))
    frequency = torch.stack([torch.linspace(1, max(1.0, r / 2), bands).double() for r in _resolution(geometry)])
    angle = (math.pi * x[:, :, None] * frequency).flatten(1)  # (N, D * bands)
    features = torch.cat([x, angle.sin(), angle.cos()], dim=1)[:, :d]
    return nn.functional.pad(features, (0, d - features.shape[1])).float()


def _resolution(geometry: Geometry) -> list[int]:
    """Positions along each dimension: distinct values on grids and lines, else N to the power of one over dimensions.

    A ring has one dimension, whatever the number of its coordinates; a torus, a sphere and a swiss roll have two.
    """
    n, dims = geometry.coordinates.shape
    if geometry.kind in ("line", "grid"):
        return [len(torch.unique(torch.as_tensor(column))) for column in geometry.coordinates.T]
    within = {"points": dims, "ring": 1}.get(geometry.kind, 2)
    return [round(n ** (1 / within))] * dims


def unit_mean_square(table: Tensor) -> Tensor:
    """Scale to unit mean square over all entries; a table that has it to rounding is returned as it is."""
    square = table.double().square().mean()
    if square == 0 or not torch.isfinite(square):
        raise MaedError("positions: the vectors are all zero or not finite; they may be finite numbers, not all zero")
    if abs(square - 1) < 1e-5:
        return table
    return (table.double() / square.sqrt()).float()


def _checked(encoding: str, n: int, d: int, vectors: Tensor | None) -> Tensor:
    if vectors is None:
        raise MaedError(f"positions: {encoding} needs an embedding of shape ({n}, {d}), and none was given")
    if tuple(vectors.shape) != (n, d):
        raise MaedError(
            f"positions: {encoding} was given vectors of shape {tuple(vectors.shape)}; it may be ({n}, {d})"
        )
    return vectors.detach().float().cpu()


class PositionEncoding(nn.Module):
    """A table of position vectors, then the same linear map and learned gain for every encoding.

    The linear map starts orthogonal, so it keeps the table's root mean square, and the gain starts at that of the
    content: no encoding is louder than another at the start.

    Args:
        table: `(N, d)` of unit mean square (or zeros), from `position_table`.
        trained: whether the table is a parameter; otherwise it is a buffer, saved but never changed.
    """

    table: Tensor

    def __init__(self, table: Tensor, *, trained: bool) -> None:
        super().__init__()
        copy = table.detach().clone()
        if trained:
            self.table = nn.Parameter(copy)
        else:
            self.register_buffer("table", copy)
        self.linear = nn.Linear(table.shape[1], table.shape[1], bias=False)
        self.gain = nn.Parameter(torch.ones(()))
        self.start(1.0)

    def start(self, rms: float) -> None:
        """Initialize map and gain so that the output's root mean square is `rms`; the table is left alone."""
        nn.init.orthogonal_(self.linear.weight)
        self.scale_to(rms)

    def scale_to(self, rms: float) -> None:
        """Set the gain alone."""
        with torch.no_grad():
            self.gain.fill_(rms)

    def forward(self) -> Tensor:
        """The vectors as the content meets them, `(N, d)`."""
        return self.gain * self.linear(self.table)
