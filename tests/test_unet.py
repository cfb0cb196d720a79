"""The U-Net autoencoder: what it may see, what it must not, and that it profits from the storage order."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from maed.autoencoder.losses import position_losses
from maed.autoencoder.masking import Draw, make_draw
from maed.autoencoder.unet import UNetAutoencoder
from maed.data.signals import Signals

N = 37


def unet(*, n: int = N, tokens: bool = False, width: int = 8, depth: int = 2, **arguments) -> UNetAutoencoder:
    """A small U-Net over two real channels or 11 token ids, in evaluation mode, its batch norms past their start."""
    torch.manual_seed(0)
    model = UNetAutoencoder(
        n, channels=0 if tokens else 2, vocabulary=11 if tokens else 0, width=width, depth=depth, **arguments
    )
    with torch.no_grad():
        for _ in range(20):
            model.predict(*inputs(n, tokens, signals=8), scored=torch.arange(n))
    return model.eval()


def inputs(n: int, tokens: bool, signals: int = 4, visible: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Random values at random distinct positions."""
    visible = visible or math.ceil(n / 3)
    positions = torch.stack([torch.randperm(n)[:visible] for _ in range(signals)])
    values = torch.randint(11, (signals, visible)) if tokens else torch.randn(signals, visible, 2)
    return values, positions


# -- shapes and sizes ---------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 70), st.integers(1, 4), st.booleans(), st.integers(0, 2**32 - 1), st.data())
@torch.no_grad()
def test_any_length_and_depth(n, depth, tokens, seed, data):
    torch.manual_seed(seed)
    model = UNetAutoencoder(n, channels=0 if tokens else 2, vocabulary=11 if tokens else 0, width=2, depth=depth)
    values, visible = inputs(n, tokens, signals=3, visible=data.draw(st.integers(1, n)))
    scored = torch.randperm(n)[: data.draw(st.integers(1, n))]
    for training in (True, False):
        output = model.train(training)(values, visible, scored)
        assert output.shape == (3, len(scored), 11 if tokens else 2)
        assert output.isfinite().all()
        assert model.padded % 2**depth == 0
        assert n <= model.padded < n + 2**depth


@pytest.mark.parametrize("tokens", [False, True])
def test_as_many_outputs_as_asked_for(tokens):
    values, visible = inputs(N, tokens)
    assert unet(tokens=tokens, outputs=4).predict(values, visible, torch.arange(5)).shape == (4, 5, 4)


def weights(width: int, depth: int, inputs: int, outputs: int) -> int:
    """Parameters counted by hand: convolution weights, batch norm's two per channel, biases of upsampling and head."""
    widths = [width * 2**level for level in range(depth + 1)]
    blocks = [*zip([inputs, *widths[:-1]], widths, strict=True), *((2 * w, w) for w in widths[:-1])]
    convolutions = sum(3 * (a * b + b * b) + 4 * b for a, b in blocks)
    return convolutions + sum(2 * w * w * 2 + w for w in widths[:-1]) + width * outputs + outputs


def test_the_seeds_settings_have_the_seeds_parameters():
    def count(**arguments):
        return sum(p.numel() for p in UNetAutoencoder(100, **arguments).parameters())

    pixels, bytes_ = count(channels=3, vocabulary=0), count(channels=0, vocabulary=262)
    assert pixels == weights(64, 4, inputs=4, outputs=3)
    assert bytes_ == weights(64, 4, inputs=65, outputs=262) + 262 * 64
    assert pixels == pytest.approx(10.8e6, rel=0.005)  # 10.8 M
    assert bytes_ == pytest.approx(10.8e6, rel=0.01)


# -- what it sees -------------------------------------------------------------------------------------------------


def test_the_input_in_storage_order():
    model = UNetAutoencoder(5, channels=1, vocabulary=0, width=2, depth=2)
    values = torch.tensor([[[7.0], [0.0], [9.0]]])
    laid_out = model.lay_out(values, torch.tensor([[4, 2, 4]]), torch.tensor([[True, True, False]]))
    assert laid_out.tolist() == [[[0, 0, 0, 0, 7, 0, 0, 0], [0, 0, 1, 0, 1, 0, 0, 0]]]


