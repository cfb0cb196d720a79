"""Batches that are made ahead are the same batches, made once each and in turn."""

from __future__ import annotations

from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from maed.engine.ahead import Ahead


class Recorded:
    """Batches that note which of them were made."""

    def __init__(self) -> None:
        self.made: list[int] = []

    def __getitem__(self, number: int) -> str:
        self.made.append(number)
        if number == 13:
            raise ValueError("batch 13 cannot be read")
        return f"batch {number}"


@given(start=st.integers(0, 5), steps=st.integers(1, 7))
def test_each_batch_is_made_once_and_in_turn(start: int, steps: int) -> None:
    batches, end = Recorded(), start + steps
    with closing(Ahead(batches, end)) as ahead:
        assert [ahead[number] for number in range(start, end)] == [f"batch {number}" for number in range(start, end)]
    assert batches.made == list(range(start, end))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8))
def test_any_order_gives_the_batch_that_was_asked_for(numbers: list[int]) -> None:
    with closing(Ahead(Recorded(), 10)) as ahead:
        assert [ahead[number] for number in numbers] == [f"batch {number}" for number in numbers]


def test_a_batch_that_cannot_be_made_fails_when_it_is_asked_for() -> None:
    with closing(Ahead(Recorded(), 20)) as ahead:
        assert ahead[12] == "batch 12"
        with pytest.raises(ValueError, match="13"):
            ahead[13]
