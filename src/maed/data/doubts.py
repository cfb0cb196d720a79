"""Checks for suspicious numbers: some are refused with a message that names them, others cause a warning."""

from __future__ import annotations

import warnings
from hashlib import blake2b

import numpy as np

from maed.errors import MaedError

_STAND_INS = (-99, -999, -9999, -99999, 99, 999, 9999, 99999, -32768, 32767, 65535)
_BYTE = 255  # the largest of bytes stands for missing values where the others are far below
_LARGE = 1e20  # fill values of netCDF and others are beyond
_MANY = 10  # positions for each signal, from which on an array may lie on its side
_LOOKED_AT = 1_024  # signals at a time, and in all for positions that repeat one another
_TOGETHER = 4_096  # positions


def refuse_stand_ins(values: np.ndarray) -> None:
    """Refuse a number that looks as if it stood for missing values: an outermost one, far from all others, and often.

    Of whole numbers 255 is one too, and so is -1 where all others are 0 or more and reach 2: -1, 0 and 1 alone may be
    three answers. Only the largest and the smallest of the values are looked at, which costs a pass over them.

    Args:
        values: Values of the training signals, NaN where one is known to be missing; or token ids.

    Raises:
        MaedError: There is one.
    """
    low, high = float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None))
    blocks = [values[at : at + _LOOKED_AT] for at in range(0, len(values), _LOOKED_AT)]
    whole = low == -1 or high == _BYTE
    if whole and values.dtype.kind == "f":
        whole = all(np.array_equal(block, np.rint(block), equal_nan=True) for block in blocks)
    for value in (low, high):
        usual = value in _STAND_INS or _LARGE <= abs(value) < np.inf or (whole and value == _BYTE)
        only_negative = whole and value == -1
        if not (usual or only_negative):
            continue
        count, least, most = 0, np.inf, -np.inf
        for block in blocks:
            same = np.isclose(block, value, rtol=1e-6)
            rest = block[~same & np.isfinite(block)]
            count += int(same.sum())
            if len(rest):
                least, most = min(least, float(rest.min())), max(most, float(rest.max()))
        if count < 2 or least > most:
            continue
        far = min(abs(value - least), abs(value - most)) > most - least
        if far if usual else (least >= 0 and most >= 2):
            raise MaedError(
                f"inputs: {count} of {values.size} values are {value:g}, far outside the others ({least:g} to "
                f"{most:g}); set missing_values (--data.missing_values) to [{value:g}] if they stand for missing "
                "values, or to [] if they are real"
            )


def doubt(values: np.ndarray, columns: tuple[str, ...]) -> None:
    """Say what looks wrong with numbers that can be used all the same: far more positions than signals, and twins.

    Args:
        values: `(n, N, C)` of the training signals.
        columns: N names of positions, or others that are not used.
    """
    count, positions = values.shape[:2]
    if positions > _MANY * count:
        warnings.warn(
            f"{positions} positions but only {count} training signals; rows must be signals and columns "
            "positions (transpose the array if it is the other way round)",
            stacklevel=3,
        )
    some = values[:_LOOKED_AT]
    seen: dict[bytes, int] = {}
    firsts = list(range(positions))
    for at in range(0, positions, _TOGETHER):
        for i, each in enumerate(np.ascontiguousarray(some[:, at : at + _TOGETHER].swapaxes(0, 1)), at):
            if (each != each[:1]).any():
                firsts[i] = seen.setdefault(blake2b(each, digest_size=16).digest(), i)
    twins = [(first, i) for i, first in enumerate(firsts) if first != i]
    if twins:
        first, second = (columns[i] if len(columns) == positions else str(i) for i in twins[0])
        warnings.warn(
            f"{len(twins)} of {positions} positions duplicate another one: {second} equals {first}", stacklevel=3
        )
