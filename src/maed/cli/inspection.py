"""`maed info`: what a file or folder is, its shape and where it came from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from maed.data import load
from maed.embedding import PositionEmbedding
from maed.embedding.legacy import read_legacy
from maed.engine.checkpoints import is_lightning, read_checkpoint
from maed.errors import MaedError
from maed.files import read_json
from maed.records import Results, Score
from maed.run_folder import AUTOENCODER, BASELINES, EMBEDDING, GEOMETRY, MODELS, SIMILARITY, RunFolder, StageFolder
from maed.settings import DataSettings, Settings
from maed.tasks import metric_of

_NAMES = (AUTOENCODER, SIMILARITY, EMBEDDING, BASELINES, MODELS, "baseline", "perceiver", "results.json", "report.html")
"""Parts of a run folder; until version 0.2 baselines and models had other folders."""


def describe(path: Path) -> Iterator[str]:
    """Lines that describe `path`, the first of which says what it is.

    Raises:
        MaedError: Nothing is there, or nothing that `maed` knows.
    """
    if not path.exists():
        raise MaedError(f"path must be a file or folder that maed reads; {path} does not exist")
    if path.is_dir() and StageFolder(path).config.is_file():
        return _stage(path)
    if path.is_dir():
        return _run(path) if any((path / name).exists() for name in _NAMES) else _data(path)
    readers = {".pth": _legacy, ".pt": _legacy, ".ckpt": _checkpoint, ".json": _results}
    return readers.get(path.suffix.lower(), _data)(path)


def _written_by_maed(read: Callable[[Path], Iterator[str]]) -> Callable[[Path], Iterator[str]]:
    """One line for JSON that lacks what maed writes, or has it otherwise."""

    @wraps(read)
    def checked(path: Path) -> Iterator[str]:
        try:
            yield from read(path)
        except (AttributeError, KeyError, TypeError) as error:
            raise MaedError(
                f"path: {path} is not in the form that maed writes ({type(error).__name__}: {error})"
            ) from None

    return checked


@_written_by_maed
def _stage(path: Path) -> Iterator[str]:
    """Describe a folder by its config.json."""
    stage = StageFolder(path)
    config, made_with = read_json(stage.config), stage.made_with
    if config.get("maed_positions"):
        yield from _model(path, config)
    elif "n" in config and "d" in config:
        yield from _embedding(path)
    elif made_with.embedding is not None:
        yield f"{path}: a position embedding, unfinished"
        yield from _facts({"source": made_with.source})
    elif made_with.similarity is not None or made_with.baseline:
        yield from _similarity(stage)
    elif made_with.autoencoder is not None:
        yield from _autoencoder(stage, config)
    elif config.get("architecture") == "perceiver":
        yield from _perceiver(path, config)
    else:
        raise MaedError(f"path: the config.json in {path} was not written by maed")


# One function for each thing there is.


def _run(path: Path) -> Iterator[str]:
    yield f"{path}: a run with {', '.join(name for name in _NAMES if (path / name).exists())}"
    if RunFolder(path).results.is_file():
        yield from _results(RunFolder(path).results)


def _embedding(path: Path) -> Iterator[str]:
    embedding = PositionEmbedding.from_pretrained(path)
    there = embedding.geometry
    yield f"{path}: a position embedding of {embedding.n} positions, {embedding.dim} channels"
    known, made_with = dict(embedding.provenance), embedding.provenance.get("made_with") or {}
    versions = known.pop("versions", None) or {"maed": known.get("maed")}
    seed, metrics = known.pop("seed", None), dict(known.pop("metrics", None) or {})
    if known.get("split_half") is not None:
        metrics.setdefault("split_half", known["split_half"])
    for name in ("made_with", "label", "maed", "split_half"):
        known.pop(name, None)
    yield from _facts(
        {
            "source": embedding.source,
            "label": embedding.label,
            "geometry": " ".join((there.kind, " x ".join(map(str, there.shape)))).rstrip() if there else "not known",
            "fingerprint": embedding.fingerprint,
            **known,  # estimator, reduction, and what else somebody thought worth keeping
            "seed": (made_with.get("autoencoder") or {}).get("seed") if seed is None else seed,
            "settings that are not the defaults": _list(_changed(made_with)),
            "versions": _list(versions),
            "metrics": _list(metrics) or "nothing was measured",
        }
    )
    if (path / GEOMETRY).is_file():
        yield f"{GEOMETRY}, {_measured(read_json(path / GEOMETRY))}"


def _similarity(stage: StageFolder) -> Iterator[str]:
    made_with, work = stage.made_with, stage.work
    known = "unfinished: not yet known how many" if work.n is None else work.n
    yield f"{stage.path}: a similarity of {known} positions"
    yield f"split-half agreement: {'not measured' if work.split_half is None else work.split_half}"
    yield from _facts({"estimator": made_with.estimator, "draws": work.draws, "source": made_with.source})


def _autoencoder(stage: StageFolder, config: dict[str, Any]) -> Iterator[str]:
    finished = "" if stage.is_finished else ", unfinished"
    yield f"{stage.path}: a masked autoencoder of {config['n']} positions, {config['visible']} visible{finished}"
    kind = stage.made_with.setting("autoencoder", "kind")
    yield from _facts({"kind": kind, "loss": config["loss"], "source": stage.made_with.source})


def _perceiver(path: Path, config: dict[str, Any]) -> Iterator[str]:
    yield f"{path}: a Perceiver of {config['positions']} positions, encoding {config['encoding']}"
    if (metrics := StageFolder(path).metrics).is_file():
        score = Score.of(read_json(metrics))
        metric = metric_of(score.task, score.metric)
        if score.value is not None:
            yield f"test {metric.title}: {metric.text(score.value, max(2, metric.digits))}"
    yield f"source: {config['source']}"


def _model(path: Path, config: dict[str, Any]) -> Iterator[str]:
    """A model of transformers in which `maed.replace_positions` has put an embedding, or several."""
    architectures = config.get("architectures") or [config.get("model_type") or "transformers"]
    yield f"{path}: a model of transformers with positions of maed's: {', '.join(map(str, architectures))}"
    records = config["maed_positions"]
    for record in records if isinstance(records, list) else [records]:
        at = f"{record['where']} ({record.get('kind', 'table')})"
        first = record.get("offset") or 0
        rows = f", from row {first}" if first else ""
        yield f"{at}: {record.get('n', '?')} positions, {record.get('dim', '?')} channels{rows}"
        yield from _facts(
            {
                "source": record.get("source"),
                "label": record.get("label"),
                "fingerprint": record.get("fingerprint"),
                "root mean square": record.get("rms"),
                "trainable": "yes" if record.get("trainable") else "no",
            }
        )


def _legacy(path: Path) -> Iterator[str]:
    vectors = read_legacy(path)
    yield f"{path}: a file of the original: {len(vectors)} positions, {vectors.shape[1]} channels, float32"
    yield "read without unpickling: nothing in the file was run"
    root = float(np.sqrt(np.square(vectors, dtype=np.float64).mean()))
    yield f"root mean square: {root:.4g}; as an embedding it is centered and scaled to 1"
    yield f"fingerprint: {PositionEmbedding.from_legacy(path).fingerprint}"


def _checkpoint(path: Path) -> Iterator[str]:
    checkpoint = read_checkpoint(path)
    if checkpoint is None:
        raise MaedError(
            f"path: {path} cannot be read as a checkpoint of weights alone, and maed loads nothing else from "
            "checkpoints"
        )
    kind = "Lightning checkpoint" if is_lightning(checkpoint) else "checkpoint"
    yield f"{path}: a {kind} at step {checkpoint['global_step']}; read as weights alone"
    tensors = [value for value in checkpoint["state_dict"].values() if hasattr(value, "numel")]
    yield from _facts(
        {
            "tensors": f"{len(tensors)}, of {sum(tensor.numel() for tensor in tensors)} numbers",
            "versions": _list({"pytorch-lightning": checkpoint.get("pytorch-lightning_version")}),
        }
    )


@_written_by_maed
def _results(path: Path) -> Iterator[str]:
    stored = read_json(path)
    if isinstance(stored, dict) and "study" in stored and "cells" in stored:
        yield f"{path}: the study `{stored['study']}`, {len(stored['cells'])} cells"
        yield f"groups: {', '.join(dict.fromkeys(cell['group'] for cell in stored['cells'])) or 'none yet'}"
    elif isinstance(stored, dict) and "knn_recall" in stored:
        yield f"{path}: metrics of an embedding against its geometry"
        yield _measured(stored)
    else:
        results = Results.read(path)
        yield f"{path}: results of `{results.command}`, started {results.started}, commit {results.commit}"
        yield f"source: {results.source}, {results.positions} positions"


def _data(path: Path) -> Iterator[str]:
    data = load(str(path), DataSettings(missing="mask"))
    kind = f"{data.channels} channels" if data.channels else f"{data.vocabulary} token ids"
    yield f"{path}: {data.kind} signals, {data.positions} positions, {kind}"
    yield f"signals: {len(data.train)} for training, {len(data.validation)} validation, {len(data.test)} test"
    if data.names:
        yield f"positions: {', '.join(data.names[:8])}{', ...' if len(data.names) > 8 else ''}"
    masks = [part.mask for part in (data.train, data.validation, data.test) if part.mask is not None]
    if masks:
        missing = 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.size for mask in masks)
        yield f"missing values: {100 * missing:.1f} %"
    yield f"classes: {', '.join(data.classes) if data.classes else 'no labels'}"
    yield f"geometry: {data.geometry.kind if data.geometry else 'not known'}"


# How they word it.


def _facts(facts: Mapping[str, Any]) -> Iterator[str]:
    """`name: value` of what is known."""
    for name, value in facts.items():
        if value not in (None, "") and not isinstance(value, dict):
            yield f"{name}: {value}"


def _list(facts: Mapping[str, Any]) -> str:
    """`name value, name value` of what is known."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in facts.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items() if value is not None)


def _measured(metrics: Mapping[str, Any]) -> str:
    """Describe the metrics that `maed evaluate` wrote."""
    told = {"source": "on the signals of", "coordinates": "against"}
    numbers = {name: value for name, value in metrics.items() if name != "schema" and isinstance(value, (int, float))}
    return f"{', '.join(f'{how} {metrics[name]}' for name, how in told.items() if name in metrics)}: {_list(numbers)}"


def _changed(made_with: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, as `group.name`, in which a run differed from the defaults of today."""
    changed = {}
    for group, defaults in asdict(Settings()).items():
        for name, value in (made_with.get(group) or {}).items():
            if name != "seed" and value != defaults.get(name):
                changed[f"{group}.{name}"] = value
    return changed
