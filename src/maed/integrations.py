"""A position embedding inside other models: those of transformers in one call, and any model of plain PyTorch."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maed.embedding import PositionEmbedding, open_embedding
from maed.errors import MaedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["AddPositions", "load_model", "replace_positions"]

Kind = Literal["embedding", "parameter", "fourier"]

_INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)

_Model = TypeVar("_Model", bound=nn.Module)
_Pretrained = TypeVar("_Pretrained", bound="PreTrainedModel")


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
    positions = _opened(embedding)
    _check_numbers(rms, offset)
    _records(getattr(model, "config", None))  # before anything is changed
    found = _search(model) if where is None else _named(model, where)
    if found.kind == "fourier":
        if offset:
            raise MaedError(f"offset: {offset}; Fourier features have no rows that could stay, it may be 0")
        kept, like = 0, next(model.parameters(), torch.empty(0))
        _check_loaded(like)
        size = rms or _size_or_default(_features(found.module, positions), found, model)
        parameter = _install(model, found, positions.n).to(device=like.device, dtype=like.dtype).table
        rows = parameter.detach()
    else:
        parameter, kept = _parameter(found), offset if offset is not None else _rows_that_stay(found)
        _check_loaded(parameter)
        _check_n(model, found, positions, kept)
        rows = _rows(parameter)[kept:]
        size = rms or _size_or_default(rows, found, model)
    rows.copy_(positions.table(dim=rows.shape[1], rms=size))
    parameter.requires_grad_(trainable)
    parameter.grad = None  # an optimizer would still follow that of the old table
    # transformers' own mark: whatever initializes the model once more (`post_init`) passes over the table
    parameter._is_hf_initialized = True  # type: ignore[attr-defined]
    origin = {"label": positions.label, "source": positions.source, "fingerprint": positions.fingerprint}
    fit = {"n": positions.n, "dim": rows.shape[1], "rms": float(size), "offset": kept}
    _keep_record(model, {"where": found.where, "kind": found.kind, **origin, "trainable": trainable, **fit})
    return model


def load_model(model_class: type[_Pretrained], folder_or_name: str | Path, **kwargs: Any) -> _Pretrained:
    """`model_class.from_pretrained`, and what that forgets of replaced positions.

    `from_pretrained` alone keeps the values of tables, but it makes frozen ones trainable, and of a Perceiver whose
    Fourier features were replaced it drops the table and goes back to the features. A checkpoint without replaced
    positions is loaded as `from_pretrained` does.

    Args:
        model_class: of transformers, such as `PerceiverForImageClassificationFourier`; automatic classes, such as
            `AutoModel`, too.
        folder_or_name: what `save_pretrained` wrote, or a name on the hub.
        kwargs: for `from_pretrained`; not `output_loading_info`.

    Raises:
        MaedError: `config.maed_positions` is not what `replace_positions` writes, or fits neither class nor checkpoint.
    """
    from transformers import PreTrainedModel

    if "output_loading_info" in kwargs:
        raise MaedError("output_loading_info: not available here; it may be left out, or given to from_pretrained")
    if not issubclass(model_class, PreTrainedModel):  # AutoModel and its like only choose a class
        automatic: Any = model_class
        model, info = automatic.from_pretrained(folder_or_name, output_loading_info=True, **kwargs)
        if any(record["kind"] == "fourier" for record in _records(model.config)):
            return load_model(type(model), folder_or_name, **kwargs)
        return _restored(model, info, folder_or_name)

    records: list[dict[str, Any]] = []

    def init(self: Any, config: Any, *args: Any, **options: Any) -> None:
        model_class.__init__(self, config, *args, **options)
        records.extend(_records(config))
        for record in records:
            if record["kind"] == "fourier":
                _make_room(self, record)

    # The class that loads differs only in its room for the table. Name and module are those of `model_class`, by which
    # transformers looks things up, and the model becomes one of `model_class` as soon as it is loaded.
    names = {"__module__": model_class.__module__, "__qualname__": model_class.__qualname__}
    loading: Any = type(model_class.__name__, (model_class,), {**names, "__init__": init})
    try:
        model, info = loading.from_pretrained(folder_or_name, output_loading_info=True, **kwargs)
    except RuntimeError as error:
        if records and "mismatch" in str(error):
            raise MaedError(
                f"{folder_or_name}: holds tensors of other shapes than its config.json says; see the report above"
            ) from error
        raise
    model.__class__ = model_class
    return _restored(model, info, folder_or_name)


class AddPositions(nn.Module):
    """Adds a position embedding to embedded inputs, in models of plain PyTorch such as `nn.TransformerEncoder`.

    The vectors go through a linear map that starts orthogonal, so that distances between positions are kept where
    there are channels enough, and a learned gain: at the start what is added has the root mean square `scale`, whatever
    the embedding's own. Map and gain are trained; the vectors only if `positions.trainable`.

    Args:
        positions: N positions in d channels; becomes a submodule.
        width: channels of the inputs.
        scale: root mean square, over all positions, of what is added at the start; that of the inputs is a good choice.

    Raises:
        MaedError: an argument cannot be.

    Example:
        >>> add = AddPositions(PositionEmbedding(torch.randn(49, 16)), width=32)
        >>> add(torch.randn(8, 49, 32)).shape
        torch.Size([8, 49, 32])
    """

    def __init__(self, positions: PositionEmbedding, width: int, *, scale: float = 1.0) -> None:
        super().__init__()
        if not isinstance(positions, PositionEmbedding):
            raise MaedError(f"positions: {type(positions).__name__}; it may be a PositionEmbedding")
        if isinstance(width, bool) or not isinstance(width, int) or width < 1:
            raise MaedError(f"width: {width!r}; it may be an integer of 1 or more")
        _check_positive("scale", scale)
        self.positions = positions
        self.linear = nn.Linear(positions.dim, width, bias=False)
        nn.init.orthogonal_(self.linear.weight)
        with torch.no_grad():
            start = _size(self.linear(positions.vectors.to(self.linear.weight)))
        # vectors of zeros are those of a model that is about to load its weights
        self.gain = nn.Parameter(torch.tensor(scale / start if start else float(scale)))

    def forward(self, x: Tensor, index: Tensor | None = None) -> Tensor:
        """Inputs with their positions added.

        Args:
            x: `(B, L, width)`.
            index: `(B, L)` or `(L,)` integers from 0 to N - 1: which position each input has, for models that see a
                subset. Where not given, the inputs have the first L positions.

        Returns:
            `(B, L, width)`, of the dtype of `x`.

        Raises:
            MaedError: a shape that does not fit, or more inputs than positions.
            IndexError: on a CPU, an index that is no position's, as `nn.Embedding` has it.
        """
        width = self.linear.out_features
        if x.ndim != 3 or x.shape[2] != width:
            raise MaedError(f"x: shape {tuple(x.shape)}; it may be (B, L, {width})")
        length, n = x.shape[1], self.positions.n
        if index is None:
            if length > n:
                raise MaedError(f"x: {length} inputs for {n} positions; it may have {n} or fewer")
            return x + self._added(self.positions.vectors[:length]).to(x.dtype)
        if index.dtype not in _INTEGERS or tuple(index.shape) not in ((length,), tuple(x.shape[:2])):
            raise MaedError(
                f"index: {index.dtype} of shape {tuple(index.shape)}; it may be integers of shape ({length},) or "
                f"{tuple(x.shape[:2])}"
            )
        # the map first: batches share it
        return x + F.embedding(index.long(), self._added(self.positions.vectors)).to(x.dtype)

    def _added(self, vectors: Tensor) -> Tensor:
        return self.gain * self.linear(vectors.to(self.linear.weight.dtype))  # (L, width)

    def extra_repr(self) -> str:
        """Channels for `print`."""
        return f"width={self.linear.out_features}"


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
            raise MaedError("pos: coordinates; it may be None, for a table has replaced the features of coordinates")
        if math.prod(index_dims) != n:
            raise MaedError(
                f"inputs: {sides} = {math.prod(index_dims)} positions, and the embedding in the model has {n}; "
                "they may have as many, or the embedding may be resampled and replaced again"
            )
        return self.table.to(device=device, dtype=dtype).expand(batch_size, -1, -1)

    def extra_repr(self) -> str:
        """N and channels for `print`."""
        return f"n={self.table.shape[0]}, dim={self.table.shape[1]}"


# Finding a table.


@dataclass(frozen=True)
class _Found:
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


def _parameter(found: _Found) -> nn.Parameter:
    """The tensor that holds the table."""
    parameter = found.module._parameters[found.key.rpartition(".")[2]]
    assert parameter is not None
    return parameter


def _rows(parameter: nn.Parameter) -> Tensor:
    """The table as `(rows, width)`, not a copy."""
    table = parameter.detach()
    return table[0] if table.ndim == 3 else table


def _is_table(shape: Sequence[int]) -> bool:
    return len(shape) == 2 or (len(shape) == 3 and shape[0] == 1)


def _search(model: nn.Module) -> _Found:
    """The one table of the model's inputs, by its name; decoders and their queries are left alone."""
    found: dict[str, _Found] = {}
    for path, _ in model.named_modules():
        if any("decoder" in part or "output" in part for part in path.split(".")):
            continue
        there = _at(model, f"{path}.position_embeddings".removeprefix("."))
        if there is not None and (there.kind == "fourier" or _is_table(_parameter(there).shape)):
            found[there.where] = there
    if len(found) == 1:
        return next(iter(found.values()))
    name = type(model).__name__
    if found:
        raise MaedError(f"model: {name} has several position tables; where= may be one of {', '.join(found)}")
    raise MaedError(
        f"model: {name} has no position table that is known; where= may be the path of its nn.Embedding or nn.Parameter"
    )


