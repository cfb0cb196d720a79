"""`maed info`: what a file or folder is, its shape and where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from maed.config import DataSettings
from maed.data import load
from maed.embedding import PositionEmbedding
from maed.errors import MaedError
from maed.files import read_json
from maed.report.tables import is_study, study_origin

_STAGES = ("autoencoder", "similarity", "embedding", "baseline", "perceiver", "results.json", "report.html")


def describe(path: Path) -> Iterator[str]:
    """Lines that describe `path`.

    Raises:
        MaedError: nothing is there, or nothing that `maed` knows.
    """
    if not path.exists():
        raise MaedError(f"path: {path} does not exist; it may be a file or folder that maed wrote or reads")
    if path.is_dir() and (path / "config.json").is_file():
        yield from _stage(path)
    elif path.is_dir() and any((path / name).exists() for name in _STAGES):
        yield f"{path}: a run with {', '.join(name for name in _STAGES if (path / name).exists())}"
        if (path / "results.json").is_file():
            yield from _results(path / "results.json")
    elif path.suffix == ".json":
        yield from _results(path)
    else:
        yield from _data(path)


def _stage(folder: Path) -> Iterator[str]:
    config = read_json(folder / "config.json")
    if not isinstance(config, dict):
        raise MaedError(f"path: {folder} holds a config.json that is not maed's")
    made_with = config.get("made_with") or {}
    if "d" in config and "n" in config:
        embedding = PositionEmbedding.from_pretrained(folder)
        yield f"{folder}: a position embedding of {embedding.n} positions, {embedding.dim} channels"
        yield f"source: {embedding.source}"
        yield f"geometry: {embedding.geometry.kind if embedding.geometry else 'not known'}"
        for key, value in embedding.provenance.items():
            if not isinstance(value, dict):
                yield f"{key}: {value}"
    elif "similarity" in made_with or "baseline" in made_with:
        yield f"{folder}: a similarity of {config.get('n', 'unfinished: not yet known how many')} positions"
        yield f"split-half agreement: {config.get('split_half', 'not measured')}"
    elif "autoencoder" in made_with:
        finished = "" if (folder / "model.safetensors").is_file() else ", unfinished"
        yield f"{folder}: a masked autoencoder of {config['n']} positions, {config['visible']} visible{finished}"
        yield f"loss: {config['loss']}"
    elif config.get("architecture") == "perceiver":
        yield f"{folder}: a Perceiver of {config['positions']} positions, encoding {config['encoding']}"
        if (folder / "metrics.json").is_file():
            yield f"test accuracy: {100 * read_json(folder / 'metrics.json')['test_accuracy']:.2f} %"
        yield f"source: {config['source']}"
    else:
        raise MaedError(f"path: {folder} holds a config.json that is not maed's")
    if made_with and "d" not in config:
        yield f"source: {made_with.get('source')}"


def _results(path: Path) -> Iterator[str]:
    results = read_json(path)
    if isinstance(results, dict) and is_study(results):
        groups = dict.fromkeys(cell["group"] for cell in results["cells"])
        yield f"{path}: the study `{results['study']}`, {study_origin(results['cells'])}"
        yield f"groups: {', '.join(groups) or 'none yet'}"
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
