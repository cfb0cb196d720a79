"""A training step of the fused Perceiver beside transformers' own, in turns: same weights, batch and optimizer.

    python benchmarks/perceiver.py step --size imdb-cpu --batch 64
    python benchmarks/perceiver.py step --size imdb-cpu --padded --dropout 0.1 --only "eager 32,fused 32"
    python benchmarks/perceiver.py memory --layers 2 --blocks 1
    python benchmarks/perceiver.py memory --latents 64 --latent-width 128 --layers 4 --blocks 1
    pip install "perceiver-pytorch==0.8.*"  # for the contestant of that name, which is left out where it is missing

`step` runs one step of every contestant, then the next round; it prints the median time of a step, and the median and
quartiles, over rounds, of how many times as long `eager 32` takes in the same round. Sizes: `imdb-cpu` (2,048 bytes, 64
latents x 128, 4 layers), `cifar10-cpu` (1,024 positions of 3 channels, the same latents), `original-imdb` (its
PerceiverConfig: 256 latents x 1,280, 4 layers), `vision` (50,176 positions, as `memory`). `--padded` draws
lengths like those of IMDB's reviews: 44 % is padding.
`memory` prints the peak memory of a training step at 50,176 positions (transformers' PerceiverForImageClassification-
Learned at 224 x 224, by default of the size of deepmind/vision-perceiver-learned), each contestant in a process of its
own.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    PerceiverConfig,
    PerceiverForImageClassificationLearned,
    PerceiverForSequenceClassification,
    PerceiverModel,
)
from transformers.models.perceiver.modeling_perceiver import PerceiverClassificationDecoder, PerceiverImagePreprocessor

from maed.files import write_json
from maed.machine import commit, describe_machine
from maed.models.fused import fuse

CPU_SIZE = {
    "num_latents": 64,
    "d_latents": 128,
    "d_model": 64,
    "num_self_attends_per_block": 4,
    "num_self_attention_heads": 4,
    "num_cross_attention_heads": 1,
}


@dataclass(frozen=True)
class Size:
    """Which of transformers' Perceivers is timed, and on what.

    Args:
        content: `bytes`, `pixels` (a grid of 3 channels) or `images`, which the hub's learned Perceiver reads.
        positions: N; a square number unless of `bytes`.
        config: of PerceiverConfig.
    """

    content: Literal["bytes", "pixels", "images"]
    positions: int
    config: dict[str, int] = field(default_factory=dict)

    @property
    def side(self) -> int:
        return math.isqrt(self.positions)


SIZES = {
    "imdb-cpu": Size("bytes", 2_048, CPU_SIZE),
    "cifar10-cpu": Size("pixels", 1_024, CPU_SIZE),
    "original-imdb": Size("bytes", 2_048, {"num_self_attends_per_block": 4, "d_model": 64}),
    "vision": Size(
        "images",
        224**2,
        {
            "num_latents": 512,
            "d_latents": 1_024,
            "d_model": 512,
            "num_blocks": 8,
            "num_self_attends_per_block": 6,
            "num_self_attention_heads": 8,
            "num_cross_attention_heads": 1,
        },
    ),
}

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Contestant:
    """One way to do the step.

    Args:
        base: `eager`, `fused`, `projected` (fused, but keys and values are made) or `perceiver-pytorch`.
        bf16: under autocast to bfloat16, otherwise float32.
        compiled: by `torch.compile`.
    """

    base: str
    bf16: bool = False
    compiled: bool = False

    @property
    def name(self) -> str:
        return f"{self.base} {'bf16' if self.bf16 else '32'}{' compiled' if self.compiled else ''}"


CONTESTANTS = {
    contestant.name: contestant
    for contestant in [
        Contestant("eager"),
        Contestant("eager", bf16=True),
        Contestant("eager", bf16=True, compiled=True),
        Contestant("projected"),
        Contestant("projected", bf16=True),
        Contestant("fused"),
        Contestant("fused", bf16=True),
        Contestant("fused", compiled=True),
        Contestant("fused", bf16=True, compiled=True),
        Contestant("perceiver-pytorch"),
        Contestant("perceiver-pytorch", bf16=True),
    ]
}


def model_of(size: Size, dropout: float) -> nn.Module:
    """transformers' classifier of a size, with random weights."""
    labels = 10 if size.content == "images" else 2
    config = PerceiverConfig(
        **size.config, image_size=size.side, attention_probs_dropout_prob=dropout, num_labels=labels
    )
    if size.content == "bytes":
        return PerceiverForSequenceClassification(config)
    if size.content == "images":
        return PerceiverForImageClassificationLearned(config)
    preprocessor = PerceiverImagePreprocessor(
        config,
        prep_type="conv1x1",
        spatial_downsample=1,
        out_channels=config.d_model,
        position_encoding_type="trainable",
        concat_or_add_pos="add",
        trainable_position_encoding_kwargs={"num_channels": config.d_model, "index_dims": size.positions},
    )
    decoder = PerceiverClassificationDecoder(
        config,
        num_channels=config.d_latents,
        trainable_position_encoding_kwargs={"num_channels": config.d_latents, "index_dims": 1},
        use_query_residual=True,
    )
    return PerceiverModel(config, decoder=decoder, input_preprocessor=preprocessor)


