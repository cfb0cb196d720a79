"""The figures: what they show lies where it should, in whatever Axes they are given, readable on light and dark."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from maed import plots
from maed.data.geometry import Geometry, grid, line
from maed.data.geometry_spec import parse_geometry
from maed.errors import MaedError
from maed.plots.palette import INK
from maed.records import Score, Summary
from maed.registry import ENCODINGS

RANDOM = np.random.default_rng(0)
GRID = grid(5, 6).permuted(RANDOM.permutation(30))
HISTORY = [
    {"step": step, "train_loss": 1 / step, "validation_loss": 2 / step if step % 20 == 0 else None}
    for step in range(10, 100, 10)
]
DRAWS = [{"draws": 2**k, "knn_recall": k / 20, "spearman": k / 30, "split_half": k / 40} for k in range(10, 16)]
SCORES = [Score(name, 0, 0.4, history=[{"step": 5, "validation_accuracy": 0.3}]) for name in ("maed", "trainable")]
SUMMARY = [Summary("maed", 0.5, 0.4, 0.6, seeds=3), Summary("trainable", 0.4, None, None, seeds=1)]
IMAGES = RANDOM.random((32, 30, 3)).astype(np.float32)
SEEN = RANDOM.random((2, 32, 30)) < 0.3


def closeness(geometry: Geometry) -> np.ndarray:
    return np.exp(-geometry.distances()).astype(np.float32)


EVERY: dict[str, Callable[[Axes | None], Axes]] = {
    "similarity_map": lambda ax: plots.similarity_map(closeness(GRID)[3], 3, GRID.coordinates, (5, 6), ax=ax),
    "similarity_maps": lambda ax: plots.similarity_maps(closeness(GRID), [3, 8], GRID.coordinates, (5, 6), ax=ax),
    "similarity_matrix": lambda ax: plots.similarity_matrix(closeness(GRID), GRID.coordinates, (5, 6), ax=ax),
    "embedding_channels": lambda ax: plots.embedding_channels(IMAGES[0], GRID.coordinates, (5, 6), channels=3, ax=ax),
    "recovered_layout": lambda ax: plots.recovered_layout(GRID.coordinates, GRID.coordinates, (5, 6), ax=ax),
    "unshuffled": lambda ax: plots.unshuffled(IMAGES[:4], GRID.coordinates, GRID.coordinates, (5, 6), ax=ax),
    "reconstructions": lambda ax: plots.reconstructions(IMAGES, SEEN[0], IMAGES, GRID.coordinates, (5, 6), ax=ax),
    "reconstructions_by_fraction": lambda ax: plots.reconstructions_by_fraction(
        IMAGES[:3], np.array([0.1, 0.5]), SEEN[:, :3], np.stack([IMAGES[:3]] * 2), GRID.coordinates, (5, 6), ax=ax
    ),
    "training_curves": lambda ax: plots.training_curves(HISTORY, ax=ax),
    "accuracy_curves": lambda ax: plots.accuracy_curves(SCORES, ax=ax),
    "accuracy_intervals": lambda ax: plots.accuracy_intervals(SUMMARY, SCORES, ax=ax),
    "against_draws": lambda ax: plots.against_draws(DRAWS, ax=ax),
}

every_figure = pytest.mark.parametrize("draw", EVERY.values(), ids=EVERY.keys())


def drawn_in(ax: Axes) -> list[Axes]:
    """The Axes of a figure, but for those that only frame others."""
    return [part for part in plots.figure_of(ax).axes if part.images or part.lines or part.collections]


@every_figure
def test_a_figure_is_drawn_in_the_axes_that_it_is_given(draw: Callable[[Axes | None], Axes]) -> None:
    figure = Figure(layout="constrained")
    left, right = figure.subplots(1, 2)

    assert draw(right) is right
    figure.canvas.draw()
    frame = right.get_subplotspec().get_position(figure)
    assert not left.images
    assert not left.lines
    assert drawn_in(right)
    assert all(part.get_position().x0 >= frame.x0 - 0.1 for part in drawn_in(right))


@every_figure
def test_a_figure_is_drawn_in_axes_that_lie_in_no_grid(draw: Callable[[Axes | None], Axes]) -> None:
    figure = Figure()
    ax = figure.add_axes((0.5, 0.5, 0.4, 0.4))
    draw(ax)
    figure.canvas.draw()
    assert all(part.get_position().x0 >= 0.49 for part in drawn_in(ax))


@pytest.mark.slow
@every_figure
def test_alone_it_makes_a_figure_that_reads_on_light_and_dark(
    draw: Callable[[Axes | None], Axes], tmp_path: Path
) -> None:
    figure = plots.figure_of(draw(None))
    figure.canvas.draw()
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    written = {to_hex(text.get_color()) for text in shown}
    assert written <= {INK}
    plots.save(figure, tmp_path / "figure.svg")
    assert "<svg" in (tmp_path / "figure.svg").read_text()


@pytest.mark.slow
@every_figure
def test_equal_figures_give_equal_bytes(draw: Callable[[Axes | None], Axes], tmp_path: Path) -> None:
    for name in ("a.svg", "b.svg"):
        plots.save(plots.figure_of(draw(None)), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


# Maps


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(2, 6), st.randoms(use_true_random=False))
def test_a_map_shows_values_at_their_true_places(height: int, width: int, random: Any) -> None:
    order = np.array(random.sample(range(height * width), height * width))
    truth = grid(height, width)
    values = np.arange(height * width, dtype=np.float32)
    position = int(np.argmax(order == 0))  # stored there, truly first

    ax = plots.similarity_map(values[order], position, truth.permuted(order).coordinates, (height, width))

    shown = np.ma.getdata(ax.images[0].get_array())
    expected = values.reshape(height, width).astype(np.float64)
    expected[0, 0] = np.nan
    np.testing.assert_array_equal(shown, expected)
    assert ax.get_title() == "row 0, column 0"


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(2, 5), st.integers(2, 5), st.randoms(use_true_random=False))
def test_the_matrix_does_not_depend_on_the_order_of_storage(height: int, width: int, random: Any) -> None:
    order = np.array(random.sample(range(height * width), height * width))
    truth = grid(height, width)
    straight, permuted = (
        np.ma.getdata(plots.similarity_matrix(closeness(g), g.coordinates, g.shape).images[0].get_array())
        for g in (truth, truth.permuted(order))
    )
    np.testing.assert_array_equal(permuted, straight)


def test_the_matrix_takes_an_order_and_refuses_what_is_none() -> None:
    similarity = np.arange(9.0).reshape(3, 3)
    ax = plots.similarity_matrix(similarity, order=np.array([2, 0, 1]))
    np.testing.assert_array_equal(
        np.ma.getdata(ax.images[0].get_array()), [[np.nan, 6, 7], [2, np.nan, 1], [5, 3, np.nan]]
    )
    assert "in the given order" in ax.get_xlabel()
    with pytest.raises(MaedError, match=r"order.*3 positions"):
        plots.similarity_matrix(similarity, order=np.array([0, 0, 1]))


def test_a_large_matrix_is_drawn_by_means_of_blocks_and_left_as_it_is() -> None:
    similarity = np.repeat(np.repeat(RANDOM.random((750, 750)), 2, axis=0), 2, axis=1)
    before = similarity.copy()
    shown = np.ma.getdata(plots.similarity_matrix(similarity).images[0].get_array())
    np.testing.assert_allclose(shown, before[::2, ::2])  # the diagonal's blocks too: of their known entries
    np.testing.assert_array_equal(similarity, before)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["line:40", "ring:40", "torus:5x8", "sphere:40"])
def test_maps_and_channels_are_drawn_on_every_geometry(kind: str, tmp_path: Path) -> None:
    geometry = parse_geometry(kind)
    where = geometry.coordinates, geometry.shape
    on = *where, geometry.kind
    for name, ax in {
        "one": plots.similarity_map(closeness(geometry)[4], 4, *on),
        "some": plots.similarity_maps(closeness(geometry), [4, 9, 11], *on),
        "all": plots.similarity_matrix(closeness(geometry), *on),
        "channels": plots.embedding_channels(RANDOM.random((40, 5)), *on),
        "layout": plots.recovered_layout(RANDOM.random((40, 5)), *where),
    }.items():
        assert drawn_in(ax)
        plots.save(plots.figure_of(ax), tmp_path / f"{name}.png")


def test_three_coordinates_are_drawn_in_space() -> None:
    places = RANDOM.random((20, 3))
    ax: Any = plots.similarity_map(RANDOM.random(20), 2, places)
    assert ax.name == "3d"
    others = np.delete(places, 2, axis=0)
    np.testing.assert_allclose(np.stack(ax.collections[0]._offsets3d, axis=1), others)
    np.testing.assert_allclose(np.stack(ax.collections[1]._offsets3d, axis=1), places[2:3])  # the mark

    flat = Figure().add_subplot()
    assert plots.similarity_map(RANDOM.random(20), 2, places, ax=flat) is flat


def test_the_kind_of_geometry_decides_and_is_not_guessed() -> None:
    """Points that happen to lie on the unit sphere, or on two circles, are points unless the kind says otherwise."""
    ball, two_circles = parse_geometry("sphere:20").coordinates, parse_geometry("torus:4x5").coordinates
    assert plots.similarity_map(RANDOM.random(20), 2, ball).name == "3d"
    assert plots.similarity_map(RANDOM.random(20), 2, ball, kind="sphere").name != "3d"
    assert not plots.similarity_map(RANDOM.random(20), 2, two_circles, (4, 5)).images
    assert plots.similarity_map(RANDOM.random(20), 2, two_circles, (4, 5), "torus").images
    nearly = parse_geometry("sphere:20").coordinates * 1.01  # as after a rounding: the kind is what counts
    assert plots.similarity_map(RANDOM.random(20), 2, nearly, (), "sphere").name != "3d"


def test_positions_of_unknown_places_are_drawn_as_stored() -> None:
    ax = plots.similarity_map(np.arange(12.0), 3)
    x, y = ax.lines[0].get_data()
    np.testing.assert_array_equal(x, np.arange(12))
    np.testing.assert_array_equal(y, [0, 1, 2, np.nan, *range(4, 12)])
    assert (ax.get_title(), ax.get_xlabel(), ax.get_ylabel()) == ("stored as 3", "position, as stored", "similarity")


def test_a_long_line_shows_the_neighborhood() -> None:
    truth = line(2000)
    ax = plots.similarity_map(closeness(truth)[1000], 1000, truth.coordinates, truth.shape)
    low, high = ax.get_xlim()
    assert low < 1000 < high
    assert high - low == pytest.approx(256, rel=0.01)


def test_chosen_positions_differ_and_cover_the_grid() -> None:
    chosen = plots.spread_positions(GRID.coordinates, 30, 8)
    assert len(set(chosen)) == len(chosen) > 4
    rows, columns = GRID.coordinates[chosen].T
    assert np.ptp(rows) >= 3
    assert np.ptp(columns) >= 3


# Layouts


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.floats(0, 6.3), st.floats(0.1, 9.0), st.booleans(), st.floats(-5, 5))
def test_a_layout_that_is_turned_mirrored_scaled_and_moved_lies_over_the_truth(
    angle: float, scale: float, mirrored: bool, moved: float
) -> None:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    layout = GRID.coordinates @ turn * [1, -1 if mirrored else 1] * scale + moved
    figure = plots.figure_of(plots.recovered_layout(layout, GRID.coordinates, (5, 6)))
    left, right = (np.asarray(part.collections[-1].get_offsets()) for part in figure.axes[1:])
    np.testing.assert_allclose(left, right, atol=1e-6)
    np.testing.assert_allclose(right, GRID.coordinates[:, ::-1])


def test_images_are_put_in_order() -> None:
    truth = np.arange(30.0)
    stored = np.empty((1, 30, 1))
    stored[0, :, 0] = truth.reshape(5, 6)[tuple(GRID.coordinates.astype(int).T)]
    figure = plots.figure_of(plots.unshuffled(stored, GRID.coordinates, GRID.coordinates, (5, 6)))
    shuffled, ordered = (np.asarray(part.images[0].get_array())[:, :, 0] * 29 for part in figure.axes[1:3])
    np.testing.assert_allclose(ordered, truth.reshape(5, 6), atol=1e-9)
    np.testing.assert_allclose(shuffled.ravel(), stored.ravel(), atol=1e-9)


def test_too_many_positions_for_a_layout_are_refused_but_two_channels_are_one() -> None:
    with pytest.raises(MaedError, match=r"vectors.*at most 2304"):
        plots.recovered_layout(np.zeros((2500, 3)))
    assert drawn_in(plots.recovered_layout(RANDOM.random((2500, 2))))


# Signals


def test_reconstructions_are_clipped_to_the_range_of_the_originals() -> None:
    colors = plots.to_unit(np.array([[[-5.0], [8.0], [99.0]]]), np.array([[[0.0], [8.0], [16.0]]]))
    np.testing.assert_allclose(colors[0, :, 0], [0, 0.5, 1])


@pytest.mark.parametrize(("count", "shape"), [(3, (5, 3 * 7 - 1)), (32, (8 * 6 - 1, 4 * 7 - 1))])
def test_a_few_images_stand_in_rows_and_many_in_blocks(count: int, shape: tuple[int, int]) -> None:
    frame = plots.reconstructions(IMAGES[:count], SEEN[0, :count], 2 * IMAGES[:count], GRID.coordinates, (5, 6))
    mosaics = [np.asarray(part.images[0].get_array()) for part in drawn_in(frame)]
    assert [mosaic.shape for mosaic in mosaics] == [(*shape, 4)] * 3
    places = tuple(GRID.coordinates.astype(int).T)
    np.testing.assert_allclose(mosaics[2][:5, :6, :3][places], plots.to_unit(IMAGES[:count], IMAGES[:count])[0, :, :3])
    hidden = mosaics[0][:5, :6][places][~SEEN[0, 0]]
    assert (hidden == hidden[0]).all()  # nothing of what is hidden is shown
    np.testing.assert_allclose(mosaics[0][:5, :6][places][SEEN[0, 0]], mosaics[2][:5, :6][places][SEEN[0, 0]])


def test_fractions_stand_in_columns_with_the_original_last() -> None:
    fractions = np.array([0.01, 0.25])
    made = np.stack([IMAGES[:2], IMAGES[2:4]])
    frame = plots.reconstructions_by_fraction(IMAGES[:2], fractions, SEEN[:, :2], made, GRID.coordinates, (5, 6))
    parts = drawn_in(frame)
    assert [part.get_title() for part in parts] == ["1 % shown", "25 % shown", "original"]
    mosaics = [np.asarray(part.images[0].get_array()) for part in parts]
    np.testing.assert_allclose(mosaics[0][6:11], mosaics[2][6:11])  # made just as it was, the first time


@pytest.mark.parametrize("known", [True, False])
def test_signals_on_a_line_are_curves_along_it(known: bool) -> None:
    truth = line(30).permuted(np.random.default_rng(1).permutation(30))
    signals = truth.coordinates[None].astype(np.float64)  # a slope
    seen = np.zeros((1, 30), dtype=bool)
    seen[0, 4] = True
    ax = plots.reconstructions(signals, seen, signals - 99, truth.coordinates if known else None)
    slope, made = (np.asarray(curve.get_data()) for curve in ax.lines)
    assert (np.diff(slope[1]) > 0).all() == known
    assert (made[1] == 0).all()  # clipped
    np.testing.assert_array_equal(
        np.asarray(ax.collections[0].get_offsets())[0], [truth.coordinates[4, 0] if known else 4, signals[0, 4, 0]]
    )
    by_fraction = plots.reconstructions_by_fraction(
        signals, np.array([0.1]), seen[None], signals[None], truth.coordinates if known else None
    )
    assert drawn_in(by_fraction)[0].get_title() == "10 % shown"


def test_token_ids_are_refused() -> None:
    ids = np.zeros((2, 8), dtype=np.int64)
    with pytest.raises(MaedError, match=r"original.*\(2, 8\);"):
        plots.reconstructions(ids, ids > 0, ids)
    with pytest.raises(MaedError, match="ids are text"):
        plots.reconstructions_by_fraction(ids, np.array([0.5]), ids[None] > 0, ids[None])


# Curves


def test_curves_leave_out_steps_without_a_value() -> None:
    training, validation = plots.training_curves(HISTORY).lines
    assert len(np.asarray(training.get_xdata())) == 9
    np.testing.assert_array_equal(validation.get_xdata(), [20, 40, 60, 80])


def test_what_more_draws_bring_is_drawn_where_it_is_known() -> None:
    ax = plots.against_draws(DRAWS)
    assert [curve.get_label() for curve in ax.lines] == [
        "recall of true neighbors",
        "Spearman with true distances",
        "agreement of two halves",
    ]
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), [2**k for k in range(10, 16)])
    unknown = plots.against_draws([{"draws": 1024, "split_half": 0.5}])
    assert [curve.get_label() for curve in unknown.lines] == ["agreement of two halves"]


def test_an_interval_is_drawn_where_there_are_seeds_for_one() -> None:
    ax = plots.accuracy_intervals(SUMMARY, SCORES)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["trainable", "maed"]  # the best on top
    (interval,) = ax.lines
    np.testing.assert_allclose(np.asarray(interval.get_xdata()), [40, 60])


def test_dollar_signs_in_names_are_no_mathematics(tmp_path: Path) -> None:
    broken = [Summary("$\\broken{$", 0.5, None, None, seeds=1)]
    plots.save(plots.figure_of(plots.accuracy_intervals(broken)), tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size > 0


def test_every_encoding_has_a_color_of_its_own() -> None:
    colors = [plots.color_of(name) for name in ENCODINGS.built_in]
    assert len(set(colors)) == len(colors)
