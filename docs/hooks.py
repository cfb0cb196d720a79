"""What MkDocs needs to build these pages from the repository, where they are read too.

Links that leave `docs/` work in the repository. In the site, those to the README lead to the page that says the same,
those to other files to a copy, and those to folders are plain text.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, InclusionLevel

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_README = {"": "index.md", "measured": "measured.md", "how-it-works": "how-it-works.md"}
"""Where the sections of the README are in the site."""


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """Mend links that leave `docs/`."""
    return _LINK.sub(lambda found: _mended(found, page.file.src_uri, config, files), markdown)


def _mended(found: re.Match[str], uri: str, config: Any, files: Any) -> str:
    (text, target), folder = found.groups(), posixpath.dirname(uri)
    path, _, anchor = target.partition("#")
    if re.match(r"[a-z]+:", target) or not path:
        return found[0]
    place = posixpath.normpath(posixpath.join("docs", folder, path))
    if place.startswith("docs/"):
        inside = posixpath.relpath(place.removeprefix("docs/"), folder or ".")
        return f"[{text}]({inside}{'#' if anchor else ''}{anchor})"
    if place == "README.md":
        page = _README.get(anchor)
        return text if page in (None, uri) else f"[{text}]({posixpath.relpath(str(page), folder or '.')})"
    if not (ROOT / place).is_file() or place.startswith(".."):
        return text
    copy = f"repository/{place}"
    if files.get_file_from_path(copy) is None:
        file = File.generated(config, copy, abs_src_path=str(ROOT / place), inclusion=InclusionLevel.NOT_IN_NAV)
        files.append(file)
    return f"[{text}]({posixpath.relpath(copy, folder or '.')})"
