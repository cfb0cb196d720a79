"""The masked autoencoder: what it is shown, what it is, how it is trained."""

from maed.autoencoder.masking import visible_count
from maed.autoencoder.model import MaskedAutoencoder, outputs_of
from maed.autoencoder.set import SetAutoencoder
from maed.autoencoder.training import (
    AutoencoderModule,
    build_autoencoder,
    draw_loader,
    held_out_loss,
    load_autoencoder,
    loss_name,
    pretrain,
    wide,
)

__all__ = [
    "AutoencoderModule",
    "MaskedAutoencoder",
    "SetAutoencoder",
    "build_autoencoder",
    "draw_loader",
    "held_out_loss",
    "load_autoencoder",
    "loss_name",
    "outputs_of",
    "pretrain",
    "visible_count",
    "wide",
]
