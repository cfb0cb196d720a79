"""What says where inputs sit in a model, a table or a Perceiver's Fourier features, and what its config says of it."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from maed.errors import MaedError

Kind = Literal["embedding", "parameter", "fourier"]

_NUMBERS = {"n": 1, "dim": 1, "offset": 0}
_TEXTS = ("where", "kind", "label", "source", "fingerprint")
_PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


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


# What `config.json` says of positions that were replaced.


def keep_record(model: nn.Module, record: dict[str, Any]) -> None:
    """Write into a model's config, which becomes its own, where one of its tables came from."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_dict"):  # no model of transformers
        return
    others = [other for other in records_of(config) if other["where"] != record["where"] and _holds(model, other)]
    copies: dict[int, Any] = {}
    own = copy.deepcopy(config, copies)  # models that were made from one config share it, but not their positions
    for module in model.modules():
        held = id(vars(module).get("config"))
        if held in copies:
            vars(module)["config"] = copies[held]
    own.maed_positions = [*others, record] if others else record


def _holds(model: nn.Module, record: dict[str, Any]) -> bool:
    """Whether the model has the table; one that was made anew from the config of another need not."""
    found = at(model, record["where"])
    if found is None or found.kind != record["kind"]:
        return False
    return found.kind != "fourier" or isinstance(found.module, TablePositionEncoding)


def records_of(config: Any) -> list[dict[str, Any]]:
    """What `replace_positions` has written into the config; nobody's word for it is taken."""
    written = getattr(config, "maed_positions", None)
    if written is None:
        return []
    records = written if isinstance(written, list) else [written]
    for record in records:
        _check_record(record)
    return records


def _check_record(record: Any) -> None:
    if not isinstance(record, dict):
        raise MaedError(f"config.maed_positions: must be what replace_positions writes, got {type(record).__name__}")
    wrong = [name for name in _TEXTS if not isinstance(record.get(name), str)]
    wrong += [name for name, low in _NUMBERS.items() if type(record.get(name)) is not int or record[name] < low]
    if type(record.get("trainable")) is not bool:
        wrong.append("trainable")
    size = record.get("rms")
    if not isinstance(size, (int, float)) or isinstance(size, bool) or not 0 < size < math.inf:
        wrong.append("rms")
    if "where" not in wrong and not _PATH.fullmatch(record["where"]):
        wrong.append("where")
    if "kind" not in wrong and record["kind"] not in ("embedding", "parameter", "fourier"):
        wrong.append("kind")
    if wrong:
        shown = ", ".join(f"{name} {str(record.get(name))[:40]!r}" for name in wrong)
        raise MaedError(f"config.maed_positions: must be what replace_positions writes, got {shown}")
