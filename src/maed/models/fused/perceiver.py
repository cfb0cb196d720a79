"""The parts of transformers' Perceiver, faster: its attention, its image preprocessor and its model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, embedding, layer_norm, linear, pad, scaled_dot_product_attention
from torch.utils.checkpoint import checkpoint
from transformers.models.perceiver import modeling_perceiver
from transformers.models.perceiver.modeling_perceiver import (
    PerceiverClassificationDecoder,
    PerceiverImagePreprocessor,
    PerceiverLayer,
    PerceiverModel,
    PerceiverSelfAttention,
    PerceiverTextPreprocessor,
)

from maed.models.fused.pooling import by_length, highest_zero, keeping, pool, pool_sums, unpadded

Model = TypeVar("Model", bound=nn.Module)

_SCORES_BYTES = 2**28
"""Scores of no more bytes are stored where that is quicker than attention that never stores them."""

_LARGE = 2**20
"""Numbers from which on latents are large: fewer cost nothing to keep."""

_again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False, determinism_check="none")

_NORMS = (nn.LayerNorm, nn.Identity)
"""Normalizations of the inputs of cross-attention and self-attention."""

_TAKES_READY_MASKS = hasattr(modeling_perceiver, "create_bidirectional_mask")
"""True if transformers' model leaves a mask of four dimensions as it is; earlier versions take none, and need none."""


def fuse(model: Model) -> Model:
    """Make the Perceivers in a model faster and leaner, in place; their outputs and gradients stay, to rounding.

    The parts of transformers' Perceiver get subclasses of their classes: weights, their names, and everything else that
    a model can do are untouched. What the subclasses have no faster way for (`output_attentions`; projections with
    hooks or of a class other than `nn.Linear`, such as LoRA's) goes the old way. Doing it twice is doing it once.

    Other than in transformers, which averages it, a signal that is masked altogether is attended to as if nothing were
    masked: its mask tells no position from another.

    Args:
        model: Anything with parts of transformers' Perceiver in it.

    Returns:
        The same model.
    """
    for module in model.modules():
        module.__class__ = _FUSED.get(type(module), type(module))
    for module in model.modules():
        if isinstance(module, FusedModel) and hasattr(module.input_preprocessor, "keeps_apart"):
            # where everything that the model does with its inputs is known to take them in parts
            fused = isinstance(module.encoder.cross_attention.attention.self, FusedAttention)
            known = fused and type(module.decoder) is PerceiverClassificationDecoder
            module.input_preprocessor.keeps_apart = known
    return model


