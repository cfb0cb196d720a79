"""A similarity between positions, and the folder that holds it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from maed.errors import MaedError
from maed.files import damaged, read_json, write_json
from maed.run_folder import CONFIG, MODEL, PARTIAL
from maed.similarity.pairs import SparseSimilarity
from maed.similarity.sums import Sums
from maed.tensors import digest_of, read_tensors, write_tensors

_TENSORS = "tensors"
"""The entry of config.json that holds the digest of what model.safetensors holds."""


@dataclass(frozen=True)
class Similarity:
    """A similarity between positions.

    Args:
        values: `(N, N)` float32; row i, column j: how much seeing i helps to predict j. The diagonal is 0.
        standard_error: `(N, N)` float32, of each entry.
        facts: Choices made on the way, such as the ridge of `partial`, which are written into its config.json.
    """

    values: Tensor
    standard_error: Tensor
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Positions N."""
        return len(self.values)

    def arrays(self) -> tuple[Tensor, Tensor]:
        """Similarity and standard error as `maed.embedding.reduce` takes them."""
        return self.values, self.standard_error


def write_similarity(
    folder: Path, similarity: Similarity | SparseSimilarity, sums: Sums | None, config: dict[str, object]
) -> None:
    """Write `config.json` and `model.safetensors` {similarity, standard_error, counts, sums, squares}.

    A baseline has no sums; of `ablation` they are `(1, N, N)` float64, of the other estimators `(2, N, N)`: draws with
    i visible, with i hidden. Of candidate pairs `similarity` and `standard_error` are `(E,)`, and `pairs` `(2, E)`.
    """
    tensors = {"similarity": similarity.values, "standard_error": similarity.standard_error}
    if isinstance(similarity, SparseSimilarity):
        tensors["pairs"] = similarity.pairs
    if sums is not None:
        tensors |= sums.stacked()
    content = {"schema": 1, "n": similarity.n, **config, **similarity.facts, _TENSORS: digest_of(tensors)}
    write_json(folder / CONFIG, content, sealed=True)
    write_tensors(folder / MODEL, tensors)  # last: it marks the stage as finished
    for name in PARTIAL:
        (folder / name).unlink(missing_ok=True)


def load_similarity(folder: Path) -> Similarity | SparseSimilarity:
    """Read what `write_similarity` wrote.

    Raises:
        MaedError: Nothing is there, or something else than a similarity and its standard error, `(N, N)` or of pairs,
            and finite; or not the one that its config.json was written with.
    """
    path = folder / MODEL
    if not path.is_file():
        raise MaedError(f"run: {folder} holds no similarity; make one with `maed similarity`")
    tensors = read_tensors(path)
    if lacking := sorted({"similarity", "standard_error"} - tensors.keys()):
        raise MaedError(f"{path}: not the file of a similarity, because it holds no {' and no '.join(lacking)}")
    values, error = tensors["similarity"], tensors["standard_error"]
    if not values.is_floating_point() or not values.float().isfinite().all():
        raise MaedError(f"{path}: similarity must be finite floats, got {values.dtype} or values that are not finite")
    if "pairs" in tensors:
        found: Similarity | SparseSimilarity = _of_pairs(folder, tensors)
    else:
        if values.ndim != 2 or values.shape[0] != values.shape[1] or error.shape != values.shape:
            shapes = f"{tuple(values.shape)} and {tuple(error.shape)}"
            raise MaedError(f"{path}: similarity and standard_error must have shape (N, N), got {shapes}")
        found = Similarity(values, error)
    if _config(folder).get(_TENSORS) not in (None, digest_of(tensors)):
        meant = f'; if somebody meant to change it, take the lines "{_TENSORS}" and "digest" out of {CONFIG}'
        raise damaged(path, f"not the similarity that {CONFIG} describes", meant)
    return found


def _config(folder: Path) -> dict[str, Any]:
    """The content of config.json; empty without one."""
    config = read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    if not isinstance(config, dict):
        raise damaged(folder / CONFIG, "not the record of a similarity")
    return config


def _of_pairs(folder: Path, tensors: dict[str, Tensor]) -> SparseSimilarity:
    pairs, values, error = (tensors[name] for name in ("pairs", "similarity", "standard_error"))
    n = _config(folder).get("n")
    fits = pairs.ndim == 2 and len(pairs) == 2 and values.shape == error.shape == pairs.shape[1:]
    if not fits or pairs.is_floating_point() or not isinstance(n, int):
        shapes = ", ".join(str(tuple(each.shape)) for each in (pairs, values, error))
        raise MaedError(
            f"{folder / MODEL}: pairs, similarity and standard_error must have one row for each of E pairs, "
            f"got shapes {shapes}"
        )
    if pairs.numel() and not (int(pairs.min()) >= 0 and int(pairs.max()) < n and bool((pairs[0] < pairs[1]).all())):
        raise MaedError(f"{folder / MODEL}: pairs must be of two positions below {n}, the smaller one first")
    return SparseSimilarity(n, pairs.long(), values, error)
