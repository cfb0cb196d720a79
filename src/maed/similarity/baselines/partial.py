"""Ridge-regularized partial correlation between the values at two positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from maed.data.signals import SignalData, Signals
from maed.similarity.baseline import Baseline
from maed.similarity.moments import pearson, reciprocity
from maed.similarity.similarity import Similarity

_RIDGES = (1e-4, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_NEIGHBORS = 8


class Partial(Baseline):
    """Partial correlation: dependence of two positions that no other position explains, averaged over channels.

    p_ij = -P_ij / sqrt(P_ii P_jj) with P = (R + ridge I)^-1, R being the matrix of correlations over the signals in
    which both positions are real, its negative eigenvalues (of missing values) set to 0 (ridge-type estimate; Schaefer
    and Strimmer 2005, "A shrinkage approach to large-scale covariance matrix estimation"). Either |p| or its positive
    part is taken, whichever, with whichever ridge from 1e-4 to 10, gives the most mutual neighbors across two random
    halves of the signals (`reciprocity`): no truth is read. The standard error is that of the halves: half of the root
    mean square by which they differ, times 1 - p^2. In double precision, for correlations near 1. Time grows with
    n C N^2 + N^3, memory with N^2.
    """

    kinds = ("real",)
    made = "made from the partial correlation of values, without training"

    def similarity(self, data: SignalData) -> Similarity:
        """The mean over channels of |p|, or of its positive part."""
        signals, n = data.train, data.positions
        rows = np.random.default_rng(0).permutation(len(signals))
        halves = [spectra(signals.rows(np.sort(half))) for half in np.array_split(rows, 2)]
        k = min(_NEIGHBORS, n - 1)
        mutual, ridge, positive = -1.0, 0.0, False
        for tried in _RIDGES:
            signed = [[spectrum.partial(tried) for spectrum in half] for half in halves]
            for part in (False, True):
                found = reciprocity(_mean(signed[0], positive=part), _mean(signed[1], positive=part), k)
                if found >= mutual:  # of equal ones the most regular
                    mutual, ridge, positive = found, tried, part
        whole = [spectrum.partial(ridge) for spectrum in spectra(signals)]
        first, second = ([spectrum.partial(ridge) for spectrum in half] for half in halves)
        noise = [float((a - b).square().sum() / (n * (n - 1))) ** 0.5 / 2 for a, b in zip(first, second, strict=True)]
        values = _mean(whole, positive=positive)
        error = sum(noise) / len(noise) * (1 - values.square())
        facts = {"ridge": ridge, "positive": positive, "reciprocity": mutual}
        return Similarity(values.float(), error.float().fill_diagonal_(0.0), facts)


@dataclass(frozen=True)
class _Spectrum:
    """Eigenvalues `(N,)` and eigenvectors `(N, N)` of correlations: with them any ridge costs one product."""

    values: Tensor
    vectors: Tensor

    def partial(self, ridge: float) -> Tensor:
        """Partial correlations `(N, N)` float64, the diagonal 0."""
        precision = (self.vectors / (self.values + ridge)) @ self.vectors.T
        scale = precision.diagonal().rsqrt()
        return (-precision * scale * scale[:, None]).clamp(-1, 1).fill_diagonal_(0.0)


def spectra(signals: Signals) -> list[_Spectrum]:
    """The eigenvalues and eigenvectors of the correlations of each channel."""
    found = []
    for channel in range(signals.values.shape[2]):
        r = pearson(signals, channel)[0].fill_diagonal_(1.0)
        values, vectors = torch.linalg.eigh(r)
        found.append(_Spectrum(values.clamp(min=0), vectors))
    return found


def _mean(partials: Sequence[Tensor], *, positive: bool) -> Tensor:
    """The mean over channels of absolute values, or of positive parts."""
    return torch.stack([p.clamp(min=0) if positive else p.abs() for p in partials]).mean(dim=0)
