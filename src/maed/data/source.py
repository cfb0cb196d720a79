"""Sources and their splits as stored; signals are read once their rows are chosen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from maed.errors import MaedError
from maed.registry import SOURCES
from maed.settings import DataSettings

if TYPE_CHECKING:  # signals wake torch, which a list of sources can do without
    from maed.data.geometry import Geometry
    from maed.data.signals import SignalKind

Reader = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray | None]]
"""Rows `(m,)` -> values and mask. Values `(m, N)` ids, `(m, N, C)` numbers, or `(m, height, width, C)` pixels; mask
`(m, N)` bool or None. Both belong to the caller, who may write to them."""

PartName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Stored:
    """One split as it is stored.

    Args:
        size: Number of signals.
        read: Reads the signals at some rows, so that a limit saves the decoding of the rest.
        labels: `(size,)` or `(size, K)` as stored (numbers or names), later class indices; None without labels, and
            where they are no classes.
        groups: `(size,)` whom a signal is of (subject, speaker, station); None if that is not asked for.
        numbers: `(size, K)` float64, the labels where they are numbers, of K columns; made of `labels`.
    """

    size: int
    read: Reader
    labels: np.ndarray | None = None
    groups: np.ndarray | None = None
    numbers: np.ndarray | None = None

    @classmethod
    def of(cls, values: np.ndarray, labels: np.ndarray | None = None) -> Stored:
        """A split whose signals `(n, ...)` lie in an array already."""
        return cls(len(values), lambda rows: (values[rows], None), labels)

    def labels_at(self, rows: np.ndarray) -> np.ndarray | None:
        """The labels of some signals; None without labels."""
        return None if self.labels is None else self.labels[rows]


@dataclass(frozen=True)
class Source:
    """A data set before it is limited, split, permuted and normalized.

    Args:
        kind: `real` channels or `tokens`.
        parts: The stored splits, `train` among them; those that are missing are cut from it.
        classes: Class names in the order of the labels; empty without labels.
        vocabulary: Number of token ids, known before they are read of the bytes of text alone; 0 where the largest id
            decides.
        geometry: The true geometry if it is known. Pixels bring their own grid.
        normalization: The normalization that `auto` stands for.
        columns: The columns that are read, where it is a table.
        label_names: Names of the columns that labels come from.
    """

    kind: SignalKind
    parts: Mapping[PartName, Stored]
    classes: tuple[str, ...] = ()
    vocabulary: int = 0
    geometry: Geometry | None = None
    normalization: Literal["channel", "position"] = "position"
    columns: tuple[str, ...] = ()
    label_names: tuple[str, ...] = ()

    @property
    def train(self) -> Stored:
        """The stored training split."""
        return self.parts["train"]


class SourceType:
    """Base class of sources: a file of `maed/data/sources/`, or an entry point of the group `maed.sources`.

    The source called NAME is asked (`takes`) of `NAME`, of what begins with `NAME:`, and of paths that end in `.NAME`.

    Attributes:
        example: An example of how to name it, for messages and help: `photos`, `hub:OWNER/NAME`, `a .npy file`.
        names: Names to suggest for a misspelled one; the example, if it is a name, needs no repetition.
    """

    example: ClassVar[str]
    names: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def takes(cls, text: str) -> bool:
        """True if `text` is such a source; unless overridden, where it is the example."""
        return text == cls.example

    @classmethod
    def open(cls, text: str, settings: DataSettings) -> Source:
        """The source that `text` names.

        Raises:
            MaedError: The source cannot be used; the message is one line that names the argument.
        """
        raise NotImplementedError


class FileType(SourceType):
    """A source that is one file, whose suffix is the name of the source: the class `Npy` reads `.npy`."""

    @classmethod
    def takes(cls, text: str) -> bool:
        """The path of a file with that suffix."""
        path = Path(text).expanduser()
        return path.suffix.lower() == f".{cls.__name__.lower()}" and path.is_file()

    @classmethod
    def open(cls, text: str, settings: DataSettings) -> Source:
        """Read a file that is not empty."""
        path = Path(text).expanduser()
        if not path.stat().st_size:
            raise MaedError(f"source: {text!r} is an empty file")
        return cls.read(path, settings)

    @classmethod
    def read(cls, path: Path, settings: DataSettings) -> Source:
        """Read the file."""
        raise NotImplementedError


def listed() -> str:
    """All that a source may be, for messages and help: names first, then files, then what other packages add."""
    examples = sorted((SOURCES.get(name).example for name in SOURCES.built_in), key=lambda text: " " in text)
    return ", ".join([*examples, *SOURCES.plugged_in])


def with_classes(source: Source, names: Sequence[str] = ()) -> Source:
    """Turn the labels of every stored split into class indices, and check that there are two classes at least.

    Labels that are numbers are kept as such too. Several columns, fractions, and whole numbers most of which are there
    once are no classes: they are numbers alone.

    Args:
        source: a source with raw labels, or none in its training split.
        names: Class names that whole-number labels index; the sorted labels themselves where empty.

    Raises:
        MaedError: Labels in some splits only, a single class, missing ones, or several columns that are no numbers.
    """
    if source.train.labels is None:
        return replace(source, parts={name: replace(part, labels=None) for name, part in source.parts.items()})
    for name, part in source.parts.items():
        if part.labels is None:
            raise MaedError(f"labels: the stored {name} split has none, although the training split has")
    raw = {name: _plain_labels(part.labels) for name, part in source.parts.items()}
    # competitions publish test splits whose labels are all -1: no test can be made of them
    hidden = [name for name, labels in raw.items() if labels.dtype.kind == "i" and (labels < 0).all()]
    kept = {name: labels for name, labels in raw.items() if name == "train" or name not in hidden}
    numbers: dict[PartName, np.ndarray] = {
        name: labels.reshape(len(labels), -1).astype(np.float64)
        for name, labels in kept.items()
        if labels.dtype.kind in "if"
    }
    columns = {labels.shape[1] for labels in numbers.values()}
    if len(columns) > 1:
        raise MaedError(
            f"labels must have the same number of columns in all splits, got {' and '.join(map(str, sorted(columns)))}"
        )
    first = raw["train"]
    if first.ndim == 1 and first.dtype.kind != "f" and not (len(first) > 4 and _all_differ(first) and not names):
        indices, classes = _indices(kept, names)
    else:
        indices, classes = {}, ()
    parts = {name: replace(source.parts[name], labels=indices.get(name), numbers=numbers.get(name)) for name in kept}
    found = source.label_names or tuple(f"target_{i}" for i in range(max(columns, default=1)))
    return replace(source, parts=parts, classes=classes, label_names=found)


def _all_differ(labels: np.ndarray) -> bool:
    """True if most whole numbers are there once: measurements, not classes."""
    if labels.dtype.kind != "i":
        return False
    _, counts = np.unique(labels, return_counts=True)
    return bool((counts == 1).sum() > len(labels) // 2)


def first_line(error: Exception) -> str:
    """The first line of a library's error; it can quote the data."""
    line = (str(error).splitlines() or [""])[0][:300] or type(error).__name__
    return line if line.isprintable() else repr(line)[1:-1]


