"""`trainable`: a table that starts at random and is trained with the model."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maed.encodings._encoding import Encoding, unit_mean_square


class Trainable(Encoding):
    """Starts from the table of `random` of the same seed."""

    trained = True

    @staticmethod
    def table(n: int, d: int, *, seed: int, **unused: Any) -> Tensor:
        """Independent standard normal entries, `(N, d)`."""
        return unit_mean_square(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)))