@dataclass(frozen=True)
class Joined:
    """Inputs whose content differs from signal to signal, and whose positions do not, before they are joined.

    Args:
        content: `(B, N, C)`.
        positions: `(1, N, P)`.
    """

    content: Tensor
    positions: Tensor

    @property
    def shape(self) -> torch.Size:
        """`(B, N, C + P)`, of the joined inputs."""
        batch, n, channels = self.content.shape
        return torch.Size([batch, n, channels + self.positions.shape[2]])

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.content.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the joined inputs."""
        return torch.promote_types(self.content.dtype, self.positions.dtype)

    def size(self) -> torch.Size:
        """`shape`, as tensors have it."""
        return self.shape

    def join(self) -> Tensor:
        """Content and positions, `(B, N, C + P)`."""
        return torch.cat([self.content, self.positions.expand(len(self.content), -1, -1)], dim=2)


@dataclass(frozen=True)
class Summed:
    """Inputs that are the sum of something made of a signal and something made of positions, before they are made.

    Args:
        content: `(B, N)` tokens, or `(B, N, C)` values.
        source: `(V, d)`, the channels of each token; or `(C, d)`, those of a unit of each value.
        positions: `(N, d)`.
        dtype: Of the inputs.
    """

    content: Tensor
    source: Tensor
    positions: Tensor
    dtype: torch.dtype

    @property
    def shape(self) -> torch.Size:
        """`(B, N, d)`, of the sums."""
        return torch.Size([*self.content.shape[:2], self.source.shape[1]])

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self.source.device

    @property
    def few_sources(self) -> bool:
        """True if what `pool_sums` makes beforehand is little beside the inputs."""
        (batch, _, d), sources = self.shape, len(self.source)
        return 4 * sources <= (d if self.content.is_floating_point() else batch * d)

    def size(self) -> torch.Size:
        """`shape`, as tensors have it."""
        return self.shape

    def join(self) -> Tensor:
        """The sums, `(B, N, d)`."""
        values = self.content.is_floating_point()
        content = self.content @ self.source if values else embedding(self.content, self.source)
        return content.to(self.dtype) + self.positions.to(self.dtype)


def summed(
    content: Tensor,
    layer: nn.Embedding | nn.Linear | nn.Conv2d | None,
    positions: Tensor,
    *,
    concatenate: bool,
    dtype: torch.dtype | None = None,
) -> Summed | None:
    """The inputs that a layer and positions make, before they are made; None if that saves nothing or cannot be done.

    Args:
        content: `(B, N)` tokens, or `(B, N, C)` values.
        layer: What the content goes through; None for values as they are.
        positions: `(N, P)`.
        concatenate: True to concatenate positions to content, False to add them.
        dtype: Of the inputs; by default that of the weights.
    """
    if content.device.type != "cpu" or len(positions) != content.shape[1] or not (layer is None or _affine(layer)):
        return None
    bias = getattr(layer, "bias", None)
    if layer is None:
        source = torch.eye(content.shape[2], dtype=content.dtype)
    else:
        source = layer.weight if isinstance(layer, nn.Embedding) else layer.weight.flatten(1).T
    if concatenate:
        head = source.new_zeros(source.shape[1]) if bias is None else bias
        positions = torch.cat([head.expand(len(positions), -1), positions], dim=1)
        source = pad(source, (0, positions.shape[1] - source.shape[1]))
    elif bias is not None:
        positions = positions + bias
    dtype = dtype or torch.promote_types(source.dtype, positions.dtype)
    found = Summed(content if content.is_floating_point() else content.long(), source, positions, dtype)
    return found if found.few_sources else None


def _affine(layer: nn.Module) -> bool:
    """True if a layer is a linear one, a convolution of single pixels or a table, and does nothing else."""
    if _hooked(layer):
        return False
    if type(layer) is nn.Conv2d:
        return layer.kernel_size == layer.stride == (1, 1) and layer.padding == (0, 0) and layer.groups == 1
    if type(layer) is nn.Embedding:
        return (
            layer.padding_idx is None and layer.max_norm is None and not layer.scale_grad_by_freq and not layer.sparse
        )
    return type(layer) is nn.Linear


def pooling_pays(*, positions: int, latents: int, heads: int, channels: int, qk: int, v: int) -> bool:
    """True if latents attend to inputs in fewer multiplications when no key or value is computed.

    Projected, every position costs its key and value, and two products with each latent. Pooled, latents are compared
    with the inputs themselves, head by head, and it is the latents that are projected, before and after.

    Args:
        positions: Inputs N of a signal.
        latents: Queries L.
        heads: Number of attention heads.
        channels: Channels of an input.
        qk: Channels of all heads' queries.
        v: Channels of all heads' values.
    """
    projected = positions * (channels + latents) * (qk + v)
    pooled = 2 * positions * heads * latents * channels + latents * channels * (qk + v)
    return pooled < projected


class FusedAttention(PerceiverSelfAttention):
    """Self- or cross-attention in fewer products and passes over memory."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        inputs: Tensor | Joined | Summed | None = None,
        inputs_mask: Tensor | None = None,
        output_attentions: bool | None = False,
    ) -> tuple[Tensor, ...]:
        """Context of the queries `(B, L, width)`: `(B, L, v_channels)`; arguments are those of transformers."""
        if output_attentions or (inputs is None and attention_mask is not None) or not self._plain():
            inputs = inputs if inputs is None else _whole(inputs)
            added = None if inputs_mask is None else _additive(inputs_mask)
            return super().forward(hidden_states, attention_mask, inputs, added, output_attentions)
        share = self.dropout.p if self.training else 0.0
        if inputs is None:
            q, k, v = _lean(self._of_latents, hidden_states, self.layernorm1)
            return (self._attend(q, k, v, None, share),)
        # Queries that are the same for every signal come expanded: one of them is enough.
        shared = hidden_states.shape[0] > 1 and hidden_states.stride(0) == 0
        latents = self.layernorm1(hidden_states[:1] if shared else hidden_states)
        # A mask of one entry adds a constant, which the softmax ignores.
        mask = None if inputs_mask is None or inputs_mask.shape[-1] == 1 else inputs_mask
        if self._pools(latents, inputs, mask, share):
            added = None if mask is None else _added(mask, inputs)
            return (self._pooled(latents, inputs, added, share),)
        query = self.query(latents).expand(inputs.shape[0], -1, -1)
        return (self._cross(query, _whole(inputs), mask, share),)

    def _plain(self) -> bool:
        """True if projections do nothing but what their weights say, so that they need not be called."""
        return _plain(self.query, self.key, self.value, self.layernorm2)

    def _of_latents(self, hidden_states: Tensor) -> tuple[Tensor, ...]:
        """Queries, keys and values of self-attention."""
        return self._projected(self.layernorm1(hidden_states), self.query, self.key, self.value)

    # Inputs that are many: attended to as they are.

    def _pools(self, latents: Tensor, inputs: Tensor | Joined | Summed, mask: Tensor | None, share: float) -> bool:
        """True if the inputs are better attended to as they are, and can be."""
        if share and inputs.device.type != "cpu":  # the sums of the probabilities would be missing
            return False
        if mask is not None and not _of_positions(mask):
            return False
        return pooling_pays(
            positions=inputs.shape[1],
            latents=latents.shape[1],
            heads=self.num_heads,
            channels=inputs.shape[2],
            qk=self.qk_channels,
            v=self.v_channels,
        )

    def _pooled(self, latents: Tensor, inputs: Tensor | Joined | Summed, mask: Tensor | None, share: float) -> Tensor:
        """Context `(B, L, v)` of inputs `(B, N, d)` whose keys and values are never made.

        With x the normalized inputs and g, b the weights of their layer norm, keys are Wk (g x + b) + bk. So scores are
        (q Wk g) x and what is the same for every position, which a softmax ignores; and the context is
        Wv g (softmax x) + (Wv b + bv) (sum of softmax).
        """
        heads, batch, length = self.num_heads, inputs.shape[0], latents.shape[1]
        norm = self.layernorm2
        query = (
            self.query(latents).unflatten(2, (heads, -1)) * self.qk_channels_per_head**-0.5
        )  # (B or 1, L, H, qk / H)
        key = (self.key.weight * norm.weight).unflatten(0, (heads, -1))  # (H, qk / H, d)
        query = torch.einsum("blhc,hcd->bhld", query, key.to(query.dtype)).flatten(1, 2)  # (B or 1, H L, d)
        options: Any = {"dropout": share, "eps": norm.eps}
        if inputs.device.type != "cpu":
            inputs = _whole(inputs)
            x = layer_norm(inputs, inputs.shape[2:], eps=norm.eps).to(query.dtype)[:, None]  # (B, 1, N, d)
            query, seen = query.expand(batch, -1, -1)[:, None], None if mask is None else _seen(mask, query.dtype)
            seen = None if seen is None else seen[:, None, None]
            context, mass = scaled_dot_product_attention(query, x, x, seen, scale=1.0)[:, 0], None
        elif isinstance(inputs, Summed):
            context, mass = pool_sums(query, inputs.content, inputs.source, inputs.positions, mask, **options)
        elif isinstance(inputs, Joined):
            context, mass = pool(query, inputs.content, mask, positions=inputs.positions[0], **options)
        else:
            context, mass = pool(query, inputs, mask, **options)
        value = (self.value.weight * norm.weight).unflatten(0, (heads, -1))  # (H, v / H, d)
        context = context.unflatten(1, (heads, length))  # (B, H, L, d)
        context = torch.einsum("bhld,hvd->blhv", context, value.to(context.dtype))
        bias = linear(norm.bias, self.value.weight, self.value.bias).unflatten(0, (heads, -1))  # (H, v / H)
        # The keys' bias has no effect, so its gradient is 0: not None, which optimizers and DDP take for a fault.
        bias = bias + 0 * self.key.bias.sum()
        if mass is not None:
            bias = mass.unflatten(1, (heads, length)).transpose(1, 2)[..., None] * bias  # (B, L, H, v / H)
        return (context + bias).flatten(2)

    # Keys and values.

    def _cross(self, query: Tensor, inputs: Tensor, mask: Tensor | None, share: float) -> Tensor:
        """Context `(B, L, v)` of inputs whose keys and values are made; on a CPU not those of padding."""

        def attended(query: Tensor, inputs: Tensor, mask: Tensor | None) -> Tensor:
            key, value = self._projected(self.layernorm2(inputs), self.key, self.value)
            return self._attend(query, key, value, mask, share)

        looks = inputs.device.type == "cpu" and not torch.compiler.is_compiling()  # elsewhere looking means waiting
        if mask is None or not looks or not _of_positions(mask):
            return attended(query, inputs, mask)
        added = _added(mask, inputs)
        if unpadded(added):
            return attended(query, inputs, None)
        groups = list(by_length(added, self.num_heads * query.shape[1] * query.element_size()))
        order = torch.cat([rows for rows, _ in groups])
        sizes = [len(rows) for rows, _ in groups]
        parts = zip(query[order].split(sizes), inputs[order].split(sizes), groups, strict=True)
        contexts = [attended(q, x[:, :n], added[rows, :n][:, None, None]) for q, x, (rows, n) in parts]
        return torch.cat(contexts)[order.argsort()]

    def _projected(self, x: Tensor, *layers: nn.Linear) -> tuple[Tensor, ...]:
        """Several linear layers of one input, as one product."""
        weight, bias = torch.cat([layer.weight for layer in layers]), torch.cat([layer.bias for layer in layers])
        return linear(x, weight, bias).split([layer.out_features for layer in layers], dim=-1)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, share: float) -> Tensor:
        """Attention of all heads, `(B, L, v)`; the mask is bool, True where seen, or added to the scores."""
        q, k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (q, k, v))  # (B, H, ., c)
        seen = None if mask is None else _seen(mask, q.dtype)
        if _quicker_with_scores(q, k, share):
            scores = (q * self.qk_channels_per_head**-0.5) @ k.transpose(2, 3)  # (B, H, L, N)
            p = (scores if seen is None else scores + seen).softmax(dim=3)
            if share and torch.compiler.is_compiling():  # which makes a kernel of its own for this
                p = dropout(p, share)
            elif share:
                p = p * keeping(tuple(p.shape), share, p.dtype)
            context = p @ v
        else:
            context = scaled_dot_product_attention(q, k, v, seen, dropout_p=share)
        return context.transpose(1, 2).flatten(2)