def _indices(
    labels: dict[PartName, np.ndarray], names: Sequence[str]
) -> tuple[dict[PartName, np.ndarray], tuple[str, ...]]:
    """Labels of every split as int64 class indices, and the class names."""
    if len({part.dtype.kind for part in labels.values()}) > 1:
        raise MaedError("labels must be numbers in all splits or names in all splits, got both")
    together = np.concatenate(list(labels.values()))
    found, inverse = np.unique(together, return_inverse=True)
    if len(found) < 2:
        raise MaedError(f"labels must have at least 2 classes; all {len(together)} signals are of class {found[0]}")
    if names and together.dtype.kind == "i":
        if found[0] < 0 or found[-1] >= len(names):
            raise MaedError(
                f"labels must be at least 0 where {len(names)} classes have names, got {found[0]} to {found[-1]}"
            )
        classes, inverse = tuple(names), together
    else:
        classes = tuple(str(value) for value in found)
    ends = np.cumsum([len(part) for part in labels.values()])[:-1]
    pieces = np.split(inverse.astype(np.int64).reshape(-1), ends)
    return dict(zip(labels, pieces, strict=True)), classes


def _plain_labels(labels: np.ndarray | None) -> np.ndarray:
    """Labels as int64, as strings, or as float64 where they have fractions or are of several columns."""
    labels = np.asarray(labels)
    if labels.ndim not in (1, 2) or (labels.ndim == 2 and labels.dtype.kind not in "biuf"):
        raise MaedError(
            f"labels must be one number or name for each signal, or several numbers, (n, K); got shape {labels.shape}"
        )
    if labels.dtype.kind == "O":
        if not all(isinstance(label, str) for label in labels):
            raise MaedError("labels must be whole numbers or names; some are missing or of another type")
        return labels.astype(str)
    if labels.dtype.kind == "U":
        return labels
    if labels.dtype.kind not in "biuf":
        raise MaedError(f"labels must be numbers or names, got {labels.dtype}")
    if labels.dtype.kind == "f" and not (finite := np.isfinite(labels)).all():
        row = int(np.argmin(finite.reshape(len(labels), -1).all(axis=1)))
        raise MaedError(
            f"labels must be finite; {(~finite).sum()} of {finite.size} are missing or infinite, the first in "
            f"signal {row}; remove such signals"
        )
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    whole = labels.dtype.kind in "biu" or bool((labels == np.round(labels)).all())
    return labels.astype(np.int64 if whole and labels.ndim == 1 else np.float64)
