"""`fourier`: Fourier features of the true coordinates, the oracle that knows the geometry."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from maed.data.geometry import Geometry
from maed.encodings._encoding import Encoding, unit_mean_square


class Fourier(Encoding):
    """The encoding of the Perceiver (arXiv 2103.03206, section 3.2)."""

    needs_geometry = True
    reference = 2

    @staticmethod
    def table(n: int, d: int, *, geometry: Geometry | None, **unused: Any) -> Tensor:
        """Features of coordinates `(N, D)`, `(N, d)`.

        Each coordinate is scaled to x in [-1, 1]; the features are the raw x, then sin(pi f x) and cos(pi f x) with f
        spread evenly from 1 to the Nyquist frequency, half the resolution. There are as many bands as fit into d; what
        is left is zeros, and a d too small for one band is cut.
        """
        assert geometry is not None
        coordinates = torch.as_tensor(geometry.coordinates, dtype=torch.float64)  # (N, D)
        dims = coordinates.shape[1]
        low, high = coordinates.amin(0), coordinates.amax(0)
        x = torch.where(high > low, 2 * (coordinates - low) / (high - low) - 1, 0.0)
        bands = max(1, (d - dims) // (2 * dims))
        # Distinct values on lines and grids, else N to the power of one over the dimensions of the shape: a ring has
        # one, whatever the number of its coordinates; a torus, a sphere and a swiss roll have two.
        resolution = [round(n ** (1 / {"points": dims, "ring": 1}.get(geometry.kind, 2)))] * dims
        if geometry.kind in ("line", "grid"):
            resolution = [len(torch.unique(column)) for column in coordinates.T]
        frequency = torch.stack([torch.linspace(1, max(1.0, r / 2), bands).double() for r in resolution])
        angle = (math.pi * x[:, :, None] * frequency).flatten(1)  # (N, D * bands)
        features = torch.cat([x, angle.sin(), angle.cos()], dim=1)[:, :d]
        return unit_mean_square(pad(features, (0, d - features.shape[1])).float())
