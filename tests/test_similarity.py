"""The accumulator, the estimators, the streaming of draws and the baselines, against the definitions of design.md."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.stats import chi2_contingency
from scipy.stats.contingency import crosstab
from torch import Tensor

from maed.autoencoder import SetAutoencoder, build_autoencoder, load_autoencoder, outputs_of, pretrain
from maed.autoencoder.losses import LossName
from maed.autoencoder.masking import make_draw
from maed.data import load
from maed.data.signals import SignalData, Signals
from maed.embedding import PositionEmbedding
from maed.errors import MaedError
from maed.files import read_json
from maed.settings import (
    AutoencoderSettings,
    DataSettings,
    EmbeddingSettings,
    Settings,
    SimilaritySettings,
    TrainerSettings,
)
from maed.similarity import (
    Accumulator,
    PairedSums,
    Similarity,
    Streamed,
    baseline_for,
    check_estimator,
    compute_baseline,
    estimate,
    load_similarity,
    merged,
    never_drawn,
    stream,
    streaming,
    write_similarity,
)
from maed.similarity.estimators.contrast import centered
from maed.similarity.streaming import Halves, Progress, Watch, transform_of
from maed.similarity.sums import Sums
from maed.stages import Baseline, Context, Embed, Pretrain, execute
from maed.stages import Similarity as SimilarityStage
from maed.tensors import digest_of
from stages import context

SUMS = ("visible_counts", "visible_sums", "visible_squares", "all_counts", "all_sums", "all_squares")
Draws = tuple[Tensor, Tensor, Tensor, Tensor | None]
"""Losses, visible, scored and real, `(B, N)` each."""


def some_draws(count: int = 60, n: int = 6, *, padded: bool = False, seed: int = 0) -> Draws:
    """Losses that fall where the position before is visible; some hidden positions are not scored."""
    generator = torch.Generator().manual_seed(seed)
    real = torch.rand(count, n, generator=generator) < 0.7 if padded else None
    visible = torch.rand(count, n, generator=generator) < 0.4
    scored = ~visible & (torch.rand(count, n, generator=generator) < 0.8)
    if real is not None:
        visible, scored = visible & real, scored & real
    losses = torch.rand(count, n, generator=generator, dtype=torch.float64) * torch.arange(1, n + 1)
    return losses - 0.3 * visible.roll(1, dims=1), visible, scored, real


def accumulate(draws: Draws) -> Accumulator:
    sums = Accumulator.empty(draws[0].shape[1], padded=draws[3] is not None)
    sums.add(*draws)
    return sums


def part(draws: Draws, rows: list[int] | slice) -> Draws:
    losses, visible, scored, real = draws
    return losses[rows], visible[rows], scored[rows], None if real is None else real[rows]


# -- the definitions ----------------------------------------------------------------------------------------------


def by_definition(draws: Draws, estimator: str) -> np.ndarray:
    """The definitions of design.md, one pair and one draw at a time."""
    losses, visible, scored, real = draws
    real = torch.ones_like(visible) if real is None else real
    n = losses.shape[1]
    result = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            counted = [
                b for b in range(len(losses)) if real[b, i] and real[b, j] and scored[b, j] and not visible[b, j]
            ]
            seen = [float(losses[b, j]) for b in counted if visible[b, i]]
            hidden = [float(losses[b, j]) for b in counted if not visible[b, i]]
            if i == j:
                continue
            if estimator == "mean-loss":
                result[i, j] = -np.mean(seen)
            else:
                result[i, j] = (np.mean(hidden) - np.mean(seen)) / np.std(seen + hidden)
    if estimator == "mean-loss":
        result /= np.sqrt((result**2).sum(axis=0))
    return result


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("estimator", ["contrast", "mean-loss"])
def test_the_accumulator_equals_a_loop_over_the_definition(estimator, padded):
    draws = some_draws(200, padded=padded)
    found = estimate(accumulate(draws), estimator).values
    assert np.allclose(found, by_definition(draws, estimator), rtol=1e-6, atol=1e-7)


def test_a_contrast_by_hand():
    # j = 1 costs 1 and 3 while 0 is hidden, 1 and 1 while it is visible: (2 - 1) / std(1, 3, 1, 1) = 1 / sqrt(0.75)
    losses = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 1.0], [0.0, 1.0]])
    visible = torch.tensor([[False, False], [False, False], [True, False], [True, False]])
    found = estimate(accumulate((losses, visible, ~visible, None)), "contrast")
    assert found.values[0, 1] == pytest.approx(1 / math.sqrt(0.75))
    # variances of the means: (1, 3) give 1 / 2, (1, 1) give 0
    assert found.standard_error[0, 1] == pytest.approx(math.sqrt(0.5 / 0.75))


def test_counts_are_exact():
    draws = some_draws(padded=True)
    _, visible, scored, real = draws
    sums = accumulate(draws)
    for i in range(6):
        for j in range(6):
            assert sums.visible_counts[i, j] == (visible[:, i] & scored[:, j]).sum()
            assert sums.all_counts[i, j] == (real[:, i] & scored[:, j]).sum()


def test_what_is_not_scored_does_not_count():
    losses, visible, scored, real = some_draws(padded=True)
    poisoned = torch.where(scored, losses, torch.inf)
    expected, found = accumulate((losses, visible, scored, real)), accumulate((poisoned, visible, scored, real))
    assert all(torch.equal(getattr(expected, name), getattr(found, name)) for name in SUMS)
    never = scored.clone()
    never[:, 2] = False
    values = estimate(accumulate((losses, visible, never, real)), "contrast").values
    assert not values[:, 2].any()  # nothing is known of it as j ...
    assert values[2].any()  # ... but all of it as i


def test_what_is_not_real_with_the_other_is_left_out():
    # position 0 is real in the first two draws only; the losses of 1 in the others would shift its mean
    losses = torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 100.0], [0.0, 100.0]])
    visible = torch.tensor([[True, False], [False, False], [False, False], [False, False]])
    real = torch.tensor([[True, True], [True, True], [False, True], [False, True]])
    found = estimate(accumulate((losses, visible, real & ~visible, real)), "contrast").values
    assert found[0, 1] == pytest.approx(2.0)  # (3 - 1) / std(1, 3)


@pytest.mark.parametrize("estimator", ["contrast", "mean-loss"])
def test_diagonals_are_zero_and_all_is_finite(estimator):
    found = estimate(accumulate(some_draws(count=8)), estimator)
    for matrix in (found.values, found.standard_error):
        assert matrix.dtype == torch.float32
        assert not matrix.diagonal().any()
        assert matrix.isfinite().all()


def test_columns_of_the_mean_loss_have_unit_length():
    assert torch.allclose(estimate(accumulate(some_draws()), "mean-loss").values.norm(dim=0), torch.ones(6))


def test_where_the_deviation_is_zero_the_entry_is_zero():
    losses, visible, scored, real = some_draws()
    losses[:, 3] = 1e6 / 3  # its squares do not cancel exactly
    found = estimate(accumulate((losses, visible, scored, real)), "contrast")
    assert not found.values[:, 3].any()
    assert not found.standard_error[:, 3].any()
    assert found.values[:, 2].any()


def test_a_position_that_is_always_or_never_visible_has_no_contrast():
    losses, visible, scored, _ = some_draws()
    visible[:, 0], visible[:, 1] = True, False
    scored = scored & ~visible
    values = estimate(accumulate((losses, visible, scored, None)), "contrast").values
    assert not values[:2].any()
    assert values[2].any()


def test_no_draws_give_zeros():
    for estimator in ("contrast", "mean-loss"):
        assert not estimate(Accumulator.empty(4), estimator).values.any()


def test_losses_in_float32_are_summed_in_float64():
    # 2^24 + 1 is no float32 number
    losses = torch.tensor([[0.0, 2.0**24], [0.0, 1.0]])
    sums = accumulate((losses, torch.tensor([[True, False]] * 2), torch.tensor([[False, True]] * 2), None))
    assert sums.visible_sums[0, 1] == 2**24 + 1


@pytest.mark.parametrize("padded", [False, True])
def test_the_standard_error_is_the_spread_over_repetitions(padded):
    repetitions = [
        estimate(accumulate(some_draws(400, 5, padded=padded, seed=seed)), "contrast") for seed in range(300)
    ]
    off = ~torch.eye(5, dtype=torch.bool)
    spread = torch.stack([each.values for each in repetitions]).std(dim=0)[off]
    error = torch.stack([each.standard_error for each in repetitions]).square().mean(dim=0).sqrt()[off]
    assert float(spread.square().mean().sqrt() / error.square().mean().sqrt()) == pytest.approx(1, abs=0.2)
    assert float((spread / error).log().abs().max()) < math.log(1.3)  # and each entry for itself


# -- control variates ---------------------------------------------------------------------------------------------


def test_centered_losses_by_hand():
    # two draws of one signal: mean 2 at both positions; the standard deviation of (1, 3) is sqrt(2)
    losses = torch.tensor([[1.0, 3.0], [3.0, 1.0]])
    residuals, scored = centered(losses, torch.ones(2, 2, dtype=torch.bool), 2)
    assert torch.allclose(residuals, math.sqrt(2) * torch.tensor([[-1.0, 1.0], [1.0, -1.0]]).double())
    assert scored.all()


def test_a_position_that_was_scored_once_has_nothing_to_be_compared_with():
    losses = torch.tensor([[1.0, 9.0], [2.0, torch.inf], [6.0, torch.inf], [torch.inf, torch.inf]])
    hit = torch.tensor([[True, True], [True, False], [True, False], [False, False]])
    residuals, scored = centered(losses, hit, 4)
    assert scored.tolist() == [[True, False], [True, False], [True, False], [False, False]]
    assert torch.allclose(residuals[:3, 0], math.sqrt(3 / 2) * torch.tensor([-2.0, -1.0, 3.0]).double())


@given(st.integers(0, 2**32 - 1), st.integers(2, 6), st.integers(1, 4))
def test_what_is_hard_about_a_signal_cancels(seed, repeats, signals):
    generator = torch.Generator().manual_seed(seed)
    losses = torch.rand(signals * repeats, 5, generator=generator, dtype=torch.float64)
    hit = torch.rand(losses.shape, generator=generator) < 0.6
    hard = 10 * torch.rand(signals, 5, generator=generator, dtype=torch.float64).repeat_interleave(repeats, dim=0)
    residuals, scored = centered(losses, hit, repeats)
    harder, same_scored = centered(losses + hard, hit, repeats)
    assert torch.equal(scored, same_scored)
    assert torch.allclose(residuals[scored], harder[scored], atol=1e-9)
    for start in range(0, len(losses), repeats):
        group, kept = residuals[start : start + repeats], scored[start : start + repeats]
        for j in range(5):
            if kept[:, j].any():
                assert float(group[kept[:, j], j].sum()) == pytest.approx(0, abs=1e-9)
                own = losses[start : start + repeats, j][hit[start : start + repeats, j]]
                mean_square = float(group[kept[:, j], j].square().mean())
                assert mean_square == pytest.approx(float(own.var()), abs=1e-9)  # the unbiased variance


def hard_and_easy(signals: int, repeats: int, *, padded: bool, seed: int) -> Draws:
    """Draws of signals that differ far more from one another than what is visible changes: by 3, not by 0.3."""
    generator = torch.Generator().manual_seed(seed)
    shape = (signals * repeats, 5)
    hard = 3 * torch.randn(signals, 5, generator=generator).repeat_interleave(repeats, dim=0)
    visible = torch.rand(shape, generator=generator) < 0.4
    losses = torch.randn(shape, generator=generator) + hard - 0.3 * visible.roll(1, dims=1)
    if not padded:
        return losses, visible, ~visible, None
    real = (torch.rand(signals, 5, generator=generator) < 0.7).repeat_interleave(repeats, dim=0)
    return losses, visible & real, ~visible & real, real


@pytest.mark.slow
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("repeats", [2, 8])
def test_the_standard_error_of_centered_losses_is_the_spread_over_repetitions(repeats, padded):
    center, plain = [], []
    for seed in range(300):
        losses, visible, scored, real = hard_and_easy(480 // repeats, repeats, padded=padded, seed=seed)
        plain.append(estimate(accumulate((losses, visible, scored, real)), "contrast"))
        residuals, kept = centered(losses, scored, repeats)
        center.append(estimate(accumulate((residuals, visible, kept, real)), "contrast"))
    off = ~torch.eye(5, dtype=torch.bool)
    values = torch.stack([each.values for each in center])[:, off]
    error = torch.stack([each.standard_error for each in center]).square().mean(dim=0).sqrt()[off]
    spread = values.std(dim=0)
    assert float(spread.square().mean().sqrt() / error.square().mean().sqrt()) == pytest.approx(1, abs=0.05)
    assert float((spread / error).log().abs().max()) < math.log(1.15)  # and each entry for itself
    # what it is for: the entries of neighbors stand out from the noise, which they do not without
    uncentered = torch.stack([each.values for each in plain])[:, off]
    beside = torch.eye(5).roll(1, dims=1)[off] > 0

    def signal_to_noise(found: Tensor) -> float:
        return float((found[:, beside].mean(dim=0) / found[:, beside].std(dim=0)).mean())

    assert signal_to_noise(values) > 1.5 * signal_to_noise(uncentered)
    assert float(values.mean(dim=0)[beside].mean()) == pytest.approx(
        0.3 * math.sqrt(1 - expected_inverse_count(repeats)), rel=0.1
    )


def expected_inverse_count(repeats: int) -> float:
    """The mean of 1 / c over draws in which a position that is hidden with probability 0.6 is scored, if c > 1."""
    chances = {c: math.comb(repeats, c) * 0.6**c * 0.4 ** (repeats - c) * c for c in range(2, repeats + 1)}
    return sum(chance / c for c, chance in chances.items()) / sum(chances.values())


# -- ablation -----------------------------------------------------------------------------------------------------


def test_an_ablation_by_hand():
    # hiding 0 raises the loss of 1 by 1, 3 and 2; in the third draw 1 is not scored; hiding 1 tells of 0 once
    sums = PairedSums.empty(2)
    rises = torch.tensor([[9.0, 1.0], [9.0, 3.0], [9.0, torch.inf], [5.0, 9.0]])
    scored = torch.tensor([[False, True], [False, True], [False, False], [True, False]])
    sums.add(rises, torch.tensor([0, 0, 0, 1]), scored)
    found = estimate(sums, "ablation")
    assert sums.counts.tolist() == [[0, 2], [1, 0]]
    assert found.values.tolist() == [[0, 2], [5, 0]]
    assert found.standard_error[0, 1] == pytest.approx(math.sqrt(1 / 2))  # variance 1 of two draws
    assert torch.equal(estimate(sums.merge(sums), "ablation").values, found.values)


def test_the_standard_error_of_an_ablation_is_the_spread_over_repetitions():
    def repetition(seed: int) -> Similarity:
        generator = torch.Generator().manual_seed(seed)
        sums = PairedSums.empty(4)
        dropped = torch.randint(4, (300,), generator=generator)
        rises = torch.randn(300, 4, generator=generator) * torch.arange(1, 5) + dropped[:, None]
        sums.add(rises, dropped, torch.rand(300, 4, generator=generator) < 0.7)
        return estimate(sums, "ablation")

    found = [repetition(seed) for seed in range(300)]
    off = ~torch.eye(4, dtype=torch.bool)
    spread = torch.stack([each.values for each in found]).std(dim=0)[off]
    error = torch.stack([each.standard_error for each in found]).square().mean(dim=0).sqrt()[off]
    assert float((spread / error).log().abs().max()) < math.log(1.15)


@pytest.mark.parametrize("kind", ["real", "tokens"])
@torch.no_grad()
def test_ablations_equal_a_loop_over_the_definition(kind):
    """Tokens have 1 to 8 real positions: some show but one, and rows of a batch are filled up."""
    streamed = stream_some(kind, draws=48, estimator="ablation")
    signals, model = (padded_tokens() if kind == "tokens" else real_signals()), untrained(kind)
    expected, shown_alone = PairedSums.empty(N), 0

    def losses(row: int, seen: list[int]) -> Tensor:
        at = np.array(seen)
        output = model.predict(signals.gather(np.array([row]), at), torch.tensor([seen]), torch.arange(N))[0]
        if kind == "tokens":
            return -output.log_softmax(dim=-1)[torch.arange(N), signals.take(np.array([row]))[0]]
        return (output - signals.take(np.array([row]))[0]).abs()[:, 0]  # the root of the squared error

    for step in range(6):
        generator = np.random.default_rng((3, step))
        rows = generator.integers(0, 50, size=8)
        draw = make_draw(signals, generator, rows=rows, visible=3, scored=None)
        for b, row in enumerate(rows):
            keep = torch.ones_like(draw.visible[b]) > 0 if draw.visible_mask is None else draw.visible_mask[b]
            seen = draw.visible[b][keep].tolist()
            shown_alone += len(seen) == 1
            for i in seen if len(seen) > 1 else []:
                rise = losses(row, [j for j in seen if j != i]) - losses(row, seen)
                for j in range(N):
                    if (signals.mask is None or signals.mask[row, j]) and j not in seen:
                        expected.counts[i, j] += 1
                        expected.sums[i, j] += float(rise[j])
                        expected.squares[i, j] += float(rise[j]) ** 2
    assert (shown_alone > 0) == (kind == "tokens")
    found = merged(streamed.halves)
    assert isinstance(found, PairedSums)
    assert torch.equal(found.counts, expected.counts)
    assert torch.allclose(found.sums, expected.sums, atol=1e-4)
    assert torch.allclose(found.squares, expected.squares, atol=1e-4)
    assert found.sums.abs().max() > 0.1


def test_the_folder_of_an_ablation_has_its_sums(tmp_path):
    sums = merged(stream_some("real", draws=16, estimator="ablation").halves)
    assert isinstance(sums, PairedSums)
    similarity = estimate(sums, "ablation")
    write_similarity(tmp_path, similarity, sums, {})
    tensors = load_file(tmp_path / "model.safetensors")
    assert all(tensors[name].shape == (1, N, N) for name in ("counts", "sums", "squares"))
    assert torch.equal(tensors["squares"][0], sums.squares)
    assert torch.equal(load_similarity(tmp_path).values, similarity.values)


# -- what is refused, and what is taken of a loss -----------------------------------------------------------------


def test_what_an_estimator_cannot_do_is_refused():
    with pytest.raises(MaedError) as refused:
        stream_some("real", visible=1, estimator="ablation")
    assert refused.value.argument == "similarity.visible_fraction"
    with pytest.raises(MaedError) as refused:
        check_estimator(SimilaritySettings(transform="log"), visible=3, loss="gaussian")
    assert refused.value.argument == "similarity.transform"
    check_estimator(SimilaritySettings(), visible=1, loss="gaussian")


def test_a_batch_holds_each_signal_as_often_as_it_is_drawn():
    with pytest.raises(MaedError) as refused:
        check_estimator(SimilaritySettings(batch_size=100), visible=3, loss="mse")
    assert refused.value.argument == "similarity.batch_size"
    once = SimilaritySettings(batch_size=100, estimator="mean-loss")  # draws each signal once
    check_estimator(once, visible=3, loss="mse")


@pytest.mark.parametrize(
    ("estimator", "loss", "transform"),
    [
        ("contrast", "mse", "root"),
        ("ablation", "mse", "root"),
        ("mean-loss", "mse", "none"),
        ("contrast", "gaussian", "none"),
        ("contrast", "cross-entropy", "none"),
    ],
)
def test_roots_of_squared_errors_are_taken_but_not_by_the_seeds_estimator(estimator, loss, transform):
    assert transform_of(SimilaritySettings(estimator=estimator), loss) == transform


def test_the_transform_is_of_each_loss(monkeypatch):
    batches = record(monkeypatch)
    for transform in ("none", "root", "log"):
        stream_some("real", draws=16, repeats=1, transform=transform)
    raw, root, log = (torch.cat([batch[0] for batch in batches[i : i + 2]]) for i in (0, 2, 4))
    assert torch.allclose(root, raw.sqrt())
    assert torch.allclose(log, (raw + 0.01).log())


def test_pairs_that_were_never_drawn_are_counted():
    # 0 was visible with 1 and 2 scored, 1 with 2 scored; 3 is in no signal
    sums = Accumulator.empty(4)
    sums.visible_counts[0, 1:3] = 5
    sums.visible_counts[1, 2] = 1
    everywhere, in_signals = torch.ones(4).bool(), torch.tensor([True, True, True, False])
    assert never_drawn(sums, everywhere) == 12 - 3
    assert never_drawn(sums, in_signals) == 6 - 3
    assert never_drawn(PairedSums(sums.visible_counts, *[torch.zeros(4, 4)] * 2), in_signals) == 6 - 3


# -- merging ------------------------------------------------------------------------------------------------------


def same(a: Sums, b: Sums) -> None:
    for name in SUMS:
        left, right = getattr(a, name), getattr(b, name)
        if name.endswith("counts"):
            assert torch.equal(left, right)
        else:
            assert torch.allclose(left, right, rtol=1e-12, atol=1e-12)


@pytest.mark.slow
@given(st.data(), st.booleans())
@settings(max_examples=60, deadline=None)
def test_the_sums_do_not_depend_on_how_draws_are_batched_split_or_merged(data, padded):
    draws = some_draws(24, padded=padded)
    order = data.draw(st.permutations(range(24)))
    shares = data.draw(st.lists(st.integers(0, 3), min_size=24, max_size=24))  # which process has the draw
    machines = [Accumulator.empty(6, padded=padded) for _ in range(4)]
    for machine, sums in enumerate(machines):
        mine = [row for row in order if shares[row] == machine]
        size = data.draw(st.integers(1, 24))
        for start in range(0, len(mine), size):
            sums.add(*part(draws, mine[start : start + size]))
    a, b, c, d = (machines[i] for i in data.draw(st.permutations(range(4))))
    merged = a.merge(b).merge(c.merge(d)) if data.draw(st.booleans()) else a.merge(b.merge(c.merge(d)))
    whole = accumulate(draws)
    same(merged, whole)
    for estimator in ("contrast", "mean-loss"):
        assert torch.allclose(estimate(merged, estimator).values, estimate(whole, estimator).values, atol=1e-6)


def test_merging_leaves_the_parts_as_they_were():
    first, second = accumulate(some_draws(seed=0)), accumulate(some_draws(seed=1))
    before = first.visible_sums.clone()
    first.merge(second)
    assert torch.equal(first.visible_sums, before)


@pytest.mark.parametrize("padded", [False, True])
def test_sums_are_saved_and_loaded_bit_for_bit(padded, tmp_path):
    sums = accumulate(some_draws(padded=padded))
    sums.save(tmp_path / "sums.safetensors")
    loaded = Accumulator.load(tmp_path / "sums.safetensors")
    assert all(torch.equal(getattr(sums, name), getattr(loaded, name)) for name in SUMS)
    assert loaded.visible_counts.shape == (6, 6)


@pytest.mark.parametrize("padded", [False, True])
def test_the_folder_is_what_the_design_names(padded, tmp_path):
    draws = some_draws(padded=padded)
    sums = accumulate(draws)
    similarity = estimate(sums, "contrast")
    (tmp_path / "partial.json").write_text("{}")
    write_similarity(tmp_path, similarity, sums, {"split_half": 0.5})
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    tensors = load_file(tmp_path / "model.safetensors")
    expected = {"schema": 1, "n": 6, "split_half": 0.5, "tensors": digest_of(tensors)}
    assert read_json(tmp_path / "config.json") == expected
    assert tensors.keys() == {"similarity", "standard_error", "counts", "sums", "squares"}
    losses, visible, scored, real = draws
    real = torch.ones_like(visible) if real is None else real
    seen, hidden = visible.double().T, (real & ~visible).double().T
    loss = losses * scored
    for name, term in (("counts", scored.double()), ("sums", loss), ("squares", loss * loss)):
        assert torch.allclose(tensors[name], torch.stack([seen @ term, hidden @ term]), rtol=1e-9, atol=1e-9)
    loaded = load_similarity(tmp_path)
    assert torch.equal(loaded.values, similarity.values)
    assert torch.equal(loaded.standard_error, similarity.standard_error)


def test_a_folder_without_a_similarity_is_named(tmp_path):
    with pytest.raises(MaedError, match="holds no similarity;"):
        load_similarity(tmp_path)


# -- streaming ----------------------------------------------------------------------------------------------------

N = 8
CPU = torch.device("cpu")


def real_signals(n: int = 50) -> Signals:
    values = np.random.default_rng(0).normal(0, 1, (n, N, 1)).astype(np.float32)
    return Signals(values, mean=np.zeros((1, 1), np.float32), scale=np.ones((1, 1), np.float32))


def padded_tokens(n: int = 50) -> Signals:
    generator = np.random.default_rng(0)
    mask = np.arange(N) < generator.integers(1, N + 1, (n, 1))
    return Signals(np.where(mask, generator.integers(1, 5, (n, N)), 0).astype(np.int16), mask=mask)


def untrained(kind: str) -> SetAutoencoder:
    small = AutoencoderSettings(width=8, heads=2, layers=1)
    tokens = kind == "tokens"
    channels, vocabulary = (0, 5) if tokens else (1, 0)
    model = build_autoencoder(small, n=N, channels=channels, vocabulary=vocabulary, loss=loss_of(kind))
    assert isinstance(model, SetAutoencoder)
    return mixed(model).eval()


def mixed(model: SetAutoencoder) -> SetAutoencoder:
    """The same model with numbers where it starts at zero, so that what is visible matters though it is untrained."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weights in model.parameters():
            if not weights.any():
                weights.copy_(0.3 * torch.randn(weights.shape, generator=generator))
    return model


