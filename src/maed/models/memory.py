"""True if a training step fits the memory, asked before the training: by what one signal keeps for its gradients."""

from __future__ import annotations

import contextlib
import math

import torch
from torch import Tensor

from maed.errors import MaedError
from maed.machine import memory
from maed.models.batches import Batch
from maed.models.target import TargetModel

_TRANSIENT = 1.3
"""Peak memory of a training step, as a multiple of what its forward pass keeps (gradients of the backward pass)."""

_PER_PARAMETER = 16
"""Bytes: weight, gradient and the two moments of AdamW, float32."""


def kept_bytes(classifier: TargetModel, batch: Batch, *, half_precision: bool) -> int:
    """Bytes that a forward pass keeps for the backward pass, parameters left out; no gradient is computed."""
    own = {tensor.untyped_storage().data_ptr() for tensor in [*classifier.parameters(), *classifier.buffers()]}
    kept: dict[int, int] = {}

    task = classifier.config.learned()

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = batch.values.device.type
    low = torch.autocast(device, dtype=torch.bfloat16) if half_precision else contextlib.nullcontext()
    with low, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        seen = task.seen(*batch[:3])
        # alive, or storages are used again
        loss = task.loss(classifier.tell(seen), seen.target, training=False)
    del loss
    return sum(kept.values())


def check_memory(
    classifier: TargetModel,
    batch: Batch,
    *,
    batch_size: int,
    accumulate: int,
    half_precision: bool,
    available: int | None,
    setting: str = "train.",
) -> None:
    """Refuse a batch that the memory cannot hold, and say which would fit.

    Args:
        classifier: On the device of `batch`.
        batch: Two signals, as long as any: what the second adds is what every one takes.
        batch_size: Signals of a batch on one device.
        accumulate: Batches of a step.
        half_precision: True if products are computed in bfloat16.
        available: Bytes of the device's memory; None if unknown, and then nothing is refused.
        setting: Prefix of the setting that `batch_size` comes from.

    Raises:
        MaedError: a step of `batch_size` signals would take more than `available`.
    """
    if available is None:
        return
    first = Batch(batch.values[:1], None if batch.mask is None else batch.mask[:1], batch.labels[:1])
    one, two = (kept_bytes(classifier, part, half_precision=half_precision) for part in (first, batch))
    signal = _TRANSIENT * (two - one)
    fixed = _PER_PARAMETER * sum(p.numel() for p in classifier.parameters()) + _TRANSIENT * max(0, 2 * one - two)
    if fixed + batch_size * signal <= available:
        return
    fits = int((0.9 * available - fixed) / signal)
    wanted, there = (fixed + batch_size * signal) / 2**30, available / 2**30
    need = f"a step would take about {wanted:.1f} GiB of the {there:.1f} GiB there are"
    if fits < 1:
        raise MaedError(
            f"{setting}batch_size: {batch_size} signals; {need}, and not even one signal fits; lower "
            "perceiver.latents or perceiver.latent_width"
        )
    batches = math.ceil(batch_size * accumulate / fits)
    raise MaedError(
        f"{setting}batch_size: {batch_size} signals; {need}; {fits} fits (with train.accumulate {batches} "
        "for steps of the same size)"
    )


def device_memory(device: torch.device) -> int | None:
    """Bytes of memory that a device has; None if that is not known."""
    return torch.cuda.get_device_properties(device).total_memory if device.type == "cuda" else memory()
