"""A Perceiver on CIFAR-10 with positions that are trained along: the baseline of run_perceiver_w_maed_encoder.ipynb.

It takes the place of the original's script of the same name, and trains into the folder of that notebook:

    python baseline_perceiver_cifar.py [--seed 0] [--positions trainable]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import maed
from maed.data import load
from maed.experiments import Comparison
from maed.stages import Context, RunFolder


def main() -> None:
    """Train one Perceiver, and say how well it does."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source", default="cifar10", help="read from $MAED_DATA/cifar10, else from the hub")
    parser.add_argument("--preset", default="cifar10-cpu", help="a preset of maed, or a YAML file of settings")
    parser.add_argument("--permute", type=int, default=0, help="seed of the order in which pixels are stored")
    parser.add_argument("--positions", default="trainable", help="another encoding, such as none or random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="../runs/notebooks/cifar10")
    given = parser.parse_args()

    settings = maed.presets.load(given.preset, {"data": {"permute": given.permute}})
    run = Context(RunFolder(Path(given.out)), settings, load(given.source, settings.data), say=print)
    metrics = Comparison(run).train(given.positions, given.seed)
    print(f"{given.positions}, seed {given.seed}: {100 * metrics['test_accuracy']:.1f} % test accuracy")


if __name__ == "__main__":
    main()
