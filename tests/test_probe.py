"""The probe loss, the neighbor error, and the choice between methods: what needs no truth."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maed import MaedError, PositionEmbedding, PositionLearner
from maed.cli import main
from maed.data import from_given
from maed.data.signals import SignalData
from maed.evaluation.probe import RANDOM, neighbor_error, probe
from maed.records import Candidate
from maed.settings import EvaluationSettings, Settings
from maed.stages.choose import best, sentence
from test_learner import ring_signals, walks

N = 40


def ring_data(n: int = 600) -> SignalData:
    return from_given(ring_signals(n, N), settings=replace(Settings().data, validation=0.3))


def circle() -> torch.Tensor:
    angle = 2 * torch.pi * torch.arange(N) / N
    return torch.stack([wave(k * angle) for k in (1, 2, 3) for wave in (torch.cos, torch.sin)], dim=1)


def shuffled(vectors: torch.Tensor) -> torch.Tensor:
    return vectors[torch.from_numpy(np.random.default_rng(0).permutation(len(vectors)))]


@pytest.mark.slow
def test_true_positions_are_better_than_shuffled_and_random_ones():
    candidates = {"shuffled": shuffled(circle()), "true": circle()}
    found = probe(candidates, ring_data(), steps=100, seeds=2)
    assert list(found) == ["shuffled", "true", RANDOM]
    assert found["true"].probe_loss < min(found["shuffled"].probe_loss, found[RANDOM].probe_loss)
    assert (found["true"].probe_loss_above, found["true"].probe_loss_se, found["true"].probe_share) == (0, 0, 1)
    assert found["shuffled"].probe_loss_above > 2 * found["shuffled"].probe_loss_se > 0
    assert found[RANDOM].probe_share == 0


@pytest.mark.slow
def test_a_probe_repeats_and_knows_no_turn_scale_or_place():
    data = ring_data()
    turned = 5 * circle() @ torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))[0] + 3
    one, again = (probe({"a": circle(), "b": circle()}, data, steps=20, seeds=1) for _ in range(2))
    assert one == again
    assert one["a"].probe_loss == one["b"].probe_loss
    scaled = probe({"a": circle(), "b": 5 * circle() + 3}, data, steps=20, seeds=1)
    assert scaled["b"].probe_loss == pytest.approx(scaled["a"].probe_loss, rel=1e-3)
    assert probe({"a": turned}, data, steps=20, seeds=1)["a"].probe_loss > 0


@pytest.mark.slow
def test_tokens_and_missing_values_are_probed_too():
    generator = np.random.default_rng(0)
    chain = np.cumsum(generator.integers(-1, 2, (500, 12)), axis=1) % 5
    tokens = from_given(chain, settings=replace(Settings().data, type="tokens"))
    line = torch.stack([torch.cos(torch.pi * k * torch.arange(12) / 12) for k in range(1, 6)], dim=1)
    found = probe({"true": line, "shuffled": shuffled(line)}, tokens, steps=150, seeds=1)
    assert found["true"].probe_loss < found["shuffled"].probe_loss
    holes = ring_signals(400, N)
    holes[generator.random(holes.shape) < 0.3] = np.nan
    data = from_given(holes, settings=replace(Settings().data, missing="mask"))
    assert np.isfinite(probe({"true": circle()}, data, steps=10, seeds=1)["true"].probe_loss)
    assert np.isfinite(neighbor_error(circle(), data.train, data.validation, 4)).all()


def test_candidates_must_have_the_positions_of_the_data():
    for candidates in ({}, {"a": torch.ones(N - 1, 3)}, {"a": torch.ones(N)}):
        with pytest.raises(MaedError) as refused:
            probe(candidates, ring_data(50), steps=1, seeds=1)
        assert refused.value.argument == "candidates"


def test_the_neighbor_error_tells_tied_positions_from_others():
    signals = ring_signals(800, N)
    signals[:, 7] = np.random.default_rng(1).normal(size=800)
    data = from_given(signals)
    errors = neighbor_error(circle(), data.train, data.validation, 4)
    assert errors.argmax() == 7
    assert errors[7] > 0.8
    assert np.median(errors) < 0.5
    words = from_given(np.repeat(np.random.default_rng(0).integers(0, 4, (500, 5)), 2, axis=1))
    pairs = torch.arange(10).float()[:, None] // 2 * 10 + torch.arange(10).float()[:, None] % 2
    assert neighbor_error(pairs, words.train, words.validation, 1).max() < 0.01


def row(name: str, above: float, se: float, neighbor_error: float = 0.1) -> Candidate:
    return Candidate(name, 1 + above, above, se, 1.0, neighbor_error, None, 1.0)


def test_of_candidates_that_cannot_be_told_apart_maed_is_taken():
    assert best([row("correlation", 0, 0), row("maed", 0.1, 0.06)]) == "maed"
    assert best([row("correlation", 0, 0), row("maed", 0.1, 0.04)]) == "correlation"
    assert best([row("correlation", 0, 0), row("partial", 0.1, 0.06), row("maed", 0.5, 0.1)]) == "partial"
    assert best([Candidate("maed"), Candidate("correlation")]) == "maed"
    worse = [row("correlation", 0, 0), row("maed", 0.1, 0.06, 0.2), row("partial", 0.1, 0.06, 0.11)]
    assert best(worse) == "partial"  # its neighbors are some; a tie is no reason for those of maed
    chance = [Candidate("dependence", 0.9, 0.01, 0.1), Candidate("maed", 0.9, 0.0, 0.0, split_half=0.6)]
    assert best(chance) == "dependence"  # other draws would have given others
    tied = sentence([row("maed", 0.1, 0.06), row("correlation", 0, 0)])
    sure = sentence([row("correlation", 0, 0), row("maed", 0.1, 0.01)])
    assert "correlation" in tied
    assert "maed" not in sure


# --- method="auto" ------------------------------------------------------------------------------------------------


QUICK = Settings(evaluation=EvaluationSettings(probe_steps=40, probe_seeds=1))


def auto(tmp_path: Path | None = None, **parameters: Any) -> PositionLearner:
    settings = replace(
        QUICK,
        autoencoder=replace(QUICK.autoencoder, steps=40, validate_every=20),
        similarity=replace(QUICK.similarity, draws=2_048),
    )
    return PositionLearner(settings=settings, random_state=0, folder=tmp_path, **parameters)


@pytest.mark.slow
def test_auto_takes_one_of_what_it_compared_and_keeps_them_all(tmp_path):
    learner = auto(tmp_path, force=True).fit(walks())
    names = [candidate.name for candidate in learner.candidates_]
    assert names[0] == learner.method_
    assert sorted(names) == ["correlation", "maed", "magnitude", "partial", "random"]
    told = json.loads((tmp_path / "auto.json").read_text())
    assert told["chosen"] == learner.method_
    assert [candidate["name"] for candidate in told["candidates"]] == names
    assert PositionEmbedding.from_pretrained(tmp_path).fingerprint == learner.embedding_.fingerprint
    assert learner.embedding_.label == learner.method_
    alone = auto(force=True, method=learner.method_).fit(walks())
    assert torch.equal(alone.embedding_.vectors, learner.embedding_.vectors)
    assert alone.candidates_ == []


@pytest.mark.slow
def test_a_second_fit_reads_what_the_first_has_written(tmp_path):
    first = auto(tmp_path, force=True).fit(walks())
    written = (tmp_path / "auto.json").stat().st_mtime_ns
    second = auto(tmp_path, force=True).fit(walks())
    assert second.candidates_ == first.candidates_
    assert (tmp_path / "auto.json").stat().st_mtime_ns == written


@pytest.mark.slow
def test_noise_is_refused_whatever_the_method():
    noise = np.random.default_rng(0).normal(size=(300, 20))
    for method in ("auto", "correlation", "partial", "magnitude"):
        with pytest.raises(MaedError) as refused:
            auto(method=method).fit(noise)
        assert refused.value.argument == "similarity"
    assert auto(method="partial", force=True).fit(noise).embedding_.n == 20


def test_tokens_that_are_all_the_same_are_refused():
    with pytest.raises(MaedError) as refused:
        auto().fit(np.full((300, 6), 3))
    assert refused.value.argument == "inputs"


def test_a_baseline_is_a_method_and_no_estimator():
    with pytest.raises(MaedError) as refused:
        PositionLearner(estimator="correlation").fit(walks())
    assert "method='correlation'" in str(refused.value)
    with pytest.raises(MaedError) as refused:
        PositionLearner(method="dependence").fit(walks())
    assert refused.value.argument == "method"


def test_maed_evaluate_needs_no_coordinates_where_it_is_given_signals(tmp_path, capsys):
    np.save(tmp_path / "x.npy", walks().astype(np.float32))
    learner = auto(tmp_path / "run", force=True, method="correlation").fit(walks())
    learner.embedding_.save_pretrained(tmp_path / "mine")
    few = ["--evaluation.probe_steps=10", "--evaluation.probe_seeds=1"]
    assert main(["evaluate", str(tmp_path / "mine"), str(tmp_path / "x.npy"), *few]) == 0
    told = json.loads((tmp_path / "mine" / "geometry.json").read_text())
    assert told["probe_loss"] < told["probe_loss_random"]
    assert len(told["neighbor_errors"]) == 12
    assert main(["info", str(tmp_path / "mine")]) == 0
    assert main(["evaluate", str(tmp_path / "mine"), "photos"]) == 2
    assert main(["evaluate", str(tmp_path / "mine")]) == 2  # neither signals nor coordinates


@pytest.mark.parametrize(
    "text", ["[]", "{}", '{"chosen": 5, "candidates": []}', '{"chosen": "../x", "candidates": []}', "{"]
)
def test_what_is_no_choice_of_maeds_is_refused(text, tmp_path):
    (tmp_path / "embedding").mkdir()
    (tmp_path / "auto.json").write_text(text)
    with pytest.raises(MaedError, match=r"auto\.json"):
        PositionEmbedding.from_pretrained(tmp_path)
