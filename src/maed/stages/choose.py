"""Choosing between the methods whose embeddings a run has made, by a score that needs no truth: `auto.json`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from maed.embedding import PositionEmbedding
from maed.engine.device import device
from maed.evaluation.probe import RANDOM, neighbor_error, probe
from maed.records import Candidate, Choice
from maed.stages.base import Context, Stage, execute
from maed.stages.baseline import Baseline
from maed.stages.embed import Embed, NoDependence
from maed.stages.pretrain import Pretrain
from maed.stages.similarity import Similarity, left_out, methods_of

PREFERRED = ("maed", "partial")
"""Candidates preferred among those that a probe cannot tell apart; otherwise the best is taken."""

SURE = 2.0
"""Standard errors between two candidates from which on they can be told apart."""

WORSE = 1.25
"""Neighbor error, as a multiple of the least of those that cannot be told apart, above which none is taken: a probe
that can tell little must not hand a bad embedding to a preference."""

REPEATED = 0.7
"""Split-half agreement below which none is taken of those that cannot be told apart: other draws would have given too
many positions other neighbors. On nine sensor sets and MNIST it was 0.75 and more where the autoencoder found about
what the others did, and 0.69 and less where it found far less (docs/sensors.md)."""


def make_candidates(context: Context) -> tuple[list[str], list[str]]:
    """Make the embedding of `maed` and of every baseline for these signals, the quick ones first.

    Returns:
        The methods, and those of them that found no dependence, whose embeddings were not made.
    """
    plan: dict[str, list[Stage]] = {name: [Baseline(name), Embed(name)] for name in methods_of(context)}
    if "maed" in plan:
        plan["maed"] = [Pretrain(), Similarity(), Embed()]
    else:
        context.say(left_out(context))
    for stage in (stage for stages in plan.values() for stage in stages):
        stage.check(context)  # every refusal before any work
    made, failed = [], []
    for method, stages in plan.items():
        try:
            execute(stages, context)
            made.append(method)
        except NoDependence as error:
            context.say(f"{method}: {error}")
            failed.append(method)
    return made, failed


def choose_method(context: Context, methods: Sequence[str], failed: Sequence[str] = ()) -> list[Candidate]:
    """Probe the embeddings of several methods, choose one, and write `auto.json`; read again where it is there.

    The one with the lowest probe loss is chosen; where others are within 2 standard errors of it, `maed` is, or
    else `partial`, for what they find is rarely far off, unless its neighbors predict held-out values clearly worse
    than another's, or two halves of the draws disagree on three of ten neighbors. The signals are those that the
    autoencoder is shown, without their common mode where that is taken off: with it any positions do. With
    `similarity.method` other than `auto` that is chosen.

    Args:
        context: Context of the run; all embeddings are in its folder.
        methods: Names of the methods.
        failed: Methods that found no dependence.

    Returns:
        The candidates, the chosen one first, then by probe loss, random vectors last.

    Raises:
        NoDependence: No method found a dependence.
    """
    if not methods:
        raise NoDependence(
            f"similarity: no dependence found by {', '.join(failed)}; to embed it nevertheless, set "
            "--embedding.force true (force=True in Python)"
        )
    settings, folder = context.settings, context.folder
    embeddings = {
        method: PositionEmbedding.from_pretrained(folder.earlier.embedding(method).path) for method in methods
    }
    asked = settings.similarity.method
    steps, seeds = settings.evaluation.probe_steps, settings.evaluation.probe_seeds
    made_with = {
        **context.data_made_with,
        "method": asked,
        "probe": {"steps": steps, "seeds": seeds},
        "fingerprints": {method: embedding.fingerprint for method, embedding in embeddings.items()},
    }
    if folder.auto.is_file() and (there := Choice.read(folder.auto)).made_with == made_with:
        return there.candidates
    if steps:
        context.say(f"probes: {', '.join(methods)} and random vectors, {seeds} of {steps} steps each")
    started = time.perf_counter()
    k, data = context.k(), context.data
    found: dict[str, Candidate] = {}
    probed = (
        probe(
            {method: embedding.vectors for method, embedding in embeddings.items()},
            context.shown_data,
            steps=steps,
            seeds=seeds,
            device=device(settings.trainer),
        )
        if steps
        else {}
    )
    for method, embedding in embeddings.items():
        work = folder.earlier.similarity(method).work
        trained = folder.earlier.autoencoder.work.seconds or 0.0 if method == "maed" else 0.0
        found[method] = Candidate(
            method,
            **({} if method not in probed else asdict(probed[method])),
            neighbor_error=float(np.nanmean(neighbor_error(embedding.vectors, data.train, data.validation, k))),
            split_half=embedding.provenance.get("split_half"),
            seconds=(work.seconds or 0.0) + trained,
        )
    chosen = asked if asked in embeddings else best(list(found.values()))
    if RANDOM in probed:
        found[RANDOM] = Candidate(RANDOM, **asdict(probed[RANDOM]))
    rows = sorted(found.values(), key=lambda row: (row.name != chosen, row.name == RANDOM, row.probe_loss or 0.0))
    if folder.earlier is folder:  # their cards say it
        for method, embedding in embeddings.items():
            measured = {name: getattr(found[method], name) for name in ("probe_loss", "neighbor_error")}
            known = dict(embedding.provenance.get("metrics") or {})
            told = {**known, **{name: value for name, value in measured.items() if value is not None}}
            if told != known:
                embedding.save_pretrained(folder.embedding(method).path, told)
    Choice(chosen, rows, list(failed), time.perf_counter() - started, made_with).write(folder.auto)
    return rows


def best(rows: Sequence[Candidate]) -> str:
    """The name of the candidate to take, random vectors not among `rows`: the rule of `choose_method`."""
    ties = [row for row in rows if row.probe_loss is None or _is_tied(row)]
    least = min(row.neighbor_error or 0.0 for row in ties)
    ties = [row for row in ties if (row.neighbor_error or 0.0) <= WORSE * least]
    ties = [row for row in ties if row.split_half is None or row.split_half >= REPEATED] or ties
    preferred = [row.name for name in PREFERRED for row in ties if row.name == name]
    return preferred[0] if preferred else min(ties, key=lambda row: row.probe_loss or 0.0).name


def _is_tied(row: Candidate) -> bool:
    return (row.probe_loss_above or 0.0) <= SURE * (row.probe_loss_se or 0.0)


def sentence(rows: Sequence[Candidate]) -> str:
    """State the choice and its certainty in one line."""
    chosen, others = rows[0], [row for row in rows[1:] if row.name != RANDOM]
    if chosen.probe_loss is None or not others:
        return f"chosen: {chosen.name}"
    if not _is_tied(chosen):
        return f"chosen: {chosen.name}, as asked for, though {min(others, key=_loss).name} has a lower probe loss"
    if ties := [row.name for row in others if _is_tied(row)]:
        return f"chosen: {chosen.name}; {', '.join(ties)} {'is' if len(ties) == 1 else 'are'} as good within the error"
    return f"chosen: {chosen.name}, by probe loss"


def _loss(row: Candidate) -> float:
    return row.probe_loss or 0.0


def candidate_lines(rows: Sequence[Candidate]) -> list[str]:
    """The candidates as a table of plain text, a line each."""
    cells = [["", "probe loss", "above the best", "neighbor error", "seconds"]]
    for row in rows:
        above = "" if row.probe_loss_above is None else f"{row.probe_loss_above:.4f} ± {row.probe_loss_se:.4f}"
        numbers = (row.probe_loss, 4), (row.neighbor_error, 4), (row.seconds, 1)
        loss, error, seconds = ("" if value is None else f"{value:.{digits}f}" for value, digits in numbers)
        cells.append([row.name, loss, above, error, seconds])
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    return ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
