"""The base class of estimators: the draws they need, their sums, and the similarity that they compute."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, Generic, Literal, TypeVar

from torch import Tensor

from maed.autoencoder.losses import LossName
from maed.autoencoder.masking import Draw
from maed.errors import MaedError
from maed.registry import ESTIMATORS
from maed.settings import SimilaritySettings
from maed.similarity.similarity import Similarity
from maed.similarity.sums import Sums

Transform = Literal["none", "root", "log"]

Losses = Callable[[Draw], Tensor]
"""The losses l_j of a draw, `(B, N)`, transformed: a pass through the autoencoder."""

S = TypeVar("S", bound=Sums)


class Estimator(ABC, Generic[S]):
    """Makes a similarity of how well the autoencoder predicts positions from others.

    One file of `maed/similarity/estimators` for each, or one entry point `maed.estimators` of another package. `stream`
    draws signals, hands each batch to `add`, and `estimate` turns the sums into a similarity.

    Attributes:
        sums: The class of the sums over draws.
        transform: Transform of a squared error before summation that `similarity.transform auto` stands for.
        repeated: True if each signal is drawn `similarity.repeats` times in a row.
    """

    sums: ClassVar[type[Sums]]
    transform: ClassVar[Transform] = "root"
    repeated: ClassVar[bool] = False

    def check(self, settings: SimilaritySettings, *, visible: int, loss: LossName) -> None:
        """Refuse settings, a loss, or a number of `visible` positions that the estimator cannot work with."""
        if self.repeated and settings.batch_size % settings.repeats:
            raise MaedError(
                f"similarity.batch_size must be a multiple of similarity.repeats ({settings.repeats}), "
                f"got {settings.batch_size}"
            )
        if settings.transform in ("root", "log") and loss == "gaussian":
            raise MaedError(
                f"similarity.transform must be none for a likelihood, which can be negative, got {settings.transform!r}"
            )

    @abstractmethod
    def add(self, sums: S, draw: Draw, losses: Losses, repeats: int) -> None:
        """Add a batch of draws to the sums.

        Args:
            sums: Changed in place.
            draw: B signals, all positions scored.
            losses: Call it on the draw, or on others made from it.
            repeats: Number of consecutive draws of one signal.
        """

    @abstractmethod
    def estimate(self, sums: S) -> tuple[Tensor, Tensor]:
        """The similarity and its standard error, both `(N, N)`; row i, column j: how much seeing i helps to predict j.

        The diagonals are not read.

        Returns:
            The similarity and its standard error, `(N, N)` each.
        """

    def dependence(self, similarity: Similarity) -> Tensor:
        """The values `(N, N)` shifted so that 0 means no dependence: what is measured against noise."""
        return similarity.values


def check_estimator(settings: SimilaritySettings, *, visible: int, loss: LossName) -> None:
    """Refuse what the estimator of the settings cannot do with this loss and so many positions `visible`."""
    ESTIMATORS.get(settings.estimator, "similarity.estimator")().check(settings, visible=visible, loss=loss)


def estimate(sums: Sums, estimator: str) -> Similarity:
    """Make a similarity of the sums by the estimator of a name."""
    values, error = (found.float().cpu().contiguous() for found in ESTIMATORS.get(estimator)().estimate(sums))
    return Similarity(values.fill_diagonal_(0.0), error.fill_diagonal_(0.0))


def never_drawn(sums: Sums, among: Tensor) -> int:
    """Count the ordered pairs (i, j) that no draw says anything about: j never scored with i visible.

    Args:
        sums: Over the draws.
        among: `(N,)` bool: the positions that are looked at.

    Returns:
        The number of pairs.
    """
    missing = (sums.seen.cpu() == 0) & among & among[:, None]
    return int(missing.sum()) - int(missing.diagonal().sum())
