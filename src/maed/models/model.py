"""The classifier: transformers' Perceiver with an input preprocessor that takes any position encoding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PerceiverConfig, PerceiverModel
from transformers.models.perceiver.modeling_perceiver import PerceiverClassificationDecoder

from maed.data.signals import SignalContent, SignalData, SignalKind, Signals
from maed.data.source import first_line
from maed.errors import MaedError
from maed.files import read_json, replacing, write_json
from maed.models.fused import fuse
from maed.models.position_encoding import PositionEncoding
from maed.registry import ENCODINGS
from maed.settings import PerceiverSettings


@dataclass(frozen=True)
class ClassifierConfig:
    """Everything but the weights: what `config.json` holds, enough to build the classifier and to feed it.

    Args:
        kind: `real` channels or `tokens`.
        positions: N.
        classes: class names, in the order of the logits.
        encoding: the position encoding.
        dim: d, the channels of content and position embeddings.
        channels: C of real signals, otherwise 0.
        vocabulary: number of token ids, otherwise 0.
        perceiver: the model's settings.
        sides: height and width of images whose pixels, row by row, are the positions before `permutation`; otherwise
            empty.
        transformers: what transformers' config of a checkpoint says beyond `perceiver`.
        source: the data set it was trained on.
        mean, scale: the normalization of the training signals, `(1, C)` or `(N, C)`; None for tokens.
        permutation: the fixed order the positions were put in, or None.
        content: what the signals were made of, or None where that is not known.
        columns: columns of the table that the signals were read from, if it was one.
    """

    kind: SignalKind
    positions: int
    classes: tuple[str, ...]
    encoding: str
    dim: int
    channels: int = 0
    vocabulary: int = 0
    perceiver: PerceiverSettings = field(default_factory=PerceiverSettings)
    sides: tuple[int, ...] = ()
    transformers: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    permutation: np.ndarray | None = None
    content: SignalContent | None = None
    columns: tuple[str, ...] = ()

    @classmethod
    def of(cls, data: SignalData, encoding: str, dim: int, perceiver: PerceiverSettings) -> ClassifierConfig:
        """The configuration of a classifier for `data`."""
        return cls(
            kind=data.kind,
            positions=data.positions,
            classes=tuple(str(name) for name in data.classes),
            encoding=encoding,
            dim=dim,
            channels=data.channels,
            vocabulary=data.vocabulary,
            perceiver=perceiver,
            sides=_sides(data),
            source=data.source,
            mean=data.train.mean,
            scale=data.train.scale,
            permutation=data.permutation,
            content=data.content,
            columns=data.columns,
        )

    @classmethod
    def load(cls, path: Path) -> ClassifierConfig:
        """Read `config.json`."""
        stored = read_json(path)
        try:
            stored = {name: value for name, value in stored.items() if name not in ("schema", "architecture")}
            for name, dtype in (("mean", np.float32), ("scale", np.float32), ("permutation", np.int64)):
                if stored[name] is not None:
                    stored[name] = np.asarray(stored[name], dtype=dtype)
            stored["classes"] = tuple(stored["classes"])
            stored["sides"] = tuple(int(side) for side in stored.get("sides") or ())
            stored["columns"] = tuple(stored.get("columns") or ())
            stored["perceiver"] = PerceiverSettings(**stored["perceiver"])
            return cls(**stored)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise MaedError(f"{path}: not the config.json of a Perceiver of maed ({first_line(error)})") from None

    def save(self, path: Path) -> None:
        """Write `config.json`."""
        write_json(path, {"schema": 1, "architecture": "perceiver", **asdict(self)})

    @property
    def table_shape(self) -> tuple[int, int]:
        """Positions and channels of the position table: the signals', or those of the images as the model sees them."""
        size = self.perceiver.image_size
        return (self.positions if size is None else size**2), self.dim

    @property
    def trains_table(self) -> bool:
        """Whether the position table is trained."""
        trained: bool = ENCODINGS.get(self.encoding, "encoding").trains_table(self.perceiver.fine_tune)
        return trained

    def check_table(self, table: Tensor) -> None:
        """Refuse a position table of another shape."""
        if tuple(table.shape) != self.table_shape:
            raise MaedError(f"table: shape {tuple(table.shape)}; it may be {self.table_shape}")

    def prepare(self, values: np.ndarray) -> Tensor:
        """Signals as stored by their source, `(n, N, C)` or `(n, N)`: put in order and normalized for `forward`."""
        shape = (self.positions,) if self.kind == "tokens" else (self.positions, self.channels)
        if values.shape[1:] != shape:
            raise MaedError(f"input: signals of shape {values.shape[1:]}; this model takes {shape}")
        if self.permutation is not None:
            values = values[:, self.permutation]
        return Signals(values, mean=self.mean, scale=self.scale).take(np.arange(len(values)))


