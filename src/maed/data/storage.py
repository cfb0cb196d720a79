"""Where arrays of signals are kept: in memory, or in temporary files that arrays are mapped to."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from maed.errors import MaedError

_SHARE = 0.25  # of the memory that signals may take; more of them lie in temporary files


@dataclass(frozen=True)
class Storage:
    """New arrays, in memory or in a temporary file each.

    The files lie where Python's `tempfile` puts them, which the environment variable `TMPDIR` says, and have no names:
    the system removes them with the process, however it ends. What was read of them stays in the memory that nothing
    else needs.

    Args:
        on_disk: True if arrays lie in files.
    """

    on_disk: bool = False

    @classmethod
    def for_bytes(cls, needed: int, what: str, remedy: str) -> Storage:
        """Memory for at most a quarter of what the machine has, files for more.

        Args:
            needed: Bytes of all arrays together.
            what: What takes them, for messages: `inputs: 10 signals of 8 bytes`.
            remedy: What to do where they do not fit anywhere.

        Raises:
            MaedError: They fit neither in memory nor on the disk.
        """
        from maed.machine import memory  # wakes torch, which help can do without

        there = memory()
        if there is None or needed <= _SHARE * there:
            return cls()
        folder = tempfile.gettempdir()
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise MaedError(
                f"{what} take {needed / 2**30:.1f} GiB, and this machine has {there / 2**30:.1f} GiB of memory and "
                f"{free / 2**30:.1f} GiB of free disk in {folder}; {remedy}, or set TMPDIR to a folder on a larger disk"
            )
        warnings.warn(f"{what} take {needed / 2**30:.1f} GiB and are kept in temporary files in {folder}", stacklevel=4)
        return cls(on_disk=True)

    def empty(self, shape: Sequence[int], dtype: DTypeLike) -> np.ndarray:
        """A new array of any content."""
        if not self.on_disk or 0 in shape:
            return np.empty(tuple(shape), dtype=dtype)  # pages that nothing reaches are never touched
        with tempfile.TemporaryFile() as file:
            return np.memmap(file, dtype=dtype, mode="w+", shape=tuple(shape))

    def ones(self, shape: Sequence[int]) -> np.ndarray:
        """A new array of True."""
        array = self.empty(shape, bool)
        array[...] = True
        return array
