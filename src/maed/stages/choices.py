"""Settings that suit the size and kind of the data: the defaults of `maed.learn`, with reasons."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

from maed.autoencoder import visible_count
from maed.autoencoder.placing import LANDMARKS
from maed.data import SignalData
from maed.data.common_mode import common_share
from maed.settings import AutoencoderSettings, Settings, SimilaritySettings

_STEPS, _STEPS_TOKENS = 60, 32
"""Training steps for each square root of N, of real channels and of tokens ..."""

_PLATEAU = 500
"""Least steps of a training: it starts on a plateau and is useless before leaving it."""

_FEW = 100
"""Least steps per position for fewer than 8 positions, which leave the plateau sooner."""

_MOST_VISIBLE, _STREAMED_VISIBLE = 0.3, 0.2
"""Shares of the positions of real channels that a training shows at most, and streaming always: few visible ones
teach where positions lie, many leave the finer differences between near ones ..."""

_MOST_TOKENS = 64
"""Most visible tokens, because attention among them takes time quadratic in their number."""

_MOSTLY_COMMON = 0.9
"""Share of the variance from which on the common mode is taken off: then every position predicts every other. Less of
it helps to tell near from far (a reference electrode's, 0.5 to 0.8)."""

_FEW_POSITIONS = 16
"""Below so many, all of this changes little."""

_DRAWS = 24
"""Draws for each position, at most: streaming stops before where neighbor lists no longer change ..."""

_PAIRS = 1 << 22
"""Least product of draws and positions, for few positions, whose draws are cheap."""

_EPOCHS = 300
"""Passes over the signals at most: a few dozen signals are learned by heart long before the steps are over."""

_LEAST_STEPS = 60

_PROBED = 15
"""Steps of a probe for each position at most: of a few positions there is little to learn."""


def choose(data: SignalData, given: Settings, fixed: set[str], *, reading_order: bool) -> tuple[Settings, list[str]]:
    """Choose autoencoder, visible fraction, training, estimator and number of draws from N, C, n and the kind.

    Args:
        data: The signals.
        given: Settings to start from.
        fixed: Settings that the user has set, such as `autoencoder.kind`; they stay.
        reading_order: True if positions are stored in an order that is known to mean something, as in texts.

    Returns:
        The settings, and one line for each choice with its reason.
    """
    n, c, count = data.positions, data.channels, len(data.train)
    if n > given.similarity.dense_positions:  # the autoencoder is trained on some of them
        n = min(n, LANDMARKS)
    autoencoder, lines = _autoencoder(data, n, given.autoencoder, fixed, reading_order)
    most = max(_LEAST_STEPS, _EPOCHS * count // autoencoder.batch_size)
    autoencoder = with_steps(autoencoder, min(autoencoder.steps, most))
    similarity = _similarity(n, given.similarity)
    if autoencoder.most_visible is not None and similarity.visible_fraction is None:
        streamed = min(_STREAMED_VISIBLE, 0.75 * autoencoder.most_visible)
        similarity = replace(similarity, visible_fraction=max(streamed, 2 / n))
    visible = visible_count(n, data.kind, autoencoder.visible_fraction)
    content = f"{c} channel{'s' if c > 1 else ''}" if c else f"{data.vocabulary} token ids"
    lines = [f"{count} signals of {data.positions} positions, {content}", *lines]
    upper = "" if autoencoder.most_visible is None else f" to {max(visible, round(autoencoder.most_visible * n))}"
    lines.append(
        f"visible: {visible}{upper} of {n} positions, {autoencoder.steps} training steps of {autoencoder.batch_size}"
    )
    until = ", fewer if the neighbors no longer change" if similarity.until == "stable" else ""
    lines.append(f"estimator: {similarity.estimator}, {similarity.draws} draws{until}")
    lines.append(f"reduction: {given.embedding.reduction}")
    evaluation = replace(given.evaluation, probe_steps=min(given.evaluation.probe_steps, _PROBED * n))
    return replace(given, autoencoder=autoencoder, similarity=similarity, evaluation=evaluation), lines


def with_steps(settings: AutoencoderSettings, steps: int) -> AutoencoderSettings:
    """The settings of a training of `steps` steps: a quarter of them for the warm-up at most, four validations."""
    return replace(settings, steps=steps, warmup=min(100, steps // 4), validate_every=max(1, steps // 4))


def _autoencoder(
    data: SignalData, n: int, given: AutoencoderSettings, fixed: set[str], reading_order: bool
) -> tuple[AutoencoderSettings, list[str]]:
    """The kind of autoencoder of n positions and what goes with it."""
    tokens, common = data.kind == "tokens", None
    steps = max(min(_PLATEAU, _FEW * n), round((_STEPS_TOKENS if tokens else _STEPS) * sqrt(n)))
    kind = given.kind
    if "autoencoder.kind" not in fixed:
        kind = "unet" if tokens and reading_order else "set"
    if kind == "unet":
        chosen = replace(given, kind="unet", width=24, scored=max(1, n // 2), batch_size=16, steps=800)
        chosen = replace(chosen, learning_rate=2e-3, depth=min(given.depth, max(1, n.bit_length() - 2)))
        fraction = 0.15 if tokens and 0.15 * n >= 1 else None
        why = "the storage order is known to be meaningful"
    elif tokens:
        # attention among the visible tokens keeps the loss on its plateau; queries alone leave it
        chosen = replace(
            given,
            kind="set",
            layers=0,
            heads=1,
            scored=max(1, n // 4),
            steps=2 * steps,
        )
        fraction, why = None, "the storage order may be arbitrary"
    else:
        chosen = replace(given, kind="set", scored=min(64, n), steps=steps)
        fraction, why = None, "the storage order may be arbitrary"
        if given.loss != "gaussian":
            chosen = replace(chosen, layers=1, readout="linear")
        if n >= _FEW_POSITIONS and "autoencoder.visible_fraction" not in fixed:
            chosen = replace(chosen, most_visible=min(_MOST_VISIBLE, _MOST_TOKENS / n))
        if n >= _FEW_POSITIONS and (share := common_share(data.train)) > _MOSTLY_COMMON:
            chosen = replace(chosen, common_mode="remove")
            common = f"common mode: removed, because it explains {100 * share:.0f} % of the variance"
    if "autoencoder.visible_fraction" not in fixed:
        chosen = replace(chosen, visible_fraction=fraction)
    lines = [f"autoencoder: {kind}, because {why}", *([common] if common else [])]
    if tokens and kind == "set" and chosen.init == "random":
        lines.append("tokens in unknown order are hard to place from random vectors; init='dependence' places more")
    return chosen, lines


def _similarity(n: int, given: SimilaritySettings) -> SimilaritySettings:
    draws = min(max(_DRAWS * n, _PAIRS // n), 65_536)
    return replace(given, draws=draws, until="stable")