class Preprocessor(nn.Module):
    """Content embedding and positions, added or concatenated: what the Perceiver's latents attend to.

    Follows the protocol of transformers' preprocessors (`num_channels`, and `forward` returning three things).
    """

    def __init__(self, config: ClassifierConfig, table: Tensor) -> None:
        super().__init__()
        self.content: nn.Linear | nn.Embedding = (
            nn.Embedding(config.vocabulary, config.dim)
            if config.kind == "tokens"
            else nn.Linear(config.channels, config.dim)
        )
        self.positions = PositionEncoding(table, trained=config.trains_table)
        self.concatenate = config.perceiver.combine == "concatenate"

    @property
    def num_channels(self) -> int:
        """Channels of what `forward` returns."""
        return (2 if self.concatenate else 1) * int(self.positions.table.shape[1])

    def start(self) -> None:
        """Initialize content and positions to unit root mean square.

        Of a real signal that holds for channels of unit variance; `PerceiverClassifier.calibrate` measures.
        """
        with torch.no_grad():
            weight = self.content.weight.normal_()
            fan_in = weight.shape[1] if isinstance(self.content, nn.Linear) else 1
            weight /= weight.square().mean().sqrt() * fan_in**0.5
            if isinstance(self.content, nn.Linear):
                self.content.bias.zero_()
        self.positions.start(1.0)

    def forward(
        self, values: Tensor, pos: Tensor | None = None, network_input_is_1d: bool = True, **unused: Any
    ) -> tuple[Tensor, None, Tensor]:
        """Values `(B, N, C)` or `(B, N)` to inputs `(B, N, d)` (`(B, N, 2d)` concatenated), and the content alone."""
        # An embedding ignores autocast; its gradient is best summed in float32, so its output is cast, not its table.
        dtype = working_dtype(self.content.weight)
        content = self.content(values).to(dtype)  # (B, N, d)
        positions = self.positions().to(dtype)  # (N, d)
        if not self.concatenate:
            return content + positions, None, content
        return torch.cat([content, positions.expand_as(content)], dim=2), None, content


