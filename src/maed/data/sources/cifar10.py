"""CIFAR-10: photographs of 32 x 32 pixels."""

from __future__ import annotations

from maed.data.source import Source, SourceType
from maed.settings import DataSettings


class Cifar10(SourceType):
    """60,000 photographs of ten classes, from the folder `$MAED_DATA/cifar10` where that exists, else from the hub."""

    example = "cifar10"

    @classmethod
    def open(cls, text: str, settings: DataSettings) -> Source:
        """Read the folder or the hub's cache, or download it."""
        from maed.data.hub_layout import known

        classes = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
        return known("cifar10", "uoft-cs/cifar10", classes, settings)
