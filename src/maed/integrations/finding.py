"""Finding the positions of a model: a table or a Perceiver's Fourier features, and the record in its config."""

from __future__ import annotations

import copy
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from maed.errors import MaedError

Kind = Literal["embedding", "parameter", "buffer", "fourier"]

_NUMBERS = {"n": 1, "dim": 1, "offset": 0}
_TEXTS = ("where", "kind", "label", "source", "fingerprint")
_PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")

# What tables are called: by most models of transformers; of channels, by those of braindecode that have one of times
# too; and by the others. What an own module around a table calls it, such as `pos_emb.emb` and `pos_encoder.pe`.
_MOST = re.compile("position_embeddings")
_CHANNELS = re.compile("chan_embed|channel_tokens|channel_pos|pos_encoder_spat")
_OTHERS = re.compile("pos(ition|itional)?_(emb|embeds?|embeddings?|enc|encodings?|encoder)|pe|wpe|embed_positions")
_INSIDE = re.compile("pe|emb|embed|embeddings?|encoding|table")
# Parts of a path under which tables are not of the inputs, or are no table of what is added to them.
_ELSEWHERE = re.compile("decoder|output")
_NOT_ADDED = re.compile("(^|_)(attn|attention|rope|rotary|rel|relative)(_|$)")

# Tokens before the positions, which have rows of the table in many models, in the order in which they come.
_TOKENS = (
    ("cls_token", "class_token", "class_embedding", "cls_embedding"),
    ("dist_token", "distillation_token"),
    ("reg_token", "register_tokens"),
)
_PATCHES = ("patch_embeddings", "patch_embed", "patch_embedding")


@dataclass(frozen=True)
class Found:
    """A place in a model that says where inputs sit.

    Args:
        where: Path of the table: that of the `nn.Embedding`, the `nn.Parameter` or the buffer.
        kind: Kind of the object at that path; a tensor outside of the state dict counts as a buffer.
        module: The `nn.Embedding`, the module that holds the tensor, or the Fourier features.
    """

    where: str
    kind: Kind
    module: nn.Module

    @property
    def key(self) -> str:
        """The name of the tensor in the state dict."""
        return self.where + {"embedding": ".weight", "parameter": "", "buffer": "", "fourier": ".table"}[self.kind]


def tensor_of(found: Found) -> Tensor:
    """The tensor that holds the table, an `nn.Parameter` unless it is a buffer."""
    tensor = _tensor(found.module, found.key.rpartition(".")[2])
    assert tensor is not None
    return tensor


def _tensor(module: nn.Module, name: str) -> Tensor | None:
    """The parameter, buffer or plain tensor of a module, None if it has none of that name; no property is called."""
    for held in (module._parameters, module._buffers, vars(module)):
        if isinstance(held.get(name), Tensor):
            return held[name]
    return None


def rows_of(tensor: Tensor) -> Tensor:
    """The table as `(rows, width)`, not a copy."""
    table = tensor.detach()
    return table if table.ndim == 2 else table[0] if len(table) == 1 else table[:, 0]


def is_table(shape: Sequence[int]) -> bool:
    """True if a tensor of this shape can be a position table: `(rows, width)`, with an axis of 1 first or between."""
    return len(shape) == 2 or (len(shape) == 3 and 1 in shape[:2])


def search(model: nn.Module) -> Found:
    """The one table of the model's inputs, by its name; decoders and their queries are left alone."""
    for names in (_MOST, _CHANNELS, _OTHERS):
        if found := _tables(model, names):
            break
    name = type(model).__name__
    if len(found) == 1:
        return found[0]
    if found:
        listed = ", ".join(each.where for each in found)
        raise MaedError(f"model: {name} has several position tables; where= must be one of {listed}")
    raise MaedError(
        f"model: no position table is known in {name}; where= must be the path of its nn.Embedding, "
        "nn.Parameter or buffer"
    )


