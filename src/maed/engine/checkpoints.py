"""Checkpoints: reading any that this package writes as weights alone, and writing those of the plain loop."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch

from maed.files import replacing

_PLAIN = {"state_dict": dict, "global_step": int, "fingerprint": str}
_RESUMED = {"optimizer": dict, "scheduler": dict, "scaler": dict, "progress": dict}
_LIGHTNING = {
    "state_dict": dict,
    "optimizer_states": list,
    "lr_schedulers": list,
    "loops": dict,
    "callbacks": dict,
    "global_step": int,
}
"""What a checkpoint of Lightning holds, as far as resuming and describing it need it."""


def read_checkpoint(path: Path) -> dict[str, Any] | None:
    """Read a checkpoint of either loop, its weights not yet from disk; None where there is none, or another file.

    Of the pickle in it only what makes up tensors and plain values is carried out (`weights_only`). Files that are no
    zip archives are refused by `mmap`; torch before 2.6 could be made to run code from them (CVE-2025-32434).
    """
    if not path.is_file():
        return None
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # cut short, or not a checkpoint: torch raises many kinds
        return None
    return checkpoint if _holds(checkpoint, _PLAIN) or is_lightning(checkpoint) else None


def is_lightning(checkpoint: Any) -> bool:
    """Whether Lightning wrote a checkpoint."""
    return _holds(checkpoint, _LIGHTNING)


def write_checkpoint(path: Path, checkpoint: Mapping[str, Any]) -> None:
    """Write a checkpoint, whole or not at all."""
    with replacing(path) as temporary:
        torch.save(dict(checkpoint), temporary)


def resumable(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """Read what the plain loop's training `fingerprint` left in `folder`; None where that cannot be gone on from."""
    last, best = read_checkpoint(folder / "last.ckpt"), read_checkpoint(folder / "best.ckpt")
    if any(not _holds(found, _PLAIN) or is_lightning(found) for found in (last, best)) or not _holds(last, _RESUMED):
        return None
    assert last is not None
    assert best is not None
    if not last["fingerprint"] == best["fingerprint"] == fingerprint:
        return None
    return deepcopy(last)  # for the file is about to be replaced


def _holds(checkpoint: Any, kinds: Mapping[str, type]) -> bool:
    return isinstance(checkpoint, dict) and all(isinstance(checkpoint.get(name), kind) for name, kind in kinds.items())