def loss_of(kind: str) -> LossName:
    return "cross-entropy" if kind == "tokens" else "mse"


def stream_some(
    kind: str,
    folder: Path | None = None,
    progress: Progress | None = None,
    visible: int = 3,
    half_precision: bool = False,
    watch: Watch | None = None,
    **choices,
) -> Streamed:
    """80 draws in batches of 8: two draws each of four signals, unless chosen otherwise."""
    tokens = kind == "tokens"
    return stream(
        untrained(kind),
        padded_tokens() if tokens else real_signals(),
        SimilaritySettings(**{"draws": 80, "batch_size": 8, "repeats": 2, "seed": 3} | choices),
        visible=visible,
        loss=loss_of(kind),
        outputs=5 if tokens else 1,
        device=CPU,
        half_precision=half_precision,
        folder=folder,
        progress=progress,
        watch=watch,
    )


def record(monkeypatch: pytest.MonkeyPatch, kind: type[Accumulator | PairedSums] = Accumulator) -> list[Draws]:
    """Every batch that is added: losses, visible, scored, real."""
    batches = []
    original = kind.add

    def add(self, *batch):
        batches.append(batch)
        original(self, *batch)

    monkeypatch.setattr(kind, "add", add)
    return batches


def bit_identical(found: Streamed, expected: Streamed) -> bool:
    pairs = zip(found.halves, expected.halves, strict=True)
    equal = all(torch.equal(x, y) for a, b in pairs for x, y in zip(a.tensors(), b.tensors(), strict=True))
    return equal and (found.draws, found.changed) == (expected.draws, expected.changed)


