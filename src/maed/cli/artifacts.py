"""The verbs that measure embeddings and write them for others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jsonargparse import Namespace

from maed.cli.common import say
from maed.cli.parsing import Parser, settings_group, verb
from maed.errors import MaedError, require_extra
from maed.run_folder import GEOMETRY

if TYPE_CHECKING:
    from maed.data.geometry import Geometry
    from maed.embedding import PositionEmbedding

EMBEDDING = "folder of an embedding, OWNER/NAME of the hub, or a .pth file of the original"


_COORDINATES = (
    "grid:HEIGHTxWIDTH, line:LENGTH, ring:N, torus:HEIGHTxWIDTH, sphere:N, or a .npy or .csv file of (N, D) "
    "numbers; default: those stored with the embedding"
)


def _add_evaluate(parser: Parser) -> None:
    from maed.data.source import listed

    parser.add_argument("embedding", type=str, metavar="EMBEDDING_DIR", help=EMBEDDING)
    text = f"signals for probe loss and neighbor error, which need no coordinates: {listed()}"
    parser.add_argument("source", type=str | None, nargs="?", default=None, metavar="SOURCE", help=text)
    text = f"true coordinates of the positions: {_COORDINATES}"
    parser.add_argument("--coordinates", type=str | None, default=None, metavar="WHAT", help=text)
    text = "folder for geometry.json; default: the embedding's folder (none for an embedding of the hub or a file)"
    parser.add_argument("--out", type=str | None, default=None, metavar="DIR", help=text)
    from maed.settings import DataSettings, EvaluationSettings

    settings_group(parser, DataSettings, "data")
    settings_group(parser, EvaluationSettings, "evaluation")


@verb("evaluate", "Measure an embedding on signals, or against true coordinates.", _add_evaluate)
def _evaluate(given: Namespace, command: str) -> None:
    from maed.evaluation.geometry import geometry_metrics
    from maed.files import write_json

    embedding = open_embedding_of(given.embedding)
    written: dict[str, Any] = {"schema": 1}
    if given.source is not None:
        written |= {"source": given.source, **_without_truth(embedding, given)}
    if given.source is None or given.coordinates or embedding.geometry is not None:
        geometry = embedding.true_geometry(_given_geometry(embedding, given.coordinates))
        k = given.evaluation.n_neighbors or geometry.neighbors
        metrics = geometry_metrics(embedding.vectors, geometry, given.evaluation)
        for name, value in metrics.items():
            say(f"{name}{f'@{k}' if name == 'knn_recall' else ''}: {value:.4f}")
        written |= {"neighbors": k, "coordinates": given.coordinates or "its own", **metrics}
    folder = Path(given.out or given.embedding)
    if given.out or folder.is_dir():
        target = folder / GEOMETRY
        write_json(target, written)
        say(f"wrote {target}")


def _without_truth(embedding: PositionEmbedding, given: Namespace) -> dict[str, Any]:
    """Probe loss, beside that of random vectors and, if known, of the true coordinates; neighbor error."""
    import numpy as np
    import torch

    from maed.data import load
    from maed.evaluation.probe import neighbor_error, probe

    data, settings = load(given.source, given.data), given.evaluation
    if data.positions != embedding.n:
        raise MaedError(
            f"source must have {embedding.n} positions, as the embedding has; {given.source} has {data.positions}"
        )
    candidates, found = {"embedding": embedding.vectors}, dict[str, Any]()
    if embedding.geometry is not None and embedding.geometry.placed.all():
        candidates["coordinates"] = torch.as_tensor(embedding.coordinates, dtype=torch.float32)
    if settings.probe_steps:
        probed = probe(candidates, data, steps=settings.probe_steps, seeds=settings.probe_seeds)
        for name, row in probed.items():
            say(f"probe loss, {name}: {row.probe_loss:.4f}")
            found[f"probe_loss_{name}"] = row.probe_loss
        found["probe_loss"] = found.pop("probe_loss_embedding")
    k = settings.n_neighbors or min(8, embedding.n - 1)
    errors = neighbor_error(embedding.vectors, data.train, data.validation, k)
    mean, worst, measured = float(np.nanmean(errors)), int(np.nanargmax(errors)), np.isfinite(errors)
    of = "" if measured.all() else f" of a sample of {measured.sum()} positions"
    say(f"neighbor error: {mean:.4f}{of} (worst position: {worst}, {errors[worst]:.4f})")
    each = [float(error) if known else None for error, known in zip(errors, measured, strict=True)]
    return {**found, "neighbor_error": mean, "neighbor_errors": each}


def _add_export(parser: Parser) -> None:
    parser.add_argument("embedding", type=str, metavar="EMBEDDING", help=EMBEDDING)
    text = (
        "npy: NumPy array, float32 (N, d); csv: a header and one row per position; onnx: a model that looks positions "
        "up; folder: an embedding, as changed by --dim and --resample"
    )
    formats = Literal["npy", "csv", "onnx", "folder"]
    parser.add_argument("--format", type=formats, required=True, metavar="npy|csv|onnx|folder", help=text)
    text = "channels of the result: more than d keep all distances, fewer are the leading principal components"
    parser.add_argument("--dim", type=int | None, default=None, metavar="D", help=text)
    text = "interpolate to other positions, grid:HEIGHTxWIDTH or line:LENGTH; uses the geometry, which the card records"
    parser.add_argument("--resample", type=str | None, default=None, metavar="WHAT", help=text)
    text = (
        "geometry for --resample: line:LENGTH, grid:HEIGHTxWIDTH, or a .npy or .csv file of (N, 1) numbers; default: "
        "the one stored with the embedding"
    )
    parser.add_argument("--coordinates", type=str | None, default=None, metavar="WHAT", help=text)
    text = "scale the vectors to this root mean square, such as 0.02 for an untrained BERT; default: unchanged"
    parser.add_argument("--rms", type=float | None, default=None, metavar="X", help=text)
    text = "output file or folder; default: vectors.FORMAT in the embedding's folder, or NAME.FORMAT in this folder"
    parser.add_argument("--out", type=str | None, default=None, metavar="FILE", help=text)


@verb("export", "Write an embedding for other programs, or with other channels or positions.", _add_export)
def _export(given: Namespace, command: str) -> None:
    from maed.embedding.export import WRITERS

    if given.format == "onnx":
        require_extra("format", "onnx")
    to_folder = given.format == "folder"
    if to_folder and not given.out:
        raise MaedError("out must be a new folder with --format folder, got nothing")
    if to_folder and given.rms is not None:
        raise MaedError(
            f"rms must be left out with --format folder, whose vectors have unit mean square; got {given.rms}"
        )
    if given.coordinates and not given.resample:
        raise MaedError("coordinates must be left out without --resample, the only option that reads them")
    resampled = _line_or_grid(given.resample) if given.resample else None
    embedding = open_embedding_of(given.embedding)
    if resampled is not None:
        embedding = embedding.resampled(resampled, _given_geometry(embedding, given.coordinates))
    if given.dim is not None:
        embedding = embedding.with_dim(given.dim)
    target = Path(given.out) if given.out else _beside(given.embedding, given.format)
    if to_folder:
        _check_free(target, embedding)
        embedding.save_pretrained(target)
    elif target.is_dir():
        raise MaedError(f"out must be a file, got the folder {target}")
    else:
        WRITERS[given.format](embedding, target, rms=given.rms)
    say(f"wrote {target}")


def open_embedding_of(name: str) -> PositionEmbedding:
    """An embedding, wherever it is; what the hub's client logs of its attempts comes back as one line at the end."""
    from huggingface_hub.utils.logging import set_verbosity_error

    from maed.embedding import open_embedding

    set_verbosity_error()
    return open_embedding(name)


