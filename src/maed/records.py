"""Typed records of a run's JSON files, with all their keys; files of earlier versions are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from math import inf
from pathlib import Path
from typing import Any, TypeVar

from maed.errors import MaedError
from maed.files import damaged, plain, read_json, write_json, write_text

SCHEMA = 2

RENAMED = {
    "data.normalisation": "data.normalization",
    "embedding.neighbours": "embedding.n_neighbors",
    "embedding.neighbors": "embedding.n_neighbors",
    "embedding.symmetrise": "embedding.symmetrize",
    "evaluation.neighbours": "evaluation.n_neighbors",
    "evaluation.neighbors": "evaluation.n_neighbors",
}
"""Settings by names of earlier versions, and what they are called now: read in files of runs, refused elsewhere."""

ADDED = {"autoencoder.most_visible": None, "autoencoder.common_mode": "keep", "autoencoder.readout": "feed-forward"}
"""Settings that files of earlier versions do not have, and the value that does what was done then."""

RENAMED_VALUES = {("data.split", "seed-imdb"): "original-imdb"}
"""Values of settings that had another name in earlier versions."""

_RENAMED_COLUMNS = {"test_accuracy": "value", "validation_accuracy": "validation"}
"""Renamed columns of rows before version 0.2; metrics.json of a model names them by metric."""

Row = TypeVar("Row")


def modern(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by groups, as a file of any version has them, under the names of today."""
    found: dict[str, Any] = {}
    for group, members in groups.items():
        if not isinstance(members, Mapping):
            found[group] = members
            continue
        found[group] = {}
        for name, value in members.items():
            new = RENAMED.get(f"{group}.{name}", f"{group}.{name}").partition(".")[2]
            said = isinstance(value, str)
            found[group][new] = RENAMED_VALUES.get((f"{group}.{name}", value), value) if said else value
    return found


@dataclass(frozen=True)
class MadeWith:
    """The settings that a stage, and those before it, were made with; None of a stage that had no part in it.

    Args:
        source: Name of the source of the signals.
        data, autoencoder, similarity, embedding: Settings, by their names.
        baseline: Name of a training-free method.
        signals: Largest number of signals that were read.
        candidates: Number of others that each position was compared with; None for all.
        landmarks: Number of positions that the autoencoder was trained on; None for all.
    """

    source: str | None = None
    data: dict[str, Any] | None = None
    autoencoder: dict[str, Any] | None = None
    similarity: dict[str, Any] | None = None
    embedding: dict[str, Any] | None = None
    baseline: str | None = None
    signals: int | None = None
    candidates: int | None = None
    landmarks: int | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> MadeWith:
        """Read the `made_with` of a file, of any version."""
        groups = plain(modern(stored))
        for name, value in ADDED.items():
            group, _, setting = name.partition(".")
            if isinstance(groups.get(group), dict):
                groups[group].setdefault(setting, value)
        return _row(cls, groups)

    def setting(self, group: str, name: str) -> Any:
        """One of the settings; None if it is not known."""
        return (getattr(self, group) or {}).get(name)

    @property
    def estimator(self) -> str | None:
        """The estimator or baseline that made the similarity."""
        return self.baseline or self.setting("similarity", "estimator")

    def difference(self, other: MadeWith) -> str:
        """The first setting in which two stages differ, as `name is was there and now here`."""
        return first_difference(asdict(self), asdict(other))


