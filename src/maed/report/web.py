"""Building blocks of pages: templates, styles, the only scripts allowed to run, and data that cannot close its tag."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
import markupsafe
from plotly.offline import get_plotlyjs

SCRIPTS = ("page.js", "arrays.js", "explorer.js", "signals.js", "start.js")
"""Scripts in the order in which the page runs them; plotly.js comes when the page has been painted."""

_HERE = Path(__file__).parent


def templates(*folders: Path) -> jinja2.Environment:
    """The templates of pages, and those in other `folders`. Whatever they are given is escaped."""
    loader = jinja2.FileSystemLoader([_HERE, *folders])
    return jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


@cache
def script(name: str, folder: Path = _HERE / "explorer") -> markupsafe.Markup:
    """A script of a page."""
    return _closed((folder / name).read_text(encoding="utf-8"))


@cache
def plotly() -> markupsafe.Markup:
    """plotly.js."""
    return _closed(get_plotlyjs())


@cache
def style(name: str, folder: Path = _HERE / "explorer") -> markupsafe.Markup:
    """A style sheet of a page."""
    return markupsafe.Markup((folder / name).read_text(encoding="utf-8"))


@cache
def policy(scripts: tuple[str, ...]) -> markupsafe.Markup:
    """The Content-Security-Policy of a page that runs these scripts and no others, and asks nothing of any network."""
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") for text in scripts]
    allowed = " ".join(["script-src", *(f"'sha256-{text}'" for text in hashes)] if hashes else ["script-src 'none'"])
    return markupsafe.Markup(
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; {allowed}; base-uri 'none'; "
        "form-action 'none'"
    )


def _closed(text: str) -> markupsafe.Markup:
    """A script as a browser sees it in a page: no end tag of its own, and line ends as its parser makes them."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("</script", "<\\/script")
    return markupsafe.Markup(text)


def inlined(data: dict[str, Any]) -> markupsafe.Markup:
    """JSON in which nothing can end the element around it."""
    plain = json.loads(json.dumps(data), parse_constant=lambda _: None)  # JSON has no not-a-number
    text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return markupsafe.Markup(text)
