"""Training the masked autoencoder: what a step computes, its endless stream of draws, its folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from maed import ranks
from maed.autoencoder.examples import write_examples
from maed.autoencoder.losses import LossName, outputs_of, position_losses
from maed.autoencoder.masking import Draw, make_draw, visible_count
from maed.autoencoder.set import SetAutoencoder
from maed.autoencoder.unet import UNetAutoencoder
from maed.data.signals import SignalData, Signals
from maed.data.source import first_line
from maed.engine.checkpoints import is_lightning, read_checkpoint
from maed.engine.loop import Plan, Trained, fit
from maed.engine.optimization import adamw
from maed.errors import MaedError, one_of, require_extra
from maed.files import read_json, write_json
from maed.run_folder import BEST, CONFIG, LAST, METRICS, MODEL
from maed.settings import AutoencoderSettings, TrainerSettings
from maed.tensors import check_layers, digest_of, read_tensors, write_tensors

_VALIDATION_DRAWS = 2_048

Autoencoder = SetAutoencoder | UNetAutoencoder


class DrawStream:
    """Draw number t of a training: a function of the seed and of t alone, so that a resumed training goes on exactly.

    Args:
        signals: The split to draw from.
        visible: Positions shown.
        most: The largest number of visible positions, if draws show different numbers: from `visible` to this, evenly
            on a logarithmic scale.
        scored: Positions scored; None for all.
        batch_size: Signals in a draw.
        length: Number of draws.
        seed: Seed of the stream.
        shared: Whether the processes of the command (`maed.ranks`) share each draw, `batch_size` signals in all.
    """

    def __init__(
        self,
        signals: Signals,
        *,
        visible: int,
        most: int | None = None,
        scored: int | None,
        batch_size: int,
        length: int,
        seed: int,
        shared: bool = False,
    ) -> None:
        self.signals, self.visible, self.most, self.scored = signals, visible, most, scored
        self.batch_size, self.length, self.seed, self.shared = batch_size, length, seed, shared

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Draw]:
        """All of them in turn."""
        return (self[step] for step in range(self.length))

    def __getitem__(self, step: int) -> Draw:
        """Draw `step`, `0 <= step < length`."""
        generator = np.random.default_rng((self.seed, step))
        rows = generator.integers(0, len(self.signals), size=self.batch_size)
        visible = self.visible
        if self.most is not None:
            visible = round(visible * (self.most / visible) ** generator.random())
        whole = make_draw(self.signals, generator, rows=rows, visible=visible, scored=self.scored)
        return whole.share(ranks.rank(), ranks.world()) if self.shared else whole


class AutoencoderTask:
    """The training of a masked autoencoder: draws in, mean loss over hidden scored positions out.

    Args:
        model: The model to train.
        loss: The loss of a position.
        settings: Settings, of which those of the optimizer are read.
    """

    def __init__(self, model: Autoencoder, loss: LossName, settings: AutoencoderSettings) -> None:
        self.model, self.loss_name, self.settings = model, loss, settings

    def optimizer(self) -> tuple[AdamW, LambdaLR]:
        """AdamW. The position vectors are not decayed, for nothing is known of their scale, and learn faster.

        Random ones have farther to go than any weight, each moved only by the draws in which its position takes part.
        """
        s = self.settings
        rate = learning_rate(s)
        tables = [p for name, p in self.model.named_parameters() if name == "position_vectors"]
        rest = [p for name, p in self.model.named_parameters() if name != "position_vectors"]
        groups: list[dict[str, Any]] = [{"params": rest, "weight_decay": s.weight_decay}]
        if tables:
            groups.append({"params": tables, "weight_decay": 0.0, "lr": position_rate(s) * rate})
        return adamw(groups, learning_rate=rate, warmup=s.warmup, steps=s.steps, schedule=s.schedule)

    def mean_loss(self, draw: Draw) -> Tensor:
        """Mean of l_j over the draw's hidden scored positions."""
        reconstruction = self.model.predict(draw.values, draw.visible, draw.scored, draw.visible_mask)
        losses = position_losses(reconstruction, draw.targets, self.loss_name)
        return (losses * draw.hidden).sum() / draw.hidden.sum().clamp(min=1)

    def training_step(self, batch: Draw, step: int) -> Tensor:
        """The loss of one draw, weighted as the draw is.

        Raises:
            MaedError: The loss is not finite.
        """
        loss = self.mean_loss(batch)
        if not torch.isfinite(loss):
            raise MaedError(
                f"autoencoder.learning_rate: the loss is not finite at step {step}; try less than "
                f"{learning_rate(self.settings)}"
            )
        return loss * batch.weight

    def validation_step(self, batch: Draw) -> tuple[Tensor, int]:
        """The loss of one held-out draw, weighted as the draw is, and its number of signals."""
        return self.mean_loss(batch) * batch.weight, len(batch.hidden)


