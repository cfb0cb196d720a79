"""Speed of the set autoencoder's training step, and the time it takes to find the geometry of permuted CIFAR-10.

    python benchmarks/autoencoder.py step [--positions 50176] [--float32] [--given-back]
    python benchmarks/autoencoder.py stream [--positions 2048] [--float32] [--estimator ablation --repeats 5]
    python benchmarks/autoencoder.py recall --data ../shared/data/cifar10 [--seed 1] [--float32]

`step` prints samples/s at 1,024 positions x 3 channels (width 64, 16 visible, 256 scored, batch 128) and the share of
the machine's matrix limit; memory that a step frees is kept for the next one, as trainings keep it, unless it is to be
given back. `stream` prints draws/s (24 visible, all scored, batch 256) of a contrast, or of an ablation, a draw of
which takes 25 passes. `recall` trains once, with the default settings, and prints after which wall-clock time the
entries of a contrast similarity, made from the weights so far, reach recall@8 0.80 and 0.95.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import time
from typing import Any, Literal

import numpy as np
import torch

from maed.autoencoder.masking import visible_count
from maed.autoencoder.training import Autoencoder, AutoencoderTask, DrawStream, build_autoencoder
from maed.data import Signals, load
from maed.engine.device import precision
from maed.evaluation.geometry import similarity_metrics
from maed.machine import commit, describe_machine, keep_freed_memory
from maed.settings import AutoencoderSettings, DataSettings, EvaluationSettings, SimilaritySettings, TrainerSettings
from maed.similarity import estimate, merged, stream


def flops(n_visible: int, scored: int, batch: int, width: int, layers: int, channels: int) -> float:
    """Multiply-adds of the matrix products of a step, times two, times three for forward and backward."""
    token = layers * (4 * width**2 + 4 * width**2 + 2 * n_visible * width) + channels * width + 2 * width**2
    query = width**2 + 4 * width**2 + 2 * n_visible * width + channels * width
    once = 2 * width**2  # the queries, shared by the batch
    return 3 * 2 * (batch * (n_visible * token + scored * query) + scored * once)


def matrix_limit(device: str = "cpu", dtype: torch.dtype = torch.float32, size: int = 2048, repeats: int = 8) -> float:
    """FLOP/s of a large matrix product here."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def gains() -> bool:
    """True if `trainer.precision` `auto` is bf16 on this machine."""
    return precision(TrainerSettings()) != "32-true"


