"""The trainings of a comparison: one after the other in this process, or one to each worker of a Ray cluster."""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor

from maed import models, ranks
from maed.data.signals import SignalData
from maed.engine.progress import progress_kind
from maed.errors import MaedError, NotFiniteError, require_extra
from maed.files import is_main_process, read_json, replacing
from maed.registry import TASKS
from maed.run_folder import CONFIG, METRICS, MODEL
from maed.settings import Settings, TrainerSettings
from maed.tasks import Metric

if TYPE_CHECKING:
    from pytorch_lightning.callbacks import Callback

    from maed.stages import Context

Metrics = dict[str, Any]
"""Content of a training's metrics.json."""

_KEPT = (CONFIG, MODEL, METRICS)
"""Files of a finished training, in the order in which they are written; another can start from its encoder."""

_ATTEMPTS = 2
"""Attempts per training: one that is lost with its worker is repeated once."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One training of a comparison; the same wherever it runs.

    Args:
        encoding: One of `maed.registry.ENCODINGS`.
        seed: Seed of the training.
        folder: Folder where the training is kept, and resumed from.
        dim: Channels of the positions and of the content.
        settings: All settings, with the learning rate of this training.
        vectors: `(N, d)`, the embedding of a learned encoding.
        tuning: True if it only measures a learning rate. Then it is shown validation signals instead of test
            signals, and its loss may be infinite or NaN.
        overwrite: Replace a training of other settings that is in the folder, instead of refusing.
        task: One of `maed.registry.TASKS`.
        labels: Number of labels; None for all.
        pretraining: True if it pretrains an encoder, which needs no labels.
        start: The pretraining that has to come before it, or the folder of an encoder that was pretrained elsewhere;
            None for random weights.
    """

    encoding: str
    seed: int
    folder: Path
    dim: int
    settings: Settings
    vectors: Tensor | None = None
    tuning: bool = False
    overwrite: bool = True
    task: str = "classification"
    labels: int | None = None
    pretraining: bool = False
    start: Trial | Path | None = None

    def __str__(self) -> str:
        return f"{self.row}, {self.column}"

    @property
    def learning_rate(self) -> float:
        """The peak learning rate."""
        return self.settings.train.learning_rate

    @property
    def column(self) -> str:
        """The part of its name that distinguishes it from other trainings of the same encoding."""
        return f"learning rate {self.learning_rate:g}" if self.tuning else f"seed {self.seed}"

    @property
    def row(self) -> str:
        """The encoding, with pretraining and the number of labels if it has them."""
        how = "pretraining" if self.pretraining else "" if self.start is None else "pretrained"
        return ", ".join(filter(None, (self.encoding, how, "" if self.labels is None else f"{self.labels:,} labels")))

    @property
    def metric(self) -> Metric:
        """The metric of its task."""
        metric: Metric = TASKS.get(self.task).metric
        return metric

    def value(self, metrics: Metrics) -> float:
        """The value that the trial measures."""
        return metrics[f"{'validation' if self.tuning else 'test'}_{self.metric.name}"]

    def finished(self, data: SignalData) -> Metrics | None:
        """The metrics of the training, if its folder holds them."""
        return models.finished_training(data, self.encoding, **self._arguments(data))

    def train(self, data: SignalData, callbacks: tuple[Callback, ...] = ()) -> Metrics | None:
        """Train, or go on training; None if a learning rate was tried with which the loss is not finite.

        Several processes share each step (`maed.ranks`).
        """
        try:
            with ranks.together(partial(_train_too, self)):
                return models.train_classifier(data, self.encoding, **self._arguments(data), callbacks=callbacks)
        except NotFiniteError:
            if not self.tuning:
                raise
            return None

    def with_trainer(self, **changes: Any) -> Trial:
        """The same training on another machine, or with another progress."""
        return replace(self, settings=replace(self.settings, trainer=replace(self.settings.trainer, **changes)))

    def _arguments(self, data: SignalData) -> dict[str, Any]:
        names = ("seed", "folder", "dim", "settings", "vectors", "overwrite", "task", "labels", "tuning", "pretraining")
        start = models.Start(self.start) if isinstance(self.start, Path) else None
        if isinstance(self.start, Trial):
            start = models.start_of(data, self.encoding, **self.start._arguments(data))
        return {"start": start, **{name: getattr(self, name) for name in names}}


def _train_too(trial: Trial, context: Context) -> None:
    """The part of the other processes in a training."""
    trial.train(context.data)


class Board(Protocol):
    """Receiver of progress reports on trials."""

    def started(self, trial: Trial) -> None:
        """A training is about to start, or was given to a worker."""

    def went_on(self, trial: Trial, step: int, steps: int, value: float | None) -> None:
        """A training in this process has done a step; `value` is that of its latest validation."""

    def finished(self, trial: Trial, metrics: Metrics | None) -> None:
        """A training is done; None as `Trial.train` returns it."""


