"""Recordings cut into windows, and splits that keep moments and groups apart."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maed import MaedError, PositionLearner
from maed.data import from_arrays, from_given, load
from maed.settings import DataSettings
from test_learner import walks

STORED = DataSettings(normalization="none")


def recording(moments: int, positions: int) -> np.ndarray:
    """Moment t of position i is t + i / 100."""
    return (np.arange(moments)[:, None] + np.arange(positions) / 100).astype(np.float32)


@given(moments=st.integers(60, 200), width=st.integers(1, 7), stride=st.integers(1, 9), seed=st.integers(0, 3))
@settings(max_examples=30, deadline=None)
def test_windows_hold_successive_moments_and_no_moment_is_in_two_splits(
    moments: int, width: int, stride: int, seed: int
) -> None:
    chosen = DataSettings(normalization="none", window=width, stride=stride, seed=seed)
    data = from_arrays(recording(moments, 4), settings=chosen)
    assert (data.positions, data.channels) == (4, width)
    seen = []
    for part in (data.train, data.validation, data.test):
        times = np.rint(part.values[:, 0]).astype(int)  # (m, T)
        np.testing.assert_array_equal(times, times[:, :1] + np.arange(width))
        assert (times[:, 0] % stride == 0).all()
        np.testing.assert_allclose(part.values[:, 3], part.values[:, 0] + 0.03, atol=1e-4)
        seen.append({*times.ravel().tolist()})
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]


def test_windows_of_several_channels_and_gaps() -> None:
    X = np.stack([recording(50, 3), -recording(50, 3)], axis=2)
    X[7, 1] = np.nan
    data = from_arrays(X, settings=DataSettings(normalization="none", missing="mask", window=5))
    assert (data.positions, data.channels) == (3, 10)
    masks = np.concatenate([part.mask for part in (data.train, data.validation, data.test)])
    assert (~masks).sum() == 1  # position 1 of the window of moments 5 to 9
    one = data.train.values[0, 0]
    np.testing.assert_array_equal(one[0::2], -one[1::2])


def test_no_group_is_in_two_splits_and_no_window_of_two(tmp_path: Path) -> None:
    frame = pd.DataFrame(recording(600, 4), columns=list("abcd"))
    frame["subject"] = np.repeat([f"s{i}" for i in range(12)], 50)
    frame["state"] = np.repeat(["rest", "move"] * 6, 50)
    frame.to_csv(tmp_path / "x.csv", index=False)
    for window, stride in ((None, None), (20, 10)):
        chosen = DataSettings(normalization="none", group="subject", label="state", window=window, stride=stride)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            data = load(str(tmp_path / "x.csv"), chosen)
        assert any("more than one group" in str(each.message) for each in told) == (window is not None)
        assert data.columns == tuple("abcd")
        assert data.labeled
        train, validation, test = (
            {*(np.rint(part.values[..., 0]).astype(int)[:, 0] // 50).tolist()}
            for part in (data.train, data.validation, data.test)
        )
        assert train
        assert validation
        assert test
        assert not train & (validation | test)
        assert not validation & test
    with pytest.raises(MaedError, match=r"data\.group:"):
        load(str(tmp_path / "x.csv"), DataSettings(group="who"))


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(MaedError, match=r"data\.window"):
        from_arrays(recording(50, 3), settings=DataSettings(window=80))
    with pytest.raises(MaedError, match="tokens"):
        from_given(np.zeros((50, 3), dtype=np.int64), settings=DataSettings(window=5))
    with pytest.raises(MaedError, match=r"data\.stride.*5"):
        DataSettings(stride=5)


def test_a_learner_takes_a_recording() -> None:
    learner = PositionLearner(method="correlation", window=4, stride=2, random_state=0).fit(walks(400, 6))
    assert (learner.embedding_.n, learner.settings_.data.window) == (6, 4)
