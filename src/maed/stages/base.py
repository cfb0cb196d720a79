"""Stages, and how they are executed in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from maed.autoencoder.masking import visible_count
from maed.autoencoder.placing import landmarks
from maed.data.common_mode import without_common_mode
from maed.data.signals import SignalData
from maed.embedding import embedding_dim
from maed.engine.progress import ProgressFile, progress_kind
from maed.errors import MaedError
from maed.evaluation.geometry import check_neighbors
from maed.records import MadeWith
from maed.run_folder import RunFolder, StageFolder
from maed.settings import Settings


@dataclass
class Context:
    """The objects that every stage works with.

    Args:
        folder: Folder that the run writes to, and where earlier stages lie.
        settings: All settings.
        data: The signals.
        say: Told what happens, one line at a time.

    Raises:
        MaedError: a setting that these data cannot have; or tokens that are the same in all signals, of which the
            small differences in what an autoencoder makes of them would look like dependence.
    """

    folder: RunFolder
    settings: Settings
    data: SignalData
    say: Callable[[str], None] = lambda line: None

    def __post_init__(self) -> None:
        embedding_dim(self.data.positions, self.settings.embedding.dim)
        visible_count(self.trained_positions, self.data.kind, self.settings.autoencoder.visible_fraction)
        self.k()
        ids = self.data.train.values
        if self.data.kind == "tokens" and all(
            (ids[at : at + 4096] == ids[:1]).all() for at in range(0, len(ids), 4096)
        ):
            raise MaedError("inputs must differ; all training signals are identical, so there is nothing to learn")

    @property
    def data_made_with(self) -> dict[str, Any]:
        """Source and settings of the data, as every stage's config.json says them."""
        return {"source": self.data.source, "data": asdict(self.settings.data)}

    @cached_property
    def shown_data(self) -> SignalData:
        """The signals as the autoencoder is shown them: with or without their common mode."""
        if self.data.kind == "tokens" or self.settings.autoencoder.common_mode == "keep":
            return self.data
        return without_common_mode(self.data)

    @property
    def sparse(self) -> bool:
        """True if positions are too many for every pair to be measured."""
        return self.data.positions > self.settings.similarity.dense_positions

    @cached_property
    def landmarks(self) -> np.ndarray | None:
        """The positions that the autoencoder is trained on, ascending; None where on all."""
        return landmarks(self.data.positions, self.settings.autoencoder.seed) if self.sparse else None

    @property
    def trained_positions(self) -> int:
        """The number of positions that the autoencoder is trained on."""
        return self.data.positions if self.landmarks is None else len(self.landmarks)

    @property
    def trained_data(self) -> SignalData:
        """The signals that the autoencoder is trained on: as it is shown them, at the landmarks where there are any."""
        return self.shown_data if self.landmarks is None else self.shown_data.at(self.landmarks)

    def k(self) -> int:
        """The k on which halves of the draws are compared: as set, or 8; never N or more. No geometry decides it."""
        chosen = self.settings.evaluation.n_neighbors
        if chosen is not None:
            check_neighbors(chosen, self.data.positions)
            return chosen
        return min(8, self.data.positions - 1)

    def recall_k(self) -> int:
        """The k of recall@k against the truth: as set, or that of the geometry; `k()` where none is known."""
        geometry = self.data.geometry
        if geometry is None or self.settings.evaluation.n_neighbors is not None:
            return self.k()
        return min(geometry.neighbors, self.data.positions - 1)

    def shown(self, trained: int | None = None) -> int:
        """Number of positions that a draw of the similarity shows: as in training, unless its settings differ.

        Args:
            trained: Number of visible positions of the training; None for what the settings say.
        """
        n, kind, own = self.trained_positions, self.data.kind, self.settings.similarity.visible_fraction
        if own is not None:
            return visible_count(n, kind, own, "similarity")
        if trained is not None:
            return trained
        return visible_count(n, kind, self.settings.autoencoder.visible_fraction)

    def check_upstream(self, stage: StageFolder, made_with: MadeWith, positions: int) -> None:
        """Refuse an earlier stage that was made for other positions than these data have.

        Args:
            stage: Folder of the stage.
            made_with: Settings that the stage was made with.
            positions: Its number N of positions.
        """
        # the random seed places the positions of a swiss roll
        places = ("seed",) if self.data.source.startswith("field:swissroll") else ()
        for name in ("permute", "length", "image_size", "columns", *places):
            was, now = made_with.setting("data", name), asdict(self.settings.data)[name]
            if made_with.data is not None and was != now:
                raise MaedError(f"data.{name} must be {was}, as in {stage.path}, so that positions agree; got {now}")
        if positions != self.data.positions:
            raise MaedError(f"run: {stage.path} has {positions} positions, the data have {self.data.positions}")

    @contextmanager
    def progress(self, title: str, folder: StageFolder) -> Iterator[Callable[[int, int], None]]:
        """Report the progress of draws to the folder's `progress.json` and to anyone who watches this process.

        That is a bar on a terminal, a line for every tenth elsewhere, or nothing, as the trainer's settings ask.
        """
        wanted, tenths, told = progress_kind(self.settings.trainer), 0, None
        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns) if wanted == "bar" else nullcontext() as bar:
            task = None if bar is None else bar.add_task(title)

            def tell(done: int, total: int) -> None:
                nonlocal tenths, told
                if told is None:  # a stream that goes on says so with its first batch
                    told = ProgressFile(folder, total, done)
                told.stepped(done)
                if bar is not None and task is not None:
                    bar.update(task, completed=done, total=total)
                elif wanted == "lines" and done * 10 // total > tenths:
                    tenths = done * 10 // total
                    self.say(f"{title}: {done} of {total} draws")

            yield tell
            if told is not None:
                told.write()


