"""`maed.learn` and `PositionLearner`: whatever holds signals in, an embedding out."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.utils.estimator_checks import parametrize_with_checks

import maed
from maed import MaedError, PositionLearner
from maed.data import from_given
from maed.data import objects as given_module
from maed.data.geometry import ring
from maed.data.objects import sample
from maed.evaluation.geometry import geometry_metrics
from maed.settings import AutoencoderSettings, EvaluationSettings, Settings, SimilaritySettings
from maed.stages.budget import affordable, parse_budget, within_draws
from maed.stages.choices import choose


# force: most checks fit pure noise, which would be refused
@pytest.mark.slow
@parametrize_with_checks([PositionLearner(method="maed", force=True, budget="400 draws")])
def test_it_is_an_estimator_of_scikit_learn(estimator, check):
    check(estimator)


def walks(n: int = 240, length: int = 12, seed: int = 0) -> np.ndarray:
    """Random walks, `(n, length)` float32: near positions are alike."""
    return np.random.default_rng(seed).normal(size=(n, length)).cumsum(axis=1).astype(np.float32)


def quick(**parameters) -> PositionLearner:
    """A learner that takes a fraction of a second, on its own choices but for their number of draws."""
    return PositionLearner(**{"method": "maed", "budget": "8000 draws", "random_state": 0, "force": True, **parameters})


def ring_signals(n: int, positions: int, seed: int = 0) -> np.ndarray:
    """Smooth random fields on a ring, `(n, positions)`: harmonics that fade as those of a Gaussian do."""
    generator = np.random.default_rng(seed)
    angle, k = 2 * np.pi * np.arange(positions) / positions, np.arange(1, 16)
    waves = np.exp(-((k / 6) ** 2))[:, None] * np.exp(1j * k[:, None] * angle)
    field = (generator.normal(size=(n, len(k))) + 1j * generator.normal(size=(n, len(k)))) @ waves
    return field.real / field.real.std() + 0.3 * generator.normal(size=(n, positions))


# --- what comes out -----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("short_learning")
def test_the_ring_of_shuffled_sensors_is_found_by_default():
    order = np.random.default_rng(1).permutation(60)
    X = ring_signals(1_000, 60)[:, order]
    truth = ring(60).permuted(order)
    learner = PositionLearner(random_state=0).fit(X, coordinates=truth.coordinates)
    metrics = geometry_metrics(learner.embedding_.vectors, truth, EvaluationSettings())
    assert metrics["knn_recall"] > 0.9
    assert metrics["coordinate_r2"] > 0.9
    assert max(candidate.split_half or 0 for candidate in learner.candidates_) > 0.8
    assert np.array_equal(learner.embedding_.coordinates.numpy(), truth.coordinates.astype(np.float32))
    assert learner.similarity_.shape == (60, 60)
    nearest = set(order[learner.embedding_.neighbors(7, k=2)])
    assert nearest == {(order[7] + 1) % 60, (order[7] - 1) % 60}


@pytest.mark.slow
def test_true_coordinates_change_no_bit():
    X = walks()
    with_them = quick().fit(X, coordinates=np.arange(12.0)[::-1, None].copy())
    assert torch.equal(with_them.embedding_.vectors, quick().fit(X).embedding_.vectors)


@pytest.mark.slow
def test_it_says_what_it_chose_and_is_silent_unless_asked(capfd):
    learner = quick().fit(walks())
    assert capfd.readouterr() == ("", "")
    assert learner.choices_[0] == "215 signals of 12 positions, 1 channel"
    assert any(line.startswith("autoencoder: set") for line in learner.choices_)
    assert any(line.startswith("estimator: contrast, 65536 draws") for line in learner.choices_)
    assert learner.choices_[-1] == "budget: 41 training steps of 64 and 5375 draws for the similarity"
    maed.learn(walks(), method="maed", budget="8000 draws", random_state=0, force=True)
    shown = capfd.readouterr().err
    assert all(f"maed: {line}\n" in shown for line in learner.choices_)


@pytest.mark.slow
def test_choices_follow_size_and_kind():
    texts = pd.Series(["so it goes", "and it came to pass", "once upon a time there was"] * 20)
    chosen, _ = choose(from_given(texts), Settings(), set(), reading_order=True)
    assert chosen.autoencoder.kind == "unet"  # texts have a reading order
    tokens, said = choose(
        from_given(np.random.default_rng(0).integers(0, 5, (60, 9))), Settings(), set(), reading_order=False
    )
    assert (tokens.autoencoder.kind, tokens.autoencoder.layers) == ("set", 0)
    assert any("init='dependence'" in line for line in said)
    many, few = (
        choose(from_given(walks(count)), Settings(), set(), reading_order=False)[0].autoencoder for count in (200, 20)
    )
    assert few.steps < many.steps
    own = quick(budget="2000 draws", autoencoder="unet", visible_fraction=0.5, dim=3, reduction="pca").fit(walks())
    assert own.settings_.autoencoder.kind == "unet"
    assert own.settings_.autoencoder.visible_fraction == 0.5
    assert own.embedding_.dim == 3
    assert own.embedding_.provenance["reduction"] == "pca"


@pytest.mark.parametrize(("positions", "steps"), [(2, 200), (3, 300), (7, 500), (8, 500), (400, 1200)])
def test_few_positions_are_learned_in_few_steps(positions: int, steps: int) -> None:
    """Below 8 positions 100 steps each: a 200 x 3 array takes seconds, at the times that a step takes."""
    data = from_given(np.random.default_rng(0).normal(size=(400, positions)))
    settings, _ = choose(data, Settings(), set(), reading_order=False)
    assert settings.autoencoder.steps == steps


@pytest.mark.slow
def test_a_baseline_comes_only_when_asked_for():
    baseline = quick(method="correlation").fit(walks())
    assert baseline.embedding_.label == "correlation"
    assert baseline.autoencoder_ is None
    assert np.allclose(baseline.similarity_[0, 1], abs(np.corrcoef(walks().T)[0, 1]), atol=0.05)
    assert not hasattr(baseline, "score")
    assert quick().fit(walks()).embedding_.label == "maed"
    with pytest.raises(MaedError, match="method: 'dependence'"):
        quick(method="dependence").fit(walks())


@pytest.mark.slow
def test_noise_is_refused_unless_forced():
    noise = np.random.default_rng(0).normal(size=(300, 20))
    with pytest.raises(MaedError, match="no dependence found"):
        quick(force=False).fit(noise)
    assert quick(force=True).fit(noise).embedding_.n == 20


@pytest.mark.slow
def test_the_score_is_higher_on_like_signals_than_on_others():
    learner = PositionLearner(method="maed", budget="40000 draws", random_state=0).fit(ring_signals(600, 40))
    alike, shuffled = ring_signals(300, 40, seed=5), ring_signals(300, 40, seed=5)[:, ::-1][:, np.arange(40) * 7 % 40]
    assert learner.score(alike) == learner.score(alike)
    assert -1 < learner.score(alike) < 0  # normalized signals: mean squared error below 1
    assert learner.score(shuffled) < learner.score(alike) - 0.1
    with pytest.raises(MaedError, match=r"real signals of shape \(40, 2\)"):
        learner.score(np.zeros((5, 40, 2)))


def test_a_folder_keeps_the_stages_and_goes_on_from_them(tmp_path):
    first = quick(random_state=None, folder=tmp_path / "run").fit(walks())
    written = (tmp_path / "run/embedding/model.safetensors").stat().st_mtime_ns
    again = quick(random_state=None, folder=tmp_path / "run").fit(walks())
    assert torch.equal(first.embedding_.vectors, again.embedding_.vectors)
    assert (tmp_path / "run/embedding/model.safetensors").stat().st_mtime_ns == written


def test_given_settings_are_used_as_they_are():
    own = Settings(autoencoder=AutoencoderSettings(steps=7, width=16, seed=3), similarity=SimilaritySettings(draws=512))
    learner = PositionLearner(method="maed", settings=own, force=True).fit(walks())
    assert (learner.settings_.autoencoder.steps, learner.settings_.autoencoder.seed) == (7, 3)
    assert len(learner.choices_) == 1  # that nothing was chosen


# --- what goes in -------------------------------------------------------------------------------------------------


def forms(X: np.ndarray, tmp_path) -> dict[str, object]:
    """The same signals in all forms that are taken."""
    np.save(tmp_path / "x.npy", X)
    columns = {f"s{i}": X[:, i] for i in range(X.shape[1])}
    lists = pa.FixedSizeListArray.from_arrays(pa.array(X.ravel()), X.shape[1])
    return {
        "torch": torch.from_numpy(X),
        "channel": X[..., None],
        "memory-mapped": np.load(tmp_path / "x.npy", mmap_mode="r"),
        "lists": X.tolist(),
        "pandas": pd.DataFrame(columns),
        "polars": pl.DataFrame(columns),
        "arrow": pa.table(columns),
        "datasets": Dataset.from_dict({name: values.tolist() for name, values in columns.items()}),
        "arrow column": lists,
        "pandas column": pd.Series(list(X)),
        "polars column": pl.Series("x", X.tolist(), dtype=pl.List(pl.Float32)),
        "iterator": iter(np.array_split(X, 7)),
        "loader": torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(X)), batch_size=50),
        "tables": (pa.table(columns).slice(i, 60) for i in range(0, len(X), 60)),
    }


def test_every_form_of_the_same_signals_gives_the_same_data(tmp_path):
    X = walks()
    expected = from_given(X)
    for name, form in forms(X, tmp_path).items():
        found = from_given(form)
        assert np.array_equal(found.train.values, expected.train.values), name
        assert np.array_equal(found.train.mean, expected.train.mean), name


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torch", "pandas", "polars", "iterator", "memory-mapped"])
def test_every_form_gives_the_same_embedding(form, tmp_path):
    learner = quick().fit(forms(walks(), tmp_path)[form])
    assert torch.equal(learner.embedding_.vectors, quick().fit(walks()).embedding_.vectors)


@pytest.mark.slow
def test_labels_and_names_of_a_table_are_told_from_its_inputs():
    frame = pd.DataFrame(walks(), columns=[f"band {i}" for i in range(12)]).assign(label=1)
    learner = quick().fit(frame)
    assert learner.n_features_in_ == 12
    assert learner.score(frame) < 0


@pytest.mark.slow
def test_missing_values_and_half_precision_are_taken():
    X = walks()
    X[::3, 4] = np.nan
    assert quick().fit(X).embedding_.n == 12
    assert quick().fit(pd.DataFrame(X)).embedding_.n == 12
    assert quick().fit(torch.from_numpy(walks()).bfloat16()).embedding_.n == 12


@pytest.mark.parametrize(
    ("X", "said"),
    [
        (np.zeros(5), r"X.*\(5,\)"),
        (np.zeros((2, 3, 4, 5)), "X"),
        ([[1.0, 2.0], [3.0]], "X"),
        (np.full((9, 4), "a"), "X"),
        (np.full((9, 4), np.inf), "infinite"),
        (iter([]), "X.*iterator"),
        (iter([np.zeros((3, 4)), np.zeros((3, 5))]), r"X.*\(4,\) and \(5,\)"),
        (pd.DataFrame({"a": ["x", "y"] * 5, "b": range(10)}), "columns of numbers, or one"),
        (np.zeros((3, 4)), "X: 3 samples"),
        ({"a": 1}, "X"),
        (7, "X"),
    ],
)
def test_what_cannot_be_learned_from_is_named(X, said):
    with pytest.raises((MaedError, TypeError), match=said):
        PositionLearner().fit(X)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"dim": 12}, r"embedding\.dim.*must be at most 11"),
        ({"dim": 2.5}, r"dim.*2\.5"),
        ({"autoencoder": "cnn"}, "autoencoder.*'cnn'"),
        ({"estimator": "contrats"}, "estimator.*did you mean 'contrast'"),
        ({"reduction": "lda"}, "reduction: unknown reduction 'lda'"),
        ({"kind": "text"}, "kind.*'text'"),
        ({"device": "tpu9"}, "device.*'tpu9'"),
        ({"budget": "soon"}, "budget.*'soon'"),
        ({"init": "nowhere"}, "autoencoder.init: 'nowhere' is no folder"),
        ({"random_state": "x"}, "random_state"),
        ({"visible_fraction": 2.0}, r"autoencoder\.visible_fraction"),
    ],
)
def test_parameters_that_cannot_be_are_named(parameters, said):
    with pytest.raises(MaedError, match=said):
        PositionLearner(**parameters).fit(walks())


def test_learn_names_a_parameter_that_is_unknown():
    with pytest.raises(MaedError, match=r"parameter.*did you mean 'budget'"):
        maed.learn(walks(), budgets=3)


@pytest.mark.slow
def test_too_many_positions_for_the_memory_are_refused_before_any_work():
    X = np.zeros((8, 400_000), dtype=np.float32)
    X[:, ::2] = np.arange(8)[:, None]
    all_pairs = Settings(similarity=SimilaritySettings(dense_positions=1_000_000))
    with pytest.raises(MaedError, match=r"inputs.*400000 positions"):
        PositionLearner(settings=all_pairs).fit(X)
    with pytest.raises(MaedError, match="dense_positions"):
        PositionLearner(method="maed", estimator="ablation").fit(X)


# --- more than memory ---------------------------------------------------------------------------------------------


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12), seed=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_sample_of_a_stream_is_part_of_it_and_all_of_it_where_it_fits(sizes, seed):
    total = sum(sizes)
    rows = np.arange(total, dtype=np.float32)[:, None].repeat(3, axis=1)
    batches = np.split(rows, np.cumsum(sizes)[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(given_module, "KEPT", 20 * rows.itemsize * 3)
        if not total:
            with pytest.raises(MaedError, match="X"):
                sample(iter(batches), np.random.default_rng(seed))
            return
        kept = sample(iter(batches), np.random.default_rng(seed))[:, 0]
    assert len(kept) == min(total, 20)
    assert len(set(kept)) == len(kept)
    assert set(kept) <= set(rows[:, 0])
    if total <= 20:
        assert np.array_equal(kept, rows[:, 0])


def test_every_signal_of_a_stream_is_kept_equally_often(monkeypatch):
    rows = np.arange(100, dtype=np.float32)[:, None].repeat(2, axis=1)
    monkeypatch.setattr(given_module, "KEPT", 16 * 8)
    counts = np.zeros(100)
    for seed in range(2_000):
        kept = sample(iter(np.array_split(rows, 9)), np.random.default_rng(seed))[:, 0].astype(int)
        counts[kept] += 1
    expected = 2_000 * 16 / 100
    assert np.abs(counts - expected).max() < 5 * np.sqrt(expected * (1 - 0.16))


def test_no_more_is_read_of_a_large_array_than_is_kept(monkeypatch, tmp_path):
    np.save(tmp_path / "x.npy", walks(2_000))
    monkeypatch.setattr(given_module, "KEPT", 300 * 12 * 4)
    data = from_given(np.load(tmp_path / "x.npy", mmap_mode="r"))
    assert len(data.train) == 300
    assert len(from_given(pd.DataFrame(walks(2_000))).train) == 300


# --- budgets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "seconds", "draws"),
    [
        (None, None, None),
        (90, 90.0, None),
        (0.5, 0.5, None),
        ("90 s", 90.0, None),
        ("5 min", 300.0, None),
        ("1h", 3600.0, None),
        ("20_000 draws", None, 20_000),
    ],
)
def test_budgets_are_seconds_or_draws(budget, seconds, draws):
    assert parse_budget(budget) == (seconds, draws)


@pytest.mark.parametrize("budget", [0, -1, "0 s", "draws", "5 days", True, float("nan"), float("inf"), [3], "1.2.3 s"])
def test_other_budgets_are_refused(budget):
    with pytest.raises(MaedError, match="budget"):
        parse_budget(budget)


@given(
    draws=st.integers(1, 10**7), steps=st.integers(1, 5_000), batch=st.integers(1, 200), streamed=st.integers(2, 10**6)
)
def test_draws_are_shared_as_they_were(draws, steps, batch, streamed):
    before = Settings(
        autoencoder=AutoencoderSettings(steps=steps, batch_size=batch), similarity=SimilaritySettings(draws=streamed)
    )
    after, _ = within_draws(before, draws)
    made = after.autoencoder.steps * batch + after.similarity.draws
    assert abs(made - draws) <= batch + 2
    assert after.autoencoder.warmup <= after.autoencoder.steps


@pytest.mark.slow
def test_seconds_buy_steps_and_draws():
    little = PositionLearner(method="maed", budget=0.5, random_state=0, force=True).fit(walks(1_000))
    # seconds that no machine is too busy for: what they buy is not done
    much, _ = affordable(from_given(walks(1_000)), Settings(), 600.0)
    assert little.settings_.autoencoder.steps < much.autoencoder.steps
    assert little.settings_.similarity.draws < much.similarity.draws
    assert little.choices_[-1].startswith(f"budget: {little.settings_.autoencoder.steps} training steps")


def test_a_clone_has_the_parameters_and_nothing_learned():
    learner = quick(dim=4).fit(walks())
    copy = clone(learner)
    assert copy.get_params() == learner.get_params()
    assert not hasattr(copy, "embedding_")
