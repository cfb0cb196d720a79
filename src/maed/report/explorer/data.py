"""The explorer's data: facts as JSON, and arrays as blocks of text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from maed import plots
from maed.plots.layout import align, align_in_space, chart, row_major
from maed.registry import ESTIMATORS
from maed.report.contents import Contents, Examples
from maed.report.explorer.blocks import Blocks
from maed.report.explorer.views import MATRIX, Kept, View, compute_views, encodings, laid_out, similarities
from maed.report.tokens import text_examples
from maed.run_folder import RunFolder
from maed.settings import ReportSettings

BUDGET = 18 * 2**20
"""Bytes of text of all arrays: with plotly.js, and the rest of the page, less than 25 MB."""

_SHOWN = 3 * 2**20
"""Numbers of reconstructions that the page steps through; where there are more, it has fewer signals."""

_LISTED = 8
"""Nearest neighbors that are listed and marked."""

_POINTS = 5000
"""Most positions that are drawn as single points: more of them are drawn along the order in which they are stored."""

Facts = dict[str, Any]


def explorer_data(
    folder: RunFolder, contents: Contents, settings: ReportSettings, kept: Path | None = None
) -> tuple[Facts | None, dict[str, str]]:
    """The facts that the explorer is made of, and the blocks that they refer to.

    What other estimators and reductions make of the run's sums is computed here.

    Args:
        folder: Folder of the run.
        contents: Contents of the run, as read.
        settings: Settings of the page.
        kept: a file for what is computed; the run's own where None.

    Returns:
        None and nothing where the folder holds neither embedding nor similarity nor reconstructions.
    """
    blocks = Blocks(BUDGET)
    facts: Facts = {"source": contents.source, "notes": [], "positions": None, "signals": None}
    if contents.vectors is not None or contents.similarity is not None:
        found = Kept(kept or folder.views)
        facts["positions"] = _positions(folder, contents, settings, blocks, facts["notes"], found)
    if contents.examples is not None:
        facts["signals"] = _signals(contents, contents.examples, blocks)
    return (facts, blocks.texts) if facts["positions"] or facts["signals"] else (None, {})


def _positions(
    folder: RunFolder, contents: Contents, settings: ReportSettings, blocks: Blocks, notes: list[str], kept: Kept
) -> Facts | None:
    """All that is shown of positions. The run's own parts come first, as later ones may find the page full."""
    made_of = similarities(folder, contents)
    views, absent = compute_views(contents, made_of, settings.reductions, kept)
    views += [View(name, vectors, *laid_out(vectors)) for name, vectors in encodings(contents)]
    first = views[0].layout if views else None
    n, known = contents.positions or 0, contents.coordinates
    # by where a position truly lies, else by where it is stored
    colors = plots.position_colors(np.arange(n, dtype=np.float64)[:, None] if known is None else known)
    facts: Facts = {
        "n": n,
        "k": min(contents.results.neighbors or _LISTED, n - 1),
        "called": None if contents.names is None else list(contents.names),
        "drawn": _drawn(contents, first, blocks),
        "coordinates": None if known is None else blocks.add(known.astype(np.float32)),
        "colors": blocks.add(np.round(255 * np.clip(colors, 0, 1)).astype(np.uint8)),
        "own": {"estimator": contents.estimator, "reduction": contents.reduction},
        "baselines": list(contents.baselines),
        "views": [],
        "estimators": [],
    }
    waiting: list[View | str] = [*views[:1], *list(made_of)[:1], *views[1:2], *list(made_of)[1:], *views[2:]]
    full: list[str] = []
    for item in waiting:
        if isinstance(item, View):
            title = f"{item.encoding} ({item.estimator}, {item.reduction})" if item.estimator else item.encoding
            _add(facts["views"], _view(contents, item, blocks), title, full)
        elif n <= MATRIX:
            _add(facts["estimators"], _estimator(item, made_of[item].values.numpy(), blocks), item, full)
    notes += absent
    for name in made_of:
        if name != contents.estimator and name in ESTIMATORS.names and ESTIMATORS.get(name).transform == "none":
            notes.append(
                f"{name} is made here of the losses that {contents.estimator} took, maybe roots of squared errors; a "
                f"run with --similarity.estimator {name} takes the errors themselves."
            )
    if n > MATRIX:
        notes.append(
            f"{n:,} positions are more than {MATRIX:,}: maps are derived from the vectors, in 8 bits a number, and "
            "whole similarities are not in this page."
        )
    if full:
        notes.append(f"Left out, to keep this page below 25 MB: {', '.join(full)}.")
    return facts if facts["views"] or facts["estimators"] else None