class Stage:
    """One step from signals to an embedding. It has a folder, whose config.json says what it was made with.

    `folder`, `made_with` and `run` are every stage's own.
    """

    def folder(self, context: Context) -> StageFolder:
        """The folder that it writes."""
        raise TypeError(f"{type(self).__name__} has no folder")

    def made_with(self, context: Context) -> Mapping[str, Any]:
        """The settings that its result depends on; read after earlier stages have run."""
        raise TypeError(f"{type(self).__name__} does not say what it is made with")

    def run(self, context: Context) -> None:
        """Do the work; the last thing written marks it as finished."""
        raise TypeError(f"{type(self).__name__} has no run()")

    def check(self, context: Context) -> None:
        """Refuse settings that these data, or one another, cannot have, before any stage works.

        Raises:
            MaedError: They cannot.
        """

    def ready(self, context: Context) -> None:
        """Refuse what earlier stages have made, before the folder is touched.

        Raises:
            MaedError: Nothing can be made of it.
        """

    def check_finished(self, context: Context) -> None:
        """Refuse a finished stage that has lost a file since.

        Raises:
            MaedError: a file is missing, or another stands in its place.
        """

    def facts(self, context: Context) -> Mapping[str, Any]:
        """Further facts for its config.json."""
        return {}


def execute(stages: Sequence[Stage], context: Context) -> None:
    """Check all stages, then run each that is not finished. One that was made otherwise is never overwritten silently.

    Raises:
        MaedError: a stage refuses, or its folder holds one that was made with other settings.
    """
    for stage in stages:
        stage.check(context)
    for stage in stages:
        run_stage(stage, context)


def run_stage(stage: Stage, context: Context) -> None:
    """Run one stage, unless it is finished."""
    stage.ready(context)
    made_with, facts = dict(stage.made_with(context)), dict(stage.facts(context))
    if context.folder.claim(stage.folder(context), made_with, facts):
        stage.check_finished(context)
    else:
        stage.run(context)