def _tables(model: nn.Module, names: re.Pattern[str]) -> list[Found]:
    """The tables of the inputs that are called by one of the names, or alone in a module that is; each tensor once."""
    found: dict[int, Found] = {}
    for path, module in model.named_modules():
        parts = path.split(".")
        if any(_ELSEWHERE.search(part) or (names is not _MOST and _NOT_ADDED.search(part)) for part in parts):
            continue
        inside = names is not _MOST and names.fullmatch(parts[-1])
        for name in [*module._parameters, *module._buffers, *module._modules, *vars(module)]:
            if not (names.fullmatch(name) or (inside and _INSIDE.fullmatch(name))):
                continue
            _refuse_quantized(f"{path}.{name}".removeprefix("."), module._modules.get(name))
            there = at(model, f"{path}.{name}".removeprefix("."))
            if there is None:
                continue
            if there.kind == "fourier":
                found[id(there.module)] = there
                continue
            tensor, buffer = tensor_of(there), there.kind == "buffer"
            if is_table(tensor.shape) and not (buffer and (names is _MOST or not tensor.is_floating_point())):
                found.setdefault(id(tensor), there)
    return list(found.values())


def _refuse_quantized(path: str, module: nn.Module | None) -> None:
    if module is not None and "_packed_params" in module._modules:  # as torch.ao leaves an nn.Embedding
        raise MaedError(
            f"model must have float weights, and {path} is a {type(module).__name__} of whole numbers; "
            "replace positions before quantizing"
        )


def named(model: nn.Module, where: str) -> Found:
    """The table at a path that the user gave."""
    found = at(model, where)
    if found is None:
        module = submodule(model, where)
        _refuse_quantized(where, module)
        inside = [name for name, _ in module.named_parameters()] if module is not None else []
        if module is not None and not inside:
            inside = [name for name, buffer in module.named_buffers() if buffer.is_floating_point()]
        if len(inside) != 1:  # a module around a single tensor stands for it
            raise MaedError(
                f"where must be the path of an nn.Embedding, nn.Parameter or buffer of {type(model).__name__}, such "
                f"as transformer.wpe, got {where!r}"
            )
        found = at(model, f"{where}.{inside[0]}")
        assert found is not None
    if found.kind != "fourier" and not is_table(tensor_of(found).shape):
        shape = tuple(tensor_of(found).shape)
        raise MaedError(
            f"where: {where!r} must have shape (rows, width), (1, rows, width) or (rows, 1, width), got {shape}"
        )
    return found


def at(model: nn.Module, path: str) -> Found | None:
    """The tensor, table or Fourier features at a path, or None. Only attributes of modules are read."""
    parent, _, name = path.rpartition(".")
    holder = submodule(model, parent)
    if holder is None:
        return None
    module = holder._modules.get(name)
    if isinstance(module, nn.Embedding):
        return Found(path, "embedding", module)
    # a model of transformers cannot hold what has not been imported
    perceivers = sys.modules.get("transformers.models.perceiver.modeling_perceiver")
    features = (TablePositionEncoding, *([perceivers.PerceiverFourierPositionEncoding] if perceivers else []))
    if isinstance(module, features):
        return Found(path, "fourier", module)
    if holder._parameters.get(name) is not None:
        return Found(path, "parameter", holder)
    return None if _tensor(holder, name) is None else Found(path, "buffer", holder)


def submodule(model: nn.Module, path: str) -> nn.Module | None:
    """The module at a path, None if there is none; of attributes, only what modules have registered is followed."""
    module: nn.Module | None = model
    for name in path.split(".") if path else ():
        module = module._modules.get(name) if module is not None else None
    return module


def around(model: nn.Module, where: str) -> list[nn.Module]:
    """The modules that hold what lies at a path, the nearest first and the model last."""
    parts = where.split(".")[:-1]
    held = [submodule(model, ".".join(parts[:depth])) for depth in range(len(parts), -1, -1)]
    return [module for module in held if module is not None]


