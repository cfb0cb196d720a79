"""Patches of scikit-learn's two photographs, which need no network."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from maed.data.source import PartName, Source, SourceType, Stored, with_classes
from maed.errors import MaedError
from maed.settings import DataSettings

PATCH = 16
"""Side of a patch, in pixels."""

HELD_OUT = 2_000
"""Patches in each of the validation and test splits."""

_REGIONS: dict[PartName, tuple[float, float]] = {"train": (0, 4 / 6), "validation": (4 / 6, 5 / 6), "test": (5 / 6, 1)}


class Photos(SourceType):
    """Patches of 16 x 16 x 3 cut at random from the two photographs; the label is the photograph.

    The left two thirds of each photograph give `settings.samples` training patches, the next sixth the validation
    patches and the last sixth the test patches, 2,000 each: no pixel is in two splits.
    """

    example = "photos"

    @classmethod
    def open(cls, text: str, settings: DataSettings) -> Source:
        """Cut the patches; `samples` and `seed` are read."""
        from sklearn.datasets import load_sample_images

        if settings.image_size is not None:
            raise MaedError(
                f"data.image_size must be left out: patches of photos are {PATCH} x {PATCH}; got {settings.image_size}"
            )
        if settings.samples < 2:
            raise MaedError(f"data.samples must be at least 2, one patch of each photograph, got {settings.samples}")
        photographs = load_sample_images().images  # (427, 640, 3) uint8 each
        counts: dict[PartName, int] = {"train": settings.samples, "validation": HELD_OUT, "test": HELD_OUT}
        parts: dict[PartName, Stored] = {}
        for stream, (name, (low, high)) in enumerate(_REGIONS.items()):
            generator = np.random.default_rng([settings.seed, stream])
            regions = [image[:, round(low * image.shape[1]) : round(high * image.shape[1])] for image in photographs]
            halves = [(counts[name] + 1) // 2, counts[name] // 2]
            patches = [_patches(region, count, generator) for region, count in zip(regions, halves, strict=True)]
            parts[name] = Stored.of(np.concatenate(patches), np.repeat([0, 1], halves))
        return with_classes(Source("real", parts, normalization="channel"), ("china", "flower"))


def _patches(region: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
    """`count` different patches of a `(height, width, 3)` region: `(count, 16, 16, 3)`."""
    windows = sliding_window_view(region, (PATCH, PATCH), axis=(0, 1))  # (rows, columns, 3, 16, 16), a view
    rows, columns = windows.shape[:2]
    if count > rows * columns:
        raise MaedError(f"data.samples must be at most {2 * rows * columns}, the patches of the photographs")
    places = generator.choice(rows * columns, count, replace=False)
    return windows[places // columns, places % columns].transpose(0, 2, 3, 1)
