"""Putting a position embedding in the place of the position table of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from maed.embedding import PositionEmbedding, open_embedding
from maed.errors import MaedError
from maed.integrations.finding import (
    Found,
    TablePositionEncoding,
    around,
    install,
    keep,
    keep_record,
    named,
    records_of,
    rows_of,
    rows_that_stay,
    search,
    tensor_of,
)
from maed.integrations.naming import channels, order

_Model = TypeVar("_Model", bound=nn.Module)


def replace_positions(
    model: _Model,
    embedding: PositionEmbedding | str | Path,
    *,
    trainable: bool = False,
    rms: float | None = None,
    offset: int | None = None,
    where: str | None = None,
    names: Sequence[str] | None = None,
) -> _Model:
    """Replace the position table of a model by a position embedding, in place.

    The table is found by what models call it: `position_embeddings` in most of transformers, `pos_embed`,
    `pos_embedding`, `position_enc`, `pos_emb.emb`, `positional_encoding.pe` and the like in timm, vit-pytorch,
    x-transformers and models of plain PyTorch, `chan_embed` and the like in braindecode. Decoders, and tables within
    attention, are left alone. It is `(rows, width)`, `(1, rows, width)` or `(rows, 1, width)`. The Fourier features of
    Perceivers have no table; a `TablePositionEncoding` takes their place, and `load_model` reads such a model back.

    The table keeps its dtype and device. One that is no parameter, such as a buffer of sinusoids, must be what the
    model adds to its inputs; it becomes a part of the state dict, if it was none. A model of transformers gets a config
    of its own, whose `maed_positions` says where the table came from; a second table of the same model (see `where`)
    makes that a list.

    What a model does with its table stays. x-transformers multiplies it by `dim ** -0.5`. Some models interpolate the
    rows for images of another size, as if they were a square in row-major order: DINOv2 always, ViT and ViTMAE if told
    to (`interpolate_pos_encoding`), timm with `dynamic_img_size`; resample the embedding instead. Others, such as AST
    and PatchTST, fail on inputs of another length.

    Args:
        model: A new or loaded model with float weights; replace positions before quantizing.
        embedding: N positions in d channels, or its folder or name on the hub. It is fitted to the width of the table:
            `embedding.table(dim=width, rms=rms)`.
        trainable: Let optimizers change the table. Otherwise it is frozen, with the rows before `offset`.
        rms: Root mean square of the new rows; default: that of the rows they replace, because models differ in the
            scale of their positions, or `model.config.initializer_range`, or 1, if those are all zero.
        offset: Number of rows at the start of the table to keep, such as that of CLS. Default: as the model shows it: 1
            for ViT, 2 for DeiT, 0 for BERT, `padding_idx + 1` for RoBERTa.
        where: Path of the table in other models: an `nn.Embedding`, `nn.Parameter` or buffer, such as
            `transformer.wpe`.
        names: N names of the rows after `offset`, in their order; each row gets the position of its name. Default: the
            channels that the model names (`chs_info` of braindecode's models, `ch_names`, an `info` of MNE), if the
            embedding has names and the table a row for each channel; otherwise rows and positions are in the same
            order.

    Returns:
        The same model.

    Raises:
        MaedError: No table or several tables are found, the table does not have `offset` + N rows, names do not match,
            or an argument is invalid.

    Example:
        >>> model = ViTForImageClassification.from_pretrained("google/vit-base-patch16-224")  # 14 x 14 patches
        >>> model = replace_positions(model, PositionEmbedding.from_pretrained("my-positions"))  # N = 196
    """
    if not isinstance(embedding, (PositionEmbedding, str, Path)):
        raise MaedError(
            f"embedding must be a PositionEmbedding, its folder or its name, got {type(embedding).__name__}"
        )
    positions = embedding if isinstance(embedding, PositionEmbedding) else open_embedding(embedding)
    if rms is not None:
        check_positive("rms", rms)
    if offset is not None and (isinstance(offset, bool) or not isinstance(offset, int) or offset < 0):
        raise MaedError(f"offset must be an integer of at least 0, got {offset!r}")
    records_of(getattr(model, "config", None))  # before anything is changed
    found = search(model) if where is None else named(model, where)
    if found.kind == "fourier":
        if offset:
            raise MaedError(f"offset must be 0 with Fourier features, which have no rows to keep, got {offset}")
        kept, like = 0, next(model.parameters(), torch.empty(0))
        _check_loaded(like)
        places = torch.arange(positions.n) if names is None else order(positions, names)
        size = rms or _size_or_default(_features(found.module, positions), found, model)
        table: Tensor = install(model, found, positions.n).to(device=like.device, dtype=like.dtype).table
        rows = table.detach()
    else:
        table = tensor_of(found)
        _check_loaded(table)
        if trainable and found.kind == "buffer":
            raise MaedError(
                f"trainable must be False, because {found.where} is a buffer, which optimizers do not change; or "
                "make it an nn.Parameter of the model"
            )
        places, kept = _places(model, found, positions, offset, names)
        rows = rows_of(table)
        size = rms or _size_or_default(rows[places.to(rows.device)], found, model)
    new = positions.table(dim=rows.shape[1], rms=size)
    rows[places.to(rows.device)] = new.to(device=rows.device, dtype=rows.dtype)
    if found.kind == "buffer":
        keep(found)
    else:
        table.requires_grad_(trainable)
        table.grad = None  # an optimizer would still follow that of the old table
    # transformers' own mark: whatever initializes the model once more (`post_init`) passes over the table
    table._is_hf_initialized = True  # type: ignore[attr-defined]
    origin = {"label": positions.label, "source": positions.source, "fingerprint": positions.fingerprint}
    fit = {"n": positions.n, "dim": rows.shape[1], "rms": float(size), "offset": kept}
    keep_record(model, {"where": found.where, "kind": found.kind, **origin, "trainable": trainable, **fit})
    return model


def _places(
    model: nn.Module, found: Found, positions: PositionEmbedding, offset: int | None, names: Sequence[str] | None
) -> tuple[Tensor, int]:
    """The row of the table that each position gets, `(N,)`, and how many rows before them all stay."""
    n, rows = positions.n, len(rows_of(tensor_of(found)))
    shown = channels(around(model, found.where)) if names is None else None
    if shown is not None and shown.rows is not None and offset is None and not n == rows != len(shown.rows):
        if positions.names is None and n != len(shown.rows):
            raise MaedError(
                f"embedding must have {len(shown.rows)} positions, one for each of {shown.shown}, or {rows}, one for "
                f"each row of {found.where}, got {n}"
            )
        used = shown.rows.tolist()
        if len(set(used)) < len(used) or max(used) >= rows:
            raise MaedError(
                f"model must have a row of its own in {found.where} ({rows} rows) for each of {shown.shown}, got "
                f"the rows {used}; names= says what each row is called"
            )
        return (shown.rows if positions.names is None else shown.rows[order(positions, shown.names, shown.shown)]), 0
    kept = offset if offset is not None else rows_that_stay(model, found, n)
    _check_n(model, found, positions, kept)
    if names is not None:
        return kept + order(positions, names), kept
    if shown is not None and positions.names is not None and len(shown.names) == n:
        return kept + order(positions, shown.names, shown.shown), kept
    return torch.arange(kept, rows), kept


def check_positive(argument: str, value: float) -> None:
    """Refuse what is no finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise MaedError(f"{argument} must be a number above 0, got {value!r}")


def _check_n(model: nn.Module, found: Found, positions: PositionEmbedding, offset: int) -> None:
    rows = len(rows_of(tensor_of(found)))
    if rows - offset == positions.n:
        return
    stay = f" (of {rows} rows, {offset} stay)" if offset else ""
    if rows <= offset:
        raise MaedError(f"offset must be below {rows}, the rows of {found.where}, got {offset}")
    raise MaedError(
        f"embedding must have {rows - offset} positions, as {found.where} of {type(model).__name__}{stay}, got "
        f"{positions.n}; give embedding.resampled('grid:HxW') or .resampled('line:{rows - offset}'), or a model "
        f"configured for {positions.n}"
    )


def _check_loaded(table: Tensor) -> None:
    plain = type(table.detach()) is Tensor  # quantized weights may be tensors of their own kind that seem to be floats
    if table.is_meta or not table.is_floating_point() or not plain:
        kind = table.dtype if plain else f"a {type(table.detach()).__name__}"
        raise MaedError(
            f"model must have float weights on a real device, got {kind} on {table.device}; replace positions "
            "after loading the model and before quantizing it"
        )


def root_mean_square(values: Tensor) -> float:
    """Over all entries, computed in double precision."""
    return float(values.detach().double().square().mean().sqrt())


def _size_or_default(values: Tensor, found: Found, model: nn.Module) -> float:
    """Root mean square of the rows that are replaced; where they are zero, of what the model would have drawn."""
    size = root_mean_square(values)
    if not math.isfinite(size):
        raise MaedError(f"model: {found.where} holds values that are not finite; set rms=, the size of the new rows")
    return size or float(getattr(getattr(model, "config", None), "initializer_range", None) or 1.0)


def _features(module: nn.Module, positions: PositionEmbedding) -> Tensor:
    """The Fourier features that are replaced, `(1, N, dim)`, or the table that replaced them before.

    Their size hardly depends on the sides, which the embedding may not know: N is split as evenly as it goes.
    """
    if isinstance(module, TablePositionEncoding):
        return module.table
    dimensions = int(module.num_dimensions)  # type: ignore[arg-type]
    sides = list(positions.geometry.shape) if positions.geometry is not None else []
    if len(sides) != dimensions:
        sides, n = [], positions.n
        for left in range(dimensions, 0, -1):  # the largest divisor that is no larger than an even share
            sides.append(next(side for side in range(round(n ** (1 / left)), 0, -1) if n % side == 0))
            n //= sides[-1]
    return module(sides, 1, device=torch.device("cpu"), dtype=torch.float32)
