"""A training-free similarity of the data: `baselines/NAME/similarity/`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from maed.errors import MaedError
from maed.files import read_json
from maed.run_folder import StageFolder
from maed.similarity import baselines_for, compute_baseline, write_similarity
from maed.similarity.pairs import CANDIDATES
from maed.stages.base import Context, Stage
from maed.stages.similarity import check_memory, methods_of, needs_all_pairs


class Baseline(Stage):
    """Makes the similarity of one training-free method.

    Args:
        method: Name of the baseline.
    """

    def __init__(self, method: str) -> None:
        self.method = method

    def folder(self, context: Context) -> StageFolder:
        """`baselines/NAME/similarity/`."""
        return context.folder.similarity(self.method)

    def made_with(self, context: Context) -> Mapping[str, Any]:
        """Data, method, and how many signals it reads."""
        signals = context.settings.similarity.signals
        candidates = {"candidates": CANDIDATES} if context.sparse else {}
        return {**context.data_made_with, "baseline": self.method, "signals": signals, **candidates}

    def check(self, context: Context) -> None:
        """Refuse a method that is for the other kind of signals."""
        fitting = baselines_for(context.data)
        if self.method not in fitting:
            raise MaedError(
                f"baseline: {self.method!r} does not fit {context.data.kind} signals; choose {' or '.join(fitting)}"
            )
        check_memory(context)
        if context.sparse and self.method not in methods_of(context):
            raise MaedError(f"baseline: {self.method!r} {needs_all_pairs(context)}")

    def run(self, context: Context) -> None:
        """Compute and write it."""
        started, folder = time.perf_counter(), self.folder(context)
        result = compute_baseline(self.method, context.data, context.settings.similarity.signals, sparse=context.sparse)
        chosen = ", ".join(f"{name} {value:.3g}" for name, value in result.facts.items())
        context.say(f"baseline: {self.method}{f' ({chosen})' if chosen else ''}")
        config = {**read_json(folder.config), "seconds": time.perf_counter() - started}
        write_similarity(folder.path, result, None, config)