def _named(model: nn.Module, where: str) -> _Found:
    """The table at a path that the user gave."""
    found = _at(model, where)
    if found is None:
        module = _submodule(model, where)
        inside = list(module.named_parameters()) if module is not None else []
        if len(inside) != 1:  # a module around a single parameter stands for it
            raise MaedError(
                f"where: {where!r} is no nn.Embedding or nn.Parameter of {type(model).__name__}; it may be the path of "
                "one, such as transformer.wpe"
            )
        found = _at(model, f"{where}.{inside[0][0]}")
        assert found is not None
    if found.kind != "fourier" and not _is_table(_parameter(found).shape):
        shape = tuple(_parameter(found).shape)
        raise MaedError(f"where: {where!r} has the shape {shape}; it may be (rows, width) or (1, rows, width)")
    return found


def _at(model: nn.Module, path: str) -> _Found | None:
    """What lies at a path, if it is a table or Fourier features. Only what modules have registered is looked at."""
    from transformers.models.perceiver.modeling_perceiver import PerceiverFourierPositionEncoding

    parent, _, name = path.rpartition(".")
    holder = _submodule(model, parent)
    if holder is None:
        return None
    if holder._parameters.get(name) is not None:
        return _Found(path, "parameter", holder)
    module = holder._modules.get(name)
    if isinstance(module, nn.Embedding):
        return _Found(path, "embedding", module)
    if isinstance(module, (TablePositionEncoding, PerceiverFourierPositionEncoding)):
        return _Found(path, "fourier", module)
    return None


