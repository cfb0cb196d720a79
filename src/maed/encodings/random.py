"""`random`: vectors that tell positions apart, and nothing else about them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maed.encodings._encoding import Encoding, unit_mean_square


class Random(Encoding):
    """Independent standard normal entries, frozen unless fine-tuned."""

    tunable = True

    @staticmethod
    def table(n: int, d: int, *, seed: int, **unused: Any) -> Tensor:
        """Independent standard normal entries, `(N, d)`."""
        return unit_mean_square(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))
