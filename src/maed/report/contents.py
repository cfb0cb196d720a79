"""What a run folder holds, read for the report. Each part may be absent."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from maed.data.geometry import unrolled
from maed.errors import MaedError
from maed.files import read_json


@dataclass
class Contents:
    """The parts of a run that the page shows; an absent one is None or empty.

    Args:
        results: `results.json`; Perceivers trained outside of a comparison are added from their folders.
        vectors: `(N, d)`, the embedding.
        coordinates: `(N, D)`, the true geometry in storage order; a swiss roll is unrolled.
        shape: `(height, width)` of a grid or torus, `(N,)` of a line, `()` of others or where nothing is known.
        similarity: `(N, N)`.
        provenance: where the embedding comes from, as its folder says.
        autoencoder: its metrics: `history`, `seconds`, `visible`.
        examples: `original`, `visible`, `reconstruction` of a few signals, `(S, N, C)` or `(S, N)`.
        perceivers: metrics of each trained Perceiver.
    """

    results: dict[str, Any] = field(default_factory=dict)
    vectors: np.ndarray | None = None
    coordinates: np.ndarray | None = None
    shape: tuple[int, ...] = ()
    similarity: np.ndarray | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
    autoencoder: dict[str, Any] = field(default_factory=dict)
    examples: dict[str, np.ndarray] = field(default_factory=dict)
    perceivers: list[dict[str, Any]] = field(default_factory=list)

    @property
    def source(self) -> str:
        """Where the signals come from."""
        return str(self.results.get("source") or self.provenance.get("source") or "an unnamed source")

    @property
    def positions(self) -> int | None:
        """N, from whichever part knows it."""
        for array, axis in ((self.vectors, 0), (self.similarity, 0), (self.examples.get("original"), 1)):
            if array is not None:
                return int(array.shape[axis])
        return self.results.get("positions")

    @property
    def is_empty(self) -> bool:
        """Whether no part of a run was found."""
        arrays = (self.vectors, self.similarity)
        return all(a is None for a in arrays) and not (self.results or self.autoencoder or self.examples)

    @property
    def is_grid(self) -> bool:
        """Whether positions lie on a flat grid of known coordinates, so that an image can be put in order."""
        return self.coordinates is not None and len(self.shape) == 2 and self.coordinates.shape[1] == 2


def read_contents(folder: Path) -> Contents:
    """Read what is there.

    Raises:
        MaedError: where nothing is there, a part is broken, or two parts do not belong together.
    """
    contents = Contents()
    _read_embedding(folder / "embedding", contents)
    if (folder / "similarity" / "model.safetensors").is_file():
        contents.similarity = _tensors(folder / "similarity" / "model.safetensors", "similarity")["similarity"]
    if (folder / "autoencoder" / "metrics.json").is_file():
        contents.autoencoder = read_json(folder / "autoencoder" / "metrics.json")
    if (folder / "autoencoder" / "examples.safetensors").is_file():
        names = ("original", "visible", "reconstruction")
        contents.examples = _tensors(folder / "autoencoder" / "examples.safetensors", *names)
    contents.perceivers = [read_json(path) for path in sorted(folder.glob("perceiver/*/metrics.json"))]
    _read_results(folder, contents)
    if contents.is_empty:
        raise MaedError(
            f"{folder}: holds no part of a run; it may be a folder that `maed run` wrote "
            "(results.json, autoencoder/, similarity/, embedding/, perceiver/)"
        )
    _check_sizes(folder, contents)
    return contents


def _read_results(folder: Path, contents: Contents) -> None:
    if (folder / "results.json").is_file():
        contents.results = dict(read_json(folder / "results.json"))
    if not contents.results.get("classification") and contents.perceivers:
        contents.results["classification"] = contents.perceivers


def _read_embedding(folder: Path, contents: Contents) -> None:
    if not (folder / "model.safetensors").is_file():
        return
    tensors = _tensors(folder / "model.safetensors", "vectors", optional=("coordinates",))
    contents.vectors, contents.coordinates = tensors["vectors"], tensors.get("coordinates")
    if (folder / "config.json").is_file():
        config = read_json(folder / "config.json")
        origin = {"source": config.get("source"), "made_with": config.get("made_with")}
        contents.provenance = {**origin, **(config.get("provenance") or {})}
        geometry = config.get("geometry") or {}
        shape = geometry.get("shape") or []
        if contents.coordinates is not None and np.prod(shape, dtype=int) == len(contents.coordinates):
            contents.shape = tuple(int(side) for side in shape)
        if contents.coordinates is not None and geometry.get("kind") == "swissroll":
            contents.coordinates = unrolled(contents.coordinates)


def _tensors(path: Path, *names: str, optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Read only the named tensors: a similarity's counts and sums are as large as itself, and not shown."""
    try:
        with safe_open(path, framework="numpy") as file:
            stored = set(file.keys())
            if missing := [name for name in names if name not in stored]:
                raise MaedError(f"{path}: has no tensor {missing[0]!r}; it may hold {', '.join(names)}")
            return {name: file.get_tensor(name) for name in (*names, *(set(optional) & stored))}
    except (SafetensorError, OSError) as error:
        raise MaedError(f"{path}: not a safetensors file ({error})") from None


def _check_sizes(folder: Path, contents: Contents) -> None:
    """Parts of two runs in one folder would be drawn as one: refuse them."""
    sizes = {
        "embedding": contents.vectors.shape[0] if contents.vectors is not None else None,
        "coordinates": contents.coordinates.shape[0] if contents.coordinates is not None else None,
        "similarity": contents.similarity.shape[0] if contents.similarity is not None else None,
        "examples": contents.examples["original"].shape[1] if contents.examples else None,
    }
    known = {name: size for name, size in sizes.items() if size is not None}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in known.items())
        raise MaedError(f"{folder}: parts differ in their number of positions ({listed}); they may be of one run only")
