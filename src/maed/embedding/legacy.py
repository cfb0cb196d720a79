"""The seed project's files: one numpy array, pickled by `torch.save`. Read without running anything in them."""

from __future__ import annotations

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maed.errors import MaedError

_LARGEST = 1 << 30  # bytes: an array of these files has under a megabyte


def read_legacy(path: str | Path) -> np.ndarray:
    """The array in a file such as the seed's `pos_embeddings_IMDB_tSNE_2048x64.pth`.

    A pickle is a program. This one may name four things, those that make up a numpy array, and is refused at the first
    other name, before anything of it is called.

    Returns:
        `(N, d)` float32.

    Raises:
        MaedError: no such file, not such a file, or one that holds anything but finite floats `(N, d)`.
    """
    path = Path(path)
    expected = "it may be a file of torch.save that holds one numpy array of finite floats (N, d)"
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(names) != 1:
                raise MaedError(f"{path}: holds no data.pkl; {expected}")
            if archive.getinfo(names[0]).file_size > _LARGEST:
                raise MaedError(f"{path}: larger than {_LARGEST} bytes; {expected}")
            content = archive.read(names[0])
    except FileNotFoundError:
        raise MaedError(f"{path}: no such file") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise MaedError(f"{path}: cannot be read ({error}); {expected}") from None
    try:
        array = _array(_Unpickler(io.BytesIO(content)).load())
    except MaedError as error:
        raise MaedError(f"{path}: {error}; {expected}") from None
    except Exception as error:  # whatever a broken pickle makes numpy raise
        raise MaedError(f"{path}: cannot be read ({type(error).__name__}); {expected}") from None
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise MaedError(f"{path}: holds numbers of shape {array.shape}, or some that are not finite; {expected}")
    return np.array(array, dtype=np.float32, order="C")  # a copy: the bytes of a pickle are read-only


def _latin1(text: str, encoding: str) -> bytes:
    """What old pickles call to write bytes as text; no other codec is looked up."""
    if encoding != "latin1":
        raise MaedError(f"names the encoding {encoding!r}, which is not read")
    return text.encode("latin1")


class _Stated:
    """Stands for an object of numpy's: it keeps what the pickle says of it, and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


def _array(found: Any) -> np.ndarray:
    """The array that a pickled `ndarray` describes, made by ourselves from its bytes.

    numpy's own `__setstate__` would believe any state; that is (version, shape, dtype, by columns?, bytes).
    """
    if not isinstance(found, _Stated):
        raise MaedError(f"holds {type(found).__name__}")
    _, shape, dtype, by_columns, content = found.state
    name, order = dtype.arguments[0], dtype.state[1]
    if name not in ("f2", "f4", "f8") or order not in ("<", ">", "="):
        raise MaedError(f"holds numbers of type {name!r}, which are not read")
    values = np.frombuffer(content, dtype=np.dtype(name).newbyteorder(order))
    return values.reshape(shape, order="F" if by_columns else "C")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Stated,
    ("numpy", "dtype"): _Stated,
    ("_codecs", "encode"): _latin1,
    ("numpy.core.multiarray", "_reconstruct"): _Stated,
    ("numpy._core.multiarray", "_reconstruct"): _Stated,
}


class _Unpickler(pickle.Unpickler):
    """Knows four names, none of them numpy's own; a file may not even import another one."""

    def find_class(self, module: str, name: str) -> Any:
        """What stands for the thing of that name."""
        if (module, name) not in _ALLOWED:
            raise MaedError(f"names {module}.{name}, which is never loaded")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Torch stores tensors so; an array has none."""
        raise MaedError("holds tensors beside the array")
