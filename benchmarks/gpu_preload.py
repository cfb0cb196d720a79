"""What jobs have in common, imported and built once: in the process that each of them is forked from (gpu.py)."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

import pyarrow.dataset
import pyarrow.parquet  # noqa: F401
from PIL import Image

import gpu_jobs  # noqa: F401
import maed.data.tables
import maed.integrations.replacing  # noqa: F401
from maed import presets
from maed.registry import ARCHITECTURES, BASELINES, ENCODINGS, SOURCES

for registry in (ARCHITECTURES, BASELINES, ENCODINGS, SOURCES):
    for name in registry.names:
        registry.get(name)
if find_spec("kornia") is not None:  # augmentation; an extra
    import_module("kornia.augmentation")
Image.preinit()  # readers of PNG and others
presets.load("digits")  # the parser of settings
