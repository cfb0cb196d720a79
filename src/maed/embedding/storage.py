"""The folder of a position embedding: what is read is checked, and never more than numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from reprlib import repr as short
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import safe_open
from torch import Tensor

from maed.data.geometry import Geometry, GeometryKind
from maed.errors import MaedError
from maed.files import read_json, write_json, write_text
from maed.run_folder import CARD, CONFIG, MODEL, RunFolder
from maed.tensors import read_tensors, write_tensors

if TYPE_CHECKING:
    from maed.embedding.position_embedding import PositionEmbedding

SCHEMA = 1
_FILES = (CONFIG, MODEL)


def find_files(name: str | Path, *, revision: str | None, **download: Any) -> tuple[Path, Path]:
    """Locate `config.json` and `model.safetensors`, downloaded if `name` is one of the hub."""
    folder = Path(name)
    if folder.is_dir():
        run = RunFolder(folder)
        if not (folder / CONFIG).exists() and run.embedding("auto").path.is_dir():  # the folder of a whole run
            folder = run.embedding("auto").path
        return folder / _FILES[0], folder / _FILES[1]
    if folder.exists() or str(name).count("/") != 1 or not all(str(name).split("/")) or str(name).startswith("."):
        raise MaedError(
            f"embedding must be a folder that maed wrote, or OWNER/NAME of the hub; {str(name)!r} is no folder"
        )
    found = []
    for file in _FILES:
        try:
            found.append(Path(hf_hub_download(str(name), file, revision=revision, **download)))
        except (HfHubHTTPError, HFValidationError, OSError, ValueError, RuntimeError) as error:
            raise MaedError(
                f"embedding: {str(name)!r} is no folder, and its {file} cannot be downloaded from the hub "
                f"({_line(error)})"
            ) from None
    return found[0], found[1]


def write_embedding(embedding: PositionEmbedding, folder: Path, card: str) -> None:
    """Write `config.json`, the card, and `model.safetensors` {vectors, coordinates?}, which comes last."""
    tensors = {"vectors": embedding.vectors.detach().cpu().float().contiguous()}
    geometry: dict[str, Any] | None = None
    if embedding.geometry is not None:
        tensors["coordinates"] = torch.from_numpy(np.ascontiguousarray(embedding.geometry.coordinates))
        geometry = {"kind": embedding.geometry.kind, "shape": list(embedding.geometry.shape)}
    made_with = embedding.provenance.get("made_with")
    provenance = {key: value for key, value in embedding.provenance.items() if key != "made_with"}
    sizes = {"schema": SCHEMA, "n": embedding.n, "d": embedding.dim, "source": embedding.source, "geometry": geometry}
    names = {} if embedding.names is None else {"names": list(embedding.names)}
    origin = {"fingerprint": embedding.fingerprint, "provenance": provenance, "made_with": made_with}
    write_json(folder / CONFIG, {**sizes, **names, **origin}, sealed=True)
    write_text(folder / CARD, card)
    write_tensors(folder / MODEL, tensors)


def read_embedding(name: str | Path, *, revision: str | None, **download: Any) -> dict[str, Any]:
    """Read and check the files of `write_embedding`: the arguments of a `PositionEmbedding`.

    Raises:
        MaedError: Nothing is there; another schema; tensors missing, extra, cut short, of another shape than
            config.json says, or not finite.
    """
    config_path, model_path = find_files(name, revision=revision, **download)
    config = checked_config(config_path)
    tensors = checked_tensors(model_path, config)
    geometry = None
    if config.get("geometry"):
        coordinates, described = tensors["coordinates"].numpy(), config["geometry"]
        geometry = Geometry(described["kind"], coordinates, tuple(described.get("shape") or ()))
    provenance = dict(config.get("provenance") or {})
    if config.get("made_with") is not None:
        provenance["made_with"] = config["made_with"]
    known = {"source": config["source"], "names": config.get("names")}
    return {"vectors": tensors["vectors"], "geometry": geometry, "provenance": provenance, **known}


_TYPES: dict[str, tuple[type, ...]] = {
    "n": (int,),
    "d": (int,),
    "source": (str,),
    "names": (list, NoneType),
    "geometry": (dict, NoneType),
    "provenance": (dict, NoneType),
    "provenance.metrics": (dict, NoneType),
    "provenance.versions": (dict, NoneType),
    "provenance.split_half": (float, int, NoneType),
    "provenance.made_with": (NoneType,),  # its place is beside the provenance
    "made_with": (dict, NoneType),
    "made_with.data": (dict, NoneType),
    "made_with.data.permute": (int, NoneType),
    "made_with.autoencoder": (dict, NoneType),
    "made_with.similarity": (dict, NoneType),
    "made_with.embedding": (dict, NoneType),
}
"""Types of the fields of `config.json` that are used; the others are only displayed."""

_WORDS = {
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "facts by name",
    list: "a list",
    NoneType: "null",
}

_SPACES = {"line": (1, 1), "grid": (2, 2), "torus": (4, 2), "ring": (2, 0), "sphere": (3, 0), "swissroll": (3, 0)}
"""Columns of coordinates, and sides of a shape, of the kinds of geometry; `points` have any, a torus 6 and 3 too."""


def checked_config(path: Path) -> dict[str, Any]:
    """`config.json`, refused unless it describes a position embedding of this schema."""
    config = _json(path)
    found = config.get("schema") if isinstance(config, dict) else None
    if found != SCHEMA:
        raise MaedError(f"{path}: must be a position embedding of schema {SCHEMA}, got schema {short(found)}")
    lacking = [name for name in ("n", "d", "source") if name not in config]
    if lacking:
        raise MaedError(f"{path}: lacks {', '.join(lacking)}; a position embedding of schema {SCHEMA} has them")
    for name, types in _TYPES.items():
        value = config
        for key in name.split("."):
            value = (value or {}).get(key)
        least = 1 if name in ("n", "d") else 0
        fits = isinstance(value, types) and not isinstance(value, bool)
        if not fits or (isinstance(value, int) and value < least):
            words = " or ".join(_WORDS[kind] for kind in types)
            raise MaedError(f"{path}: {name} must be {words}{', at least 1' * least}, got {short(value)}")
    names = config.get("names")
    if names and not (all(isinstance(name, str) for name in names) and len({*names}) == len(names) == config["n"]):
        raise MaedError(f"{path}: names must be {short(config['n'])} different texts, got {short(names)}")
    geometry = config.get("geometry")
    if geometry:
        shape = geometry.get("shape") or []
        kind = geometry.get("kind")
        fits = isinstance(shape, list) and all(isinstance(side, int) and side > 0 for side in shape)
        known = isinstance(kind, str) and kind in get_args(GeometryKind)
        if (
            not known
            or not fits
            or len(shape) > (3 if kind == "torus" else 2)
            or (shape and prod(shape) != config["n"])
        ):
            n = short(config["n"])
            raise MaedError(f"{path}: geometry must be a kind and a shape of {n} positions, got {short(geometry)}")
    return config


def _json(path: Path) -> Any:
    """Read a JSON file; text that can neither be printed nor written again is refused."""
    content = read_json(path)
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise MaedError(f"{path}: not a JSON file (an incomplete surrogate pair)") from None
    except RecursionError:
        raise MaedError(f"{path}: not a JSON file (nested too deeply)") from None
    return content


def _line(error: Exception) -> str:
    """A library's error as part of one line."""
    text = " ".join(str(error).split())[:240] or type(error).__name__
    return text if text.isprintable() else repr(text)


