"""The device that work runs on, its precision, and the threads of a CPU."""

from __future__ import annotations

from typing import Literal

import torch

from maed.errors import MaedError
from maed.machine import keep_freed_memory
from maed.settings import TrainerSettings

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def device(settings: TrainerSettings) -> torch.device:
    """The device of all work but trainings: a CUDA GPU or the CPU."""
    use_threads(settings.threads)
    if settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("cpu")


def training_device(settings: TrainerSettings) -> torch.device:
    """The device of a training on one: as `device`, or the GPU of a Mac.

    Raises:
        MaedError: The machine has no such device.
    """
    found = device(settings)
    if found.type == "cpu" and settings.accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return torch.device("mps")
    if found.type == "cpu" and settings.accelerator not in ("auto", "cpu"):
        raise MaedError(f"trainer.accelerator must be available on this machine, got {settings.accelerator!r}")
    return found


def precision(settings: TrainerSettings) -> Precision:
    """The precision that `auto` stands for: bf16 where the machine gains from it, otherwise float32.

    That is on a GPU that has it, and on a CPU with bf16 products (at 1,024 positions a Perceiver's step took 0.4 of the
    time there, the autoencoder's 0.7).
    """
    if settings.precision != "auto":
        return settings.precision
    if settings.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "32-true"
    multiplies_bf16 = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()
    return "bf16-mixed" if multiplies_bf16 else "32-true"


def use_threads(threads: int | None) -> None:
    """Let PyTorch use so many CPU threads; None leaves the number as it is.

    What every computation begins with: the memory of arrays that it frees is kept for the next ones, too.
    """
    keep_freed_memory()
    if threads is not None:
        torch.set_num_threads(threads)
