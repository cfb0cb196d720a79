"""Checkpoints: reading any that this package writes as weights alone, and writing those of the plain loop."""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maed.files import written
from maed.run_folder import BEST, LAST

_PLAIN = {"state_dict": dict, "global_step": int, "fingerprint": str}
_RESUMED = {"optimizer": dict, "scheduler": dict, "scaler": dict, "progress": dict, "losses": Tensor}
_LIGHTNING = {
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
    "global_step": int,
}
"""Types of the entries of a Lightning checkpoint that resuming and describing it need."""


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint of either loop, its weights not yet from disk; None if there is none, or a damaged one.

    Of every part the archive holds a checksum (CRC-32), which is checked.
    Of the pickle in it only what makes up tensors and plain values is carried out (`weights_only`). Files that are no
    zip archives are refused by `mmap`; torch before 2.6 could be made to run code from them (CVE-2025-32434).
    """
    if not path.is_file():
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            whole = archive.testzip() is None
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True) if whole else None
    except Exception:  # cut short, or not a checkpoint: zipfile and torch raise many kinds
        checkpoint = None
    if _holds(checkpoint, _PLAIN) or is_lightning(checkpoint):
        return checkpoint
    return None


def read_own(path: Path) -> dict[str, Any] | None:
    """A checkpoint to go on from; one that is there and cannot be read is named in a warning."""
    found = read_checkpoint(path)
    if found is None and path.exists():
        warnings.warn(
            f"{path}: damaged, or not a checkpoint of this version; training starts again from the beginning",
            stacklevel=3,
        )
    return found


def is_lightning(checkpoint: Any) -> bool:
    """True if Lightning wrote a checkpoint."""
    return _holds(checkpoint, _LIGHTNING)


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    with written(path) as temporary:
        torch.save(dict(checkpoint), temporary)


def resumable(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Read what the plain loop's training `fingerprint` left in `folder`; None if that cannot be gone on from."""
    last = read_own(folder / LAST)
    if last is None or not _holds(last, _PLAIN | _RESUMED) or last["fingerprint"] != fingerprint:
        return None
    if last["progress"].get("best") is not None:  # a validation has been made
        best = read_own(folder / BEST)
        if best is None or not _holds(best, _PLAIN) or best["fingerprint"] != fingerprint:
            return None
    return deepcopy(last)  # for the file is about to be replaced


def _holds(checkpoint: Any, kinds: Mapping[str, type]) -> bool:
    return isinstance(checkpoint, dict) and all(isinstance(checkpoint.get(name), kind) for name, kind in kinds.items())
