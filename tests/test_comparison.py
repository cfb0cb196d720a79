"""Intervals over seeds and paired differences, against values computed by hand and by scipy."""

import numpy as np
import pytest
from scipy import stats

from maed.errors import MaedError
from maed.evaluation.comparison import compare_all, interval, paired, summarize
from maed.records import Score, Summary


def rows(**accuracies: list[float]) -> list[Score]:
    return [Score(name, seed, value) for name, values in accuracies.items() for seed, value in enumerate(values)]


def test_the_interval_of_three_values_by_hand():
    # s = 1, and the 97.5 % quantile of t with 2 degrees of freedom is 4.3027
    mean, low, high = interval([1.0, 2.0, 3.0])
    assert mean == 2.0
    assert low == pytest.approx(2 - 4.3027 / 3**0.5, abs=1e-4)
    assert high == pytest.approx(2 + 4.3027 / 3**0.5, abs=1e-4)


def test_the_interval_is_scipys():
    values = np.random.default_rng(0).normal(0.5, 0.1, 7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.9)
    assert interval(list(values), 0.9)[1:] == pytest.approx((expected.low, expected.high))


def test_the_interval_of_one_value_is_unknown_and_of_equal_values_empty():
    assert interval([0.5]) == (0.5, None, None)
    assert interval([0.5, 0.5]) == (0.5, 0.5, 0.5)


def test_bad_input_is_named():
    with pytest.raises(MaedError, match="values"):
        interval([])
    with pytest.raises(MaedError, match=r"confidence.*95"):
        interval([1.0], 95)


def test_summary_has_a_row_for_each_encoding_in_order():
    summary = summarize(rows(none=[0.1], maed=[0.5, 0.7]))
    assert summary[0] == Summary("none", 0.1, None, None, seeds=1)
    assert summary[1].positions == "maed"
    assert summary[1].mean == pytest.approx(0.6)
    assert summary[1].seeds == 2


def test_a_constant_gain_is_certain_however_much_seeds_differ():
    result = paired(rows(maed=[0.3, 0.5, 0.9], trainable=[0.2, 0.4, 0.8]), "maed", "trainable")
    assert (result.a, result.b, result.seeds) == ("maed", "trainable", 3)
    assert [result.mean, result.low, result.high] == pytest.approx([0.1] * 3)


def test_only_common_seeds_are_paired():
    scores = rows(maed=[0.3, 0.5, 0.9], trainable=[0.1])
    assert paired(scores, "maed", "trainable").mean == pytest.approx(0.2)
    with pytest.raises(MaedError, match="no seed"):
        paired(scores, "maed", "fourier")


def test_maed_meets_all_and_fourier_the_rest():
    compared = compare_all(rows(none=[0.1], fourier=[0.6], maed=[0.5]))
    assert [(row.a, row.b) for row in compared] == [("maed", "none"), ("maed", "fourier"), ("fourier", "none")]
    assert [row.mean for row in compared] == pytest.approx([0.4, -0.1, 0.5])
