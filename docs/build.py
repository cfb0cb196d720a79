"""Builds the documentation site into site/ with Zensical: `make docs`, or `python docs/build.py`.

Pages are read in the repository too, so their links lead out of `docs/`. Zensical 0.0.73 runs no hooks, so this file
first copies the pages to `.site/` with those links changed: a link to the README leads to the page that has its
content, a link to another file leads to a copy of the file, and a link to a folder becomes plain text. Zensical then
checks links and anchors, and stops at the first build with a warning.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGED = ROOT / ".site"
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^ *(?:```|~~~).*?^ *(?:```|~~~) *$)", re.M | re.S)


def stage() -> None:
    """Copy `docs/` to `.site/`, with links that work in the site."""
    shutil.rmtree(STAGED, ignore_errors=True)
    shutil.copytree(ROOT / "docs", STAGED, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page in sorted(STAGED.rglob("*.md")):
        uri = page.relative_to(STAGED).as_posix()
        parts = _FENCE.split(page.read_text(encoding="utf-8"))  # prose at even indices, code between
        parts[::2] = [_LINK.sub(lambda found, uri=uri: _mended(found, uri), part) for part in parts[::2]]
        page.write_text("".join(parts), encoding="utf-8")


def _mended(found: re.Match[str], uri: str) -> str:
    """The same link where it stays within `docs/`; otherwise one that works in the site."""
    (text, target), folder = found.groups(), posixpath.dirname(uri)
    path = target.partition("#")[0]
    place = posixpath.normpath(posixpath.join("docs", folder, path))
    if re.match(r"[a-z]+:", target) or not path or place.startswith("docs/"):
        return found[0]
    if place == "README.md":
        return text if uri == "index.md" else f"[{text}]({posixpath.relpath('index.md', folder or '.')})"
    if not (ROOT / place).is_file() or place.startswith(".."):
        return text
    copy = STAGED / "repository" / place
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / place, copy)
    return f"[{text}]({posixpath.relpath(f'repository/{place}', folder or '.')})"


if __name__ == "__main__":
    stage()
    shutil.rmtree(ROOT / "site", ignore_errors=True)
    built = subprocess.run(
        [Path(sys.executable).parent / "zensical", "build", "--clean", "--strict"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode or "Warning:" in built.stdout + built.stderr:
        sys.exit((built.stdout + built.stderr).rstrip() + "\nthe site was not built: see the warnings above")