class FusedLayer(PerceiverLayer):
    """A layer that keeps no normalized or activated latents for its backward pass, where they are large on a CPU."""

    def feed_forward_chunk(self, attention_output: Tensor) -> Tensor:
        """What the layer adds to the latents `(B, L, width)`."""
        if not _plain(self.mlp.dense1, self.mlp.dense2, self.layernorm):
            return super().feed_forward_chunk(attention_output)
        hidden = _lean(lambda latents: self.mlp.dense1(self.layernorm(latents)), attention_output, self.layernorm)
        activate = self.mlp.intermediate_act_fn
        return _lean(lambda hidden: self.mlp.dense2(activate(hidden)), hidden, activate)


class FusedTextPreprocessor(PerceiverTextPreprocessor):
    """It gives tokens and positions as `Summed`, so that no batch of their sums is made.

    Attributes:
        keeps_apart: True if the model takes them so; `fuse` sets it.
    """

    keeps_apart = False

    def forward(self, inputs: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor | Summed, None, Tensor | None]:
        """Inputs, nothing, and the content alone, unless it is not made; arguments are those of transformers."""
        if self.keeps_apart and inputs.ndim == 2 and _affine(self.position_embeddings):
            positions = self.position_embeddings.weight[: inputs.shape[1]]
            if found := summed(inputs, self.embeddings, positions, concatenate=False):
                return found, None, None
        return super().forward(inputs, *args, **kwargs)


