"""The result: a position embedding as a module that is saved, shared and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from maed.data.geometry import Geometry, permutation
from maed.errors import MaedError
from maed.files import read_json, replacing, write_json, write_text

SCHEMA = 1


class PositionEmbedding(nn.Module):
    """A learned vector for each position, and what is known of its origin.

    Args:
        vectors: `(N, d)` float32, each channel centred, unit mean square over all.
        source: the data it was learned from.
        geometry: the true geometry, where known; kept for figures and evaluation, never learned from.
        provenance: settings, versions, metrics: whatever JSON can hold.

    Example:
        >>> positions = PositionEmbedding.from_pretrained("my-positions")
        >>> positions(batch_size=8).shape
        torch.Size([8, 1024, 64])
    """

    vectors: Tensor

    def __init__(
        self,
        vectors: Tensor,
        *,
        source: str = "",
        geometry: Geometry | None = None,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if vectors.ndim != 2 or not vectors.is_floating_point() or not torch.isfinite(vectors).all():
            raise MaedError(
                f"vectors: {vectors.dtype} of shape {tuple(vectors.shape)}; they may be finite floats of shape (N, d)"
            )
        if geometry is not None and len(geometry.coordinates) != len(vectors):
            raise MaedError(
                f"geometry: {len(geometry.coordinates)} positions; it may have {len(vectors)}, as vectors do"
            )
        self.register_buffer("vectors", vectors.detach().clone().float())
        self.source, self.geometry, self.provenance = source, geometry, dict(provenance or {})

    def forward(self, batch_size: int) -> Tensor:
        """The vectors for a batch, `(batch_size, N, d)`: a view, no copy."""
        return self.vectors.expand(batch_size, -1, -1)

    @property
    def n(self) -> int:
        """Number of positions N."""
        return self.vectors.shape[0]

    @property
    def dim(self) -> int:
        """Channels d."""
        return self.vectors.shape[1]

    def true_geometry(self, given: Geometry | None = None) -> Geometry:
        """The geometry of the positions as they are stored: the embedding's own, or `given`.

        A `given` geometry is that of the source; where the embedding was learned from permuted positions, it is
        permuted alike.

        Raises:
            MaedError: none is known, or it is of another number of positions.
        """
        if given is None:
            if self.geometry is None:
                raise MaedError("coordinates: not given, and the embedding holds none; see --help")
            return self.geometry
        if len(given.coordinates) != self.n:
            raise MaedError(f"coordinates: {len(given.coordinates)} positions; the embedding has {self.n}")
        seed = ((self.provenance.get("made_with") or {}).get("data") or {}).get("permute")
        return given if seed is None else given.permuted(permutation(self.n, seed))

    def extra_repr(self) -> str:
        """N, d and source for `print`."""
        return f"n={self.n}, dim={self.dim}, source={self.source!r}"

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`, `model.safetensors` {vectors, coordinates?} and a model card `README.md`."""
        folder = Path(folder)
        tensors = {"vectors": self.vectors.cpu().contiguous()}
        geometry: dict[str, Any] | None = None
        if self.geometry is not None:
            tensors["coordinates"] = torch.from_numpy(np.ascontiguousarray(self.geometry.coordinates))
            geometry = {"kind": self.geometry.kind, "shape": list(self.geometry.shape)}
        config = {"schema": SCHEMA, "n": self.n, "d": self.dim, "source": self.source}
        made_with = self.provenance.get("made_with")
        provenance = {key: value for key, value in self.provenance.items() if key != "made_with"}
        write_json(
            folder / "config.json",
            {**config, "geometry": geometry, "provenance": provenance, "made_with": made_with},
        )
        write_text(folder / "README.md", _card(self))
        with replacing(folder / "model.safetensors") as temporary:
            save_file(tensors, temporary)

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Read what `save_pretrained` wrote; anything missing, extra or of another shape is refused."""
        folder = Path(folder)
        config = read_json(folder / "config.json")
        found = config.get("schema") if isinstance(config, dict) else None
        lacking = [] if found != SCHEMA else [name for name in ("n", "d", "source") if name not in config]
        if found != SCHEMA or lacking:
            wrong = f"lacks {', '.join(lacking)}" if lacking else f"schema {found}"
            raise MaedError(f"{folder}/config.json: {wrong}; it may be a position embedding of schema {SCHEMA}")
        try:
            tensors = load_file(folder / "model.safetensors")
        except FileNotFoundError:
            raise MaedError(f"{folder}/model.safetensors: no such file") from None
        except SafetensorError as error:
            raise MaedError(f"{folder}/model.safetensors: not a safetensors file ({error})") from None
        expected = {"vectors"} | ({"coordinates"} if config.get("geometry") else set())
        if set(tensors) != expected:
            raise MaedError(f"{folder}/model.safetensors: holds {sorted(tensors)}; it may hold {sorted(expected)}")
        if tuple(tensors["vectors"].shape) != (config["n"], config["d"]):
            shape = tuple(tensors["vectors"].shape)
            raise MaedError(f"{folder}: vectors of shape {shape}, config.json says ({config['n']}, {config['d']})")
        geometry = None
        if config.get("geometry"):
            coordinates = tensors["coordinates"].numpy()
            geometry = Geometry(config["geometry"]["kind"], coordinates, tuple(config["geometry"]["shape"]))
        provenance = dict(config.get("provenance") or {})
        if config.get("made_with") is not None:
            provenance["made_with"] = config["made_with"]
        return cls(tensors["vectors"], source=config["source"], geometry=geometry, provenance=provenance)


def _card(embedding: PositionEmbedding) -> str:
    """A model card: what this is, how it was made, how to use it."""
    details = "\n".join(
        f"- {key}: {value}" for key, value in embedding.provenance.items() if not isinstance(value, dict)
    )
    return f"""---
library_name: maed
tags: [position-embedding, masked-autoencoder]
---
# Position embedding learned from {embedding.source or "data"}

{embedding.n} positions, {embedding.dim} channels; each channel centred, unit mean square over all.

{details}

```python
import maed
positions = maed.PositionEmbedding.from_pretrained("path/to/this/folder")
positions(batch_size=8)  # (8, {embedding.n}, {embedding.dim})
```
"""
