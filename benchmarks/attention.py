"""Learned positions as vectors that are added, as a bias of attention, and as rotary features, in one small model.

    python benchmarks/attention.py run [--sets usps,phoneme] [--seeds 3]  # what is not recorded; resumes
    python benchmarks/attention.py docs  # the tables of docs/integrations/attention.md

The model is a transformer encoder: 2 layers of 64 channels and 4 heads, the mean over positions, a linear head.
Signals, splits and positions are those of `benchmarks/worth.py` (`runs/worth/SET`, learned there if they are not yet):
the embedding that `maed.learn` would return. `none` is told nothing, `trainable` is a table of its own, `added` is
`maed.AddPositions`, `bias` `maed.AttentionBias`, `rotary` rotates queries and keys by the embedding's
`coordinates_like()` (axial, as in vision transformers), `added + bias` has both. Each takes the better of two learning
rates by validation accuracy, of a training with another seed.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import worth
from maed import AddPositions, AttentionBias, PositionEmbedding
from maed.data import SignalData
from maed.errors import one_of
from maed.evaluation.comparison import paired, summarize
from maed.experiments.run import run_all
from maed.files import read_json, write_json, write_text
from maed.machine import commit, describe_machine
from maed.models.batches import ShuffledBatches
from maed.records import Results, Score
from maed.report.tables import markdown_table
from maed.tasks import metric_of
from pages import command, filled

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "attention" / "attention.json"
PAGE = ROOT / "docs" / "integrations" / "attention.md"
ENCODINGS = ("none", "trainable", "added", "bias", "rotary", "added + bias")
PAIRS = (
    ("bias", "added"),
    ("rotary", "added"),
    ("added + bias", "added"),
    ("bias", "trainable"),
    ("added", "trainable"),
)
SETS = ("usps", "phoneme")
RATES = (1e-3, 3e-3)
STEPS, BATCH, WARMUP, DECAY = 400, 16, 40, 0.01
WIDTH, HEADS, LAYERS = 64, 4, 2
TUNING_SEED = 1_000


class Rotary(nn.Module):
    """Turns queries and keys by angles that are linear in coordinates (Su et al. 2021; axial as in Heo et al. 2024).

    Args:
        coordinates: `(N, D)` within [-1, 1].
        width: channels of a head; each axis has its share of the pairs of channels.
    """

    angles: Tensor

    def __init__(self, coordinates: Tensor, width: int) -> None:
        super().__init__()
        pairs, dims = width // 2, coordinates.shape[1]
        nearest = torch.cdist(coordinates, coordinates).topk(2, largest=False).values[:, 1].mean()
        shares = [pairs // dims + (axis < pairs % dims) for axis in range(dims)]
        # from half a turn over the whole extent to half a turn between neighbors
        turns = [torch.logspace(0, math.log10(2 / float(nearest)), share) * math.pi / 2 for share in shares]
        angles = [coordinates[:, axis, None] * turns[axis] for axis in range(dims)]
        self.register_buffer("angles", torch.cat(angles, dim=1))  # (N, pairs)

    def forward(self, x: Tensor) -> Tensor:
        """`(B, H, N, width)` turned."""
        a, b = x.chunk(2, dim=-1)
        cos, sin = self.angles.cos(), self.angles.sin()
        return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Layer(nn.Module):
    """Attention and an MLP, each after its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2))
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x: Tensor, bias: Tensor | None, rotary: Rotary | None) -> Tensor:
        """`(B, N, WIDTH)` to as many."""
        q, k, v = self.qkv(self.norms[0](x)).unflatten(-1, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        if rotary is not None:
            q, k = rotary(q), rotary(k)
        x = x + self.out(F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norms[1](x))


class Encoder(nn.Module):
    """The model, told where inputs sit in one of the ways of `ENCODINGS`."""

    def __init__(self, encoding: str, positions: PositionEmbedding, channels: int, classes: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(channels, WIDTH), nn.LayerNorm(WIDTH))
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, classes))
        self.added: nn.Module | None = None
        if encoding in ("added", "added + bias"):
            self.added = AddPositions(positions, WIDTH)
        elif encoding == "trainable":
            self.added = AddPositions(PositionEmbedding(torch.randn(positions.n, WIDTH), trainable=True), WIDTH)
        self.bias = AttentionBias(positions, HEADS) if encoding.endswith("bias") else None
        self.rotary = Rotary(positions.coordinates_like(), WIDTH // HEADS) if encoding == "rotary" else None

    def forward(self, values: Tensor) -> Tensor:
        """`(B, N, C)` to `(B, classes)`."""
        x = self.embed(values)
        x = x if self.added is None else self.added(x)
        bias = None if self.bias is None else self.bias()
        for layer in self.layers:
            x = layer(x, bias, self.rotary)
        return self.head(x.mean(dim=1))


@torch.no_grad()
def accuracy(model: nn.Module, signals: Any) -> float:
    """Share of signals whose class is told."""
    right = 0
    for rows in np.array_split(np.arange(len(signals)), math.ceil(len(signals) / 128)):
        right += int((model(signals.take(rows)).argmax(1) == signals.targets(rows)).sum())
    return right / len(signals)


def trained(encoding: str, positions: PositionEmbedding, data: SignalData, rate: float, seed: int) -> nn.Module:
    """A model after its steps: AdamW, warmed up, then down to 0 along a cosine."""
    torch.manual_seed(seed)
    model = Encoder(encoding, positions, data.channels, len(data.classes))
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=STEPS, pct_start=WARMUP / STEPS)
    batches = ShuffledBatches(data.train, BATCH, seed)
    for step in range(STEPS):
        batch = batches[step]
        loss = F.cross_entropy(model(batch.values), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def run(given: argparse.Namespace) -> None:
    """Every cell that is not recorded yet."""
    stored: dict[str, Any] = {"schema": 1, "command": "python benchmarks/attention.py run", "sets": {}}
    stored = read_json(RESULTS) if RESULTS.is_file() else stored
    for name in given.sets.split(","):
        one_of("set", name, SETS)
        here = worth.context(name)
        if not here.folder.results.is_file():
            run_all(here, (), 0, command=f"{stored['command']} --sets {name}")
        chosen = Results.read(here.folder.results).chosen or "maed"
        positions, data = PositionEmbedding.from_pretrained(here.folder.embedding(chosen).path), here.data
        dims = positions.coordinates_like().shape[1]
        facts = {
            "positions": positions.n,
            "chosen": chosen,
            "coordinates": dims,
            "signals": len(data.train),
            "steps": STEPS,
        }
        record = stored["sets"].setdefault(name, facts | {"rates": {}, "scores": []})
        for encoding in ENCODINGS:
            tried = record["rates"].setdefault(encoding, {})
            for rate in RATES:
                if str(rate) not in tried:
                    tried[str(rate)] = accuracy(trained(encoding, positions, data, rate, TUNING_SEED), data.validation)
                    write_json(RESULTS, stored)
            rate = float(max(tried, key=tried.__getitem__))
            done = {row["seed"] for row in record["scores"] if row["positions"] == encoding}
            for seed in set(range(given.seeds)) - done:
                started = time.monotonic()
                value = accuracy(trained(encoding, positions, data, rate, seed), data.test)
                score = {"positions": encoding, "seed": seed, "value": value, "learning_rate": rate}
                of = {"seconds": time.monotonic() - started, "commit": commit(), "machine": describe_machine()}
                record["scores"].append(score | of)
                write_json(RESULTS, stored)
                print(f"{name}: {encoding}, seed {seed}, rate {rate}: {value:.4f} in {of['seconds']:.0f} s", flush=True)


def render(text: str) -> str:
    """The page with its tables made anew from the records."""
    means, differences, machines = (
        [["Set", "N", "Embedding", *ENCODINGS]],
        [["Set", *(f"{a} − {b}" for a, b in PAIRS)]],
        set(),
    )
    for name, record in read_json(RESULTS)["sets"].items():
        scores = [Score(row["positions"], row["seed"], row["value"]) for row in record["scores"]]
        of = {row.positions: row for row in summarize(scores)}
        shown = [f"{100 * of[each].mean:.1f} ± {100 * (of[each].mean - (of[each].low or 0)):.1f}" for each in ENCODINGS]
        means.append([name, str(record["positions"]), record["chosen"], *shown])
        differences.append(
            [name, *(worth.signed(paired(scores, a, b), metric_of("classification", "accuracy")) for a, b in PAIRS)]
        )
        machines |= {f"{row['machine']['processor']}, commit {row['commit'][:7]}" for row in record["scores"]}
    table = "\n\n".join([markdown_table(means), markdown_table(differences), f"{'; '.join(sorted(machines))}."])
    return filled(text, {"attention": table})


def docs(given: argparse.Namespace) -> None:
    """The tables of docs/integrations/attention.md."""
    write_text(PAGE, render(PAGE.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(command("attention", __doc__, {"run": run, "docs": docs}, "sets", SETS))
