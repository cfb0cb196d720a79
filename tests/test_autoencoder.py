"""Masking, the set-style autoencoder and its training, on signals small enough to reason about."""

import math
import re
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from safetensors.torch import load_file

from maed.autoencoder import (
    SetAutoencoder,
    build_autoencoder,
    load_autoencoder,
    loss_name,
    outputs_of,
    pretrain,
    visible_count,
)
from maed.autoencoder import training as module_under_test
from maed.autoencoder.examples import shown_counts
from maed.autoencoder.losses import position_losses, reconstruction_of
from maed.autoencoder.masking import Draw, draw_real_subsets, draw_subsets, make_draw, nested_draws
from maed.autoencoder.training import Autoencoder, AutoencoderTask, DrawStream, learning_rate, start_from
from maed.data.signals import SignalData, Signals
from maed.embedding import PositionEmbedding, reduce
from maed.errors import MaedError
from maed.files import read_json, write_json
from maed.settings import AutoencoderSettings, EmbeddingSettings, Settings, TrainerSettings
from maed.similarity import compute_baseline
from maed.stages import Baseline, Pretrain, execute
from maed.tensors import write_tensors
from stages import context

N = 12
TRAINER = TrainerSettings(accelerator="cpu", progress="none", precision="32-true")


def pairs(n: int = 600, seed: int = 0) -> SignalData:
    """12 positions, of which 0 and 1, 2 and 3, ... hold nearly the same number: mean 0, variance 1."""
    generator = np.random.default_rng(seed)
    shared = np.repeat(generator.normal(0, 1, (n, N // 2)), 2, axis=1)
    values = (0.99 * shared + math.sqrt(1 - 0.99**2) * generator.normal(0, 1, (n, N))).astype(np.float32)[..., None]
    mean, scale = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    train, validation, test = (
        Signals(values[a:b], mean=mean, scale=scale) for a, b in ((0, n // 2), (n // 2, n), (0, 2))
    )
    return SignalData("pairs", "real", train, validation, test)


def words(n: int = 200, seed: int = 0) -> SignalData:
    """Token pairs that repeat each other, in signals of 2 to 12 real positions."""
    generator = np.random.default_rng(seed)
    mask = np.arange(N) < generator.integers(2, N + 1, (n, 1))
    ids = np.where(mask, np.repeat(generator.integers(1, 5, (n, N // 2)), 2, axis=1), 0).astype(np.int16)
    part = Signals(ids, mask=mask)
    return SignalData("words", "tokens", part, part, part, vocabulary=5)


def quick(**settings) -> AutoencoderSettings:
    defaults = {"width": 16, "heads": 2, "layers": 1, "scored": 8, "batch_size": 32, "steps": 20, "warmup": 5}
    return AutoencoderSettings(**(defaults | {"validate_every": 7, "visible_fraction": 0.34} | settings))


# -- which positions ----------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 40), st.data())
def test_subsets_are_drawn_without_replacement(seed, rows, n, data):
    k = data.draw(st.integers(1, n))
    chosen = draw_subsets(np.random.default_rng(seed), rows, n, k)
    assert chosen.shape == (rows, k)
    assert chosen.min() >= 0
    assert chosen.max() < n
    assert all(len(set(row)) == k for row in chosen.tolist())


def shares_of_subsets(chosen: np.ndarray) -> dict[tuple[int, ...], float]:
    subsets, counts = np.unique(np.sort(chosen, axis=1), axis=0, return_counts=True)
    return {tuple(row): count / len(chosen) for row, count in zip(subsets.tolist(), counts.tolist(), strict=True)}


def test_every_subset_is_equally_likely():
    # ten pairs out of five; a share of 20,000 draws has a standard error of sqrt(0.1 * 0.9 / 20000) = 0.0021
    shares = shares_of_subsets(draw_subsets(np.random.default_rng(0), 20_000, 5, 2))
    assert shares.keys() == set(combinations(range(5), 2))
    assert all(share == pytest.approx(0.1, abs=5 * 0.0021) for share in shares.values())


def test_every_subset_of_the_real_positions_is_equally_likely():
    real = np.tile([True, False, True, True, False, True, True], (20_000, 1))
    chosen, mask = draw_real_subsets(np.random.default_rng(0), real, np.full(20_000, 2))
    assert mask.all()
    shares = shares_of_subsets(chosen)
    assert shares.keys() == set(combinations((0, 2, 3, 5, 6), 2))
    assert all(share == pytest.approx(0.1, abs=5 * 0.0021) for share in shares.values())


@pytest.mark.parametrize(
    ("n", "kind", "fraction", "count"),
    [
        (1024, "real", None, 24),  # 3/4 of 32
        (64, "real", None, 6),
        (4, "real", None, 2),  # never fewer than two ...
        (2, "real", None, 1),  # ... or all
        (2048, "tokens", None, 410),
        (1024, "real", 0.01, 10),
        (10, "tokens", 0.9, 9),
    ],
)
def test_how_many_positions_are_visible(n, kind, fraction, count):
    assert visible_count(n, kind, fraction) == count


def test_a_fraction_that_shows_none_or_all_is_refused():
    with pytest.raises(MaedError, match=r"must be between 0\.01"):
        visible_count(100, "real", 0.001)
    with pytest.raises(MaedError, match="visible_fraction"):
        visible_count(100, "real", 0.999)


# -- a draw -------------------------------------------------------------------------------------------------------


def visible_sets(draw: Draw) -> list[list[int]]:
    mask = torch.ones_like(draw.visible, dtype=torch.bool) if draw.visible_mask is None else draw.visible_mask
    return [positions[keep].tolist() for positions, keep in zip(draw.visible, mask, strict=True)]


@given(
    arrays(bool, st.tuples(st.integers(1, 6), st.integers(2, 20))).filter(lambda real: real.any(axis=1).all()),
    st.integers(0, 2**32 - 1),
    st.data(),
)
def test_padding_is_never_visible_and_never_scored(real, seed, data):
    n = real.shape[1]
    visible, scored = data.draw(st.integers(1, n - 1)), data.draw(st.none() | st.integers(1, n))
    signals = Signals(np.arange(real.size, dtype=np.int32).reshape(real.shape), mask=real)
    draw = make_draw(signals, np.random.default_rng(seed), rows=np.arange(len(real)), visible=visible, scored=scored)
    for row, seen in enumerate(visible_sets(draw)):
        there = set(np.flatnonzero(real[row]).tolist())
        assert len(seen) == len(set(seen)) >= 1
        assert set(seen) <= there
        hidden = set(draw.scored[draw.hidden[row]].tolist())
        assert hidden == (there - set(seen)) & set(draw.scored.tolist())
        if len(there) > 1:
            assert len(seen) < len(there)  # something is left to predict


@given(st.integers(0, 2**32 - 1))
def test_a_signal_without_real_positions_scores_nothing(seed):
    real = np.array([[True] * 5, [False] * 5])
    signals = Signals(np.zeros((2, 5), np.int16), mask=real)
    draw = make_draw(signals, np.random.default_rng(seed), rows=np.arange(2), visible=2, scored=None)
    assert draw.hidden.sum(dim=1).tolist() == [3, 0]


def test_a_signal_shows_the_same_share_of_its_real_positions():
    real = np.arange(20) < np.array([[20], [10], [5], [1]])
    signals = Signals(np.zeros((4, 20), np.int16), mask=real)
    draw = make_draw(signals, np.random.default_rng(0), rows=np.arange(4), visible=8, scored=None)
    assert [len(seen) for seen in visible_sets(draw)] == [8, 4, 2, 1]


@pytest.mark.parametrize("per_position", [False, True])
def test_values_and_targets_are_the_signals_at_these_positions(per_position):
    generator = np.random.default_rng(0)
    stored = generator.integers(0, 255, (7, N, 3)).astype(np.uint8)
    shape = (N if per_position else 1, 3)
    mean, scale = (generator.uniform(50, 60, shape).astype(np.float32) for _ in range(2))
    signals, rows = Signals(stored, mean=mean, scale=scale), np.array([4, 4, 0, 6])
    draw = make_draw(signals, generator, rows=rows, visible=3, scored=5)
    expected = torch.from_numpy((stored[rows] - mean) / scale)  # (B, N, C)
    at = torch.arange(4)[:, None]
    assert torch.equal(draw.values, expected[at, draw.visible])
    assert torch.equal(draw.targets, expected[:, draw.scored])


def test_tokens_and_targets_are_the_ids_at_these_positions():
    data, rows = words(), np.array([3, 0, 9])
    draw = make_draw(data.train, np.random.default_rng(0), rows=rows, visible=4, scored=None)
    ids = torch.from_numpy(data.train.values[rows]).long()
    assert torch.equal(draw.targets, ids)
    assert torch.equal(draw.values, ids.gather(1, draw.visible))
    assert draw.values.dtype == torch.int64


@pytest.mark.parametrize(("scored", "expected"), [(5, 5), (12, 12), (100, 12), (None, 12)])
def test_a_draw_scores_as_many_positions_as_asked_for(scored, expected):
    data = pairs()
    draw = make_draw(data.train, np.random.default_rng(0), rows=np.arange(9), visible=4, scored=scored)
    assert draw.scored.shape == draw.scored.unique().shape == (expected,)
    assert draw.targets.shape == (9, expected, 1)


def test_draw_t_depends_on_the_seed_and_on_t_alone():
    def stream(seed):
        return DrawStream(pairs().train, visible=4, scored=5, batch_size=3, length=10, seed=seed)

    later = [stream(0)[t].values for t in (7, 2)]
    assert torch.equal(stream(0)[2].values, later[1])
    assert not torch.equal(stream(0)[7].values, later[1])
    assert not torch.equal(stream(1)[2].values, later[1])
    assert len(list(stream(0))) == 10


# -- losses -------------------------------------------------------------------------------------------------------


def test_the_squared_error_is_the_mean_over_channels():
    losses = position_losses(torch.tensor([[[1.0, 2.0], [0.0, 0.0]]]), torch.tensor([[[1.0, 5.0], [3.0, 4.0]]]), "mse")
    assert losses.tolist() == [[4.5, 12.5]]


def test_cross_entropy_is_in_nats():
    # probabilities 1/2, 1/4, 1/4 at the first position, 1/3 each at the second
    logits = torch.tensor([[[math.log(2), 0.0, 0.0], [5.0, 5.0, 5.0]]])
    losses = position_losses(logits, torch.tensor([[1, 2]]), "cross-entropy")
    assert losses.shape == (1, 2)
    assert losses[0].tolist() == pytest.approx([math.log(4), math.log(3)])


def test_losses_are_float32_after_a_reconstruction_in_bfloat16():
    reconstruction, targets = torch.zeros(2, 3, 1, dtype=torch.bfloat16), torch.full((2, 3, 1), 1.001)
    assert torch.equal(position_losses(reconstruction, targets, "mse"), targets[..., 0].square())


@given(st.integers(0, 2**32 - 1), st.integers(1, 3), st.floats(-4, 4))
def test_the_gaussian_loss_is_minus_the_log_likelihood_of_a_normal_distribution(seed, channels, shift):
    generator = torch.Generator().manual_seed(seed)
    output = torch.randn(2, 5, 2 * channels, generator=generator) + shift
    targets = torch.randn(2, 5, channels, generator=generator)
    mean, raw = output[..., :channels], output[..., channels:]
    normal = torch.distributions.Normal(mean, (1e-3 + raw.exp()).sqrt())
    expected = -normal.log_prob(targets).mean(dim=-1)
    assert torch.allclose(position_losses(output, targets, "gaussian"), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(reconstruction_of(output, "gaussian"), mean)


def test_a_constant_has_no_infinite_likelihood_and_a_gradient():
    output = torch.tensor([[[0.0, -100.0]]], requires_grad=True)  # certain, and right
    loss = position_losses(output, torch.zeros(1, 1, 1), "gaussian")
    assert loss.item() == pytest.approx(0.5 * math.log(2 * math.pi * 1e-3), rel=1e-4)
    wrong = position_losses(output, torch.ones(1, 1, 1), "gaussian")
    wrong.sum().backward()
    assert output.grad.isfinite().all()
    assert output.grad[0, 0, 0] < 0


def test_how_many_numbers_a_position_needs():
    assert outputs_of("mse", channels=3, vocabulary=0) == 3
    assert outputs_of("gaussian", channels=3, vocabulary=0) == 6
    assert outputs_of("cross-entropy", channels=0, vocabulary=262) == 262


class Zeros(torch.nn.Module):
    def predict(self, values, visible, scored, visible_mask=None):
        return torch.zeros(len(visible), len(scored), 1)


def test_the_trained_loss_is_the_mean_over_hidden_scored_positions():
    draw = Draw(
        values=torch.zeros(2, 1, 1),
        visible=torch.tensor([[0], [1]]),
        visible_mask=None,
        scored=torch.tensor([0, 1, 2]),
        targets=torch.tensor([[9.0, 1.0, 2.0], [3.0, 9.0, 9.0]])[..., None],
        hidden=torch.tensor([[False, True, True], [True, False, False]]),
    )
    task = AutoencoderTask(cast(SetAutoencoder, Zeros()), "mse", AutoencoderSettings())
    assert float(task.mean_loss(draw)) == pytest.approx((1 + 4 + 9) / 3)


def test_a_loss_that_does_not_fit_the_data_is_refused():
    with pytest.raises(MaedError, match="'cross-entropy'"):
        loss_name(AutoencoderSettings(loss="cross-entropy"), pairs())
    with pytest.raises(MaedError, match="cross-entropy"):
        loss_name(AutoencoderSettings(loss="mse"), words())
    with pytest.raises(MaedError, match="'gaussian'"):
        loss_name(AutoencoderSettings(loss="gaussian"), words())
    assert loss_name(quick(loss="gaussian"), pairs()) == "gaussian"
    assert (loss_name(quick(), pairs()), loss_name(quick(), words())) == ("mse", "cross-entropy")


# -- the model ----------------------------------------------------------------------------------------------------


def model_and_draw(kind: str) -> tuple[SetAutoencoder, Draw]:
    data = words() if kind == "tokens" else pairs()
    shape = {"n": N, "channels": data.channels, "vocabulary": data.vocabulary}
    model = build_autoencoder(quick(layers=2), **shape, loss=loss_name(quick(), data)).eval()
    assert isinstance(model, SetAutoencoder)
    with torch.no_grad():
        for weights in model.parameters():  # branches start at zero; what is visible is to matter
            if not weights.any():
                weights.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))
    return model, make_draw(data.train, np.random.default_rng(0), rows=np.arange(8), visible=5, scored=9)


@pytest.mark.parametrize("kind", ["real", "tokens"])
@torch.no_grad()
def test_the_order_of_the_visible_tokens_does_not_matter(kind):
    model, draw = model_and_draw(kind)
    order = torch.randperm(draw.visible.shape[1], generator=torch.Generator().manual_seed(0))
    mask = None if draw.visible_mask is None else draw.visible_mask[:, order]
    shuffled = model.predict(draw.values[:, order], draw.visible[:, order], draw.scored, mask)
    expected = model.predict(draw.values, draw.visible, draw.scored, draw.visible_mask)
    assert torch.allclose(shuffled, expected, atol=1e-5)
    # while a value that changes place does
    moved = model.predict(draw.values.flip(1), draw.visible, draw.scored, draw.visible_mask)
    assert not torch.allclose(moved, expected, atol=1e-3)


@torch.no_grad()
def test_filler_cannot_change_a_reconstruction():
    model, draw = model_and_draw("tokens")
    assert not draw.visible_mask.all()
    expected = model.predict(draw.values, draw.visible, draw.scored, draw.visible_mask)
    values = draw.values.where(draw.visible_mask, 3)
    visible = draw.visible.where(draw.visible_mask, 0)
    assert torch.equal(model.predict(values, visible, draw.scored, draw.visible_mask), expected)
    for row, seen in enumerate(visible_sets(draw)):  # and is as good as absent
        alone = model.predict(draw.values[row, None, : len(seen)], torch.tensor([seen]), draw.scored)
        assert torch.allclose(alone[0], expected[row], atol=1e-5)


@torch.no_grad()
def test_a_reconstruction_does_not_depend_on_what_else_is_reconstructed():
    model, draw = model_and_draw("real")
    whole = model.predict(draw.values, draw.visible, torch.arange(N))
    assert torch.allclose(model.predict(draw.values, draw.visible, draw.scored), whole[:, draw.scored], atol=1e-6)


@pytest.mark.parametrize("kind", ["real", "tokens"])
@torch.no_grad()
def test_permuting_positions_permutes_the_reconstruction_and_changes_nothing_else(kind):
    model, draw = model_and_draw(kind)
    expected = model.predict(draw.values, draw.visible, torch.arange(N), draw.visible_mask)
    order = torch.randperm(N, generator=torch.Generator().manual_seed(1))
    model.position_vectors.copy_(model.position_vectors[order])  # position i is what was position order[i]
    now = order.argsort()
    permuted = model.predict(draw.values, now[draw.visible], torch.arange(N), draw.visible_mask)
    assert torch.allclose(permuted, expected[:, order], atol=1e-6)


def test_heads_share_the_width_of_the_set_autoencoder_alone():
    with pytest.raises(MaedError, match=r"autoencoder\.width.*must be a multiple of autoencoder\.heads \(4\)"):
        AutoencoderSettings(width=6, heads=4)
    assert build_autoencoder(
        AutoencoderSettings(kind="unet", width=6, heads=4, depth=1), n=N, channels=1, vocabulary=0, loss="mse"
    )


def test_building_leaves_the_global_generator_alone_and_follows_the_seed():
    before = torch.get_rng_state()
    shape: dict[str, Any] = {"n": N, "channels": 1, "vocabulary": 0, "loss": "mse"}
    made = [build_autoencoder(quick(seed=seed), **shape).state_dict() for seed in (0, 0, 1)]
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(made[0][name], made[1][name]) for name in made[0])
    assert not torch.equal(made[0]["position_vectors"], made[2]["position_vectors"])


# -- the training -------------------------------------------------------------------------------------------------


def unet(**settings) -> AutoencoderSettings:
    return quick(**({"kind": "unet", "width": 8, "depth": 2, "learning_rate": 0.01} | settings))


def held_out_loss(model: Autoencoder, data: SignalData) -> float:
    draw = make_draw(data.validation, np.random.default_rng(5), rows=np.arange(200), visible=4, scored=None)
    with torch.no_grad():
        losses = position_losses(model.predict(draw.values, draw.visible, draw.scored), draw.targets, "mse")
    return float(losses[draw.hidden].mean())


@pytest.mark.slow
def test_training_finds_out_who_copies_whom(tmp_path):
    # the partner of a hidden position is visible with probability 4/11, and then tells it: 7/11 = 0.64 is the best
    settings = quick(steps=250, learning_rate=0.01, validate_every=50)
    model = pretrain(pairs(), settings, TRAINER, tmp_path)
    assert 0.6 < held_out_loss(model, pairs()) < 0.85  # the variance is 1
    history = read_json(tmp_path / "metrics.json")["history"]
    assert [point["step"] for point in history] == [50, 100, 150, 200, 250]
    assert min(point["validation_loss"] for point in history) < history[0]["validation_loss"]


@pytest.mark.slow
def test_the_u_net_is_trained_by_the_same_loop(tmp_path):
    # it hears the partner of a hidden position from next door: 7/11 again, and no table of position vectors
    settings = unet(steps=200, validate_every=50)
    model = pretrain(pairs(), settings, TRAINER, tmp_path)
    assert 0.6 < held_out_loss(model, pairs()) < 0.85
    assert not model.training


def test_the_learning_rate_is_as_set_or_suits_the_kind():
    assert learning_rate(AutoencoderSettings()) == 6e-3
    assert learning_rate(AutoencoderSettings(kind="unet")) == 1e-3
    assert learning_rate(AutoencoderSettings(kind="unet", learning_rate=0.2)) == 0.2


def test_training_scores_the_positions_asked_for(tmp_path, monkeypatch):
    seen = []

    def watch(self, draw):
        seen.append((draw.targets.shape[:2], draw.visible.shape))
        return original(self, draw)

    original = AutoencoderTask.mean_loss
    monkeypatch.setattr(AutoencoderTask, "mean_loss", watch)
    pretrain(pairs(), quick(steps=3, scored=5), TRAINER, tmp_path)
    assert set(seen) == {((32, 5), (32, 4))}


def test_a_finished_training_leaves_what_the_design_names(tmp_path):
    data = words()
    execute([Pretrain()], context(tmp_path, Settings(autoencoder=quick(), trainer=TRAINER), data))
    folder = tmp_path / "autoencoder"
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "model.safetensors", "last.ckpt", "metrics.json", "examples.safetensors", "logs",
        "progress.json",
    }  # fmt: skip
    metrics = read_json(folder / "metrics.json")
    assert [point["step"] for point in metrics["history"]] == [7, 14, 20]
    assert metrics["visible"] == 4
    model, config = load_autoencoder(folder)
    assert (config["n"], config["vocabulary"], config["visible"], config["loss"]) == (N, 5, 4, "cross-entropy")
    weights = load_file(folder / "model.safetensors")
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert not model.training
    examples = load_file(folder / "examples.safetensors")
    count = len(examples["fractions"])
    assert examples["original"].shape == (32, N)
    assert examples["visible"].shape == examples["reconstruction"].shape == (count, 32, N)
    assert examples["visible"].any(dim=2).all()
    assert not (examples["visible"] & (examples["original"] == 0)).any()  # 0 is padding here


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        (quick(), False),
        (quick(loss="gaussian"), False),
        (unet(), False),
        (unet(loss="gaussian"), False),
        (unet(), True),
    ],
    ids=["set", "set-gaussian", "unet", "unet-gaussian", "unet-tokens"],
)
@torch.no_grad()
def test_a_loaded_autoencoder_predicts_the_same_bit_for_bit(settings, tokens, tmp_path):
    data = words() if tokens else pairs()
    with torch.enable_grad():
        trained = pretrain(data, settings, TRAINER, tmp_path)
    sizes = {"n": N, "channels": data.channels, "vocabulary": data.vocabulary}
    shape: dict[str, Any] = {**sizes, "loss": loss_name(settings, data)}
    write_json(tmp_path / "config.json", {**shape, "visible": 4, "made_with": {"autoencoder": asdict(settings)}})
    loaded, _ = load_autoencoder(tmp_path)
    draw = make_draw(data.validation, np.random.default_rng(0), rows=np.arange(8), visible=5, scored=9)
    seen = (draw.values, draw.visible, draw.scored, draw.visible_mask)
    assert torch.equal(loaded.predict(*seen), trained.predict(*seen))
    fresh = build_autoencoder(settings, **shape).eval()
    assert not torch.equal(fresh.predict(*seen), trained.predict(*seen))
    examples = load_file(tmp_path / "examples.safetensors")
    assert examples["reconstruction"].shape[1:] == examples["original"].shape


def test_examples_are_in_stored_units(tmp_path):
    data = pairs()
    stored = replace(data.validation, values=(data.validation.values * 3 + 100), scale=np.array([[3]], np.float32))
    stored = replace(stored, mean=np.array([[100]], np.float32))
    pretrain(replace(data, train=stored, validation=stored), quick(steps=2), TRAINER, tmp_path)
    original = load_file(tmp_path / "examples.safetensors")["original"]
    among = (original[:, None] - torch.from_numpy(stored.values)).abs().amax(dim=(2, 3)).amin(dim=1)
    assert among.max() < 1e-3


def test_examples_show_ever_more_of_the_same_signals(tmp_path):
    model = pretrain(pairs(), quick(steps=2), TRAINER, tmp_path)
    examples = load_file(tmp_path / "examples.safetensors")
    fractions, visible, made = (examples[name] for name in ("fractions", "visible", "reconstruction"))
    assert (fractions.diff() > 0).all()
    assert (visible.sum(dim=2) == (fractions * N).round()[:, None]).all()
    assert (visible[1:] >= visible[:-1]).all()  # nested
    assert (fractions * N).round().tolist().count(4) == 1  # as in the training
    at, signal = 1, 5
    shown = visible[at, signal].nonzero()[:, 0]
    data, original = pairs(), examples["original"][signal]
    values = (original - torch.from_numpy(data.train.mean)) / torch.from_numpy(data.train.scale)
    with torch.no_grad():
        again = model.predict(values[shown][None], shown[None], torch.arange(N))[0]
    torch.testing.assert_close(again * data.train.scale.item() + data.train.mean.item(), made[at, signal])
    pretrain(pairs(), quick(steps=2), TRAINER, tmp_path / "again")
    twice = load_file(tmp_path / "again" / "examples.safetensors")
    assert all(torch.equal(examples[name], tensor) for name, tensor in twice.items())


@settings_of_hypothesis(max_examples=100, deadline=None)
@given(st.integers(2, 60_000), st.data())
def test_examples_show_some_and_hide_some(n, draw):
    trained = draw.draw(st.integers(1, n - 1))
    counts = shown_counts(n, trained)
    assert counts == sorted(set(counts))
    assert trained in counts
    assert 1 <= counts[0] <= counts[-1] <= n - 1
    assert all(count <= 4096 or count == trained for count in counts)


def test_padding_is_never_shown_in_nested_draws():
    signals = words().validation
    rows = np.arange(8)
    real = signals.mask[rows]
    for draw in nested_draws(signals, np.random.default_rng(0), rows=rows, counts=[2, 5, N - 1]):
        shown = torch.zeros(8, N, dtype=torch.bool).scatter_(1, draw.visible, draw.visible_mask).numpy()
        assert not (shown & ~real).any()
        assert shown.any(axis=1).all()
        assert np.array_equal(draw.hidden.numpy(), real & ~shown)


def test_signals_too_large_for_many_examples_make_fewer(tmp_path, monkeypatch):
    monkeypatch.setattr("maed.autoencoder.examples._NUMBERS", 5 * 8 * N)
    pretrain(pairs(), quick(steps=2), TRAINER, tmp_path)
    examples = load_file(tmp_path / "examples.safetensors")
    assert 1 <= len(examples["original"]) < 32
    assert examples["reconstruction"].numel() <= 5 * 8 * N


@pytest.mark.slow
def test_the_weights_are_those_of_the_best_validation(tmp_path, monkeypatch):
    data = pairs()
    data.validation.values[:, 1::2] *= -1  # partners are opposites here: who learns to copy gets worse
    settings = quick(steps=200, validate_every=20, learning_rate=0.01)
    kept, steps = {}, []

    def train(self, batch, step):
        steps.append(step)
        return originals[0](self, batch, step)

    def validate(self, batch):
        kept[len(steps)] = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return originals[1](self, batch)

    originals = AutoencoderTask.training_step, AutoencoderTask.validation_step
    monkeypatch.setattr(AutoencoderTask, "training_step", train)
    monkeypatch.setattr(AutoencoderTask, "validation_step", validate)
    model = pretrain(data, settings, TRAINER, tmp_path)
    history = read_json(tmp_path / "metrics.json")["history"]
    best = min(history, key=lambda point: point["validation_loss"])["step"]
    assert best < 200
    assert all(torch.equal(kept[best][name], tensor) for name, tensor in model.state_dict().items())


class Killed(Exception):
    pass


def kill_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    original = AutoencoderTask.training_step

    def training_step(self, batch, number):
        if number == step:
            raise Killed
        return original(self, batch, number)

    monkeypatch.setattr(AutoencoderTask, "training_step", training_step)


def run(folder: Path, settings: AutoencoderSettings) -> dict[str, torch.Tensor]:
    execute([Pretrain()], context(folder, Settings(autoencoder=settings, trainer=TRAINER), pairs()))
    return load_file(folder / "autoencoder" / "model.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "at"),
    [*((quick(learning_rate=0.01), at) for at in (3, 14, 17)), (unet(), 17)],
    ids=["set-3", "set-14", "set-17", "unet-17"],
)
def test_a_stopped_training_goes_on_to_the_same_end(settings, at, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", settings)
    with monkeypatch.context() as patch:
        kill_at(at, patch)
        with pytest.raises(Killed):
            run(tmp_path / "cut", settings)
    assert not (tmp_path / "cut" / "autoencoder" / "model.safetensors").exists()
    steps = []
    original = AutoencoderTask.training_step

    def noted(self, batch, step):
        steps.append(step)
        return original(self, batch, step)

    monkeypatch.setattr(AutoencoderTask, "training_step", noted)
    cut = run(tmp_path / "cut", settings)
    assert steps == list(range(at // 7 * 7, 20))  # from the last validation on
    assert all(torch.equal(cut[name], whole[name]) for name in whole)
    points = [read_json(tmp_path / name / "autoencoder" / "metrics.json")["history"] for name in ("cut", "whole")]
    assert points[0] == points[1]


@pytest.mark.slow
def test_a_checkpoint_of_another_training_is_not_resumed(tmp_path, monkeypatch):
    expected = pretrain(pairs(), quick(seed=1), TRAINER, tmp_path / "whole").state_dict()
    with monkeypatch.context() as patch:
        kill_at(17, patch)
        with pytest.raises(Killed):
            pretrain(pairs(), quick(), TRAINER, tmp_path / "cut")
    got = pretrain(pairs(), quick(seed=1), TRAINER, tmp_path / "cut").state_dict()
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_early_stopping_ends_a_training_that_learns_nothing(tmp_path):
    pretrain(pairs(), quick(steps=70, learning_rate=1e-12, patience=1), TRAINER, tmp_path)
    assert [point["step"] for point in read_json(tmp_path / "metrics.json")["history"]][-1] < 70


def test_a_loss_that_is_not_finite_names_the_learning_rate(tmp_path):
    data = pairs()
    data.train.values[:] = np.inf
    with pytest.raises(MaedError, match=r"autoencoder\.learning_rate.*the loss is not finite at step 0"):
        pretrain(data, quick(), TRAINER, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()


# -- where it starts ----------------------------------------------------------------------------------------------


def starting_table(monkeypatch: pytest.MonkeyPatch, training: Callable[[], object]) -> torch.Tensor:
    """The position vectors before the first step of `training`, which is stopped there."""
    tables = []

    def stop(task, *_):
        tables.append(task.model.position_vectors.detach().clone())
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module_under_test, "fit", stop)
        with pytest.raises(Killed):
            training()
    return tables[0]


def test_training_starts_from_random_vectors_that_depend_on_the_seed_alone(tmp_path, monkeypatch):
    constant = pairs()
    constant.train.values[:] = 1
    starts = [
        starting_table(monkeypatch, partial(pretrain, data, quick(seed=seed, width=64), TRAINER, tmp_path))
        for data, seed in ((pairs(), 0), (constant, 0), (words(), 0), (pairs(), 1))
    ]
    assert torch.equal(starts[0], starts[1])
    assert torch.equal(starts[0], starts[2])
    assert not torch.equal(starts[0], starts[3])
    # unit normal numbers: 768 of them have a mean of 0 +- 0.036 and a deviation of 1 +- 0.026
    assert abs(float(starts[0].mean())) < 0.15
    assert float(starts[0].std()) == pytest.approx(1, abs=0.1)


@pytest.mark.slow
def test_the_default_reads_no_baseline(tmp_path):
    alone = run(tmp_path / "alone", quick())
    beside = context(tmp_path / "beside", Settings(autoencoder=quick(), trainer=TRAINER), pairs())
    execute([Baseline("correlation")], beside)
    assert (tmp_path / "beside/baselines/correlation/similarity/model.safetensors").is_file()
    found = run(tmp_path / "beside", quick())
    assert all(torch.equal(found[name], alone[name]) for name in alone)
    assert not (tmp_path / "alone/baselines").exists()


@pytest.mark.parametrize("width", [8, 16])
def test_a_warm_start_fills_the_first_channels_and_leaves_the_others_random(width):
    model, before = (build_autoencoder(quick(width=width), n=N, channels=1, vocabulary=0, loss="mse") for _ in "ab")
    assert isinstance(model, SetAutoencoder)
    assert isinstance(before, SetAutoencoder)
    vectors = 5 * torch.randn(N, 11, generator=torch.Generator().manual_seed(0))
    start_from(model, vectors)
    d = min(width, 11)
    table = model.position_vectors.detach()
    assert float(table[:, :d].square().mean()) == pytest.approx(1)
    assert torch.allclose(table[:, :d], vectors[:, :d] * float(table[0, 0] / vectors[0, 0]))
    assert torch.equal(table[:, d:], before.position_vectors[:, d:])


@pytest.mark.parametrize(("data", "baseline"), [(pairs, "correlation"), (words, "dependence")])
def test_a_warm_start_is_the_laplacian_of_the_baseline(data, baseline, tmp_path, monkeypatch):
    warm = context(tmp_path, Settings(autoencoder=quick(init=baseline), trainer=TRAINER), data())
    table = starting_table(monkeypatch, lambda: execute([Pretrain()], warm))
    similarity = compute_baseline(baseline, data())
    expected = reduce(
        similarity.values, EmbeddingSettings(reduction="laplacian", dim=11), similarity.standard_error
    )  # 11: one less than the positions; the table has 16 channels
    assert torch.allclose(table[:, :11], expected / expected.square().mean().sqrt(), atol=1e-6)
    assert float(table[:, :11].square().mean()) == pytest.approx(1, abs=1e-4)


def embedding_of(n: int, folder: Path, **provenance) -> str:
    vectors = torch.randn(n, 3, generator=torch.Generator().manual_seed(0))
    PositionEmbedding(vectors, source="by hand", provenance=provenance).save_pretrained(folder)
    return str(folder)


def test_a_warm_start_from_a_folder_is_its_embedding(tmp_path, monkeypatch):
    start = embedding_of(N, tmp_path / "mine")
    warm = context(tmp_path / "out", Settings(autoencoder=quick(init=start), trainer=TRAINER), pairs())
    table = starting_table(monkeypatch, lambda: execute([Pretrain()], warm))
    vectors = PositionEmbedding.from_pretrained(start).vectors
    assert torch.allclose(table[:, :3], vectors / vectors.square().mean().sqrt())
    execute([Pretrain()], warm)
    assert not (tmp_path / "out/baselines").exists()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"init": "dependence"}, "autoencoder.init: 'dependence'"),
        ({"init": "corelation"}, "did you mean 'correlation'"),
        ({"init": "empty"}, "empty/config.json: no such file"),
        ({"init": "small"}, "small has 9 positions, the data"),
        ({"init": "permuted"}, "data.permute"),
        ({"init": "correlation", "kind": "unet"}, "autoencoder.init must be random"),
        ({"loss": "cross-entropy"}, "autoencoder.loss"),
        ({"kind": "unet", "batch_size": 1}, "autoencoder.batch_size"),
    ],
)
def test_what_training_cannot_start_from_is_refused_before_anything_is_written(settings, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    embedding_of(9, Path("small"))
    embedding_of(N, Path("permuted"), made_with={"data": {"permute": 3}})
    with pytest.raises(MaedError, match=re.escape(said)):
        execute([Pretrain()], context(Path("out"), Settings(autoencoder=quick(**settings), trainer=TRAINER), pairs()))
    assert not Path("out").exists()


def test_the_model_refuses_vectors_that_do_not_fit_it():
    shape: dict[str, Any] = {"n": N, "channels": 1, "vocabulary": 0, "loss": "mse"}
    with pytest.raises(MaedError, match=r"autoencoder.init"):
        start_from(build_autoencoder(quick(), **shape), torch.ones(5, 3))
    with pytest.raises(MaedError, match="U-Net"):
        start_from(build_autoencoder(unet(), **shape), torch.ones(N, 3))


def test_a_folder_without_a_trained_autoencoder_is_named(tmp_path):
    with pytest.raises(MaedError, match="holds no trained autoencoder"):
        load_autoencoder(tmp_path)


def test_a_config_of_more_layers_than_tensors_is_refused_at_once(tmp_path):
    weights = SetAutoencoder(8, channels=2, vocabulary=0, width=16, layers=1, heads=2).state_dict()
    write_tensors(tmp_path / "model.safetensors", weights)
    config = {"n": 8, "channels": 2, "vocabulary": 0, "loss": "mse"}
    made = {"autoencoder": {"width": 16, "layers": 10**11, "heads": 2}}
    write_json(tmp_path / "config.json", {**config, "made_with": made})
    with pytest.raises(MaedError, match=r"not the config\.json of an autoencoder .*100000000000 layers"):
        load_autoencoder(tmp_path)


@pytest.mark.parametrize(("signals", "positions"), [(5, 300), (3, 9_000)], ids=["some-signals", "some-positions"])
@pytest.mark.parametrize("padded", [False, True])
def test_in_pieces_positions_are_reconstructed_as_at_once(signals: int, positions: int, padded: bool) -> None:
    torch.manual_seed(0)
    model = SetAutoencoder(positions, channels=2, vocabulary=0, width=256, layers=1, heads=2)
    values, visible = torch.randn(signals, 7, 2), torch.stack([torch.randperm(positions)[:7] for _ in range(signals)])
    mask = torch.rand(signals, 7) < 0.7 if padded else None
    if mask is not None:
        mask[:, 0] = True
    scored = torch.arange(positions)

    at_once = model.predict(values, visible, scored, mask)
    with torch.no_grad():
        in_pieces = model.predict(values, visible, scored, mask)

    torch.testing.assert_close(in_pieces, at_once, rtol=1e-4, atol=1e-5)
