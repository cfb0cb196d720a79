"""Arrays that take long to compute, kept in a file of the run folder with what they were made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from maed.files import replacing


class Kept:
    """A file of named arrays: each is taken from there if it was made of the same, computed and added otherwise.

    Args:
        path: a safetensors file; one that cannot be read counts as absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays: dict[str, np.ndarray] = {}
        self._made_of: dict[str, str] = {}
        try:
            with safe_open(path, framework="numpy") as file:
                self._made_of = dict(file.metadata() or {})
                self._arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception:  # absent, cut short or something else: readers raise many kinds
            self._arrays, self._made_of = {}, {}

    def get(self, name: str, made_of: dict[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array `name`; computed by `make`, and written at once, unless one made of the same is there."""
        text = json.dumps(made_of, sort_keys=True)
        if self._made_of.get(name) != text or name not in self._arrays:
            self._arrays[name] = np.ascontiguousarray(make())
            self._made_of[name] = text
            metadata = {key: self._made_of[key] for key in self._arrays if key in self._made_of}
            with replacing(self.path) as temporary:
                save_file(self._arrays, temporary, metadata=metadata)
        return self._arrays[name]


def fingerprint(array: np.ndarray) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