def checked_tensors(path: Path, config: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors, refused unless they are just what the config describes."""
    tensors = read_tensors(path)
    expected = {"vectors"} | ({"coordinates"} if config.get("geometry") else set())
    if set(tensors) != expected:
        raise MaedError(f"{path}: must hold {sorted(expected)}, got {short(sorted(tensors))}")
    shape = tuple(tensors["vectors"].shape)
    if shape != (config["n"], config["d"]):
        raise MaedError(
            f"{path}: vectors must have shape ({short(config['n'])}, {short(config['d'])}), as config.json "
            f"says, got {shape}"
        )
    for name, tensor in tensors.items():
        if tensor.ndim != 2 or len(tensor) != config["n"]:
            raise MaedError(f"{path}: {name} must have {len(tensors['vectors'])} rows, got shape {tuple(tensor.shape)}")
        numbers = tensor.float()
        if name == "coordinates":  # a row of NaN says that the position has no place
            numbers = numbers[~torch.isnan(numbers).all(dim=1)]
        if not tensor.is_floating_point() or not torch.isfinite(numbers).all():
            raise MaedError(f"{path}: {name} must be finite floats, got {tensor.dtype} or values that are not finite")
    if config.get("geometry"):
        _check_coordinates(path, tensors["coordinates"], config["geometry"])
    if "fingerprint" in config and config["fingerprint"] != fingerprint_of(tensors["vectors"]):
        raise MaedError(
            f"{path}: its vectors are not those that config.json was written with (an interrupted or mixed copy)"
        )
    return tensors


def _check_coordinates(path: Path, coordinates: Tensor, geometry: dict[str, Any]) -> None:
    """Refuse coordinates of which the kind of geometry could not be: distances and figures would fail on them."""
    kind, shape = geometry["kind"], geometry.get("shape") or []
    columns, sides = _SPACES.get(kind, (coordinates.shape[1], 0))
    if kind == "torus" and coordinates.shape[1] == 6:
        columns, sides = 6, 3
    fits = coordinates.shape[1] == columns > 0 and len(shape) in (0, sides)
    if fits and kind == "grid":
        cells = coordinates.round()
        fits = len(shape) == 2 and bool(((cells >= 0) & (cells < torch.tensor(shape))).all())
    if not fits:
        raise MaedError(f"{path}: coordinates of shape {tuple(coordinates.shape)} do not fit a {kind} of shape {shape}")


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Errors of reading a safetensors file, as one line."""
    if not path.is_file():
        raise MaedError(f"{path}: no such file")
    try:
        yield
    except (MaedError, OSError):
        raise
    except Exception as error:  # safetensors has errors of its own, and lets some of Python's through
        raise MaedError(f"{path}: not a safetensors file ({_line(error)})") from None


def similarity_row(folder: Path, n: int, position: int) -> Tensor:
    """One row `(N,)` of the similarity in a folder; no other one is read."""
    path = folder / MODEL
    with readable(path), safe_open(path, framework="pt") as file:
        if "similarity" not in file.keys() or file.get_slice("similarity").get_shape() != [n, n]:  # noqa: SIM118
            raise MaedError(f"similarity: {folder} holds no similarity of {n} x {n} positions")
        return file.get_slice("similarity")[position]


def fingerprint_of(vectors: Tensor) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of vectors, as little-endian float32."""
    content = np.ascontiguousarray(vectors.detach().cpu().float().numpy(), dtype="<f4")
    return hashlib.sha256(content.tobytes()).hexdigest()[:16]
