"""Streaming draws into a similarity: `similarity/`."""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import torch

from maed import ranks
from maed.autoencoder import MaskedAutoencoder, load_autoencoder, loss_name, outputs_of
from maed.autoencoder.losses import LossName
from maed.autoencoder.placing import place
from maed.autoencoder.training import Autoencoder
from maed.embedding import check_reduction, reduce
from maed.engine.device import device, precision
from maed.errors import MaedError
from maed.evaluation.geometry import agreement, similarity_metrics
from maed.files import read_json
from maed.machine import memory
from maed.run_folder import StageFolder
from maed.settings import SimilaritySettings
from maed.similarity import (
    Halves,
    Streamed,
    Sums,
    baselines_for,
    check_estimator,
    estimate,
    merged,
    neighbor_lists,
    never_drawn,
    placed_pairs,
    share_stream,
    stream,
    write_similarity,
)
from maed.similarity import Similarity as Matrix
from maed.similarity.pairs import CANDIDATES
from maed.stages.base import Context, Stage

_WATCHED = 2304
"""Most positions of which the similarity is measured while it is streamed: time N^2 a look, of 1,024 half a second."""

PLACED = "placed"
"""In place of an estimator: the similarity comes from distances to landmarks."""

_PAIR_BYTES = 200
"""Memory for each pair of positions: 48 to 96 bytes of sums, then arrays of the estimate and the reduction."""

_POSITION_BYTES, _CHANNEL_BYTES = 6_000, 600
"""Memory for each position where candidates alone are compared, as measured at a million, and for each more channel."""


class Similarity(Stage):
    """Streams draws through the trained autoencoder into a similarity of positions."""

    def folder(self, context: Context) -> StageFolder:
        """`similarity/`."""
        return context.folder.similarity()

    def made_with(self, context: Context) -> Mapping[str, Any]:
        """The settings of the autoencoder and of the similarity."""
        config = read_json(context.folder.earlier.autoencoder.config)
        own = asdict(context.settings.similarity)
        if context.sparse:  # no draws are made
            own = {"estimator": PLACED, "visible_fraction": own["visible_fraction"]}
            return {**config["made_with"], "similarity": own, "candidates": CANDIDATES}
        # which of several is led with changes none of them, nor does how many positions could have been there
        del own["method"], own["dense_positions"]
        return {**config["made_with"], "similarity": own}

    def check(self, context: Context) -> None:
        """Refuse an estimator that the loss, or the number of visible positions, is not for; and what will not fit."""
        chosen, loss = context.settings.similarity, loss_name(context.settings.autoencoder, context.data)
        check_memory(context)
        if not context.sparse:
            check_estimator(chosen, visible=context.shown(), loss=loss)
            return
        if context.data.kind != "real":
            raise MaedError(f"similarity.method: maed of tokens {needs_all_pairs(context)}")
        if chosen.estimator != SimilaritySettings.estimator:
            raise MaedError(
                f"similarity.estimator must be {SimilaritySettings.estimator} for more than "
                f"{chosen.dense_positions} positions (similarity.dense_positions), which an autoencoder of some of "
                f"them places; got {chosen.estimator}"
            )

    def ready(self, context: Context) -> None:
        """Refuse an autoencoder of other positions, or one that the estimator is not for."""
        source = context.folder.earlier.autoencoder
        _, config = load_autoencoder(source.path)
        context.check_upstream(source, source.made_with, config.get("of") or config["n"])
        if context.sparse != ("of" in config):
            was, now = ("some", "all") if "of" in config else ("all", "some")
            raise MaedError(
                f"similarity.dense_positions: the autoencoder in {source.path} was trained on {was} positions, and "
                f"{now} are wanted here; set it as it was, or train again"
            )
        if not context.sparse:
            visible = context.shown(config["visible"])
            check_estimator(context.settings.similarity, visible=visible, loss=config["loss"])

    def run(self, context: Context) -> None:
        """Stream, estimate, and measure how far two halves of the draws agree."""
        settings, data = context.settings.similarity, context.shown_data
        model, config = load_autoencoder(context.folder.earlier.autoencoder.path)
        visible, where = context.shown(config["visible"]), device(context.settings.trainer)
        if context.landmarks is not None:
            self._place(context, model.to(where), visible, config["loss"], where)
            return
        context.say(f"similarity: {settings.draws} draws, {settings.estimator}")
        given: dict[str, Any] = {
            "visible": visible,
            "loss": config["loss"],
            "outputs": outputs_of(config["loss"], channels=data.channels, vocabulary=data.vocabulary),
            "half_precision": precision(context.settings.trainer) != "32-true",
        }
        help_too = ranks.together(partial(_share, model=model, given=given))
        with help_too, context.progress("similarity", self.folder(context)) as progress:
            streamed = stream(
                model.to(where),
                data.train,
                settings,
                device=where,
                folder=self.folder(context).path,
                progress=progress,
                watch=_watch(context),
                shared=ranks.world() > 1,
                **given,
            )
        self._write(context, streamed)

    def _place(
        self, context: Context, model: MaskedAutoencoder, visible: int, loss: LossName, where: torch.device
    ) -> None:
        """Place positions, too many for all pairs, by the landmarks, and compare each with its nearest."""
        started, data, folder = time.perf_counter(), context.shown_data, self.folder(context)
        at = context.landmarks
        assert at is not None
        context.say(
            f"similarity: {data.positions} positions are placed by what is reconstructed at {len(at)} landmarks"
        )
        dim = min(context.settings.autoencoder.width, len(at) - 1)
        placed = place(model, at, data.train, visible=visible, loss=loss, dim=dim, device=where)
        found = placed_pairs(placed)
        config = {**read_json(folder.config), "seconds": time.perf_counter() - started}
        self._agree(context, config, agreement(*placed.halves, context.k()), "signals")
        write_similarity(folder.path, found, None, config)

    def _write(self, context: Context, streamed: Streamed) -> None:
        folder, settings = self.folder(context), context.settings
        sums = merged(streamed.halves)
        result = estimate(sums, settings.similarity.estimator)
        _check_drawn(context, folder, sums, streamed.draws)
        facts = {"seconds": streamed.seconds, "draws": streamed.draws, "changed": streamed.changed}
        config = {**read_json(folder.config), **facts, "history": streamed.history}
        if settings.similarity.until == "stable":
            context.say(f"similarity: {streamed.draws} draws{_stability(streamed.changed)}")
        halves = [estimate(half, settings.similarity.estimator) for half in streamed.halves]
        self._agree(context, config, _split_half(context, halves), "draws")
        write_similarity(folder.path, result, sums, config)

    def _agree(self, context: Context, config: dict[str, Any], split_half: float, of: str) -> None:
        """Keep, and say, how far two halves of the draws or signals agree."""
        config |= {"split_half": split_half, "split_half_of": asdict(context.settings.embedding)}
        note = noise_note(split_half, context.k(), context.data.positions)
        context.say(note or f"similarity: two halves of the {of} agree on {100 * split_half:.1f} % of neighbors")


