"""The whole walk: data, autoencoder, similarity, embedding, Perceivers, evaluation, report.

Each stage has a folder whose config.json says what it was made with (`made_with`). A stage that is there is not done
again; one that was made with other settings is never overwritten silently.
"""

from __future__ import annotations

import shutil
import time
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maed import __version__
from maed.autoencoder import load_autoencoder, loss_name, outputs_of, pretrain, visible_count, wide
from maed.data import Geometry, SignalData
from maed.embedding import (
    LEAST_SIGNAL_TO_NOISE,
    PositionEmbedding,
    check_reduction,
    embedding_dim,
    reduce,
    signal_to_noise,
)
from maed.engine.lightning import device, precision, progress_kind
from maed.errors import MaedError, nearest, one_of
from maed.evaluation.comparison import compare_all, summarize
from maed.evaluation.geometry import agreement, check_folds, check_neighbors, geometry_metrics, similarity_metrics
from maed.experiments.live import board
from maed.experiments.trials import Cluster, Metrics, Trial, check_cluster, run_trials
from maed.files import is_main_process, read_json, write_json
from maed.machine import commit, describe_machine, memory
from maed.models import LEARNED, describe_classifier, resized_grid
from maed.registry import BASELINES, ESTIMATORS
from maed.report import embedding_figure, write_report
from maed.settings import ENCODINGS, EmbeddingSettings, Settings
from maed.similarity import (
    Halves,
    Similarity,
    Streamed,
    Sums,
    Watch,
    baseline_for,
    check_estimator,
    compute_baseline,
    estimate,
    load_similarity,
    merged,
    neighbor_lists,
    never_drawn,
    stream,
    write_similarity,
)

TUNING_SEED = 1_000_000
"""The seed of all trials of a learning rate: one that no comparison comes to."""

_WATCHED = 2304
"""Most positions of which the similarity is measured while it is streamed: time N^2 a look, of 1,024 half a second."""

_PAIR_BYTES = 200
"""Memory for each pair of positions: 48 to 96 bytes of sums, then arrays of the estimate and the reduction."""


