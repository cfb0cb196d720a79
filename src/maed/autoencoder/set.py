"""The set-style masked autoencoder: reads the visible positions as an unordered set."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maed.settings import Readout

_CACHE = 1 << 20
"""Bytes of the tokens that are reconstructed at a time, about a second-level cache: the arrays of a layer are few."""


class SelfAttention(nn.Module):
    """A pre-norm transformer layer over the visible tokens, `(B, V, width)` to the same."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward = FeedForward(width)
        _start_at_zero(self.out)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Attend among the tokens of each signal; `mask` `(B, 1, 1, V)` is False at filler."""
        b, v, width = x.shape
        q, k, values = self.qkv(self.norm(x)).view(b, v, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (B, heads, V, .)
        attended = _attend(q, k, values, mask)
        x = x + self.out(attended.transpose(1, 2).reshape(b, v, width))
        return x + self.feed_forward(x)


class FeedForward(nn.Module):
    """Normalize, widen twofold, ReLU, narrow: the part of a layer that acts on each token alone.

    ReLU and a factor of 2, not GELU and 4: this is most of the decoder's arithmetic, and the cheaper layer sees more
    signals in the same time.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)
        _start_at_zero(self.narrow)

    def forward(self, x: Tensor) -> Tensor:
        """The update that a residual connection adds to `x`."""
        return self.narrow(F.relu(self.widen(self.norm(x))))


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention, on a CPU in float32 always: the backward pass of its bf16 kernel takes several times as long."""
    if query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    with torch.autocast("cpu", enabled=False):
        return F.scaled_dot_product_attention(query.float(), key.float(), value.float(), attn_mask=mask)


def _start_at_zero(last: nn.Linear) -> None:
    """Let a residual branch add nothing at first (Bachlechner et al. 2020, "ReZero", to the same end).

    Queries then meet the plain tokens, value plus position, and positions are found sooner.
    """
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)


class SetAutoencoder(nn.Module):
    """Reads the visible positions as an unordered set and reconstructs any others.

    A visible token is the embedding of its value plus the trainable vector of its position. The tokens attend to one
    another; a query made from the position vector of each position to reconstruct attends to them. Encoder and decoder
    share one table of position vectors, started at random: permuting the positions of all signals permutes its rows
    and changes nothing else.

    A step costs O(B (V^2 + V S)) for V visible and S scored positions, and nothing of it grows with N but the table.

    Args:
        n: Positions N.
        channels: C of real signals; 0 for tokens.
        vocabulary: Token ids; 0 for real signals.
        width: Channels of a token; a multiple of `heads`.
        layers: Self-attention layers over the visible tokens.
        heads: Attention heads.
        outputs: Numbers put out for a position; C or the vocabulary by default.
        readout: How a query uses what it has read: `feed-forward`, a layer that acts on it; `linear`, none, at a
            third of the decoder's arithmetic.
    """

    def __init__(
        self,
        n: int,
        *,
        channels: int,
        vocabulary: int,
        width: int,
        layers: int,
        heads: int,
        outputs: int | None = None,
        readout: Readout = "feed-forward",
    ) -> None:
        super().__init__()
        self.heads = heads
        self.position_vectors = nn.Parameter(torch.randn(n, width))
        # Not a linear map of the channels: even functions of a value, such as its magnitude, are then there from the
        # start, without which magnitudes that depend on one another are not found.
        self.embed: nn.Module = (
            nn.Embedding(vocabulary, width)
            if vocabulary
            else nn.Sequential(nn.Linear(channels, width), nn.ReLU(), nn.Linear(width, width))
        )
        self.encoder = nn.ModuleList(SelfAttention(width, heads) for _ in range(layers))
        self.query = nn.Linear(width, width)
        self.query_norm = nn.LayerNorm(width)
        self.to_query = nn.Linear(width, width)
        self.memory_norm = nn.LayerNorm(width)
        self.to_key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.feed_forward = FeedForward(width) if readout == "feed-forward" else None
        self.head_norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, outputs or vocabulary or channels)
        self._start_alike()

    @torch.no_grad()
    def _start_alike(self) -> None:
        """Start queries and keys as the position vectors themselves, so that alike vectors attend to one another.

        A position that helps another then pulls its vector closer from the first step on, and a warm start attends to
        neighbors at once. Embedded tokens start quieter than positions, so as not to drown their likeness.
        """
        if isinstance(self.embed, nn.Embedding):
            nn.init.normal_(self.embed.weight, std=0.3)
        width = self.query.weight.shape[0]
        for weight in (self.query.weight, self.to_query.weight, self.to_key_value.weight[:width]):
            nn.init.eye_(weight)
        for bias in (self.query.bias, self.to_query.bias, self.to_key_value.bias[:width]):
            nn.init.zeros_(bias)

    def predict(self, values: Tensor, visible: Tensor, scored: Tensor, visible_mask: Tensor | None = None) -> Tensor:
        """Reconstruct positions from others.

        Args:
            values: `(B, V, C)` float32 or `(B, V)` token ids at the visible positions.
            visible: `(B, V)` positions.
            scored: `(S,)` positions to reconstruct.
            visible_mask: `(B, V)` bool, False at filler; each row holds at least one True.

        Returns:
            `(B, S, outputs)`: reconstructed channels, or logits, or what the loss makes of them.
        """
        mask = None if visible_mask is None else visible_mask[:, None, None, :]
        return self.decode(self.encode(values, visible, mask), scored, mask)

    forward = predict

    def encode(self, values: Tensor, visible: Tensor, mask: Tensor | None) -> Tensor:
        """The visible tokens after self-attention, `(B, V, width)`."""
        tokens = self.embed(values) + self.position_vectors[visible]
        for layer in self.encoder:
            tokens = layer(tokens, mask)
        return tokens

    def decode(self, tokens: Tensor, scored: Tensor, mask: Tensor | None) -> Tensor:
        """Reconstruct positions `scored` by attention to the tokens, `(B, S, outputs)`.

        Without gradients a CPU takes some queries of some signals at a time, so that what is between its products
        stays in the cache: less than half of the time at 1,024 positions.
        """
        b, v, width = tokens.shape
        s = len(scored)
        key, value = self.to_key_value(self.memory_norm(tokens)).view(b, v, 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        # A query depends on the position alone: it is made once for the whole batch.
        start = self.query(self.position_vectors[scored])  # (S, width)
        query = self.to_query(self.query_norm(start)).view(s, self.heads, -1).transpose(0, 1)  # (heads, S, .)
        rows = max(256, _CACHE // (4 * width))
        if torch.is_grad_enabled() or tokens.device.type != "cpu" or b * s <= rows:
            return self._answer(start, query, key, value, mask)
        asked, signals = [slice(i, i + rows) for i in range(0, s, rows)], max(1, rows // s)
        answers = []
        for of in (slice(i, i + signals) for i in range(0, b, signals)):
            k, values, seen = key[of], value[of], None if mask is None else mask[of]
            answers.append(torch.cat([self._answer(start[at], query[:, at], k, values, seen) for at in asked], dim=1))
        return torch.cat(answers)

    def _answer(self, start: Tensor, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """What queries `(heads, S, .)` that start as `(S, width)` find in keys and values `(B, heads, V, .)`."""
        b, (s, width) = len(key), start.shape
        attended = _attend(query.expand(b, -1, -1, -1), key, value, mask)
        x = start + self.out(attended.transpose(1, 2).reshape(b, s, width))
        if self.feed_forward is not None:
            x = x + self.feed_forward(x)
        return self.head(self.head_norm(x))
