"""Public names of a package that are imported when they are first used: importing one room wakes no other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from maed.errors import naming_extra


def lazy(
    package: str, homes: Mapping[str, Sequence[str]], modules: Sequence[str] = ()
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the `__getattr__` and `__dir__` of a package.

    Args:
        package: The package's `__name__`.
        homes: The public names by the module of the package that they come from. No module may have a name of them:
            once imported, it would hide what goes by it.
        modules: Modules of the package that are public themselves.
    """
    home = {name: f"{package}.{module}" for module, names in homes.items() for name in names}

    def getattr_(name: str) -> Any:
        if name in modules:
            return import_module(f"{package}.{name}")
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            return getattr(import_module(home[name]), name)
        except ModuleNotFoundError as error:
            raise naming_extra(error) from error

    return getattr_, lambda: sorted([*home, *modules])
