"""Attention of a few queries to many normalized inputs on a CPU: in pieces that fit the cache, without the padding."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_PIECE = 2**21
"""Bytes of scores that are worked on at a time: larger pieces leave the cache, smaller ones leave cores idle."""

_KEPT_BYTES = 2**28
"""Probabilities of no more bytes are kept for the backward pass; larger ones are made again."""

_NEGLIGIBLE = 1e4
"""A position whose mask is so far below the highest has a probability of exactly 0, for exp(-1e4) is."""


def pool(
    query: Tensor,
    inputs: Tensor,
    mask: Tensor | None = None,
    *,
    positions: Tensor | None = None,
    dropout: float = 0.0,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor | None]:
    """Attention of queries to inputs: `dropout(softmax(query @ x.T + mask)) @ x`, where x is the normalized inputs.

    Neither x nor, where they are large, the probabilities are kept for the backward pass, and positions that all
    signals share are joined to a few signals at a time. So memory grows with B N as the inputs do, time with B N M d.

    Args:
        query: `(B, M, d)`, or `(1, M, d)` for queries that all signals share, scaled; products are of its type.
        inputs: `(B, N, c)`, each position of which is normalized as by a layer norm without weights, after it was
            joined with `positions`.
        mask: `(B, N)`, added to the scores; a constant, which gets no gradient.
        positions: `(N, d - c)`, the other channels of every signal; without them c is d.
        dropout: Share of the probabilities that is dropped; the rest is scaled up.
        eps: The epsilon of the layer norm.

    Returns:
        The context, `(B, M, d)`, and the sums of the probabilities, `(B, M)`, or None without dropout: they are 1.
    """
    return _pooled(query, inputs, mask, dropout, eps, positions=positions)


def pool_sums(
    query: Tensor,
    content: Tensor,
    source: Tensor,
    positions: Tensor,
    mask: Tensor | None = None,
    *,
    dropout: float = 0.0,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor | None]:
    """As `pool`, of inputs that are sums of content and positions, and are made a few signals at a time, in the cache.

    What a layer norm divides by is known before its inputs are made: the mean square of the sum of two centered vectors
    follows from theirs and their product. For tokens that takes V N d multiplications and room for V N numbers, for
    values B N C (C + d / B) multiplications.

    Args:
        query: `(B, M, d)`, or `(1, M, d)` for queries that all signals share, scaled; products are of its type.
        content: `(B, N)`, a token from 0 to V - 1 for each position; or its values, `(B, N, C)`.
        source: `(V, d)`, the channels of each token; or `(C, d)`, those of a unit of each value.
        positions: `(N, d)`, added to the channels of the content of every signal.
        mask: `(B, N)`, added to the scores; a constant, which gets no gradient.
        dropout: Share of the probabilities that is dropped; the rest is scaled up.
        eps: The epsilon of the layer norm.

    Returns:
        What `pool` returns.
    """
    with torch.autocast(content.device.type, enabled=False):
        source, positions = (_centered(part.to(_wide(part.dtype))) for part in (source, positions))
        scale = _scales(content, source, positions, eps)
    return _pooled(query, content, mask, dropout, eps, positions=positions, source=source, scale=scale)


def _centered(rows: Tensor) -> Tensor:
    return rows - rows.mean(dim=1, keepdim=True)


def _scales(content: Tensor, source: Tensor, positions: Tensor, eps: float) -> Tensor:
    """1 / standard deviation of the channels of `content + positions`, both centered: `(B, N)`."""
    across, own = positions @ source.T, positions.square().sum(dim=1)  # (N, V or C), (N,)
    if content.is_floating_point():
        content = content.to(source.dtype)
        squares = ((content @ (source @ source.T) + 2 * across) * content).sum(dim=2) + own
    else:
        squares = 2 * across + source.square().sum(dim=1) + own[:, None]  # (N, V)
    scales = (squares.clamp(min=0) / source.shape[1] + eps).rsqrt()
    return scales if content.is_floating_point() else scales.gather(1, content.T).T


def _pooled(
    query: Tensor,
    inputs: Tensor,
    mask: Tensor | None,
    dropout: float,
    eps: float,
    *,
    positions: Tensor | None,
    source: Tensor | None = None,
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Apply the operator, which keeps probabilities where a backward pass will want them and they are not too many."""
    noise = torch.randint(2**62, (), device="cpu") if dropout else None
    few = query.shape[1] * inputs.shape[0] * inputs.shape[1] * query.element_size() <= _KEPT_BYTES
    parts = (query, inputs, source, positions)
    keep = few and torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in parts)
    context, mass, _ = _pool(query, inputs, source, scale, positions, mask, noise, dropout, eps, keep)
    return context, mass if dropout else None