def test_tokens_enter_as_embeddings():
    model = UNetAutoencoder(3, channels=0, vocabulary=11, width=2, depth=1)
    laid_out = model.lay_out(torch.tensor([[5, 0]]), torch.tensor([[2, 0]]), None)
    hidden, (five, zero) = (
        [0.0, 0.0, 0.0],
        [[*model.embed.get_parameter("weight")[token].tolist(), 1.0] for token in (5, 0)],
    )
    assert laid_out[0].T.tolist() == [zero, hidden, five, hidden]


@pytest.mark.parametrize("tokens", [False, True])
@torch.no_grad()
def test_the_order_of_the_visible_entries_does_not_matter(tokens):
    model, (values, visible) = unet(tokens=tokens), inputs(N, tokens)
    order, scored = torch.randperm(visible.shape[1]), torch.arange(N)
    expected = model.predict(values, visible, scored)
    assert torch.equal(model.predict(values[:, order], visible[:, order], scored), expected)
    # while a value that changes place does
    assert not torch.allclose(model.predict(values.flip(1), visible, scored), expected, atol=1e-3)


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_filler_is_as_good_as_absent(tokens, first):
    model, (values, visible) = unet(tokens=tokens), inputs(N, tokens)
    scored = torch.arange(N)
    other, elsewhere = inputs(N, tokens)
    elsewhere[:, :6] = visible[:, :6]  # repeats positions that are truly visible
    mask = torch.cat([torch.ones_like(visible), torch.zeros_like(elsewhere)], dim=1).bool()
    parts = [torch.cat([values, other], dim=1), torch.cat([visible, elsewhere], dim=1), mask]
    if first:
        parts = [part.flip(1) for part in parts]
    output = model.predict(parts[0], parts[1], scored, parts[2])
    assert torch.equal(output, model.predict(values, visible, scored))


def test_no_gradient_reaches_filler():
    model, (values, visible) = unet(), inputs(N, tokens=False)
    mask = torch.rand(visible.shape) < 0.5
    values.requires_grad_()
    model.predict(values, visible, torch.arange(N), mask).square().sum().backward()
    assert (values.grad[mask] != 0).any(dim=-1).all()
    assert (values.grad[~mask] == 0).all()


@pytest.mark.parametrize("training", [False, True])
@torch.no_grad()
def test_hidden_values_cannot_influence_the_reconstruction(training):
    def drawn(signals: np.ndarray) -> Draw:
        part = Signals(signals, mean=np.zeros((1, 2), np.float32), scale=np.ones((1, 2), np.float32))
        return make_draw(part, np.random.default_rng(1), rows=np.arange(6), visible=9, scored=None)

    model = unet().train(training)
    signals = np.random.default_rng(0).normal(size=(6, N, 2)).astype(np.float32)
    draw = drawn(signals)
    changed = drawn(signals + 100 * draw.hidden[..., None].numpy().astype(np.float32))
    assert not torch.equal(draw.targets, changed.targets)
    outputs = [model.predict(d.values, d.visible, d.scored) for d in (draw, changed)]
    assert torch.equal(*outputs)


@torch.no_grad()
def test_a_visible_zero_is_not_a_hidden_position():
    model, values = unet(), torch.tensor([[[1.0, -1.0], [0.0, 0.0]]])
    scored = torch.arange(N)
    both = model.predict(values, torch.tensor([[3, 7]]), scored)
    one = model.predict(values[:, :1], torch.tensor([[3]]), scored)
    assert (both - one).abs().max() > 1e-3


@pytest.mark.parametrize("tokens", [False, True])
@torch.no_grad()
def test_a_reconstruction_does_not_depend_on_what_else_is_reconstructed(tokens):
    model, (values, visible) = unet(tokens=tokens), inputs(N, tokens)
    whole, scored = model.predict(values, visible, torch.arange(N)), torch.randperm(N)[:9]
    assert torch.allclose(model.predict(values, visible, scored), whole[:, scored], atol=1e-6)