class PerceiverClassifier(nn.Module):
    """transformers' Perceiver as a classifier of signals.

    Weights depend on `seed` alone, so classifiers that differ in their position encoding start from equal weights.

    Args:
        config: sizes, encoding and settings.
        table: `(N, d)` position vectors from `maed.encodings.position_table`; kept bit for bit unless trained.
        seed: seed of the weights.
    """

    def __init__(self, config: ClassifierConfig, table: Tensor, *, seed: int = 0) -> None:
        super().__init__()
        config.check_table(table)
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.perceiver = fuse(_perceiver(config, table))
            # post_init() at the end of PerceiverModel's construction draws every Linear and Embedding below it anew,
            # ours too: what has a start of its own gets it only now.
            self.preprocessor.start()

    @property
    def preprocessor(self) -> Preprocessor:
        """Content and position embeddings."""
        return self.perceiver.input_preprocessor

    @property
    def position_table(self) -> Tensor:
        """The vectors in use, `(N, d)`."""
        return self.preprocessor.positions.table.detach()

    @torch.no_grad()
    def calibrate(self, values: Tensor, mask: Tensor | None = None) -> None:
        """Set the gain of the positions to the root mean square of the content of a batch of signals.

        Args:
            values: `(B, N, C)` float32 or `(B, N)` int64.
            mask: `(B, N)` bool, True where real.
        """
        content = self.preprocessor.content(values)
        if mask is not None:
            content = content[mask]
        rms = float(content.square().mean().sqrt())
        if rms > 0 and np.isfinite(rms):
            self.preprocessor.positions.scale_to(rms)

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Class logits.

        Args:
            values: `(B, N, C)` float32 or `(B, N)` int64.
            mask: `(B, N)` bool, True where a position is real; what is stored elsewhere is never read.

        Returns:
            `(B, classes)`.
        """
        inputs = self.preprocessor(blanked(values, mask))
        return latent_logits(self.perceiver, inputs, mask, working_dtype(self.preprocessor.content.weight))

    def save_pretrained(self, folder: Path) -> None:
        """Write `config.json` and `model.safetensors`."""
        self.config.save(folder / "config.json")
        with replacing(folder / "model.safetensors") as temporary:
            save_file({name: value.contiguous() for name, value in self.state_dict().items()}, temporary)

    @classmethod
    def from_pretrained(cls, folder: Path) -> PerceiverClassifier:
        """Read a folder of `save_pretrained`; the classifier is in evaluation mode."""
        path = folder / "config.json"
        config = ClassifierConfig.load(path)
        try:
            classifier = cls(config, torch.zeros(config.table_shape))
        except (TypeError, ValueError, RuntimeError) as error:
            raise MaedError(f"{path}: not the config.json of a Perceiver of maed ({first_line(error)})") from None
        load_weights(classifier, folder / "model.safetensors")
        return classifier.eval()


def load_weights(model: nn.Module, path: Path) -> None:
    """Fill a model with the tensors of a safetensors file, which are to be just its own.

    Raises:
        MaedError: the file cannot be read; or a tensor is missing, one too many or of another shape, which is named.
    """
    try:
        weights = load_file(path)
        wrong = misfit(model.state_dict(), weights)
        if wrong is None:
            model.load_state_dict(weights)
    except (OSError, SafetensorError, RuntimeError) as error:
        wrong = first_line(error)
    if wrong is not None:
        raise MaedError(f"{path}: not the weights of this Perceiver ({wrong})")


def misfit(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> str | None:
    """The first tensor in which `found` is not what is `wanted`, with both shapes; None where all fit."""
    for name, tensor in wanted.items():
        if name not in found:
            return f"{name}, of shape {tuple(tensor.shape)}, is not among them"
        if found[name].shape != tensor.shape:
            return f"{name} has the shape {tuple(found[name].shape)} there and {tuple(tensor.shape)} in the model"
    more = next((name for name in found if name not in wanted), None)
    return None if more is None else f"{more} is no tensor of the model"


def blanked(values: Tensor, mask: Tensor | None) -> Tensor:
    """Values with zeros where they are not real: NaN times 0 would be NaN."""
    if mask is None:
        return values
    return values.masked_fill(~mask.view(*mask.shape, *[1] * (values.ndim - 2)), 0)


def working_dtype(weight: Tensor) -> torch.dtype:
    """What autocast computes in on the device of `weight`; without autocast, the type of `weight`."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def latent_logits(
    perceiver: PerceiverModel, inputs: tuple[Tensor, Any, Tensor], mask: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """Class logits of preprocessed inputs.

    transformers builds the attention mask in `PerceiverModel.forward`, differently from version to version, and
    materializes one even where nothing is masked; so its parts are called here, with a mask of ours.

    Args:
        perceiver: transformers' model with a classification decoder.
        inputs: what its preprocessor returns: inputs `(B, N, width)`, sizes, and the content alone.
        mask: `(B, N)` bool, True where a position is real.
        dtype: of the products; a wider one in the mask would widen the scores, `(B, heads, latents, N)`.

    Returns:
        `(B, classes)`.
    """
    scores_mask = None
    if mask is not None:
        scores_mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
        scores_mask = scores_mask.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]
    latents = perceiver.embeddings(batch_size=inputs[0].shape[0])  # (B, latents, width)
    encoded = perceiver.encoder(latents, inputs=inputs[0], inputs_mask=scores_mask)[0]
    query = perceiver.decoder.decoder_query(*inputs)
    return perceiver.decoder(query, z=encoded).logits


def check_heads(settings: PerceiverSettings, channels: int) -> None:
    """Refuse heads of the cross-attention that divide neither latents nor inputs evenly."""
    for size, what in ((settings.latent_width, "perceiver.latent_width"), (channels, "input channels")):
        if size % settings.cross_heads:
            raise MaedError(f"perceiver.cross_heads: {settings.cross_heads}; it may divide the {what} ({size})")


def _sides(data: SignalData) -> tuple[int, ...]:
    """Height and width of images; where they are permuted, before that."""
    return tuple(data.geometry.shape) if data.geometry is not None and data.geometry.kind == "grid" else ()


def _perceiver(config: ClassifierConfig, table: Tensor) -> PerceiverModel:
    """transformers' model with our preprocessor and its classification decoder."""
    settings = config.perceiver
    preprocessor = Preprocessor(config, table)
    check_heads(settings, preprocessor.num_channels)
    built = PerceiverConfig(
        num_latents=settings.latents,
        d_latents=settings.latent_width,
        d_model=preprocessor.num_channels,
        num_blocks=settings.blocks,
        num_self_attends_per_block=settings.layers,
        num_self_attention_heads=settings.heads,
        num_cross_attention_heads=settings.cross_heads,
        attention_probs_dropout_prob=settings.dropout,
        # 1/sqrt(fan-in): transformers' 0.02 suits its 1,280 channels, and stalls the training of narrow latents.
        initializer_range=settings.latent_width**-0.5,
        num_labels=len(config.classes),
    )
    decoder = PerceiverClassificationDecoder(
        built,
        num_channels=settings.latent_width,
        trainable_position_encoding_kwargs={"num_channels": settings.latent_width, "index_dims": 1},
        use_query_residual=True,
    )
    return PerceiverModel(built, decoder=decoder, input_preprocessor=preprocessor)
