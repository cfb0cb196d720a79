"""The module that brings the table of every encoding to the content on equal terms."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PositionEncoding(nn.Module):
    """A table of position vectors, then the same linear map and learned gain for every encoding.

    The linear map starts orthogonal, so it keeps the table's root mean square, and the gain starts at that of the
    content: no encoding is louder than another at the start.

    Args:
        table: `(N, d)` of unit mean square (or zeros), from `maed.encodings.position_table`.
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