@torch.no_grad()
def test_shifting_the_signal_shifts_the_reconstruction():
    # at depth 2 an output sees at most 26 positions to each side: the borders, which stay, are farther away
    n, depth = 128, 2
    model, (values, visible) = unet(n=n, depth=depth), inputs(64, tokens=False)
    here, there = torch.arange(40, 80), torch.arange(44, 84)
    expected = model.predict(values, visible + 30, here)
    shifted = model.predict(values, visible + 30 + 2**depth, there)
    assert expected.std() > 0.05
    assert torch.allclose(shifted, expected, atol=1e-5)


@torch.no_grad()
def test_skip_connections_carry_what_pooling_loses():
    model, (values, visible) = unet(), inputs(N, tokens=False)
    model.upsample[-1].get_parameter("weight").zero_()  # nothing arrives from below the first block
    outputs = [model.predict(v, visible, torch.arange(N)) for v in (values, -values)]
    assert (outputs[0] - outputs[1]).abs().max() > 1e-2


# -- use ----------------------------------------------------------------------------------------------------------


def test_training_normalizes_by_the_batch_and_evaluation_does_not():
    model, (values, visible) = unet(), inputs(N, tokens=False)
    scored = torch.arange(N)
    alone = model.predict(values[:1], visible[:1], scored)
    assert torch.allclose(model.predict(values, visible, scored)[:1], alone, atol=1e-5)
    model.train()
    assert not torch.allclose(
        model.predict(values, visible, scored)[:1], model.predict(values[:1], visible[:1], scored), atol=1e-3
    )


@pytest.mark.parametrize("tokens", [False, True])
def test_bfloat16_autocast_agrees_with_float32(tokens):
    model, (values, visible) = unet(tokens=tokens), inputs(N, tokens)
    expected = model.predict(values, visible, torch.arange(N))
    with torch.autocast("cpu", torch.bfloat16):
        output = model.predict(values, visible, torch.arange(N))
        model.train().predict(values, visible, torch.arange(N)).float().square().mean().backward()
    assert (output - expected).abs().mean() < 0.05 * expected.std()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.float32 for p in model.parameters())


@torch.no_grad()
def test_saved_weights_predict_the_same():
    model, (values, visible) = unet(), inputs(N, tokens=False)
    expected = model.predict(values, visible, torch.arange(N))
    state = load(save({name: tensor.contiguous() for name, tensor in model.state_dict().items()}))
    other = UNetAutoencoder(N, channels=2, vocabulary=0, width=8, depth=2).eval()
    assert not torch.equal(other.predict(values, visible, torch.arange(N)), expected)
    other.load_state_dict(state)
    assert torch.equal(other.predict(values, visible, torch.arange(N)), expected)


def waves(n: int = 64, signals: int = 512) -> Signals:
    """Smooth signals, two to four periods of a sine of any phase: mean 0, variance 1."""
    generator = np.random.default_rng(0)
    periods, phase = generator.uniform(2, 4, (signals, 1)), generator.uniform(0, 2 * np.pi, (signals, 1))
    values = math.sqrt(2) * np.sin(2 * np.pi * periods * np.arange(n) / n + phase)
    mean, scale = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    return Signals(values.astype(np.float32)[..., None], mean=mean, scale=scale)


def trained_loss(signals: Signals, steps: int = 50) -> float:
    """Masked mean squared error on the second half of the signals after training on the first."""
    torch.manual_seed(0)
    generator = np.random.default_rng(1)
    model = UNetAutoencoder(64, channels=1, vocabulary=0, width=8, depth=3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def loss(rows):
        draw = make_draw(signals, generator, rows=rows, visible=16, scored=None)
        losses = position_losses(model.predict(draw.values, draw.visible, draw.scored), draw.targets, "mse")
        return losses[draw.hidden].mean()

    for _ in range(steps):
        optimizer.zero_grad()
        loss(generator.integers(0, 256, 32)).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        return float(loss(np.arange(256, 512)))


@pytest.mark.slow
def test_it_learns_smooth_signals_because_it_knows_the_storage_order():
    signals = waves()
    order = np.random.default_rng(2).permutation(64)
    permuted = Signals(signals.values[:, order], mean=signals.mean, scale=signals.scale)
    ordered_loss, permuted_loss = trained_loss(signals), trained_loss(permuted)
    assert ordered_loss < 0.2  # predicting the mean gives 1
    assert permuted_loss > 3 * ordered_loss