class FusedImagePreprocessor(PerceiverImagePreprocessor):
    """Positions are projected once, not once for each image of the batch, and images are kept channels last.

    Attributes:
        keeps_apart: Pixels and positions are given as `Summed`, or `Joined` where other things are made of pixels, so
            that no batch of positions is ever made.
    """

    keeps_apart = False

    def forward(
        self,
        inputs: Tensor,
        pos: Tensor | None = None,
        network_input_is_1d: bool = True,
        interpolate_pos_encoding: bool = False,
    ) -> tuple[Tensor | Joined | Summed, None, Tensor | None]:
        """Inputs, nothing, and the content alone, unless it is not made; arguments are those of transformers."""
        pixels = self.prep_type == "conv1x1" or (self.prep_type == "pixels" and self.spatial_downsample == 1)
        if self.keeps_apart and pixels and inputs.ndim == 4 and network_input_is_1d and inputs.device.type == "cpu":
            layer = self.convnet_1x1 if self.prep_type == "conv1x1" else None
            positions = self._positions(inputs.shape[2:], inputs, interpolate_pos_encoding)[0]
            values = inputs.flatten(2).transpose(1, 2)  # (B, N, C)
            if found := summed(values, layer, positions, concatenate=self.concat_or_add_pos == "concat"):
                return found, None, None
        if self.prep_type == "conv1x1":  # whose result is then channels last too, and flattened without a copy
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        return super().forward(inputs, pos, network_input_is_1d, interpolate_pos_encoding)

    def _positions(self, sides: torch.Size, inputs: Tensor, interpolate: bool) -> Tensor:
        """What is joined to every image of such sides, `(1, N, P)`."""
        if self.position_encoding_type == "trainable":
            positions = self.position_embeddings(1, interpolate, sides[:2])
        else:
            positions = self.position_embeddings(sides, 1, device=inputs.device, dtype=inputs.dtype)
        projected: Tensor = self.positions_projection(positions)
        return projected

    def _build_network_inputs(
        self, inputs: Tensor, network_input_is_1d: bool = True, interpolate_pos_encoding: bool = False
    ) -> tuple[Tensor | Joined, Tensor]:
        """Content `(B, ..., C)` joined with positions, `(B, N, width)`, and content `(B, N, C)`."""
        if not network_input_is_1d:
            return super()._build_network_inputs(inputs, network_input_is_1d, interpolate_pos_encoding)
        positions = self._positions(inputs.shape[1:-1], inputs, interpolate_pos_encoding)
        content = inputs.flatten(1, -2)  # (B, N, C)
        if self.concat_or_add_pos == "add":
            return content + positions, content
        if self.keeps_apart:
            return Joined(content, positions), content
        joined = Joined(content, positions).join()
        return joined, joined[:, :, : content.shape[2]]  # a part of it, so that the content is not kept twice


