"""Tests of a similarity against its noise. An entry of 0 means no dependence."""

from __future__ import annotations

import warnings
from typing import Literal

import numpy as np
from scipy.linalg import eigvalsh
from scipy.sparse import csr_matrix
from scipy.stats import norm
from torch import Tensor

from maed.errors import MaedError

_LEVEL = 0.05

LEAST_SIGNAL_TO_NOISE = 1.5
"""Below it, no dependence was found. Noise has about 1, and may pass this with a dozen positions or few draws, whose
means have heavy tails; autoencoders that have learned something lie above."""


def symmetrize(
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


def unknown(similarity: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Mark positions without an entry above its standard error by `significant`'s measure, `(N,)` boolean.

    Constant ones, such as a [CLS] token, and others that nothing depends on. None where that would be more than half:
    what is weak then is the similarity as a whole; and none where no entry is above 0, as 0 does not mean none then.

    Returns:
        `(N,)` bool.
    """
    above = _ratio(similarity, error) > norm.isf(_LEVEL / len(similarity))
    found = np.asarray(~above.any(axis=1))
    return found if similarity.max() > 0 and found.mean() <= 0.5 else np.zeros_like(found)


def significant(similarity: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Keep entries above their standard error by what Bonferroni asks for at 5 % over the N of a row; others are 0.

    A position left with none keeps its best link, the one with the largest ratio to its standard error.

    Args:
        similarity: `(N, N)` symmetric.
        error: `(N, N)`, of its entries.

    Returns:
        The similarity with other entries set to 0.

    Raises:
        MaedError: No entry is above 0, so that 0 cannot mean no dependence (`mean-loss`).
    """
    if similarity.max() <= 0 and similarity.min() < 0:
        raise MaedError(
            "embedding.denoise: significance needs a similarity with entries above 0, and this one has none"
        )
    z = _ratio(similarity, error)
    kept = np.where(z > norm.isf(_LEVEL / len(z)), similarity, 0.0)
    np.fill_diagonal(z, -np.inf)
    lonely = np.flatnonzero(~(kept != 0).any(axis=1))
    best = z[lonely].argmax(axis=1)
    kept[lonely, best] = kept[best, lonely] = similarity[lonely, best]
    return kept


def warn_of_unknown(positions: np.ndarray, where: str) -> None:
    """Say that nothing is known of some positions `(P,)`, and where they are put."""
    shown = f"{', '.join(map(str, positions[:8].tolist()))}{' ...' if len(positions) > 8 else ''}"
    warnings.warn(
        f"nothing is known of {len(positions)} position{'s' if len(positions) > 1 else ''} ({shown}), which no other "
        f"depends on beyond noise; put {where}",
        stacklevel=4,
    )


def known_pairs(similarity: csr_matrix, error: csr_matrix, *, all_of_them: bool) -> csr_matrix:
    """The pairs that are above their standard error by `significant`'s measure, of a similarity of candidate pairs.

    Args:
        similarity: `(N, N)` symmetric.
        error: Standard errors of the same entries.
        all_of_them: Leave out every other pair; else those alone of positions that have no pair above it, unless these
            are more than half.
    """
    pairs = similarity.tocoo()
    above = _ratio(pairs.data, error.tocoo().data) > norm.isf(_LEVEL / pairs.shape[0])
    if not all_of_them:
        found = np.zeros(pairs.shape[0], dtype=bool)
        found[pairs.row[above]] = True
        above = found[pairs.row] & found[pairs.col] if found.mean() >= 0.5 else np.ones_like(above)
    kept = pairs.row[above], pairs.col[above]
    return csr_matrix((pairs.data[above], kept), shape=pairs.shape)


def signal_to_noise_of_pairs(values: np.ndarray, error: np.ndarray, n: int) -> float:
    """Signal-to-noise ratio of candidate pairs `(E,)`, the strongest ones compared with those of noise in all pairs.

    As `signal_to_noise` compares few strong entries, but that noise is Gaussian and candidates are taken for the
    strongest of all pairs.

    Returns:
        The ratio.
    """
    largest = np.sort(np.clip(_ratio(values, error), -1e6, 1e6))[::-1]
    if len(largest) == 0:
        return 0.0
    ranks, gaussian = _strongest_of_noise(len(largest), n * (n - 1) // 2)
    return max(0.0, float((largest[ranks - 1] / gaussian).max()))


def _strongest_of_noise(looked_at: int, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Ranks 1, 2, 4, ... up to a twentieth of those that are looked at, and what Gaussian noise has there of all pairs.

    Gringorten's plotting positions; 2 at least, since few pairs spread widely.
    """
    ranks = 2 ** np.arange(int(np.log2(max(1, looked_at / 20))) + 1)
    return ranks, np.maximum(norm.isf((ranks - 0.44) / (pairs + 0.12)), 2.0)


def signal_to_noise(similarity: Tensor, standard_error: Tensor) -> float:
    """Signal-to-noise ratio of a similarity: about 1 or below for pure noise.

    Dependence is mutual, noise is not. So the symmetric part of z (entries in standard errors) is measured against its
    antisymmetric part, which has the same noise, that of the training included, or against Gaussian noise where that is
    more: the standard errors cover the draws alone, and a similarity that is symmetric already has no other part.

    Of two ratios the larger counts. For few strong entries: the largest z, the second, fourth, eighth and so on up to a
    twentieth of the pairs, each against the same of the noise (2 at least, since few pairs spread widely). For many
    weak ones that form a pattern: the largest eigenvalue, against that of the antisymmetric part, or 2 sqrt(N), where
    the semicircle of noise ends (Wigner 1958); there, what a position does to all others alike is taken out.
    Time grows with N^3, memory with N^2.

    Args:
        similarity: `(N, N)`, 0 meaning no dependence; its diagonal is ignored.
        standard_error: `(N, N)`; pairs with 0 in both are left out.

    Returns:
        The ratio; 0 where nothing was measured, negative never.
    """
    error = standard_error.double().numpy()
    z, n = np.clip(_ratio(similarity.double().numpy(), error), -1e6, 1e6), len(error)
    np.fill_diagonal(z, 0.0)
    mutual, noise = (z + z.T) / 2**0.5, (z - z.T) / 2**0.5
    if not noise.any():  # each pair was measured once, not twice
        mutual = z
    i, j = np.triu_indices(n, 1)
    known = (error[i, j] > 0) | (error[j, i] > 0) | (mutual[i, j] != 0)
    largest = np.sort(mutual[i, j][known])[::-1]
    m = len(largest)
    if m == 0:
        return 0.0
    ranks, gaussian = _strongest_of_noise(m, m)
    # either sign is as likely, so the k-th largest of m has twice as many beyond it in size
    found = np.sort(np.abs(noise[i, j][known]))[::-1][np.minimum(2 * ranks, m) - 1]
    tail = (largest[ranks - 1] / np.maximum(gaussian, found)).max()
    mutual, noise = _centered(mutual), _centered(noise)
    top = eigvalsh(mutual, subset_by_index=(n - 1, n - 1))[0]
    norm_of_noise = np.sqrt(max(0.0, eigvalsh(noise.T @ noise, subset_by_index=(n - 1, n - 1))[0]))
    return max(float(tail), float(top / max(norm_of_noise, 2 * n**0.5)), 0.0)


def _centered(matrix: np.ndarray) -> np.ndarray:
    """The matrix without the means of its rows and columns."""
    return matrix - matrix.mean(axis=0) - matrix.mean(axis=1)[:, None] + matrix.mean()


def _ratio(values: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Entries in standard errors; one without an error is beyond doubt, or 0."""
    doubtless = np.sign(values) * np.where(values == 0, 0.0, 1e300)
    with np.errstate(over="ignore"):  # beyond doubt too
        return np.divide(values, error, out=doubtless, where=error > 0)
