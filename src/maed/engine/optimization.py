"""AdamW and its learning-rate schedule."""

from __future__ import annotations

import math
from typing import Any

from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR

from maed.settings import Schedule


def adamw(
    groups: list[dict[str, Any]],
    *,
    learning_rate: float,
    warmup: int,
    steps: int,
    schedule: Schedule,
) -> tuple[AdamW, LambdaLR]:
    """Make AdamW and its schedule: linear warm-up, then decay to a hundredth, or none.

    Args:
        groups: Parameter groups, each with its `weight_decay`.
        learning_rate: Peak learning rate.
        warmup: Steps until the peak.
        steps: Steps in all.
        schedule: Shape of the decay.

    Returns:
        The optimizer, and a schedule to advance after each of its steps.
    """

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        if schedule == "constant":
            return 1.0
        share = min(1.0, (step - warmup) / max(1, steps - warmup))
        decay = 0.5 * (1 + math.cos(math.pi * share)) if schedule == "cosine" else 1 - share
        return 0.01 + 0.99 * decay

    optimizer = AdamW(groups, lr=learning_rate, fused=True)
    # A fused AdamW would unscale 16-bit gradients itself, and Lightning refuses to clip what is still scaled, with
    # bf16-mixed too; so unscaling is left to anyone who clips.
    optimizer._step_supports_amp_scaling = False
    return optimizer, LambdaLR(optimizer, factor)
