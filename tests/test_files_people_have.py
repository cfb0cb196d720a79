"""Each file and object that people have reads as the clean array does, or is refused with its remedy."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from files_people_have import CASES, DOCS, all_values, in_docs, ordered, read, result
from maed import MaedError
from maed.data import delimited, long_tables, tables

_COUNT = Counter[str]()
IDS = [f"{case.what} {_COUNT.update([case.what]) or _COUNT[case.what]}" for case in CASES]


@pytest.mark.parametrize("number", range(len(CASES)), ids=IDS)
def test_it_reads_as_the_clean_array_or_is_refused(number: int) -> None:
    case, (found, said) = CASES[number], result(number)
    if case.clean is None:
        assert isinstance(found, MaedError)
        assert "\n" not in str(found)
        # a message about a file begins with its path
        assert case.argument in (found.argument, "path" if found.argument.startswith("/") else None)
    else:
        assert not isinstance(found, MaedError), found
        scale = max(1.0, float(np.nanmax(np.abs(case.clean))))
        np.testing.assert_allclose(all_values(found), ordered(case.clean), atol=1e-4 * scale)
        assert case.names is None or found.names == case.names
        assert found.labeled == case.labeled
        assert (0 if found.geometry is None else found.geometry.placed.sum()) == case.placed
    assert [fact for fact in case.facts if fact not in " ".join(said)] == []


def test_what_is_as_usual_needs_no_line() -> None:
    usual = ("plain.csv", "columns.parquet", "fractions.npy", "inputs and labels.npz", "pandas", "numpy, float64")
    assert [result(number)[1] for number, case in enumerate(CASES) if case.what in usual] == [[]] * len(usual)


TABLES = ("csv", "tsv", "dat", "gz", "parquet")
LONG = [i for i, case in enumerate(CASES) if case.clean is not None and case.what.rpartition(".")[2] in TABLES]


@pytest.mark.parametrize("number", LONG, ids=[IDS[i] for i in LONG])
def test_a_long_table_is_read_in_pieces_and_is_the_same(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, said = result(number)
    in_pieces = []

    def gathered(*arguments: Any) -> Any:
        in_pieces.append(long_tables.gathered(*arguments))
        return in_pieces[-1]

    for module in (delimited, tables):
        monkeypatch.setattr(module, "LONG", 0)
        monkeypatch.setattr(module, "PIECE", 1 << 9)
        monkeypatch.setattr(module, "gathered", gathered)
    found, said_in_pieces = read(CASES[number], tmp_path)
    assert len(in_pieces) == 1
    assert not isinstance(found, MaedError), found
    assert not isinstance(whole, MaedError)
    np.testing.assert_array_equal(all_values(found), all_values(whole))
    assert (found.names, found.classes, found.kind) == (whole.names, whole.classes, whole.kind)
    assert said_in_pieces == said


def test_the_page_shows_what_each_becomes() -> None:
    assert len(CASES) >= 60
    text = DOCS.read_text(encoding="utf-8")
    assert in_docs(text) == text, "python tests/files_people_have.py writes it anew"
