"""Reading the folder of a position embedding: strict, and never more than numbers."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from maed.data.geometry import GeometryKind
from maed.errors import MaedError
from maed.files import read_json

SCHEMA = 1
_FILES = ("config.json", "model.safetensors")


def find_files(name: str | Path, *, revision: str | None, **download: Any) -> tuple[Path, Path]:
    """Where `config.json` and `model.safetensors` lie, downloaded if `name` is one of the hub."""
    folder = Path(name)
    if folder.is_dir():
        return folder / _FILES[0], folder / _FILES[1]
    if folder.exists() or str(name).count("/") != 1 or not all(str(name).split("/")) or str(name).startswith("."):
        raise MaedError(
            f"embedding: {str(name)!r} is no folder; it may be one that maed wrote, or OWNER/NAME of the hub"
        )
    try:
        config, model = (Path(hf_hub_download(str(name), file, revision=revision, **download)) for file in _FILES)
    except (HfHubHTTPError, HFValidationError, OSError, ValueError, RuntimeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MaedError(f"embedding: {str(name)!r} is no folder, and cannot be had from the hub ({reason})") from None
    return config, model


def checked_config(path: Path) -> dict[str, Any]:
    """`config.json`, refused unless it describes a position embedding of this schema."""
    config = read_json(path)
    found = config.get("schema") if isinstance(config, dict) else None
    if found != SCHEMA:
        raise MaedError(f"{path}: schema {found}; it may be a position embedding of schema {SCHEMA}")
    lacking = [name for name in ("n", "d", "source") if name not in config]
    if lacking:
        raise MaedError(
            f"{path}: lacks {', '.join(lacking)}; it may be a position embedding of schema {SCHEMA}, which has them"
        )
    kinds = {"n": int, "d": int, "source": str, "geometry": (dict, type(None))}
    kinds |= {"provenance": (dict, type(None)), "made_with": (dict, type(None))}
    for name, kind in kinds.items():
        if not isinstance(config.get(name), kind):  # type: ignore[arg-type]
            raise MaedError(f"{path}: {name} is {config.get(name)!r}, which it may not be")
    geometry = config.get("geometry")
    if geometry:
        shape = geometry.get("shape") or []
        fits = isinstance(shape, list) and all(isinstance(side, int) and side > 0 for side in shape)
        if geometry.get("kind") not in get_args(GeometryKind) or not fits or (shape and np.prod(shape) != config["n"]):
            raise MaedError(
                f"{path}: geometry is {geometry!r}; it may be a kind and a shape of {config['n']} positions"
            )
    return config


def checked_tensors(path: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors, refused unless they are just what the config describes."""
    with readable(path):
        tensors = load_file(path)
    expected = {"vectors"} | ({"coordinates"} if config.get("geometry") else set())
    if set(tensors) != expected:
        raise MaedError(f"{path}: holds {sorted(tensors)}; it may hold {sorted(expected)}")
    shape = tuple(tensors["vectors"].shape)
    if shape != (config["n"], config["d"]):
        raise MaedError(f"{path}: vectors of shape {shape}, config.json says ({config['n']}, {config['d']})")
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or len(tensor) != config["n"]:
            raise MaedError(f"{path}: {name} of shape {tuple(tensor.shape)}; they may have {config['n']} rows")
        if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
            raise MaedError(f"{path}: {name} of {tensor.dtype}, or not finite; they may be finite floats")
    if "fingerprint" in config and config["fingerprint"] != fingerprint_of(tensors["vectors"]):
        raise MaedError(
            f"{path}: its vectors are not those that config.json was written with (a stopped or mixed copy)"
        )
    return tensors


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors of reading a safetensors file, as one line."""
    if not path.is_file():
        raise MaedError(f"{path}: no such file")
    try:
        yield
    except SafetensorError as error:
        raise MaedError(f"{path}: not a safetensors file ({error})") from None


def fingerprint_of(vectors: Tensor) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of vectors, as little-endian float32."""
    content = np.ascontiguousarray(vectors.detach().cpu().float().numpy(), dtype="<f4")
    return hashlib.sha256(content.tobytes()).hexdigest()[:16]