class Other(nn.Module):
    """perceiver-pytorch's PerceiverIO behind the same embedding of bytes or pixels and positions."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        from perceiver_pytorch import PerceiverIO

        config = PerceiverConfig(**size.config)
        width, latent = config.d_model, config.d_latents
        self.content: nn.Module = nn.Embedding(262, width) if size.content == "bytes" else nn.Linear(3, width)
        self.positions = nn.Parameter(torch.randn(size.positions, width))
        self.query = nn.Parameter(torch.randn(1, latent))
        heads, cross = config.num_self_attention_heads, config.num_cross_attention_heads
        self.perceiver = PerceiverIO(
            depth=config.num_self_attends_per_block, dim=width, queries_dim=latent, logits_dim=2,
            num_latents=config.num_latents, latent_dim=latent, cross_heads=cross, latent_heads=heads,
            cross_dim_head=width // cross, latent_dim_head=latent // heads, decoder_ff=True,
        )  # fmt: skip

    def forward(self, inputs: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        values = inputs.flatten(2).transpose(1, 2) if inputs.ndim == 4 else inputs
        data = self.content(values) + self.positions
        mask = None if attention_mask is None else attention_mask.bool()
        return self.perceiver(data, mask=mask, queries=self.query)[:, 0]


def batch_of(size: Size, batch: int, padded: bool, device: str) -> Batch:
    """Random signals and labels; lengths follow the reviews' where they are padded."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.randint(2, (batch,), generator=rng)
    if size.content != "bytes":
        found = {"inputs": torch.randn(batch, 3, size.side, size.side, generator=rng)}
    else:
        found = {"inputs": torch.randint(6, 262, (batch, size.positions), generator=rng)}
        if padded:
            lengths = (torch.randn(batch, generator=rng) * 0.65 + np.log(1_010)).exp().clamp(16, size.positions)
            real = torch.arange(size.positions) < lengths[:, None]
            found = {"inputs": found["inputs"].where(real, 0), "attention_mask": real.long()}
    return {name: value.to(device) for name, value in {**found, "labels": labels}.items()}


def step_of(contestant: Contestant, weights: nn.Module, size: Size, batch: Batch) -> tuple[Callable[[], None], int]:
    """A training step, forward, loss, backward and AdamW, and the number of parameters that it trains."""
    if contestant.base == "perceiver-pytorch":
        model: nn.Module = Other(size)
    else:
        model = copy.deepcopy(weights)
        model = model if contestant.base == "eager" else fuse(model)
    labels = batch["labels"]
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    device = labels.device.type
    model = model.to(device).train()
    if contestant.compiled:
        model.compile(dynamic=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=contestant.bf16):
            output = model(**inputs)
            logits = output if isinstance(output, Tensor) else output.logits
            loss = cross_entropy(logits.float(), labels)
        loss.backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    def projected() -> None:
        with patch("maed.models.fused.perceiver.pooling_pays", lambda **_: False):
            step()

    return projected if contestant.base == "projected" else step, sum(p.numel() for p in model.parameters())


def steps(
    size: Size,
    names: Sequence[str],
    *,
    batch: int,
    rounds: int,
    warmup: int = 2,
    padded: bool = False,
    dropout: float = 0.0,
    device: str = "cpu",
) -> list[dict[str, Any]]:
    """Time contestants in turns, the first of `names` being what the others are set beside.

    On a GPU each has run a few steps alone before, and its row has the peak of the memory that they took.
    """
    torch.manual_seed(0)
    signals = batch_of(size, batch, padded, device)
    if "attention_mask" in signals:
        print(f"padding: {1 - signals['attention_mask'].float().mean():.0%} of the positions")
    weights = model_of(size, dropout)
    rows: list[dict[str, Any]] = []
    ready = []
    for contestant in (CONTESTANTS[name] for name in names):
        before = torch.cuda.memory_allocated() if device == "cuda" else 0
        try:
            step, parameters = step_of(contestant, weights, size, signals)
        except ImportError:
            print(f"{contestant.name}: left out; pip install 'perceiver-pytorch==0.8.*'")
            continue
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(warmup):  # compilation, too
            step()
        peak = {"peak_gib": (torch.cuda.max_memory_allocated() - before) / 2**30} if device == "cuda" else {}
        rows.append({"name": contestant.name, "parameters": parameters, **peak})
        ready.append(step)
    seconds = np.empty((rounds, len(ready)))
    for taken in seconds:
        for i, step in enumerate(ready):
            start = time.perf_counter()
            step()
            taken[i] = time.perf_counter() - start
    base = f"{rows[0]['name']} takes"
    print(f"{'':24}{'parameters':>12}{'step':>10}{'samples/s':>11}{base:>18}  quartiles")
    for i, row in enumerate(rows):
        low, ratio, high = np.quantile(seconds[:, 0] / seconds[:, i], [0.25, 0.5, 0.75]).tolist()
        median = float(np.median(seconds[:, i]))
        row |= {"seconds": seconds[:, i].tolist(), "median": median, "samples_per_s": batch / median}
        row |= {"ratio": ratio, "ratio_low": low, "ratio_high": high}
        print(
            f"{row['name']:24}{row['parameters']:12,}{median * 1e3:7.1f} ms{batch / median:11.1f}{ratio:16.2f} x"
            f"  {low:.2f} to {high:.2f}"
        )
    return rows


