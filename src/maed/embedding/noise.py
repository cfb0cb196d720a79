"""What of a similarity is above its noise. Everything here takes an entry of 0 to mean no dependence."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy.linalg import eigvalsh
from scipy.stats import norm
from torch import Tensor

from maed.errors import MaedError

_LEVEL = 0.05

LEAST_SIGNAL_TO_NOISE = 1.5
"""Below it, no dependence was found. Gaussian noise reaches it in a few of a hundred cases of 6 to 12 positions, and
never from 32 on; an autoencoder that had learned nothing of 2,048 bytes reached 1.3, as means of few draws have heavier
tails, and standard errors do not cover the training."""


def symmetrise(
    similarity: np.ndarray, error: np.ndarray | None, how: Literal["mean", "max", "min"]
) -> tuple[np.ndarray, np.ndarray | None]:
    """The two directions of each pair as one, with the standard error of that, both `(N, N)`; the diagonal is 0."""
    other = similarity.T
    if how == "mean":
        values = (similarity + other) / 2
        # A similarity that is symmetric already has measured each pair once, not twice.
        if error is not None and not np.array_equal(similarity, other):
            error = np.sqrt(error**2 + error.T**2) / 2
    else:
        mine = similarity >= other if how == "max" else similarity <= other
        values = np.where(mine, similarity, other)
        error = None if error is None else np.where(mine, error, error.T)
    np.fill_diagonal(values, 0.0)
    return values, error


def significant(similarity: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Keep entries above their standard error by what Bonferroni asks for at 5 % over the N of a row; others are 0.

    A position left with none keeps its best link, the one with the largest ratio to its standard error.

    Args:
        similarity: `(N, N)` symmetric.
        error: `(N, N)`, of its entries.

    Raises:
        MaedError: no entry is above 0, so that 0 cannot mean no dependence (`mean-loss`).
    """
    if similarity.max() <= 0 and similarity.min() < 0:
        raise MaedError(
            "embedding.denoise: no entry of the similarity is above 0; significance needs one whose 0 means none"
        )
    z = _ratio(similarity, error)
    kept = np.where(z > norm.isf(_LEVEL / len(z)), similarity, 0.0)
    np.fill_diagonal(z, -np.inf)
    lonely = np.flatnonzero(~(kept != 0).any(axis=1))
    best = z[lonely].argmax(axis=1)
    kept[lonely, best] = kept[best, lonely] = similarity[lonely, best]
    return kept


def signal_to_noise(similarity: Tensor, standard_error: Tensor) -> float:
    """How far a similarity is above what pure noise of its standard errors would show: about 1 if it is noise.

    Two ratios of found to expected, of which the larger counts. For few strong entries: the largest z of the
    symmetrised pairs, the second, fourth, eighth and so on up to a twentieth of them, against the same order statistics
    of as many independent Gaussians (at least 2, since few have a wide spread). For many weak ones that form a pattern:
    the largest eigenvalue of the centred z against 2 sqrt(N), the edge of the semicircle of noise (Wigner 1958).
    Centring takes out what a position does to, or gets from, all others alike. Time grows with N^3, memory with N^2.

    Args:
        similarity: `(N, N)`, 0 meaning no dependence; its diagonal is ignored.
        standard_error: `(N, N)`; pairs with 0 in both are left out.

    Returns:
        The ratio; 0 where nothing was measured, negative never.
    """
    values, error = symmetrise(similarity.double().numpy(), standard_error.double().numpy(), "mean")
    assert error is not None
    z, n = np.clip(_ratio(values, error), -1e6, 1e6), len(values)
    i, j = np.triu_indices(n, 1)
    known = (error[i, j] > 0) | (values[i, j] != 0)
    ordered = np.sort(z[i, j][known])[::-1]
    m = len(ordered)
    if m == 0:
        return 0.0
    ranks = 2 ** np.arange(int(np.log2(max(1, m / 20))) + 1)
    expected = np.maximum(norm.isf((ranks - 0.44) / (m + 0.12)), 2.0)  # Gringorten's plotting positions
    tail = (ordered[ranks - 1] / expected).max()
    centred = z - z.mean(axis=0) - z.mean(axis=1)[:, None] + z.mean()
    edge = eigvalsh(centred, subset_by_index=(n - 1, n - 1))[0] / (2 * np.sqrt(n))
    return max(float(tail), float(edge), 0.0)


def _ratio(values: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Entries in standard errors; one without an error is beyond doubt, or 0."""
    doubtless = np.sign(values) * np.where(values == 0, 0.0, 1e300)
    return np.divide(values, error, out=doubtless, where=error > 0)
