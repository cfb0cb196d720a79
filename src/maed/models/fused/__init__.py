"""A fast Perceiver: transformers' weights, outputs and gradients, with other ways to compute them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maed.models.fused.perceiver import FusedAttention, Joined, fuse, pooling_pays

__all__ = ["FusedAttention", "Joined", "fuse", "pooling_pays"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'maed.models.fused' has no attribute {name!r}")
    from maed.models.fused import perceiver

    return getattr(perceiver, name)
