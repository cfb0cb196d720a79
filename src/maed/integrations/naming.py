"""Names: in which order a model has its channels, and where the positions of an embedding are among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from maed.embedding import PositionEmbedding
from maed.errors import MaedError, nearest

_NAMED = ("ch_names", "channel_names", "chs_info", "_chs_info", "info")  # braindecode's models, and MNE's info
_ROWS = ("chans_id", "channel_indices", "default_ch_idxs")  # of EEGPT, STEEGFormer and SignalJEPA in braindecode


@dataclass(frozen=True)
class Channels:
    """Names and positions of a model's channels.

    Args:
        shown: The attribute that names them.
        names: Names of the channels, in the order of the model's inputs.
        rows: Row of the table for each channel, `(channels,)` int64, if the table has rows for more electrodes.
    """

    shown: str
    names: list[str]
    rows: Tensor | None


def channels(around: Sequence[nn.Module]) -> Channels | None:
    """The channels that the modules around a table name, the nearest first; None if none does."""
    for module in around:
        for attribute in _NAMED:
            names = _names(vars(module).get(attribute))
            if names:
                tables = [each._buffers.get(name) for each in around for name in _ROWS]
                rows = [table.flatten().long().cpu() for table in tables if table is not None]
                shown = f"model.{attribute.removeprefix('_')}"
                return Channels(shown, names, next((each for each in rows if len(each) == len(names)), None))
    return None


def _names(value: Any) -> list[str]:
    """Names in what a model keeps: a list of them, MNE's list of channels, or its info; else none."""
    value = getattr(value, "ch_names", value)
    if isinstance(value, Mapping):
        value = value.get("ch_names")
    if not isinstance(value, (list, tuple)):
        return []
    names = [each.get("ch_name") if isinstance(each, Mapping) else each for each in value]
    return [str(name) for name in names] if all(isinstance(name, str) for name in names) else []


def order(positions: PositionEmbedding, names: Sequence[str], argument: str = "names") -> Tensor:
    """Find each position of an embedding among `names`: indices `(N,)` int64.

    Args:
        positions: An embedding with names.
        names: N names, each that of one position, in any order.
        argument: Name of the argument in errors.

    Raises:
        MaedError: The embedding has no names, or one of them is missing, or there twice, or the name of none.
    """
    known, given = positions.names, [str(name) for name in names]
    if known is None:
        raise MaedError(
            f"{argument} must be left out, because the positions of the embedding have no names; inputs must "
            "be in its order"
        )
    place = {name: i for i, name in enumerate(given)}
    if missing := [name for name in known if name not in place]:
        alike = [f"; did you mean {name!r}?" for name in given if _plain(name) == _plain(missing[0])]
        near = alike[0] if alike else nearest(missing[0], given)
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise MaedError(
            f"{argument} must hold each of {len(known)} positions, lacks {missing[0]!r}{more}{near}; "
            "positions.subset(names) keeps only those named"
        )
    if len(given) > len(known):
        odd = next(name for i, name in enumerate(given) if name not in known or name in given[:i])
        what = "occurs twice" if odd in known else "is not the name of a position"
        raise MaedError(
            f"{argument} must hold each of {len(known)} positions once; {odd!r} {what}; leave that input out"
        )
    return torch.tensor([place[name] for name in known])


def _plain(name: str) -> str:
    """A name without what electrodes' are spelled with or without: dots, blanks and capitals."""
    return name.replace(".", "").replace(" ", "").casefold()
