"""`maed`: transformers' PerceiverModel with a preprocessor that takes every encoding on equal terms."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverModel

from maed.models.config import ClassifierConfig
from maed.models.fused import Summed, fuse, summed
from maed.models.perceivers import check_heads, classification_decoder, latent_logits, position_decoder
from maed.models.target import TargetModel, blanked, working_dtype


class Maed(TargetModel):
    """transformers' Perceiver as a model of signals, with a preprocessor that takes any position encoding.

    The table is kept bit for bit unless it is trained. Where the task asks something of each position, the latents are
    queried with the same position vectors that the inputs have, through one linear map: an encoding that says nothing
    of places then cannot tell them apart.
    """

    per_position = True
    of_task = ("perceiver.decoder.", "query.")

    def __init__(self, config: ClassifierConfig, table: Tensor, *, seed: int = 0) -> None:
        super().__init__(config, table)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.perceiver = fuse(_perceiver(config, table))
            # post_init() at the end of PerceiverModel's construction draws every Linear and Embedding below it anew,
            # ours too: what has a start of its own gets it only now.
            self.preprocessor.start()
            task = config.learned()
            self.query: nn.Linear | None = None
            self.own_content = task.own_content
            if task.per_position:
                channels = self.preprocessor.num_channels if task.own_content else config.dim
                self.query = nn.Linear(channels, config.perceiver.latent_width)
                nn.init.normal_(self.query.weight, std=channels**-0.5)
                nn.init.zeros_(self.query.bias)
                # what is told of a position starts at its mean
                nn.init.zeros_(self.perceiver.decoder.final_layer.weight)
                nn.init.zeros_(self.perceiver.decoder.final_layer.bias)

    @property
    def preprocessor(self) -> Preprocessor:
        """Content and position embeddings."""
        return self.perceiver.input_preprocessor

    @property
    def position_table(self) -> Tensor:
        """The vectors in use, `(N, d)`."""
        return self.preprocessor.positions.table.detach()

    @torch.no_grad()
    def calibrate(self, values: Tensor, mask: Tensor | None = None) -> None:
        """Set the gain of the positions to the root mean square of the content of a batch of signals."""
        content = self.preprocessor.content(values)
        if mask is not None:
            content = content[mask]
        rms = float(content.square().mean().sqrt())
        if rms > 0 and np.isfinite(rms):
            self.preprocessor.positions.scale_to(rms)

    def forward(self, values: Tensor, mask: Tensor | None = None, asked: Tensor | None = None) -> Tensor:
        """Outputs of the task: `(B, outputs)`, or `(B, N, outputs)`, or `(B, Q, outputs)` of positions `asked`."""
        inputs, query = self.preprocessor(blanked(values, mask)), None
        if self.query is not None:
            made_of = inputs[0] if self.own_content else self.preprocessor.positions()  # (B, N, .) or (N, d)
            made_of = made_of if asked is None else made_of[..., asked, :]
            query = self.query(made_of).expand(len(values), -1, -1)
        return latent_logits(self.perceiver, inputs, mask, working_dtype(self.preprocessor.content.weight), query)


class Preprocessor(nn.Module):
    """Content embedding and positions, added or concatenated: what the Perceiver's latents attend to.

    Follows the protocol of transformers' preprocessors (`num_channels`, and `forward` returning three things).

    Attributes:
        keeps_apart: Content and positions are given as `Summed` where that saves work: no batch of them is made.
    """

    keeps_apart = False

    def __init__(self, config: ClassifierConfig, table: Tensor) -> None:
        super().__init__()
        self.content: nn.Linear | nn.Embedding = (
            nn.Embedding(config.vocabulary, config.dim)
            if config.kind == "tokens"
            else nn.Linear(config.inputs, config.dim)
        )
        self.positions = PositionEncoding(table, trained=config.trains_table)
        self.concatenate = config.perceiver.combine == "concatenate"

    @property
    def num_channels(self) -> int:
        """Channels of what `forward` returns."""
        return (2 if self.concatenate else 1) * int(self.positions.table.shape[1])

    def start(self) -> None:
        """Initialize content and positions to unit root mean square.

        Of a real signal that holds for channels of unit variance; `Maed.calibrate` measures.
        """
        with torch.no_grad():
            weight = self.content.weight.normal_()
            fan_in = weight.shape[1] if isinstance(self.content, nn.Linear) else 1
            weight /= weight.square().mean().sqrt() * fan_in**0.5
            if isinstance(self.content, nn.Linear):
                self.content.bias.zero_()
        self.positions.start(1.0)

    def forward(
        self, values: Tensor, pos: Tensor | None = None, network_input_is_1d: bool = True, **unused: Any
    ) -> tuple[Tensor | Summed, None, Tensor | None]:
        """Values `(B, N, C)` or `(B, N)` to inputs `(B, N, d)` (`(B, N, 2d)` concatenated), and content if made."""
        # An embedding ignores autocast; its gradient is best summed in float32, so its output is cast, not its table.
        dtype, positions = working_dtype(self.content.weight), self.positions()  # (N, d)
        if self.keeps_apart:
            found = summed(values, self.content, positions, concatenate=self.concatenate, dtype=dtype)
            if found is not None:
                return found, None, None
        content = self.content(values).to(dtype)  # (B, N, d)
        positions = positions.to(dtype)
        if not self.concatenate:
            return content + positions, None, content
        return torch.cat([content, positions.expand_as(content)], dim=2), None, content


class PositionEncoding(nn.Module):
    """A table of position vectors, then the same linear map and learned gain for every encoding.

    The linear map starts orthogonal, so it keeps the table's root mean square, and the gain starts at that of the
    content: no encoding is louder than another at the start.

    Args:
        table: `(N, d)` of unit mean square (or zeros), from `maed.encodings.position_table`.
        trained: True if the table is a parameter; otherwise it is a buffer, saved but never changed.
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


def _perceiver(config: ClassifierConfig, table: Tensor) -> PerceiverModel:
    """Transformers' model with our preprocessor and its classification decoder."""
    settings = config.perceiver
    preprocessor = Preprocessor(config, table)
    check_heads(settings, preprocessor.num_channels)
    built = PerceiverConfig(
        num_latents=settings.latents,
        d_latents=settings.latent_width,
        d_model=preprocessor.num_channels,
        num_blocks=settings.blocks,
        num_self_attends_per_block=settings.layers,
        num_self_attention_heads=settings.heads,
        num_cross_attention_heads=settings.cross_heads,
        attention_probs_dropout_prob=settings.dropout,
        # 1/sqrt(fan-in): transformers' 0.02 suits its 1,280 channels, and stalls the training of narrow latents.
        initializer_range=settings.latent_width**-0.5,
        num_labels=config.outputs,
    )
    decoder = position_decoder(built) if config.learned().per_position else classification_decoder(built)
    return PerceiverModel(built, decoder=decoder, input_preprocessor=preprocessor)
