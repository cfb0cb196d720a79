"""What the documentation promises: its examples run, its links lead somewhere, its commands parse, no verb is left out.

That the site builds, and that its anchors exist, is for `make docs`. Commands are run by `make installed`, on the
installed package. A line `<!-- not run: why -->` before a block, which pages do not show, keeps it from being run.
"""

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from sklearn.datasets import load_digits

from maed.cli import build_parser

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
RUN = [DOCS / "quickstart.md", DOCS / "faq.md", DOCS / "api.md", *sorted((DOCS / "tutorials").glob("*.md"))]

_FENCE = re.compile(
    r"(?P<before>[^\n]*)\n(?P<fence>```|~~~)(?P<language>[\w-]*)[^\n]*\n(?P<code>.*?)\n(?P=fence)", re.S
)
_NOT_RUN = re.compile(r"<!-- not run: \S.* -->")
_LINK = re.compile(r"\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")


def test_the_page_of_messages_is_current() -> None:
    written = runpy.run_path(str(DOCS / "messages.py"))["page"]()
    assert (DOCS / "messages.md").read_text(encoding="utf-8") == written, "python docs/messages.py writes it anew"


def name(page: Path) -> str:
    return page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT).as_posix()


def blocks(page: Path, *languages: str, marked: bool = False) -> Iterator[tuple[int, str, str]]:
    """The number of the first line, the language and the code of each fenced block; of `marked` ones too if asked."""
    text = page.read_text(encoding="utf-8")
    for found in _FENCE.finditer(text):
        if found["language"] in languages and (marked or not _NOT_RUN.fullmatch(found["before"])):
            yield text.count("\n", 0, found.start("code")) + 1, found["language"], found["code"]


def prose(page: Path) -> str:
    """The page without its code."""
    text = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return re.sub(r"`[^`\n]*`", "`code`", text)


@pytest.mark.slow
@pytest.mark.usefixtures("short_learning")
@pytest.mark.parametrize("page", RUN, ids=name)
def test_the_examples_of_a_page_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    for line, _, code in blocks(page, "python"):
        exec(compile("\n" * (line - 1) + code, str(page), "exec"), scope)
    check(name(page), scope)


@pytest.fixture
def signals(tmp_path: Path) -> None:
    """Files that pages speak of as the reader's own."""
    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    spread = np.exp((np.cos(angle - angle[:, None]) - 1) / 0.16)
    X = (rng.normal(size=(600, 16)) @ spread + 0.3 * rng.normal(size=(600, 16))).astype(np.float32)
    np.savez(tmp_path / "my-signals.npz", inputs=X, labels=(X[:, 0] > 0).astype(int))
    np.save(tmp_path / "my-digits.npy", load_digits().data[:20])
    stations = pd.DataFrame(X, columns=[f"s{i}" for i in range(16)])
    stations.to_csv(tmp_path / "stations.csv", index=False)
    stations.mask(rng.random(X.shape) < 0.2).head(20).to_csv(tmp_path / "gaps.csv", index=False)
    stations.head(20).to_csv(tmp_path / "new.csv", index=False)
    stations.assign(nt=X[:, :4].mean(1), cec=X[:, 4:9].sum(1)).to_csv(tmp_path / "soil.csv", index=False)
    labels = {"rain": (X[:, 0] > 0).astype(int), "wind": (X[:, 1] > 0).astype(int)}
    stations.assign(**labels).to_csv(tmp_path / "tags.csv", index=False)


