"""What a run decides for itself: ridge and sign of `partial`, the common mode, how many positions a step shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maed.autoencoder import SetAutoencoder, draw_stream
from maed.data import from_given
from maed.data.common_mode import common_mode, common_share, without_common_mode
from maed.records import MadeWith
from maed.settings import AutoencoderSettings, Settings
from maed.similarity import compute_baseline
from maed.similarity.moments import reciprocity
from maed.stages.choices import choose
from test_learner import ring_signals, walks

# --- partial and magnitude ----------------------------------------------------------------------------------------


def partial_by_inverse(X: np.ndarray, ridge: float) -> np.ndarray:
    precision = np.linalg.inv(np.corrcoef(X.T) + ridge * np.eye(X.shape[1]))
    scale = np.sqrt(np.diag(precision))
    found = -precision / np.outer(scale, scale)
    np.fill_diagonal(found, 0)
    return found


def test_partial_is_that_of_the_inverse_with_the_ridge_that_it_says():
    data = from_given(ring_signals(500, 20))
    found = compute_baseline("partial", data)
    expected = partial_by_inverse(data.train.values[..., 0].astype(np.float64), found.facts["ridge"])
    expected = np.maximum(expected, 0) if found.facts["positive"] else np.abs(expected)
    assert np.allclose(found.values.numpy(), expected, atol=1e-5)
    assert (found.standard_error >= 0).all()
    assert 0 <= found.facts["reciprocity"] <= 1


def test_partial_sees_through_what_two_positions_have_from_a_third():
    """A chain: the ends correlate, but only by way of the middle."""
    values = walks(4_000, 6)
    correlation, partial = (compute_baseline(name, from_given(values)).values for name in ("correlation", "partial"))
    assert correlation[1, 5] > 0.3
    assert partial[1, 5] < 0.5 * correlation[1, 5]
    assert partial[1, 2] > partial[1, 5]


def test_partial_takes_gaps_few_signals_constants_and_positions_that_are_nearly_the_same():
    X = ring_signals(400, 20)
    X[np.random.default_rng(0).random(X.shape) < 0.4] = np.nan
    few, constant = ring_signals(6, 20), ring_signals(100, 20)
    constant[:, 3] = 1.0
    twins = np.repeat(ring_signals(300, 10), 2, axis=1) + 1e-7 * np.random.default_rng(1).normal(size=(300, 20))
    for values in (X, few, constant, twins):
        data = from_given(values, settings=replace(Settings().data, missing="mask"))
        found = compute_baseline("partial", data)
        assert found.values.isfinite().all()
        assert found.standard_error.isfinite().all()
    assert compute_baseline("partial", from_given(constant)).values[3].abs().max() < 1e-6


def test_magnitude_finds_what_signs_hide():
    generator = np.random.default_rng(0)
    values = np.abs(ring_signals(2_000, 20)) * generator.choice([-1, 1], size=(2_000, 20))
    data = from_given(values)
    by_value, by_magnitude = (compute_baseline(name, data).values for name in ("correlation", "magnitude"))
    assert by_magnitude[0, 1] > 0.2 > 2 * by_value[0, 1]
    expected = np.abs(np.corrcoef(np.abs(data.train.take(np.arange(len(data.train)))[..., 0].numpy().T)))
    assert np.allclose(by_magnitude[0, 1:], expected[0, 1:], atol=1e-5)


@given(st.integers(0, 2**16), st.integers(1, 5))
@settings(max_examples=20)
def test_reciprocity_is_whole_of_a_metric_line_and_small_of_noise(seed: int, k: int):
    places = torch.arange(12.0)
    ring = -torch.minimum((places - places[:, None]).abs(), 12 - (places - places[:, None]).abs())
    assert reciprocity(ring, ring, 2) == 1
    generator = torch.Generator().manual_seed(seed)
    one, other = (torch.randn(60, 60, generator=generator) for _ in range(2))
    assert abs(reciprocity(one, other, k) - k / 59) < 0.12
    hub = torch.zeros(12, 12)
    hub[:, 0] = 1.0  # everybody's nearest is the first
    assert reciprocity(hub, hub, 1) < 0.2


# --- the common mode ----------------------------------------------------------------------------------------------


def drifting(n: int = 400, share: float = 30.0) -> np.ndarray:
    """A ring under one large drift that all positions share."""
    return ring_signals(n, 24) + share * np.random.default_rng(5).normal(size=(n, 1))


def test_without_its_common_mode_a_signal_has_none_and_positions_keep_unit_deviation():
    X = drifting()
    X[np.random.default_rng(0).random(X.shape) < 0.1] = np.nan
    data = from_given(X, settings=replace(Settings().data, missing="mask"))
    left = without_common_mode(data)
    rows = np.arange(len(left.train))
    batch, real = left.train.take(rows).numpy()[..., 0], left.train.mask[rows]
    whole = batch * left.train.rest[:, 0]
    assert np.abs((whole * real).sum(axis=1) / real.sum(axis=1)).max() < 1e-4
    deviation = np.sqrt((batch**2 * real).sum(axis=0) / real.sum(axis=0))
    assert np.allclose(deviation, 1, atol=1e-3)
    assert torch.equal(left.train.gather(rows[:5], np.arange(24)), left.train.take(rows[:5]))
    assert left.train.rows(rows[3:5]).take(np.arange(2)).equal(left.train.take(rows[3:5]))
    assert common_mode(data.validation).shape == (len(data.validation), 1)


def test_it_is_removed_only_where_it_is_nearly_everything():
    for X, mode in ((drifting(), "remove"), (ring_signals(400, 24), "keep"), (drifting(share=1.0), "keep")):
        data = from_given(X)
        chosen, lines = choose(data, Settings(), set(), reading_order=False)
        assert chosen.autoencoder.common_mode == mode
        assert any(line.startswith("common mode: removed") for line in lines) == (mode == "remove")
    assert common_share(from_given(drifting()).train) > 0.9


# --- what a training shows ----------------------------------------------------------------------------------------


def test_a_training_shows_different_numbers_of_positions_between_its_bounds():
    data = from_given(ring_signals(100, 40))
    chosen = AutoencoderSettings(visible_fraction=0.1, most_visible=0.5, batch_size=4)
    shown = {len(draw.visible[0]) for draw in draw_stream(data.train, 4, chosen, steps=300, seed=0)}
    assert (min(shown), max(shown)) == (4, 20)
    assert len(shown) > 10
    fixed = draw_stream(data.train, 4, replace(chosen, most_visible=None), steps=9, seed=0)
    assert {len(draw.visible[0]) for draw in fixed} == {4}


def test_a_linear_readout_has_no_layer_behind_the_attention():
    torch.manual_seed(0)
    shape = {"channels": 1, "vocabulary": 0, "width": 8, "layers": 1, "heads": 2}
    whole, linear = (SetAutoencoder(12, **shape, readout=kind) for kind in ("feed-forward", "linear"))
    assert sum(p.numel() for p in linear.parameters()) < sum(p.numel() for p in whole.parameters())
    visible = torch.arange(4).repeat(3, 1)
    assert linear.predict(torch.randn(3, 4, 1), visible, torch.arange(4, 12)).shape == (3, 8, 1)


def test_a_run_of_before_is_not_taken_for_another_one_by_what_it_did_not_know():
    before = {"steps": 7, "kind": "set"}
    now = {**before, "most_visible": None, "common_mode": "keep", "readout": "feed-forward"}
    assert MadeWith.of({"autoencoder": before}) == MadeWith.of({"autoencoder": now})
    assert MadeWith.of({"autoencoder": before}) != MadeWith.of({"autoencoder": {**now, "readout": "linear"}})
