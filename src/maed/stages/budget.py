"""A budget of time or of draws: what it says, and what it buys on this machine."""

from __future__ import annotations

import re
import time
from dataclasses import replace

import torch

from maed.autoencoder import AutoencoderTask, build_autoencoder, draw_stream, loss_name, outputs_of, visible_count
from maed.autoencoder.placing import landmarks
from maed.data import SignalData
from maed.engine.device import device, precision
from maed.errors import MaedError
from maed.settings import EvaluationSettings, Settings
from maed.similarity import stream
from maed.stages.choices import with_steps

_TRAINING = 0.5
"""Share of a budget of seconds that is spent on training."""

_STREAMING = 0.3
"""Share that is spent on streaming; the rest is for the reduction and for what is not counted."""

_MOST = 10
"""A budget buys at most so many times the steps and draws that are chosen without one."""

_TRIED = 8  # steps, after as many to warm up


def parse_budget(budget: float | str | None) -> tuple[float | None, int | None]:
    """A budget as seconds or as draws; `90`, `"90 s"`, `"5 min"`, `"20000 draws"`.

    Raises:
        MaedError: Anything else, or nothing left to spend.
    """
    if budget is None:
        return None, None
    expected = "a number of seconds above 0, or text such as '90 s', '5 min' or '20000 draws'"
    if isinstance(budget, str):
        found = re.fullmatch(r"\s*([0-9_.]+)\s*(s|seconds|min|minutes|h|hours|draws)\s*", budget)
        try:
            number = float(found[1]) if found else 0.0
        except ValueError:
            number = 0.0
        unit = found[2] if found else "s"
    else:
        usable = isinstance(budget, (int, float)) and not isinstance(budget, bool)
        number, unit = float(budget) if usable else 0.0, "s"
    if not 0 < number < float("inf"):
        raise MaedError(f"budget must be {expected}, got {budget!r}")
    if unit == "draws":
        return None, max(2, round(number))
    return number * {"s": 1, "m": 60, "h": 3600}[unit[0]], None


def within_draws(settings: Settings, draws: int) -> tuple[Settings, str]:
    """The settings with training and streaming scaled equally, so that both together make about `draws` draws."""
    autoencoder, similarity = settings.autoencoder, settings.similarity
    share = draws / (autoencoder.steps * autoencoder.batch_size + similarity.draws)
    steps, streamed = max(1, round(share * autoencoder.steps)), max(2, round(share * similarity.draws))
    scaled = replace(
        settings,
        autoencoder=with_steps(autoencoder, steps),
        similarity=replace(similarity, draws=streamed, until="draws"),
        evaluation=_probes(settings, share),
    )
    return scaled, f"budget: {steps} training steps of {autoencoder.batch_size} and {streamed} draws for the similarity"


def affordable(data: SignalData, settings: Settings, seconds: float) -> tuple[Settings, str]:
    """The settings with as many training steps and draws as `seconds` allow, and a line that says how many.

    A few of both are tried first, so the result depends on the machine and on what else it does.
    """
    if data.positions > settings.similarity.dense_positions:
        data = data.at(landmarks(data.positions, settings.autoencoder.seed))
    step, draw = _seconds_per_step(data, settings), _seconds_per_draw(data, settings)
    steps = int(min(max(20, _TRAINING * seconds / step), _MOST * settings.autoencoder.steps))
    draws = int(min(max(1_024, _STREAMING * seconds / draw), _MOST * settings.similarity.draws))
    bought = replace(
        settings,
        autoencoder=with_steps(settings.autoencoder, steps),
        similarity=replace(settings.similarity, draws=draws, seconds=_STREAMING * seconds),
        evaluation=_probes(settings, steps / settings.autoencoder.steps),
    )
    return bought, f"budget: {steps} training steps and {draws} draws at most, in about {seconds:.0f} s"


def _probes(settings: Settings, share: float) -> EvaluationSettings:
    """Probes that a budget shortens with everything else, and never lengthens."""
    evaluation = settings.evaluation
    return replace(evaluation, probe_steps=min(evaluation.probe_steps, max(5, round(share * evaluation.probe_steps))))


def _model(data: SignalData, settings: Settings) -> AutoencoderTask:
    chosen, loss = settings.autoencoder, loss_name(settings.autoencoder, data)
    shape = {"n": data.positions, "channels": data.channels, "vocabulary": data.vocabulary}
    return AutoencoderTask(build_autoencoder(chosen, **shape, loss=loss), loss, chosen)


def _seconds_per_step(data: SignalData, settings: Settings) -> float:
    """Measure the time of a training step, over a few steps, in the precision of the training."""
    where, chosen = device(settings.trainer), settings.autoencoder
    half = precision(settings.trainer) != "32-true"
    task = _model(data, settings)
    task.model.to(where)
    optimizer, _ = task.optimizer()
    visible = visible_count(data.positions, data.kind, chosen.visible_fraction)
    started = 0.0
    for number, draw in enumerate(draw_stream(data.train, visible, chosen, steps=2 * _TRIED, seed=0)):
        if number == _TRIED:
            started = time.monotonic()
        with torch.autocast(where.type, torch.bfloat16, enabled=half):
            loss = task.mean_loss(draw.to(where))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    if where.type == "cuda":
        torch.cuda.synchronize()
    return (time.monotonic() - started) / _TRIED


def _seconds_per_draw(data: SignalData, settings: Settings) -> float:
    """Measure the time of a draw, over a few batches through an untrained autoencoder."""
    task, chosen = _model(data, settings), settings.similarity
    where = device(settings.trainer)
    visible = visible_count(data.positions, data.kind, chosen.visible_fraction or settings.autoencoder.visible_fraction)
    few = replace(chosen, draws=4 * chosen.batch_size, until="draws", seconds=None)
    streamed = stream(
        task.model.eval().to(where),
        data.train,
        few,
        visible=visible,
        loss=task.loss_name,
        outputs=outputs_of(task.loss_name, channels=data.channels, vocabulary=data.vocabulary),
        device=where,
        half_precision=precision(settings.trainer) != "32-true",
    )
    return streamed.seconds / streamed.draws