def _submodule(model: nn.Module, path: str) -> nn.Module | None:
    module: nn.Module | None = model
    for name in path.split(".") if path else ():
        module = module._modules.get(name) if module is not None else None
    return module


def _rows_that_stay(found: _Found) -> int:
    """How many rows at the start are not positions of inputs, as far as the model shows it."""
    module = found.module
    if isinstance(module, nn.Embedding):
        if isinstance(getattr(module, "offset", None), int):  # BART and its kin
            return int(module.offset)  # type: ignore[arg-type]
        return 0 if module.padding_idx is None else module.padding_idx + 1
    # as in transformers' vision models: a row for each token that is put before the patches
    special = sum(getattr(module, name, None) is not None for name in ("cls_token", "distillation_token"))
    patches = getattr(getattr(module, "patch_embeddings", None), "num_patches", None)
    rows = len(_rows(_parameter(found)))
    if isinstance(patches, int) and rows - special != patches:
        raise MaedError(
            f"offset: not given, and cannot be told from {found.where} with {rows} rows for {patches} patches; it may "
            "be the number of rows before those of the patches"
        )
    return special


# Filling it.


def _opened(embedding: PositionEmbedding | str | Path) -> PositionEmbedding:
    if isinstance(embedding, PositionEmbedding):
        return embedding
    if isinstance(embedding, (str, Path)):
        return open_embedding(embedding)
    raise MaedError(f"embedding: {type(embedding).__name__}; it may be a PositionEmbedding, its folder or name")