def real_lengths(mask: Tensor) -> Tensor:
    """One more than the last position of each signal that has any probability: what follows is padding.

    Args:
        mask: `(B, N)`, what is added to the scores.

    Returns:
        `(B,)`; N for a signal that is masked altogether.
    """
    real = mask >= mask.amax(dim=1, keepdim=True) - _NEGLIGIBLE  # (B, N)
    return mask.shape[1] - real.flip(1).byte().argmax(dim=1)


def highest_zero(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask `(..., N)` less its highest entry, which changes no probability, finite and of `dtype`.

    Where everything is masked, the scores would be lost in the size of the mask, for the backward pass for good.
    """
    finite = mask.to(dtype).clamp(min=torch.finfo(dtype).min)
    return finite - finite.amax(dim=-1, keepdim=True)


def unpadded(mask: Tensor) -> bool:
    """True if a mask `(B, N)` leaves out nothing."""
    return bool((mask == mask[:, :1]).all())


def by_length(mask: Tensor, width: int) -> Iterator[tuple[Tensor, int]]:
    """Signals of about the same length, to be worked on together without what is padding in all of them.

    Args:
        mask: `(B, N)`, what is added to the scores.
        width: Bytes of the scores of a position, which decide how many signals are worked on together.

    Yields:
        Numbers of signals `(g,)`, and the length of the longest of them.
    """
    lengths = real_lengths(mask)
    order = lengths.argsort(descending=True, stable=True)
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        step = _together(longest, width)
        yield order[start : start + step], longest
        start += step


def keeping(
    shape: tuple[int, ...], dropout: float, dtype: torch.dtype, generator: torch.Generator | None = None
) -> Tensor:
    """The factors of a dropout: 0 for a share of `dropout` (to 16 bits), otherwise 1 / (1 - dropout).

    Four are made of a random number of 64 bits, so this takes a fraction of what torch's dropout takes on a CPU.
    """
    count = int(torch.Size(shape).numel())
    bits = torch.empty(count // 4 + 1, dtype=torch.int64, device="cpu").random_(-(2**63), None, generator=generator)
    first_kept = round(dropout * 2**16) - 2**15
    kept = bits.view(torch.int16)[:count].float().sub_(first_kept - 1).clamp_(0, 1)
    return kept.mul_(1 / (1 - dropout) if dropout < 1 else 0).to(dtype).view(shape)


@torch.library.custom_op("maed::pool", mutates_args=())
def _pool(
    query: Tensor,
    inputs: Tensor,
    source: Tensor | None,
    scale: Tensor | None,
    positions: Tensor | None,
    mask: Tensor | None,
    noise: Tensor | None,
    dropout: float,
    eps: float,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Context `(B, M, d)`, sums of probabilities `(B, M)`, probabilities `(B, N, M)`; what is not needed is empty."""
    (batch, n), (_, m, d) = inputs.shape[:2], query.shape
    context = query.new_empty(batch, m, d)
    mass = query.new_empty(batch if noise is not None else 0, m)
    kept = query.new_empty(batch if keep else 0, n, m)
    mask, generator = _needed(mask, query.dtype), _generator(noise)
    made = _made(inputs, source, scale, positions, eps, query.dtype)
    for rows, length in _pieces(batch, n, max(m, d) * query.element_size(), mask):
        x = made.piece(rows, length)
        p = _probabilities(query, x, mask, rows)  # (g, n, M)
        if keep:
            kept[rows, :length] = p
        if noise is not None:
            p = p * keeping(p.shape, dropout, p.dtype, generator)
            mass[rows] = p.sum(dim=1)
        context[rows] = torch.bmm(p.transpose(1, 2), x)
    return context, mass, kept


@torch.library.custom_op("maed::pool_backward", mutates_args=())
def _pool_backward(
    grad: Tensor,
    grad_mass: Tensor | None,
    query: Tensor,
    inputs: Tensor,
    source: Tensor | None,
    scale: Tensor | None,
    positions: Tensor | None,
    mask: Tensor | None,
    noise: Tensor | None,
    context: Tensor,
    mass: Tensor,
    kept: Tensor,
    dropout: float,
    eps: float,
    needed: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, inputs (where `needed`), source, scale and positions; empty where there are none."""
    (batch, n), (_, m, d) = inputs.shape[:2], query.shape
    grad_query = torch.zeros_like(query, dtype=_wide(query.dtype), memory_format=torch.contiguous_format)
    mean = (grad * context).sum(dim=2)  # (B, M), of the gradient of the probabilities
    if grad_mass is not None:
        mean = mean + grad_mass * mass
    mask, generator = _needed(mask, query.dtype), _generator(noise)
    made = _made(inputs, source, scale, positions, eps, query.dtype)
    made.begin(needed)
    for rows, length in _pieces(batch, n, max(m, d) * query.element_size(), mask):
        x = made.piece(rows, length)
        p = kept[rows, :length] if len(kept) else _probabilities(query, x, mask, rows)  # (g, n, M)
        grad_p = torch.bmm(x, grad[rows].transpose(1, 2))
        if grad_mass is not None:
            grad_p += grad_mass[rows][:, None]
        dropped = p
        if noise is not None:
            factors = keeping(p.shape, dropout, p.dtype, generator)
            grad_p *= factors
            dropped = p * factors
        grad_scores = grad_p.sub_(mean[rows][:, None]).mul_(p)
        piece_query = _of(query, rows, len(x))
        grad_x = torch.bmm(dropped, grad[rows]).baddbmm_(grad_scores, piece_query)  # (g, n, d)
        to_query = torch.bmm(grad_scores.transpose(1, 2), x)  # (g, M, d)
        if len(query) == 1:
            grad_query += to_query.sum(dim=0)
        else:
            grad_query[rows] = to_query.to(grad_query.dtype)
        made.back(rows, length, x, grad_x)
    return grad_query.to(query.dtype), *made.gradients()


@_pool.register_fake
def _(query, inputs, source, scale, positions, mask, noise, dropout, eps, keep):  # type: ignore[no-untyped-def]
    (batch, n), (_, m, d) = inputs.shape[:2], query.shape
    return (
        query.new_empty(batch, m, d),
        query.new_empty(batch if noise is not None else 0, m),
        query.new_empty(batch if keep else 0, n, m),
    )


@_pool_backward.register_fake
def _(grad, grad_mass, query, inputs, source, scale, positions, *others):  # type: ignore[no-untyped-def]
    return query.new_empty(query.shape), *_empty_gradients(inputs, source, scale, positions, needed=others[-1])


def _remember(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    query, signals, source, scale, positions, mask, noise, ctx.dropout, ctx.eps, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(query, signals, source, scale, positions, mask, noise, *output)


def _differentiate(ctx, grad, grad_mass, _):  # type: ignore[no-untyped-def]
    query, signals, source, scale, positions, mask, noise, context, mass, kept = ctx.saved_tensors
    if grad is None:
        grad = torch.zeros_like(context)
    to_query, to_signals, to_source, to_scale, to_positions = torch.ops.maed.pool_backward(
        grad, grad_mass if noise is not None else None, query, signals, source, scale, positions, mask, noise, context,
        mass, kept, ctx.dropout, ctx.eps, ctx.needs_input_grad[1],
    )  # fmt: skip
    parts = ((source, to_source), (scale, to_scale), (positions, to_positions))
    others = [None if part is None else found for part, found in parts]
    return to_query, to_signals if ctx.needs_input_grad[1] else None, *others, None, None, None, None, None


_pool.register_autograd(_differentiate, setup_context=_remember)


class _JoinedPieces:
    """Pieces of inputs that are there, joined with the positions, if any, and normalized; and their gradients."""

    def __init__(self, inputs: Tensor, positions: Tensor | None, eps: float, dtype: torch.dtype) -> None:
        self.inputs, self.positions, self.eps, self.dtype = inputs, positions, eps, dtype

    def piece(self, rows: slice | Tensor, length: int) -> Tensor:
        """The normalized inputs of some signals up to a position, `(g, n, d)`."""
        joined = self.inputs[rows, :length]
        if self.positions is not None:
            joined = torch.cat([joined, self.positions[:length].expand(len(joined), -1, -1)], dim=2)
        x, self.scale = _normalized(joined, self.eps, self.dtype)
        return x

    def begin(self, needed: bool) -> None:
        """Before the first gradient; that of the inputs may not be needed."""
        self.grads = _empty_gradients(self.inputs, None, None, self.positions, needed)
        self.needed, self.shared = needed, torch.zeros_like(self.grads[3], dtype=_wide(self.grads[3].dtype))

    def back(self, rows: slice | Tensor, length: int, x: Tensor, grad: Tensor) -> None:
        """Take the gradient `(g, n, d)` of the piece that was made last."""
        if not self.needed and self.positions is None:
            return
        joined, channels = _through_norm(grad, x, self.scale), self.inputs.shape[2]
        if self.needed:
            self.grads[0][rows, :length] = joined[:, :, :channels].to(self.grads[0].dtype)
            self.grads[0][rows, length:] = 0
        if self.positions is not None:
            self.shared[:length] += joined[:, :, channels:].sum(dim=0)

    def gradients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of inputs, source, scale and positions."""
        self.grads[3].copy_(self.shared)
        return self.grads


class _SummedPieces:
    """Pieces of inputs that are made here, and how the normalization scales them is given; and their gradients.

    Args:
        content: `(B, N)` tokens, or `(B, N, C)` values.
        source: `(V or C, d)`, centered.
        scale: `(B, N)`.
        positions: `(N, d)`, centered.
        dtype: Of the pieces.
    """

    def __init__(self, content: Tensor, source: Tensor, scale: Tensor, positions: Tensor, dtype: torch.dtype) -> None:
        self.content, self.scale, self.parts = content, scale, (source, positions)
        self.tokens = not content.is_floating_point()
        self.source, self.positions, self.scales = (part.to(dtype) for part in (source, positions, scale))

    def piece(self, rows: slice | Tensor, length: int) -> Tensor:
        """The normalized inputs of some signals up to a position, `(g, n, d)`."""
        content, positions = self.content[rows, :length], self.positions[:length]
        if self.tokens:
            x = self.source.index_select(0, content.flatten()).view(*content.shape, -1).add_(positions)
        else:
            each = (len(content), -1, -1)
            values = content.to(self.source.dtype)
            x = torch.baddbmm(positions.expand(each), values, self.source.expand(each))
        return x.mul_(self.scales[rows, :length, None])

    def begin(self, needed: bool) -> None:
        """Before the first gradient; that of the values may not be needed."""
        source, positions = self.parts
        self.needed, self.grads = needed, _empty_gradients(self.content, source, self.scale, positions, needed)
        for part in self.grads:
            part.zero_()

    def back(self, rows: slice | Tensor, length: int, x: Tensor, grad: Tensor) -> None:
        """Take the gradient `(g, n, d)` of the piece that was made last."""
        content, (to_content, to_source, to_scale, to_positions) = self.content[rows, :length], self.grads
        to_scale[rows, :length] = (grad * x).sum(dim=2, dtype=to_scale.dtype) / self.scale[rows, :length]
        grad = grad.mul_(self.scales[rows, :length, None])
        to_positions[:length] += grad.sum(dim=0, dtype=to_positions.dtype)
        if self.tokens:
            to_source.index_add_(0, content.flatten(), grad.flatten(0, 1).to(to_source.dtype))
        else:
            to_source += content.flatten(0, 1).to(grad.dtype).T @ grad.flatten(0, 1)
        if self.needed:
            to_content[rows, :length] = (grad @ self.source.T).to(to_content.dtype)

    def gradients(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of content, source, scale and positions."""
        return self.grads


def _made(
    inputs: Tensor,
    source: Tensor | None,
    scale: Tensor | None,
    positions: Tensor | None,
    eps: float,
    dtype: torch.dtype,
) -> _JoinedPieces | _SummedPieces:
    if source is None or scale is None or positions is None:
        return _JoinedPieces(inputs, positions, eps, dtype)
    return _SummedPieces(inputs, source, scale, positions, dtype)


def _empty_gradients(
    inputs: Tensor, source: Tensor | None, scale: Tensor | None, positions: Tensor | None, needed: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Room for the gradients of inputs, where `needed`, source, scale and positions; none where they are not there."""
    none = inputs.new_empty(0, dtype=torch.float32)
    parts = (inputs if needed else None, source, scale, positions)
    first, second, third, fourth = (
        none.clone() if part is None else torch.empty_like(part, memory_format=torch.contiguous_format)
        for part in parts
    )
    return first, second, third, fourth


def _normalized(inputs: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Inputs `(g, n, d)` of mean 0 and variance 1, in `dtype`, and what they were scaled by, `(g, n, 1)`.

    Twice as fast as torch's layer norm where channels are few.
    """
    wide = inputs.to(_wide(inputs.dtype))
    centered = wide - wide.mean(dim=2, keepdim=True)
    scale = centered.square().mean(dim=2, keepdim=True).add_(eps).rsqrt_()
    return centered.mul_(scale).to(dtype), scale


def _through_norm(grad: Tensor, x: Tensor, scale: Tensor) -> Tensor:
    """Gradient of the inputs, given that of the normalized inputs x; `(g, n, d)`."""
    grad = grad.to(scale.dtype)
    along = (grad * x).mean(dim=2, keepdim=True)
    return (grad - grad.mean(dim=2, keepdim=True)).addcmul_(x.to(scale.dtype), along, value=-1).mul_(scale)


def _probabilities(query: Tensor, x: Tensor, mask: Tensor | None, rows: slice | Tensor) -> Tensor:
    """Softmax over the positions of x `(g, n, d)`: `(g, n, M)`, so that the products of the backward pass are quick."""
    scores = torch.bmm(x, _of(query, rows, len(x)).transpose(1, 2))
    if mask is not None:
        scores += mask[rows, : x.shape[1], None]
    return scores.softmax(dim=1)


def _of(query: Tensor, rows: slice | Tensor, count: int) -> Tensor:
    """Queries of some signals, `(g, M, d)`."""
    return query.expand(count, -1, -1) if len(query) == 1 else query[rows]


def _wide(dtype: torch.dtype) -> torch.dtype:
    """Type in which sums over many are taken."""
    return torch.promote_types(dtype, torch.float32)


def _pieces(batch: int, n: int, width: int, mask: Tensor | None) -> Iterator[tuple[slice | Tensor, int]]:
    """Signals that are worked on together, and up to which position."""
    if mask is not None:
        yield from by_length(mask, width)
        return
    step = _together(n, width)
    for start in range(0, batch, step):
        yield slice(start, min(start + step, batch)), n


def _together(length: int, width: int) -> int:
    """Signals of a length that are worked on together."""
    return max(1, _PIECE // (length * width))


def _needed(mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The mask to add to scores of `dtype`, or None if it changes nothing."""
    return None if mask is None or unpadded(mask) else highest_zero(mask, dtype)


def _generator(noise: Tensor | None) -> torch.Generator | None:
    return None if noise is None else torch.Generator("cpu").manual_seed(int(noise))
