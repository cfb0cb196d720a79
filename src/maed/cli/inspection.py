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
from maed.report.tables import is_study, study_origin
from maed.settings import DataSettings, Settings

_STAGES = ("autoencoder", "similarity", "embedding", "baseline", "perceiver", "results.json", "report.html")


def describe(path: Path) -> Iterator[str]:
    """Lines that describe `path`, the first of which says what it is.

    Raises:
        MaedError: nothing is there, or nothing that `maed` knows.
    """
    if not path.exists():
        raise MaedError(f"path: {path} does not exist; it may be a file or folder that maed wrote or reads")
    if path.is_dir():
        return _folder(path)
    readers = {".pth": _legacy, ".pt": _legacy, ".ckpt": _checkpoint, ".json": _results}
    return readers.get(path.suffix.lower(), _data)(path)


def _folder(path: Path) -> Iterator[str]:
    """A stage of a run, a whole run, a model of transformers, or data."""
    if (path / "config.json").is_file():
        return _stage(path)
    return _run(path) if any((path / name).exists() for name in _STAGES) else _data(path)


def _written_by_maed(read: Callable[[Path], Iterator[str]]) -> Callable[[Path], Iterator[str]]:
    """One line for JSON that lacks what maed writes, or has it otherwise."""

    @wraps(read)
    def checked(path: Path) -> Iterator[str]:
        try:
            yield from read(path)
        except (AttributeError, KeyError, TypeError) as error:
            raise MaedError(f"path: {path} is not as maed writes it ({type(error).__name__}: {error})") from None

    return checked


@_written_by_maed
def _stage(path: Path) -> Iterator[str]:
    """What the config.json of a folder says it is."""
    config = read_json(path / "config.json")
    made_with = config.get("made_with") or {}
    if config.get("maed_positions"):
        yield from _model(path, config)
    elif "n" in config and "d" in config:
        yield from _embedding(path)
    elif "embedding" in made_with:
        yield f"{path}: a position embedding, unfinished"
        yield from _facts({"source": made_with.get("source")})
    elif "similarity" in made_with or "baseline" in made_with:
        yield from _similarity(path, config)
    elif "autoencoder" in made_with:
        yield from _autoencoder(path, config)
    elif config.get("architecture") == "perceiver":
        yield from _perceiver(path, config)
    else:
        raise MaedError(f"path: {path} holds a config.json that is not maed's")


# One function for each thing there is.


def _run(path: Path) -> Iterator[str]:
    yield f"{path}: a run with {', '.join(name for name in _STAGES if (path / name).exists())}"
    if (path / "results.json").is_file():
        yield from _results(path / "results.json")


def _embedding(path: Path) -> Iterator[str]:
    embedding = PositionEmbedding.from_pretrained(path)
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
            "geometry": _geometry(embedding),
            "fingerprint": embedding.fingerprint,
            **known,  # estimator, reduction, and what else somebody thought worth keeping
            "seed": (made_with.get("autoencoder") or {}).get("seed") if seed is None else seed,
            "settings that are not the defaults": _list(_changed(made_with)),
            "versions": _list(versions),
            "metrics": _list(metrics) or "nothing was measured",
        }
    )
    if (path / "geometry.json").is_file():
        yield f"geometry.json, {_measured(read_json(path / 'geometry.json'))}"


def _similarity(path: Path, config: dict[str, Any]) -> Iterator[str]:
    made_with = config["made_with"]
    yield f"{path}: a similarity of {config.get('n', 'unfinished: not yet known how many')} positions"
    yield f"split-half agreement: {config.get('split_half', 'not measured')}"
    yield from _facts(
        {
            "estimator": made_with.get("baseline") or (made_with.get("similarity") or {}).get("estimator"),
            "draws": config.get("draws"),
            "source": made_with.get("source"),
        }
    )


def _autoencoder(path: Path, config: dict[str, Any]) -> Iterator[str]:
    finished = "" if (path / "model.safetensors").is_file() else ", unfinished"
    yield f"{path}: a masked autoencoder of {config['n']} positions, {config['visible']} visible{finished}"
    kind = config["made_with"]["autoencoder"].get("kind")
    yield from _facts({"kind": kind, "loss": config["loss"], "source": config["made_with"].get("source")})


def _perceiver(path: Path, config: dict[str, Any]) -> Iterator[str]:
    yield f"{path}: a Perceiver of {config['positions']} positions, encoding {config['encoding']}"
    if (path / "metrics.json").is_file():
        yield f"test accuracy: {100 * read_json(path / 'metrics.json')['test_accuracy']:.2f} %"
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
            f"path: {path} is no checkpoint that can be read as weights alone, and nothing else of one is ever loaded"
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
    results = read_json(path)
    if isinstance(results, dict) and is_study(results):
        groups = dict.fromkeys(cell["group"] for cell in results["cells"])
        yield f"{path}: the study `{results['study']}`, {study_origin(results['cells'])}"
        yield f"groups: {', '.join(groups) or 'none yet'}"
        return
    if isinstance(results, dict) and "knn_recall" in results:
        yield f"{path}: metrics of an embedding against its geometry"
        yield _measured(results)
        return
    if not isinstance(results, dict) or "command" not in results:
        raise MaedError(f"path: {path} is JSON, but no results.json of maed's")
    yield f"{path}: results of `{results['command']}`, started {results['started']}, commit {results['commit']}"
    yield f"source: {results['source']}, {results['positions']} positions"


def _data(path: Path) -> Iterator[str]:
    data = load(str(path), DataSettings(missing="mask"))
    kind = f"{data.channels} channels" if data.channels else f"{data.vocabulary} token ids"
    yield f"{path}: {data.kind} signals, {data.positions} positions, {kind}"
    yield f"signals: {len(data.train)} for training, {len(data.validation)} validation, {len(data.test)} test"
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


def _geometry(embedding: PositionEmbedding) -> str:
    if embedding.geometry is None:
        return "not known"
    sides = " x ".join(map(str, embedding.geometry.shape))
    return " ".join(filter(None, (embedding.geometry.kind, sides)))


def _measured(metrics: Mapping[str, Any]) -> str:
    """What `maed evaluate` wrote."""
    numbers = {name: value for name, value in metrics.items() if name not in ("schema", "coordinates")}
    return f"against {metrics['coordinates']}: {_list(numbers)}"


def _changed(made_with: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, as `group.name`, in which a run differed from the defaults of today."""
    changed = {}
    for group, defaults in asdict(Settings()).items():
        for name, value in (made_with.get(group) or {}).items():
            if name != "seed" and value != defaults.get(name):
                changed[f"{group}.{name}"] = value
    return changed
