"""Loading a model whose positions were replaced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from maed.errors import MaedError
from maed.integrations.finding import Found, at, install, is_table, keep, records_of, rows_of, tensor_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_Pretrained = TypeVar("_Pretrained", bound="PreTrainedModel")


def load_model(model_class: type[_Pretrained], folder_or_name: str | Path, **kwargs: Any) -> _Pretrained:
    """Load a model with replaced positions, as `model_class.from_pretrained` would not.

    `from_pretrained` alone keeps the values of tables, but it makes frozen ones trainable, and of a Perceiver whose
    Fourier features were replaced it drops the table and goes back to the features, as it goes back to sinusoids that
    are no part of the state dict (VideoMAE's). A checkpoint without replaced positions is loaded as `from_pretrained`
    does.

    Args:
        model_class: A class of transformers, such as `PerceiverForImageClassificationFourier` or `AutoModel`.
        folder_or_name: A folder that `save_pretrained` wrote, or a name on the hub.
        kwargs: Passed to `from_pretrained`; not `output_loading_info`.

    Returns:
        The model.

    Raises:
        MaedError: `config.maed_positions` is not what `replace_positions` writes, or fits neither class nor checkpoint.
    """
    from transformers import PreTrainedModel

    if "output_loading_info" in kwargs:
        raise MaedError("output_loading_info must be left out here; from_pretrained takes it")
    if not issubclass(model_class, PreTrainedModel):  # AutoModel and its like only choose a class
        automatic: Any = model_class
        model, info = automatic.from_pretrained(folder_or_name, output_loading_info=True, **kwargs)
        if any(record["kind"] in ("fourier", "buffer") for record in records_of(model.config)):
            return load_model(type(model), folder_or_name, **kwargs)
        return _restored(model, info, folder_or_name)

    records: list[dict[str, Any]] = []

    def init(self: Any, config: Any, *args: Any, **options: Any) -> None:
        model_class.__init__(self, config, *args, **options)
        records.extend(records_of(config))
        for record in records:
            if record["kind"] == "fourier":  # a table of the recorded shape, for the checkpoint to fill
                found = _recorded(self, record)
                width = found.module.output_size()  # type: ignore[operator]
                if record["dim"] != width:
                    name = type(self).__name__
                    raise MaedError(f"config.maed_positions: dim must be {width} in {name}, got {record['dim']}")
                install(self, found, record["n"])
            elif record["kind"] == "buffer":  # not always part of the state dict of its class
                keep(_recorded(self, record))

    # The class that loads differs only in its room for the table. Name and module are those of `model_class`, by which
    # transformers looks things up, and the model becomes one of `model_class` as soon as it is loaded.
    names = {"__module__": model_class.__module__, "__qualname__": model_class.__qualname__}
    loading: Any = type(model_class.__name__, (model_class,), {**names, "__init__": init})
    try:
        model, info = loading.from_pretrained(folder_or_name, output_loading_info=True, **kwargs)
    except RuntimeError as error:
        if records and "mismatch" in str(error):
            raise MaedError(
                f"{folder_or_name}: tensors do not have the shapes that its config.json says; see the report above"
            ) from error
        raise
    model.__class__ = model_class
    return _restored(model, info, folder_or_name)


def _recorded(model: nn.Module, record: dict[str, Any]) -> Found:
    """The table of a record, also where a base model was saved and one with a head is loaded, or the reverse."""
    where, prefix = record["where"], f"{getattr(model, 'base_model_prefix', '')}."
    for path in (where, where.removeprefix(prefix), prefix + where):
        found = at(model, path)
        if found is not None and found.kind == record["kind"]:
            return found
    raise MaedError(
        f"config.maed_positions: {type(model).__name__} has no {record['kind']} at {where!r}; load the "
        "model with the class that saved it"
    )


def _restored(model: _Pretrained, info: dict[str, Any], name: str | Path) -> _Pretrained:
    """Check that the tables came from the checkpoint, and freeze those that were frozen."""
    absent = set(info["missing_keys"]) | {key[0] for key in info["mismatched_keys"]}
    for record in records_of(model.config):
        found = _recorded(model, record)
        if found.key in absent:
            raise MaedError(f"{name}: {found.key} is missing or has another shape, although config.json lists it")
        table = tensor_of(found)
        shape = tuple(table.shape)
        if not is_table(shape) or rows_of(table).shape != (record["offset"] + record["n"], record["dim"]):
            raise MaedError(
                f"{name}: {found.key} must be {record['offset'] + record['n']} rows of {record['dim']}, as "
                f"config.json says, got shape {shape}"
            )
        table.requires_grad_(record["trainable"])
        table._is_hf_initialized = True  # type: ignore[attr-defined]
        record["where"] = found.where
    return model