def learning_rate(settings: AutoencoderSettings) -> float:
    """The peak learning rate: as set, or what suits the kind."""
    if settings.learning_rate is not None:
        return settings.learning_rate
    return 6e-3 if settings.kind == "set" else 1e-3


def position_rate(settings: AutoencoderSettings) -> float:
    """Learning rate of the position vectors as a multiple of that of the weights: as set, or what suits the start."""
    if settings.position_rate is not None:
        return settings.position_rate
    return 20.0 if settings.init == "random" else 1.0


def build_autoencoder(
    settings: AutoencoderSettings, *, n: int, channels: int, vocabulary: int, loss: LossName
) -> Autoencoder:
    """A new autoencoder, its weights drawn from the settings' seed."""
    shape = {"channels": channels, "vocabulary": vocabulary}
    outputs = outputs_of(loss, **shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        if settings.kind == "unet":
            return UNetAutoencoder(n, **shape, width=settings.width, depth=settings.depth, outputs=outputs)
        return SetAutoencoder(
            n,
            **shape,
            width=settings.width,
            layers=settings.layers,
            heads=settings.heads,
            outputs=outputs,
            readout=settings.readout,
        )


def loss_name(settings: AutoencoderSettings, data: SignalData) -> LossName:
    """The loss that `auto` stands for; one that does not fit the data is refused."""
    fitting: tuple[LossName, ...] = ("cross-entropy",) if data.kind == "tokens" else ("mse", "gaussian")
    if settings.loss == "auto":
        return fitting[0]
    if settings.loss not in fitting:
        raise MaedError(
            f"autoencoder.loss must be {' or '.join(fitting)} for {data.kind} signals, got {settings.loss!r}"
        )
    return settings.loss


def pretrain(
    data: SignalData,
    settings: AutoencoderSettings,
    trainer_settings: TrainerSettings,
    folder: Path,
    *,
    start_vectors: Tensor | None = None,
    examples: bool = True,
    shared: bool = False,
) -> Autoencoder:
    """Train the autoencoder on unlabeled signals and write `folder`; continues an interrupted training.

    Args:
        data: The signals; `train` and `validation` are read.
        settings: The autoencoder's.
        trainer_settings: The machine.
        folder: `autoencoder/` of a run.
        start_vectors: `(N, d)` that the table of position vectors starts from, its remaining channels random: a warm
            start. None for a table of random numbers.
        examples: Write `examples.safetensors` too.
        shared: Whether all processes of the command (`maed.ranks`) train together; process 0 alone writes.

    Returns:
        The weights of the best validation, in evaluation mode, on the CPU.
    """
    visible = visible_count(data.positions, data.kind, settings.visible_fraction)
    loss = loss_name(settings, data)
    model = build_autoencoder(settings, n=data.positions, channels=data.channels, vocabulary=data.vocabulary, loss=loss)
    if start_vectors is not None:
        start_from(model, start_vectors)
    plan = Plan(
        title="autoencoder",
        fingerprint=fingerprint(settings),
        steps=settings.steps,
        validate_every=min(settings.validate_every, settings.steps),
        clip=settings.clip,
        patience=settings.patience,
    )
    train = draw_stream(data.train, visible, settings, steps=settings.steps, seed=settings.seed, shared=shared)
    # the same draws at every validation
    held_out = draw_stream(
        data.validation,
        visible,
        settings,
        steps=_batches(data.validation, settings),
        seed=settings.seed + 1_000_003,
        shared=shared,
    )
    loop = _loop(trainer_settings, several=shared or begun_by_several(folder, settings))
    task, together = AutoencoderTask(model, loss, settings), {"shared": True} if shared else {}
    trained = loop(task, train, held_out, plan, trainer_settings, folder, **together)
    if ranks.rank():
        return model
    model.load_state_dict(trained.weights)
    model.cpu().eval()
    metrics = {"history": trained.history, "seconds": trained.seconds, "visible": visible}
    metrics |= {"weights": digest_of(model.state_dict())}
    write_json(folder / METRICS, metrics, sealed=True)
    if examples:
        write_examples(folder, model, data, visible, loss)
    write_tensors(folder / MODEL, model.state_dict())  # last: it marks the stage as finished
    (folder / BEST).unlink(missing_ok=True)  # model.safetensors holds it
    return model


def fingerprint(settings: AutoencoderSettings) -> str:
    """What is trained, and how; a checkpoint of another training is not resumed."""
    return json.dumps(asdict(settings), sort_keys=True)


def begun_by_one(folder: Path, settings: AutoencoderSettings) -> bool:
    """True if `folder` holds a checkpoint of this training by the plain loop, which alone can go on from it."""
    last = read_checkpoint(folder / LAST)
    return last is not None and not is_lightning(last) and last.get("fingerprint") == fingerprint(settings)


def begun_by_several(folder: Path, settings: AutoencoderSettings) -> bool:
    """True if `folder` holds a checkpoint of this training by Lightning, which alone can go on from it."""
    last = read_checkpoint(folder / LAST)
    return last is not None and is_lightning(last) and last.get("fingerprint") == fingerprint(settings)


def _loop(settings: TrainerSettings, *, several: bool = False) -> Callable[..., Trained]:
    """The plain loop on one device; Lightning where several are asked for, or one that the plain loop does not know.

    Args:
        settings: The machine.
        several: Whether several processes train, or have begun to.
    """
    asked = settings.accelerator == "tpu" or (settings.devices.isdigit() and int(settings.devices) > 1)
    if not (asked or several):
        return fit
    require_extra("trainer.devices" if asked else "autoencoder", "perceiver", package="pytorch_lightning")
    from maed.engine.lightning import fit_task  # here, for Lightning wakes transformers and matplotlib

    return fit_task


def start_from(model: Autoencoder, vectors: Tensor) -> None:
    """Start the table of position vectors from an embedding, scaled to the table's unit mean square.

    Raises:
        MaedError: The model has no such table, or one of another number of positions.
    """
    if not isinstance(model, SetAutoencoder):
        raise MaedError("autoencoder.init must be random for a U-Net, which has no position vectors")
    table = model.position_vectors
    if len(vectors) != len(table):
        raise MaedError(f"autoencoder.init must have vectors for {len(table)} positions, got {len(vectors)}")
    d = min(vectors.shape[1], table.shape[1])
    with torch.no_grad():
        table[:, :d] = vectors[:, :d] / vectors[:, :d].square().mean().sqrt().clamp(min=1e-6)


def load_autoencoder(folder: Path) -> tuple[Autoencoder, dict[str, Any]]:
    """Read a trained autoencoder: in evaluation mode, with its config.json."""
    if not (folder / MODEL).is_file():
        raise MaedError(f"run: {folder} holds no trained autoencoder; train one with `maed pretrain`")
    config, path = read_json(folder / CONFIG), folder / MODEL
    weights = read_tensors(path)
    try:
        settings = AutoencoderSettings(**config["made_with"]["autoencoder"])
        check_layers(settings.layers, weights)
        shape = {name: config[name] for name in ("n", "channels", "vocabulary", "loss")}
        one_of("loss", shape["loss"], get_args(LossName))
        model = build_autoencoder(settings, **shape)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise MaedError(
            f"{folder / 'config.json'}: not the config.json of an autoencoder ({first_line(error)})"
        ) from None
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise MaedError(f"{path}: not the weights of this autoencoder ({first_line(error)})") from None
    return model.eval(), config


@torch.inference_mode()
def held_out_loss(model: Autoencoder, signals: Signals, settings: AutoencoderSettings, data: SignalData) -> float:
    """Mean loss over hidden positions of `signals`, each of which is drawn about once; the same at every call.

    Args:
        model: Trained on `data`, in evaluation mode.
        signals: Normalized as `data` are.
        settings: Settings of the autoencoder's training.
        data: The data of the training, of which only the sizes are read.
    """
    visible = visible_count(data.positions, data.kind, settings.visible_fraction)
    task = AutoencoderTask(model, loss_name(settings, data), settings)
    scored = replace(settings, scored=data.positions)
    draws = draw_stream(signals, visible, scored, steps=_batches(signals, settings), seed=settings.seed)
    return float(torch.stack([task.mean_loss(draw) for draw in draws]).mean())


def draw_stream(
    signals: Signals, visible: int, settings: AutoencoderSettings, *, steps: int, seed: int, shared: bool = False
) -> DrawStream:
    """The first `steps` draws of the stream with this seed, as the settings size them."""
    n, most = signals.values.shape[1], settings.most_visible
    return DrawStream(
        signals,
        visible=visible,
        most=None if most is None else max(visible, min(round(most * n), n - 1)),
        scored=settings.scored,
        batch_size=settings.batch_size,
        length=steps,
        seed=seed,
        shared=shared,
    )


def _batches(signals: Signals, settings: AutoencoderSettings) -> int:
    """Number of batches that draw each signal about once."""
    return max(1, min(len(signals), _VALIDATION_DRAWS) // settings.batch_size)
