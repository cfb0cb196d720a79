"""Signals on known shapes: samples of a Gaussian random field, made on the fly from a seed, to test on."""

from __future__ import annotations

from collections.abc import Callable
from math import isqrt

import numpy as np
from scipy.fft import irfftn, rfftn
from scipy.linalg import eigh

from maed.data.geometry import ROLL, ROLL_HEIGHT, Geometry, arc_length, grid, line, ring, sphere, swissroll, torus
from maed.data.geometry_spec import parse_sides
from maed.data.source import Source, SourceType, Stored
from maed.errors import MaedError, nearest
from maed.settings import DataSettings

KINDS = ("line", "ring", "grid", "torus", "sphere", "swissroll")
"""Shapes that a field can lie on."""

MODULATION = 0.9
"""Modulation of the white noise of a `magnitude` field, from 1 - 0.9 to 1 + 0.9."""

_DEFAULT = {"sphere": 500, "swissroll": 500}  # positions; 256 on the other shapes
_LARGEST = 10_000  # positions: each N x N array takes 800 MB, the eigenvectors minutes
_LARGEST_EVEN = 1 << 24  # positions on a ring or torus, whose eigenvectors are waves
_ROWS = 1_024  # signals that are made at a time; each block has random numbers of its own
_NUMBERS = 1 << 25  # in a block at most, or one signal
_TRAIN, _TEST, _PLACES = 1, 2, 3  # streams of random numbers; 0 would be that of the splits