def _share(context: Context, *, model: Autoencoder, given: Mapping[str, Any]) -> None:
    """The part of another process in streaming draws."""
    where = device(context.settings.trainer)
    share_stream(model.to(where), context.shown_data.train, context.settings.similarity, device=where, **given)


def methods_of(context: Context) -> tuple[str, ...]:
    """The methods that these signals can have, `maed` last.

    Of too many positions for all pairs `maed` is among them only where it is asked for: it takes minutes to find what
    correlation finds in seconds.

    Raises:
        MaedError: There is none.
    """
    found = baselines_for(context.data, sparse=context.sparse)
    if not found and context.sparse:
        raise MaedError(f"inputs: every method for {context.data.kind} signals {needs_all_pairs(context)}")
    left_out = context.sparse and (context.settings.similarity.method != "maed" or context.data.kind != "real")
    return found if left_out else (*found, "maed")


def left_out(context: Context) -> str:
    """A sentence that so many positions leave out `maed`, unless it is asked for by name."""
    n, most = context.data.positions, context.settings.similarity.dense_positions
    return f"maed is left out of {n} positions, more than the {most} of similarity.dense_positions; ask for it by name"


def needs_all_pairs(context: Context) -> str:
    """The reason why a method is not among `methods_of`, and the remedy."""
    n, most = context.data.positions, context.settings.similarity.dense_positions
    able = [*baselines_for(context.data, sparse=True), *(["maed"] if context.data.kind == "real" else [])]
    other = f"choose {' or '.join(able)}, or raise" if able else "raise"
    return (
        f"measures every pair of positions, and {n} positions are more than similarity.dense_positions ({most}); "
        f"{other} that limit if memory suffices"
    )


