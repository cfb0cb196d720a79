"""What `config.json` says of positions that were replaced."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

from torch import nn

from maed.errors import MaedError
from maed.integrations.finding import TablePositionEncoding, at

_NUMBERS = {"n": 1, "dim": 1, "offset": 0}
_TEXTS = ("where", "kind", "label", "source", "fingerprint")
_PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


def keep_record(model: nn.Module, record: dict[str, Any]) -> None:
    """Write into a model's config, which becomes its own, where one of its tables came from."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "to_dict"):  # no model of transformers
        return
    others = [other for other in records_of(config) if other["where"] != record["where"] and _holds(model, other)]
    copies: dict[int, Any] = {}
    own = copy.deepcopy(config, copies)  # models that were made from one config share it, but not their positions
    for module in model.modules():
        held = id(vars(module).get("config"))
        if held in copies:
            vars(module)["config"] = copies[held]
    own.maed_positions = [*others, record] if others else record


def _holds(model: nn.Module, record: dict[str, Any]) -> bool:
    """Whether the model has the table; one that was made anew from the config of another need not."""
    found = at(model, record["where"])
    if found is None or found.kind != record["kind"]:
        return False
    return found.kind != "fourier" or isinstance(found.module, TablePositionEncoding)


def records_of(config: Any) -> list[dict[str, Any]]:
    """What `replace_positions` has written into the config; nobody's word for it is taken."""
    written = getattr(config, "maed_positions", None)
    if written is None:
        return []
    records = written if isinstance(written, list) else [written]
    for record in records:
        _check_record(record)
    return records


def _check_record(record: Any) -> None:
    if not isinstance(record, dict):
        raise MaedError(f"config.maed_positions: must be what replace_positions writes, got {type(record).__name__}")
    wrong = [name for name in _TEXTS if not isinstance(record.get(name), str)]
    wrong += [name for name, low in _NUMBERS.items() if type(record.get(name)) is not int or record[name] < low]
    if type(record.get("trainable")) is not bool:
        wrong.append("trainable")
    size = record.get("rms")
    if not isinstance(size, (int, float)) or isinstance(size, bool) or not 0 < size < math.inf:
        wrong.append("rms")
    if "where" not in wrong and not _PATH.fullmatch(record["where"]):
        wrong.append("where")
    if "kind" not in wrong and record["kind"] not in ("embedding", "parameter", "fourier"):
        wrong.append("kind")
    if wrong:
        shown = ", ".join(f"{name} {str(record.get(name))[:40]!r}" for name in wrong)
        raise MaedError(f"config.maed_positions: must be what replace_positions writes, got {shown}")
