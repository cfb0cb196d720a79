"""Position embeddings as a bias of attention."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maed.embedding import PositionEmbedding
from maed.embedding.coordinates import MOST
from maed.errors import MaedError
from maed.integrations.naming import order as named_order

_NEAREST = 8
_STRONGEST = 4.0  # slope of the first head


class AttentionBias(nn.Module):
    """Bias of attention that falls with distance in a learned geometry, added to the logits of each head.

    The bias of two positions is `-slope * log(1 + distance / scale)`, both learned for each head: ALiBi's idea (Press,
    Smith and Lewis 2022) with the logarithm of KERPLE (Chi et al. 2022), and in place of the difference of two indices
    the distance of two positions by `PositionEmbedding.coordinates_like`. (Distances of the vectors themselves tell
    neighbors apart and hardly more.) The unit of distance is the mean distance to the 8 nearest. Slopes start spaced as
    ALiBi's, the first at 4, so that some heads look at neighbors and others everywhere; scales start at 1. Memory grows
    with N^2, as that of attention does.

    Args:
        positions: At least 4 positions.
        heads: Number H of attention heads.
        tokens: Number of inputs without a position before the others, such as CLS; their bias is 0.
        names: Names of the inputs, in their order, if that differs from the order of the embedding's positions.
        dims: Number of coordinates, at most 8; default: as many as the shape needs.

    Raises:
        MaedError: An argument is invalid, the embedding has no names, or they are not those of the inputs.

    Example:
        >>> bias = AttentionBias(PositionEmbedding(torch.randn(49, 16)), heads=4)
        >>> q, k, v = torch.randn(3, 8, 4, 49, 32)  # (B, H, N, width) each
        >>> F.scaled_dot_product_attention(q, k, v, attn_mask=bias()).shape
        torch.Size([8, 4, 49, 32])
    """

    order: Tensor | None
    coordinates: Tensor

    def __init__(
        self,
        positions: PositionEmbedding,
        heads: int,
        *,
        tokens: int = 0,
        names: Sequence[str] | None = None,
        dims: int | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(positions, PositionEmbedding):
            raise MaedError(f"positions must be a PositionEmbedding, got {type(positions).__name__}")
        for argument, value, least in (("heads", heads, 1), ("tokens", tokens, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise MaedError(f"{argument} must be an integer of at least {least}, got {value!r}")
        if dims is not None and dims > MOST:
            raise MaedError(f"dims must be at most {MOST}, got {dims}")
        self.tokens = tokens
        order = None if names is None else named_order(positions, names).argsort()
        self.register_buffer("order", order, persistent=False)
        self.log_slope = nn.Parameter(math.log(_STRONGEST) - math.log(2) * 8 * torch.arange(heads) / heads)
        self.log_scale = nn.Parameter(torch.zeros(heads))
        self.register_buffer("coordinates", _in_units(positions, dims))

    def forward(self, index: Tensor | None = None) -> Tensor:
        """The bias, for `attn_mask` of `torch.nn.functional.scaled_dot_product_attention`.

        Args:
            index: `(B, L)` or `(L,)` integers from 0 to N - 1: the position of each input, for models that see a
                subset. Default: all positions.

        Returns:
            `(H, tokens + L, tokens + L)` float32, with a leading axis B if `index` has one. For `nn.TransformerEncoder`
            use `mask=bias().repeat(B, 1, 1)`; in another precision, `bias().to(x.dtype)`.

        Raises:
            MaedError: `index` has another shape, or is given with names.
        """
        places = self.coordinates
        if index is not None:
            if self.order is not None:
                raise MaedError("index must be None if names say which position each input has")
            if index.is_floating_point() or index.dtype == torch.bool or index.ndim not in (1, 2):
                raise MaedError(
                    f"index must be integers of shape (L,) or (B, L), got {index.dtype} of shape {tuple(index.shape)}"
                )
            places = F.embedding(index.long(), places)  # (B, L, 8)
        elif self.order is not None:
            places = places.index_select(0, self.order)
        distances = torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist")
        slope, scale = (each.exp()[:, None, None] for each in (self.log_slope, self.log_scale))  # (H, 1, 1)
        bias = -slope * torch.log1p(distances.unsqueeze(-3) / scale)  # ([B,] H, L, L)
        return F.pad(bias, (self.tokens, 0, self.tokens, 0))

    def extra_repr(self) -> str:
        """Heads and tokens for `print`."""
        return f"heads={len(self.log_slope)}, tokens={self.tokens}"


def _in_units(positions: PositionEmbedding, dims: int | None) -> Tensor:
    """Coordinates `(N, 8)` float32, filled up with zeros, in units of the mean distance to the 8 nearest.

    Always of 8 columns, so that a module of zeros can load those of another, however many it has.
    """
    if not positions.vectors.any():
        return torch.zeros(positions.n, MOST)
    found = positions.coordinates_like(dims)
    nearest = torch.cdist(found, found).topk(min(_NEAREST + 1, len(found)), largest=False).values[:, 1:]
    return F.pad(found / nearest.mean(), (0, MOST - found.shape[1]))
