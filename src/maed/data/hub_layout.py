"""Data sets in the hub's layout: a folder of parquet files, or the hub itself."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from maed.data.source import PartName, Source, first_line
from maed.data.tables import from_tables, read_parquet
from maed.errors import MaedError, require_extra
from maed.settings import DataSettings

_AHEAD = 1_000  # rows of a stream that the next one is drawn from
_BATCH = 100

_PARTS: tuple[PartName, ...] = ("train", "validation", "test")


def known(name: str, repository: str, classes: Sequence[str], settings: DataSettings) -> Source:
    """A data set with a name of its own: from the folder `$MAED_DATA/NAME` where that exists, otherwise from the hub.

    Args:
        name: Name of the data set in `maed`.
        repository: `OWNER/NAME` on the hub.
        classes: Names of the classes, in the order of the labels.
        settings: See `from_tables`.
    """
    root = os.environ.get("MAED_DATA")
    local = Path(root) / name if root else None
    tables = read_folder(local) if local and local.is_dir() else download(repository, name, settings)
    return from_tables(tables, settings, classes, origin=name)


def unseen(path: Path) -> pa.Table | None:
    """The split of a folder in the hub's layout that models are not trained on: test, else validation, else train.

    None where the folder is not in that layout.
    """
    for part in reversed(_PARTS):
        place = _place(path, part)
        if place is not None:
            return read_parquet(_shards(place, part))
    return None


def read_folder(path: Path) -> dict[PartName, pa.Table]:
    """The tables of the splits in a folder; the test and validation ones may be missing.

    Raises:
        MaedError: No training files, files that cannot be read, or several data sets in one folder.
    """
    place = _place(path, "train")
    if place is None:
        raise MaedError(f"{path}: no train-*.parquet found; a folder must hold {{train,validation,test}}-*.parquet")
    shards = {part: _shards(place, part) for part in _PARTS}
    return {part: read_parquet(paths) for part, paths in shards.items() if paths}


def _place(path: Path, part: PartName) -> Path | None:
    """The path of a split's files in a folder; None if there are none."""
    candidates = [path, path / "data", *sorted(sub for sub in path.iterdir() if sub.is_dir() and sub.name != "data")]
    found = [place for place in candidates if place.is_dir() and _shards(place, part)]
    if found and found[0] not in (path, path / "data") and len(found) > 1:
        names = ", ".join(place.name for place in found)
        raise MaedError(f"{path}: holds several data sets; give one of these folders as the source: {names}")
    return found[0] if found else None


def _shards(path: Path, part: str) -> list[Path]:
    return sorted([*path.glob(f"{part}-*.parquet"), *path.glob(f"{part}.parquet")])


def download(name: str, short: str, settings: DataSettings) -> dict[PartName, pa.Table]:
    """The tables of a data set of the hub, or of its cache.

    With `data.streaming` nothing is stored on the disk: shards are read in random order, as far as `data.limit` needs,
    and rows are drawn from the next `_AHEAD`.

    Raises:
        MaedError: It cannot be had or read, has no split named train, or is to be streamed without a limit.
    """
    require_extra("source", "data", package="datasets")
    import datasets  # slow to import, and needed here alone

    if settings.streaming and settings.limit is None:
        raise MaedError("data.streaming needs data.limit, the number of training signals to read; got none")
    # datasets before 4.0 would ask, on a terminal, whether to run a script of the repository
    asks = "trust_remote_code" in inspect.signature(datasets.load_dataset).parameters
    safely = {"trust_remote_code": False} if asks else {}
    local = f"{short} may also be a folder in the hub's layout: its path as the source, or in $MAED_DATA"
    try:
        splits = datasets.load_dataset(name, streaming=settings.streaming, **safely)
        if "train" not in splits:
            raise MaedError(f"source must have a split named train; {name!r} has {', '.join(splits)}")
        there = {part: splits[part] for part in _PARTS if part in splits}
        return {
            part: _streamed(split, settings) if settings.streaming else _table(split) for part, split in there.items()
        }
    except (datasets.exceptions.DatasetNotFoundError, OSError) as error:  # ConnectionError is an OSError
        raise MaedError(f"source: {name!r} cannot be downloaded from the hub ({first_line(error)}); {local}") from None
    except (ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        if isinstance(error, MaedError):
            raise
        raise MaedError(f"source: {name!r} cannot be read ({first_line(error)})") from None


def _streamed(split: Any, settings: DataSettings) -> pa.Table:
    """As many rows of a split as the limit needs, even where the other splits are cut from it."""
    held_out = 1 - (1 - settings.validation) * (1 - settings.test)
    count = math.ceil((settings.limit or 0) / (1 - held_out)) + 1
    rows = split.shuffle(seed=settings.seed, buffer_size=_AHEAD).take(count).with_format("arrow")
    table: pa.Table = pa.concat_tables(rows.iter(batch_size=_BATCH))
    return table.replace_schema_metadata(split.features.arrow_schema.metadata) if split.features else table


def _table(split: object) -> pa.Table:
    """The Arrow table below a split, with the metadata that names its classes."""
    table: pa.Table = split.with_format("arrow")[:]  # type: ignore[attr-defined]
    return table.replace_schema_metadata(split.features.arrow_schema.metadata)  # type: ignore[attr-defined]
