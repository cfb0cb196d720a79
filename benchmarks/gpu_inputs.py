"""The embeddings that jobs of gpu.yaml read, learned on a CPU beforehand: small artifacts in results/gpu/inputs."""

from __future__ import annotations

import shutil
from pathlib import Path

import learn
from maed.cli import main as maed
from maed.errors import MaedError
from maed.files import replacing, write_text
from maed.machine import commit

INPUTS_OF = {
    "imdb": ["run", "imdb", "--config", "imdb-cpu", "--positions", ""],
    "cifar10": ["run", "cifar10", "--config", "cifar10-cpu", "--positions", "", "--data.permute", "0"],
    "cifar10-ordered": ["run", "cifar10", "--config", "cifar10-cpu", "--positions", ""],
    "learn": [],
}
"""Each by one command; `learn` is the embedding of `benchmarks/learn.py`, three seeds."""


def make(name: str, target: Path, work: Path) -> None:
    """Learn one of them, and keep its embeddings: what `--run` reads, and no more."""
    if name == "learn":
        for seed in (0, 1, 2):
            metrics, embedding = learn.one(seed, device="cpu")
            embedding.provenance |= {"metrics": metrics, "commit": commit()}
            embedding.save_pretrained(folder := target / f"seed-{seed}")
            (folder / "README.md").unlink()  # the card is for people who share it
        return
    if maed([*INPUTS_OF[name], "--out", str(work / name)]):
        raise MaedError(f"inputs: {name} could not be learned")
    kept = (
        ("embedding",) if name == "imdb" else ("embedding", "baselines/correlation/embedding")
    )  # what the jobs compare
    for below in kept:
        for file in ("config.json", "model.safetensors"):
            with replacing(target / below / file) as temporary:
                shutil.copyfile(work / name / below / file, temporary)
    write_text(target / "command", f"maed {' '.join(word or repr(word) for word in INPUTS_OF[name])}\n{commit()}\n")