def rows_that_stay(model: nn.Module, found: Found, n: int) -> int:
    """Number of rows at the start of a table that belong to none of N positions, as far as the model shows it."""
    module, rows = found.module, rows_of(tensor_of(found))
    if isinstance(module, nn.Embedding):
        if isinstance(getattr(module, "offset", None), int):  # BART and its kin
            return int(module.offset)  # type: ignore[arg-type]
        if module.padding_idx is not None or len(rows) == n:
            return 0 if module.padding_idx is None else module.padding_idx + 1
    holders = around(model, found.where)[:2]  # the table may have a module of its own in that which has the tokens
    for holder in holders:
        if holder is not holders[0] and len(rows) == n:
            return 0
        counts = [sum(_tokens(holder, name, rows.shape[1]) for name in names) for names in _TOKENS]
        prefix = vars(holder).get("num_prefix_tokens")  # timm counts them
        numbers = [vars(each).get("num_patches") for each in (holder, *map(holder._modules.get, _PATCHES)) if each]
        patches = next((number for number in numbers if type(number) is int), None)
        if not any(counts) and not prefix and patches is None:
            continue
        first, all_tokens = counts[0] + counts[1], sum(counts)
        possible = {first, all_tokens, prefix}  # registers have rows in some models and none in others
        rest = len(rows) - (n if patches is None else patches)
        if rest in possible or (rest == 0 and patches is not None):
            return rest
        if patches is None and rest:  # of another number of positions
            return first
        what = f"{n} positions" if patches is None else f"{patches} patches"
        raise MaedError(
            f"offset must be given, because {found.where} has {len(rows)} rows for {what}: the number of rows "
            "before the positions (0 if tokens such as CLS have none)"
        )
    return 0


def _tokens(module: nn.Module, name: str, width: int) -> int:
    """Number of tokens in a module's tensor `(..., width)`; 0 if it has none of that name."""
    tensor = _tensor(module, name)
    return 0 if tensor is None or tensor.ndim == 0 or tensor.shape[-1] != width else tensor.numel() // width


def keep(found: Found) -> None:
    """Save a table that is a buffer with its model, even one that was not part of the state dict."""
    tensor, name = tensor_of(found), found.where.rpartition(".")[2]
    vars(found.module).pop(name, None)
    found.module.register_buffer(name, tensor)


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
        n: Positions N.
        dim: Channels of the features it replaces.
        num_dimensions: Dimensions of the input's index, 2 for images.
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
            MaedError: Inputs of another number of positions, or coordinates `pos`, of which a table knows nothing.
        """
        sides, n = " x ".join(str(int(side)) for side in index_dims), len(self.table)
        if pos is not None:
            raise MaedError("pos must be None, because a table has replaced the features of coordinates")
        if math.prod(index_dims) != n:
            raise MaedError(
                f"inputs must have {n} positions, as the embedding in the model has, got {sides} = "
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
    """True if the model has the table; one that was made anew from the config of another need not."""
    found = at(model, record["where"])
    if found is None or found.kind != record["kind"]:
        return False
    return found.kind != "fourier" or isinstance(found.module, TablePositionEncoding)


def records_of(config: Any) -> list[dict[str, Any]]:
    """Read and check the records of `replace_positions` in a config."""
    written = getattr(config, "maed_positions", None)
    if written is None:
        return []
    records = written if isinstance(written, list) else [written]
    for record in records:
        _check_record(record)
    return records


def _check_record(record: Any) -> None:
    if not isinstance(record, dict):
        raise MaedError(f"config.maed_positions must be what replace_positions writes, got {type(record).__name__}")
    wrong = [name for name in _TEXTS if not isinstance(record.get(name), str)]
    wrong += [name for name, low in _NUMBERS.items() if type(record.get(name)) is not int or record[name] < low]
    if type(record.get("trainable")) is not bool:
        wrong.append("trainable")
    size = record.get("rms")
    if not isinstance(size, (int, float)) or isinstance(size, bool) or not 0 < size < math.inf:
        wrong.append("rms")
    if "where" not in wrong and not _PATH.fullmatch(record["where"]):
        wrong.append("where")
    if "kind" not in wrong and record["kind"] not in get_args(Kind):
        wrong.append("kind")
    if wrong:
        shown = ", ".join(f"{name} {str(record.get(name))[:40]!r}" for name in wrong)
        raise MaedError(f"config.maed_positions must be what replace_positions writes, got {shown}")
