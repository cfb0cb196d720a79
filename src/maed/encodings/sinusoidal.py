"""`sinusoidal`: sines and cosines of the storage index."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maed.encodings._encoding import Encoding, unit_mean_square


class Sinusoidal(Encoding):
    """The encoding of Vaswani et al. 2017 (arXiv 1706.03762, section 3.5)."""

    @staticmethod
    def table(n: int, d: int, **unused: Any) -> Tensor:
        """Channels 2i and 2i + 1 are sine and cosine of index / 10000^(2i / d), `(N, d)`.

        With d odd the last cosine is left out.
        """
        index = torch.arange(n, dtype=torch.float64)[:, None]  # (N, 1)
        frequency = 10000.0 ** -(torch.arange(0, d, 2, dtype=torch.float64) / d)  # (ceil(d / 2),)
        angle = index * frequency  # (N, ceil(d / 2))
        return unit_mean_square(torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :d].float())
