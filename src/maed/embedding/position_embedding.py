"""The result: a position embedding as a module that is saved, shared and read back."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

import numpy as np
import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from scipy.sparse import csr_array
from sklearn.neighbors import kneighbors_graph
from torch import Tensor, nn

from maed.data.geometry import Geometry, permutation
from maed.data.geometry_spec import parse_geometry
from maed.embedding.card import model_card, write_figure
from maed.embedding.coordinates import recovered_coordinates
from maed.embedding.extension import place, read_columns
from maed.embedding.fitting import doubt_sides, of_positions, refitted, resample, resampled_from, scaled
from maed.embedding.legacy import read_legacy
from maed.embedding.reduction import standardize
from maed.embedding.storage import fingerprint_of, read_embedding, similarity_row, write_embedding
from maed.errors import MaedError, nearest
from maed.registry import BASELINES
from maed.run_folder import FIGURE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class PositionEmbedding(nn.Module, PyTorchModelHubMixin, library_name="maed", tags=["position-embedding"]):
    """A learned vector for each position, with its provenance.

    Args:
        vectors: `(N, d)` floats. Embeddings made by maed have centered channels and unit mean square over all entries.
        source: The data that it was learned from.
        geometry: The true geometry, if known; kept for figures and evaluation, never used for learning.
        provenance: Estimator, reduction, settings, versions, metrics: anything that JSON can hold.
        trainable: Make the vectors a parameter that an optimizer changes; otherwise they are a buffer.
        names: N different names of positions, such as those of electrodes, or None.

    Raises:
        MaedError: The vectors are not finite floats `(N, d)`, or geometry or names do not fit them.

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
        trainable: bool = False,
        names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if vectors.ndim != 2 or not vectors.is_floating_point() or not torch.isfinite(vectors).all():
            raise MaedError(
                f"vectors must be finite floats of shape (N, d), got {vectors.dtype} of shape {tuple(vectors.shape)}"
            )
        if geometry is not None and len(geometry.coordinates) != len(vectors):
            raise MaedError(
                f"geometry must have {len(vectors)} positions, as the vectors have, got {len(geometry.coordinates)}"
            )
        if names is not None and (len(names) != len(vectors) or len(set(names)) != len(names)):
            found = f"{len(names)}, {len(set(names))} of them different"
            raise MaedError(f"names must be {len(vectors)} different names, one for each position, got {found}")
        copy = vectors.detach().clone().float()
        if trainable:
            self.vectors = nn.Parameter(copy)
        else:
            self.register_buffer("vectors", copy)
        self.source, self.geometry, self.provenance = source, geometry, dict(provenance or {})
        self.names = None if names is None else tuple(map(str, names))

    def forward(self, batch_size: int) -> Tensor:
        """The vectors for a batch, `(batch_size, N, d)`: a view, no copy."""
        return self.vectors.expand(batch_size, -1, -1)

    # What it is.

    @property
    def n(self) -> int:
        """Number of positions N."""
        return self.vectors.shape[0]

    @property
    def dim(self) -> int:
        """Channels d."""
        return self.vectors.shape[1]

    @property
    def trainable(self) -> bool:
        """True if an optimizer changes the vectors."""
        return isinstance(self.vectors, nn.Parameter)

    @property
    def coordinates(self) -> Tensor | None:
        """The true coordinates `(N, D)`, or None."""
        return None if self.geometry is None else torch.from_numpy(self.geometry.coordinates)

    @property
    def label(self) -> str:
        """The name of its kind in tables: `maed`, a baseline, or either with `-resampled`: geometry was used."""
        estimator = self.provenance.get("estimator")
        label = str(self.provenance.get("label") or (estimator if estimator in BASELINES.names else "maed"))
        return f"{label}-resampled" if self.provenance.get("resampled") else label

    @property
    def fingerprint(self) -> str:
        """The first 16 hexadecimal digits of the SHA-256 of the vectors (float32, little-endian)."""
        return fingerprint_of(self.vectors)

    def extra_repr(self) -> str:
        """N, d and source for `print`."""
        return f"n={self.n}, dim={self.dim}, source={self.source!r}"

    def numpy(self) -> np.ndarray:
        """The vectors as a float32 array `(N, d)`, a copy."""
        return self.vectors.detach().cpu().numpy().copy()

    def index(self, name: str) -> int:
        """Find a position by name.

        Args:
            name: A name in `names`.

        Returns:
            Its index, from 0 to N - 1.

        Raises:
            MaedError: Positions have no names, or no position has this one.
        """
        if self.names is None:
            raise MaedError(
                f"position must be from 0 to {self.n - 1}, because positions have no names here; got {name!r}"
            )
        if name not in self.names:
            raise MaedError(f"position: no position is named {name!r}{nearest(name, self.names)}")
        return self.names.index(name)

    @overload
    def neighbors(self, position: int, k: int = 8) -> Tensor: ...
    @overload
    def neighbors(self, position: str, k: int = 8) -> list[str]: ...
    def neighbors(self, position: int | str, k: int = 8) -> Tensor | list[str]:
        """Find the k positions whose vectors are nearest (Euclidean), nearest first.

        Args:
            position: An index or a name.
            k: Number of neighbors, from 1 to N - 1.

        Returns:
            Indices `(k,)` int64 for an index, names for a name.

        Raises:
            MaedError: The position does not exist, or k is not between 1 and N - 1.
        """
        if isinstance(position, str):
            found = self.neighbors(self.index(position), k)
            assert self.names is not None
            return [self.names[i] for i in found.tolist()]
        self._check_position(position)
        if not 1 <= k < self.n:
            raise MaedError(f"k must be between 1 and {self.n - 1}, got {k}")
        table = self.vectors.detach()
        distances = (table - table[position]).square().sum(dim=1)
        distances[position] = torch.inf
        return distances.argsort(stable=True)[:k]

    def similarity_to(self, position: int, similarity: str | Path | None = None) -> Tensor:
        """Compute the similarity of every position to one position.

        Args:
            position: An index from 0 to N - 1.
            similarity: The `similarity/` folder of the run that made the embedding, whose row for `position` is then
                returned: how much seeing it helps to predict each other one. Default: the cosine of the vectors.

        Returns:
            `(N,)` float32.

        Raises:
            MaedError: The position or folder does not exist, or the folder has another number of positions.
        """
        self._check_position(position)
        if similarity is None:
            table = self.vectors.detach()
            return nn.functional.cosine_similarity(table, table[position][None], dim=1)
        return similarity_row(Path(similarity), self.n, position)

    def _check_position(self, position: int) -> None:
        if not 0 <= position < self.n:
            raise MaedError(f"position must be between 0 and {self.n - 1}, got {position}")

    def true_geometry(self, given: Geometry | None = None) -> Geometry:
        """Return the geometry of the positions in storage order: the embedding's own, or `given`.

        A `given` geometry is in the order of the source, and is permuted as the positions were. If both have names, or
        the embedding's names are column numbers, places are matched by name; positions without a match have no place,
        with a warning.

        Args:
            given: A geometry to use instead of the stored one.

        Returns:
            The geometry of N positions.

        Raises:
            MaedError: No geometry is known, or it has another number of positions.
        """
        if given is None:
            if self.geometry is None:
                raise MaedError("coordinates must be given, because the embedding stores none")
            return self.geometry
        return of_positions(given, self.names, self.n, self._permuted_by())

    def _permuted_by(self) -> int | None:
        return ((self.provenance.get("made_with") or {}).get("data") or {}).get("permute")

    def to_graph(self, k: int = 8) -> csr_array:
        """Build the graph of the k nearest positions (Euclidean) of each.

        Time grows with N^2 d in the worst case, memory with N k.

        Args:
            k: Neighbors per position.

        Returns:
            `(N, N)` sparse array; row i holds the distances from i to its neighbors.

        Raises:
            MaedError: k is not between 1 and N - 1.
        """
        if not 1 <= k < self.n:
            raise MaedError(f"k must be between 1 and {self.n - 1}, got {k}")
        return csr_array(kneighbors_graph(self.numpy(), k, mode="distance"))

    def edge_index(self, k: int = 8) -> tuple[Tensor, Tensor]:
        """Build the graph of `to_graph` in the format of PyTorch Geometric, which is not required.

        Args:
            k: Neighbors per position.

        Returns:
            `edge_index`, `(2, N k)` int64: each of the nearest, from which messages come, above the position it is near
            to (as `torch_cluster.knn_graph`); and `edge_weight`, `(N k,)` float32 distances.

        Raises:
            MaedError: k is not between 1 and N - 1.
        """
        graph = self.to_graph(k).tocoo()
        pairs = np.stack([graph.col, graph.row]).astype(np.int64)
        return torch.from_numpy(pairs), torch.from_numpy(graph.data.astype(np.float32))

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw the layout of the vectors in the plane, with the names of positions if they have any.

        Args:
            ax: Axes to draw in; default: those of a new Figure, `ax.figure`.

        Returns:
            The Axes.

        Raises:
            MaedError: There are more positions than can be laid out.
        """
        from maed.plots import recovered_layout  # wakes matplotlib

        return recovered_layout(self.numpy(), names=self.names, ax=ax)

    # Places, for models that want them.

    def coordinates_like(self, dims: int | None = None) -> Tensor:
        """Coordinates recovered from the vectors alone, for models that want places rather than vectors.

        Fourier features and rotary embeddings of them, graph networks, models that ask where electrodes are. See
        `maed.embedding.coordinates.recovered_coordinates` for how they are found and what it costs.

        Args:
            dims: Number of coordinates; default: as many as the shape needs (`residual_variance`).

        Returns:
            `(N, dims)` float32, centered, with largest absolute value 1. Orientation and scale are arbitrary.

        Raises:
            MaedError: There are fewer than 4 positions, all vectors are equal, or `dims` is not between 1 and N - 1.
        """
        return torch.from_numpy(recovered_coordinates(self.numpy(), dims)[0].astype(np.float32))

    def residual_variance(self) -> Tensor:
        """Compute the share of distances that 1, 2, ... coordinates leave unexplained.

        The curve falls until more coordinates do not help, and `coordinates_like` uses that number. It bends at 1 for a
        line, at 2 for a plane or ring, at 3 for a sphere (Tenenbaum, de Silva and Langford, Science 2000).

        Returns:
            `(min(8, N - 1),)` float32.

        Raises:
            MaedError: There are fewer than 4 positions, or all vectors are equal.
        """
        return torch.from_numpy(recovered_coordinates(self.numpy())[1].astype(np.float32))

    # Fitting it to a model.

    def subset(self, positions: Sequence[int] | Sequence[str]) -> PositionEmbedding:
        """Select positions, in the given order; their vectors are unchanged.

        Args:
            positions: Indices or names, each once.

        Returns:
            An embedding of the selected positions.

        Raises:
            MaedError: A position does not exist or is given twice.
        """
        place = {name: i for i, name in enumerate(self.names or ())}
        found = [place.get(each, each) if isinstance(each, str) else each for each in positions]
        chosen = [self.index(each) if isinstance(each, str) else int(each) for each in found]  # a name left is unknown
        for each in chosen:
            self._check_position(each)
        if not chosen or len(set(chosen)) < len(chosen):
            raise MaedError(f"positions must be at least 1, each named once, got {len(chosen)}")
        geometry = None if self.geometry is None else self.geometry.at(np.asarray(chosen))
        kept = {k: v for k, v in self.provenance.items() if k not in ("metrics", "split_half", "made_with")}
        names = None if self.names is None else [self.names[each] for each in chosen]
        vectors = self.vectors.detach()[chosen]
        return PositionEmbedding(
            vectors, source=self.source, geometry=geometry, provenance={**kept, "subset_of": self.n}, names=names
        )

    def grouped(self, groups: Sequence[str]) -> PositionEmbedding:
        """Average the vectors of groups of positions, and standardize the result.

        Of columns whose names became indicators, such as those of scikit-learn's `OneHotEncoder`, it makes one position
        for each column.

        Args:
            groups: N names, the group of each position.

        Returns:
            An embedding with one position per group, named after it, in order of first appearance; without geometry.

        Raises:
            MaedError: There are not N names, or only one group.
        """
        known = list(dict.fromkeys(map(str, groups)))
        if len(groups) != self.n or len(known) < 2:
            raise MaedError(
                f"groups must be {self.n} names, one for each position, of at least 2 groups, got {len(groups)} "
                f"of {len(known)}"
            )
        if self.geometry is not None:
            warnings.warn("geometry: unknown for groups, so the new embedding has none", stacklevel=2)
        member = torch.tensor([known.index(str(group)) for group in groups], device=self.vectors.device)
        sums = torch.zeros(len(known), self.dim, dtype=torch.float64, device=self.vectors.device)
        sums.index_add_(0, member, self.vectors.detach().double())
        kept = {k: v for k, v in self.provenance.items() if k not in ("metrics", "split_half", "made_with")}
        return PositionEmbedding(
            standardize(sums / torch.bincount(member)[:, None]),
            source=self.source,
            provenance={**kept, "grouped_from": self.n},
            trainable=self.trainable,
            names=known,
        )

    def extend(self, X: Any, names: Sequence[str] | None = None) -> PositionEmbedding:
        """Add new positions, such as sensors installed later; the vectors of the old ones do not change.

        A new position is placed from the 16 old ones that its values correlate with most, by the weights of locally
        linear embedding (Saul and Roweis, JMLR 2003, section 6.1; `maed.embedding.extension.place`). Time grows with
        n M N, memory with n (N + M) and M N, of n signals and M new positions.

        Args:
            X: Signals of old and new positions together: whatever `maed.learn` takes, NaN where missing. Columns are
                found by name, in any order; without names, the first N are the source's, and the new ones follow.
            names: Names of the new columns, if the positions of the embedding have names and the columns of X have
                none.

        Returns:
            N + M positions, the new ones last, without geometry; `provenance["extended_from"]` is N.

        Raises:
            MaedError: An old column is missing, none is new, names do not fit, or a new position has no values.
        """
        values, known = read_columns(X, self.n, self.names, names)
        seed = self._permuted_by()
        if self.names is None and seed is not None:  # X has the order of the source
            values[:, : self.n] = values[:, permutation(self.n, seed)]
        placed = place(values, self.numpy(), known)
        if self.geometry is not None:
            warnings.warn("geometry: unknown for the new positions, so the extended embedding has none", stacklevel=2)
        kept = {k: v for k, v in self.provenance.items() if k not in ("metrics", "split_half", "made_with")}
        return PositionEmbedding(
            torch.cat([self.vectors.detach(), torch.from_numpy(placed).to(self.vectors.device)]),
            source=self.source,
            provenance={**kept, "extended_from": kept.get("extended_from", self.n)},
            trainable=self.trainable,
            names=known,
        )

    def with_dim(self, dim: int, similarity: str | Path | None = None) -> PositionEmbedding:
        """Change the number of channels.

        Args:
            dim: Channels of the result.
            similarity: The `similarity/` folder of the run that made the embedding, to repeat its reduction. By
                default vectors are projected: into more channels without changing any distance, into fewer by
                principal components (`maed.embedding.fitting.project`).

        Returns:
            An embedding of the same positions in `dim` channels.

        Raises:
            MaedError: `dim` is below 1, or too large for the reduction, or the folder has other positions.
        """
        return self._like(*refitted(self, dim, None if similarity is None else Path(similarity)))

    def resampled(self, target: str | Geometry, geometry: str | Geometry | None = None) -> PositionEmbedding:
        """Interpolate the vectors to another number of positions on the same line or grid.

        It uses the geometry, and says so: its `label` is `maed-resampled`.

        Args:
            target: `grid:HEIGHTxWIDTH` or `line:LENGTH`; its positions come in row-major order.
            geometry: The geometry of the positions, in the order of the source (such as `line:N`); default: the stored
                one. A warning says if its neighbors are far apart in the vectors, because its sides may be wrong.

        Returns:
            An embedding of the new positions.

        Raises:
            MaedError: No geometry is known, it is neither a line nor a grid, or `target` is of another kind.
        """
        wanted = parse_geometry(target) if isinstance(target, str) else target
        given = parse_geometry(geometry) if isinstance(geometry, str) else geometry
        there = self.true_geometry(given)
        if given is not None:
            doubt_sides(self.vectors, there)
        vectors, provenance = resample(self.vectors, there, wanted), resampled_from(self.provenance, there)
        return PositionEmbedding(vectors, source=self.source, geometry=wanted, provenance=provenance)

    def table(self, dim: int | None = None, rms: float = 1.0) -> Tensor:
        """Scale the vectors for use as a model's own table.

        New models of transformers have content embeddings with a standard deviation of 0.02, which vectors of unit mean
        square would dominate.

        Args:
            dim: Channels; default: d. They are projected as by `with_dim`.
            rms: Root mean square over all entries.

        Returns:
            `(N, dim)` float32.
        """
        return scaled(self.vectors, dim, rms)

    def _like(self, vectors: Tensor, provenance: dict[str, Any]) -> PositionEmbedding:
        return PositionEmbedding(
            vectors, source=self.source, geometry=self.geometry, provenance=provenance, names=self.names
        )

    # Keeping and sharing it.

    def save_pretrained(  # type: ignore[override]
        self,
        folder: str | Path,
        metrics: Mapping[str, Any] | None = None,
        figure: Figure | str | Path | None = None,
        *,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        config: Any = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write `config.json`, `model.safetensors` {vectors, coordinates?} and a model card `README.md`.

        Args:
            folder: The folder; created if it does not exist.
            metrics: Measurements by name, shown in the card and kept in the provenance; default: those it already has.
            figure: A matplotlib Figure or a PNG file for the card.
            repo_id: Name on the hub, with `push_to_hub`; default: the name of the folder.
            push_to_hub: Upload it too.
            model_card_kwargs: `metrics` and `figure`, as passed by the hub's mixin.
            config: Ignored; passed by the hub's mixin.
            push_to_hub_kwargs: Passed to `push_to_hub`.

        Returns:
            The address of the commit with `push_to_hub`, otherwise None.
        """
        handed = model_card_kwargs or {}
        metrics, figure = metrics or handed.get("metrics"), figure or handed.get("figure")
        folder = Path(folder)
        if metrics is not None:
            self.provenance["metrics"] = dict(metrics)
        if figure is not None:
            write_figure(figure, folder / FIGURE)
        card = self.generate_model_card(figure=(folder / FIGURE).is_file(), where=repo_id or handed.get("where"))
        write_embedding(self, folder, f"{card.content.rstrip()}\n")
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, metrics=metrics, figure=figure, **push_to_hub_kwargs)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        metrics: Mapping[str, Any] | None = None,
        figure: Figure | str | Path | None = None,
        **kwargs: Any,
    ) -> str:
        """Upload the files of `save_pretrained` to the hub.

        Args:
            repo_id: `OWNER/NAME`; created if it does not exist.
            metrics: See `save_pretrained`.
            figure: See `save_pretrained`.
            kwargs: `private`, `token`, `branch` and so on, of `huggingface_hub`.

        Returns:
            The address of the commit.
        """
        kwargs.setdefault("commit_message", "Position embedding")
        kwargs["model_card_kwargs"] = {"metrics": metrics, "figure": figure, "where": repo_id}
        return super().push_to_hub(repo_id, **kwargs)

    def generate_model_card(self, *, figure: bool = False, where: str | None = None) -> ModelCard:
        """The card that `save_pretrained` writes."""
        metrics = dict(self.provenance.get("metrics") or {})
        if self.provenance.get("split_half") is not None:
            metrics.setdefault("split_half", self.provenance["split_half"])
        return model_card(self, metrics, figure=figure, where=where or "path/to/this/folder")

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls, name: str | Path, *, trainable: bool = False, revision: str | None = None, **download: Any
    ) -> Self:
        """Read an embedding that `save_pretrained` wrote; files that do not match exactly are refused.

        Args:
            name: A folder, or `OWNER/NAME` of the hub.
            trainable: Make the vectors a trainable parameter.
            revision: Branch, tag or commit on the hub.
            download: `token`, `cache_dir`, `force_download`, `local_files_only`, for `huggingface_hub`.

        Returns:
            The embedding, with its geometry, names and provenance.

        Raises:
            MaedError: Nothing is found, the schema is another one, or tensors differ from those that config.json lists.
        """
        return cls(**read_embedding(name, revision=revision, **download), trainable=trainable)

    @classmethod
    def from_legacy(cls, path: str | Path) -> Self:
        """Read a file of the original, such as `pos_embeddings_IMDB_tSNE_2048x64.pth`; nothing in it is run.

        Its vectors are centered and scaled to unit mean square, as all embeddings are; distances keep their ratios.

        Raises:
            MaedError: a file that holds anything but one numpy array of finite floats `(N, d)`.
        """
        vectors = standardize(torch.from_numpy(read_legacy(path)))
        return cls(vectors, source=Path(path).name, provenance={"label": "seed"})


def open_embedding(path: str | Path, **options: Any) -> PositionEmbedding:
    """An embedding from what a user names: a folder, a name on the hub, or a `.pth` file of the original."""
    if Path(path).suffix in (".pth", ".pt"):
        return PositionEmbedding.from_legacy(path)
    return PositionEmbedding.from_pretrained(path, **options)
