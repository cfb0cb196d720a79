"""The masked autoencoder: what it is shown, what it is, how it is trained."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maed.autoencoder.losses import outputs_of
    from maed.autoencoder.masking import MaskedAutoencoder, visible_count
    from maed.autoencoder.set import SetAutoencoder
    from maed.autoencoder.training import (
        AutoencoderTask,
        build_autoencoder,
        draw_stream,
        held_out_loss,
        load_autoencoder,
        loss_name,
        pretrain,
    )

_HOMES = {
    "AutoencoderTask": "training",
    "MaskedAutoencoder": "masking",
    "SetAutoencoder": "set",
    "build_autoencoder": "training",
    "draw_stream": "training",
    "held_out_loss": "training",
    "load_autoencoder": "training",
    "loss_name": "training",
    "outputs_of": "losses",
    "pretrain": "training",
    "visible_count": "masking",
}

__all__ = [
    "AutoencoderTask",
    "MaskedAutoencoder",
    "SetAutoencoder",
    "build_autoencoder",
    "draw_stream",
    "held_out_loss",
    "load_autoencoder",
    "loss_name",
    "outputs_of",
    "pretrain",
    "visible_count",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used: masking needs no training, nor the other way round."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