def check_memory(context: Context) -> None:
    """Refuse a reduction that the positions are too few, or too many, for, or that is not installed."""
    n, there = context.data.positions, memory()
    check_reduction(n, context.settings.embedding, sparse=context.sparse)
    if context.sparse:
        parts = (context.data.train, context.data.validation, context.data.test)
        signals = sum(part.values.nbytes for part in parts if not isinstance(part.values, np.memmap))
        needed = _POSITION_BYTES * n + _CHANNEL_BYTES * n * (context.data.channels - 1)
        if there is not None and needed + signals > there:
            raise MaedError(
                f"inputs: candidate pairs of {n} positions take about {needed / 2**30:.1f} GiB beside "
                f"{signals / 2**30:.1f} GiB of signals, and this machine has {there / 2**30:.1f} GiB; take fewer "
                "signals with data.limit, or learn on a coarser grid and bring it back with `resampled`"
            )
    elif there is not None and _PAIR_BYTES * n**2 > there:
        raise MaedError(
            f"inputs: the similarity of {n} positions takes about {_PAIR_BYTES * n**2 / 2**30:.0f} GiB; "
            f"this machine can hold about {int((there / _PAIR_BYTES) ** 0.5)} positions. Learn on a coarser "
            "grid and bring it back with `resampled`"
        )


def _watch(context: Context) -> Callable[[Halves], dict[str, float]] | None:
    """A function that records metrics of the similarity while it is streamed; None if that would take long.

    How far the neighbor lists of two halves of the draws agree (of half as many draws each); and, against a known
    geometry, recall and Spearman of the entries, which nothing is chosen by.
    """
    data, settings = context.data, context.settings
    if data.positions > _WATCHED:
        return None
    estimator, geometry, k = settings.similarity.estimator, data.geometry, context.k()
    true = None if geometry is None else geometry.distances()

    def watch(halves: Halves) -> dict[str, float]:
        lists = [neighbor_lists(estimate(half, estimator).values, k) for half in halves]
        found = {"split_half": float((lists[0] & lists[1]).sum() / lists[0].sum())}
        if geometry is not None:
            values = estimate(merged(halves), estimator).values
            metrics = similarity_metrics(values, geometry, settings.evaluation, true)
            found |= {name: metrics[f"entries_{name}"] for name in ("knn_recall", "spearman")}
        return found

    return watch


def _check_drawn(context: Context, folder: StageFolder, sums: Sums, draws: int) -> None:
    """Name pairs of positions that no draw tells of; refuse where they are the greater part.

    Positions that no training signal has are left out: more draws cannot reach them.
    """
    mask = context.data.train.mask
    there = torch.ones(context.data.positions).bool() if mask is None else torch.from_numpy(mask.any(axis=0))
    pairs, never = int(there.sum()) * (int(there.sum()) - 1), never_drawn(sums, there)
    if never == 0:
        return
    line = (
        f"similarity.draws: in {draws} draws, {never} of {pairs} pairs of positions never had one visible and the "
        "other scored; raise similarity.draws or similarity.visible_fraction"
    )
    if 2 * never > pairs:
        shutil.rmtree(folder.path)  # nothing in it is worth keeping, and it would stand in the way of more draws
        raise MaedError(line)
    warnings.warn(f"{line}; their similarity is taken as 0", stacklevel=2)


def _split_half(context: Context, halves: Sequence[Matrix]) -> float:
    """Recall@k between the embeddings of two disjoint halves of the draws, the second by process 1 if there is one."""
    if ranks.world() == 1:
        first, second = (_embedded(context, half) for half in halves)
    else:
        with ranks.together(partial(_embed_second, half=halves[1])):
            first, second = ranks.gathered(_embedded(context, halves[0]))[:2]
    return agreement(first, second, context.k())


def _embed_second(context: Context, *, half: Matrix) -> None:
    """The part of another process in measuring how far two halves agree."""
    ranks.gathered(_embedded(context, half) if ranks.rank() == 1 else None)


def _embedded(context: Context, half: Matrix) -> torch.Tensor:
    """The embedding of half of the draws, `(N, d)`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # nobody keeps it
        return reduce(half.values, context.settings.embedding, half.standard_error)


def noise_note(split_half: float, k: int, n: int) -> str | None:
    """A plain warning where two halves of the draws agree hardly better than chance, `k / (n - 1)`; otherwise None."""
    chance = k / (n - 1)
    if split_half >= min(3 * chance, (1 + chance) / 2):
        return None
    return (
        f"Embeddings of two halves of the draws agree on {100 * split_half:.1f} % of neighbors, chance gives "
        f"{100 * chance:.1f} %: hardly any dependence was found, and this embedding is mostly noise."
    )


def _stability(changed: list[tuple[int, float]]) -> str:
    """Summarize the comparisons of neighbor lists."""
    if len(changed) < 2:
        return ", too few to tell whether neighbors are stable"
    return f"; the last quarter of them changed {100 * changed[-1][1]:.1f} % of the neighbors"
