"""A fast Perceiver: transformers' weights, outputs and gradients, with other ways to compute them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maed.models.fused.perceiver import FusedAttention, Joined, Summed, fuse, pooling_pays, summed

__all__ = ["FusedAttention", "Joined", "Summed", "fuse", "pooling_pays", "summed"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'maed.models.fused' has no attribute {name!r}")
    from maed.models.fused import perceiver

    return getattr(perceiver, name)