def _add(items: list[Facts], item: Facts | None, name: str, full: list[str]) -> None:
    items.append(item) if item is not None else full.append(name)


def _estimator(name: str, values: np.ndarray, blocks: Blocks) -> Facts | None:
    """A similarity in codes, and the exact nearest of each position: codes have ties."""
    matrix = blocks.add_matrix(values)
    if matrix is None:
        return None
    ranked = values.astype(np.float32, copy=True)
    np.fill_diagonal(ranked, -np.inf)
    k = min(_LISTED, len(values) - 1)
    nearest = np.argpartition(-ranked, k - 1, axis=1)[:, :k]
    order = np.argsort(-np.take_along_axis(ranked, nearest, axis=1), axis=1, kind="stable")
    return {
        "name": name,
        **matrix,
        "neighbors": blocks.add(np.take_along_axis(nearest, order, axis=1).astype(np.uint16)),
    }


def _view(contents: Contents, view: View, blocks: Blocks) -> Facts | None:
    vectors = blocks.add_vectors(view.vectors)
    if vectors is None:
        return None
    plane, space = view.layout[:, :2].astype(np.float64), view.layout.astype(np.float64)
    if contents.coordinates is not None:
        plane, space = align(plane, contents.coordinates), align_in_space(space, contents.coordinates)
    if contents.is_grid:  # (row, column), rows growing downwards
        plane, space = plane[:, ::-1] * [1, -1], space[:, [1, 0, 2]] * [1, -1, 1]
    flat, spatial = blocks.add_vectors(_centered(plane), bits=16), blocks.add_vectors(_centered(space), bits=16)
    if flat is None or spatial is None:
        return None
    names = {"encoding": view.encoding, "estimator": view.estimator, "reduction": view.reduction}
    return {**names, "vectors": vectors, "plane": flat, "space": spatial, "laidOutBy": view.laid_out_by}


def _centered(points: np.ndarray) -> np.ndarray:
    return np.asarray(points - (points.min(axis=0) + points.max(axis=0)) / 2)


def _drawn(contents: Contents, layout: np.ndarray | None, blocks: Blocks) -> Facts:
    """The form in which values of positions are drawn: cells of an image, places on a line, or points."""
    coordinates, n = contents.coordinates, contents.positions or 0
    as_stored = {"kind": "curve", "axis": "position, as stored", "where": "in the order in which positions are stored"}
    if coordinates is None:
        if layout is None or n > _POINTS:
            return {**as_stored, "x": blocks.add(np.arange(n, dtype=np.float32)), "names": "stored"}
        points = blocks.add(layout[:, :2].astype(np.float32))
        where = "where the embedding lays positions out, as their true places are not known"
        return {"kind": "points", "xy": points, "framed": False, "names": "stored", "where": where}
    if len(contents.shape) == 2 and (contents.is_grid or contents.kind == "torus"):
        where = "on the true grid" if contents.is_grid else "on the true torus, cut open"
        place = blocks.add(row_major(coordinates, contents.kind).astype(np.uint32))
        return {"kind": "image", "shape": list(contents.shape), "place": place, "names": "cells", "where": where}
    if coordinates.shape[1] == 1:
        x = blocks.add(coordinates[:, 0].astype(np.float32))
        return {"kind": "curve", "x": x, "axis": "position", "names": "line", "where": "along the true line"}
    if n > _POINTS:
        return {**as_stored, "x": blocks.add(np.arange(n, dtype=np.float32)), "names": "coordinates"}
    points = blocks.add(chart(coordinates, contents.kind).astype(np.float32))
    return {"kind": "points", "xy": points, "names": "coordinates", "where": "at the true coordinates"}


