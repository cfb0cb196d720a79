"""The whole run: positions learned, measured, compared, reported."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from hashlib import file_digest
from pathlib import PurePosixPath

from maed._version import __version__
from maed.data.geometry import sampled_note
from maed.embedding import PositionEmbedding
from maed.errors import MaedError
from maed.experiments.comparison import SKIPPED, Comparison
from maed.experiments.trials import check_cluster
from maed.files import damaged, plain, read_json
from maed.machine import commit, describe_machine
from maed.records import MadeWith, Results, first_difference
from maed.registry import BASELINES
from maed.report import embedding_figure, write_report
from maed.run_folder import CONFIG, METRICS, MODEL
from maed.similarity import baseline_for, baselines_for
from maed.stages import (
    Baseline,
    Context,
    Embed,
    Pretrain,
    Similarity,
    check_evaluation,
    choose_method,
    evaluate,
    evaluate_start,
    execute,
    left_out,
    methods_of,
    needs_all_pairs,
    noise_note,
    sentence,
)
from maed.tensors import read_tensors


def run_all(
    context: Context,
    encodings: Sequence[str],
    seeds: int,
    *,
    command: str,
    task: str | None = None,
    labels: Sequence[int | None] = (None,),
    pretrain: Sequence[str | None] = (None,),
) -> Results:
    """Do everything; returns, and keeps writing as it goes, results.json.

    In a folder where the same command has done everything, by the same version and with the same settings, its files
    are only read: that they are whole is checked.

    Args:
        context: Folder, settings and data.
        encodings: Encodings to compare; none for no models.
        seeds: Number of seeds for each encoding.
        command: The command line, which results.json records.
        task: The task that models learn (see `Comparison`).
        labels: Numbers of labels that they are given (see `Comparison`).
        pretrain: Initial weights of the models (see `Comparison`).

    Raises:
        MaedError: a stage or an encoding refuses, before any of them works where that can be told.
    """
    comparison, folder, data = Comparison(context, task, labels, pretrain), context.folder, context.data
    for encoding in encodings:
        comparison.check(encoding)
    check_evaluation(context)
    check_cluster(context.settings.trainer.cluster)
    results = new_results(context, command)
    if (there := _finished(context, results)) is not None:
        context.say(f"nothing to do: {folder.path} already holds this run, complete")
        return there
    measured = encodings if data.geometry is None else ("start", *BASELINES.names)
    able = methods_of(context)
    trained = {"autoencoder": asdict(context.settings.autoencoder)} if "maed" in able else {}
    results.notes += origin_notes(MadeWith.of({**context.data_made_with, **trained}), measured)
    if data.geometry is not None and (note := sampled_note(data.positions)) is not None:
        results.notes.append(note)
    asked = context.settings.similarity.method
    fitting = baselines_for(data)
    if asked not in ("auto", *able) and (asked == "maed" or asked in fitting):
        raise MaedError(f"similarity.method: {asked} {needs_all_pairs(context)}")
    if asked not in ("auto", "maed", *fitting):
        raise MaedError(
            f"similarity.method: {asked} does not fit {data.kind} signals; choose {', '.join(fitting)} or maed"
        )
    # beside the method that was asked for the one that all are measured against; all of them, where one is to be chosen
    wanted = fitting if asked == "auto" else (baseline_for(data), asked)
    methods = [method for method in dict.fromkeys(["maed", *wanted]) if method in able]
    if "maed" in methods:  # refused where there is nothing to embed, before more work is done
        execute([Pretrain(), Similarity(), Embed()], context)
    else:
        context.say(left_out(context))
    for method in methods:
        if method == "maed":
            continue
        execute([Baseline(method), Embed(method, required=method == asked)], context)
    candidates = choose_method(context, methods)
    context.say(sentence(candidates))
    embeddings = {method: PositionEmbedding.from_pretrained(folder.embedding(method).path) for method in methods}
    split_half = embeddings["maed"].provenance["split_half"] if "maed" in embeddings else None
    results.split_half = {"maed": split_half} if "maed" in embeddings else None
    results.chosen = candidates[0].name
    results.neighbor_error = {row.name: row.neighbor_error for row in candidates if row.neighbor_error is not None}
    results.probe_loss = {
        row.name: {"mean": row.probe_loss, "se": row.probe_loss_se or 0.0, "share": row.probe_share or 0.0}
        for row in candidates
        if row.probe_loss is not None
    } or None
    note = None if split_half is None else noise_note(split_half, context.k(), data.positions)
    results.notes += [] if note is None else [note]
    if "maed" in methods:
        results.seconds["pretrain"] = folder.autoencoder.work.seconds or 0.0
        results.seconds["similarity"] = folder.similarity().work.seconds or 0.0
    baselines = [method for method in methods if method != "maed"]
    results.seconds["baseline"] = sum(folder.similarity(method).work.seconds or 0.0 for method in baselines)
    if data.geometry is not None:
        results.geometry = {method: evaluate(context, method) for method in methods}
        if (start := evaluate_start(context)) is not None:
            results.geometry["start"] = start
    for method, embedding in embeddings.items():  # once more, where its card lacks what was measured, or a picture
        stage, metrics = folder.embedding(method), results.metrics(method)
        unmeasured = bool(metrics) and embedding.provenance.get("metrics") != metrics
        if unmeasured or not stage.figure.is_file():
            figure = embedding_figure(embedding)
            if unmeasured or figure is not None:
                embedding.save_pretrained(stage.path, metrics or None, figure)
    comparison.save(results)
    comparison.run(encodings, seeds, results)
    context.say(f"report: {write_report(folder.path, context.settings.report)}")
    results.files = _files(context)
    comparison.save(results)
    return results


def _finished(context: Context, asked: Results) -> Results | None:
    """The results of this very run, if it is finished and complete.

    Raises:
        MaedError: a file of it is damaged.
    """
    folder = context.folder
    if folder.overwrite or folder.earlier is not folder or not (folder.results.is_file() and folder.report.is_file()):
        return None
    there = Results.read(folder.results)
    same = ("maed", "command", "source", "positions")
    if any(getattr(there, name) != getattr(asked, name) for name in same) or there.settings != plain(asked.settings):
        return None
    here, written = _files(context), there.files or {}
    for name in sorted({*here, *written}):
        path, stage = folder.path / name, PurePosixPath(name).parent
        if here.get(name) == written.get(name):
            continue
        if name in here:  # damaged, or made anew since
            read_tensors(path) if path.name == MODEL else read_json(path)
            # a training that was done again changes its metrics; what changed alone was changed from outside
            others = (str(stage / other) for other in (CONFIG, METRICS, MODEL) if other != path.name)
            alone = all(here.get(each) == written.get(each) for each in others)
            if path.name in (CONFIG, MODEL) and name in written and alone:
                raise damaged(path)
        elif (path.parent / MODEL).is_file():  # the rest of its stage is there
            raise damaged(path, "missing")
    return there if here == written else None


def _files(context: Context) -> dict[str, str]:
    """SHA-256 of every file of a run that numbers are read from."""
    root, found = context.folder.path, {}
    for path in sorted(root.rglob("*")):
        if path.name in (CONFIG, METRICS, MODEL, context.folder.auto.name):
            with path.open("rb") as file:
                found[path.relative_to(root).as_posix()] = file_digest(file, "sha256").hexdigest()
    return found


def compare_only(
    context: Context,
    encodings: Sequence[str],
    seeds: int,
    *,
    command: str,
    task: str | None = None,
    labels: Sequence[int | None] = (None,),
    pretrain: Sequence[str | None] = (None,),
) -> Results:
    """Compare encodings; what an earlier run in this folder measured of the positions stays in results.json.

    Args:
        context: Folder, settings and labeled data.
        encodings: Encodings to compare.
        seeds: Number of seeds for each encoding.
        command: The command line, which results.json records.
        task: The task that models learn (see `Comparison`).
        labels: Numbers of labels that they are given (see `Comparison`).
        pretrain: Initial weights of the models (see `Comparison`).

    Raises:
        MaedError: No labels, or a results.json of other data.
    """
    data, path = context.data, context.folder.results
    comparison, results = Comparison(context, task, labels, pretrain), new_results(context, command)
    if comparison.skipped:
        raise MaedError(f"source must have labels of at least 2 classes for `compare`; {data.source} has none")
    if path.is_file():
        kept = Results.read(path)
        there, here = ({"source": r.source, "data": r.settings.get("data")} for r in (kept, results))
        if there == here:
            for name in ("chosen", "split_half", "probe_loss", "neighbor_error", "geometry", "seconds"):
                setattr(results, name, getattr(kept, name))
            results.notes = [note for note in kept.notes if not note.startswith(SKIPPED)]
        elif not context.folder.overwrite:
            difference = first_difference(there, here)
            raise MaedError(f"out: {path} belongs to another run ({difference}); choose another --out, or --overwrite")
    if "maed" in encodings:
        made_with = context.folder.earlier.embedding().made_with
        notes = origin_notes(made_with, (*(results.geometry or {}), *encodings))
        results.notes += [note for note in notes if note not in results.notes]
    comparison.run(encodings, seeds, results)
    return results


def new_results(context: Context, command: str) -> Results:
    """results.json before anything has been measured."""
    return Results(
        maed=__version__,
        command=command,
        commit=commit(),
        source=context.data.source,
        positions=context.data.positions,
        neighbors=context.recall_k(),
        held_out=context.data.held_out or None,
        settings=asdict(context.settings),
        machine=describe_machine(),
        started=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def origin_notes(made_with: MadeWith, rows: Collection[str]) -> list[str]:
    """Notes on the information that the autoencoder had before training.

    Args:
        made_with: Nothing is said of settings that are not there.
        rows: Rows to measure beside it: encodings, or `start`, the embedding that the autoencoder started from.
    """
    notes, init = [], made_with.setting("autoencoder", "init") or "random"
    if init != "random":
        known = init in BASELINES.names
        start, row = (f"the {init} baseline", init) if known else (f"the embedding in {init}", "start")
        gain = f"the row `{row}`" if row in rows else "that start"
        notes.append(
            f"The autoencoder's position vectors started from {start}: only what maed gains over {gain} is its own."
        )
    if made_with.setting("autoencoder", "kind") == "unet":
        order = (
            "positions were not permuted, so that this is no evidence that their order was found"
            if made_with.setting("data", "permute") is None
            else "positions were stored in a random order, which tells it nothing"
        )
        notes.append(f"The U-Net knows the storage order by construction; {order}.")
    return notes
