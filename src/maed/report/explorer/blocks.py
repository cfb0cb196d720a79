"""Arrays as text in a page: numbers in 8 bits, gzip, base64, within a number of bytes."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_TYPES = {"uint8": "u8", "uint16": "u16", "uint32": "u32", "float32": "f32"}


@dataclass
class Blocks:
    """Arrays that go into a page, up to `budget` bytes of text; what does not fit is not put in.

    Args:
        budget: Bytes of base64 that all blocks may take together.
        texts: The blocks by their names.
    """

    budget: int
    texts: dict[str, str] = field(default_factory=dict)

    @property
    def left(self) -> int:
        """Bytes of text that may still be put in."""
        return self.budget - sum(map(len, self.texts.values()))

    def add(self, array: np.ndarray) -> dict[str, Any] | None:
        """Put an array in; returns what the page finds it by, None if it does not fit."""
        stored = np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<")))
        text = base64.b64encode(gzip.compress(stored.tobytes(), 6, mtime=0)).decode("ascii")
        if len(text) > self.left:
            return None
        name = f"block-{len(self.texts)}"
        self.texts[name] = text
        return {"block": name, "type": _TYPES[array.dtype.name], "shape": list(array.shape)}

    def add_matrix(self, matrix: np.ndarray) -> dict[str, Any] | None:
        """Put a matrix in as codes of 256 levels, or of fewer, which compress better, where those do not fit."""
        for count in (256, 64, 16):
            codes, levels = quantized(matrix, count)
            if (reference := self.add(codes)) is not None:
                return {"codes": reference, "levels": [float(f"{level:.6g}") for level in levels.tolist()]}
        return None

    def add_vectors(self, vectors: np.ndarray, bits: int = 8) -> dict[str, Any] | None:
        """Put numbers in as 8 or 16 bits, all channels on one scale, so that distances keep their proportions."""
        middle = 2 ** (bits - 1)
        scale = float(np.abs(vectors).max(initial=0.0)) / (middle - 1) or 1.0
        codes = np.round(np.asarray(vectors, dtype=np.float64) / scale + middle)
        reference = self.add(codes.astype(np.uint8 if bits == 8 else np.uint16))
        return None if reference is None else {"codes": reference, "scale": scale, "middle": middle}


def quantized(matrix: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """A matrix as codes of `count` levels, close together around the median, where most entries of a similarity are.

    Entries are at most 2 / `count` of the root of their range from a level, in the scale of the root of their distance
    from the median.

    Args:
        matrix: `(N, N)`; its diagonal is not looked at for the range.
        count: Levels, 256 at most.

    Returns:
        Codes like `matrix`, uint8, and the levels `(count,)` float64, ascending.
    """
    values = matrix.astype(np.float32, copy=True)
    np.fill_diagonal(values, np.nan)
    center = float(np.nanmedian(values[:: max(1, len(values) // 512)]))
    values -= center
    top = float(np.nanmax(np.abs(values), initial=0.0)) or 1.0
    roots = np.sign(values) * np.sqrt(np.abs(values) / top)
    codes = np.nan_to_num(np.round((roots + 1) / 2 * (count - 1))).astype(np.uint8)
    grid = np.linspace(-1, 1, count)
    return codes, center + np.sign(grid) * grid**2 * top
