"""The contents of a run folder, read for the report. Each part is optional."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from maed.data.geometry import Geometry, GeometryKind, unrolled
from maed.errors import MaedError
from maed.files import read_json
from maed.records import MadeWith, Results, Score, Work
from maed.registry import ENCODINGS
from maed.run_folder import EMBEDDING, SIMILARITY, RunFolder, StageFolder

_TABLES = (
    "perceiver.input_preprocessor.positions.table",
    "perceiver.input_preprocessor.position_embeddings.weight",
    "perceiver.input_preprocessor.position_embeddings.position_embeddings",
)
"""Names of the position table in the classifiers of `maed.models`."""


@dataclass
class Examples:
    """A few signals as the autoencoder was shown them and as it made them.

    Args:
        original: `(S, N, C)` in stored units, or `(S, N)` token ids.
        fractions: `(F,)`, ascending: the share of positions that was shown.
        visible: `(F, S, N)` bool.
        reconstruction: `(F, S, N, C)` or `(F, S, N)`.
        trained: Index of the fraction that the autoencoder was trained with.
    """

    original: np.ndarray
    fractions: np.ndarray
    visible: np.ndarray
    reconstruction: np.ndarray
    trained: int = 0

    @property
    def is_tokens(self) -> bool:
        """True if signals are token ids."""
        return self.original.ndim == 2


@dataclass
class Baseline:
    """The files of a baseline in a run.

    Args:
        similarity: `(N, N)`.
        vectors: `(N, d)`, its embedding.
        reduction: Name of the reduction.
    """

    similarity: np.ndarray | None = None
    vectors: np.ndarray | None = None
    reduction: str = ""


@dataclass
class Contents:
    """The parts of a run that the page shows; an absent one is None or empty.

    Args:
        results: `results.json`; models trained outside of a comparison are added from their folders.
        vectors: `(N, d)`, the embedding.
        geometry: The true geometry as it is stored.
        coordinates: `(N, D)`, the true geometry in storage order; a swiss roll is unrolled.
        names: Names of the N positions, if they have names.
        shape: `(height, width)` of a grid or torus, `(N,)` of a line, `()` of others or if nothing is known.
        similarity: `(N, N)`.
        draws: How the similarity was drawn.
        baselines: Training-free methods by name.
        provenance: Origin of the embedding, as its folder records it.
        made_with: Settings of the embedding, or of the similarity where there is none.
        autoencoder: Training of the autoencoder.
        examples: Reconstructions.
        models: Scores of the trained models.
        trained: Position tables at the end of trainings, by display name.
    """

    results: Results = field(default_factory=Results)
    vectors: np.ndarray | None = None
    geometry: Geometry | None = None
    coordinates: np.ndarray | None = None
    names: tuple[str, ...] | None = None
    shape: tuple[int, ...] = ()
    similarity: np.ndarray | None = None
    draws: Work = field(default_factory=Work)
    baselines: dict[str, Baseline] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)
    made_with: MadeWith = field(default_factory=MadeWith)
    autoencoder: Work = field(default_factory=Work)
    examples: Examples | None = None
    models: list[Score] = field(default_factory=list)
    trained: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """The source of the signals."""
        return str(self.results.source or self.provenance.get("source") or "an unnamed source")

    @property
    def positions(self) -> int | None:
        """N, from whichever part knows it."""
        original = None if self.examples is None else self.examples.original
        for array, axis in ((self.vectors, 0), (self.similarity, 0), (original, 1)):
            if array is not None:
                return int(array.shape[axis])
        return self.results.positions

    @property
    def compared(self) -> list[Score]:
        """Models of the task that the results are of, with the most labels, pretrained or not like the first of them.

        Their curves belong together.
        """
        first: Any = next(iter(self.results.summary or self.results.scores or self.models), None)
        of = [] if first is None else [model for model in self.models if model.task == first.task]
        most = max((model.labels or 0 for model in of), default=0)
        return [model for model in of if (model.labels or 0) in (0, most) and model.pretrained == first.pretrained]

    @property
    def is_empty(self) -> bool:
        """True if no part of a run was found."""
        parts = (self.vectors, self.similarity, self.examples)
        return all(part is None for part in parts) and self.results == Results() and not self.autoencoder.history

    @property
    def is_grid(self) -> bool:
        """True if positions lie on a flat grid of known coordinates, so that an image can be put in order."""
        return self.coordinates is not None and len(self.shape) == 2 and self.coordinates.shape[1] == 2

    @property
    def kind(self) -> GeometryKind:
        """The kind of geometry; `points` for an unrolled swiss roll, and if nothing is known."""
        return "points" if self.geometry is None or self.geometry.kind == "swissroll" else self.geometry.kind

    @property
    def estimator(self) -> str:
        """The estimator of the similarity."""
        return str(self.provenance.get("estimator") or self.made_with.setting("similarity", "estimator") or SIMILARITY)

    @property
    def reduction(self) -> str:
        """The reduction of the embedding."""
        return str(self.provenance.get("reduction") or EMBEDDING)


def read_contents(path: Path) -> Contents:
    """Read what is there.

    Returns:
        The parts that exist.

    Raises:
        MaedError: Nothing is there, a part is broken, or two parts do not belong together.
    """
    folder, contents = RunFolder(path), Contents()
    contents.similarity = _similarity(folder.similarity())
    contents.draws, contents.made_with = folder.similarity().work, folder.similarity().made_with
    _read_embedding(folder.embedding(), contents)
    for name in folder.baselines():
        baseline = Baseline(_similarity(folder.similarity(name)))
        if (stage := folder.embedding(name)).is_finished:
            baseline.vectors = _tensors(stage.model, "vectors")["vectors"]
            baseline.reduction = str(_provenance(stage).get("reduction") or "")
        contents.baselines[name] = baseline
    contents.autoencoder = folder.autoencoder.work
    if folder.autoencoder.examples.is_file():
        contents.examples = _examples(folder.autoencoder.examples, contents.autoencoder.visible)
    contents.models = [Score.of(read_json(model.metrics)) for model in folder.models() if model.metrics.is_file()]
    contents.trained = _trained_tables(folder)
    if folder.results.is_file():
        contents.results = Results.read(folder.results)
    contents.results.scores = contents.results.scores or contents.models or None
    if contents.is_empty:
        raise MaedError(
            f"{path}: holds no part of a run; give a folder that `maed run` wrote (results.json, "
            "autoencoder/, similarity/, embedding/, models/)"
        )
    _check_sizes(path, contents)
    return contents


def _read_embedding(stage: StageFolder, contents: Contents) -> None:
    if not stage.is_finished:
        return
    tensors = _tensors(stage.model, "vectors", optional=("coordinates",))
    contents.vectors, contents.coordinates = tensors["vectors"], tensors.get("coordinates")
    if contents.coordinates is not None and np.isnan(contents.coordinates).any():
        contents.coordinates = None  # figures need a place for each position; metrics leave out those without
    if stage.config.is_file():
        config = read_json(stage.config)
        contents.provenance = {"source": config.get("source"), **_provenance(stage)}
        contents.made_with = stage.made_with
        names = config.get("names")
        if isinstance(names, list) and len(names) == len(tensors["vectors"]):
            contents.names = tuple(map(str, names))
        geometry = config.get("geometry") or {}
        shape = geometry.get("shape") or []
        if contents.coordinates is not None and np.prod(shape, dtype=int) == len(contents.coordinates):
            contents.shape = tuple(int(side) for side in shape)
        if contents.coordinates is not None and geometry.get("kind"):
            contents.geometry = Geometry(geometry["kind"], contents.coordinates, contents.shape)
            if contents.geometry.kind == "swissroll":
                contents.coordinates = unrolled(contents.coordinates)


def _provenance(stage: StageFolder) -> dict[str, Any]:
    """The provenance of an embedding, from its config.json."""
    return (read_json(stage.config).get("provenance") or {}) if stage.config.is_file() else {}


def _similarity(stage: StageFolder) -> np.ndarray | None:
    """`(N, N)`; None if there is none, or one of candidate pairs alone."""
    found = _tensors(stage.model, "similarity")["similarity"] if stage.is_finished else None
    return found if found is not None and found.ndim == 2 else None


def _examples(path: Path, shown: int | None) -> Examples:
    """Reconstructions of several fractions, or of one, as earlier versions wrote them."""
    names = ("original", "visible", "reconstruction")
    tensors = _tensors(path, *names, optional=("fractions",))
    original, visible, made = (tensors[name] for name in names)
    if visible.ndim == 2:
        visible, made = visible[None], made[None]
    fractions = tensors.get("fractions")
    if fractions is None:
        fractions = visible.mean(axis=(1, 2))
    wanted = shown / original.shape[1] if shown else fractions[0]
    return Examples(original, fractions, visible, made, int(np.argmin(np.abs(fractions - wanted))))


def _trained_tables(folder: RunFolder) -> dict[str, np.ndarray]:
    """The table of each encoding that training changed, of its first seed."""
    tables: dict[str, np.ndarray] = {}
    for model in folder.models():
        config = read_json(model.config)
        encoding = str(config.get("encoding"))
        fine_tune = bool((config.get("perceiver") or {}).get("fine_tune"))
        tuned = encoding in ENCODINGS.names and ENCODINGS.get(encoding).trains_table(fine_tune)
        name = f"{encoding}, trained"
        if not tuned or name in tables or not model.is_finished:
            continue
        with safe_open(model.model, framework="numpy") as file:
            key = next((key for key in _TABLES if key in file.keys()), None)  # noqa: SIM118
            if key is not None:
                tables[name] = file.get_tensor(key)
    return tables


def _tensors(path: Path, *names: str, optional: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Read only the named tensors: a similarity's counts and sums are as large as itself, and not shown."""
    try:
        with safe_open(path, framework="numpy") as file:
            stored = set(file.keys())
            if missing := [name for name in names if name not in stored]:
                raise MaedError(f"{path}: has no tensor {missing[0]!r}; it must hold {', '.join(names)}")
            return {name: file.get_tensor(name) for name in (*names, *(set(optional) & stored))}
    except (SafetensorError, OSError) as error:
        raise MaedError(f"{path}: not a safetensors file ({error})") from None


def _check_sizes(folder: Path, contents: Contents) -> None:
    """Parts of two runs in one folder would be drawn as one: refuse them."""
    parts = {
        "embedding": contents.vectors,
        "coordinates": contents.coordinates,
        "similarity": contents.similarity,
        "examples": None if contents.examples is None else contents.examples.original[0],
    }
    for name, baseline in contents.baselines.items():
        parts |= {name: baseline.vectors, f"{name} similarity": baseline.similarity}
    known = {name: part.shape[0] for name, part in parts.items() if part is not None}
    if len(set(known.values())) > 1:
        listed = ", ".join(f"{name} {size}" for name, size in known.items())
        raise MaedError(f"{folder}: the parts have different numbers of positions ({listed}); they must be of one run")
    if known:
        n = next(iter(known.values()))  # a model may see positions more finely than its data
        contents.trained = {name: table for name, table in contents.trained.items() if len(table) == n}