def run_trials(
    data: SignalData, trials: Sequence[Trial], *, cluster: Cluster | None = None, board: Board
) -> Iterator[tuple[Trial, Metrics | None]]:
    """Train what is not yet trained; yields every trial once, as they finish, those first that had finished before.

    Args:
        data: Labeled signals.
        trials: Each with a folder of its own.
        cluster: Where to train; this process by default.
        board: Told what happens.

    Raises:
        MaedError: As `train_classifier` does; a folder that holds another training, before any is trained; Ray missing,
            a cluster that cannot be reached, a worker that is lost.
    """
    left: list[Trial] = []
    for trial in trials:  # a pretraining comes before the trials that start from it
        metrics = trial.finished(data)
        if metrics is None:
            left.append(trial)
        else:
            board.finished(trial, metrics)
            yield trial, metrics
    if not left:
        return
    ran = _in_turn(data, left, board) if cluster is None else _on_ray(data, left, len(trials), cluster, board)
    for trial, metrics in ran:
        board.finished(trial, metrics)
        yield trial, metrics


def _in_turn(data: SignalData, trials: Sequence[Trial], board: Board) -> Iterator[tuple[Trial, Metrics | None]]:
    from maed.engine.lightning import Watch  # where no Perceiver is trained, Lightning may not be there

    for trial in trials:
        board.started(trial)
        # bars of single trainings would fight with the table of all
        bare = trial.with_trainer(progress="none") if progress_kind(trial.settings.trainer) == "bar" else trial
        watch = Watch(partial(board.went_on, trial), f"validation_{trial.metric.name}")
        yield trial, bare.train(data, (watch,))


# On Ray. Its workers are processes of ours, with the same maed; they pickle to one another, and unpickle nothing that a
# user has handed in.


def check_cluster(address: str | None) -> None:
    """Refuse a cluster where Ray is missing, and to one of several processes that `torchrun` has started."""
    if address is None:
        return
    require_extra("trainer.cluster", "ray")
    if ranks.place() is not None or os.environ.get("WORLD_SIZE", "1") != "1" or not is_main_process():
        raise MaedError(
            "trainer.cluster must be null under torchrun, which divides each training among its processes; "
            f"got {address}"
        )


class Cluster(AbstractContextManager["Cluster"]):
    """A connection to Ray, made when it is first needed; one that was there before is used, and left.

    Args:
        address: `trainer.cluster`.
    """

    def __init__(self, address: str) -> None:
        check_cluster(address)
        self.address = address
        self._ours = False

    def connect(self) -> Any:
        """Ray.

        Raises:
            MaedError: Nothing answers, or not the Ray or Python of this process.
        """
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        import ray

        if not ray.is_initialized():
            here: dict[str, Any] = {"include_dashboard": False} if self.address == "local" else {}
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    ray.init(self.address, log_to_driver=False, logging_level=logging.ERROR, **here)
            except Exception as error:  # of many kinds
                raise MaedError(f"trainer.cluster: {self.address} cannot be reached ({_line(error)})") from None
            self._ours = True
        return ray

    def __exit__(self, *_: object) -> None:
        """End what was started here."""
        if self._ours:
            import ray

            ray.shutdown()
            self._ours = False


def _on_ray(
    data: SignalData, trials: Sequence[Trial], of: int, cluster: Cluster, board: Board
) -> Iterator[tuple[Trial, Metrics | None]]:
    """`of`: trials in all, finished ones included: with it the share of a worker is the same when resumed."""
    ray = cluster.connect()
    cpus, gpus, workers = _share(ray, of, trials[0].settings.trainer)
    # none is tried again by Ray itself, which would do so without end where the memory is too small
    work = ray.remote(num_cpus=cpus, num_gpus=gpus, num_returns=2, max_retries=0)(_work)
    waiting = deque((trial, 1) for trial in trials)
    running: dict[Any, tuple[Any, Trial, int]] = {}
    try:
        shared = ray.put(data)
        while waiting or running:
            while len(running) < workers:
                unmade = {each.folder for each, _ in [*waiting, *((each, 0) for _, each, _ in running.values())]}
                able = (pair for pair in waiting if _encoder_of(pair[0]) not in unmade)
                if (ready := next(able, None)) is None:
                    break
                waiting.remove(ready)
                trial, attempt = ready
                board.started(trial)
                send = cluster.address != "local"
                encoder = _encoder_of(trial) if send else None
                given = (
                    {}
                    if encoder is None
                    else {name: (encoder / name).read_bytes() for name in _KEPT if (encoder / name).is_file()}
                )
                done, files = work.remote(shared, _for_worker(trial, cpus), send, given)
                running[done] = files, trial, attempt
            done = ray.wait(list(running), num_returns=1)[0][0]
            files, trial, attempt = running.pop(done)
            try:
                metrics = _kept(ray, trial, done, files)
            except ray.exceptions.RayTaskError:  # a fault of ours, shown in full
                raise
            except ray.exceptions.RayError as error:
                if attempt == _ATTEMPTS:
                    raise MaedError(
                        f"trainer.cluster: the worker that trained {trial} was lost ({_line(error)}); run the same "
                        "command again to continue"
                    ) from None
                waiting.appendleft((trial, attempt + 1))
            else:
                yield trial, metrics
    except ConnectionError as error:
        raise MaedError(
            f"trainer.cluster: the connection to {cluster.address} was lost ({_line(error)}); run the same "
            "command again to continue"
        ) from None


