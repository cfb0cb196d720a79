"""Putting a position embedding in the place of the position table of a model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from maed.embedding import PositionEmbedding, open_embedding
from maed.errors import MaedError
from maed.integrations.finding import (
    Found,
    TablePositionEncoding,
    install,
    keep_record,
    named,
    parameter_of,
    records_of,
    rows_of,
    rows_that_stay,
    search,
)

_Model = TypeVar("_Model", bound=nn.Module)


def replace_positions(
    model: _Model,
    embedding: PositionEmbedding | str | Path,
    *,
    trainable: bool = False,
    rms: float | None = None,
    offset: int | None = None,
    where: str | None = None,
) -> _Model:
    """Put a position embedding in the place of the position table of a model, which is changed and returned.

    The table of Perceivers, of vision transformers such as ViT and DeiT, and of encoders such as BERT and RoBERTa is
    found by itself: what is called `position_embeddings` and does not belong to a decoder. The Fourier features of
    Perceivers have no table; a `TablePositionEncoding` takes their place, and `load_model` reads such a model back.
    The table keeps its dtype and device. The model gets a config of its own, whose `maed_positions` says where the
    table came from; a second table of the same model (see `where`) makes that a list.

    Args:
        model: a model of transformers, new or loaded; with `where`, any module.
        embedding: N positions in d channels; or its folder or name on the hub. Where the table has other channels, it
            is fitted: `embedding.table(dim=width, rms=rms)`.
        trainable: whether an optimizer may change the table. Otherwise it is frozen, with the rows before `offset`.
        rms: root mean square of the new rows; by default that of the rows they replace, for models differ in how loud
            their positions are. Where those are all zero, `model.config.initializer_range`, or else 1.
        offset: rows at the start of the table that stay as they are: those of CLS and the like. By default what the
            model shows: 1 for ViT, 2 for DeiT, 0 for BERT, `padding_idx + 1` for RoBERTa.
        where: path of the table in other models, an `nn.Embedding` or `nn.Parameter`, such as `transformer.wpe`.

    Returns:
        The same model.

    Raises:
        MaedError: no table is found, or several; it has not just `offset` + N rows; or an argument cannot be.

    Example:
        >>> model = ViTForImageClassification.from_pretrained("google/vit-base-patch16-224")  # 14 x 14 patches
        >>> model = replace_positions(model, PositionEmbedding.from_pretrained("my-positions"))  # N = 196
    """
    if not isinstance(embedding, (PositionEmbedding, str, Path)):
        raise MaedError(
            f"embedding: must be a PositionEmbedding, its folder or its name, got {type(embedding).__name__}"
        )
    positions = embedding if isinstance(embedding, PositionEmbedding) else open_embedding(embedding)
    if rms is not None:
        check_positive("rms", rms)
    if offset is not None and (isinstance(offset, bool) or not isinstance(offset, int) or offset < 0):
        raise MaedError(f"offset: must be an integer of at least 0, got {offset!r}")
    records_of(getattr(model, "config", None))  # before anything is changed
    found = search(model) if where is None else named(model, where)
    if found.kind == "fourier":
        if offset:
            raise MaedError(f"offset: must be 0 with Fourier features, of which no row can stay, got {offset}")
        kept, like = 0, next(model.parameters(), torch.empty(0))
        _check_loaded(like)
        size = rms or _size_or_default(_features(found.module, positions), found, model)
        parameter = install(model, found, positions.n).to(device=like.device, dtype=like.dtype).table
        rows = parameter.detach()
    else:
        parameter, kept = parameter_of(found), offset if offset is not None else rows_that_stay(found)
        _check_loaded(parameter)
        _check_n(model, found, positions, kept)
        rows = rows_of(parameter)[kept:]
        size = rms or _size_or_default(rows, found, model)
    rows.copy_(positions.table(dim=rows.shape[1], rms=size))
    parameter.requires_grad_(trainable)
    parameter.grad = None  # an optimizer would still follow that of the old table
    # transformers' own mark: whatever initializes the model once more (`post_init`) passes over the table
    parameter._is_hf_initialized = True  # type: ignore[attr-defined]
    origin = {"label": positions.label, "source": positions.source, "fingerprint": positions.fingerprint}
    fit = {"n": positions.n, "dim": rows.shape[1], "rms": float(size), "offset": kept}
    keep_record(model, {"where": found.where, "kind": found.kind, **origin, "trainable": trainable, **fit})
    return model


def check_positive(argument: str, value: float) -> None:
    """Refuse what is no finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise MaedError(f"{argument}: must be a number above 0, got {value!r}")


def _check_n(model: nn.Module, found: Found, positions: PositionEmbedding, offset: int) -> None:
    rows = len(rows_of(parameter_of(found)))
    if rows - offset == positions.n:
        return
    stay = f" (of {rows} rows, {offset} stay)" if offset else ""
    if rows <= offset:
        raise MaedError(f"offset: must be below {rows}, the rows of {found.where}, got {offset}")
    raise MaedError(
        f"embedding: must have {rows - offset} positions, as {found.where} of {type(model).__name__}{stay}, got "
        f"{positions.n}; give embedding.resampled('grid:HxW') or .resampled('line:{rows - offset}'), or a model "
        f"configured for {positions.n}"
    )


def _check_loaded(parameter: Tensor) -> None:
    if parameter.is_meta or not parameter.is_floating_point():
        raise MaedError(
            f"model: weights must be floats, loaded on a real device, got {parameter.dtype} on {parameter.device}"
        )


def root_mean_square(values: Tensor) -> float:
    """Over all entries, computed in double precision."""
    return float(values.detach().double().square().mean().sqrt())


def _size_or_default(values: Tensor, found: Found, model: nn.Module) -> float:
    """Root mean square of the rows that are replaced; where they are zero, of what the model would have drawn."""
    size = root_mean_square(values)
    if not math.isfinite(size):
        raise MaedError(f"model: {found.where} holds numbers that are not finite; rms= says how large to make it")
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