def _given_geometry(embedding: PositionEmbedding, text: str | None) -> Geometry | None:
    """Read `--coordinates`; None stands for the embedding's own, which must then exist."""
    from maed.data.geometry_spec import NAMES, parse_geometry

    if text:
        return parse_geometry(text)
    if embedding.geometry is None:
        raise MaedError(f"coordinates must be {NAMES} or a file of (N, D) numbers, because the embedding stores none")
    return None


def _line_or_grid(text: str) -> Geometry:
    """Read `--resample`."""
    from maed.data.geometry_spec import parse_geometry, parse_sides

    name, _, size = text.partition(":")
    if len(parse_sides(size)) != {"line": 1, "grid": 2}.get(name):
        raise MaedError(f"resample must be grid:HEIGHTxWIDTH or line:LENGTH, got {text!r}")
    return parse_geometry(text)


def _beside(embedding: str, suffix: str) -> Path:
    """Default path of an export: in the embedding's folder, or here under the embedding's name if it has no folder."""
    path = Path(embedding)
    if path.is_dir():
        return path / f"vectors.{suffix}"
    return Path(f"{path.stem if path.is_file() else path.name}.{suffix}")


def _check_free(folder: Path, embedding: PositionEmbedding) -> None:
    """Refuse to write an embedding over anything but itself."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    try:
        same = type(embedding).from_pretrained(folder).fingerprint == embedding.fingerprint
    except MaedError:
        same = False
    if not same:
        raise MaedError(f"out must be a new folder; {folder} holds other files")
