"""Reducing a similarity to an embedding: `embedding/`, or `baselines/NAME/embedding/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from maed._version import __version__
from maed.data.geometry import Geometry
from maed.embedding import (
    LEAST_SIGNAL_TO_NOISE,
    PositionEmbedding,
    reduce,
    signal_to_noise,
    signal_to_noise_of_pairs,
)
from maed.errors import MaedError
from maed.files import read_json
from maed.machine import describe_machine
from maed.registry import ESTIMATORS
from maed.run_folder import RunFolder, StageFolder
from maed.settings import EmbeddingSettings
from maed.similarity import Similarity, SparseSimilarity, load_similarity
from maed.stages.base import Context, Stage


class Embed(Stage):
    """Reduces the similarity of a method to an embedding. Neither data nor geometry is read for it.

    Args:
        method: `maed`, or a baseline.
        required: Refuse a similarity in which no dependence was found; otherwise it is only said.
    """

    def __init__(self, method: str = "maed", *, required: bool = True) -> None:
        self.method, self.required = method, required

    def folder(self, context: Context) -> StageFolder:
        """`embedding/`, or `baselines/NAME/embedding/`."""
        return context.folder.embedding(self.method)

    def made_with(self, context: Context) -> Mapping[str, Any]:
        """The settings of the similarity and of the embedding."""
        return embedding_made_with(context.folder.earlier.similarity(self.method), context.settings.embedding)

    def ready(self, context: Context) -> None:
        """Refuse a similarity of other positions, or one in which nothing was found."""
        source, n = context.folder.earlier.similarity(self.method), context.data.positions
        if source.config.is_file():
            context.check_upstream(source, source.made_with, read_json(source.config).get("n", n))
        if not context.settings.embedding.force:
            said = None if self.required else context.say
            check_signal(load_similarity(source.path), str(source.made_with.estimator), said)

    def run(self, context: Context) -> None:
        """Reduce and write it."""
        embed_folder(
            context.folder.earlier.similarity(self.method),
            self.folder(context),
            context.settings.embedding,
            geometry=context.data.geometry,
            names=context.data.names,
            say=context.say,
        )


def embedding_made_with(similarity: StageFolder, settings: EmbeddingSettings) -> dict[str, Any]:
    """Everything that an embedding of the similarity in a folder depends on."""
    return {**read_json(similarity.config)["made_with"], "embedding": asdict(settings)}


def embed_folder(
    similarity: StageFolder,
    target: StageFolder,
    settings: EmbeddingSettings,
    *,
    geometry: Geometry | None = None,
    names: Sequence[str] | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> PositionEmbedding:
    """Reduce the similarity in one folder to an embedding in another.

    Args:
        similarity: The folder of a similarity.
        target: Target folder of the embedding.
        settings: Settings of the embedding.
        geometry: The true one, which is only written beside the vectors; None if it is not known.
        names: Names of the positions; None if they have none.
        say: Told what happens.
    """
    matrix, config = load_similarity(similarity.path), read_json(similarity.config)
    made_with = embedding_made_with(similarity, settings)
    estimator = str(similarity.made_with.estimator)
    say(f"embedding: {settings.reduction} of {estimator}")
    values, error = matrix.arrays()
    embedding = PositionEmbedding(
        reduce(values, settings, error),
        source=made_with["source"],
        geometry=geometry,
        names=names,
        provenance={
            "estimator": estimator,
            "reduction": settings.reduction,
            "seed": (made_with.get("autoencoder") or made_with.get("data") or {}).get("seed"),
            "maed": __version__,
            "versions": {"maed": __version__, **describe_machine()["versions"]},
            # of another reduction it would say nothing about this one
            "split_half": config.get("split_half") if config.get("split_half_of") == asdict(settings) else None,
            "made_with": made_with,
        },
    )
    embedding.save_pretrained(target.path)
    return embedding


def embed_again(folder: RunFolder, method: str, settings: EmbeddingSettings, say: Callable[[str], None]) -> StageFolder:
    """Reduce a similarity that is there, without its data; returns the embedding's folder.

    Raises:
        MaedError: The similarity holds no dependence above its noise, and `embedding.force` is off; or the folder holds
            an embedding that was made with other settings.
    """
    source, target = folder.earlier.similarity(method), folder.embedding(method)
    matrix = load_similarity(source.path)
    if not settings.force:
        check_signal(matrix, str(source.made_with.estimator), None if method == "maed" else say)
    if not folder.claim(target, embedding_made_with(source, settings)):
        embed_folder(source, target, settings, say=say)
    return target


class NoDependence(MaedError):
    """A similarity that is no more than its noise."""


def check_signal(
    similarity: Similarity | SparseSimilarity, estimator: str, say: Callable[[str], None] | None = None
) -> None:
    """Refuse a similarity that is no more than its noise; or only say so, where `say` is given.

    Raises:
        NoDependence: No dependence was found.
    """
    if isinstance(similarity, SparseSimilarity):
        ratio = signal_to_noise_of_pairs(similarity.values.numpy(), similarity.standard_error.numpy(), similarity.n)
    else:
        known = estimator in ESTIMATORS.names  # not a baseline, nor somebody else's that is not installed
        values = ESTIMATORS.get(estimator)().dependence(similarity) if known else similarity.values
        ratio = signal_to_noise(values, similarity.standard_error)
    if ratio >= LEAST_SIGNAL_TO_NOISE:
        return
    line = (
        f"similarity: no dependence found (signal-to-noise ratio of {estimator} {ratio:.2f}; pure noise has about 1, "
        f"at least {LEAST_SIGNAL_TO_NOISE} is required)"
    )
    if say is None:
        raise NoDependence(f"{line}; to embed it nevertheless, set --embedding.force true (force=True in Python)")
    say(f"{line}; its embedding is noise")
