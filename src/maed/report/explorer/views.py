"""Further views of a run: other estimators, reductions and encodings, each with a layout."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from sklearn.decomposition import PCA

from maed.embedding import reduce
from maed.encodings import position_table
from maed.errors import MaedError
from maed.files import written
from maed.plots.layout import ASSIGNABLE, FEWEST, recovered_layout
from maed.registry import ENCODINGS, ESTIMATORS, REDUCTIONS
from maed.report.contents import Contents
from maed.run_folder import RunFolder, StageFolder
from maed.settings import EmbeddingSettings
from maed.similarity import Similarity, estimate, load_similarity

MATRIX = 4096
"""Most positions of which whole similarities are in the page."""

LARGEST = ASSIGNABLE
"""Most positions of which other reductions and estimators are made: they take time N cubed."""

_ISOMAP, _COMPONENTS = "Isomap", "principal components"
"""Methods of laying out vectors."""


class Kept:
    """A file of named arrays: each is taken from there if it was made of the same, computed and added otherwise.

    Args:
        path: a safetensors file; one that cannot be read counts as absent.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._arrays: dict[str, np.ndarray] = {}
        self._made_of: dict[str, str] = {}
        try:
            with safe_open(path, framework="numpy") as file:
                self._made_of = dict(file.metadata() or {})
                self._arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except Exception:  # absent, cut short or something else: readers raise many kinds
            self._arrays, self._made_of = {}, {}

    def get(self, name: str, made_of: dict[str, Any], make: Callable[[], np.ndarray]) -> np.ndarray:
        """The array `name`; computed by `make`, and written at once, unless one made of the same is there."""
        text = json.dumps(made_of, sort_keys=True)
        if self._made_of.get(name) != text or name not in self._arrays:
            self._arrays[name] = np.ascontiguousarray(make())
            self._made_of[name] = text
            metadata = {key: self._made_of[key] for key in self._arrays if key in self._made_of}
            with written(self.path) as temporary:
                save_file(self._arrays, temporary, metadata=metadata)
        return self._arrays[name]


def fingerprint(array: np.ndarray) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of an array's bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class View:
    """One way to give every position a vector, and where these lay positions out.

    Args:
        encoding: `maed`, the baseline, or another position encoding.
        vectors: `(N, d)` float32.
        layout: `(N, 3)` float32; the first two columns are the layout in the plane.
        laid_out_by: `Isomap`, or `principal components` where that would take long.
        estimator: Whose similarity the vectors are made of; empty if they are made of none.
        reduction: Name of the reduction.
    """

    encoding: str
    vectors: np.ndarray
    layout: np.ndarray
    laid_out_by: str
    estimator: str = ""
    reduction: str = ""


def similarities(folder: RunFolder, contents: Contents) -> dict[str, Similarity]:
    """Similarities by estimator: the run's own first, then others from its stored sums, then baselines. No draws."""
    found: dict[str, Similarity] = {}
    if contents.similarity is not None:
        found[contents.estimator] = _stored(folder.similarity(), contents.similarity)
        if len(contents.similarity) <= LARGEST:
            found |= dict(_of_sums(folder.similarity().model, contents))
    for name, baseline in contents.baselines.items():
        if baseline.similarity is not None:
            found.setdefault(name, _stored(folder.similarity(name), baseline.similarity))
    return found


def compute_views(
    contents: Contents, made_of: Mapping[str, Similarity], reductions: Sequence[str], kept: Kept
) -> tuple[list[View], list[str]]:
    """Every estimator in every reduction, the run's own first.

    Args:
        contents: Contents of the run, as read.
        made_of: Similarities by estimator, see `similarities`.
        reductions: Beside the run's own.
        kept: Results computed earlier, to which new ones are added.

    Returns:
        The views, and a sentence for each that is missing.
    """
    own = _own_settings(contents)
    absent: list[str] = []
    views: list[View] = []
    mine = contents.estimator if contents.vectors is not None else ""
    if contents.vectors is not None:
        views.append(_view("maed", contents.vectors, kept, mine, contents.reduction))
    for name, baseline in contents.baselines.items():
        if baseline.vectors is not None and baseline.vectors.any():
            views.append(_view(name, baseline.vectors, kept, name, baseline.reduction or contents.reduction))
    if (contents.positions or 0) > LARGEST:
        if made_of:
            absent.append(f"Other reductions are made of up to {LARGEST:,} positions: of more they would take long.")
        return views, absent
    names = list(dict.fromkeys([*([own.reduction] if contents.vectors is not None else []), *reductions]))
    for estimator, similarity in made_of.items():
        for name in names:
            if any((view.estimator, view.reduction) == (estimator, name) for view in views):
                continue
            dim = REDUCTIONS.get(name).shown_dim or own.dim
            other = EmbeddingSettings(name, dim, own.n_neighbors, symmetrize=own.symmetrize)
            vectors = _reduced(kept, estimator, similarity, own if name == own.reduction else other, absent)
            if vectors is not None:
                encoding = estimator if estimator in contents.baselines else "maed"
                views.append(_view(encoding, vectors, kept, estimator, name))
    return views, absent


