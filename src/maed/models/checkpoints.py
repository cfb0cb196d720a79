"""Checkpoints of transformers' Perceivers to start from: a folder of `save_pretrained`, or a name on the hub."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PerceiverConfig, PreTrainedModel

from maed.data.source import first_line
from maed.errors import MaedError
from maed.files import read_json

SIZES = {
    "latents": "num_latents",
    "latent_width": "d_latents",
    "layers": "num_self_attends_per_block",
    "blocks": "num_blocks",
    "heads": "num_self_attention_heads",
    "cross_heads": "num_cross_attention_heads",
}
"""Settings of `perceiver` that a checkpoint brings along, and their names in transformers' config."""

BEYOND = (
    *("qk_channels", "v_channels", "cross_attention_shape_for_attention", "self_attention_widening_factor"),
    *("cross_attention_widening_factor", "hidden_act", "layer_norm_eps", "use_query_residual", "initializer_range"),
)
"""Further entries of transformers' config that determine the model and are not settings of ours."""

_FACTS = {"d_model", *SIZES.values(), *BEYOND}
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_DECODER = "perceiver.decoder."
_HEAD = f"{_DECODER}decoder.final_layer."


def checkpoint_config(name: str) -> PerceiverConfig:
    """The config of a checkpoint, as far as it describes the encoder.

    Raises:
        MaedError: The checkpoint cannot be read, or is of another model.
    """
    path = _find(name, "config.json")
    stored = read_json(path)
    kind = stored.get("model_type") if isinstance(stored, dict) else None
    if kind != "perceiver":
        raise MaedError(f"perceiver.checkpoint must be of model type perceiver; {path} is of {kind!r}")
    return built_config({key: stored[key] for key in _FACTS if key in stored}, path)


def built_config(facts: dict[str, Any], where: Path | str) -> PerceiverConfig:
    """Transformers' config of these facts; what cannot be one is refused, naming the file they come from."""
    plain = all(value is None or isinstance(value, (bool, int, float, str)) for value in facts.values())
    try:
        if not plain or not facts.keys() <= _FACTS:
            raise ValueError("not in the form that maed writes")
        return PerceiverConfig(**facts)
    except Exception as error:  # transformers' checks have errors of several libraries
        raise MaedError(f"{where}: not the config.json of a Perceiver ({first_line(error)})") from None


def checkpoint_weights(name: str) -> dict[str, Tensor]:
    """The tensors of a checkpoint, by the names that classifiers have them under.

    Older ones are pickles; of those only what makes up tensors is carried out (`weights_only`), and files that are no
    zip archives are refused by `mmap` (see `maed.engine.checkpoints.read_checkpoint`).

    Raises:
        MaedError: They cannot be had or read.
    """
    path = _find(name, *_WEIGHTS)
    try:
        weights = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        )
        prefix = "" if any(key.startswith("perceiver.") for key in weights) else "perceiver."
        return {prefix + key: tensor for key, tensor in weights.items() if isinstance(tensor, Tensor)}
    except Exception as error:  # safetensors and torch raise many kinds
        raise MaedError(f"perceiver.checkpoint: {path} cannot be read ({first_line(error)})") from None


def start_from(model: PreTrainedModel, weights: dict[str, Tensor], name: str, *, table: str) -> None:
    """Fill a model from a checkpoint; its position table is left out, and its decoder may start anew, which is said.

    Args:
        model: a classifier of transformers.
        weights: Weights, from `checkpoint_weights`.
        name: The user's name for the checkpoint.
        table: Name of the position table.

    Raises:
        MaedError: a tensor is missing or of another shape; the first is named, with both shapes.
    """
    wanted = {key: tensor for key, tensor in model.state_dict().items() if key != table}
    anew = []
    for key, tensor in wanted.items():
        found = weights.get(key)
        if found is not None and found.shape == tensor.shape:
            continue
        if key.startswith(_HEAD) or (found is None and key.startswith(_DECODER)):
            anew.append(key)
        elif found is None:
            raise MaedError(f"perceiver.checkpoint: {name} lacks {key}, of shape {tuple(tensor.shape)} here")
        else:
            raise MaedError(
                f"perceiver.checkpoint: {key} must have shape {tuple(tensor.shape)} here; {name} has "
                f"{tuple(found.shape)}"
            )
    if anew:
        part = "last layer" if all(key.startswith(_HEAD) for key in anew) else "decoder"
        there = weights.get(f"{_HEAD}bias")
        of = "is of no classifier" if there is None else f"is of {len(there)} classes"
        warnings.warn(
            f"perceiver.checkpoint: {name} {of}, and the data have {model.config.num_labels}: its {part} is "
            "trained from the start",
            stacklevel=2,
        )
    model.load_state_dict({key: weights[key] for key in wanted if key not in anew}, strict=False)


def _find(name: str, *files: str) -> Path:
    """The first of `files` that a folder, or the hub, has."""
    folder = Path(name)
    if folder.is_dir():
        for file in files:
            if (folder / file).is_file():
                return folder / file
        raise MaedError(f"perceiver.checkpoint: {name} holds no {' or '.join(files)}")
    owner, _, rest = name.partition("/")
    reason = ""
    if owner and rest and "/" not in rest and not name.startswith(".") and not folder.exists():
        try:
            return _download(name, *files)
        except Exception as error:  # the hub's client lets errors of its transport through
            reason = f", and its {files[0]} is not available from the hub ({first_line(error)[:240]})"
    raise MaedError(
        "perceiver.checkpoint must be a folder that transformers' save_pretrained wrote, OWNER/NAME of "
        f"the hub, or null for random weights; {name!r} is no folder{reason}"
    )


def _download(name: str, file: str, *others: str) -> Path:
    """A file of the hub, or the first of `others` where the hub has none of that name."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)  # its attempts, one by one, are not the user's business
    try:
        return Path(hf_hub_download(name, file))
    except EntryNotFoundError as error:
        if not others or isinstance(error, LocalEntryNotFoundError):  # the latter: the hub could not be asked
            raise
        return _download(name, *others)
    finally:
        logger.setLevel(level)
