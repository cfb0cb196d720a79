"""Whole files of every kind that maed reads, and the reader of each: what torture.py mutates."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from maed import PositionEmbedding, presets
from maed.autoencoder import load_autoencoder
from maed.cli.inspection import describe
from maed.data import load
from maed.embedding import open_embedding
from maed.engine.checkpoints import read_checkpoint, write_checkpoint
from maed.files import read_json, write_json
from maed.models.classifiers import load_classifier
from maed.records import Choice, Progress, Results
from maed.settings import DataSettings
from maed.similarity import load_similarity

Reader = Callable[[Path], object]


def readers(run: Path, folder: Path) -> dict[str, tuple[Path, Reader]]:
    """For each kind of file: where a whole one lies, and what reads it.

    Args:
        run: a finished run with models.
        folder: receives the files.
    """
    folder.mkdir()
    found = _of_data(folder / "data") | _of_runs(run, folder / "run") | _of_artifacts(run, folder / "artifacts")
    for path in folder.rglob("*"):  # digests would keep every mutation from what a stranger's file gets to
        if path.suffix == ".json":
            write_json(path, read_json(path))
        elif path.suffix == ".safetensors":
            save_file(load_file(path), path)
    return found


def _of_data(folder: Path) -> dict[str, tuple[Path, Reader]]:
    folder.mkdir()
    generator = np.random.default_rng(0)
    values = generator.normal(size=(24, 6)).round(3)
    frame = pd.DataFrame(values, columns=[f"s{i}" for i in range(6)])
    labeled = frame.assign(label=generator.integers(0, 2, 24))
    np.save(folder / "x.npy", values)
    np.savez(folder / "x.npz", X=values, y=labeled["label"])
    labeled.to_csv(folder / "x.csv", index=False)
    labeled.to_parquet(folder / "x.parquet")
    frame.to_csv(folder / "coordinates.csv", index=False)
    (folder / "x.txt").write_text("\n".join(f"the text number {i} of these" for i in range(24)))
    paths = {name: (folder / name, _loaded) for name in ("x.npy", "x.npz", "x.csv", "x.parquet", "x.txt")}
    for form in ("png", "jpeg"):
        images = folder / form
        images.mkdir()
        for number in range(8):
            pixels = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(images / f"{number}.{form}")
        paths[f"images .{form}"] = (images / f"0.{form}", _loaded_folder)
    preset = {"positions": "maed", "autoencoder": {"steps": 3, "width": 16}, "train": {"epochs": 1}}
    (folder / "preset.yaml").write_text(yaml.safe_dump(preset))
    return {**paths, "a preset": (folder / "preset.yaml", lambda path: presets.load(str(path)))}


def _loaded(path: Path) -> object:
    return load(str(path), DataSettings(limit=16))


def _loaded_folder(path: Path) -> object:
    return load(str(path.parent), DataSettings(limit=16))


def _of_runs(source: Path, run: Path) -> dict[str, tuple[Path, Reader]]:
    shutil.copytree(source, run)
    model = next(path.parent for path in sorted(run.glob("models/*/model.safetensors")))
    readers: dict[str, Callable[[Path], object]] = {
        "autoencoder": load_autoencoder,
        "similarity": load_similarity,
        str(model.relative_to(run)): load_classifier,
    }
    found: dict[str, tuple[Path, Reader]] = {}
    for name, read in readers.items():
        for file in ("config.json", "model.safetensors"):
            what = f"{'a model' if '/' in name else name}'s {file}"
            found[what] = (run / name / file, partial(_of_parent, read))
    found["auto.json"] = (run / "auto.json", Choice.read)
    found["results.json"] = (run / "results.json", Results.read)
    found["progress.json"] = (run / "autoencoder" / "progress.json", Progress.read)
    found["info on a run"] = (run / "similarity" / "config.json", lambda path: list(describe(path.parents[1])))
    write_checkpoint(run / "plain.ckpt", {"state_dict": {"w": torch.ones(9)}, "global_step": 3, "fingerprint": "it"})
    found["last.ckpt, plain"] = (run / "plain.ckpt", read_checkpoint)
    found["last.ckpt, Lightning"] = (model / "last.ckpt", read_checkpoint)
    return found


def _of_parent(read: Callable[[Path], object], path: Path) -> object:
    return read(path.parent)


def _of_artifacts(run: Path, folder: Path) -> dict[str, tuple[Path, Reader]]:
    shutil.copytree(run / "embedding", folder)
    vectors = PositionEmbedding.from_pretrained(folder).numpy()
    torch.save(vectors, folder / "legacy.pth", pickle_protocol=2)
    return {
        "an embedding's config.json": (folder / "config.json", partial(_of_parent, PositionEmbedding.from_pretrained)),
        "an embedding's model.safetensors": (
            folder / "model.safetensors",
            partial(_of_parent, PositionEmbedding.from_pretrained),
        ),
        "the original's .pth": (folder / "legacy.pth", lambda path: open_embedding(str(path))),
    }
