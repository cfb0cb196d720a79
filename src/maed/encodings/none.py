"""`none`: nothing that tells positions apart."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from maed.encodings._encoding import Encoding


class None_(Encoding):
    """Zeros."""

    @staticmethod
    def table(n: int, d: int, **unused: Any) -> Tensor:
        """Zeros, `(N, d)`."""
        return torch.zeros(n, d)