def _check_positive(argument: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
        raise MaedError(f"{argument}: {value!r}; it may be a number above 0")


def _check_numbers(rms: float | None, offset: int | None) -> None:
    if rms is not None:
        _check_positive("rms", rms)
    if offset is not None and (isinstance(offset, bool) or not isinstance(offset, int) or offset < 0):
        raise MaedError(f"offset: {offset!r}; it may be an integer of 0 or more")


def _check_n(model: nn.Module, found: _Found, positions: PositionEmbedding, offset: int) -> None:
    rows = len(_rows(_parameter(found)))
    if rows - offset == positions.n:
        return
    stay = f" (of {rows} rows, {offset} stay)" if offset else ""
    if rows <= offset:
        raise MaedError(f"offset: {offset}; it may be less than {rows}, the rows of {found.where}")
    raise MaedError(
        f"embedding: {positions.n} positions, and {found.where} of {type(model).__name__} has {rows - offset}{stay}; "
        f"it may be embedding.resampled('grid:HxW') or .resampled('line:{rows - offset}'), or the model may be "
        f"configured for {positions.n}"
    )


def _check_loaded(parameter: Tensor) -> None:
    if parameter.is_meta or not parameter.is_floating_point():
        raise MaedError(
            f"model: weights of {parameter.dtype} on {parameter.device}; they may be floats, loaded on a real device"
        )


def _size(values: Tensor) -> float:
    """Root mean square."""
    return float(values.detach().double().square().mean().sqrt())


def _size_or_default(values: Tensor, found: _Found, model: nn.Module) -> float:
    """Root mean square of the rows that are replaced; where they are zero, of what the model would have drawn."""
    size = _size(values)
    if not math.isfinite(size):
        raise MaedError(f"model: {found.where} holds numbers that are not finite; rms= may say how large to make it")
    return size or float(getattr(getattr(model, "config", None), "initializer_range", None) or 1.0)


def _features(module: nn.Module, positions: PositionEmbedding) -> Tensor:
    """The Fourier features that are replaced, `(1, N, dim)`, or the table that replaced them before.

    Their size hardly depends on the sides, which the embedding may not know: N is split as evenly as it goes.
    """
    if isinstance(module, TablePositionEncoding):
        return module.table
    dimensions = int(module.num_dimensions)  # type: ignore[arg-type]
    known = tuple(positions.geometry.shape) if positions.geometry is not None else ()
    sides = list(known) if len(known) == dimensions else _even_sides(positions.n, dimensions)
    return module(sides, 1, device=torch.device("cpu"), dtype=torch.float32)


def _even_sides(n: int, dimensions: int) -> list[int]:
    sides = []
    for left in range(dimensions, 1, -1):
        side = next(s for s in range(round(n ** (1 / left)), 0, -1) if n % s == 0)
        sides.append(side)
        n //= side
    return [*sides, n]


def _install(model: nn.Module, found: _Found, n: int) -> TablePositionEncoding:
    """Put a table, not yet filled, in the place of Fourier features, or of the table that replaced them before."""
    replaced: Any = found.module
    table = TablePositionEncoding(n, replaced.output_size(), replaced.num_dimensions)
    table.train(replaced.training)
    parent, _, name = found.where.rpartition(".")
    holder = _submodule(model, parent)
    assert holder is not None
    holder._modules[name] = table
    return table


# The record in config.json.

_NUMBERS = {"n": 1, "dim": 1, "offset": 0}
_TEXTS = ("where", "kind", "label", "source", "fingerprint")
_PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


def _keep_record(model: nn.Module, record: dict[str, Any]) -> None:
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_dict"):  # no model of transformers
        return
    others = [other for other in _records(config) if other["where"] != record["where"] and _holds(model, other)]
    copies: dict[int, Any] = {}
    own = copy.deepcopy(config, copies)  # models that were made from one config share it, but not their positions
    for module in model.modules():
        held = id(vars(module).get("config"))
        if held in copies:
            vars(module)["config"] = copies[held]
    own.maed_positions = [*others, record] if others else record


def _holds(model: nn.Module, record: dict[str, Any]) -> bool:
    """Whether the model has the table; one that was made anew from the config of another need not."""
    found = _at(model, record["where"])
    if found is None or found.kind != record["kind"]:
        return False
    return found.kind != "fourier" or isinstance(found.module, TablePositionEncoding)


def _records(config: Any) -> list[dict[str, Any]]:
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
        raise MaedError(f"config.maed_positions: {type(record).__name__}; it may be what replace_positions writes")
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
        raise MaedError(f"config.maed_positions: {shown}, which may not be; it may be what replace_positions writes")


def _recorded(model: nn.Module, record: dict[str, Any]) -> _Found:
    """The table of a record, also where a base model was saved and one with a head is loaded, or the reverse."""
    where, prefix = record["where"], f"{getattr(model, 'base_model_prefix', '')}."
    for path in (where, where.removeprefix(prefix), prefix + where):
        found = _at(model, path)
        if found is not None and found.kind == record["kind"]:
            return found
    raise MaedError(
        f"config.maed_positions: {where!r} is no {record['kind']} of {type(model).__name__}; it may be loaded by the "
        "class that saved it"
    )


def _make_room(model: nn.Module, record: dict[str, Any]) -> None:
    """Make a table of the recorded shape, for the checkpoint to fill."""
    found = _recorded(model, record)
    width = found.module.output_size()  # type: ignore[operator]
    if record["dim"] != width:
        raise MaedError(f"config.maed_positions: dim {record['dim']}; it may be {width} in {type(model).__name__}")
    _install(model, found, record["n"])


def _restored(model: _Pretrained, info: dict[str, Any], name: str | Path) -> _Pretrained:
    """Check that the tables came from the checkpoint, and freeze those that were frozen."""
    absent = set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}
    for record in _records(model.config):
        found = _recorded(model, record)
        if found.key in absent:
            raise MaedError(f"{name}: lacks {found.key}, or has it in another shape; config.json says that it is there")
        parameter = _parameter(found)
        shape = tuple(parameter.shape)
        if not _is_table(shape) or shape[-2:] != (record["offset"] + record["n"], record["dim"]):
            raise MaedError(
                f"{name}: {found.key} has the shape {shape}; it may be {record['offset'] + record['n']} rows of "
                f"{record['dim']}, as config.json says"
            )
        parameter.requires_grad_(record["trainable"])
        parameter._is_hf_initialized = True  # type: ignore[attr-defined]
        record["where"] = found.where
    return model
