"""A comparison: every encoding with every seed on equal terms, after as many trials of learning rates for each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from maed import models
from maed.embedding import PositionEmbedding, embedding_dim
from maed.errors import MaedError, require_extra
from maed.evaluation.comparison import compare_all, summarize
from maed.experiments.live import board
from maed.experiments.trials import Cluster, Metrics, Trial, run_trials
from maed.files import is_main_process
from maed.models.learned import check_training, chosen_task
from maed.records import MadeWith, Results, Score, Tried, arm_of
from maed.registry import ENCODINGS, TASKS
from maed.similarity import baselines_for
from maed.stages import Baseline, Context, Embed, execute
from maed.tasks import Metric

SKIPPED = "Perceivers skipped"
"""Beginning of the note that says why no Perceivers were trained."""

TUNING_SEED = 1_000_000
"""The seed of all trials of a learning rate: one that no comparison comes to."""


@dataclass
class Comparison:
    """Trainings of models that differ in their positions.

    Args:
        context: Folder, settings and data.
        task: One of `maed.registry.TASKS`: what the models learn; None for what the data's labels are.
        labels: Numbers of labels; each encoding trains a model with each of them. None stands for all labels.
        pretrain: Initial weights of the models, one model for each: None is random weights, `masked` an encoder that is
            pretrained here, and anything else the folder of such an encoder, or of the run that pretrained it.
    """

    context: Context
    task: str | None = None
    labels: Sequence[int | None] = (None,)
    pretrain: Sequence[str | None] = (None,)
    _pretrainings: dict[tuple[str, int], Trial] = field(default_factory=dict, init=False, repr=False)
    _seconds: dict[tuple[str, int], float] = field(default_factory=dict, init=False, repr=False)

    @cached_property
    def learned(self) -> str | None:
        """The task: as asked for, or what the labels are; None if there are none."""
        return chosen_task(self.task, self.context.data)

    def check(self, encoding: str) -> None:
        """Refuse an encoding that these data cannot have.

        Raises:
            MaedError: They cannot.
        """
        data, settings = self.context.data, self.context.settings
        kind = ENCODINGS.get(encoding, "positions")
        if self.skipped:  # its model will be skipped or refused
            return
        require_extra(f"positions: {encoding}", "perceiver")
        for count in self.labels:
            check_training(data, self.what, count, settings.train)
        if kind.needs_geometry and data.geometry is None:
            raise MaedError(f"positions: {encoding} needs coordinates, which {data.source} does not have")
        fitting = baselines_for(data)
        if kind.embedding not in (None, "maed", "auto", *fitting):
            raise MaedError(f"positions: {encoding} does not fit {data.kind} signals; choose {' or '.join(fitting)}")
        dim = embedding_dim(data.positions, settings.embedding.dim)
        given: dict[str, Any] = {"train": settings.train}
        config = models.describe_classifier(data, encoding, dim, settings.perceiver, task=self.what, **given)
        if any(self.pretrain):
            given |= {"task": models.PRETRAINING, "option": "pretrain"}
            models.describe_classifier(data, encoding, dim, settings.perceiver, **given)
            models.check_pretraining(data, config, settings.train)
        for asked in filter(None, self.pretrain):
            if asked != models.PRETRAINING:
                models.check_fits(Path(asked), config)
        if (
            kind.embedding is not None
            and not kind.resampled
            and models.resized_grid(data, settings.perceiver) is not None
        ):
            raise MaedError(
                f"positions: {encoding} has {data.positions} positions, but perceiver.image_size "
                f"{settings.perceiver.image_size} makes {settings.perceiver.image_size}^2; choose maed-resampled"
            )

    @property
    def what(self) -> str:
        """The task of a training; of data without labels that is refused as classification."""
        return self.learned or "classification"

    @property
    def skipped(self) -> bool:
        """True if there is nothing to train: no labels, and no task that needs none was asked for."""
        return self.learned is None

    def train(self, encoding: str, seed: int) -> Metrics:
        """Train and test one model: `models/[TASK-][LABELS-][pretrained-]ENCODING-SEED/`. Returns its metrics.

        If `pretrain` is `masked`, its encoder is pretrained first.
        """
        self.check(encoding)
        trial = self.trial(encoding, seed, self._vectors(encoding), labels=self.counts[0], pretrain=self.pretrain[0])
        data, steps = self.context.data, [trial]
        if isinstance(trial.start, Trial) and trial.finished(data) is None and trial.start.finished(data) is None:
            steps.insert(0, trial.start)
        for each in steps:
            self.context.say(f"perceiver: {each}")
            metrics = each.train(data)
        assert metrics is not None  # it does not tune
        return metrics

    def run(self, encodings: Sequence[str], seeds: int, results: Results) -> None:
        """Train each encoding with each seed; scores, their intervals and differences go into `results` as they come.

        All encodings of one seed come before the next seed, so that a stopped comparison is still a fair one. Those of
        one seed are given the same labels, fewer of which are a part of more.
        """
        data = self.context.data
        if not encodings or not seeds:
            results.notes.append(f"{SKIPPED}: no positions were asked for.")
        elif self.skipped:
            results.notes.append(f"{SKIPPED}: {data.source} has no labels.")
            self.context.say(results.notes[-1])
        else:
            vectors = self.vectors(encodings)
            address = self.context.settings.trainer.cluster
            with nullcontext() if address is None else Cluster(address) as cluster:
                rates = self.tuned_rates(vectors, results, cluster)
                trials = [
                    self.trial(
                        encoding,
                        seed,
                        vectors[encoding],
                        learning_rate=rates.get(arm_of(encoding, pretrain)),
                        labels=count,
                        pretrain=pretrain,
                    )
                    for seed in range(seeds)
                    for count in self.counts
                    for pretrain in self.pretrain
                    for encoding in encodings
                ]
                title = f"Comparison: test {self.metric.title}"
                for rows in self._as_trained(trials, title, self._score, cluster, results):
                    results.scores, results.summary, results.paired = rows, summarize(rows), compare_all(rows)
                    results.seconds["perceivers"] = sum(row.seconds or 0.0 for row in rows)
                    self.save(results)
        self.save(results)

    @property
    def metric(self) -> Metric:
        """The metric by which models are compared."""
        metric: Metric = TASKS.get(self.what).metric
        return metric

    @property
    def counts(self) -> list[int | None]:
        """Numbers of labels, the smallest first, None for all that there are."""
        train = self.context.settings.train
        found = {check_training(self.context.data, self.what, count, train) for count in self.labels}
        return sorted(found, key=lambda count: (count is None, count or 0))

    def save(self, results: Results) -> None:
        """Write results.json as it stands."""
        if is_main_process():
            results.write(self.context.folder.results)

    def tuned_rates(
        self, vectors: Mapping[str, torch.Tensor | None], results: Results, cluster: Cluster | None = None
    ) -> dict[str, float]:
        """The learning rate of `train.tune` with the best validation for each arm (`Tried.arm`); the lower of equals.

        Every encoding tries every rate, with one and the same seed that no comparison has, and with the largest number
        of labels alone: its rate serves the smaller ones too. What was found goes into `results`. Nothing is tried, and
        nothing returned, without `train.tune`.

        Returns:
            The learning rate of each encoding.

        Raises:
            MaedError: An encoding whose loss stays finite with none of them.
        """
        rates = self.context.settings.train.tune
        if rates is None:
            return {}
        trials = [
            self.trial(
                encoding,
                TUNING_SEED,
                vectors[encoding],
                learning_rate=rate,
                labels=self.counts[-1],
                tuning=True,
                pretrain=pretrain,
            )
            for pretrain in self.pretrain
            for encoding in vectors
            for rate in sorted(rates)
        ]
        tried: list[Tried] = []
        title, higher = f"Learning rates: validation {self.metric.title}", self.metric.higher
        for tried in self._as_trained(trials, title, self._tried, cluster, results):
            results.tuning = tried
            results.seconds["tuning"] = sum(row.seconds or 0.0 for row in tried)
            self.save(results)
        best: dict[str, Tried] = {}
        for arm in dict.fromkeys(row.arm for row in tried):
            finite = [row for row in tried if row.arm == arm and row.validation is not None]
            if not finite:
                raise MaedError(
                    f"train.tune: the loss of {arm} is not finite with any of "
                    f"{', '.join(f'{rate:g}' for rate in rates)}; try lower rates, or trainer.precision 32-true"
                )
            # the first of equal ones: the lowest
            best[arm] = max(finite, key=lambda row: (1 if higher else -1) * (row.validation or 0.0))
        results.tuning = [replace(row, chosen=row is best[row.arm]) for row in tried]
        self.save(results)
        return {arm: row.learning_rate for arm, row in best.items()}

    def trial(
        self,
        encoding: str,
        seed: int,
        vectors: torch.Tensor | None,
        *,
        learning_rate: float | None = None,
        labels: int | None = None,
        tuning: bool = False,
        pretrain: str | None = None,
    ) -> Trial:
        """The training of one model; with a `learning_rate` other than that of the settings where it is given.

        `labels` is one of `counts`, `pretrain` one of `self.pretrain`.
        """
        context = self.context
        train = replace(context.settings.train, tune=None, tune_steps=None)  # no part of what is trained
        if learning_rate is not None:
            train = replace(train, learning_rate=learning_rate)
        if tuning:
            train = replace(train, steps=context.settings.train.tune_steps or train.steps)
        folder, dim = context.folder, context.settings.embedding.dim
        what: dict[str, Any] = {"task": self.what, "labels": labels}
        how = {**what, "pretrained": pretrain is not None}
        place = folder.tuning(encoding, train.learning_rate, **how) if tuning else folder.model(encoding, seed, **how)
        trial = Trial(
            encoding,
            seed,
            place.path,
            embedding_dim(context.data.positions, dim) if vectors is None else vectors.shape[1],
            replace(context.settings, train=train),
            vectors,
            tuning=tuning,
            overwrite=folder.overwrite,
            **what,
        )
        if pretrain is None:
            return trial
        if pretrain != models.PRETRAINING:
            return replace(trial, start=models.encoder_folder(Path(pretrain), encoding, seed))
        if not self._pretrainings and None in self.counts and TASKS.get(self.what).needs:
            context.say(
                "pretrain: no training signals are without labels, so encoders are pretrained on the labeled ones, and "
                "do not see their labels"
            )
        if (encoding, seed) not in self._pretrainings:
            self._pretrainings[encoding, seed] = replace(
                trial,
                folder=folder.pretraining(encoding, seed).path,
                settings=replace(context.settings, train=replace(context.settings.train, tune=None, tune_steps=None)),
                tuning=False,
                task=models.PRETRAINING,
                labels=None,
                pretraining=True,
            )
        return replace(trial, start=self._pretrainings[encoding, seed])

    def vectors(self, encodings: Sequence[str]) -> dict[str, torch.Tensor | None]:
        """The vectors of each encoding, None of one that has none; refused where missing or of other positions."""
        for encoding in encodings:
            self.check(encoding)
        return {encoding: self._vectors(encoding) for encoding in encodings}

    def _vectors(self, encoding: str) -> torch.Tensor | None:
        """The vectors of a learned encoding; a baseline's are made where they are missing."""
        kind, data = ENCODINGS.get(encoding, "positions"), self.context.data
        if kind.embedding is None:
            return None
        if kind.embedding == "maed":
            embedding = self._maed(kind.resampled)
        elif kind.embedding == "auto":
            earlier = self.context.folder.earlier
            if earlier.chosen is None:
                raise MaedError(f"positions: auto needs a choice, and {earlier.auto} is missing; run `maed run` first")
            embedding = PositionEmbedding.from_pretrained(earlier.embedding("auto").path)
        else:
            there = self.context.folder.earlier.embedding(kind.embedding)
            if not there.path.is_dir():
                here = replace(self.context, folder=replace(self.context.folder, upstream=None))
                execute([Baseline(kind.embedding), Embed(kind.embedding)], here)
                return PositionEmbedding.from_pretrained(here.folder.embedding(kind.embedding).path).vectors
            embedding = PositionEmbedding.from_pretrained(there.path)
        finer = models.resized_grid(data, self.context.settings.perceiver)
        self._check_positions(embedding, data.positions if finer is None else len(finer.coordinates))
        if kind.resampled and data.permutation is not None:  # it came in the order of its grid
            return embedding.vectors[torch.from_numpy(data.permutation)]
        return embedding.vectors

    def _check_positions(self, embedding: PositionEmbedding, n: int) -> None:
        """Refuse the run's embedding where it is not of `n` positions, of other ones than the data, or empty."""
        data, settings = self.context.data, self.context.settings
        if embedding.n != n:
            raise MaedError(f"run: the embedding has {embedding.n} positions, the data have {n}")
        source = embedding.source
        if source and source not in (data.source, settings.perceiver.learned_from):
            raise MaedError(
                f"run: the embedding was learned from {source!r}, and the data are {data.source!r}; if their "
                f"positions are the same, set --perceiver.learned_from {source}"
            )
        if not embedding.vectors.any():
            raise MaedError(
                f"run: all vectors of the embedding are zero, because {embedding.provenance.get('reduction')} "
                "found no differences between positions; try another --embedding.reduction"
            )
        made_with = MadeWith.of(embedding.provenance.get("made_with") or {})
        self.context.check_upstream(self.context.folder.earlier.embedding(), made_with, data.positions)

    def _maed(self, asked: bool) -> PositionEmbedding:
        """The embedding of the run; one that was resampled, and so used the geometry, has to be `asked` for as such."""
        folder = self.context.folder.earlier.embedding()
        data = self.context.data
        if not folder.is_finished:
            raise MaedError(f"run: {folder.path} holds no embedding; make one with `maed embed`")
        embedding = PositionEmbedding.from_pretrained(folder.path)
        resampled = bool(embedding.provenance.get("resampled"))
        finer = models.resized_grid(data, self.context.settings.perceiver)
        if resampled != asked and (resampled or finer is None):
            was = "was resampled by its geometry" if resampled else "was not resampled"
            encoding, other = ("maed", "maed-resampled") if resampled else ("maed-resampled", "maed")
            raise MaedError(f"positions: {encoding}, but the embedding in {folder.path} {was}; choose {other}")
        here, there = finer or data.geometry, embedding.geometry
        if resampled and here is not None and there is not None and here.shape != there.shape:
            raise MaedError(f"run: {folder.path} was resampled to {there.shape}, but the data are {here.shape}")
        if finer is not None and not resampled:
            self._check_positions(embedding, data.positions)
            return embedding.resampled(finer, None if embedding.geometry else data.geometry)
        return embedding

    def _as_trained(
        self,
        trials: Sequence[Trial],
        title: str,
        row: Callable[[Trial, Metrics | None], Any],
        cluster: Cluster | None,
        results: Results,
    ) -> Iterator[list[Any]]:
        """Train; after each trial, a row for each that is done, in the order of the trials and not of their ends.

        Encoders are pretrained right before the first trial that starts from them, those of a seed together.
        """
        context, done = self.context, dict[Trial, Any]()
        ordered: list[Trial] = []
        for trial in trials:
            if isinstance(trial.start, Trial) and trial.start not in ordered:
                alike = (each.start for each in trials if each.seed == trial.seed)
                ordered += dict.fromkeys(start for start in alike if isinstance(start, Trial))
            ordered.append(trial)
        with board(title, ordered, context.settings.trainer, context.say) as shown:
            for trial, metrics in run_trials(context.data, ordered, cluster=cluster, board=shown):
                if trial.pretraining:
                    self._seconds[trial.encoding, trial.seed] = (metrics or {}).get("seconds") or 0.0
                    results.seconds["pretraining"] = sum(self._seconds.values())
                else:
                    done[trial] = row(trial, metrics)
                    yield [done[trial] for trial in trials if trial in done]

    def _score(self, trial: Trial, metrics: Metrics | None) -> Score:
        assert metrics is not None  # only a trial that tunes may fail
        counted = trial.labels or len(self.context.data.train)
        labels = counted if TASKS.get(trial.task).needs else None
        return Score.of({**metrics, "learning_rate": trial.learning_rate, "labels": labels})

    def _tried(self, trial: Trial, metrics: Metrics | None) -> Tried:
        """The result of trying a learning rate; without a value if the loss diverged."""
        found = metrics or {}
        history = found.get("history")
        return Tried(
            positions=trial.encoding,
            seed=trial.seed,
            learning_rate=trial.learning_rate,
            validation=None if metrics is None else trial.value(metrics),
            steps=history[-1]["step"] if history else None,
            seconds=found.get("seconds"),
            task=trial.task,
            labels=trial.labels,
            metric=trial.metric.name,
            pretrained=None if trial.start is None else models.PRETRAINING,
        )