def _encoder_of(trial: Trial) -> Path | None:
    """The folder of the encoder that a trial starts from; None if it starts from random weights."""
    return trial.start.folder if isinstance(trial.start, Trial) else trial.start


def _work(
    data: SignalData, trial: Trial, send: bool, given: Mapping[str, bytes] | None = None
) -> tuple[Metrics | MaedError | None, dict[str, bytes]]:
    """A worker's job: train in the run's folder if this machine has it, otherwise in a temporary one, and send it back.

    Args:
        data: Labeled signals.
        trial: The training to run.
        send: True to send its files back.
        given: Files of the encoder that the trial starts from, by name, for machines that lack them.

    Returns:
        The metrics, or the error; and, to `send`, the files. Those stay here until somebody asks for them.
    """
    with tempfile.TemporaryDirectory() as own:
        folder = trial.folder if trial.folder.parent.is_dir() else Path(own) / trial.folder.name
        encoder, start = _encoder_of(trial), trial.start
        if encoder is not None and not encoder.is_dir():
            encoder = Path(own) / "encoder"
            encoder.mkdir()
            for name, content in (given or {}).items():
                (encoder / name).write_bytes(content)
            start = replace(start, folder=encoder) if isinstance(start, Trial) else encoder
        try:
            metrics = replace(trial, folder=folder, start=start).train(data)
        except MaedError as error:
            return MaedError(str(error)), {}
        except OSError as error:
            return MaedError(f"{error.filename or 'a file'}: {error.strerror or error}"), {}
        wanted = _KEPT if send and metrics is not None else ()
        return metrics, {name: (folder / name).read_bytes() for name in wanted}


def _for_worker(trial: Trial, cpus: int) -> Trial:
    """The trial as a worker runs it: silent, on one device, with its share of the cores."""
    start = trial.start.resolve() if isinstance(trial.start, Path) else trial.start
    if isinstance(start, Trial):
        start = replace(start, folder=start.folder.resolve())
    absolute = replace(trial, folder=trial.folder.resolve(), start=start)
    absolute.folder.parent.mkdir(parents=True, exist_ok=True)  # which tells a worker whether it sees our files
    return absolute.with_trainer(progress="none", cluster=None, devices="1", strategy="auto", threads=cpus)


def _kept(ray: Any, trial: Trial, done: Any, files: Any) -> Metrics | None:
    """The metrics of a worker that is `done`; its `files` are fetched where the trial's folder here lacks them."""
    outcome: Metrics | MaedError | None = ray.get(done)
    if isinstance(outcome, MaedError):
        raise outcome
    if outcome is None:
        return None
    path = trial.folder / METRICS
    if not path.is_file() or read_json(path).get("fingerprint") != outcome["fingerprint"]:
        for name, content in ray.get(files).items():
            with replacing(trial.folder / name) as temporary:
                temporary.write_bytes(content)
    return outcome


def _share(ray: Any, trials: int, settings: TrainerSettings) -> tuple[int, int, int]:
    """Cores and GPUs of each worker, and how many there are.

    A worker gets a GPU where there are any, and its part of the cores, of which no machine may have fewer.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = settings.accelerator in ("auto", "gpu", "cuda") and any(m.get("GPU", 0) >= 1 for m in machines)
    slots, cores = [], []  # of each machine
    for machine in machines:
        if machine.get("CPU", 0) >= 1 and (machine.get("GPU", 0) >= 1 or not gpus):
            cores.append(int(machine["CPU"]))
            slots.append(min(cores[-1], int(machine["GPU"])) if gpus else cores[-1])
    if not slots:
        raise MaedError("trainer.cluster: no machine has a free core")
    workers = min(trials, sum(slots))
    least = min(c // s for c, s in zip(cores, slots, strict=True)) if gpus else min(cores)
    cpus = settings.threads or max(1, min(sum(cores) // workers, least))
    if cpus > max(cores):
        raise MaedError(
            f"trainer.threads must be at most {max(cores)}, the cores of the largest machine of "
            f"trainer.cluster, got {cpus}"
        )
    return (cpus, 1, workers) if gpus else (cpus, 0, max(1, min(workers, sum(c // cpus for c in cores))))


def _line(error: BaseException) -> str:
    """The first line of what a library says."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
