"""The whole walk: data, autoencoder, similarity, embedding, Perceivers, evaluation, report.

Each stage has a folder whose config.json says what it was made with (`made_with`). A stage that is there is not done
again; one that was made with other settings is never overwritten silently.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maed import __version__
from maed.autoencoder import load_autoencoder, loss_name, pretrain, visible_count
from maed.config import ENCODINGS, Baseline, EmbeddingSettings, Settings
from maed.data import Geometry, SignalData
from maed.embedding import PositionEmbedding, embedding_dim, reduce
from maed.errors import MaedError, one_of
from maed.evaluation.comparison import compare_all, summarise
from maed.evaluation.geometry import agreement, check_folds, check_neighbours, geometry_metrics, similarity_metrics
from maed.files import read_json, write_json
from maed.machine import commit, describe_machine
from maed.perceiver import train_classifier
from maed.report import write_report
from maed.similarity import (
    Accumulator,
    Similarity,
    baseline_for,
    compute_baseline,
    estimate,
    load_similarity,
    stream,
    write_similarity,
)
from maed.training import device

_LEARNED = ("maed", "correlation", "dependence")
"""Encodings whose vectors come from an embedding folder."""


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
        """Refuse a graph that the positions are too few for."""
        n, settings = self.data.positions, self.settings.embedding
        if settings.reduction == "diffusion" and settings.neighbours >= n:
            raise MaedError(f"embedding.neighbours: {settings.neighbours} for {n} positions; it may be at most {n - 1}")

    def check_evaluation(self) -> None:
        """Refuse a known geometry of too few positions to be measured."""
        geometry, settings = self.data.geometry, self.settings.evaluation
        if geometry is not None:
            check_neighbours(settings.neighbours or geometry.neighbours, self.data.positions)
            check_folds(settings.folds, self.data.positions)

    def check_encoding(self, encoding: str) -> None:
        """Refuse an encoding that these data cannot have."""
        one_of("positions", encoding, ENCODINGS)
        if not self.data.labelled:  # its Perceiver will be skipped or refused
            return
        if encoding == "fourier" and self.data.geometry is None:
            raise MaedError(f"positions: fourier needs coordinates, and none are known for {self.data.source}")
        if encoding in ("correlation", "dependence") and encoding != baseline_for(self.data):
            kind = self.data.kind
            raise MaedError(f"positions: {encoding} is not for {kind} signals; it may be {baseline_for(self.data)}")

    # The stages, in the order of the walk.

    def pretrain(self) -> None:
        """Train the masked autoencoder: `autoencoder/`."""
        settings, data = self.settings.autoencoder, self.data
        visible = visible_count(data.positions, data.kind, settings.visible_fraction)
        shape = {"n": data.positions, "channels": data.channels, "vocabulary": data.vocabulary, "visible": visible}
        folder = self.out / "autoencoder"
        made_with = {**self._data_made_with, "autoencoder": asdict(settings)}
        if self._claim(folder, made_with, {**shape, "loss": loss_name(settings, data)}):
            return
        self.say(f"autoencoder: {visible} of {data.positions} positions visible, {settings.steps} steps")
        pretrain(data, settings, self.settings.trainer, folder)

    def similarity(self) -> None:
        """Stream draws into a similarity: `similarity/`."""
        settings, data = self.settings.similarity, self.data
        source = self.upstream / "autoencoder"
        self.check_reduction()  # of the two halves
        model, config = load_autoencoder(source)
        self._check_upstream(source, config)
        folder = self.out / "similarity"
        if self._claim(folder, {**config["made_with"], "similarity": asdict(settings)}):
            return
        self.say(f"similarity: {settings.draws} draws, {settings.estimator}")
        started = time.perf_counter()
        where = device(self.settings.trainer)
        with self._progress("similarity") as progress:
            halves = stream(
                model.to(where),
                data.train,
                settings,
                visible=config["visible"],
                loss=config["loss"],
                outputs=data.vocabulary or data.channels,
                device=where,
                folder=folder,
                progress=progress,
            )
        self._write_estimate(folder, halves, started)

    def baseline(self) -> Baseline:
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

    def train(self, encoding: str, seed: int) -> dict[str, Any]:
        """Train and test one Perceiver: `perceiver/ENCODING-SEED/`. Returns its metrics."""
        self.check_encoding(encoding)
        vectors = self._vectors(encoding)
        self.say(f"perceiver: {encoding}, seed {seed}")
        return train_classifier(
            self.data,
            encoding,
            seed=seed,
            folder=self.out / "perceiver" / f"{encoding}-{seed}",
            dim=embedding_dim(self.data.positions, self.settings.embedding.dim)
            if vectors is None
            else vectors.shape[1],
            settings=self.settings,
            vectors=vectors,
            overwrite=self.overwrite,
        )

    def check_vectors(self, encodings: Sequence[str]) -> None:
        """Refuse encodings whose vectors are missing or of other positions, before any Perceiver is trained."""
        for encoding in encodings:
            self.check_encoding(encoding)
            self._vectors(encoding)

    # What the stages share.

    def _vectors(self, encoding: str) -> torch.Tensor | None:
        """The vectors of a learned encoding; a baseline's are made where they are missing."""
        if encoding not in _LEARNED:
            return None
        if encoding == "maed":
            folder = self.upstream / "embedding"
            if not (folder / "model.safetensors").is_file():
                raise MaedError(f"run: {folder} holds no embedding; `maed embed` writes one")
            embedding = PositionEmbedding.from_pretrained(folder)
        else:
            below = self.upstream / "baseline" / "embedding"
            if not below.is_dir():
                self.baseline()
                return replace_upstream(self, self.out).embed(encoding).vectors
            embedding = PositionEmbedding.from_pretrained(below)
        if embedding.n != self.data.positions:
            raise MaedError(f"run: the embedding has {embedding.n} positions, the data {self.data.positions}")
        self._check_upstream(self.upstream / "embedding", embedding.provenance)
        return embedding.vectors

    def _write_estimate(self, folder: Path, halves: tuple[Accumulator, Accumulator], started: float) -> None:
        sums = halves[0].merge(halves[1])
        estimator = self.settings.similarity.estimator
        result = estimate(sums, estimator)
        config = _seconds(folder, started)
        config["split_half"] = self._split_half([estimate(half, estimator) for half in halves])
        config["split_half_of"] = _plain(asdict(self.settings.embedding))
        note = noise_note(config["split_half"], self.k(), self.data.positions)
        self.say(
            note or f"similarity: two halves of the draws agree on {100 * config['split_half']:.1f} % of neighbours"
        )
        write_similarity(folder, result, sums, config)

    def _split_half(self, halves: Sequence[Similarity]) -> float:
        """Recall@k between the embeddings of two disjoint halves of the draws."""
        k = self.k()
        first, second = (reduce(half.values, self.settings.embedding) for half in halves)
        return agreement(first, second, k)

    def k(self) -> int:
        """The k of recall@k, here and now: as set, that of the geometry, or 8; never N or more."""
        geometry, chosen = self.data.geometry, self.settings.evaluation.neighbours
        if chosen is not None:
            check_neighbours(chosen, self.data.positions)
            return chosen
        return min(8 if geometry is None else geometry.neighbours, self.data.positions - 1)

    def _claim(self, folder: Path, made_with: dict[str, Any], facts: dict[str, Any] | None = None) -> bool:
        return claim(folder, made_with, facts, overwrite=self.overwrite)

    def _check_upstream(self, folder: Path, config: dict[str, Any]) -> None:
        """Refuse an earlier stage that was made for other positions than these data have."""
        there = config.get("made_with", {})
        for name in ("permute", "length", "image_size", "columns"):
            was, now = there.get("data", {}).get(name), asdict(self.settings.data)[name]
            if "data" in there and was != now:
                raise MaedError(f"data.{name}: {now}; {folder} was made with {was}, and positions must agree")
        if config.get("n", self.data.positions) != self.data.positions:
            raise MaedError(f"run: {folder} has {config['n']} positions, the data {self.data.positions}")

    @contextmanager
    def _progress(self, title: str) -> Iterator[Callable[[int, int], None] | None]:
        """A bar on a terminal, a line for every tenth elsewhere, or nothing, as the trainer's settings ask."""
        wanted = self.settings.trainer.progress
        if wanted == "none":
            yield None
        elif wanted == "bar" or (wanted == "auto" and sys.stdout.isatty()):
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
    """
    similarity, config = load_similarity(folder), read_json(folder / "config.json")
    made_with = {**config["made_with"], "embedding": asdict(settings)}
    estimator = made_with["similarity"]["estimator"] if "similarity" in made_with else made_with["baseline"]
    if claim(target, made_with, overwrite=overwrite):
        return PositionEmbedding.from_pretrained(target)
    say(f"embedding: {settings.reduction} of {estimator}")
    embedding = PositionEmbedding(
        reduce(similarity.values, settings),
        source=made_with["source"],
        geometry=geometry,
        provenance={
            "estimator": estimator,
            "reduction": settings.reduction,
            "maed": __version__,
            # of another reduction it would say nothing about this one
            "split_half": config.get("split_half") if config.get("split_half_of") == _plain(asdict(settings)) else None,
            "made_with": made_with,
        },
    )
    embedding.save_pretrained(target)
    return embedding


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
    run.check_reduction()
    run.check_evaluation()
    results = new_results(run, command)
    run.pretrain()
    run.similarity()
    baseline = run.baseline()
    embeddings = {name: run.embed(name) for name in ("maed", baseline)}
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
    elif not run.data.labelled:
        results["notes"].append(f"Perceivers skipped: {run.data.source} has no labels.")
        run.say(results["notes"][-1])
    else:
        run.check_vectors(encodings)
        rows: list[dict[str, Any]] = []
        for seed in range(seeds):
            for encoding in encodings:
                metrics = run.train(encoding, seed)
                keys = ("positions", "seed", "test_accuracy", "validation_accuracy", "epochs", "seconds")
                rows.append({key: metrics[key] for key in keys})
                run.say(f"perceiver: {encoding}, seed {seed}: test accuracy {100 * metrics['test_accuracy']:.2f} %")
                results["classification"] = rows
                results["summary"], results["paired"] = summarise(rows), compare_all(rows)
                save_results(run, results)
        results["seconds"]["perceivers"] = sum(row["seconds"] for row in rows)
    save_results(run, results)


def new_results(run: Run, command: str) -> dict[str, Any]:
    """results.json before anything has been measured."""
    return {
        "schema": 1,
        "maed": __version__,
        "command": command,
        "commit": commit(),
        "source": run.data.source,
        "positions": run.data.positions,
        "neighbours": run.k(),
        "settings": asdict(run.settings),
        "machine": describe_machine(),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": {},
        "split_half": None,
        "geometry": None,
        "classification": None,
        "summary": None,
        "paired": None,
        "notes": [],
    }


def save_results(run: Run, results: dict[str, Any]) -> None:
    """Write results.json as it stands."""
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
        f"Embeddings of two halves of the draws agree on {100 * split_half:.1f} % of neighbours, chance gives "
        f"{100 * chance:.1f} %: hardly any dependence was found, and this embedding is mostly noise."
    )


def _plain(value: Any) -> Any:
    """As JSON gives it back: tuples are lists."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _seconds(folder: Path, started: float) -> dict[str, Any]:
    return {**read_json(folder / "config.json"), "seconds": time.perf_counter() - started}
