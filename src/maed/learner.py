"""`maed.learn` and its estimator: from whatever holds signals to a position embedding, in one call."""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.base import BaseEstimator
from sklearn.utils import Tags, check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import _check_feature_names, check_is_fitted

from maed.autoencoder import held_out_loss, load_autoencoder
from maed.data import from_given, like
from maed.data.common_mode import like_training
from maed.embedding import PositionEmbedding
from maed.errors import MaedError, one_of
from maed.files import locked
from maed.records import Candidate
from maed.registry import BASELINES, ESTIMATORS, REDUCTIONS
from maed.run_folder import RunFolder
from maed.settings import DataSettings, Settings
from maed.similarity import baselines_for, load_similarity
from maed.stages import Baseline as MakeBaseline
from maed.stages import Context, Embed, Pretrain, Similarity, choose_method, execute, make_candidates, sentence
from maed.stages.budget import affordable, parse_budget, within_draws
from maed.stages.choices import choose
from maed.stages.choose import candidate_lines

_LEAST_TEST = 1e-9
"""The share of signals kept for a test, where none is asked for: one signal, for none is tested."""


_FEW_SIGNALS = 20


def _is_trained(learner: PositionLearner) -> bool:
    """Baselines have no autoencoder whose loss could be a score."""
    if learner.method in BASELINES.names:
        raise AttributeError(f"method={learner.method!r} trains no autoencoder, so there is no score")
    return True


