"""Registries of what users choose by name: files of a folder, or entry points, listed without importing them."""

from __future__ import annotations

from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from keyword import iskeyword
from pathlib import Path
from typing import Any, Generic, TypeVar

from maed.errors import MaedError, nearest

__all__ = ["ARCHITECTURES", "BASELINES", "ENCODINGS", "ESTIMATORS", "REDUCTIONS", "SOURCES", "TASKS", "Registry"]

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one kind of thing, and the class behind each.

    A built-in's name is that of its file, with hyphens for underscores: `mean_loss.py` is `mean-loss`, and holds the
    class `MeanLoss`; `none.py` holds `None_`. Another package adds one by an entry point of the group `maed.KIND`,
    under a name of its own:

        [project.entry-points."maed.estimators"]
        my-estimator = "my_package:MyEstimator"

    A script or notebook adds one for its own process by `add`.

    Args:
        kind: Plural, as in the group of entry points: `estimators`.
        folder: Folder of the built-in ones below `maed/`: `similarity/estimators`. Files that start with `_` are not
            names.
    """

    def __init__(self, kind: str, folder: str) -> None:
        self.kind, self.folder, self.added = kind, folder, dict[str, type[T]]()

    def add(self, name: str, found: type[T]) -> None:
        """Add a class of this process under a name; a later one of the same name replaces it.

        Args:
            name: A name that no built-in has.
            found: The class, derived from the base class of its kind.

        Raises:
            MaedError: The name is that of a built-in.
        """
        if name in self.built_in:
            raise MaedError(f"name must differ from those of the built-in {self.kind}, got {name!r}")
        self.added[name] = found

    @cached_property
    def built_in(self) -> tuple[str, ...]:
        """Names of the files, sorted."""
        files = (Path(__file__).parent / self.folder).glob("*.py")
        return tuple(sorted(file.stem.replace("_", "-") for file in files if not file.stem.startswith("_")))

    @cached_property
    def plugged_in(self) -> dict[str, EntryPoint]:
        """Entry points by name; one that takes the name of a built-in is left out."""
        found = entry_points(group=f"maed.{self.kind}")
        return {point.name: point for point in sorted(found) if point.name not in self.built_in}

    @property
    def names(self) -> tuple[str, ...]:
        """All names, built-in ones first."""
        return tuple(dict.fromkeys((*self.built_in, *self.plugged_in, *self.added)))

    def check(self, argument: str, name: str) -> str:
        """Return `name` if it is known.

        Args:
            argument: The argument or setting that a message names.
            name: A name.

        Raises:
            MaedError: The name is unknown; the message has the nearest one.
        """
        if (
            name in self.built_in or name in self.added or name in self.plugged_in
        ):  # plug-ins are looked for only where it takes one
            return name
        singular = self.kind.removesuffix("s")
        known = ", ".join(self.names)
        raise MaedError(f"{argument}: unknown {singular} {name!r}{nearest(name, self.names)} (known: {known})")

    def get(self, name: str, argument: str | None = None) -> type[T]:
        """The class behind a name, imported now.

        Args:
            name: One of `names`.
            argument: Name of the setting in messages; None for the kind, in the singular.

        Raises:
            MaedError: No such name, or a plug-in that cannot be imported.
        """
        self.check(argument or self.kind.removesuffix("s"), name)
        if name in self.built_in:
            module = import_module(f"maed.{self.folder.replace('/', '.')}.{name.replace('-', '_')}")
            class_name = "".join(part.capitalize() for part in name.split("-"))
            found: Any = getattr(module, class_name + "_" * iskeyword(class_name))
            return found
        if name in self.added:
            return self.added[name]
        point = self.plugged_in[name]
        try:
            return point.load()
        except (ImportError, AttributeError) as error:
            raise MaedError(f"{self.kind}: the plug-in {name!r} ({point.value}) cannot be imported: {error}") from error


SOURCES: Registry[Any] = Registry("sources", "data/sources")
ESTIMATORS: Registry[Any] = Registry("estimators", "similarity/estimators")
BASELINES: Registry[Any] = Registry("baselines", "similarity/baselines")
REDUCTIONS: Registry[Any] = Registry("reductions", "embedding/reductions")
ENCODINGS: Registry[Any] = Registry("encodings", "encodings")
TASKS: Registry[Any] = Registry("tasks", "tasks")
ARCHITECTURES: Registry[Any] = Registry("architectures", "models/architectures")
