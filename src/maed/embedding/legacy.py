"""The original's files: one numpy array, pickled by `torch.save`. Read without running anything in them."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maed.errors import MaedError

_LARGEST = 1 << 30  # bytes: an array of these files has under a megabyte
_STEPS = 200  # of the pickle's program: an array takes some 50
_OPCODES = re.compile(
    "PROTO|FRAME|STOP|MARK|MEMOIZE|((LONG_)?BIN)?(PUT|GET)|(STACK_)?GLOBAL|REDUCE|BUILD|NONE|NEWTRUE|NEWFALSE"
    "|(EMPTY_)?TUPLE[123]?|(BIN)?INT[12]?|LONG1?|UNICODE|STRING|(SHORT_)?BIN(UNICODE|STRING|BYTES)8?"
)
"""Steps that arrays are made of; the names that they may look up are those in `_ALLOWED`."""


def read_legacy(path: str | Path) -> np.ndarray:
    """The array in a file such as the original's `pos_embeddings_IMDB_tSNE_2048x64.pth`.

    A pickle is a program. This one may name four things, those that make up a numpy array, and is refused at the first
    other name, before anything of it is called.

    Returns:
        `(N, d)` float32.

    Raises:
        MaedError: No such file, not such a file, or one that holds anything but finite floats `(N, d)`.
    """
    path = Path(path)
    expected = "it must be a file of torch.save that holds one numpy array of finite floats (N, d)"
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl")]
            if len(names) != 1:
                raise MaedError(f"{path}: holds no data.pkl; {expected}")
            found = archive.getinfo(names[0])
            if found.file_size > _LARGEST:
                raise MaedError(f"{path}: larger than {_LARGEST} bytes; {expected}")
            if found.compress_type != zipfile.ZIP_STORED:  # torch never compresses, and a bomb has to
                raise MaedError(f"{path}: its data.pkl is compressed; {expected}")
            content = archive.read(found)
    except FileNotFoundError:
        raise MaedError(f"{path}: no such file") from None
    except MaedError:
        raise
    except Exception as error:  # whatever a broken archive makes zipfile raise
        raise MaedError(f"{path}: cannot be read ({_shown(error) or type(error).__name__}); {expected}") from None
    try:
        _check_program(content)
        array = _array(_Unpickler(io.BytesIO(content)).load())
    except MaedError as error:
        raise MaedError(f"{path}: {error}; {expected}") from None
    except Exception as error:  # whatever a broken pickle makes numpy raise
        raise MaedError(f"{path}: cannot be read ({type(error).__name__}); {expected}") from None
    with np.errstate(over="ignore"):  # beyond float32 becomes infinite, which is refused
        array = np.array(array, dtype=np.float32, order="C")  # a copy: the bytes of a pickle are read-only
    if array.ndim != 2 or not array.size or not np.isfinite(array).all():
        raise MaedError(f"{path}: holds numbers of shape {array.shape}, or some that are not finite; {expected}")
    return array


def _shown(found: object) -> str:
    """Something of a file as a part of one line; only of what has a short text to begin with."""
    text = str(found)[:80]
    return text if text.isprintable() else repr(text)[1:-1]


def _check_program(content: bytes) -> None:
    """Refuse a pickle that does more than to make up an array, before any of it is carried out.

    A few bytes may ask for a memo of 2^32 places, or for tuples of tuples whose hash or text would take years.
    """
    for step, (opcode, argument, _) in enumerate(pickletools.genops(content)):
        if not _OPCODES.fullmatch(opcode.name):
            raise MaedError(f"holds more than an array (pickle opcode {opcode.name})")
        if step > _STEPS or (opcode.name.endswith("PUT") and argument > _STEPS):  # type: ignore[operator]
            raise MaedError("holds more than an array (too many pickle opcodes)")


class _Latin1:
    """Stand-in for the function that old pickles call to encode text as bytes; no other codec is looked up."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise MaedError("uses a text encoding other than latin1, which is not read")
        return text.encode("latin1")

    def __setstate__(self, state: Any) -> None:
        raise MaedError("modifies an object that it may only call")


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
        shown = _shown(name) if isinstance(name, str) else type(name).__name__
        raise MaedError(f"holds numbers of type {shown!r}, which are not read")
    values = np.frombuffer(content, dtype=np.dtype(name).newbyteorder(order))
    return values.reshape(shape, order="F" if by_columns else "C")


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _Stated,
    ("numpy", "dtype"): _Stated,
    ("_codecs", "encode"): _Latin1(),
    ("numpy.core.multiarray", "_reconstruct"): _Stated,
    ("numpy._core.multiarray", "_reconstruct"): _Stated,
}


class _Unpickler(pickle.Unpickler):
    """Knows four names, none of them numpy's own; a file may not even import another one."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global of a pickle."""
        if (module, name) not in _ALLOWED:
            raise MaedError(f"names {_shown(f'{module}.{name}')}, which is never loaded")
        return _ALLOWED[module, name]
