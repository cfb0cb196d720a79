"""Mutants of the modules that compute: would the tests notice?

    pip install cosmic-ray                             # not part of the set-up
    python benchmarks/mutation.py --places 300         # results/reliability/mutation.json and docs/reliability.md

One small change at a time (an operator, a number, a comparison, a condition, a decorator, a loop that does not run) is
made to a copy of the package by cosmic-ray's operators, and the tests of that module run until one fails. Places in the
source are drawn at random, and at each place one of its mutants, so that an operator with eleven replacements does not
count eleven times. Left out are annotations, which nothing evaluates. Tests that are marked `slow` or `browser` do not
run, so the score is a lower bound: mutants that change nothing (a default that nobody relies on, a tolerance, a size of
blocks) cannot be killed.
"""

from __future__ import annotations

import argparse
import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast_from_path
from cosmic_ray.mutating import mutate_and_test
from cosmic_ray.plugins import get_operator, operator_names
from cosmic_ray.work_item import MutationSpec, TestOutcome

from maed.errors import MaedError
from maed.files import read_json, write_json, write_text
from maed.machine import commit, describe_machine
from maed.report.tables import markdown_table
from pages import filled

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "results" / "reliability" / "mutation.json"
PAGE = ROOT / "docs" / "reliability.md"

TESTS: dict[str, tuple[str, ...]] = {
    "similarity": ("test_similarity", "test_closed_form", "test_without_truth", "test_many_positions"),
    "embedding": (
        *("test_embedding", "test_geometry", "test_many_positions", "test_artifact", "test_attention"),
        *("test_export", "test_original_models", "test_integrations"),
    ),
    "evaluation": ("test_geometry", "test_comparison", "test_probe", "test_without_truth", "test_many_positions"),
}
"""The rooms that are mutated, and the tests that should notice, the quickest first."""

_TIMEOUT = 300.0  # seconds; a mutant that loops forever is noticed


def places(room: Path) -> dict[tuple[str, Any], list[MutationSpec]]:
    """The mutants of every place in the modules of a room."""
    found = defaultdict[tuple[str, Any], list[MutationSpec]](list)
    for path in sorted(room.rglob("*.py")):
        tree, ignored = get_ast_from_path(path), [*_annotations(path)]
        for name in operator_names():
            kind = get_operator(name)
            if kind.arguments():  # what has to be told which variable
                continue
            operator = kind()
            spans = ((start, end) for node in ast_nodes(tree) for start, end in operator.mutation_positions(node))
            for occurrence, (start, end) in enumerate(spans):
                if not any(first <= tuple(start) and tuple(end) <= last for first, last in ignored):
                    spec = MutationSpec(
                        module_path=path, operator_name=name, occurrence=occurrence, start_pos=start, end_pos=end
                    )
                    found[str(path), tuple(start)].append(spec)
    return found


def _annotations(path: Path) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Where the annotations of a module begin and end."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        for name in ("annotation", "returns"):
            if (part := getattr(node, name, None)) is not None:
                yield (part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset)


def mutate(count: int, rooms: Sequence[str], seed: int, workers: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Try `count` mutants of each room.

    Yields:
        The room, how many were tried, and a line for each that was not noticed.
    """
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for part in ("src", "tests", "benchmarks", "examples", "docs", "pyproject.toml", "README.md"):
            whole = ROOT / part
            if whole.is_dir():
                shutil.copytree(whole, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(whole, copy / part)
        os.chdir(copy)
        # as the tests are to see it, without cosmic-ray's own packages
        os.environ |= {"PYTHONPATH": str(copy / "src"), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        for room in rooms:
            tests = " ".join(f"tests/{test}.py" for test in TESTS[room])
            options = f"-x -q -p no:cacheprovider -n {workers} -m 'not slow and not browser'"
            command = f"{sys.executable} -m pytest {options} {tests}"
            if subprocess.run(command, shell=True, check=False, capture_output=True).returncode:
                raise MaedError(f"{room}: its tests fail before anything is mutated: {command}")
            found = places(copy / "src" / "maed" / room)
            chance = random.Random(f"{seed} {room}")
            tried, survived = Counter[str](), []
            for place in chance.sample(sorted(found), min(count, len(found))):
                spec = chance.choice(found[place])
                result = mutate_and_test([spec], command, _TIMEOUT)
                tried[Path(place[0]).name] += 1
                if result.test_outcome is TestOutcome.SURVIVED:
                    lines = [
                        line for line in (result.diff or "").splitlines() if line[:1] in "+-" and line[1:2] != line[:1]
                    ]
                    changed = " -> ".join(" ".join(line[1:].split()) for line in lines)
                    where = f"{Path(place[0]).relative_to(copy / 'src')}:{spec.start_pos[0]}"
                    survived.append(f"{where}: {changed}")
                    print(f"survived: {survived[-1]}", file=sys.stderr, flush=True)
                if tried.total() % 20 == 0:
                    print(f"{room}: {tried.total()} tried, {len(survived)} survived", flush=True)
            yield room, {"places": len(found), "tried": tried.total(), "survived": survived}
        os.chdir(ROOT)


def table(rooms: dict[str, dict[str, Any]]) -> str:
    """How many mutants were noticed."""
    rows = [["Modules", "Places", "Mutants tried", "Noticed", "Share", "Seed", "Commit"]]
    for name, row in rooms.items():
        noticed = row["tried"] - len(row["survived"])
        share = f"{100 * noticed / row['tried']:.0f} %"
        known = [f"`maed.{name}`", f"{row['places']:,}", f"{row['tried']}", f"{noticed}", share]
        rows.append([*known, f"{row['seed']}", row["commit"][:12]])
    return markdown_table(rows)


def docs() -> None:
    """Write the table of docs/reliability.md."""
    text = filled(PAGE.read_text(encoding="utf-8"), {"mutation": table(read_json(RESULTS)["rooms"])})
    write_text(PAGE, text)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--places", type=int, default=100, help="mutants of each room")
    parser.add_argument("--rooms", default=",".join(TESTS), help="with commas between them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", default="0", help="processes of pytest")
    given = parser.parse_args()
    started = time.monotonic()
    for room, row in mutate(given.places, given.rooms.split(","), given.seed, given.workers):
        recorded: dict[str, Any] = read_json(RESULTS) if RESULTS.is_file() else {"schema": 1, "rooms": {}}
        facts: dict[str, Any] = {"seed": given.seed, "commit": commit(), "seconds": round(time.monotonic() - started)}
        facts |= {"machine": describe_machine(), "date": datetime.now(UTC).date().isoformat()}
        recorded["rooms"][room] = row | facts
        write_json(RESULTS, recorded)
    docs()


if __name__ == "__main__":
    main()
