"""The sources that need no network: scikit-learn's digits, and patches of its two photographs."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from sklearn.datasets import load_digits, load_sample_images

from maed.data.images import resize_pixels
from maed.data.source import PartName, Source, Stored, with_classes
from maed.errors import MaedError
from maed.settings import DataSettings

PATCH = 16
"""Side of a patch of the photographs, in pixels."""

HELD_OUT = 2_000
"""Patches in each of the validation and test splits of the photographs."""

_REGIONS: dict[PartName, tuple[float, float]] = {"train": (0, 4 / 6), "validation": (4 / 6, 5 / 6), "test": (5 / 6, 1)}


def digits(settings: DataSettings) -> Source:
    """scikit-learn's 1,797 images of 8 x 8 handwritten digits, values 0 to 16; no stored test split."""
    bunch = load_digits()
    images = bunch.images.astype(np.uint8)[..., None]  # (1797, 8, 8, 1)

    def read(rows: np.ndarray) -> tuple[np.ndarray, None]:
        chosen = images[rows]
        return (chosen if settings.image_size is None else resize_pixels(chosen, settings.image_size)), None

    stored = Stored(len(images), read, np.asarray(bunch.target))
    return with_classes(Source("real", {"train": stored}, normalization="channel"))


def photos(settings: DataSettings) -> Source:
    """Patches of 16 x 16 x 3 cut at random from scikit-learn's two photographs; the label is the photograph.

    The left two thirds of each photograph give `settings.samples` training patches, the next sixth the validation
    patches and the last sixth the test patches, 2,000 each: no pixel is in two splits.
    """
    if settings.image_size is not None:
        raise MaedError(f"data.image_size: {settings.image_size}; patches of the photographs are 16 x 16, leave it out")
    if settings.samples < 2:
        raise MaedError(f"data.samples: {settings.samples}; it may be 2 or more, one patch of each photograph")
    photographs = load_sample_images().images  # (427, 640, 3) uint8 each
    counts: dict[PartName, int] = {"train": settings.samples, "validation": HELD_OUT, "test": HELD_OUT}
    parts: dict[PartName, Stored] = {}
    for stream, (name, (low, high)) in enumerate(_REGIONS.items()):
        generator = np.random.default_rng([settings.seed, stream])
        regions = [image[:, round(low * image.shape[1]) : round(high * image.shape[1])] for image in photographs]
        halves = [(counts[name] + 1) // 2, counts[name] // 2]
        patches = [_patches(region, count, generator) for region, count in zip(regions, halves, strict=True)]
        parts[name] = in_memory(np.concatenate(patches), np.repeat([0, 1], halves))
    return with_classes(Source("real", parts, normalization="channel"), ("china", "flower"))


def in_memory(values: np.ndarray, labels: np.ndarray | None) -> Stored:
    """A stored split whose signals lie in an array already."""
    return Stored(len(values), lambda rows: (values[rows], None), labels)


def _patches(region: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` different patches of a `(height, width, 3)` region: `(count, 16, 16, 3)`."""
    windows = sliding_window_view(region, (PATCH, PATCH), axis=(0, 1))  # (rows, columns, 3, 16, 16), a view
    rows, columns = windows.shape[:2]
    if count > rows * columns:
        raise MaedError(f"data.samples: more than the photographs hold; it may be {2 * rows * columns} at the most")
    places = generator.choice(rows * columns, count, replace=False)
    return windows[places // columns, places % columns].transpose(0, 2, 3, 1)
