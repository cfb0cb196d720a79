"""The tables of position encodings, against numbers worked out by hand, and an encoding of another package."""

import math

import numpy as np
import pytest
import torch

from maed.data.geometry import grid, line, points
from maed.encodings import position_table
from maed.errors import MaedError
from maed.evaluation.comparison import compare_all
from maed.records import Score
from maed.registry import BASELINES, ENCODINGS
from plug_ins import install, installed

N, D = 16, 8


def table(encoding: str, n: int = N, d: int = D, seed: int = 0) -> torch.Tensor:
    vectors = torch.randn(n, d, generator=torch.Generator().manual_seed(99))
    return position_table(encoding, n, d, seed=seed, geometry=line(n), vectors=vectors)


def rms(tensor: torch.Tensor) -> float:
    return float(tensor.detach().square().mean().sqrt())


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS.names if name != "none"])
def test_tables_have_unit_mean_square(encoding):
    made = table(encoding)
    assert made.shape == (N, D)
    assert made.dtype == torch.float32
    assert rms(made) == pytest.approx(1, abs=1e-5)


def test_none_is_zeros():
    assert not table("none").any()


def test_random_and_trainable_start_alike_and_follow_the_seed():
    assert torch.equal(table("random"), table("trainable"))
    assert not torch.equal(table("random"), table("random", seed=1))


def test_sinusoidal_by_hand_with_an_odd_number_of_channels():
    # one row for each index: sin(i), cos(i), sin(i / 10000^(2/3))
    expected = torch.tensor([[math.sin(i), math.cos(i), math.sin(i * 10000 ** (-2 / 3))] for i in range(4)])
    made = position_table("sinusoidal", 4, 3, seed=0)
    assert torch.allclose(made * rms(expected), expected, atol=1e-6)


def test_fourier_of_a_line_of_four_by_hand():
    # x = -1, -1/3, 1/3, 1; two bands fit into 6 channels: f = 1 and 4 / 2; one channel of zeros is left
    expected = torch.tensor(
        [
            [x, math.sin(math.pi * x), math.sin(2 * math.pi * x), math.cos(math.pi * x), math.cos(2 * math.pi * x), 0]
            for x in (-1, -1 / 3, 1 / 3, 1)
        ]
    )
    made = position_table("fourier", 4, 6, seed=0, geometry=line(4))
    assert torch.allclose(made * rms(expected), expected, atol=1e-6)


def test_fourier_reaches_nyquist_in_each_dimension():
    # a 4 x 8 grid in 2 + 4 * 2 channels: bands (1, 2) for rows, (1, 4) for columns
    made = position_table("fourier", 32, 10, seed=0, geometry=grid(4, 8))
    x = torch.linspace(-1, 1, 8)
    ratio = made[:8, 5] / made[:8, 1].abs().max()  # the last sine, along the first row; x itself reaches 1
    assert torch.allclose(ratio, torch.sin(4 * math.pi * x), atol=1e-5)


def test_fourier_of_points_that_do_not_vary_in_one_dimension_is_finite():
    coordinates = np.stack([np.arange(9.0), np.zeros(9)], axis=1)
    assert position_table("fourier", 9, 2, seed=0, geometry=points(coordinates)).isfinite().all()


def test_given_vectors_of_unit_mean_square_arrive_bit_for_bit():
    vectors = table("random")
    assert torch.equal(position_table("maed", N, D, seed=0, vectors=vectors), vectors)


@pytest.mark.parametrize(
    ("encoding", "given"),
    [
        ("fourier", {}),
        ("fourier", {"geometry": line(N + 1)}),
        ("furier", {}),
        ("maed", {}),
        ("maed", {"vectors": torch.ones(2, 2)}),
        ("maed", {"vectors": torch.full((N, D), torch.nan)}),
        ("maed", {"vectors": torch.zeros(N, D)}),
    ],
)
def test_refused_tables_name_the_argument(encoding, given):
    with pytest.raises(MaedError) as refused:
        position_table(encoding, N, D, seed=0, **given)
    assert refused.value.argument == "positions"


def test_a_misspelled_encoding_is_told_the_nearest():
    with pytest.raises(MaedError, match="did you mean 'fourier'"):
        position_table("furier", N, D, seed=0)


def trained(fine_tune: bool) -> set[str]:
    return {name for name in ENCODINGS.built_in if ENCODINGS.get(name).trains_table(fine_tune)}


def test_which_tables_are_trained():
    assert trained(False) == {"trainable"}
    learned = {"auto", "maed", "maed-resampled", *BASELINES.built_in}
    assert trained(True) == {"trainable", "random", *learned}


# -- an encoding of another package -------------------------------------------------------------------------------


ALTERNATING = """
import torch
from maed.encodings import Encoding

class Alternating(Encoding):
    tunable = True
    reference = 3

    @staticmethod
    def table(n, d, **unused):
        return torch.where(torch.arange(n)[:, None] % 2 == 0, 1.0, -1.0).expand(n, d)
"""


@pytest.fixture
def alternating(tmp_path):
    with installed(install(tmp_path / "site", ALTERNATING, {"encodings": {"alternating": "Alternating"}})):
        yield "alternating"


def test_another_package_adds_an_encoding(alternating):
    made = position_table(alternating, 3, 2, seed=0)
    assert made.tolist() == [[1, 1], [-1, -1], [1, 1]]
    assert ENCODINGS.get(alternating).trains_table(fine_tune=True)


def test_a_reference_of_another_package_is_held_against_the_rest(alternating):
    rows = [Score(name, 0, value) for name, value in ((alternating, 0.5), ("none", 0.25), ("fourier", 0.75))]
    pairs = [(row.a, row.b, row.mean) for row in compare_all(rows)]
    assert pairs == [("fourier", alternating, 0.25), ("fourier", "none", 0.5), (alternating, "none", 0.25)]
