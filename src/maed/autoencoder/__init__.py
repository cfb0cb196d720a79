"""The masked autoencoder: what it is shown, what it is, how it is trained."""

from maed.autoencoder.masking import visible_count
from maed.autoencoder.model import MaskedAutoencoder, SetAutoencoder
from maed.autoencoder.training import build_autoencoder, load_autoencoder, loss_name, pretrain

__all__ = [
    "MaskedAutoencoder",
    "SetAutoencoder",
    "build_autoencoder",
    "load_autoencoder",
    "loss_name",
    "pretrain",
    "visible_count",
]