def first_difference(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> str:
    """The first key in which two nested mappings differ, in words; empty if they are equal."""
    for key in [*here, *(k for k in there if k not in here)]:
        a, b = there.get(key), here.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            if inner := first_difference(a, b, f"{prefix}{key}."):
                return inner
        elif a != b:
            return f"{prefix}{key} is {a} there and {b} here"
    return ""


@dataclass(frozen=True)
class Work:
    """Facts that a stage recorded in metrics.json or config.json; None for those not recorded.

    Args:
        source: Name of the source of the signals.
        n: Number of positions.
        seconds: Time that the stage took.
        history: Points of a training, by `step`, or of a similarity, by `draws`.
        visible: Number of positions that the autoencoder was shown.
        draws: Number of draws that the similarity is made of.
        split_half: Agreement of the two halves of the draws.
        changed: Shares of neighbors that changed, after so many draws.
    """

    source: str | None = None
    n: int | None = None
    seconds: float | None = None
    history: list[dict[str, Any]] = field(default_factory=list)
    visible: int | None = None
    draws: int | None = None
    split_half: float | None = None
    changed: list[tuple[int, float]] = field(default_factory=list)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Work:
        """Read the content of a file."""
        return _row(cls, {name: value for name, value in stored.items() if value is not None})


@dataclass
class Progress:
    """`progress.json` of a stage: how far it is while it works, and what it has logged so far.

    Args:
        step: Steps of a training, or draws of a similarity, that are done; None if nothing was written yet.
        steps: Total number of steps; a training may end sooner.
        begun: The step at which this process began: others were done before a stop.
        seconds: Since then.
        points: The curve so far, by `step`; a long one is thinned.
    """

    step: int | None = None
    steps: int | None = None
    begun: int = 0
    seconds: float = 0.0
    points: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Progress:
        """Read a file; without one, nothing is known.

        Raises:
            MaedError: The file is no progress.json.
        """
        if not path.is_file():
            return cls()
        stored = read_json(path)
        if isinstance(stored, Mapping):
            found = _row(cls, stored)
            counts, points = (found.step, found.steps, found.begun), found.points
            if all(isinstance(count, int | None) for count in counts) and isinstance(found.seconds, int | float):
                numbers = [point for point in points if "step" in point and all(map(_is_number, point.values()))]
                return replace(found, points=numbers)
        raise MaedError(f"{path}: not a progress.json of maed")

    @property
    def left(self) -> float | None:
        """Seconds until all steps are done, at the pace so far; None if there is no pace yet."""
        if self.step is None or self.steps is None or self.step <= self.begun:
            return None
        return max(0.0, self.seconds / (self.step - self.begun) * (self.steps - self.step))

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_text(path, json.dumps({"schema": 1, **vars(self)}, allow_nan=False))  # no copies: it is written often


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < inf


@dataclass(frozen=True)
class Candidate:
    """A method that a run has tried, and what is known of it without truth (a row of `auto.json`).

    Args:
        name: Name of the method; `random` for the vectors that are probed beside all others.
        probe_loss: Mean over seeds and held-out draws; None if nothing was probed.
        probe_loss_above: Difference to the best candidate's probe loss.
        probe_loss_se: Standard error of that difference, paired.
        probe_share: 0 for random vectors, 1 for the best.
        neighbor_error: Mean over positions.
        split_half: Agreement of two halves of the draws.
        seconds: Time that the method took.
    """

    name: str
    probe_loss: float | None = None
    probe_loss_above: float | None = None
    probe_loss_se: float | None = None
    probe_share: float | None = None
    neighbor_error: float | None = None
    split_half: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Choice:
    """`auto.json`: the candidates of a run, and which of them was chosen.

    Args:
        chosen: Name of the method.
        candidates: The chosen one first, then by probe loss, random vectors last.
        no_dependence: Methods that found none.
        seconds: Time that the choice took.
        made_with: Settings that the choice depends on.
    """

    chosen: str
    candidates: list[Candidate] = field(default_factory=list)
    no_dependence: list[str] = field(default_factory=list)
    seconds: float | None = None
    made_with: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Choice:
        """Read a file.

        Raises:
            MaedError: The file is missing, no JSON or no auto.json, or the method that it names as chosen is unknown.
        """
        stored = read_json(path)
        try:
            choice = _row(cls, {**stored, "candidates": [_row(Candidate, row) for row in stored["candidates"]]})
            if Path(choice.chosen).name == choice.chosen:  # a part of a path, which must not lead elsewhere
                return choice
        except (TypeError, KeyError, AttributeError):
            pass
        raise damaged(path, "not an auto.json of maed")

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, {"schema": 1, **asdict(self)}, sealed=True)


def arm_of(positions: str, pretrained: str | None) -> str:
    """Name of an arm of a comparison."""
    return positions if pretrained is None else f"{positions}, pretrained"


class Arm:
    """An arm of a comparison: the encoding, and whether the encoder was pretrained."""

    positions: str
    pretrained: str | None

    @property
    def arm(self) -> str:
        """The name of the arm; no mean contains several arms."""
        return arm_of(self.positions, self.pretrained)


@dataclass(frozen=True)
class Score(Arm):
    """The test score of one trained model.

    Args:
        positions: The encoding.
        seed: Seed of the training.
        value: Value of the metric.
        validation: Best value of the metric on the validation signals.
        epochs: Passes over the training signals.
        seconds: Time that the training took.
        learning_rate: Peak learning rate.
        history: Points of the training.
        task, labels, metric: The task, the number of labeled signals that it was learned from, and the metric of
            `value`.
        metrics: Other metrics of the test signals, by name.
        pretrained: The task that its encoder was pretrained with; None if it started from random weights.
    """

    positions: str
    seed: int
    value: float | None = None
    validation: float | None = None
    epochs: float | None = None
    seconds: float | None = None
    learning_rate: float | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    task: str = "classification"
    labels: int | None = None
    metric: str = "accuracy"
    metrics: dict[str, Any] = field(default_factory=dict)
    pretrained: str | None = None

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Score:
        """Read a row of a results.json, or the metrics.json of a model, of any version."""
        metric = stored.get("metric") or "accuracy"
        found = {"value": stored.get(f"test_{metric}"), "validation": stored.get(f"validation_{metric}")}
        return _row(cls, {**{name: value for name, value in found.items() if value is not None}, **stored})


