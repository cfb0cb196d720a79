"""The original's masked autoencoder: a 1-D U-Net over positions in storage order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class UNetAutoencoder(nn.Module):
    """Lays the visible positions out in storage order and reconstructs any others with a 1-D U-Net.

    **It knows the storage order by construction**: a convolution mixes stored neighbors, before anything is learned.
    Where they are true neighbors (text, spectra, time series) that is a head start; a similarity learned with it is
    no evidence that the order was found in the data, and permuting the positions makes it a worse model.

    Ronneberger et al., "U-Net" (arXiv 1505.04597), in one dimension with the original's settings: `depth` encoder
    blocks (two convolutions over 3 positions, each with batch norm and ReLU, then max-pooling by 2), a bottleneck,
    `depth` decoder blocks (transposed convolution by 2, the encoder's features beside it, two convolutions), a 1x1
    convolution. The first block has `width` channels, every level twice those of the level above. Two departures:

    - An indicator channel says which positions are visible. Hidden positions hold zeros, but zero is also a
      legitimate value of a normalized signal (its mean), which the original's network could not tell from "hidden".
    - Tokens enter as an embedding of `width` channels instead of one-hot: the first convolution sees a linear map of
      the one-hot vector either way, and this one is cheaper.

    The cost is linear in N however few positions are visible or scored: a forward pass takes about
    20 * 2^depth * width^2 multiply-adds per position of a signal, and keeps O(depth * width) numbers per position for
    the backward pass. Logits are made at the scored positions only. In training, batch norm uses the statistics of
    the batch, so a single signal of at most 2^depth positions cannot be trained on.

    Args:
        n: Positions N; any number, padded on the right to a multiple of 2^depth.
        channels: C of real signals; 0 for tokens.
        vocabulary: Token ids; 0 for real signals.
        width: Channels of the first block; the original's is 64.
        depth: Encoder blocks; the original's is 4.
        outputs: Channels of a reconstruction; by default `vocabulary` or `channels`.
    """

    def __init__(
        self, n: int, *, channels: int, vocabulary: int, width: int = 64, depth: int = 4, outputs: int | None = None
    ) -> None:
        super().__init__()
        self.padded = -(-n // 2**depth) * 2**depth
        self.embed: nn.Module = nn.Embedding(vocabulary, width) if vocabulary else nn.Identity()
        inputs = (width if vocabulary else channels) + 1
        widths = [width * 2**level for level in range(depth + 1)]
        self.encoder = nn.ModuleList(
            _double_convolution(above, here) for above, here in zip([inputs, *widths[:-2]], widths[:-1], strict=True)
        )
        self.bottleneck = _double_convolution(widths[-2], widths[-1])
        self.upsample = nn.ModuleList(
            nn.ConvTranspose1d(2 * here, here, kernel_size=2, stride=2) for here in reversed(widths[:-1])
        )
        self.decoder = nn.ModuleList(_double_convolution(2 * here, here) for here in reversed(widths[:-1]))
        self.head = nn.Linear(width, outputs or vocabulary or channels)  # the 1x1 convolution

    def predict(self, values: Tensor, visible: Tensor, scored: Tensor, visible_mask: Tensor | None = None) -> Tensor:
        """Reconstruct positions from others.

        Args:
            values: `(B, V, C)` float32 or `(B, V)` token ids at the visible positions.
            visible: `(B, V)` positions.
            scored: `(S,)` positions to reconstruct.
            visible_mask: `(B, V)` bool, False at filler, which is ignored, whatever its position and value.

        Returns:
            `(B, S, outputs)`: by default the reconstructed channels `(B, S, C)`, or logits `(B, S, vocabulary)`.
        """
        features = self.features(self.lay_out(values, visible, visible_mask))
        return self.head(features[:, :, scored].transpose(1, 2))

    forward = predict

    def lay_out(self, values: Tensor, visible: Tensor, visible_mask: Tensor | None) -> Tensor:
        """The visible values in storage order and the indicator, zeros elsewhere: `(B, inputs, padded)`."""
        seen = F.pad(self.embed(values), (0, 1), value=1.0)  # (B, V, inputs)
        b, _, inputs = seen.shape
        # Filler is written to one place too many, so that it cannot overwrite a visible position.
        place = visible if visible_mask is None else visible.where(visible_mask, self.padded)
        signal = seen.new_zeros(b, self.padded + 1, inputs)
        signal[torch.arange(b, device=visible.device)[:, None], place] = seen
        return signal[:, :-1].transpose(1, 2)

    def features(self, x: Tensor) -> Tensor:
        """Features after the last decoder block: `(B, inputs, padded)` to `(B, width, padded)`."""
        skipped = []
        for block in self.encoder:
            x = block(x)
            skipped.append(x)
            x = F.max_pool1d(x, 2)
        x = self.bottleneck(x)
        for upsample, block in zip(self.upsample, self.decoder, strict=True):
            x = block(torch.cat([skipped.pop(), upsample(x)], dim=1))
        return x


def _double_convolution(inputs: int, outputs: int) -> nn.Sequential:
    """Twice: convolution over 3 positions, batch norm, ReLU. `(B, inputs, L)` to `(B, outputs, L)`."""
    return nn.Sequential(
        nn.Conv1d(inputs, outputs, kernel_size=3, padding=1, bias=False),  # batch norm would cancel a bias
        nn.BatchNorm1d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv1d(outputs, outputs, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm1d(outputs),
        nn.ReLU(inplace=True),
    )
