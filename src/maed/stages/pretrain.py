"""Training the masked autoencoder: `autoencoder/`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from maed import ranks
from maed.autoencoder import loss_name, pretrain, visible_count
from maed.autoencoder.training import begun_by_one
from maed.embedding import PositionEmbedding, reduce
from maed.errors import MaedError, nearest
from maed.files import damaged, read_json
from maed.records import MadeWith
from maed.registry import BASELINES
from maed.run_folder import StageFolder
from maed.settings import EmbeddingSettings
from maed.similarity import baselines_for, load_similarity
from maed.stages.base import Context, Stage, run_stage
from maed.stages.baseline import Baseline
from maed.tensors import digest_of, read_tensors


class Pretrain(Stage):
    """Trains the masked autoencoder on unlabeled signals."""

    def folder(self, context: Context) -> StageFolder:
        """`autoencoder/`."""
        return context.folder.autoencoder

    def made_with(self, context: Context) -> Mapping[str, Any]:
        """Data and autoencoder, and how many positions it was trained on where not on all."""
        some = {} if context.landmarks is None else {"landmarks": len(context.landmarks)}
        return {**context.data_made_with, "autoencoder": asdict(context.settings.autoencoder), **some}

    def facts(self, context: Context) -> Mapping[str, Any]:
        """The facts that determine the shapes of the weights."""
        data, settings = context.data, context.settings.autoencoder
        n = context.trained_positions
        visible = visible_count(n, data.kind, settings.visible_fraction)
        shape = {"n": n, "channels": data.channels, "vocabulary": data.vocabulary, "visible": visible}
        of = {} if context.landmarks is None else {"of": data.positions}
        return {**shape, "loss": loss_name(settings, data), **of}

    def check(self, context: Context) -> None:
        """Refuse a loss that the data cannot have, and a start or a batch that the autoencoder cannot take."""
        settings, n = context.settings.autoencoder, context.trained_positions
        loss_name(settings, context.data)
        if settings.kind == "unet" and settings.batch_size == 1 and n <= 2**settings.depth:
            raise MaedError(
                f"autoencoder.batch_size must be at least 2 if a U-Net of depth {settings.depth} leaves one place "
                f"of {n} positions, got 1"
            )
        if settings.init == "random":
            return
        if settings.kind == "unet":
            raise MaedError(
                f"autoencoder.init must be random for a U-Net, which has no position vectors, got {settings.init!r}"
            )
        if settings.init in BASELINES.names:
            fitting = baselines_for(context.data)
            if settings.init not in fitting:
                raise MaedError(
                    f"autoencoder.init: {settings.init!r} does not fit {context.data.kind} signals; choose "
                    f"{' or '.join(fitting)}"
                )
            Baseline(settings.init).check(context)
        else:
            start_embedding(context)

    def check_finished(self, context: Context) -> None:
        """Refuse weights without the record of their training, or with another's: nothing later would notice."""
        stage = self.folder(context)
        if not stage.metrics.is_file():
            raise damaged(stage.metrics, "missing")
        record = read_json(stage.metrics)
        same = record.get("weights") in (None, digest_of(read_tensors(stage.model)))  # of 0.1 it says nothing
        if not (same and "visible" in record):
            raise damaged(stage.metrics, "not the record of these weights")

    def run(self, context: Context) -> None:
        """Train, from random vectors or a start that was named."""
        data, settings, some = context.trained_data, context.settings.autoencoder, context.landmarks
        start = _start_vectors(context)
        visible = visible_count(data.positions, data.kind, settings.visible_fraction)
        of = "positions" if some is None else f"landmarks (of {context.data.positions} positions)"
        context.say(f"autoencoder: {visible} of {data.positions} {of} visible, {settings.steps} steps")
        if start is not None and some is not None:
            start = start[torch.from_numpy(some)]
        shared = ranks.world() > 1
        if shared and begun_by_one(self.folder(context).path, settings):
            shared = False
            context.say("autoencoder: goes on in one process, as it was begun")
        with ranks.together(partial(_train, start=start, shared=True)) if shared else nullcontext():
            _train(context, start=start, shared=shared)


def _train(context: Context, *, start: torch.Tensor | None, shared: bool) -> None:
    """Train, in each process that shares it."""
    pretrain(
        context.trained_data,
        context.settings.autoencoder,
        context.settings.trainer,
        context.folder.autoencoder.path,
        start_vectors=start,
        examples=context.landmarks is None,
        shared=shared,
    )


def _start_vectors(context: Context) -> torch.Tensor | None:
    """Initial position vectors by `autoencoder.init`; None for random ones.

    Of a baseline they are the Laplacian eigenmaps: all scales alike, as attention needs to tell neighbors apart.
    """
    settings = context.settings.autoencoder
    if settings.init == "random":
        return None
    if settings.init not in BASELINES.names:
        return start_embedding(context).vectors
    run_stage(Baseline(settings.init), context)
    similarity = load_similarity(context.folder.similarity(settings.init).path)
    # of many positions as the default reduction, which alone needs no more than some pairs
    reduction = "heat" if context.sparse else "laplacian"
    chosen = EmbeddingSettings(reduction=reduction, dim=min(settings.width, context.data.positions - 1))
    values, error = similarity.arrays()
    return reduce(values, chosen, error)


def start_embedding(context: Context) -> PositionEmbedding:
    """The embedding in the folder that `autoencoder.init` names.

    Raises:
        MaedError: No such folder, or an embedding of other positions.
    """
    name = context.settings.autoencoder.init
    if not Path(name).is_dir():
        choices = ("random", *baselines_for(context.data))
        raise MaedError(
            f"autoencoder.init: {name!r} is no folder{nearest(name, choices)} (choose {', '.join(choices)} or "
            "the folder of an embedding)"
        )
    embedding = PositionEmbedding.from_pretrained(Path(name))
    made_with = MadeWith.of(embedding.provenance.get("made_with") or {})
    context.check_upstream(StageFolder(Path(name)), made_with, embedding.n)
    return embedding