@pytest.mark.slow
@pytest.mark.installed
@pytest.mark.usefixtures("short_learning", "signals")
@pytest.mark.parametrize("page", [page for page in [ROOT / "README.md", *PAGES] if any(blocks(page, "sh"))], ids=name)
def test_the_commands_of_a_page_run_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one folder, shortened by tests/short_maed.py, beside files of the reader."""
    monkeypatch.chdir(tmp_path)
    program = tmp_path / "bin" / "maed"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT / "tests" / "short_maed.py"} "$@"\n')
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONWARNINGS": "ignore",
    }
    scope: dict[str, Any] = {}
    for line, language, code in blocks(page, "python", "sh"):
        if language == "python" and page.name == "array.md":  # its commands export what its examples learn
            exec(compile("\n" * (line - 1) + code, str(page), "exec"), scope)
        if language == "sh":
            done = subprocess.run(
                ["bash", "-euo", "pipefail", "-c", code], env=environment, capture_output=True, text=True
            )
            assert done.returncode == 0, f"{name(page)}, line {line}: {done.stdout[-2000:]}{done.stderr[-2000:]}"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=name)
def test_a_block_that_is_not_run_says_why(page: Path) -> None:
    for line in page.read_text(encoding="utf-8").splitlines():
        assert "not run:" not in line or _NOT_RUN.fullmatch(line)


def check(page: str, scope: dict[str, Any]) -> None:
    """What comments and prose say of the examples' results."""
    if page == "quickstart.md":
        steps = (scope["angle"][scope["embedding"].neighbors(0, k=4)] - scope["angle"][0]) / (6.2831853 / 40)
        assert sorted((steps.round().astype(int) + 2) % 40) == [0, 1, 3, 4]
    if page == "tutorials/array.md":
        assert scope["embedding"].provenance["split_half"] > 0.9
        assert scope["found"]["knn_recall"] > 0.95
        assert scope["found"]["coordinate_r2"] > 0.95
        assert scope["again"].get_params()["budget"] == "40000 draws"
    if page == "faq.md":
        near = scope["distance"][0][[int(name[1:]) for name in scope["embedding"].neighbors("s0", k=4)]]
        assert near.max() < 3
        assert (scope["fewer"].n, scope["more"].n, scope["tokens"].shape) == (3, 65, (8, 3, 32))
    if page == "tutorials/eeg.md":
        assert sorted(scope["larger"].neighbors("CPz", k=2)) == ["Cz", "Pz"]
        table, vectors = scope["model"].pos_embed[0], scope["embedding"].subset(sorted(scope["places"])).vectors
        ratio = torch.pdist(table) / torch.pdist(vectors)  # rows in the order of the model's channels
        assert torch.allclose(ratio, ratio.mean(), rtol=1e-3)
    if page == "tutorials/vit.md":
        assert not scope["loaded"].vit.embeddings.position_embeddings.requires_grad
        assert scope["larger"].n == 196
    if page == "tutorials/perceiver.md":
        assert not scope["table"].requires_grad
        read = scope["read"].perceiver.input_preprocessor.position_embeddings.weight
        assert (read == scope["table"]).all()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_and_image_exists(page: Path) -> None:
    links = {link.partition("#")[0] for link in _LINK.findall(prose(page)) if not re.match(r"[a-z]+:", link)}
    missing = [link for link in sorted(links) if link and not (page.parent / link).exists()]
    assert not missing


def test_the_site_has_every_page_once() -> None:
    nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    entries = [entry for section in nav for entry in section.values()]
    pages = [
        page
        for entry in entries
        for page in ([entry] if isinstance(entry, str) else [p for e in entry for p in e.values()])
    ]
    assert sorted(pages) == [name(page) for page in PAGES]


COMMANDS = [
    (page, line)
    for page in PAGES
    for _, _, block in blocks(page, "sh", marked=True)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("maed ") and "VERB" not in line
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=lambda value: name(value) if isinstance(value, Path) else None)
def test_every_command_parses(page: Path, line: str) -> None:
    words = shlex.split(line, comments=True)[1:]

    assert build_parser(words[:1]).parse_args(words).verb == words[0]


@cache
def verbs() -> dict[str, Any]:
    return dict(build_parser()._subcommands_action._name_parser_map)


@pytest.mark.slow
@pytest.mark.parametrize("verb", verbs())
def test_every_verb_and_its_own_options_are_on_the_page_of_the_command_line(verb: str) -> None:
    page = (DOCS / "cli.md").read_text(encoding="utf-8")
    own = [option for option in verbs()[verb]._option_string_actions if option.startswith("--") and "." not in option]

    assert f"`maed {verb}" in page
    assert [option for option in own if option != "--help" and f"`{option}" not in page] == []
