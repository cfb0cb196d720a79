"""Dependence between the tokens at two positions."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array
from torch import Tensor

from maed.data.signals import SignalData, Signals
from maed.similarity.baseline import Baseline
from maed.similarity.similarity import Similarity

_CHUNK = 1_024  # signals
_BLOCK = 64  # positions
_CLASSES = 32


class Dependence(Baseline):
    """Bias-corrected Cramer's V between the tokens of two positions (Bergsma 2013): chi-square of class indicators.

    The 31 most frequent tokens are classes of their own, the rest share one. Contingency tables hold only the signals
    in which both positions are real, and the correction takes away what chance alone would give, so that the length
    of a text does not become dependence. Values lie in [0, 1]; the standard error is that under independence. Time
    grows with n N^2 (sparse products of whole numbers, blocks of positions), memory with n N + 64^2 32^2.
    """

    kinds = ("tokens",)
    made = "made from the chi-square dependence of tokens, without training"

    def similarity(self, data: SignalData) -> Similarity:
        """Cramer's V, a block of pairs of positions at a time."""
        classes = _pooled(data.train, data.vocabulary)  # (n, N), -1 where not real
        k = int(classes.max()) + 1
        n = classes.shape[1]
        values, error = torch.zeros(n, n), torch.zeros(n, n)
        blocks = range(0, n, _BLOCK)
        for start in blocks:
            left = _indicators(classes[:, start : start + _BLOCK], k).T.tocsr()
            for other in range(start, n, _BLOCK):
                right = _indicators(classes[:, other : other + _BLOCK], k)
                a, b = left.shape[0] // k, right.shape[1] // k
                tables = torch.from_numpy((left @ right).toarray())
                v, e = _cramers_v(tables.view(a, k, b, k).permute(0, 2, 1, 3).float())
                for matrix, block in ((values, v.float()), (error, e.float())):
                    matrix[start : start + a, other : other + b] = block
                    matrix[other : other + b, start : start + a] = block.T
        return Similarity(values.fill_diagonal_(0.0), error.fill_diagonal_(0.0))


def _pooled(signals: Signals, vocabulary: int) -> Tensor:
    """Class of each token, `(n, N)` int8: the most frequent tokens first, all others pooled, -1 where not real."""
    ids = torch.from_numpy(
        signals.values.astype(np.int64, copy=False) if signals.values.dtype != np.int16 else signals.values
    )
    mask = None if signals.mask is None else torch.from_numpy(signals.mask)
    counts = torch.zeros(vocabulary, dtype=torch.int64)
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK].long()
        counts += torch.bincount(
            (chunk if mask is None else chunk[mask[start : start + _CHUNK]]).flatten(), minlength=vocabulary
        )
    order = counts.argsort(descending=True)
    table = torch.full((vocabulary,), _CLASSES - 1, dtype=torch.int8)
    kept = min(_CLASSES if int((counts > 0).sum()) <= _CLASSES else _CLASSES - 1, vocabulary)
    table[order[:kept]] = torch.arange(kept, dtype=torch.int8)
    pooled = torch.empty(ids.shape, dtype=torch.int8)
    for start in range(0, len(ids), _CHUNK):
        pooled[start : start + _CHUNK] = table[ids[start : start + _CHUNK].long()]
    return pooled if mask is None else pooled.masked_fill_(~mask, -1)


def _indicators(classes: Tensor, k: int) -> csr_array:
    """One-hot, `(n, positions)` to sparse `(n, positions * k)` int32; class -1 has no indicator.

    Each row holds a 1 for each real position, so that a product of two costs n positions^2, whatever k is.
    """
    n, positions = classes.shape
    there = (classes >= 0).numpy()
    columns = (torch.arange(positions, dtype=torch.int32) * k + classes).numpy()[there]
    starts = np.concatenate([[0], there.sum(axis=1).cumsum()])
    return csr_array((np.ones(len(columns), dtype=np.int32), columns, starts), shape=(n, positions * k))


def _cramers_v(tables: Tensor) -> tuple[Tensor, Tensor]:
    """Bias-corrected Cramer's V of contingency tables `(..., k, k)`, and its standard error under independence."""
    count = tables.sum(dim=(-2, -1)).clamp(min=2)
    rows, columns = tables.sum(dim=-1), tables.sum(dim=-2)
    # sum (O - E)^2 / E = sum O^2 / E - n with E = row * column / n; empty rows and columns add nothing
    by_row, by_column = (torch.where(total > 0, 1 / total.clamp(min=1), 0.0) for total in (rows, columns))
    phi2 = ((tables.square() @ by_column[..., None]).squeeze(-1) * by_row).sum(dim=-1) - 1
    r, c = (rows > 0).sum(dim=-1).double(), (columns > 0).sum(dim=-1).double()
    freedom = (r - 1).clamp(min=0) * (c - 1).clamp(min=0)
    corrected = (phi2 - freedom / (count - 1)).clamp(min=0)
    least = torch.minimum(r - (r - 1) ** 2 / (count - 1), c - (c - 1) ** 2 / (count - 1)) - 1
    usable = least > 0
    least = torch.where(usable, least, 1.0)
    v = torch.where(usable, (corrected / least).clamp(max=1).sqrt(), 0.0)
    error = torch.where(usable, ((2 * freedom).sqrt() / (count * least)).sqrt(), 0.0)
    return v, error
