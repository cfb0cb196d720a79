"""The loss of each reconstructed position, and what an autoencoder puts out for it."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

LossName = Literal["mse", "gaussian", "cross-entropy"]

_LEAST_VARIANCE = 1e-3
"""Least predicted variance, in units of a normalized channel: constant regions would have infinite likelihood."""


def outputs_of(loss: LossName, *, channels: int, vocabulary: int) -> int:
    """Number of outputs per position: channels, means and log-variances, or logits."""
    return vocabulary or (2 * channels if loss == "gaussian" else channels)


def reconstruction_of(output: Tensor, loss: LossName) -> Tensor:
    """The most likely values: the means of `(B, S, outputs)`, or `(B, S)` token ids."""
    if loss == "cross-entropy":
        return output.argmax(dim=-1)
    return output.chunk(2, dim=-1)[0] if loss == "gaussian" else output


def position_losses(output: Tensor, targets: Tensor, loss: LossName) -> Tensor:
    """The loss l_j of each position.

    `mse`: mean squared error over channels. `gaussian`: minus the log-likelihood of a normal distribution whose mean
    and log-variance are predicted for each channel (Nix and Weigend 1994), in nats, the mean over channels; it sees
    dependence between magnitudes where means depend on nothing. `cross-entropy`: in nats.

    Args:
        output: `(B, S, C)`; `(B, S, 2 C)`, means first; or `(B, S, vocabulary)` logits.
        targets: `(B, S, C)` float32, or `(B, S)` token ids.
        loss: Name of the loss.

    Returns:
        `(B, S)` float32.
    """
    output = output.float()
    if loss == "mse":
        return (output - targets).square().mean(dim=-1)
    if loss == "gaussian":
        mean, log_variance = output.chunk(2, dim=-1)
        variance = _LEAST_VARIANCE + log_variance.exp()  # a sum, not a clamp: its gradient never dies
        squares = (mean - targets).square() / variance
        return 0.5 * (squares + variance.log() + math.log(2 * math.pi)).mean(dim=-1)
    return F.cross_entropy(output.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