def synchronize(device: str) -> None:
    """Wait for a GPU to finish what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def step(
    *,
    n: int = 1024,
    kind: Literal["set", "unet"] = "set",
    channels: int = 3,
    width: int = 64,
    visible: int = 16,
    scored: int = 256,
    batch: int = 128,
    repeats: int = 100,
    device: str = "cpu",
    bf16: bool | None = None,
    limit_size: int = 2048,
) -> dict[str, Any]:
    """Time whole training steps: the draw, forward, backward, clipping, AdamW; in the precision that trainings choose.

    The limit that the work is set beside is that of matrices of the same type.
    """
    bf16 = gains() if bf16 is None else bf16
    settings = AutoencoderSettings(
        kind=kind, width=width, depth=4, scored=scored, batch_size=batch, visible_fraction=visible / n
    )
    model = build_autoencoder(settings, n=n, channels=channels, vocabulary=0, loss="mse").to(device)
    task = AutoencoderTask(model, "mse", settings)
    optimizer, _ = task.optimizer()
    draws = DrawStream(noise(n, channels), visible=visible, scored=scored, batch_size=batch, length=10**6, seed=0)
    seconds = []
    warm = 5 if kind == "set" else 1  # a step of a U-Net takes seconds
    for i in range(repeats + warm):
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = task.mean_loss(draws[i].to(torch.device(device)))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    limit = matrix_limit(device, torch.bfloat16 if bf16 else torch.float32, limit_size)
    work = flops(visible, scored, batch, width, settings.layers, channels)
    return (
        rates(np.array(seconds[warm:]), batch)
        | {"gflop": work / 1e9, "limit_gflops": limit / 1e9}
        | {"share": work / float(np.median(seconds[warm:])) / limit}
    )


def streaming(
    *,
    n: int = 1024,
    channels: int = 3,
    width: int = 64,
    visible: int = 24,
    batch: int = 256,
    repeats: int = 100,
    device: str = "cpu",
    bf16: bool | None = None,
    limit_size: int = 2048,
    estimator: Literal["contrast", "ablation"] = "contrast",
) -> dict[str, Any]:
    """Draws a second that an untrained autoencoder of the default sizes streams into sums, all positions scored.

    The work is that of the forward passes and of the sums: three products of (N, B) with (B, N) for a contrast.
    """
    bf16 = gains() if bf16 is None else bf16
    settings = AutoencoderSettings(width=width)
    model = build_autoencoder(settings, n=n, channels=channels, vocabulary=0, loss="mse").to(device).eval()
    seconds, warm = [], 5 if estimator == "contrast" else 2
    for draws in (warm * batch, (warm + repeats) * batch):  # the difference leaves out what happens once
        start = time.perf_counter()
        stream(
            model,
            noise(n, channels),
            SimilaritySettings(draws=draws, batch_size=batch, estimator=estimator),
            visible=visible,
            loss="mse",
            outputs=channels,
            device=torch.device(device),
            half_precision=bf16,
        )
        synchronize(device)
        seconds.append(time.perf_counter() - start)
    taken = (seconds[1] - seconds[0]) / repeats
    passes = 1 if estimator == "contrast" else visible + 1
    forward = passes * flops(visible, n, batch, width, settings.layers, channels) / 3
    limit = matrix_limit(device, torch.bfloat16 if bf16 else torch.float32, limit_size)
    return {"samples_per_s": batch / taken, "gflop": forward / 1e9, "limit_gflops": limit / 1e9} | {
        "share": forward / taken / limit
    }


def noise(n: int, channels: int) -> Signals:
    """Signals that say nothing, of a size that takes no time to make."""
    values = np.random.default_rng(0).integers(0, 256, (4096, n, channels), dtype=np.uint8)
    mean, scale = (np.full((1, channels), value, np.float32) for value in (127.5, 74.0))
    return Signals(values, mean=mean, scale=scale)


def rates(seconds: np.ndarray, batch: int) -> dict[str, float]:
    """Samples a second: median and quartiles."""
    low, median, high = (batch / np.quantile(seconds, [0.75, 0.5, 0.25])).tolist()
    return {"samples_per_s": median, "samples_per_s_low": low, "samples_per_s_high": high}


def recall(source: str, draws: int, every: int, steps: int, seed: int, bf16: bool | None = None) -> None:
    """Train with the default settings; every so many steps stream draws and measure, clock stopped."""
    bf16 = gains() if bf16 is None else bf16
    torch.manual_seed(seed)
    data = load(source, DataSettings(permute=0))
    assert data.geometry is not None
    settings = AutoencoderSettings(steps=steps)
    visible = visible_count(data.positions, data.kind, None)
    model = build_autoencoder(settings, n=data.positions, channels=data.channels, vocabulary=0, loss="mse")
    task = AutoencoderTask(model, "mse", settings)
    optimizer, scheduler = task.optimizer()
    batches = DrawStream(
        data.train, visible=visible, scored=settings.scored, batch_size=settings.batch_size, length=steps, seed=seed
    )
    trained, left = 0.0, [0.80, 0.95]
    for i in itertools.count(1):
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = task.mean_loss(batches[i - 1])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        scheduler.step()
        trained += time.perf_counter() - start
        if i % every == 0 or i == steps:
            streamed, found = measure(model, data, visible, draws, bf16)
            print(
                f"step {i}: loss {loss.item():.3f}, trained {trained:.0f} s + {draws} draws {streamed:.0f} s: "
                f"recall@8 of the entries {found:.3f}",
                flush=True,
            )
            while left and found >= left[0]:
                print(f"reached {left.pop(0):.2f} after {trained + streamed:.0f} s", flush=True)
        if i == steps or not left:
            break
    for target in left:
        print(f"{target:.2f} was not reached in {steps} steps")


def measure(model: Autoencoder, data, visible: int, draws: int, bf16: bool) -> tuple[float, float]:
    """Seconds of streaming, and recall@8 of the contrast's entries."""
    start = time.perf_counter()
    streamed = stream(
        model.eval(),
        data.train,
        SimilaritySettings(draws=draws),
        visible=visible,
        loss="mse",
        outputs=data.channels,
        device=torch.device("cpu"),
        half_precision=bf16,
    )
    seconds = time.perf_counter() - start
    model.train()
    values = estimate(merged(streamed.halves), "contrast").values
    return seconds, similarity_metrics(values, data.geometry, EvaluationSettings())["entries_knn_recall"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["step", "stream", "recall"])
    parser.add_argument("--data", default="cifar10", help="a source, for `recall`")
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--positions", type=int, default=1_024, help="of `step` and `stream`")
    parser.add_argument("--estimator", choices=["contrast", "ablation"], default="contrast", help="of `stream`")
    parser.add_argument("--float32", action="store_true", help="not in the precision of a training")
    parser.add_argument("--given-back", action="store_true", help="of `step`: let each give back what it frees")
    parser.add_argument("--draws", type=int, default=49_152)
    parser.add_argument("--every", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--seed", type=int, default=0, help="of `recall`")
    given = parser.parse_args()
    print(f"commit {commit()}; {describe_machine()}")
    if not given.given_back:
        keep_freed_memory()
    bf16 = False if given.float32 else None
    if given.what == "step":
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        found = step(n=given.positions, repeats=given.repeats, bf16=bf16)
        faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // given.repeats
        low, high = found["samples_per_s_low"], found["samples_per_s_high"]
        print(f"samples/s: median {found['samples_per_s']:.0f} (quartiles {low:.0f} to {high:.0f})")
        print(f"matrix limit {found['limit_gflops']:.0f} GFLOP/s; the step does {found['gflop']:.1f} GFLOP")
        print(f"share of the limit: {found['share']:.3f}")
        print(f"a step: {1e3 * 128 / found['samples_per_s']:.0f} ms, {faults} page faults, of setting up too")
    elif given.what == "stream":
        found = streaming(n=given.positions, repeats=given.repeats, bf16=bf16, estimator=given.estimator)
        print(f"draws/s: {found['samples_per_s']:.0f}; share of the matrix limit {found['share']:.3f}")
    else:
        recall(given.data, given.draws, given.every, given.steps, given.seed, bf16)


if __name__ == "__main__":
    main()
