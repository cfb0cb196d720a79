"""Encoded images (PNG, JPEG, ...) to pixels, by a pool of threads."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from maed.data.source import first_line
from maed.errors import MaedError

if TYPE_CHECKING:
    from PIL import Image

_BLOCK = 256  # images a thread decodes before it reports: fewer would cost more than the decoding


def decode(
    encoded: Sequence[bytes | None],
    image_size: int | None = None,
    name: Callable[[int], str] = "number {} of those read".format,
) -> np.ndarray:
    """Decode images to one array.

    Args:
        encoded: n files of any format that Pillow reads; each is one image.
        image_size: Side that they are brought to, see `resize`; their own size, the same for all, where None.
        name: Gives the name of an image in messages, from its index.

    Returns:
        `(n, height, width, C)` uint8; C is 1 where all are grayscale, otherwise 3.

    Raises:
        MaedError: An image that cannot be decoded, or images of several sizes without `image_size`.
    """
    first = _open(encoded[0], name(0), image_size)
    pixels = np.empty((len(encoded), first.height, first.width, 3), dtype=np.uint8)
    gray = np.zeros(len(encoded), dtype=bool)

    def fill(start: int) -> None:
        for index in range(start, min(start + _BLOCK, len(encoded))):
            image = _open(encoded[index], name(index), image_size)
            if image.size != first.size:
                sizes = f"{first.width} x {first.height} and {image.width} x {image.height}"
                raise MaedError(f"images must have one size, got {sizes}; --data.image_size resizes them")
            gray[index] = image.mode == "L"
            pixels[index] = np.asarray(image)[..., None] if gray[index] else np.asarray(image)

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        list(pool.map(fill, range(0, len(encoded), _BLOCK)))  # list: so that errors are raised
    return np.ascontiguousarray(pixels[..., :1]) if gray.all() else pixels


def resize(image: Image.Image, size: int) -> Image.Image:
    """Bring the shortest side to `size` (bicubic), then crop the center to `size` x `size`."""
    from PIL import Image

    shortest = min(image.size)
    if shortest != size:
        width, height = (max(size, round(side * size / shortest)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def resize_pixels(pixels: np.ndarray, size: int) -> np.ndarray:
    """`resize` for `(n, height, width, C)` uint8 pixels, C being 1 or 3."""
    from PIL import Image

    if pixels.dtype != np.uint8 or pixels.shape[3] not in (1, 3):
        found = f"{pixels.dtype} with {pixels.shape[3]} channels"
        raise MaedError(f"data.image_size needs images of uint8 with 1 or 3 channels, got {found}")
    squeezed = pixels[..., 0] if pixels.shape[3] == 1 else pixels
    resized = [np.asarray(resize(Image.fromarray(image), size)) for image in squeezed]
    return np.stack(resized).reshape(len(pixels), size, size, pixels.shape[3])


def _open(content: bytes | None, name: str, image_size: int | None) -> Image.Image:
    """One image, decoded, as mode `L` or `RGB`."""
    from PIL import Image

    if content is None:
        raise MaedError(f"images: {name} has no bytes; images must be stored in the table itself")
    try:
        with Image.open(io.BytesIO(content)) as opened:
            image = opened.convert("L" if opened.mode in ("1", "L") else "RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise MaedError(f"images: {name} cannot be decoded ({first_line(error)})") from None
    return image if image_size is None else resize(image, image_size)
