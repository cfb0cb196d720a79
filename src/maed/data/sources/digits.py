"""scikit-learn's handwritten digits, which need no network."""

from __future__ import annotations

import numpy as np

from maed.data.source import Source, SourceType, Stored, with_classes
from maed.settings import DataSettings


class Digits(SourceType):
    """1,797 images of 8 x 8 handwritten digits, values 0 to 16; no stored test split."""

    example = "digits"

    @classmethod
    def open(cls, text: str, settings: DataSettings) -> Source:
        """Load them; `image_size` is read."""
        from sklearn.datasets import load_digits

        from maed.data.images import resize_pixels

        bunch = load_digits()
        images = bunch.images.astype(np.uint8)[..., None]  # (1797, 8, 8, 1)

        def read(rows: np.ndarray) -> tuple[np.ndarray, None]:
            chosen = images[rows]
            return (chosen if settings.image_size is None else resize_pixels(chosen, settings.image_size)), None

        stored = Stored(len(images), read, np.asarray(bunch.target))
        return with_classes(Source("real", {"train": stored}, normalization="channel"))