@pytest.mark.parametrize("estimator", ["contrast", "mean-loss"])
@pytest.mark.parametrize("kind", ["real", "tokens"])
def test_halves_are_disjoint_draws_that_merge_to_all_of_them(kind, estimator, monkeypatch):
    with monkeypatch.context() as patch:
        batches = record(patch)
        streamed = stream_some(kind, estimator=estimator)
    first, second = streamed.halves
    assert (len(batches), streamed.draws) == (10, 80)
    rows = [tuple(batch[1].flatten().tolist()) for batch in batches]
    assert len(set(rows)) == 10  # no batch is drawn twice

    def naive(chosen: list[Draws]) -> Accumulator:
        losses, visible, scored, real = (None if x[0] is None else torch.cat(x) for x in zip(*chosen, strict=True))
        return accumulate((losses, visible, scored, real))

    same(first, naive(batches[::2]))
    same(second, naive(batches[1::2]))
    same(merged(streamed.halves), naive(batches))


@pytest.mark.parametrize(
    "choices", [{"estimator": "mean-loss"}, {"repeats": 1, "transform": "none"}], ids=["mean-loss", "contrast"]
)
@pytest.mark.parametrize("kind", ["real", "tokens"])
def test_streaming_scores_every_hidden_real_position_with_its_own_loss(kind, choices, monkeypatch):
    batches = record(monkeypatch)
    stream_some(kind, draws=16, **choices)
    signals, model = (padded_tokens() if kind == "tokens" else real_signals()), untrained(kind)
    for step, (losses, visible, scored, real) in enumerate(batches):
        generator = np.random.default_rng((3, step))
        rows = generator.integers(0, 50, size=8)
        draw = make_draw(signals, generator, rows=rows, visible=3, scored=None)
        for b, row in enumerate(rows):
            there = np.ones(N, bool) if signals.mask is None else signals.mask[row]
            assert torch.equal(visible[b] | scored[b], torch.from_numpy(there))
            assert not (visible[b] & scored[b]).any()
            seen = visible[b].nonzero()[:, 0]
            with torch.no_grad():
                output = model.predict(signals.gather(rows[b : b + 1], seen.numpy()), seen[None], torch.arange(N))[0]
            targets = draw.targets[b]
            if kind == "tokens":
                expected = -output.log_softmax(dim=-1)[torch.arange(N), targets]
                assert torch.equal(real[b], torch.from_numpy(there))
            else:
                expected = (output - targets).square()[:, 0]
                assert real is None
            assert torch.allclose(losses[b][scored[b]], expected[scored[b]], atol=1e-5)


