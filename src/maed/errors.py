"""The one error that users are meant to read, and the check that words it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class MaedError(ValueError):
    """Input that cannot be used. The message is one line: the argument, what it was, what it may be.

    The command line prints it without a traceback and exits with code 2. A message begins with the argument or setting
    that it is about and a colon.
    """

    @property
    def argument(self) -> str | None:
        """The argument, setting or file that the message is about; None where it does not begin with one."""
        name, colon, _ = str(self).partition(": ")
        return name if colon else None


class NotFiniteError(MaedError):
    """A training whose loss left the finite numbers."""


def one_of(argument: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if it is among `allowed`, otherwise raise `MaedError` with the nearest name."""
    names = list(allowed)
    if value in names:
        return value
    raise MaedError(f"{argument}: {value!r} is unknown{nearest(value, names)}; it may be {', '.join(names)}")


def nearest(value: str, names: Iterable[str]) -> str:
    """`", did you mean 'x'?"` for the name closest to `value`, or nothing where none is close."""
    close = get_close_matches(value, list(names), n=1, cutoff=0.5)
    return f", did you mean {close[0]!r}?" if close else ""
