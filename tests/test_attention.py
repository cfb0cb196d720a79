"""Positions as a bias of attention, and as coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import maed
from maed.data.geometry_spec import parse_geometry
from maed.embedding import reduce
from maed.settings import EmbeddingSettings


def on_a_line(n: int, names: list[str] | None = None) -> maed.PositionEmbedding:
    return maed.PositionEmbedding(torch.arange(n, dtype=torch.float32)[:, None], names=names)


def test_a_bias_falls_with_distance_and_heads_differ() -> None:
    bias = maed.AttentionBias(on_a_line(12), heads=4)()

    assert bias.shape == (4, 12, 12)
    assert (bias.diagonal(dim1=1, dim2=2) == 0).all()
    assert (bias == bias.transpose(1, 2)).all()
    assert (bias[:, 0].diff(dim=1) < 0).all()
    assert (bias[:, 0, 1:].diff(dim=0) > 0).all()  # each head looks farther than the one before


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_a_bias_knows_no_unit_of_length(scale: float, seed: int) -> None:
    vectors = torch.randn(10, 3, generator=torch.Generator().manual_seed(seed))
    plain, scaled = (maed.AttentionBias(maed.PositionEmbedding(x), heads=2)() for x in (vectors, scale * vectors))

    torch.testing.assert_close(plain, scaled, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", [40, 69])
def test_vectors_that_lie_like_no_shape_have_a_bias_too(seed: int) -> None:
    vectors = torch.randn(10, 3, generator=torch.Generator().manual_seed(seed))

    assert torch.isfinite(maed.AttentionBias(maed.PositionEmbedding(vectors), heads=2)()).all()


def test_a_subset_names_and_tokens_say_whose_distance_it_is() -> None:
    names = [f"s{i}" for i in range(6)]
    whole = maed.AttentionBias(on_a_line(6, names), heads=2)()
    index = torch.tensor([[5, 0, 2], [1, 1, 4]])
    some = maed.AttentionBias(on_a_line(6), heads=2, tokens=1)(index)
    shuffled = [names[i] for i in (3, 5, 0, 1, 4, 2)]
    named = maed.AttentionBias(on_a_line(6, names), heads=2, names=shuffled)()

    assert some.shape == (2, 2, 4, 4)
    assert (some[:, :, 0] == 0).all()
    assert (some[..., 0] == 0).all()
    assert torch.equal(some[0, :, 1:, 1:], whole[:, index[0]][:, :, index[0]])
    assert torch.equal(named, whole[:, [3, 5, 0, 1, 4, 2]][:, :, [3, 5, 0, 1, 4, 2]])


def test_a_bias_of_a_learned_line_falls_all_along_it() -> None:
    near = torch.exp(-(torch.linspace(0, 40, 40)[:, None] - torch.linspace(0, 40, 40)).square() / 8).fill_diagonal_(0)
    positions = maed.PositionEmbedding(reduce(near, EmbeddingSettings()))
    bias = maed.AttentionBias(positions, heads=2)()

    assert (bias[:, 0, 1:].diff(dim=1) < 0).all()


def test_a_bias_learns_its_heads_and_keeps_its_places() -> None:
    positions = maed.PositionEmbedding(torch.randn(9, 4), trainable=True)
    bias = maed.AttentionBias(positions, heads=2)
    q, k, v = torch.randn(3, 5, 2, 9, 8)
    F.scaled_dot_product_attention(q, k, v, attn_mask=bias()).square().mean().backward()

    assert {name for name, _ in bias.named_parameters()} == {"log_slope", "log_scale"}
    assert all(torch.isfinite(parameter.grad).all() for parameter in bias.parameters() if parameter.grad is not None)
    read = maed.AttentionBias(maed.PositionEmbedding(torch.zeros(9, 4)), heads=2)
    read.load_state_dict(bias.state_dict())
    assert torch.equal(read(), bias())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"positions": "here", "heads": 2}, "positions"),
        ({"positions": on_a_line(3), "heads": 2}, "vectors"),
        ({"positions": on_a_line(4), "heads": 0}, "heads"),
        ({"positions": on_a_line(4), "heads": 2, "tokens": -1}, "tokens"),
        ({"positions": on_a_line(4), "heads": 2, "dims": 9}, "dims"),
        ({"positions": on_a_line(2), "heads": 2, "names": ["a", "b"]}, "names"),
        ({"positions": on_a_line(2, ["a", "b"]), "heads": 2, "names": ["a", "c"]}, "names"),
    ],
)
def test_a_bias_that_cannot_be_is_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(maed.MaedError, match=f"^{said}"):
        maed.AttentionBias(**arguments)


@pytest.mark.parametrize("index", [torch.zeros(2), torch.zeros(1, 2, 3, dtype=torch.long)])
def test_an_index_that_is_none_is_refused(index: torch.Tensor) -> None:
    with pytest.raises(maed.MaedError, match=r"^index"):
        maed.AttentionBias(on_a_line(4), heads=2)(index)


@pytest.mark.parametrize(
    ("spec", "dims"), [("line:40", 1), ("ring:40", 2), ("grid:10x10", 2), ("sphere:150", 3), ("torus:12x12", 4)]
)
def test_coordinates_are_as_many_as_the_shape_takes_and_are_the_true_ones(spec: str, dims: int) -> None:
    geometry = parse_geometry(spec)
    distances = geometry.distances().astype(np.float64)
    near = np.exp(-((distances / np.sort(distances, axis=1)[:, geometry.neighbors].mean()) ** 2) / 2)
    np.fill_diagonal(near, 0)
    embedding = maed.PositionEmbedding(reduce(torch.from_numpy(near.astype(np.float32)), EmbeddingSettings()))

    found = embedding.coordinates_like()

    assert found.shape == (geometry.coordinates.shape[0], dims)
    assert found.abs().max() == 1
    assert torch.allclose(found.mean(dim=0), torch.zeros(dims), atol=1e-5)
    order = np.random.default_rng(0).choice(len(distances) ** 2, 500)
    recovered = torch.cdist(found, found).numpy().ravel()[order]
    # on a closed shape the straight way in space orders pairs as the way along it does
    assert np.corrcoef(np.argsort(np.argsort(recovered)), np.argsort(np.argsort(distances.ravel()[order])))[0, 1] > 0.9
    residuals = embedding.residual_variance()
    assert residuals[dims - 1] < 0.15
    assert torch.equal(embedding.coordinates_like(dims), found)


@pytest.mark.slow
def test_many_positions_are_placed_among_some() -> None:
    x, y = torch.meshgrid(torch.linspace(0, 1, 90), torch.linspace(0, 0.5, 45), indexing="ij")
    true = torch.stack([x.ravel(), y.ravel()], dim=1)
    turned = true @ torch.linalg.qr(torch.randn(6, 2, generator=torch.Generator().manual_seed(1))).Q.T

    found = maed.PositionEmbedding(turned).coordinates_like()

    assert found.shape == (4050, 2)
    told = torch.linalg.lstsq(torch.cat([found, torch.ones(4050, 1)], dim=1), true)
    left = true - torch.cat([found, torch.ones(4050, 1)], dim=1) @ told.solution
    assert left.square().sum() < 0.01 * (true - true.mean(dim=0)).square().sum()


def test_parts_that_nothing_joins_are_said() -> None:
    apart = torch.cat([torch.randn(20, 3), 100 + torch.randn(20, 3)])
    with pytest.warns(UserWarning, match=r"^coordinates: "):
        maed.PositionEmbedding(apart).coordinates_like()


@pytest.mark.parametrize(
    ("vectors", "dims", "said"),
    [
        (torch.randn(3, 2), None, "vectors"),
        (torch.ones(9, 2), None, "vectors"),
        (torch.randn(9, 2), 0, "dims"),
        (torch.randn(9, 2), 9, "dims"),
        (torch.randn(9, 2), 1.5, "dims"),
    ],
)
def test_coordinates_that_cannot_be_are_refused(vectors: torch.Tensor, dims: Any, said: str) -> None:
    with pytest.raises(maed.MaedError, match=f"^{said}"):
        maed.PositionEmbedding(vectors).coordinates_like(dims)


def test_groups_are_the_means_of_their_positions() -> None:
    embedding = maed.PositionEmbedding(torch.randn(7, 3), names=list("abcdefg"))
    grouped = embedding.grouped(["y", "x", "y", "z", "x", "z", "z"])

    assert grouped.names == ("y", "x", "z")
    means = torch.stack([embedding.vectors[rows].mean(dim=0) for rows in ([0, 2], [1, 4], [3, 5, 6])])
    ratio = torch.cdist(grouped.vectors, grouped.vectors) / torch.cdist(means, means)
    off = ratio[~torch.eye(3, dtype=torch.bool)]
    torch.testing.assert_close(off, off[:1].expand(6))  # the same shape, centered and to scale
    torch.testing.assert_close(grouped.vectors.mean(dim=0), torch.zeros(3))
    for groups in (["a"] * 7, ["a", "b"]):
        with pytest.raises(maed.MaedError, match=r"^groups"):
            embedding.grouped(groups)