@dataclass(frozen=True)
class Summary(Arm):
    """Mean score of an arm over seeds, with the ends of its t-interval."""

    positions: str
    mean: float
    low: float | None
    high: float | None
    seeds: int
    task: str = "classification"
    labels: int | None = None
    metric: str = "accuracy"
    pretrained: str | None = None


@dataclass(frozen=True)
class Paired:
    """Mean of the per-seed differences of the arms `a` - `b`, with the ends of its t-interval."""

    a: str
    b: str
    mean: float
    low: float | None
    high: float | None
    seeds: int
    task: str = "classification"
    labels: int | None = None
    metric: str = "accuracy"


@dataclass(frozen=True)
class Tried(Arm):
    """A learning rate that was tried for an encoding before a comparison; `validation` is None where it diverged.

    `task`, `labels` and `metric` are what it was tried on and judged by.
    """

    positions: str
    seed: int
    learning_rate: float
    validation: float | None = None
    steps: int | None = None
    seconds: float | None = None
    chosen: bool = False
    task: str = "classification"
    labels: int | None = None
    metric: str = "accuracy"
    pretrained: str | None = None


@dataclass
class Results:
    """`results.json`. A section that was not run is None or empty.

    Args:
        source, positions, neighbors: Name of the data, N, and the k of recall@k.
        held_out: How signals were held out, in words.
        command, commit, settings, machine, started: Origin of the figures.
        files: SHA-256 of each file that `maed run` had written when it was done; None of a run that was stopped, or of
            `maed compare`.
        seconds: Time that each stage took.
        split_half, geometry: Metrics of the positions, by method.
        scores, summary, paired, tuning: Scores of trained models.
        notes: Remarks that a reader must know.
        chosen, probe_loss, neighbor_error: Choice among the candidates, and metrics of each by method.
    """

    maed: str = ""
    command: str | None = None
    commit: str | None = None
    source: str | None = None
    positions: int | None = None
    neighbors: int | None = None
    held_out: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    machine: dict[str, Any] = field(default_factory=dict)
    started: str | None = None
    files: dict[str, str] | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    chosen: str | None = None
    split_half: dict[str, float | None] | None = None
    probe_loss: dict[str, dict[str, float]] | None = None
    neighbor_error: dict[str, float] | None = None
    geometry: dict[str, dict[str, float] | None] | None = None
    scores: list[Score] | None = None
    summary: list[Summary] | None = None
    paired: list[Paired] | None = None
    tuning: list[Tried] | None = None
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Results:
        """Read the content of a results.json, of schema 1 or 2."""
        found = dict(stored)
        if "neighbours" in found:
            found["neighbors"] = found.pop("neighbours")
        if "classification" in found:
            found["scores"] = found.pop("classification") or None
        found["settings"] = modern(found.get("settings") or {})
        for name, kind in (("scores", Score), ("summary", Summary), ("paired", Paired), ("tuning", Tried)):
            if found.get(name) is not None:
                found[name] = [_row(kind, row) for row in found[name]]
        for name in ("seconds", "machine"):
            found[name] = found.get(name) or {}
        found["notes"] = list(found.get("notes") or [])
        return _row(cls, found)

    @classmethod
    def read(cls, path: Path) -> Results:
        """Read a file.

        Raises:
            MaedError: The file is missing, no JSON, or no results.json.
        """
        stored = read_json(path)
        if not is_results(stored):
            raise MaedError(f"{path}: not a results.json of maed")
        try:
            return cls.of(stored)
        except (TypeError, KeyError, AttributeError) as error:
            raise MaedError(f"{path}: not a results.json of maed ({error})") from None

    def metrics(self, method: str) -> dict[str, float]:
        """Metrics of a method, with and without the true geometry; empty if none were measured."""
        probed, error = (self.probe_loss or {}).get(method), (self.neighbor_error or {}).get(method)
        found = dict((self.geometry or {}).get(method) or {})
        found |= {} if probed is None else {"probe_loss": probed["mean"]}
        return found | ({} if error is None else {"neighbor_error": error})

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        write_json(path, {"schema": SCHEMA, **asdict(self)}, sealed=True)


def is_results(stored: Any) -> bool:
    """True if the content of a file looks like that of a results.json."""
    return isinstance(stored, Mapping) and ("scores" in stored or "classification" in stored)


def _row(kind: type[Row], stored: Mapping[str, Any]) -> Row:
    """A record of the keys that it has, some of which had another name in earlier versions; others are left out."""
    known = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    found = {_RENAMED_COLUMNS.get(name, name): value for name, value in stored.items()}
    return kind(**{name: value for name, value in found.items() if name in known})