def encodings(contents: Contents) -> list[tuple[str, np.ndarray]]:
    """Tables that Perceivers are given and that are made of no similarity, and those that training ended with."""
    n = contents.positions or 0
    dim = 64 if contents.vectors is None else contents.vectors.shape[1]
    kinds = {name: ENCODINGS.get(name) for name in ENCODINGS.names}
    tables = {
        name: position_table(name, n, max(dim, 1), seed=0, geometry=contents.geometry).numpy()
        for name in sorted(kinds, key=lambda name: kinds[name].tunable)  # formulas before what is drawn
        if not kinds[name].trained
        and kinds[name].embedding is None
        and (contents.geometry is not None or not kinds[name].needs_geometry)
    }
    return [*((name, table) for name, table in tables.items() if table.any()), *contents.trained.items()]


def laid_out(vectors: np.ndarray) -> tuple[np.ndarray, str]:
    """Lay out vectors `(N, d)` in space, `(N, 3)` float32; also returns the name of the method."""
    if _fits_isomap(vectors):
        layout = recovered_layout(vectors, 3)
        return np.pad(layout, ((0, 0), (0, 3 - layout.shape[1]))).astype(np.float32), _ISOMAP
    count = min(3, *vectors.shape)
    made = PCA(count, svd_solver="covariance_eigh").fit_transform(vectors) if count else np.zeros((len(vectors), 0))
    return np.pad(made, ((0, 0), (0, 3 - count))).astype(np.float32), _COMPONENTS


def _fits_isomap(vectors: np.ndarray) -> bool:
    return FEWEST <= len(vectors) <= ASSIGNABLE and vectors.shape[1] > 0 and bool(vectors.any())


def _view(encoding: str, vectors: np.ndarray, kept: Kept, estimator: str, reduction: str) -> View:
    """A view with its layout, which is kept too."""
    made_of = {"vectors": fingerprint(vectors)}
    layout = kept.get(f"layout/{estimator}/{reduction}", made_of, lambda: laid_out(vectors)[0])
    return View(encoding, vectors, layout, _ISOMAP if _fits_isomap(vectors) else _COMPONENTS, estimator, reduction)


def _own_settings(contents: Contents) -> EmbeddingSettings:
    """The settings that the run's embedding was made with, as far as its folder says."""
    try:
        settings = EmbeddingSettings(**(contents.made_with.embedding or {}))
    except (TypeError, MaedError):  # written by another version
        settings = EmbeddingSettings()
    return settings if contents.vectors is None else replace(settings, dim=contents.vectors.shape[1])


def _reduced(
    kept: Kept, estimator: str, similarity: Similarity, settings: EmbeddingSettings, absent: list[str]
) -> np.ndarray | None:
    """A reduction of a similarity, `(N, d)`; None, and a sentence, where it cannot be made."""
    n = len(similarity.values)
    settings = replace(settings, dim=None if settings.dim is None else min(settings.dim, n - 1))
    made_of = {"settings": asdict(settings), "similarity": fingerprint(similarity.values.numpy())}

    def make() -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the run itself has warned of
            return reduce(similarity.values, settings, similarity.standard_error).numpy()

    try:
        vectors = kept.get(f"{estimator}/{settings.reduction}", made_of, make)
    except (MaedError, ValueError, np.linalg.LinAlgError) as problem:  # too few positions, or nothing to tell them by
        absent.append(f"No {settings.reduction} of {estimator}: {problem}")
        return None
    if not vectors.any():
        absent.append(f"No {settings.reduction} of {estimator}: it found nothing to tell positions apart.")
        return None
    return vectors


def _stored(folder: StageFolder, values: np.ndarray) -> Similarity:
    """A similarity with its standard errors, which an old folder may lack; nothing reads zeros."""
    try:
        found = load_similarity(folder.path)
        assert isinstance(found, Similarity)  # `values` are those of all pairs
        return found
    except MaedError:
        similarity = torch.from_numpy(values.astype(np.float32))
        return Similarity(similarity, torch.zeros_like(similarity))


def _of_sums(path: Path, contents: Contents) -> Iterator[tuple[str, Similarity]]:
    """Similarities by other estimators, from the run's sums over draws: those that read the same class of sums."""
    if contents.estimator not in ESTIMATORS.names:
        return
    kind, names = ESTIMATORS.get(contents.estimator).sums, ("counts", "sums", "squares")
    try:
        with safe_open(path, framework="pt") as file:
            if not set(names) <= set(file.keys()) or file.get_slice("counts").get_shape()[0] != kind.parts:
                return
            stacked = {name: file.get_tensor(name) for name in names}
    except (SafetensorError, OSError):
        return
    if stacked["counts"].shape[-1] != contents.positions:
        return
    for name in ESTIMATORS.names:
        if name != contents.estimator and ESTIMATORS.get(name).sums is kind:
            yield name, estimate(kind.unstacked(**stacked), name)