def memory(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Peak memory of a step at 50,176 positions, of each contestant in a process of its own."""
    rows = []
    for base in ("eager", "fused"):
        command = [sys.executable, __file__, *sys.argv[1:], "--one", base]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
        rows.append({"name": base, **found})
        print(
            f"{base:8}{found['peak_gib']:8.2f} GiB, {found['before_gib']:.2f} of it before the step; "
            f"{found['seconds']:.1f} s a step",
            flush=True,
        )
    print(f"fused is {rows[1]['peak_gib'] / rows[0]['peak_gib']:.2f} of eager")
    return rows


def one_peak(given: argparse.Namespace) -> dict[str, float]:
    """Peak memory of this process in a training step, and what it had before."""
    torch.manual_seed(0)
    full = SIZES["vision"]
    config = {"num_latents": given.latents, "d_latents": given.latent_width}
    config |= {"num_blocks": given.blocks, "num_self_attends_per_block": given.layers}
    size = replace(full, config=full.config | config)
    batch = batch_of(size, given.batch, False, given.device)
    contestant = Contestant(given.one, bf16=given.bf16)
    step, _ = step_of(contestant, model_of(size, given.dropout), size, batch)
    before = _peak(given.device)
    start = time.perf_counter()
    step()
    return {"peak_gib": _peak(given.device), "before_gib": before, "seconds": time.perf_counter() - start}


def _peak(device: str) -> float:
    """The most memory held so far, in GiB: of the process, or of the GPU's tensors."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # in KiB on Linux


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["step", "memory"])
    parser.add_argument("--size", choices=list(SIZES), default="imdb-cpu", help="of `step`")
    parser.add_argument("--batch", type=int, help="default: 64 of `step`, 8 of `memory`")
    parser.add_argument("--padded", action="store_true", help="lengths like IMDB's, for sizes of bytes")
    parser.add_argument("--dropout", type=float, default=0.0, help="of the attention's probabilities")
    parser.add_argument("--only", help=f"contestants beside `eager 32`, of: {', '.join(CONTESTANTS)}")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--latents", type=int, default=512, help="of `memory`")
    parser.add_argument("--latent-width", type=int, default=1024, help="of `memory`")
    parser.add_argument("--layers", type=int, default=6, help="self-attention layers of a block, of `memory`")
    parser.add_argument("--blocks", type=int, default=8, help="times that they are gone through, of `memory`")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16, of `memory`")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--one", choices=["eager", "fused"], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.padded and SIZES[given.size].content != "bytes":
        parser.error("--padded: images have no padding; --size may be imdb-cpu or original-imdb")
    given.batch = given.batch or (64 if given.what == "step" else 8)
    names = list(CONTESTANTS) if given.only is None else ["eager 32", *given.only.split(",")]
    if unknown := [name for name in names if name not in CONTESTANTS]:
        parser.error(f"--only: {unknown[0]!r} is unknown; known are {', '.join(CONTESTANTS)}")
    if given.one is not None:
        print(json.dumps(one_peak(given)))
        return
    facts: dict[str, Any] = {"command": " ".join(["python", "benchmarks/perceiver.py", *sys.argv[1:]])}
    facts |= {"commit": commit(), "machine": describe_machine()}
    print(f"commit {facts['commit']}; {facts['machine']}")
    if given.what == "memory":
        rows = memory(given)
    else:
        rows = steps(
            SIZES[given.size],
            names,
            batch=given.batch,
            rounds=given.rounds,
            warmup=given.warmup,
            padded=given.padded,
            dropout=given.dropout,
            device=given.device,
        )
    if given.out is not None:
        write_json(given.out, {**facts, "what": given.what, "rows": rows})


if __name__ == "__main__":
    main()
