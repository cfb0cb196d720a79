"""Add an estimator of your own: how the losses of the autoencoder become a similarity between positions.

    python examples/own_estimator.py [--budget "20000 draws"]

An estimator adds up the losses of draws and turns the sums into a similarity. `Gain` says how much lower the loss at a
position is in draws that show another one. It is compared with a built-in estimator on the 8 x 8 digits of
scikit-learn. An installed package registers it by an entry point instead, for the command line too.
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits

import maed
from maed.registry import ESTIMATORS
from maed.similarity import Accumulator, Estimator, mean_of


class Gain(Estimator):
    """S_ij = (mean loss at j over all draws) - (mean loss at j over the draws that show i)."""

    sums = Accumulator

    def add(self, sums, draw, losses, repeats):
        """Add the losses at hidden positions."""
        sums.add_draw(draw, losses(draw), draw.hidden)

    def estimate(self, sums):
        """The gain and its standard error, both (N, N)."""
        seen, error = mean_of(sums.visible_counts, sums.visible_sums, sums.visible_squares)
        known = sums.visible_counts > 0
        overall = seen.sum(dim=0) / known.sum(dim=0).clamp(min=1)  # (N,)
        return torch.where(known, overall - seen, 0.0), error.sqrt()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="60000 draws", help="draws of training and similarity together")
    given = parser.parse_args()
    ESTIMATORS.add("gain", Gain)

    pixels = load_digits().data.astype(np.float32)
    used = np.flatnonzero(pixels.std(axis=0) > 0.5)
    places = np.stack([used // 8, used % 8], axis=1)  # true places, for the comparison alone
    distance, found = np.linalg.norm(places[:, None] - places, axis=2), {}
    for estimator in ("gain", "contrast"):
        learner = maed.PositionLearner(8, method="maed", estimator=estimator, budget=given.budget, random_state=0)
        embedding = learner.set_params(force=True).fit(pixels[:, used]).embedding_
        found[estimator] = np.mean([distance[i, embedding.neighbors(i, k=4)].mean() for i in range(len(used))])
    print("distance of the 4 nearest, pixels: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))


if __name__ == "__main__":
    main()
