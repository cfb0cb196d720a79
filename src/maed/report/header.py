"""The top of a page: the finding, the main numbers, and the settings of the run."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from maed.plots.layout import row_major
from maed.records import MadeWith, Results
from maed.report import tables
from maed.report.contents import Contents
from maed.tasks import metric_of


def lead(contents: Contents) -> list[str]:
    """The finding, in one or two sentences."""
    results, sentences = contents.results, []
    method = results.chosen or "maed"
    found = results.metrics(method).get("knn_recall")
    if found is not None:
        order = ", stored in shuffled order" if is_shuffled(contents) else ""
        k = results.neighbors or "k"
        told = "without having been told where any position lies"
        if method == "maed" and knows_order(contents):
            told = "with a U-Net, which is told in what order positions are stored"
        sentences.append(
            f"From unlabeled signals{order}, the {method} embedding finds {tables.percent(found)} of each position's "
            f"{k} nearest neighbors, {told}."
        )
    for entry in results.paired or []:
        both = "pretrained " if entry.a == "maed, pretrained" else ""
        if (entry.a, entry.b) in (("maed", "trainable"), ("maed, pretrained", "trainable, pretrained")):
            metric = metric_of(entry.task, entry.metric)
            counted = len({row.labels for row in results.paired or []}) > 1
            sentences.append(
                f"With maed positions instead of trainable ones, the test {metric.title} of a {both}Perceiver"
                f"{f' given {tables.labels_text(entry.labels)} labels' if counted else ''} changes by "
                f"{' '.join(filter(None, (tables.difference(entry), metric.gain_unit)))} ({tables.verdict(entry)})."
            )
    return sentences


def tiles(results: Results) -> list[tuple[str, str]]:
    """The numbers that a reader looks for first: value and label, if known."""
    found, k = results.metrics(results.chosen or "maed"), results.neighbors or "k"
    how = "chosen, by a score that needs no truth" if results.probe_loss else "shown; methods were not probed"
    tiles = [
        (results.chosen or tables.NOTHING, how),
        (tables.percent(found.get("knn_recall")), f"of the {k} true neighbors of a position found by the embedding"),
        (tables.percent(found.get("entries_knn_recall")), "found by the similarity itself"),
        (tables.percent((results.split_half or {}).get("maed")), "agreement of two halves of the draws"),
    ]
    summary = tables.summaries(results)
    for entry in summary:
        if entry.positions == "maed":
            metric = metric_of(entry.task, entry.metric)
            counted = f" and {tables.labels_text(entry.labels)} labels" if len({s.labels for s in summary}) > 1 else ""
            counted += "" if entry.pretrained is None else ", pretrained"
            tiles.append((metric.text(entry.mean), f"test {metric.title} with maed positions{counted}"))
    return [tile for tile in tiles if tile[0] != tables.NOTHING]


def facts(contents: Contents) -> list[tuple[str, str]]:
    """The setup of the run, as names and values; only what is known."""
    results, order = contents.results, ""
    if contents.coordinates is not None and contents.shape:
        order = "shuffled: storage order tells nothing" if is_shuffled(contents) else "stored in true order"
    facts = {
        "Source": contents.source,
        "Positions": f"{contents.positions:,}" if contents.positions else "",
        "Order": order,
        "Held out": results.held_out or _held_out(contents),
        "Command": results.command,
        "Commit": results.commit,
        "Version": results.maed,
        "Started": results.started,
        "Machine": _machine(results.machine),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _machine(described: dict[str, Any]) -> str:
    """Processor, cores and so on, then versions, in a line."""
    versions = described.get("versions") or {}
    plain = [
        f"{key.replace('_', ' ')}: {value}"
        for key, value in described.items()
        if value is not None and key != "versions"
    ]
    return ", ".join([*plain, *(f"{name} {found}" for name, found in versions.items() if found)])


def _held_out(contents: Contents) -> str:
    """Describe the held-out signals by the settings of a run that did not record them; empty if unknown."""
    given = contents.made_with.data or (contents.results.settings.get("data") or {})
    if not given:
        return ""
    way = {"blocks": "in blocks of neighboring signals", "original-imdb": "as in the original"}.get(
        given.get("split") or "", "at random, each class by its share where there are labels"
    )
    if given.get("window") is not None:
        way = "in blocks of time"
    if given.get("group") is not None:
        way = f"by whole groups of {given['group']}"
    return f"{way}; splits that the source stores apart are used as they are"


def settings_text(results: Results) -> str:
    """All settings, to be read."""
    return json.dumps(results.settings, indent=2, ensure_ascii=False) if results.settings else ""


def knows_order(contents: Contents) -> bool:
    """True if the autoencoder is one that is told the storage order."""
    asked = MadeWith.of(contents.results.settings)
    return "unet" in (made.setting("autoencoder", "kind") for made in (contents.made_with, asked))


def is_shuffled(contents: Contents) -> bool:
    """True if the storage order differs from the order of the true line or grid."""
    if contents.coordinates is None or not contents.shape:
        return False
    return not np.array_equal(row_major(contents.coordinates, contents.kind), np.arange(len(contents.coordinates)))