def test_memory_is_bounded_without_changing_the_sums(monkeypatch):
    whole = stream_some("tokens")
    monkeypatch.setattr(streaming, "_MEMORY", 1)  # one signal at a time
    for a, b in zip(stream_some("tokens").halves, whole.halves, strict=True):
        assert isinstance(a, Accumulator)
        assert isinstance(b, Accumulator)
        assert torch.equal(a.all_counts, b.all_counts)
        assert torch.allclose(a.visible_sums, b.visible_sums, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("estimator", ["contrast", "ablation"])
def test_reconstructions_in_bfloat16_are_summed_as_others(estimator, monkeypatch):
    batches = record(monkeypatch, PairedSums if estimator == "ablation" else Accumulator)
    exact, rounded = (
        merged(stream_some("real", estimator=estimator, repeats=1, half_precision=half).halves)
        for half in (False, True)
    )
    assert {batch[0].dtype for batch in batches} == {torch.float32}
    assert torch.equal(exact.tensors()[0], rounded.tensors()[0])
    assert not torch.equal(exact.tensors()[1], rounded.tensors()[1])
    assert torch.allclose(exact.tensors()[1], rounded.tensors()[1], rtol=0.02, atol=0.1)


class Killed(Exception):
    pass


def kill_after(batches: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        assert total == 80
        if done == 8 * batches:
            raise Killed

    return progress


STREAMS = [
    ("real", {"estimator": "contrast"}),
    ("tokens", {"estimator": "contrast"}),
    ("tokens", {"estimator": "mean-loss"}),
    ("tokens", {"estimator": "ablation"}),
]


@pytest.mark.parametrize(("kind", "choices"), STREAMS, ids=["real", "tokens", "mean-loss", "ablation"])
@pytest.mark.parametrize("at", [1, 6, 10])
def test_a_stopped_stream_goes_on_to_the_same_sums(kind, choices, at, tmp_path, monkeypatch):
    whole = stream_some(kind, **choices)
    monkeypatch.setattr(streaming, "_SAVE_EVERY", -1.0)  # after every batch
    with pytest.raises(Killed):
        stream_some(kind, tmp_path, kill_after(at), **choices)
    done = []
    resumed = stream_some(kind, tmp_path, lambda now, total: done.append(now // 8), **choices)
    assert done == list(range(at, 11))  # batch `at` was added but not saved yet
    assert bit_identical(resumed, whole)


def shown_so_far(halves: Halves) -> dict[str, float]:
    sums = merged(halves)
    assert isinstance(sums, Accumulator)
    return {"shown": float(sums.all_counts.sum())}


def test_what_is_watched_is_kept_at_powers_of_two_and_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(streaming, "_FIRST_WATCHED", 16)
    whole = stream_some("real", watch=shown_so_far)
    assert bit_identical(whole, stream_some("real"))
    assert stream_some("real").history == []
    assert [entry["draws"] for entry in whole.history] == [16, 32, 64, 80]
    shown = [entry["shown"] for entry in whole.history]
    assert shown == sorted(shown)
    assert shown[-1] == shown_so_far(whole.halves)["shown"]
    seconds = [entry["seconds"] for entry in whole.history]
    assert seconds == sorted(seconds)
    assert seconds[-1] <= round(whole.seconds, 3)

    monkeypatch.setattr(streaming, "_SAVE_EVERY", -1.0)  # after every batch
    for batches in (3, 7, 10):
        with pytest.raises(Killed):
            stream_some("real", tmp_path, kill_after(batches), watch=shown_so_far)
    resumed = stream_some("real", tmp_path, watch=shown_so_far)
    assert [(entry["draws"], entry["shown"]) for entry in resumed.history] == [
        (entry["draws"], entry["shown"]) for entry in whole.history
    ]


@pytest.mark.parametrize("half", [0, 1])
def test_a_stop_between_the_partial_files_is_noticed(half, tmp_path, monkeypatch):
    whole = stream_some("tokens")
    monkeypatch.setattr(streaming, "_SAVE_EVERY", -1.0)
    with pytest.raises(Killed):
        stream_some("tokens", tmp_path, kill_after(3 + half))
    older = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Killed):
        stream_some("tokens", tmp_path, kill_after(7))
    # as if the stop had come when only one of the three files was written
    for name in older.keys() - {f"partial-{half}.safetensors"}:
        (tmp_path / name).write_bytes(older[name])
    assert bit_identical(stream_some("tokens", tmp_path), whole)


# -- when to stop -------------------------------------------------------------------------------------------------


def test_neighbor_lists_are_of_the_mean_with_the_transpose():
    similarity = torch.tensor([[0.0, 3.0, 2.0], [0.0, 0.0, 1.0], [4.0, 9.0, 0.0]])
    # symmetrized: 0 and 1 share 3, 0 and 2 share 6, 1 and 2 share 10
    lists = streaming.neighbor_lists(similarity, 1)
    assert lists.nonzero().tolist() == [[0, 2], [1, 2], [2, 1]]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at three neighbors of eight positions, from the third batch of eight draws on."""
    monkeypatch.setattr(streaming, "_FIRST_LOOK", 24)
    monkeypatch.setattr(streaming, "_NEIGHBORS", 3)


@pytest.mark.usefixtures("soon")
def test_a_stream_ends_once_a_quarter_more_draws_change_few_neighbors():
    few = stream_some("real", draws=4_000, until="stable", tolerance=0.2)
    draws, shares = zip(*few.changed, strict=True)
    assert few.draws == draws[-1] < 4_000
    assert (draws[0], shares[0]) == (24, 1.0)
    assert all(1.25 * before <= now < 1.25 * before + 8 for before, now in pairwise(draws))
    assert all(share > 0.2 for share in shares[:-1])
    assert shares[-1] <= 0.2
    # the share that was found, by hand: lists as they are after so many draws
    before, now = (
        streaming.neighbor_lists(estimate(merged(stream_some("real", draws=d).halves), "contrast").values, 3)
        for d in draws[-2:]
    )
    lost = sum(
        len({*a.nonzero()[:, 0].tolist()} - {*b.nonzero()[:, 0].tolist()}) for a, b in zip(before, now, strict=True)
    )
    assert shares[-1] == pytest.approx(lost / (8 * 3))
    assert bit_identical(stream_some("real", draws=draws[-1]), replace(few, changed=[]))


@pytest.mark.usefixtures("soon")
def test_draws_are_the_most_where_nothing_becomes_stable():
    never = stream_some("real", draws=80, until="stable", tolerance=1e-9)
    assert never.draws == 80
    assert [drawn for drawn, _ in never.changed] == [24, 32, 40, 56, 72]


@pytest.mark.slow
@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize(("estimator", "seed"), [("contrast", 3), ("mean-loss", 4), ("ablation", 3)])
@pytest.mark.parametrize("stop", [32, 40, 48, None])
def test_a_stopped_stream_becomes_stable_after_as_many_draws(estimator, seed, stop, tmp_path, monkeypatch):
    """At 32 between two looks, at 40 right after one, at the last one when nothing but the writing was left."""
    choices = {"estimator": estimator, "seed": seed, "draws": 2_000, "until": "stable", "tolerance": 0.09}
    whole = stream_some("real", **choices)
    assert 48 < whole.draws < 2_000
    monkeypatch.setattr(streaming, "_SAVE_EVERY", -1.0)

    def progress(done: int, total: int) -> None:
        if stop is not None and done == stop + 8:
            raise Killed

    if stop is None:
        stream_some("real", tmp_path, **choices)
    else:
        with pytest.raises(Killed):
            stream_some("real", tmp_path, progress, **choices)
    done = []
    resumed = stream_some("real", tmp_path, lambda now, total: done.append(now), **choices)
    assert bit_identical(resumed, whole)
    assert done == list(range((stop or whole.draws) + 8, whole.draws + 1, 8))


def test_a_stream_stops_after_its_seconds_and_no_later_when_it_is_resumed(tmp_path, monkeypatch):
    clock = count()  # every look at the clock takes a second
    monkeypatch.setattr(streaming, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(streaming, "_SAVE_EVERY", 0.0)
    assert stream_some("real", seconds=4.0).draws == 5 * 8  # a fifth batch was begun at 4.0
    assert stream_some("real", tmp_path, seconds=0.0).draws == 2 * 8  # one for each half
    assert stream_some("real", tmp_path, seconds=0.5).draws == 2 * 8  # two seconds were taken before the stop
    assert stream_some("real", tmp_path, seconds=2.0).draws == 3 * 8


# -- what is found ------------------------------------------------------------------------------------------------


def magnitudes(n: int = 4_000) -> SignalData:
    """Six positions: 0 and 1, 2 and 3, 4 and 5 are loud or quiet together, and never correlated."""
    generator = np.random.default_rng(0)
    loud = np.repeat(generator.random((n, 3)) < 0.5, 2, axis=1)
    values = (np.where(loud, 1.4, 0.1) * generator.normal(0, 1, (n, 6))).astype(np.float32)[..., None]
    mean, scale = np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32)
    train, validation, test = (
        Signals(values[a:b], mean=mean, scale=scale) for a, b in ((0, n - 500), (n - 500, n), (0, 2))
    )
    return SignalData("magnitudes", "real", train, validation, test)


def found_with(loss: LossName, folder: Path) -> Similarity:
    data = magnitudes()
    settings = AutoencoderSettings(
        loss=loss, width=16, heads=2, layers=1, steps=300, batch_size=64, learning_rate=0.01, visible_fraction=0.34
    )
    model = pretrain(data, settings, TrainerSettings(accelerator="cpu", progress="none"), folder)
    choices = SimilaritySettings(draws=12_288)
    outputs = outputs_of(loss, channels=1, vocabulary=0)
    streamed = stream(model, data.train, choices, visible=2, loss=loss, outputs=outputs, device=CPU)
    return estimate(merged(streamed.halves), "contrast")


@pytest.mark.slow
def test_a_likelihood_finds_what_goes_together_in_size_alone_and_squared_errors_do_not(tmp_path):
    partners = (range(6), [1, 0, 3, 2, 5, 4])
    likelihood, squares = (found_with(loss, tmp_path / loss) for loss in ("gaussian", "mse"))
    assert likelihood.values.argmax(dim=1).tolist() == partners[1]
    assert (likelihood.values / likelihood.standard_error)[partners].min() > 5
    assert squares.values[partners].mean() < 0.2 * likelihood.values[partners].mean()
    assert compute_baseline("correlation", magnitudes()).values.max() < 0.1


# -- what may not be read -----------------------------------------------------------------------------------------


def digits(permute: int | None = None) -> SignalData:
    return load("digits", DataSettings(limit=400, permute=permute))


def small_run(folder: Path, data: SignalData, steps: int = 60, seed: int = 0, draws: int = 2_048) -> Context:
    choices = Settings(
        autoencoder=AutoencoderSettings(
            width=16, heads=2, layers=1, scored=32, batch_size=32, steps=steps, validate_every=steps, warmup=10
        ),
        similarity=SimilaritySettings(draws=draws, batch_size=128, seed=seed),
        embedding=EmbeddingSettings(force=True),  # so short a training may find no dependence
        trainer=TrainerSettings(accelerator="cpu", progress="none", precision="32-true"),
    )
    return context(folder, choices, data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*constant in the training signals", "ignore:the neighbor graph falls")
def test_deleting_the_coordinates_leaves_the_saved_vectors_bit_identical(tmp_path):
    data = digits()
    vectors = {}
    for name, variant in (("with", data), ("without", replace(data, geometry=None, permutation=None))):
        run = small_run(tmp_path / name, variant)
        execute([Pretrain()], run)
        execute([SimilarityStage()], run)
        for method in ("maed", "correlation"):
            execute([Embed()] if method == "maed" else [Baseline(method), Embed(method)], run)
            folder = run.folder.embedding(method)
            assert (PositionEmbedding.from_pretrained(folder.path).geometry is None) == (name == "without")
            vectors[name, method] = load_file(folder.model)["vectors"]
    assert vectors["with", "maed"].any()
    assert torch.equal(vectors["with", "maed"], vectors["without", "maed"])
    assert torch.equal(vectors["with", "correlation"], vectors["without", "correlation"])
    assert not torch.equal(vectors["with", "maed"], vectors["with", "correlation"])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*constant in the training signals", "ignore:the neighbor graph falls")
def test_the_contrast_of_permuted_data_agrees_within_its_standard_error(tmp_path):
    straight, permuted = digits(), digits(permute=3)
    order = torch.from_numpy(permuted.permutation)  # position i holds what was at order[i]
    run = small_run(tmp_path, straight, steps=200)
    execute([Pretrain()], run)
    model, config = load_autoencoder(tmp_path / "autoencoder")
    assert isinstance(model, SetAutoencoder)

    def contrast(data: SignalData, seed: int) -> Similarity:
        choices = SimilaritySettings(draws=8_192, batch_size=128, seed=seed)
        rest = {"visible": config["visible"], "loss": "mse", "outputs": 1, "device": CPU}
        return estimate(merged(stream(model, data.train, choices, **rest).halves), "contrast")

    def rms_of_z(a: Similarity, b: Similarity, back: Tensor) -> float:
        off = ~torch.eye(64, dtype=torch.bool)
        error = (a.standard_error**2 + b.standard_error[back][:, back] ** 2).sqrt()
        z = (a.values - b.values[back][:, back]) / error
        return float(z[off].square().mean().sqrt())

    original = contrast(straight, seed=0)
    with torch.no_grad():
        model.position_vectors.copy_(model.position_vectors[order])
    other = contrast(permuted, seed=1)
    assert 0.8 < rms_of_z(original, other, order.argsort()) < 1.2
    assert rms_of_z(original, other, torch.arange(64)) > 1.5  # the test would notice


# -- baselines ----------------------------------------------------------------------------------------------------


def correlated(n: int = 2_500, channels: int = 3) -> np.ndarray:
    """More signals than one chunk, far from mean 0, neighbors correlated with either sign."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 1, (n, 7, channels))
    mixed = noise[:, 1:] * np.array([1, -1, 1, -1, 1, -1])[:, None] + 0.8 * noise[:, :-1]
    return (20 + mixed * generator.uniform(0.5, 2, (6, channels))).astype(np.float32)


def normalized(values: np.ndarray, mask: np.ndarray | None = None) -> Signals:
    mean, scale = np.full((1, values.shape[2]), 19, np.float32), np.array([[3]], np.float32)
    return Signals(values, mask=mask, mean=mean, scale=scale)


def correlation(signals: Signals) -> Similarity:
    return of_all_pairs("correlation", SignalData("real", "real", signals, signals, signals))


def dependence(signals: Signals, vocabulary: int) -> Similarity:
    return of_all_pairs("dependence", SignalData("words", "tokens", signals, signals, signals, vocabulary))


def of_all_pairs(name: str, data: SignalData) -> Similarity:
    found = compute_baseline(name, data)
    assert isinstance(found, Similarity)
    return found


def test_correlation_is_the_absolute_pearson_correlation_averaged_over_channels():
    values = correlated()
    expected = np.mean([np.abs(np.corrcoef(values[..., c].T)) for c in range(3)], axis=0)
    np.fill_diagonal(expected, 0)
    found = correlation(normalized(values))
    assert np.allclose(found.values, expected, atol=1e-5)
    assert (found.values > 0.3).sum() == 10  # the five pairs of neighbors
    one = correlation(normalized(values[..., :1]))
    expected = (1 - np.corrcoef(values[..., 0].T) ** 2) / math.sqrt(2_500)
    assert np.allclose(one.standard_error + torch.eye(6), expected + np.eye(6), atol=1e-5)


def test_correlation_is_over_the_signals_in_which_both_are_real():
    values = correlated(channels=1)
    mask = np.random.default_rng(1).random(values.shape[:2]) < 0.6
    mask[:, 5] &= values[:, 5, 0] > 20  # not missing at random: another mean
    values[~mask] = 19
    found = correlation(normalized(values, mask)).values
    for i in range(6):
        for j in range(6):
            both = mask[:, i] & mask[:, j]
            expected = 0 if i == j else abs(np.corrcoef(values[both, i, 0], values[both, j, 0])[0, 1])
            assert float(found[i, j]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_a_constant_position_correlates_with_nothing(masked):
    values = correlated(channels=1)
    values[:, 0], values[:, 3] = 7.3, 41.9
    mask = np.random.default_rng(1).random(values.shape[:2]) < 0.6 if masked else None
    found = correlation(normalized(values, mask))
    for matrix in (found.values[[0, 3]], found.values[:, [0, 3]]):
        assert not matrix.any()
    assert found.values[1, 2] > 0.3
    assert found.standard_error.isfinite().all()


def tokens(ids: np.ndarray, mask: np.ndarray | None = None) -> Signals:
    return Signals(ids.astype(np.int16), mask=mask)


def chain(n: int = 1_500, positions: int = 5, classes: int = 4, seed: int = 0) -> np.ndarray:
    """Each token repeats the one before with probability 1/2; not all tokens are equally frequent."""
    generator = np.random.default_rng(seed)
    ids = np.minimum(generator.geometric(0.4, (n, positions)), classes) - 1
    for position in range(1, positions):
        repeat = generator.random(n) < 0.5
        ids[repeat, position] = ids[repeat, position - 1]
    return ids


def cramers_v(a: np.ndarray, b: np.ndarray) -> float:
    """Bergsma 2013, from SciPy's chi-square."""
    table = crosstab(a, b).count
    n, (r, c) = table.sum(), table.shape
    phi2 = chi2_contingency(table, correction=False).statistic / n
    corrected = max(0, phi2 - (r - 1) * (c - 1) / (n - 1))
    rows, columns = r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)
    return math.sqrt(corrected / (min(rows, columns) - 1))


def close(found: Tensor, expected: float) -> None:
    """Squares are compared: the root turns a rounding of 1e-7 at V = 0 into 3e-4."""
    assert float(found) ** 2 == pytest.approx(expected**2, abs=2e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_dependence_is_the_bias_corrected_cramers_v(masked):
    ids = chain()
    ids[:, 4] = ids[:, 3] // 2  # two classes against four
    mask = np.random.default_rng(1).random(ids.shape) < 0.6 if masked else np.ones(ids.shape, bool)
    found = dependence(tokens(ids, mask if masked else None), 4).values
    for i in range(5):
        for j in range(5):
            both = mask[:, i] & mask[:, j]
            expected = 0 if i == j else cramers_v(ids[both, i], ids[both, j])
            close(found[i, j], expected)
    assert found[0, 1] > found[0, 2] > found[0, 3]


def test_rare_tokens_share_the_last_of_32_classes():
    wide = np.minimum(np.random.default_rng(2).geometric(0.05, (4_000, 3)), 60) - 1
    wide[:, 1] = np.where(np.random.default_rng(3).random(4_000) < 0.5, wide[:, 0], wide[:, 1])
    ids = wide * 7 % 60  # frequencies fall with the class, ids do not
    order = np.argsort(-np.bincount(ids.ravel(), minlength=60), kind="stable")
    counts = np.bincount(ids.ravel(), minlength=60)[order]
    assert counts[30] > counts[31]  # no tie decides who is rare
    rank = np.empty(60, int)
    rank[order] = np.arange(60)
    pooled = np.minimum(rank[ids], 31)
    found = dependence(tokens(ids), 60).values
    for i, j in ((0, 1), (0, 2), (1, 2)):
        close(found[i, j], cramers_v(pooled[:, i], pooled[:, j]))
    assert abs(cramers_v(pooled[:, 0], pooled[:, 1]) - cramers_v(ids[:, 0], ids[:, 1])) > 1e-3


def test_thirty_two_tokens_are_not_pooled():
    ids = chain(classes=32)
    ids[:32] = np.arange(32)[:, None]  # each is there
    found = dependence(tokens(ids), 200).values
    close(found[0, 1], cramers_v(ids[:, 0], ids[:, 1]))


def test_copies_depend_fully_and_independent_tokens_not_at_all():
    ids = np.random.default_rng(0).integers(0, 4, (4_000, 6))
    ids[:, 1] = 3 - ids[:, 0]
    found = dependence(tokens(ids), 4)
    assert float(found.values[0, 1]) == pytest.approx(1)
    rest = found.values[2:, 2:]
    assert rest.max() < 3 * found.standard_error[2, 3]
    # sqrt(sqrt(2 * 3 * 3) / (4000 * 3)) as (4 - 1) is the largest phi squared of four classes
    assert float(found.standard_error[2, 3]) == pytest.approx(math.sqrt(math.sqrt(18) / 12_000), rel=1e-2)


def test_padding_does_not_become_dependence():
    generator = np.random.default_rng(0)
    mask = np.arange(6) < generator.integers(1, 7, (4_000, 1))
    ids = np.where(mask, generator.integers(1, 5, (4_000, 6)), 0)
    assert dependence(tokens(ids, mask), 5).values.max() < 0.1
    assert dependence(tokens(ids), 5).values[3, 4] > 0.3  # as it would without the mask


def test_a_constant_position_depends_on_nothing():
    ids = chain()
    ids[:, 2] = 1
    found = dependence(tokens(ids), 4)
    assert not found.values[2].any()
    assert found.values.isfinite().all()
    assert found.standard_error.isfinite().all()


def test_blocks_of_positions_fit_together():
    # 70 positions are a block of 64 and a rest; symmetric, and as each pair alone
    ids = chain(n=300, positions=70)
    found = dependence(tokens(ids), 4).values
    assert torch.allclose(found**2, found.T**2, atol=2e-6)
    for i, j in ((0, 1), (62, 63), (63, 64), (5, 69), (68, 69)):
        close(found[i, j], cramers_v(ids[:, i], ids[:, j]))


@pytest.mark.parametrize("baseline", [correlation, lambda signals: dependence(signals, 4)])
def test_permuting_positions_permutes_a_baseline(baseline):
    real = baseline is correlation
    values = correlated() if real else chain()
    order = np.random.default_rng(0).permutation(values.shape[1])
    straight, permuted = (normalized(v) if real else tokens(v) for v in (values, values[:, order]))
    assert torch.allclose(baseline(permuted).values ** 2, baseline(straight).values[order][:, order] ** 2, atol=2e-6)


def test_each_baseline_is_refused_for_the_other_kind():
    numbers, letters = normalized(correlated(50)), tokens(chain(50))
    real = SignalData("real", "real", numbers, numbers, numbers)
    words = SignalData("words", "tokens", letters, letters, letters, vocabulary=4)
    assert (baseline_for(real), baseline_for(words)) == ("correlation", "dependence")
    for name, data in (("dependence", real), ("correlation", words)):
        with pytest.raises(MaedError) as refused:
            compute_baseline(name, data)
        assert refused.value.argument == "similarity"
    assert torch.equal(compute_baseline("correlation", real).values, correlation(real.train).values)


def test_a_baseline_reads_the_signals_it_is_allowed_and_no_held_out_one():
    train = normalized(correlated(400))
    poison = normalized(np.full((10, 6, 3), np.nan, np.float32))
    data = SignalData("real", "real", train, poison, poison)
    some = compute_baseline("correlation", data, 100)
    rows = np.sort(np.random.default_rng(0).permutation(400)[:100])
    assert torch.equal(some.values, correlation(train.rows(rows)).values)
    assert torch.equal(compute_baseline("correlation", data, 400).values, correlation(train).values)