def _signals(contents: Contents, examples: Examples, blocks: Blocks) -> Facts | None:
    """Reconstructions: images, curves or texts, of as many signals as the page has room for."""
    numbers = examples.reconstruction[:, 0].size
    count = max(1, min(len(examples.original), _SHOWN // max(1, numbers)))
    original, visible = examples.original[:count], examples.visible[:, :count]
    made = examples.reconstruction[:, :count]
    facts: Facts = {
        "count": count,
        "fractions": [float(f) for f in examples.fractions],
        "trained": examples.trained,
        "shown": visible.sum(axis=2).tolist(),
        "n": int(original.shape[1]),
    }
    if examples.is_tokens:
        order = np.arange(original.shape[1])
        if contents.coordinates is not None:
            order = np.argsort(row_major(contents.coordinates, contents.kind))
        hidden = ~visible & _before_padding(original, order)
        right = (hidden & (made == original)).sum(axis=2) / np.maximum(hidden.sum(axis=2), 1)
        facts |= {"kind": "texts", "right": np.round(right, 4).tolist()}
        pieces = [text_examples(original, seen, guess, order) for seen, guess in zip(visible, made, strict=True)]
        content = {"texts": blocks.add(np.frombuffer(json.dumps(pieces).encode(), dtype=np.uint8))}
    else:
        error = np.square(made.astype(np.float64) - original).mean(axis=3)
        error = np.where(visible, 0, error).sum(axis=2) / np.maximum((~visible).sum(axis=2), 1)
        facts["error"] = [[float(f"{value:.4g}") for value in row] for row in np.nan_to_num(error).tolist()]
        seen = blocks.add(visible.astype(np.uint8))
        is_image = contents.coordinates is not None and len(contents.shape) == 2
        content = {"visible": seen, **(_images if is_image else _curves)(contents, original, made, blocks)}
    return None if any(value is None for value in content.values()) else {**facts, **content}


def _images(contents: Contents, original: np.ndarray, made: np.ndarray, blocks: Blocks) -> Facts:
    assert contents.coordinates is not None
    colors = _bytes(made.reshape(-1, *made.shape[2:]), original)
    return {
        "kind": "images",
        "shape": list(contents.shape),
        "place": blocks.add(row_major(contents.coordinates, contents.kind).astype(np.uint32)),
        "original": blocks.add(_bytes(original, original)),
        "reconstruction": blocks.add(colors.reshape(*made.shape[:3], -1)),
    }


def _bytes(signals: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Signals `(S, N, C)` as colors, uint8, of 3 channels, or of 1: the first where C is not 3."""
    colors = np.round(255 * plots.to_unit(signals, reference)[:, :, :3]).astype(np.uint8)
    return colors if signals.shape[2] == 3 else colors[:, :, :1]


def _curves(contents: Contents, original: np.ndarray, made: np.ndarray, blocks: Blocks) -> Facts:
    line = contents.coordinates is not None and contents.coordinates.shape[1] == 1
    known = contents.coordinates[:, 0] if line and contents.coordinates is not None else None
    x = np.arange(original.shape[1]) if known is None else known
    made = np.clip(made[..., 0], np.nanmin(original), np.nanmax(original))
    return {
        "kind": "curves",
        "x": blocks.add(x.astype(np.float32)),
        "axis": "position" if line else "position, as stored",
        "original": blocks.add_vectors(np.nan_to_num(original[..., 0]), bits=16),
        "reconstruction": blocks.add_vectors(np.nan_to_num(made), bits=16),
    }


def _before_padding(ids: np.ndarray, order: np.ndarray) -> np.ndarray:
    """`(S, N)` bool: the positions before the last run of equal ids, which is padding where there is any."""
    ordered = ids[:, order]
    before = (ordered != ordered[:, -1:])[:, ::-1].cumsum(axis=1)[:, ::-1] > 0
    result = np.empty_like(before)
    result[:, order] = before
    return result