class Field(SourceType):
    """Samples of a random field on a known shape: N positions of one channel, without labels.

    The Gaussian field g has the covariance exp(-d^2 / (2 l^2)) of the distance d within the shape, with l =
    `length_scale` where the largest such distance is pi: 0.3 on the unit sphere. The `gaussian` variant is g + `noise`
    times white noise. The `magnitude` variant is (1 + 0.9 tanh g) times white noise: positions are uncorrelated, and
    only the sizes of their values go together.

    `samples` signals are stored for training, validation signals among them, and a fifth of as many (2 at least) for
    the test. Time grows with N^3 for the covariance's eigenvectors (0.2 s at 1,000 positions) and with n N^2 for n
    signals, memory with n N + N^2. On a ring or torus of more than 10,000 positions it is the same law by Fourier
    transforms, in time n N log N and memory n N: there the eigenvectors are waves. A signal depends on the seed and on
    its row alone. They are made in blocks, and what is not asked for is not kept, so that each split makes the blocks
    that it shares with another once more.
    """

    example = f"field:{'|'.join(KINDS)}[:N]"
    names = tuple(f"field:{kind}" for kind in KINDS)

    @classmethod
    def takes(cls, text: str) -> bool:
        """All that begins with `field:`."""
        return text.startswith("field:")

    @classmethod
    def open(cls, text: str, settings: DataSettings) -> Source:
        """Make the covariance; the signals are made when they are read.

        Args:
            text: `field:KIND` or `field:KIND:N`, of one of `KINDS`; `field:grid:HEIGHTxWIDTH` and
                `field:torus:HEIGHTxWIDTH` too, and a torus of three sides. A grid or torus of N has the sides nearest
                to each other. Without N there are 500 positions on `sphere` and `swissroll`, else 256.
            settings: `samples`, `variant`, `noise`, `length_scale` and `seed` are read. The seed places the positions
                of a `swissroll` too; those of the other shapes are fixed.

        Raises:
            MaedError: An unknown kind, a size that it cannot have, or too few samples.
        """
        if settings.samples < 3:
            raise MaedError(f"data.samples must be at least 3, for training and validation, got {settings.samples}")
        geometry = _geometry(text.removeprefix("field:"), settings.seed)
        n = len(geometry.coordinates)
        if n > _LARGEST:
            correlate = waves(geometry, settings.length_scale)
        else:
            root = square_root(covariance(geometry, settings.length_scale)).astype(np.float32)

            def correlate(white: np.ndarray) -> np.ndarray:
                return white @ root

        sizes = {_TRAIN: settings.samples, _TEST: max(2, settings.samples // 5)}
        train, test = (Stored(size, _reader(correlate, n, stream, settings)) for stream, size in sizes.items())
        return Source("real", {"train": train, "test": test}, geometry=geometry, normalization="position")


def covariance(geometry: Geometry, length_scale: float) -> np.ndarray:
    """Covariance of the field between positions, `(N, N)` float64, 1 on the diagonal.

    Args:
        geometry: A geometry of one of `KINDS`.
        length_scale: The l of exp(-d^2 / (2 l^2)), where the largest distance d within the shape is pi.
    """
    d = geometry.distances() * (np.pi / _extent(geometry))
    return np.exp(-0.5 * np.square(d / length_scale))


def square_root(matrix: np.ndarray) -> np.ndarray:
    """The symmetric square root of a symmetric matrix `(N, N)`, its negative eigenvalues taken as 0.

    Of distances within a curved shape the squared exponential is not positive definite (Feragen, Lauze and Hauberg
    2015, arXiv 1411.0296). Without its negative eigenvalues variances are larger: by rounding alone at the default
    length scale, on ring, torus and sphere by up to 3 % at 1.0 and 12 % at 2.0. The symmetric root, unlike other
    factors, does not depend on which eigenvectors are found where eigenvalues are equal, as they are on a ring.
    """
    values, vectors = eigh(matrix)
    return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def waves(geometry: Geometry, length_scale: float) -> Callable[[np.ndarray], np.ndarray]:
    """Compute `white @ square_root(covariance(...))` on a ring or torus in time N log N, by circular convolution.

    Its covariance depends on the difference of two positions alone, so that its eigenvectors are waves and its
    eigenvalues the Fourier transform of one row.
    """
    first = geometry.distances(np.zeros(1, dtype=np.int64))[0].reshape(geometry.shape or -1)
    row = np.exp(-0.5 * np.square(first * (np.pi / _extent(geometry)) / length_scale))
    axes = tuple(range(1, row.ndim + 1))
    root = np.sqrt(np.clip(rfftn(row).real, 0, None)).astype(np.float32)

    def correlate(white: np.ndarray) -> np.ndarray:
        made = irfftn(rfftn(white.reshape(-1, *row.shape), axes=axes) * root, s=row.shape, axes=axes)
        return np.asarray(made).reshape(white.shape)

    return correlate


def _reader(
    correlate: Callable[[np.ndarray], np.ndarray], n: int, stream: int, settings: DataSettings
) -> Callable[[np.ndarray], tuple[np.ndarray, None]]:
    """A reader of the signals in given rows `(m,)`: `(m, N, 1)` float32."""
    size = max(1, min(_ROWS, _NUMBERS // n))

    def read(rows: np.ndarray) -> tuple[np.ndarray, None]:
        values = np.empty((len(rows), n), dtype=np.float32)
        for block in np.unique(rows // size):
            generator = np.random.default_rng([settings.seed, stream, int(block)])
            g = correlate(generator.standard_normal((size, n), dtype=np.float32))
            white = generator.standard_normal(g.shape, dtype=np.float32)
            made = g + np.float32(settings.noise) * white
            if settings.variant == "magnitude":
                made = (1 + np.float32(MODULATION) * np.tanh(g)) * white
            chosen = rows // size == block
            values[chosen] = made[rows[chosen] % size]
        return values[..., None], None

    return read


def _extent(geometry: Geometry) -> float:
    """The largest distance within the shape itself, whose ends need not be among the positions."""
    if geometry.kind in ("ring", "sphere"):
        return np.pi
    if geometry.kind == "torus":
        return float(np.linalg.norm([np.pi if side > 1 else 0.0 for side in geometry.shape]))
    if geometry.kind == "swissroll":
        return float(np.hypot(np.ptp(arc_length(np.array(ROLL))), ROLL_HEIGHT))
    return float(np.linalg.norm([side - 1 for side in geometry.shape]))


def _geometry(name: str, seed: int) -> Geometry:
    """The shape that `name` asks for."""
    kind, colon, size = name.partition(":")
    source = f"source: {'field:' + name!r}"
    if kind not in KINDS:
        expected = ", ".join(f"field:{known}" for known in KINDS)
        raise MaedError(f"{source} is of unknown kind{nearest(kind, KINDS)} (choose {expected})")
    flat: Callable[..., Geometry] | None = grid if kind == "grid" else torus if kind == "torus" else None
    sides = parse_sides(size) if colon else [_DEFAULT.get(kind, 256)]
    n = int(np.prod(sides, dtype=object)) if sides else 0
    largest = _LARGEST_EVEN if kind in ("ring", "torus") else _LARGEST
    if not 2 <= n <= largest or len(sides) > {"grid": 2, "torus": 3}.get(kind, 1):
        expected = f"field:{kind}:N{f' or field:{kind}:HEIGHTxWIDTH' if flat else ''}"
        expected += f" or field:{kind}:DEPTHxHEIGHTxWIDTH" if kind == "torus" else ""
        raise MaedError(f"source must be {expected}, of 2 to {largest:,} positions, got {'field:' + name!r}")
    if flat is not None:
        return flat(*(sides if len(sides) > 1 else _sides(n, kind, source)))
    if kind == "swissroll":
        return swissroll(n, np.random.default_rng([seed, _PLACES]))
    return {"line": line, "ring": ring, "sphere": sphere}[kind](n)


def _sides(n: int, kind: str, source: str) -> tuple[int, int]:
    """Height and width whose product is `n`, height at most width, as near to each other as can be."""
    height = next(side for side in range(isqrt(n), 0, -1) if n % side == 0)
    if height == 1 and n > 3:
        raise MaedError(
            f"{source} has a prime number of positions; it must be a product of two sides, "
            f"such as field:{kind}:{n - 1} or field:{kind}:{n + 1}"
        )
    return height, n // height
