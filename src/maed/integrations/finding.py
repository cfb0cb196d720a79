"""Finding what says where inputs sit in a model: a table, or the Fourier features of a Perceiver."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maed.errors import MaedError

Kind = Literal["embedding", "parameter", "fourier"]


@dataclass(frozen=True)
class Found:
    """A place in a model that says where inputs sit.

    Args:
        where: its path; of a table, that of the `nn.Embedding` or `nn.Parameter`.
        kind: what it is there.
        module: the `nn.Embedding`, the module that holds the `nn.Parameter`, or the Fourier features.
    """

    where: str
    kind: Kind
    module: nn.Module

    @property
    def key(self) -> str:
        """The name of the tensor in the state dict."""
        return self.where + {"embedding": ".weight", "parameter": "", "fourier": ".table"}[self.kind]


def parameter_of(found: Found) -> nn.Parameter:
    """The tensor that holds the table."""
    parameter = found.module._parameters[found.key.rpartition(".")[2]]
    assert parameter is not None
    return parameter


def rows_of(parameter: nn.Parameter) -> Tensor:
    """The table as `(rows, width)`, not a copy."""
    table = parameter.detach()
    return table[0] if table.ndim == 3 else table


def is_table(shape: Sequence[int]) -> bool:
    """Whether a tensor of this shape can be a position table: `(rows, width)` or `(1, rows, width)`."""
    return len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)


def search(model: nn.Module) -> Found:
    """The one table of the model's inputs, by its name; decoders and their queries are left alone."""
    found: dict[str, Found] = {}
    for path, _ in model.named_modules():
        if any("decoder" in part or "output" in part for part in path.split(".")):
            continue
        there = at(model, f"{path}.position_embeddings".removeprefix("."))
        if there is not None and (there.kind == "fourier" or is_table(parameter_of(there).shape)):
            found[there.where] = there
    if len(found) == 1:
        return next(iter(found.values()))
    name = type(model).__name__
    if found:
        raise MaedError(f"model: {name} has several position tables; where= must be one of {', '.join(found)}")
    raise MaedError(
        f"model: {name} has no known position table; where= must be the path of its nn.Embedding or nn.Parameter"
    )


def named(model: nn.Module, where: str) -> Found:
    """The table at a path that the user gave."""
    found = at(model, where)
    if found is None:
        module = submodule(model, where)
        inside = list(module.named_parameters()) if module is not None else []
        if len(inside) != 1:  # a module around a single parameter stands for it
            raise MaedError(
                f"where: must be the path of an nn.Embedding or nn.Parameter of {type(model).__name__}, such as "
                f"transformer.wpe, got {where!r}"
            )
        found = at(model, f"{where}.{inside[0][0]}")
        assert found is not None
    if found.kind != "fourier" and not is_table(parameter_of(found).shape):
        shape = tuple(parameter_of(found).shape)
        raise MaedError(f"where: {where!r} must have shape (rows, width) or (1, rows, width), got {shape}")
    return found


def at(model: nn.Module, path: str) -> Found | None:
    """What lies at a path, if it is a table or Fourier features. Only what modules have registered is looked at."""
    from transformers.models.perceiver.modeling_perceiver import PerceiverFourierPositionEncoding

    parent, _, name = path.rpartition(".")
    holder = submodule(model, parent)
    if holder is None:
        return None
    if holder._parameters.get(name) is not None:
        return Found(path, "parameter", holder)
    module = holder._modules.get(name)
    if isinstance(module, nn.Embedding):
        return Found(path, "embedding", module)
    if isinstance(module, (TablePositionEncoding, PerceiverFourierPositionEncoding)):
        return Found(path, "fourier", module)
    return None


def submodule(model: nn.Module, path: str) -> nn.Module | None:
    """The module at a path, None where there is none; of attributes, only what modules have registered is followed."""
    module: nn.Module | None = model
    for name in path.split(".") if path else ():
        module = module._modules.get(name) if module is not None else None
    return module


def rows_that_stay(found: Found) -> int:
    """How many rows at the start are not positions of inputs, as far as the model shows it."""
    module = found.module
    if isinstance(module, nn.Embedding):
        if isinstance(getattr(module, "offset", None), int):  # BART and its kin
            return int(module.offset)  # type: ignore[arg-type]
        return 0 if module.padding_idx is None else module.padding_idx + 1
    # as in transformers' vision models: a row for each token that is put before the patches
    special = sum(getattr(module, name, None) is not None for name in ("cls_token", "distillation_token"))
    patches = getattr(getattr(module, "patch_embeddings", None), "num_patches", None)
    rows = len(rows_of(parameter_of(found)))
    if isinstance(patches, int) and rows - special != patches:
        raise MaedError(
            f"offset: cannot be told from {found.where} with {rows} rows for {patches} patches; it must be given, the "
            "number of rows before those of the patches"
        )
    return special


def install(model: nn.Module, found: Found, n: int) -> TablePositionEncoding:
    """Put a table, not yet filled, in the place of Fourier features, or of the table that replaced them before."""
    replaced: Any = found.module
    table = TablePositionEncoding(n, replaced.output_size(), replaced.num_dimensions)
    table.train(replaced.training)
    parent, _, name = found.where.rpartition(".")
    holder = submodule(model, parent)
    assert holder is not None
    holder._modules[name] = table
    return table


class TablePositionEncoding(nn.Module):
    """Takes the place of a Perceiver's Fourier features: a table `(N, dim)`, called and asked as those are.

    Args:
        n: positions N.
        dim: channels of the features it replaces.
        num_dimensions: dimensions of the input's index, 2 for images.
    """

    def __init__(self, n: int, dim: int, num_dimensions: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(n, dim))
        self.num_dimensions = num_dimensions

    def output_size(self) -> int:
        """Channels of the encoding."""
        return self.table.shape[1]

    def forward(
        self,
        index_dims: Sequence[int],
        batch_size: int,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        pos: Tensor | None = None,
    ) -> Tensor:
        """The table for a batch of inputs of shape `index_dims`, `(batch_size, N, dim)`.

        Raises:
            MaedError: inputs of another number of positions, or coordinates `pos`, of which a table knows nothing.
        """
        sides, n = " x ".join(str(int(side)) for side in index_dims), len(self.table)
        if pos is not None:
            raise MaedError("pos: must be None, for a table has replaced the features of coordinates")
        if math.prod(index_dims) != n:
            raise MaedError(
                f"inputs: must have {n} positions, as the embedding in the model, got {sides} = "
                f"{math.prod(index_dims)}; or resample the embedding and replace it again"
            )
        return self.table.to(device=device, dtype=dtype).expand(batch_size, -1, -1)

    def extra_repr(self) -> str:
        """N and channels for `print`."""
        return f"n={self.table.shape[0]}, dim={self.table.shape[1]}"
