"""The classifier: transformers' Perceiver with an input preprocessor that takes any position encoding."""

from __future__ import annotations

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

from maed.config import PerceiverSettings
from maed.data.signals import SignalData, SignalKind, Signals
from maed.data.stored import first_line
from maed.errors import MaedError
from maed.files import read_json, replacing, write_json
from maed.perceiver.positions import TUNABLE, PositionEncoding


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
        source: the data set it was trained on.
        mean, scale: the normalisation of the training signals, `(1, C)` or `(N, C)`; None for tokens.
        permutation: the fixed order the positions were put in, or None.
    """

    kind: SignalKind
    positions: int
    classes: tuple[str, ...]
    encoding: str
    dim: int
    channels: int = 0
    vocabulary: int = 0
    perceiver: PerceiverSettings = field(default_factory=PerceiverSettings)
    source: str = ""
    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    permutation: np.ndarray | None = None

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
            source=data.source,
            mean=data.train.mean,
            scale=data.train.scale,
            permutation=data.permutation,
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
            stored["perceiver"] = PerceiverSettings(**stored["perceiver"])
            return cls(**stored)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise MaedError(f"{path}: not the config.json of a Perceiver of maed ({first_line(error)})") from None

    def save(self, path: Path) -> None:
        """Write `config.json`."""
        write_json(path, {"schema": 1, "architecture": "perceiver", **asdict(self)})

    def prepare(self, values: np.ndarray) -> Tensor:
        """Signals as stored by their source, `(n, N, C)` or `(n, N)`: put in order and normalised for `forward`."""
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
        tuned = config.perceiver.fine_tune and config.encoding in TUNABLE
        self.positions = PositionEncoding(table, trained=tuned or config.encoding == "trainable")
        self.concatenate = config.perceiver.combine == "concatenate"

    @property
    def num_channels(self) -> int:
        """Channels of what `forward` returns."""
        return (2 if self.concatenate else 1) * int(self.positions.table.shape[1])

    def start(self) -> None:
        """Initialise content and positions to unit root mean square.

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
        dtype = _working_dtype(self.content.weight)
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
        table: `(N, d)` position vectors from `maed.perceiver.position_table`; kept bit for bit unless trained.
        seed: seed of the weights.
    """

    def __init__(self, config: ClassifierConfig, table: Tensor, *, seed: int = 0) -> None:
        super().__init__()
        if tuple(table.shape) != (config.positions, config.dim):
            raise MaedError(f"table: shape {tuple(table.shape)}; it may be ({config.positions}, {config.dim})")
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.perceiver = _perceiver(config, table)
            # post_init() at the end of PerceiverModel's construction draws every Linear and Embedding below it anew,
            # ours too: what has a start of its own gets it only now.
            self.preprocessor.start()

    @property
    def preprocessor(self) -> Preprocessor:
        """Content and position embeddings."""
        return self.perceiver.input_preprocessor

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

        transformers builds the attention mask in `PerceiverModel.forward`, differently from version to version, and
        materialises one even where nothing is masked; so its parts are called here, with a mask of ours.

        Args:
            values: `(B, N, C)` float32 or `(B, N)` int64.
            mask: `(B, N)` bool, True where a position is real; what is stored elsewhere is never read.

        Returns:
            `(B, classes)`.
        """
        scores_mask = None
        if mask is not None:
            values = values.masked_fill(~mask.view(*mask.shape, *[1] * (values.ndim - 2)), 0)  # NaN times 0 is NaN
            dtype = _working_dtype(
                self.preprocessor.content.weight
            )  # a wider one would widen the scores, (B, heads, latents, N)
            scores_mask = torch.zeros(mask.shape, dtype=dtype, device=mask.device)
            scores_mask = scores_mask.masked_fill(~mask, torch.finfo(dtype).min)[:, None, None, :]
        inputs, sizes, content = self.preprocessor(values)
        latents = self.perceiver.embeddings(batch_size=len(values))  # (B, latents, width)
        encoded = self.perceiver.encoder(latents, inputs=inputs, inputs_mask=scores_mask)[0]
        query = self.perceiver.decoder.decoder_query(inputs, sizes, content)
        return self.perceiver.decoder(query, z=encoded).logits

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
            classifier = cls(config, torch.zeros(config.positions, config.dim))
        except (TypeError, ValueError, RuntimeError) as error:
            raise MaedError(f"{path}: not the config.json of a Perceiver of maed ({first_line(error)})") from None
        path = folder / "model.safetensors"
        try:
            classifier.load_state_dict(load_file(path))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise MaedError(f"{path}: not the weights of this Perceiver ({first_line(error)})") from None
        return classifier.eval()


def _working_dtype(weight: Tensor) -> torch.dtype:
    """What autocast computes in on the device of `weight`; without autocast, the type of `weight`."""
    device = weight.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype


def _perceiver(config: ClassifierConfig, table: Tensor) -> PerceiverModel:
    """transformers' model with our preprocessor and its classification decoder."""
    settings = config.perceiver
    preprocessor = Preprocessor(config, table)
    for size, what in (
        (settings.latent_width, "perceiver.latent_width"),
        (preprocessor.num_channels, "input channels"),
    ):
        if size % settings.cross_heads:
            raise MaedError(f"perceiver.cross_heads: {settings.cross_heads}; it may divide the {what} ({size})")
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