class PositionLearner(BaseEstimator):
    """Learn a vector for each position of signals, from unlabeled signals alone.

    The interface is that of scikit-learn's estimators. Positions are the features of X, not its samples, so there is no
    `transform`: the result is `embedding_`, a `torch.nn.Module` for use in a model. Settings that are not given are
    chosen from the number of positions N, their channels C, and the number and type of the signals; `choices_` lists
    the choices with their reasons.

    Time grows with N times the training steps, with N^2 times the draws, and with N^3 for the reduction; memory grows
    with N^2.

    Args:
        dim: Channels d of the embedding; default: min(64, N - 1).
        autoencoder: `set` reads visible positions as a set; `unet` knows the storage order; `auto` is `unet` for text,
            otherwise `set`.
        method: `maed` uses the autoencoder alone. `correlation`, `partial` and `magnitude` (real channels) and
            `dependence` (tokens) need no training and take seconds. `auto` makes all candidates that fit, trains small
            autoencoders that are given their embeddings, and takes the candidate with the lowest loss (the probe loss),
            or `maed` if they cannot be told apart. It reads no labels and no coordinates.
        estimator: How the autoencoder's losses become a similarity: `contrast` (the choice of `auto`), `mean-loss`,
            `ablation`.
        reduction: How the similarity becomes vectors; see `maed.settings.EmbeddingSettings`.
        init: Initial position vectors of the autoencoder: `random`, `correlation`, `dependence`, or the folder of an
            embedding.
        visible_fraction: Share of the positions that the autoencoder is shown.
        kind: Content of X: `real` numbers or `tokens`; `auto` reads integers of 16 bits or more, `(n, N)`, as token
            ids.
        window: Rows of X, moments of a recording, that form one signal with as many channels; None if rows are signals.
        stride: Rows between the starts of two windows; default: `window`.
        missing_values: Number or numbers that stand for missing values, besides NaN; an empty list for none. By
            default, numbers that look like such codes (-9999, far from all others) are refused and named.
        budget: Approximate time, in seconds or as text ("90 s", "5 min"), or the number of draws of signals for
            training and similarity together ("100000 draws"). With a time, speed is measured first, so that the result
            depends on the machine.
        device: `auto`, `cpu`, `gpu`, `cuda` or `mps`.
        random_state: Random seed of splits, weights and draws; an int makes results reproducible on the same machine.
        force: Keep an embedding even if no dependence was found.
        settings: Settings to use instead of automatic choices; the arguments above override them.
        folder: Folder that keeps all stages, and from which an interrupted fit continues; default: a temporary one.
        verbose: Print choices and progress to standard error.

    Attributes:
        embedding_: The `PositionEmbedding`.
        method_: The method that made it.
        candidates_: With `method="auto"`, the candidates as `maed.records.Candidate`, the chosen one first.
        similarity_: `(N, N)` float32; row i, column j: how much seeing i helps to predict j. Beyond 10,000 positions, a
            sparse matrix of the measured pairs.
        autoencoder_: The trained `torch.nn.Module`, or None.
        settings_: All settings that were used.
        choices_: The automatic choices and their reasons, a list of lines.
        n_features_in_: N.
        feature_names_in_: Names of the columns, if X had names.

    Example:
        >>> learner = PositionLearner(dim=16, random_state=0).fit(X)  # doctest: +SKIP
        >>> learner.embedding_.neighbors(0, k=4)  # doctest: +SKIP
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        autoencoder: Literal["auto", "set", "unet"] = "auto",
        method: str = "auto",
        estimator: str = "auto",
        reduction: str = "heat",
        init: str = "random",
        visible_fraction: float | None = None,
        kind: Literal["auto", "real", "tokens"] = "auto",
        window: int | None = None,
        stride: int | None = None,
        missing_values: float | Sequence[float] | None = None,
        budget: float | str | None = None,
        device: str = "auto",
        random_state: int | np.random.RandomState | None = None,
        force: bool = False,
        settings: Settings | None = None,
        folder: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        self.dim = dim
        self.autoencoder = autoencoder
        self.method = method
        self.estimator = estimator
        self.reduction = reduction
        self.init = init
        self.visible_fraction = visible_fraction
        self.kind = kind
        self.window = window
        self.stride = stride
        self.missing_values = missing_values
        self.budget = budget
        self.device = device
        self.random_state = random_state
        self.force = force
        self.settings = settings
        self.folder = folder
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None, *, coordinates: Any = None) -> Self:
        """Learn an embedding of the positions of X.

        Args:
            X: `(n, N)` or `(n, N, C)` numbers, or `(n, N)` integer token ids, as array or tensor, memory-mapped or not;
                a table or column of pandas, polars or arrow, or a `datasets.Dataset`, with columns of numbers, or one
                of lists or texts; or an iterator of batches (of arrays, or of tuples that start with one), of which a
                uniform sample is kept. NaN marks a missing value.
            y: Ignored.
            coordinates: True coordinates `(N, D)`, if known; stored with the vectors for evaluation and figures, and
                never used for learning.

        Returns:
            The fitted learner.

        Raises:
            MaedError: X or a parameter is invalid, or no dependence was found.
        """
        started = time.monotonic()
        settings = self._given()
        seconds, draws = parse_budget(self.budget)
        data = from_given(X, coordinates=coordinates, settings=settings.data)
        if len(data.train) < _FEW_SIGNALS:
            warnings.warn(
                f"X has {len(data.train)} training signals, besides {len(data.validation)} for validation and "
                f"{len(data.test)} for testing; with so few, similarities may be chance",
                stacklevel=2,
            )
        fixed = {"autoencoder.kind"} if self.autoencoder != "auto" else set()
        fixed |= {"autoencoder.visible_fraction"} if self.visible_fraction is not None else set()
        self.choices_: list[str] = ["settings: as given; nothing is chosen but what they leave to be chosen"]
        if self.settings is None:
            text = data.geometry is not None and data.geometry.kind == "line" and data.kind == "tokens"
            settings, self.choices_ = choose(data, settings, fixed, reading_order=text and coordinates is None)
        with tempfile.TemporaryDirectory() as temporary:
            if self.method not in BASELINES.names:
                if self.budget is not None:
                    settings, line = (
                        affordable(data, settings, (seconds or 0.0) - (time.monotonic() - started))
                        if draws is None
                        else within_draws(settings, draws)
                    )
                    self.choices_.append(line)
                for line in self.choices_:
                    self._say(line)
            folder = RunFolder(Path(self.folder or temporary))
            with locked(folder.path):
                context = Context(folder, settings, data, self._say)
                self._learn(context)
        nothing = context.shown_data.train.rows(np.arange(0))  # normalization and shape are kept, signals are not
        self._data = replace(data, train=nothing, validation=nothing, test=nothing)
        self._landmarks, self.settings_ = context.landmarks, settings
        self.n_features_in_ = data.positions if data.kept is None else len(data.kept)
        _check_feature_names(self, X, reset=True)
        return self

    @available_if(_is_trained)  # type: ignore[untyped-decorator]
    def score(self, X: Any, y: Any = None) -> float:
        """Compute minus the mean masked loss of the autoencoder on X, with the same draws at every call.

        Args:
            X: Signals of the fitted kind and shape; columns of a table are found by name, in any order.
            y: Ignored.

        Returns:
            The score, in units of the loss (squared error of normalized channels, or nats); higher is better.

        Raises:
            MaedError: X is not of the kind and shape that was fitted, or lacks a column.
        """
        check_is_fitted(self)
        if not (hasattr(X, "columns") and len(self._data.columns) == self._data.positions):
            _check_feature_names(self, X, reset=False)
        found: tuple[int, ...] = () if hasattr(X, "columns") or hasattr(X, "dims") else tuple(getattr(X, "shape", ()))
        if len(found) > 1 and found[1] != self.n_features_in_:
            name, n = type(self).__name__, self.n_features_in_
            raise MaedError(f"X has {found[1]} features, but {name} is expecting {n} features as input")
        signals = like(X, self._data, self.settings_.data)
        if self._data.train.rest is not None:
            signals = like_training(signals, self._data.train.rest)
        data = self._data
        if self._landmarks is not None:
            signals, data = signals.at(self._landmarks), data.at(self._landmarks)
        return -held_out_loss(self.autoencoder_, signals, self.settings_.autoencoder, data)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.three_d_array = True
        return tags

    # The stages.

    def _learn(self, context: Context) -> None:
        """Run the stages of a method, or of all that fit, and keep what they made."""
        method, fitting = self.method, baselines_for(context.data)
        self.candidates_: list[Candidate] = []
        if method == "auto":
            self.candidates_ = choose_method(context, *make_candidates(context))
            method = self.candidates_[0].name
            self.choices_.append(sentence(self.candidates_))
            for line in (*candidate_lines(self.candidates_), self.choices_[-1]):
                self._say(line)
        elif method == "maed":
            execute([Pretrain(), Similarity(), Embed()], context)
        elif method not in fitting:
            kind = context.data.kind
            raise MaedError(
                f"method: {method!r} does not fit {kind} signals; choose {', '.join(fitting)}, maed or auto"
            )
        else:
            execute([MakeBaseline(method), Embed(method)], context)
        self.method_ = method
        self.embedding_ = PositionEmbedding.from_pretrained(context.folder.embedding(method).path)
        values, _ = load_similarity(context.folder.similarity(method).path).arrays()
        self.similarity_: Any = values if issparse(values) else values.numpy()
        trained = context.folder.autoencoder
        self.autoencoder_: Any = load_autoencoder(trained.path)[0] if trained.is_finished else None

    def _given(self) -> Settings:
        """The settings that the parameters ask for, before anything is chosen."""
        base = self.settings or Settings()
        one_of("autoencoder", self.autoencoder, ("auto", "set", "unet"))
        one_of("method", self.method, ("auto", "maed", *BASELINES.names))
        if self.estimator in BASELINES.names:
            raise MaedError(
                f"estimator: {self.estimator!r} is a method, not an estimator; pass method={self.estimator!r}"
            )
        one_of("estimator", self.estimator, ("auto", *ESTIMATORS.names))
        REDUCTIONS.check("reduction", self.reduction)
        one_of("kind", self.kind, ("auto", "real", "tokens"))
        one_of("device", self.device, ("auto", "cpu", "gpu", "cuda", "mps"))
        # a folder can only be gone on from with the seed that it was begun with
        seeded = self.random_state is not None or not (self.settings or self.folder)
        seed: dict[str, Any] = {"seed": _seed(self.random_state)} if seeded else {}
        autoencoder: dict[str, Any] = dict(seed)
        if self.autoencoder != "auto":
            autoencoder["kind"] = self.autoencoder
        if self.visible_fraction is not None:
            autoencoder["visible_fraction"] = self.visible_fraction
        if self.init != "random":
            autoencoder["init"] = self.init
        similarity: dict[str, Any] = {**seed, "method": self.method}
        if self.estimator in ESTIMATORS.names:
            similarity["estimator"] = self.estimator
        embedding: dict[str, Any] = {"force": self.force or base.embedding.force}
        if self.dim is not None:
            embedding["dim"] = _whole("dim", self.dim)
        if not self.settings or self.reduction != "heat":
            embedding["reduction"] = self.reduction
        device: dict[str, Any] = {} if self.device == "auto" else {"accelerator": self.device}
        kind: dict[str, Any] = {} if self.kind == "auto" else {"type": self.kind}
        for name in ("window", "stride"):
            if (value := getattr(self, name)) is not None:
                kind[name] = _whole(name, value)
        if self.missing_values is not None:
            kind["missing_values"] = [float(value) for value in np.atleast_1d(self.missing_values)]
        if base.data.test == DataSettings.test:
            kind["test"] = _LEAST_TEST
        if base.data.split == DataSettings.split:
            kind["split"] = "blocks"  # no label is read, and neighbors may be moments of one recording
        return replace(
            base,
            data=replace(base.data, missing="mask", **kind, **seed),
            autoencoder=replace(base.autoencoder, **autoencoder),
            similarity=replace(base.similarity, **similarity),
            embedding=replace(base.embedding, **embedding),
            trainer=replace(base.trainer, progress="auto" if self.verbose else "none", **device),
        )

    def _say(self, line: str) -> None:
        if self.verbose:
            print(f"maed: {line}", file=sys.stderr, flush=True)


def learn(X: Any, dim: int | None = None, *, coordinates: Any = None, **parameters: Any) -> PositionEmbedding:
    """Learn a position embedding from unlabeled signals.

    Short for `PositionLearner(dim, ..., verbose=True).fit(X).embedding_`.

    Args:
        X: `(n, N)` or `(n, N, C)` numbers, or `(n, N)` integer token ids: arrays, tensors, tables, data sets, iterators
            of batches (see `PositionLearner.fit`).
        dim: Channels d of the embedding; default: min(64, N - 1).
        coordinates: True coordinates `(N, D)`, for evaluation only.
        parameters: Other parameters of `PositionLearner`: `method`, `budget`, `device`, `random_state` and so on.

    Returns:
        The embedding of N positions, `(N, d)`.

    Raises:
        MaedError: X or a parameter is invalid, or no dependence was found.
    """
    known = PositionLearner._get_param_names()
    for name in parameters:
        one_of("parameter", name, known)
    learner = PositionLearner(dim, **{"verbose": True, **parameters})
    return learner.fit(X, coordinates=coordinates).embedding_


def _seed(random_state: int | np.random.RandomState | None) -> int:
    try:
        if isinstance(random_state, (int, np.integer)):
            return int(random_state)
        return int(check_random_state(random_state).randint(2**31))
    except ValueError as error:
        raise MaedError(f"random_state must be a whole number, a RandomState or None, got {random_state!r}") from error


def _whole(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise MaedError(f"{name} must be a whole number of at least 1, got {value!r}")
    return int(value)
