"""Streaming against a case in which every number is known: Gaussian signals, and the best autoencoder there is."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from maed.data.signals import Signals
from maed.settings import SimilaritySettings
from maed.similarity import estimate, merged, stream

N, SHOWN = 6, 2
MIXING = np.random.default_rng(5).normal(size=(N, N)) / np.sqrt(N)
COVARIANCE = MIXING @ MIXING.T + 0.1 * np.eye(N)


class Conditional:
    """Predicts each position by its mean given the visible ones, which is linear in them (Anderson 2003, 2.5.1)."""

    def predict(self, values: Tensor, visible: Tensor, scored: Tensor, mask: Tensor | None = None) -> Tensor:
        covariance = torch.from_numpy(COVARIANCE).float()
        among = covariance[visible[:, :, None], visible[:, None, :]]  # (B, V, V)
        across = covariance[visible][..., scored]  # (B, V, S)
        return torch.linalg.solve(among, across).transpose(1, 2) @ values


def conditional_variance(j: int, shown: tuple[int, ...]) -> float:
    """Var(x_j | x_V): the mean squared error of the best prediction."""
    index = list(shown)
    return float(
        COVARIANCE[j, j]
        - COVARIANCE[j, index] @ np.linalg.solve(COVARIANCE[np.ix_(index, index)], COVARIANCE[index, j])
    )


def contrast() -> np.ndarray:
    """The definition over all sets of visible positions, all as likely; a squared error is Var(x_j | x_V) chi^2_1."""
    truth = np.zeros((N, N))
    for j in range(N):
        variances = {shown: conditional_variance(j, shown) for shown in combinations(range(N), SHOWN) if j not in shown}
        squares = 3 * np.mean([value**2 for value in variances.values()])
        deviation = np.sqrt(squares - np.mean(list(variances.values())) ** 2)
        for i in set(range(N)) - {j}:
            seen = np.mean([value for shown, value in variances.items() if i in shown])
            hidden = np.mean([value for shown, value in variances.items() if i not in shown])
            truth[i, j] = (hidden - seen) / deviation
    return truth


def ablation() -> np.ndarray:
    """The mean rise of Var(x_j | x_V) when i is taken out of V."""
    truth = np.zeros((N, N))
    for i, j in np.argwhere(~np.eye(N, dtype=bool)):
        sets = [shown for shown in combinations(range(N), SHOWN) if i in shown and j not in shown]
        without = [tuple(k for k in shown if k != i) for shown in sets]
        pairs = zip(sets, without, strict=True)
        truth[i, j] = np.mean([conditional_variance(j, less) - conditional_variance(j, shown) for shown, less in pairs])
    return truth


@pytest.mark.parametrize(("estimator", "truth"), [("contrast", contrast), ("ablation", ablation)])
def test_estimates_are_unbiased_and_their_errors_hold(estimator, truth):
    generator = np.random.default_rng(0)
    values = generator.multivariate_normal(np.zeros(N), COVARIANCE, 300_000).astype(np.float32)[..., None]
    signals = Signals(values, mean=np.zeros((1, 1), np.float32), scale=np.ones((1, 1), np.float32))
    settings = SimilaritySettings(
        estimator=estimator, draws=60_000, batch_size=1_000, repeats=1, transform="none", seed=1
    )
    streamed = stream(
        Conditional(),
        signals,
        settings,
        visible=SHOWN,
        loss="mse",
        outputs=1,
        device=torch.device("cpu"),
    )

    found = estimate(merged(streamed.halves), estimator)

    pairs = ~np.eye(N, dtype=bool)
    known, error = truth()[pairs], found.standard_error.double().numpy()[pairs]
    z = (found.values.double().numpy()[pairs] - known) / error
    assert np.abs(z).max() < 4.5
    assert 0.7 < np.sqrt(np.mean(z**2)) < 1.4
    assert np.abs(known / error).max() > 10  # a bias of half of what is there would be seen