class Run:
    """One run folder, the data and the settings it is made with.

    Args:
        out: where this run writes.
        settings: all settings.
        data: the signals.
        upstream: where earlier stages lie; `out` where not given.
        overwrite: replace stages that were made with other settings instead of refusing.
        say: told what happens, one line at a time.
    """

    def __init__(
        self,
        out: Path,
        settings: Settings,
        data: SignalData,
        *,
        upstream: Path | None = None,
        overwrite: bool = False,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.out, self.settings, self.data = out, settings, data
        self.upstream = upstream or out
        self.overwrite, self.say = overwrite, say
        self._data_made_with = {"source": data.source, "data": asdict(settings.data)}
        embedding_dim(data.positions, settings.embedding.dim)
        visible_count(data.positions, data.kind, settings.autoencoder.visible_fraction)
        self.k()

    # What later stages would refuse, refused before any long work.

    def check_reduction(self) -> None:
        """Refuse a reduction that the positions are too few, or too many, for, or that is not installed."""
        n, there = self.data.positions, memory()
        check_reduction(n, self.settings.embedding)
        if there is not None and _PAIR_BYTES * n**2 > there:
            raise MaedError(
                f"inputs: {n} positions; their similarity would take about {_PAIR_BYTES * n**2 / 2**30:.0f} GiB, "
                f"so that about {int((there / _PAIR_BYTES) ** 0.5)} are the most here. Learn on a coarser grid, "
                "and `resampled` brings it back"
            )

    def check_autoencoder(self) -> None:
        """Refuse a loss that the data cannot have, and a start or a batch that the autoencoder cannot take."""
        settings, n = self.settings.autoencoder, self.data.positions
        loss_name(settings, self.data)
        fitting = baseline_for(self.data)
        if settings.kind == "unet" and settings.batch_size == 1 and n <= 2**settings.depth:
            raise MaedError(
                f"autoencoder.batch_size: 1; it may be 2 or more where a U-Net of depth {settings.depth} leaves one "
                f"place of {n} positions"
            )
        if settings.init == "random":
            return
        if settings.kind == "unet":
            raise MaedError(
                f"autoencoder.init: {settings.init!r}, but a U-Net has no position vectors; it may be random"
            )
        if settings.init not in BASELINES.names:
            self._start_embedding()
        elif settings.init != fitting:
            raise MaedError(
                f"autoencoder.init: {settings.init!r} is not for {self.data.kind} signals; it may be {fitting}"
            )

    def check_similarity(self) -> None:
        """Refuse an estimator that the loss, or the number of visible positions, is not for."""
        settings, data = self.settings.autoencoder, self.data
        trained = visible_count(data.positions, data.kind, settings.visible_fraction)
        check_estimator(self.settings.similarity, visible=self._shown(trained), loss=loss_name(settings, data))

    def check_evaluation(self) -> None:
        """Refuse a known geometry of too few positions to be measured."""
        geometry, settings = self.data.geometry, self.settings.evaluation
        if geometry is not None:
            check_neighbors(settings.n_neighbors or geometry.neighbors, self.data.positions)
            check_folds(settings.folds, self.data.positions)

    def check_encoding(self, encoding: str) -> None:
        """Refuse an encoding that these data cannot have."""
        one_of("positions", encoding, ENCODINGS)
        if not self.data.labeled:  # its Perceiver will be skipped or refused
            return
        if encoding == "fourier" and self.data.geometry is None:
            raise MaedError(f"positions: fourier needs coordinates, and none are known for {self.data.source}")
        if encoding in ("correlation", "dependence") and encoding != baseline_for(self.data):
            kind = self.data.kind
            raise MaedError(f"positions: {encoding} is not for {kind} signals; it may be {baseline_for(self.data)}")
        perceiver, data = self.settings.perceiver, self.data
        describe_classifier(data, encoding, embedding_dim(data.positions, self.settings.embedding.dim), perceiver)
        if encoding in ("maed", *BASELINES.names) and resized_grid(data, perceiver) is not None:
            raise MaedError(
                f"positions: {encoding} is of {data.positions} positions, and perceiver.image_size "
                f"{perceiver.image_size} makes {perceiver.image_size}^2 of them; it may be maed-resampled"
            )

    # The stages, in the order of the walk.

    def pretrain(self) -> None:
        """Train the masked autoencoder: `autoencoder/`."""
        settings, data = self.settings.autoencoder, self.data
        visible = visible_count(data.positions, data.kind, settings.visible_fraction)
        shape = {"n": data.positions, "channels": data.channels, "vocabulary": data.vocabulary, "visible": visible}
        folder = self.out / "autoencoder"
        made_with = {**self._data_made_with, "autoencoder": asdict(settings)}
        self.check_autoencoder()
        if self._claim(folder, made_with, {**shape, "loss": loss_name(settings, data)}):
            return
        start = self._start_vectors()
        self.say(f"autoencoder: {visible} of {data.positions} positions visible, {settings.steps} steps")
        pretrain(data, settings, self.settings.trainer, folder, start_vectors=start)

    def _start_vectors(self) -> torch.Tensor | None:
        """What `autoencoder.init` asks the position vectors to start from; None for random numbers.

        Of a baseline they are the Laplacian eigenmaps: all scales alike, as attention needs to tell neighbors apart.
        """
        settings, n = self.settings.autoencoder, self.data.positions
        if settings.init == "random":
            return None
        if settings.init not in BASELINES.names:
            return self._start_embedding().vectors
        self.baseline()
        similarity = load_similarity(self.out / "baseline" / "similarity")
        eigenmaps = EmbeddingSettings(reduction="laplacian", dim=min(settings.width, n - 1))
        return reduce(similarity.values, eigenmaps, similarity.standard_error)

    def _start_embedding(self) -> PositionEmbedding:
        """The embedding in the folder that `autoencoder.init` names; one of other positions is refused."""
        name = self.settings.autoencoder.init
        if not Path(name).is_dir():
            choices = ("random", baseline_for(self.data))
            raise MaedError(
                f"autoencoder.init: {name!r} is no folder{nearest(name, choices)}; it may be {', '.join(choices)} or "
                "the folder of an embedding"
            )
        embedding = PositionEmbedding.from_pretrained(Path(name))
        self._check_upstream(Path(name), {"n": embedding.n, **embedding.provenance})
        return embedding

    def similarity(self) -> None:
        """Stream draws into a similarity: `similarity/`."""
        settings, data = self.settings.similarity, self.data
        source = self.upstream / "autoencoder"
        self.check_reduction()  # of the two halves
        model, config = load_autoencoder(source)
        self._check_upstream(source, config)
        visible = self._shown(config["visible"])
        check_estimator(settings, visible=visible, loss=config["loss"])
        folder = self.out / "similarity"
        if self._claim(folder, {**config["made_with"], "similarity": asdict(settings)}):
            return
        self.say(f"similarity: {settings.draws} draws, {settings.estimator}")
        where = device(self.settings.trainer)
        with self._progress("similarity") as progress:
            streamed = stream(
                model.to(where),
                data.train,
                settings,
                visible=visible,
                loss=config["loss"],
                outputs=outputs_of(config["loss"], channels=data.channels, vocabulary=data.vocabulary),
                device=where,
                half_precision=precision(self.settings.trainer, wide=wide(model)) != "32-true",
                folder=folder,
                progress=progress,
                watch=self._watch(),
            )
        self._write_estimate(folder, streamed)

    def _shown(self, trained: int) -> int:
        """How many positions a draw shows: as in the training, unless the similarity's settings have their own."""
        fraction, data = self.settings.similarity.visible_fraction, self.data
        return trained if fraction is None else visible_count(data.positions, data.kind, fraction, "similarity")

    def baseline(self) -> str:
        """Make the training-free similarity of the data: `baseline/similarity/`. Returns its name."""
        settings, name = self.settings.similarity, baseline_for(self.data)
        folder = self.out / "baseline" / "similarity"
        if not self._claim(folder, {**self._data_made_with, "baseline": name, "signals": settings.signals}):
            self.say(f"baseline: {name}")
            started = time.perf_counter()
            result = compute_baseline(name, self.data, settings.signals)
            write_similarity(folder, result, None, _seconds(folder, started))
        return name

    def embed(self, source: str = "maed") -> PositionEmbedding:
        """Reduce a similarity to an embedding: `embedding/`, or `baseline/embedding/`."""
        folder = self.upstream / _below(source) / "similarity"
        if (folder / "config.json").is_file():
            self._check_upstream(folder, read_json(folder / "config.json"))
        settings = self.settings.embedding
        target = self.out / _below(source) / "embedding"
        return embed_folder(
            folder, target, settings, geometry=self.data.geometry, overwrite=self.overwrite, say=self.say
        )

    def geometry(self, source: str, embedding: PositionEmbedding) -> dict[str, float] | None:
        """Metrics of an embedding and of the similarity it was made from; None without a known geometry."""
        if self.data.geometry is None:
            return None
        similarity = load_similarity(self.upstream / _below(source) / "similarity").values
        settings = self.settings.evaluation
        return {
            **geometry_metrics(embedding.vectors, self.data.geometry, settings),
            **similarity_metrics(similarity, self.data.geometry, settings),
        }

    def start_geometry(self) -> dict[str, float] | None:
        """Metrics of the embedding in the folder that the autoencoder started from; None where there is no such one."""
        if self.data.geometry is None or self.settings.autoencoder.init in ("random", *BASELINES.names):
            return None
        return geometry_metrics(self._start_embedding().vectors, self.data.geometry, self.settings.evaluation)

    def train(self, encoding: str, seed: int) -> dict[str, Any]:
        """Train and test one Perceiver: `perceiver/ENCODING-SEED/`. Returns its metrics."""
        self.check_encoding(encoding)
        trial = self.trial(encoding, seed, self._vectors(encoding))
        self.say(f"perceiver: {trial}")
        metrics = trial.train(self.data)
        assert metrics is not None  # it does not tune
        return metrics

    def trial(
        self,
        encoding: str,
        seed: int,
        vectors: torch.Tensor | None,
        *,
        learning_rate: float | None = None,
        tuning: bool = False,
    ) -> Trial:
        """The training of one Perceiver; with a `learning_rate` other than that of the settings where it is given."""
        train = replace(self.settings.train, tune=None, tune_steps=None)  # no part of what is trained
        if learning_rate is not None:
            train = replace(train, learning_rate=learning_rate)
        if tuning:
            train = replace(train, steps=self.settings.train.tune_steps or train.steps)
        name = f"tune/{encoding}-{train.learning_rate}" if tuning else f"{encoding}-{seed}"
        dim = embedding_dim(self.data.positions, self.settings.embedding.dim) if vectors is None else vectors.shape[1]
        return Trial(
            encoding,
            seed,
            self.out / "perceiver" / name,
            dim,
            replace(self.settings, train=train),
            vectors,
            tuning=tuning,
            overwrite=self.overwrite,
        )

    def vectors(self, encodings: Sequence[str]) -> dict[str, torch.Tensor | None]:
        """The vectors of each encoding, None of one that has none; refused where missing or of other positions."""
        for encoding in encodings:
            self.check_encoding(encoding)
        return {encoding: self._vectors(encoding) for encoding in encodings}

    def origin(self) -> dict[str, Any]:
        """What `maed`'s embedding was made with; empty where there is none, or it does not say."""
        config = self.upstream / "embedding" / "config.json"
        return (read_json(config).get("made_with") or {}) if config.is_file() else {}

    # What the stages share.

    def _vectors(self, encoding: str) -> torch.Tensor | None:
        """The vectors of a learned encoding; a baseline's are made where they are missing."""
        if encoding not in LEARNED:
            return None
        if encoding in ("maed", "maed-resampled"):
            embedding = self._maed(encoding)
        else:
            below = self.upstream / "baseline" / "embedding"
            if not below.is_dir():
                self.baseline()
                return replace_upstream(self, self.out).embed(encoding).vectors
            embedding = PositionEmbedding.from_pretrained(below)
        finer = resized_grid(self.data, self.settings.perceiver)
        self._check_positions(embedding, self.data.positions if finer is None else len(finer.coordinates))
        if encoding == "maed-resampled" and self.data.permutation is not None:  # it came in the order of its grid
            return embedding.vectors[torch.from_numpy(self.data.permutation)]
        return embedding.vectors

    def _check_positions(self, embedding: PositionEmbedding, n: int) -> None:
        """Refuse the run's embedding where it is not of `n` positions, of other ones than the data, or empty."""
        if embedding.n != n:
            raise MaedError(f"run: the embedding has {embedding.n} positions, the data {n}")
        source = embedding.source
        if source and source not in (self.data.source, self.settings.perceiver.learned_from):
            raise MaedError(
                f"run: the embedding was learned from {source!r}, the data are {self.data.source!r}; where their "
                f"positions are the same, say so with --perceiver.learned_from {source}"
            )
        if not embedding.vectors.any():
            raise MaedError(
                f"run: the embedding's vectors are all zero: {embedding.provenance.get('reduction')} found nothing to "
                "tell positions apart; another --embedding.reduction may"
            )
        self._check_upstream(self.upstream / "embedding", embedding.provenance)

    def _maed(self, encoding: str) -> PositionEmbedding:
        """The embedding of the run; one that was resampled, and so used the geometry, goes by that name alone."""
        folder = self.upstream / "embedding"
        if not (folder / "model.safetensors").is_file():
            raise MaedError(f"run: {folder} holds no embedding; `maed embed` writes one")
        embedding = PositionEmbedding.from_pretrained(folder)
        resampled = bool(embedding.provenance.get("resampled"))
        finer = resized_grid(self.data, self.settings.perceiver)
        if resampled != (encoding == "maed-resampled") and (resampled or finer is None):
            was = "was resampled by its geometry" if resampled else "was not resampled"
            other = "maed-resampled" if resampled else "maed"
            raise MaedError(f"positions: {encoding}, but the embedding in {folder} {was}; it may be {other}")
        here, there = finer or self.data.geometry, embedding.geometry
        if resampled and here is not None and there is not None and here.shape != there.shape:
            raise MaedError(f"run: {folder} was resampled to {there.shape}, the data are {here.shape}")
        if finer is not None and not resampled:
            self._check_positions(embedding, self.data.positions)
            return embedding.resampled(finer, None if embedding.geometry else self.data.geometry)
        return embedding

    def _write_estimate(self, folder: Path, streamed: Streamed) -> None:
        sums = merged(streamed.halves)
        estimator = self.settings.similarity.estimator
        result = estimate(sums, estimator)
        self._check_drawn(folder, sums, streamed.draws)
        facts = {"seconds": streamed.seconds, "draws": streamed.draws, "changed": streamed.changed}
        config = {**read_json(folder / "config.json"), **facts, "history": streamed.history}
        if self.settings.similarity.until == "stable":
            self.say(f"similarity: {streamed.draws} draws{_stability(streamed.changed)}")
        config["split_half"] = self._split_half([estimate(half, estimator) for half in streamed.halves])
        config["split_half_of"] = _plain(asdict(self.settings.embedding))
        note = noise_note(config["split_half"], self.k(), self.data.positions)
        self.say(
            note or f"similarity: two halves of the draws agree on {100 * config['split_half']:.1f} % of neighbors"
        )
        write_similarity(folder, result, sums, config)

    def _watch(self) -> Watch | None:
        """What is recorded of the similarity while it is streamed; None where that would take long.

        How far the neighbor lists of two halves of the draws agree (of half as many draws each); and, against a known
        geometry, recall and Spearman of the entries, which nothing is chosen by.
        """
        if self.data.positions > _WATCHED:
            return None
        estimator, settings, geometry = self.settings.similarity.estimator, self.settings.evaluation, self.data.geometry
        true = None if geometry is None else geometry.distances()

        def watch(halves: Halves) -> dict[str, float]:
            lists = [neighbor_lists(estimate(half, estimator).values, self.k()) for half in halves]
            found = {"split_half": float((lists[0] & lists[1]).sum() / lists[0].sum())}
            if geometry is not None:
                values = estimate(merged(halves), estimator).values
                metrics = similarity_metrics(values, geometry, settings, true)
                found |= {name: metrics[f"entries_{name}"] for name in ("knn_recall", "spearman")}
            return found

        return watch

    def _check_drawn(self, folder: Path, sums: Sums, draws: int) -> None:
        """Name pairs of positions that no draw tells of; refuse where they are the greater part.

        Positions that no training signal has are left out: more draws cannot reach them.
        """
        mask = self.data.train.mask
        there = torch.ones(self.data.positions).bool() if mask is None else torch.from_numpy(mask.any(axis=0))
        pairs, never = int(there.sum()) * (int(there.sum()) - 1), never_drawn(sums, there)
        if never == 0:
            return
        line = (
            f"similarity.draws: in {draws} draws, {never} of {pairs} pairs of positions were never visible and scored "
            "together; more draws, or a larger similarity.visible_fraction, reach them"
        )
        if 2 * never > pairs:
            shutil.rmtree(folder)  # nothing in it is worth keeping, and it would stand in the way of more draws
            raise MaedError(line)
        warnings.warn(f"{line}; they count as not similar", stacklevel=2)

    def _split_half(self, halves: Sequence[Similarity]) -> float:
        """Recall@k between the embeddings of two disjoint halves of the draws."""
        k = self.k()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of halves that nobody keeps
            first, second = (reduce(half.values, self.settings.embedding, half.standard_error) for half in halves)
        return agreement(first, second, k)

    def k(self) -> int:
        """The k of recall@k, here and now: as set, that of the geometry, or 8; never N or more."""
        geometry, chosen = self.data.geometry, self.settings.evaluation.n_neighbors
        if chosen is not None:
            check_neighbors(chosen, self.data.positions)
            return chosen
        return min(8 if geometry is None else geometry.neighbors, self.data.positions - 1)

    def _claim(self, folder: Path, made_with: dict[str, Any], facts: dict[str, Any] | None = None) -> bool:
        return claim(folder, made_with, facts, overwrite=self.overwrite)

    def _check_upstream(self, folder: Path, config: dict[str, Any]) -> None:
        """Refuse an earlier stage that was made for other positions than these data have."""
        there = config.get("made_with", {})
        # the seed places the positions of a swiss roll
        places = ("seed",) if self.data.source.startswith("field:swissroll") else ()
        for name in ("permute", "length", "image_size", "columns", *places):
            was, now = there.get("data", {}).get(name), asdict(self.settings.data)[name]
            if "data" in there and was != now:
                raise MaedError(f"data.{name}: {now}; {folder} was made with {was}, and positions must agree")
        if config.get("n", self.data.positions) != self.data.positions:
            raise MaedError(f"run: {folder} has {config['n']} positions, the data {self.data.positions}")

    @contextmanager
    def _progress(self, title: str) -> Iterator[Callable[[int, int], None] | None]:
        """A bar on a terminal, a line for every tenth elsewhere, or nothing, as the trainer's settings ask."""
        wanted = progress_kind(self.settings.trainer)
        if wanted == "none":
            yield None
        elif wanted == "bar":
            columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            with Progress(*columns) as bar:
                task = bar.add_task(title)
                yield lambda done, total: bar.update(task, completed=done, total=total)
        else:
            tenths = [0]

            def line(done: int, total: int) -> None:
                if done * 10 // total > tenths[0]:
                    tenths[0] = done * 10 // total
                    self.say(f"{title}: {done} of {total} draws")

            yield line


def claim(
    folder: Path, made_with: dict[str, Any], facts: dict[str, Any] | None = None, *, overwrite: bool = False
) -> bool:
    """Take `folder` for a stage made with these settings, by its config.json; True where it is already finished.

    Raises:
        MaedError: the folder holds the stage made with other settings, and `overwrite` is off.
    """
    config = folder / "config.json"
    there = (read_json(config).get("made_with") or {}) if config.is_file() else {}
    if there == _plain(made_with):
        return (folder / "model.safetensors").is_file()
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            difference = first_difference(there, _plain(made_with))
            raise MaedError(f"out: {folder} holds another run ({difference}); take another --out, or --overwrite")
        shutil.rmtree(folder)
    write_json(config, {"schema": 1, **(facts or {}), "made_with": made_with})
    return False


def embed_folder(
    folder: Path,
    target: Path,
    settings: EmbeddingSettings,
    *,
    geometry: Geometry | None = None,
    overwrite: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> PositionEmbedding:
    """Reduce the similarity in `folder` to an embedding in `target`; neither data nor geometry is read for it.

    The geometry is only written beside the vectors, where it is known.

    Raises:
        MaedError: the similarity holds no dependence above its noise, and `embedding.force` is off.
    """
    similarity, config = load_similarity(folder), read_json(folder / "config.json")
    made_with = {**config["made_with"], "embedding": asdict(settings)}
    estimator = made_with["similarity"]["estimator"] if "similarity" in made_with else made_with["baseline"]
    if not settings.force:
        check_signal(similarity, estimator, say)
    if claim(target, made_with, overwrite=overwrite):
        return PositionEmbedding.from_pretrained(target)
    say(f"embedding: {settings.reduction} of {estimator}")
    embedding = PositionEmbedding(
        reduce(similarity.values, settings, similarity.standard_error),
        source=made_with["source"],
        geometry=geometry,
        provenance={
            "estimator": estimator,
            "reduction": settings.reduction,
            "seed": (made_with.get("autoencoder") or made_with.get("data") or {}).get("seed"),
            "maed": __version__,
            "versions": {"maed": __version__, **describe_machine()["versions"]},
            # of another reduction it would say nothing about this one
            "split_half": config.get("split_half") if config.get("split_half_of") == _plain(asdict(settings)) else None,
            "made_with": made_with,
        },
    )
    embedding.save_pretrained(target)
    return embedding


def check_signal(similarity: Similarity, estimator: str, say: Callable[[str], None]) -> None:
    """Refuse a similarity that is no more than its noise; of a baseline, which maed is measured against, say so."""
    known = estimator in ESTIMATORS.names  # not a baseline, nor somebody else's that is not installed
    values = ESTIMATORS.get(estimator)().dependence(similarity) if known else similarity.values
    ratio = signal_to_noise(values, similarity.standard_error)
    if ratio >= LEAST_SIGNAL_TO_NOISE:
        return
    line = (
        f"similarity: no dependence found (signal-to-noise ratio {ratio:.2f} of {estimator}; noise has about 1, "
        f"{LEAST_SIGNAL_TO_NOISE} is asked for)"
    )
    if estimator not in BASELINES.names:
        raise MaedError(f"{line}; --embedding.force true embeds it all the same")
    say(f"{line}; its embedding is noise")


def _describe(embedding: PositionEmbedding, folder: Path, metrics: dict[str, float] | None) -> None:
    """Save an embedding once more, with what was measured of it and its picture, unless its card has them."""
    figure = embedding_figure(embedding)
    pictured = figure is None or (folder / "figure.png").is_file()
    if not pictured or (metrics is not None and embedding.provenance.get("metrics") != metrics):
        embedding.save_pretrained(folder, metrics, figure)


def _below(source: str) -> Path:
    """Where the stages of `maed`, or of a baseline, lie in a run folder."""
    return Path() if source == "maed" else Path("baseline")


def replace_upstream(run: Run, upstream: Path) -> Run:
    """The same run, reading earlier stages from `upstream`."""
    return Run(run.out, run.settings, run.data, upstream=upstream, overwrite=run.overwrite, say=run.say)


def run_all(run: Run, encodings: Sequence[str], seeds: int, *, command: str) -> dict[str, Any]:
    """The whole walk; returns, and keeps writing as it goes, results.json."""
    for encoding in encodings:
        run.check_encoding(encoding)
    run.check_autoencoder()
    run.check_similarity()
    run.check_reduction()
    run.check_evaluation()
    check_cluster(run.settings.trainer.cluster)
    results = new_results(run, command)
    given = {"autoencoder": asdict(run.settings.autoencoder), "data": asdict(run.settings.data)}
    measured = encodings if run.data.geometry is None else ("start", *BASELINES.names)
    results["notes"] += origin_notes(given, measured)
    run.pretrain()
    run.similarity()
    embeddings = {"maed": run.embed()}  # refused where there is nothing to embed, before more work is done
    baseline = run.baseline()
    embeddings[baseline] = run.embed(baseline)
    measured = read_json(run.out / "similarity" / "config.json")
    split_half = embeddings["maed"].provenance["split_half"]
    results["split_half"] = {"maed": split_half}
    note = None if split_half is None else noise_note(split_half, run.k(), run.data.positions)
    results["notes"] += [] if note is None else [note]
    results["seconds"] = {
        "pretrain": read_json(run.out / "autoencoder" / "metrics.json")["seconds"],
        "similarity": measured["seconds"],
        "baseline": read_json(run.out / "baseline" / "similarity" / "config.json")["seconds"],
    }
    if run.data.geometry is not None:
        results["geometry"] = {name: run.geometry(name, embedding) for name, embedding in embeddings.items()}
        if (start := run.start_geometry()) is not None:
            results["geometry"]["start"] = start
    for name, embedding in embeddings.items():
        _describe(embedding, run.out / _below(name) / "embedding", (results["geometry"] or {}).get(name))
    save_results(run, results)
    compare(run, encodings, seeds, results)
    run.say(f"report: {write_report(run.out, run.settings.report)}")
    return results


def compare(run: Run, encodings: Sequence[str], seeds: int, results: dict[str, Any]) -> None:
    """Train each encoding with each seed, and put the accuracies, their intervals and differences into `results`.

    All encodings of one seed come before the next seed, so that a stopped comparison is still a fair one.
    """
    if not encodings or not seeds:
        results["notes"].append("Perceivers skipped: no positions were asked for.")
    elif not run.data.labeled:
        results["notes"].append(f"Perceivers skipped: {run.data.source} has no labels.")
        run.say(results["notes"][-1])
    else:
        vectors = run.vectors(encodings)
        address = run.settings.trainer.cluster
        with nullcontext() if address is None else Cluster(address) as cluster:
            rates = tuned_rates(run, vectors, results, cluster)
            trials = [
                run.trial(encoding, seed, vectors[encoding], learning_rate=rates.get(encoding))
                for seed in range(seeds)
                for encoding in encodings
            ]
            for rows in _rows_as_trained(run, trials, "Comparison: test accuracy", _classification_row, cluster):
                results["classification"] = rows
                results["summary"], results["paired"] = summarize(rows), compare_all(rows)
                results["seconds"]["perceivers"] = sum(row["seconds"] for row in rows)
                save_results(run, results)
    save_results(run, results)


def tuned_rates(
    run: Run, vectors: Mapping[str, torch.Tensor | None], results: dict[str, Any], cluster: Cluster | None = None
) -> dict[str, float]:
    """The learning rate of `train.tune` with the best validation accuracy for each encoding; the lower of equal ones.

    Every encoding tries every rate, with one and the same seed that no comparison has. What was found goes into
    `results`. Nothing is tried, and nothing returned, without `train.tune`.

    Raises:
        MaedError: an encoding whose loss stays finite with none of them.
    """
    rates = run.settings.train.tune
    if rates is None:
        return {}
    trials = [
        run.trial(encoding, TUNING_SEED, vectors[encoding], learning_rate=rate, tuning=True)
        for encoding in vectors
        for rate in sorted(rates)
    ]
    for rows in _rows_as_trained(run, trials, "Learning rates: validation accuracy", _tuning_row, cluster):
        results["tuning"] = rows
        results["seconds"]["tuning"] = sum(row["seconds"] or 0.0 for row in rows)
        save_results(run, results)
    for encoding in vectors:
        tried = [r for r in results["tuning"] if r["positions"] == encoding and r["validation_accuracy"] is not None]
        if not tried:
            raise MaedError(
                f"train.tune: {', '.join(f'{rate:g}' for rate in rates)}; with none of them does the loss of "
                f"{encoding} stay finite; it may hold lower ones, or trainer.precision may be 32-true"
            )
        max(tried, key=lambda row: row["validation_accuracy"])["chosen"] = True  # the first of equal ones: the lowest
    save_results(run, results)
    return {row["positions"]: row["learning_rate"] for row in results["tuning"] if row["chosen"]}


def _rows_as_trained(
    run: Run,
    trials: Sequence[Trial],
    title: str,
    row: Callable[[Trial, Metrics | None], dict[str, Any]],
    cluster: Cluster | None,
) -> Iterator[list[dict[str, Any]]]:
    """Train; after each trial, a row for each that is done, in the order of the trials and not of their ends."""
    done: dict[Trial, dict[str, Any]] = {}
    with board(title, trials, run.settings.trainer, run.say) as shown:
        for trial, metrics in run_trials(run.data, trials, cluster=cluster, board=shown):
            done[trial] = row(trial, metrics)
            yield [done[trial] for trial in trials if trial in done]


def _classification_row(trial: Trial, metrics: Metrics | None) -> dict[str, Any]:
    assert metrics is not None  # only a trial that tunes may fail
    keys = ("positions", "seed", "test_accuracy", "validation_accuracy", "epochs", "seconds", "history")
    return {**{key: metrics[key] for key in keys}, "learning_rate": trial.learning_rate}


def _tuning_row(trial: Trial, metrics: Metrics | None) -> dict[str, Any]:
    """What a rate came to; nothing is known of one with which the loss left the finite numbers."""
    found = metrics or {}
    history = found.get("history")
    return {
        "positions": trial.encoding,
        "seed": trial.seed,
        "learning_rate": trial.learning_rate,
        "validation_accuracy": found.get("validation_accuracy"),
        "steps": history[-1]["step"] if history else None,
        "seconds": found.get("seconds"),
        "chosen": False,
    }


def new_results(run: Run, command: str) -> dict[str, Any]:
    """results.json before anything has been measured."""
    return {
        "schema": 1,
        "maed": __version__,
        "command": command,
        "commit": commit(),
        "source": run.data.source,
        "positions": run.data.positions,
        "neighbors": run.k(),
        "settings": asdict(run.settings),
        "machine": describe_machine(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": {},
        "split_half": None,
        "geometry": None,
        "tuning": None,
        "classification": None,
        "summary": None,
        "paired": None,
        "notes": [],
    }


def save_results(run: Run, results: dict[str, Any]) -> None:
    """Write results.json as it stands."""
    if is_main_process():
        write_json(run.out / "results.json", results)


def first_difference(there: dict[str, Any], here: dict[str, Any], prefix: str = "") -> str:
    """The first setting in which two stages differ, as `name: was, now is`."""
    for key in [*here, *(k for k in there if k not in here)]:
        a, b = there.get(key), here.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            inner = first_difference(a, b, f"{prefix}{key}.")
            if inner:
                return inner
        elif a != b:
            return f"{prefix}{key} is {a} there and {b} here"
    return ""


def noise_note(split_half: float, k: int, n: int) -> str | None:
    """A plain warning where two halves of the draws agree hardly better than chance, `k / (n - 1)`; otherwise None."""
    chance = k / (n - 1)
    if split_half >= min(3 * chance, (1 + chance) / 2):
        return None
    return (
        f"Embeddings of two halves of the draws agree on {100 * split_half:.1f} % of neighbors, chance gives "
        f"{100 * chance:.1f} %: hardly any dependence was found, and this embedding is mostly noise."
    )


def origin_notes(made_with: Mapping[str, Any], rows: Collection[str]) -> list[str]:
    """What a reader must know of what the autoencoder was given before it learned anything.

    Args:
        made_with: settings of `autoencoder` and `data`, by their names; nothing is said of what is not there.
        rows: what is measured beside it: encodings, or `start`, the embedding that the autoencoder started from.
    """
    settings, data = made_with.get("autoencoder") or {}, made_with.get("data") or {}
    notes, init = [], settings.get("init", "random")
    if init != "random":
        known = init in BASELINES.names
        start, row = (f"the {init} baseline", init) if known else (f"the embedding in {init}", "start")
        gain = f"the row `{row}`" if row in rows else "that start"
        notes.append(
            f"The autoencoder's position vectors started from {start}: only what maed gains over {gain} is its own."
        )
    if settings.get("kind") == "unet":
        order = (
            "positions were not permuted, so that this is no evidence that their order was found"
            if data.get("permute") is None
            else "positions were stored in a random order, which tells it nothing"
        )
        notes.append(f"The U-Net knows the storage order by construction; {order}.")
    return notes


def _stability(changed: list[tuple[int, float]]) -> str:
    """What the looks at the neighbor lists say, for a person."""
    if len(changed) < 2:
        return ", too few to tell whether neighbors are stable"
    return f"; the last quarter of them changed {100 * changed[-1][1]:.1f} % of the neighbors"


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _seconds(folder: Path, started: float) -> dict[str, Any]:
    return {**read_json(folder / "config.json"), "seconds": time.perf_counter() - started}
