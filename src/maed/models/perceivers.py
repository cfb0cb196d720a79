"""Base of all classifiers on transformers' PerceiverModel."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PerceiverConfig, PerceiverModel
from transformers.models.perceiver.modeling_perceiver import PerceiverBasicDecoder, PerceiverClassificationDecoder

from maed.errors import MaedError
from maed.settings import PerceiverSettings


def latent_logits(
    perceiver: PerceiverModel,
    inputs: tuple[Tensor, Any, Tensor],
    mask: Tensor | None,
    dtype: torch.dtype,
    query: Tensor | None = None,
) -> Tensor:
    """Outputs of the decoder for preprocessed inputs, such as class logits.

    transformers builds the attention mask in `PerceiverModel.forward`, differently from version to version, and
    materializes one even where nothing is masked; so its parts are called here, with a mask of ours.

    Args:
        perceiver: Transformers' model with a classification decoder.
        inputs: Outputs of the preprocessor: inputs `(B, N, width)`, sizes, and the content alone.
        mask: `(B, N)` bool, True where a position is real.
        dtype: Data type of the products; a wider one in the mask would widen the scores, `(B, heads, latents, N)`.
        query: `(B, Q, latent_width)`, what is asked of the latents; the decoder's own question by default.

    Returns:
        `(B, outputs)`; `(B, Q, outputs)` with a `query`.
    """
    scores_mask = None
    if mask is not None:
        scores_mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        scores_mask = scores_mask.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]
    latents = perceiver.embeddings(batch_size=inputs[0].shape[0])  # (B, latents, width)
    encoded = perceiver.encoder(latents, inputs=inputs[0], inputs_mask=scores_mask)[0]
    query = perceiver.decoder.decoder_query(*inputs) if query is None else query
    return perceiver.decoder(query, z=encoded).logits


def classification_decoder(config: PerceiverConfig) -> PerceiverClassificationDecoder:
    """Transformers' decoder of one query, whose logits are those of the classes."""
    query = {"num_channels": config.d_latents, "index_dims": 1}
    return PerceiverClassificationDecoder(
        config,
        num_channels=config.d_latents,
        trainable_position_encoding_kwargs=query,
        use_query_residual=True,
    )


def position_decoder(config: PerceiverConfig) -> PerceiverBasicDecoder:
    """Transformers' decoder of queries that are made elsewhere, one for each position."""
    return PerceiverBasicDecoder(
        config,
        output_num_channels=config.num_labels,
        position_encoding_type="none",
        num_channels=config.d_latents,
        use_query_residual=True,
    )


def check_heads(settings: PerceiverSettings, channels: int) -> None:
    """Refuse heads of the cross-attention that divide neither latents nor inputs evenly."""
    for size, what in ((settings.latent_width, "perceiver.latent_width"), (channels, "input channels")):
        if size % settings.cross_heads:
            raise MaedError(f"perceiver.cross_heads must divide the {what} ({size}), got {settings.cross_heads}")
