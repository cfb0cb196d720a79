"""Files of tensors, written whole or not at all, each with a digest of its content that is checked when it is read."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from maed.errors import MaedError
from maed.files import damaged, written

_DIGEST = "sha256"


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a safetensors file; its metadata holds the SHA-256 of names, types, shapes and numbers."""
    own = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with written(path) as temporary:
        save_file(own, temporary, metadata={"format": "pt", _DIGEST: digest_of(own)})
        _sort_metadata(temporary)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file. One without a digest, as others and earlier versions write them, is taken as it is.

    Raises:
        MaedError: The file is missing, no safetensors file, or its content is not what was written.
    """
    if not path.is_file():
        raise MaedError(f"{path}: no such file")
    try:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            digest = (file.metadata() or {}).get(_DIGEST)
    except OSError:
        raise
    except Exception as error:  # safetensors has errors of its own, and lets some of Python's through
        raise damaged(path, f"not a safetensors file ({_line(error)})") from None
    if digest is not None and digest != digest_of(tensors):
        raise damaged(path)
    return tensors


def check_layers(layers: int, weights: Mapping[str, Tensor]) -> None:
    """Refuse more layers than there are tensors, before a model of so many is made, which might take forever.

    Raises:
        ValueError: There are more.
    """
    if layers > len(weights):
        raise ValueError(f"its {layers} layers are more than the {len(weights)} tensors beside it")


def _sort_metadata(path: Path) -> None:
    """Put the metadata in order: safetensors writes them in any, and equal content is to make equal files."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:  # as it is, but for names that safetensors escapes in another way
            file.seek(8)
            file.write(text.ljust(size))


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of names, types, shapes and numbers of tensors on the CPU."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _line(error: Exception) -> str:
    """A library's error as part of one line."""
    text = " ".join(str(error).split())[:240] or type(error).__name__
    return text if text.isprintable() else repr(text)