class FusedModel(PerceiverModel):
    """Its mask has an entry for each position, not for each latent and position."""

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None, *args: Any, **kwargs: Any) -> Any:
        """Compute what transformers' model returns, from the same arguments."""
        if _TAKES_READY_MASKS and attention_mask is None:
            attention_mask = torch.zeros(1, 1, 1, 1, dtype=self.dtype, device=self.device)  # masks nothing
        elif _TAKES_READY_MASKS and attention_mask is not None and attention_mask.ndim == 2:
            attention_mask = _additive(attention_mask.bool()[:, None, None], self.dtype)  # (B, 1, 1, N)
        return super().forward(inputs, attention_mask, *args, **kwargs)


FusedModel.__name__ = PerceiverModel.__name__  # which save_pretrained writes down as the architecture

_FUSED: dict[type[nn.Module], type[nn.Module]] = {
    PerceiverSelfAttention: FusedAttention,
    PerceiverLayer: FusedLayer,
    PerceiverImagePreprocessor: FusedImagePreprocessor,
    PerceiverTextPreprocessor: FusedTextPreprocessor,
    PerceiverModel: FusedModel,
}


def _plain(*parts: nn.Module) -> bool:
    """True if linear layers and normalizations do nothing but what their weights say."""
    return all(type(part) in (nn.Linear, *_NORMS) for part in parts) and not any(map(_hooked, parts))


def _hooked(part: Any) -> bool:
    """True if something is called with a module, if it is one."""
    names = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
    return any(getattr(part, name, None) for name in names)


def _lean(function: Callable[[Tensor], Any], x: Tensor, first: Any) -> Any:
    """`function(x)`, of which the backward pass is given x alone where that is large, on a CPU.

    Then it makes again what it needs up to the last linear layer, whose product it does not need: what `first` makes, a
    normalization or an activation. On a GPU that would take a larger share of the step. Where `first` has hooks, all is
    kept: they are called once.
    """
    small = x.device.type != "cpu" or x.numel() < _LARGE or _hooked(first)
    if small or not torch.is_grad_enabled() or torch.compiler.is_compiling():  # which decides this by itself
        return function(x)
    return _again(function, x)


def _whole(inputs: Tensor | Joined | Summed) -> Tensor:
    """Inputs `(B, N, d)` in one tensor."""
    return inputs if isinstance(inputs, Tensor) else inputs.join()


def _additive(mask: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """A mask as it is added to scores; bool is True where a position is seen."""
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)


def _of_positions(mask: Tensor) -> bool:
    """True if a mask is a constant of each position, the same for every head and query."""
    return mask.shape[1:3] == (1, 1) and not mask.requires_grad


def _added(mask: Tensor, inputs: Tensor | Joined | Summed) -> Tensor:
    """A mask `(B or 1, 1, 1, N)` as it is added to the scores of every signal's positions, `(B, N)`."""
    return _additive(mask)[:, 0, 0].expand(inputs.shape[:2])


def _seen(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask as fused attention to values of a type takes it: finite, and 0 at its highest."""
    return highest_zero(_additive(mask), dtype)


def _quicker_with_scores(q: Tensor, k: Tensor, share: float) -> bool:
    """True if attention that stores its scores is quicker: on CPUs with dropout, and up to a size in 16 bits."""
    if q.device.type != "cpu":
        return False
    scores_bytes = q[..., 0].numel() * k.shape[2] * q.element_size()
    return share > 0 or (q.element_size() == 2 and scores_bytes <= _SCORES_BYTES)
