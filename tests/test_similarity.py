"""The accumulator, the estimators, the streaming of draws and the baselines, against the definitions of design.md."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from scipy.stats import chi2_contingency
from scipy.stats.contingency import crosstab
from torch import Tensor

from maed.autoencoder import SetAutoencoder, build_autoencoder, load_autoencoder
from maed.autoencoder.masking import make_draw
from maed.config import AutoencoderSettings, DataSettings, Settings, SimilaritySettings, TrainerSettings
from maed.data import load
from maed.data.signals import SignalData, Signals
from maed.errors import MaedError
from maed.files import read_json
from maed.pipeline import Run
from maed.similarity import (
    Accumulator,
    Similarity,
    baseline_for,
    compute_baseline,
    estimate,
    load_similarity,
    stream,
    streaming,
    write_similarity,
)
from maed.similarity.baselines import correlation, dependence

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


# -- merging ------------------------------------------------------------------------------------------------------


def same(a: Accumulator, b: Accumulator) -> None:
    for name in SUMS:
        left, right = getattr(a, name), getattr(b, name)
        if name.endswith("counts"):
            assert torch.equal(left, right)
        else:
            assert torch.allclose(left, right, rtol=1e-12, atol=1e-12)


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
    assert loaded.n == 6


@pytest.mark.parametrize("padded", [False, True])
def test_the_folder_is_what_the_design_names(padded, tmp_path):
    draws = some_draws(padded=padded)
    sums = accumulate(draws)
    similarity = estimate(sums, "contrast")
    (tmp_path / "partial.json").write_text("{}")
    write_similarity(tmp_path, similarity, sums, {"split_half": 0.5})
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    assert read_json(tmp_path / "config.json") == {"schema": 1, "n": 6, "split_half": 0.5}
    tensors = load_file(tmp_path / "model.safetensors")
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
    with pytest.raises(MaedError, match="holds no similarity; `maed similarity` writes one"):
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
    return build_autoencoder(small, n=N, channels=0 if tokens else 1, vocabulary=5 if tokens else 0).eval()


def stream_some(kind: str, folder: Path | None = None, draws: int = 80, **rest) -> tuple[Accumulator, Accumulator]:
    tokens = kind == "tokens"
    return stream(
        untrained(kind),
        padded_tokens() if tokens else real_signals(),
        SimilaritySettings(draws=draws, batch_size=8, seed=3),
        visible=3,
        loss="cross-entropy" if tokens else "mse",
        outputs=5 if tokens else 1,
        device=CPU,
        folder=folder,
        **rest,
    )


def record(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, ...]]:
    """Every batch that is added: losses, visible, scored, real."""
    batches = []
    original = Accumulator.add

    def add(self, *batch):
        batches.append(batch)
        original(self, *batch)

    monkeypatch.setattr(Accumulator, "add", add)
    return batches


@pytest.mark.parametrize("kind", ["real", "tokens"])
def test_halves_are_disjoint_draws_that_merge_to_all_of_them(kind, monkeypatch):
    with monkeypatch.context() as patch:
        batches = record(patch)
        first, second = stream_some(kind)
    assert len(batches) == 10
    rows = [tuple(batch[1].flatten().tolist()) for batch in batches]
    assert len(set(rows)) == 10  # no batch is drawn twice

    def naive(chosen: list) -> Accumulator:
        return accumulate(tuple(None if x[0] is None else torch.cat(x) for x in zip(*chosen, strict=True)))

    same(first, naive(batches[::2]))
    same(second, naive(batches[1::2]))
    same(first.merge(second), naive(batches))


@pytest.mark.parametrize("kind", ["real", "tokens"])
def test_streaming_scores_every_hidden_real_position_with_its_own_loss(kind, monkeypatch):
    batches = record(monkeypatch)
    stream_some(kind, draws=16)
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
    for a, b in zip(stream_some("tokens"), whole, strict=True):
        assert torch.equal(a.all_counts, b.all_counts)
        assert torch.allclose(a.visible_sums, b.visible_sums, rtol=1e-5)


class Killed(Exception):
    pass


def kill_after(batches: int) -> Callable[[int, int], None]:
    def progress(done: int, total: int) -> None:
        assert total == 80
        if done == 8 * batches:
            raise Killed

    return progress


@pytest.mark.parametrize("kind", ["real", "tokens"])
@pytest.mark.parametrize("at", [1, 6, 10])
def test_a_stopped_stream_goes_on_to_the_same_sums(kind, at, tmp_path, monkeypatch):
    whole = stream_some(kind)
    monkeypatch.setattr(streaming, "_SAVE_EVERY", -1.0)  # after every batch
    with pytest.raises(Killed):
        stream_some(kind, tmp_path, progress=kill_after(at))
    done = []
    resumed = stream_some(kind, tmp_path, progress=lambda now, total: done.append(now // 8))
    assert done == list(range(at, 11))  # batch `at` was added but not saved yet
    for a, b in zip(resumed, whole, strict=True):
        assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in SUMS)


@pytest.mark.parametrize("half", [0, 1])
def test_a_stop_between_the_partial_files_is_noticed(half, tmp_path, monkeypatch):
    whole = stream_some("tokens")
    monkeypatch.setattr(streaming, "_SAVE_EVERY", -1.0)
    with pytest.raises(Killed):
        stream_some("tokens", tmp_path, progress=kill_after(3 + half))
    older = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Killed):
        stream_some("tokens", tmp_path, progress=kill_after(7))
    # as if the stop had come when only one of the three files was written
    for name in older.keys() - {f"partial-{half}.safetensors"}:
        (tmp_path / name).write_bytes(older[name])
    for a, b in zip(stream_some("tokens", tmp_path), whole, strict=True):
        assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in SUMS)


# -- what may not be read -----------------------------------------------------------------------------------------


def digits(permute: int | None = None) -> SignalData:
    return load("digits", DataSettings(limit=400, permute=permute))


def small_run(folder: Path, data: SignalData, steps: int = 60, seed: int = 0, draws: int = 2_048) -> Run:
    choices = Settings(
        autoencoder=AutoencoderSettings(
            width=16, heads=2, layers=1, scored=32, batch_size=32, steps=steps, validate_every=steps, warmup=10
        ),
        similarity=SimilaritySettings(draws=draws, batch_size=128, seed=seed),
        trainer=TrainerSettings(accelerator="cpu", progress="none", precision="32-true"),
    )
    return Run(folder, choices, data)


@pytest.mark.filterwarnings("ignore:.*constant in the training signals", "ignore:the neighbour graph falls")
def test_deleting_the_coordinates_leaves_the_saved_vectors_bit_identical(tmp_path):
    data = digits()
    vectors = {}
    for name, variant in (("with", data), ("without", replace(data, geometry=None, permutation=None))):
        run = small_run(tmp_path / name, variant)
        run.pretrain()
        run.similarity()
        baseline = run.baseline()
        for source, folder in (("maed", run.out), (baseline, run.out / "baseline")):
            assert (run.embed(source).geometry is None) == (name == "without")
            vectors[name, source] = load_file(folder / "embedding" / "model.safetensors")["vectors"]
    assert vectors["with", "maed"].any()
    assert torch.equal(vectors["with", "maed"], vectors["without", "maed"])
    assert torch.equal(vectors["with", "correlation"], vectors["without", "correlation"])
    assert not torch.equal(vectors["with", "maed"], vectors["with", "correlation"])


@pytest.mark.filterwarnings("ignore:.*constant in the training signals", "ignore:the neighbour graph falls")
def test_the_contrast_of_permuted_data_agrees_within_its_standard_error(tmp_path):
    straight, permuted = digits(), digits(permute=3)
    order = torch.from_numpy(permuted.permutation)  # position i holds what was at order[i]
    run = small_run(tmp_path, straight, steps=200)
    run.pretrain()
    model, config = load_autoencoder(tmp_path / "autoencoder")

    def contrast(data: SignalData, seed: int) -> Similarity:
        choices = SimilaritySettings(draws=8_192, batch_size=128, seed=seed)
        rest = {"visible": config["visible"], "loss": "mse", "outputs": 1, "device": CPU}
        first, second = stream(model, data.train, choices, **rest)
        return estimate(first.merge(second), "contrast")

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
    """More signals than one chunk, far from mean 0, neighbours correlated with either sign."""
    generator = np.random.default_rng(0)
    noise = generator.normal(0, 1, (n, 7, channels))
    mixed = noise[:, 1:] * np.array([1, -1, 1, -1, 1, -1])[:, None] + 0.8 * noise[:, :-1]
    return (20 + mixed * generator.uniform(0.5, 2, (6, channels))).astype(np.float32)


def normalised(values: np.ndarray, mask: np.ndarray | None = None) -> Signals:
    return Signals(values, mask=mask, mean=np.float32([[19] * values.shape[2]]), scale=np.float32([[3]]))


def test_correlation_is_the_absolute_pearson_correlation_averaged_over_channels():
    values = correlated()
    expected = np.mean([np.abs(np.corrcoef(values[..., c].T)) for c in range(3)], axis=0)
    np.fill_diagonal(expected, 0)
    found = correlation(normalised(values))
    assert np.allclose(found.values, expected, atol=1e-5)
    assert (found.values > 0.3).sum() == 10  # the five pairs of neighbours
    one = correlation(normalised(values[..., :1]))
    expected = (1 - np.corrcoef(values[..., 0].T) ** 2) / math.sqrt(2_500)
    assert np.allclose(one.standard_error + torch.eye(6), expected + np.eye(6), atol=1e-5)


def test_correlation_is_over_the_signals_in_which_both_are_real():
    values = correlated(channels=1)
    mask = np.random.default_rng(1).random(values.shape[:2]) < 0.6
    mask[:, 5] &= values[:, 5, 0] > 20  # not missing at random: another mean
    values[~mask] = 19
    found = correlation(normalised(values, mask)).values
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
    found = correlation(normalised(values, mask))
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
    straight, permuted = (normalised(v) if real else tokens(v) for v in (values, values[:, order]))
    assert torch.allclose(baseline(permuted).values ** 2, baseline(straight).values[order][:, order] ** 2, atol=2e-6)


def test_each_baseline_is_refused_for_the_other_kind():
    real = SignalData("real", "real", *[normalised(correlated(50))] * 3)
    words = SignalData("words", "tokens", *[tokens(chain(50))] * 3, vocabulary=4)
    assert (baseline_for(real), baseline_for(words)) == ("correlation", "dependence")
    with pytest.raises(MaedError, match="'dependence' is not defined for real signals; it may be correlation"):
        compute_baseline("dependence", real)
    with pytest.raises(MaedError, match="'correlation' is not defined for tokens signals; it may be dependence"):
        compute_baseline("correlation", words)
    assert torch.equal(compute_baseline("correlation", real).values, correlation(real.train).values)


def test_a_baseline_reads_the_signals_it_is_allowed_and_no_held_out_one():
    train = normalised(correlated(400))
    poison = normalised(np.full((10, 6, 3), np.nan, np.float32))
    data = SignalData("real", "real", train, poison, poison)
    some = compute_baseline("correlation", data, 100)
    rows = np.sort(np.random.default_rng(0).permutation(400)[:100])
    assert torch.equal(some.values, correlation(train.rows(rows)).values)
    assert torch.equal(compute_baseline("correlation", data, 400).values, correlation(train).values)
