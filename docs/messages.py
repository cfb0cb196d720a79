"""Writes docs/messages.md: every error and warning of the package, read from the code.

    python docs/messages.py

A field of a message is shown by the name of its value: `{path}`. A message of several places is listed once.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "messages.md"
PACKAGE = ROOT / "src" / "maed"

ROOMS = {
    "data": "Reading signals",
    "settings": "Settings",
    "presets": "Presets and settings in files",
    "autoencoder": "Autoencoder",
    "similarity": "Similarity",
    "embedding": "Position embeddings",
    "encodings": "Encodings",
    "evaluation": "Evaluation",
    "integrations": "Other people's models",
    "learner": "The learner",
    "tasks": "Tasks",
    "models": "Perceivers",
    "engine": "Training",
    "prediction": "Prediction",
    "plots": "Figures",
    "stages": "Stages of a run",
    "experiments": "Whole runs and comparisons",
    "report": "The report",
    "server": "The server",
    "cli": "Command line",
}
"""Titles of the rooms in the order of the page; what lies outside of them comes last, under `General`."""

_HEAD = """\
# Error messages

Every error and warning of `maed`, read from its code. An error is a `maed.MaedError`: one line that begins with the
argument, setting or file that it is about, which is its attribute `argument`. The command line prints it after `maed:`
and exits with code 2. Words in braces stand for values; `{setting}` is `train.`, or `train.pretrain_` in a pretraining.
"""

_ERRORS = ("MaedError", "NotFiniteError", "NoDependence")

_BEGINNING = re.compile(r"([^\s:]+) (?:must|needs?|has) |(.+?): ")  # as `maed.errors` finds the argument


@dataclass(frozen=True, order=True)
class Message:
    """An error or a warning: its text with fields in braces, and the argument that it begins with."""

    argument: str
    text: str
    warning: bool


def messages(path: Path) -> Iterator[Message]:
    """The messages of a module, in the order of its code."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        assigned: dict[str, ast.expr] = {}
        for node in ast.walk(function):
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    assigned[name] = value
        for node in ast.walk(function):
            match node:
                case ast.Raise(exc=ast.Call(func=ast.Name(id=error), args=[*arguments])) if error in _ERRORS:
                    yield from _texts(arguments[:1], assigned, warning=False)
                case ast.Return(value=ast.Call(func=ast.Name(id="MaedError"), args=[*arguments])):
                    yield from _texts(arguments[:1], assigned, warning=False)
                case ast.Raise(exc=ast.Call(func=ast.Name(id="damaged"), args=[_, ast.expr() as found, *_])):
                    for text in _shown(found, assigned):
                        yield _message(f"{{path}}: {text}; copy it again, or delete {{stage}} and run again")
                case ast.Call(func=ast.Attribute(value=ast.Name(id="warnings"), attr="warn"), args=[*arguments]):
                    yield from _texts(arguments[:1], assigned, warning=True)


def _texts(arguments: list[ast.expr], assigned: dict[str, ast.expr], *, warning: bool) -> Iterator[Message]:
    for argument in arguments:
        for text in _shown(argument, assigned):
            if text.strip("{}").isidentifier():  # handed on: it is listed where it is made
                continue
            yield _message(text, warning)


def _message(text: str, warning: bool = False) -> Message:
    found = _BEGINNING.match(text)
    return Message("" if found is None or warning else found[1] or found[2], text, warning)


def _shown(text: ast.expr, assigned: dict[str, ast.expr], depth: int = 0) -> list[str]:
    """A message as readers see it; several if it depends on a condition."""
    match text:
        case ast.Constant(value=str(value)):
            return [value]
        case ast.JoinedStr(values=values):
            parts = [""]
            for part in values:
                fields = (
                    _field(part.value, assigned, depth) if isinstance(part, ast.FormattedValue) else _shown(part, {})
                )
                parts = [before + field for before in parts for field in fields][:2]
            return parts
        case ast.IfExp(body=body, orelse=orelse):
            return [*_shown(body, assigned, depth), *_shown(orelse, assigned, depth)]
        case ast.Name(id=name) if name in assigned and depth < 2:
            if isinstance(assigned[name], ast.JoinedStr | ast.Constant):
                return _shown(assigned[name], assigned, depth + 1)
            return [f"{{{name}}}"]
    return [f"{{{_name(text)}}}"]


def _field(value: ast.expr, assigned: dict[str, ast.expr], depth: int) -> list[str]:
    match value:
        case ast.Name(id=name) if isinstance(assigned.get(name), ast.JoinedStr | ast.Constant) and depth < 1:
            return _shown(value, assigned, depth + 1)
        case ast.IfExp(body=ast.Constant(value=str(body)), orelse=ast.Constant(value=str(orelse))):
            return [max(body, orelse, key=len)]
    return [f"{{{_name(value)}}}"]


def _name(value: ast.expr) -> str:
    """A short name for the value of an expression."""
    match value:
        case ast.Name(id=name):
            return name.strip("_").lower() if name.isupper() else name
        case ast.Attribute(attr=name):
            return name
        case ast.Call(func=ast.Attribute(attr="join"), args=[joined]):
            return _name(joined)
        case ast.Call(func=ast.Name(id="nearest")):
            return "suggestion"
        case ast.Call(func=ast.Name(id="first_line" | "_line" | "_shown")):
            return "reason"
        case ast.Call(args=[first, *_]):
            return _name(first)
        case ast.Call(func=ast.Attribute(value=owner)):
            return _name(owner)
        case ast.Call(func=ast.Name(id=name)):
            return name.strip("_")
        case ast.Subscript(value=of) | ast.Starred(value=of) | ast.BoolOp(values=[of, *_]) | ast.UnaryOp(operand=of):
            return _name(of)
        case ast.BinOp(left=left, right=right):
            return _name(right if isinstance(left, ast.Constant) else left)
        case ast.IfExp(body=body, orelse=orelse):
            return _name(orelse if isinstance(body, ast.Constant) else body)
        case ast.GeneratorExp(elt=element) | ast.ListComp(elt=element):
            return _name(element)
        case ast.JoinedStr(values=values):
            return next((_name(each.value) for each in values if isinstance(each, ast.FormattedValue)), "...")
    return "..."


def page() -> str:
    """The page in Markdown."""
    found: dict[str, dict[Message, None]] = {room: {} for room in (*ROOMS, "")}
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        for message in messages(path):
            if not any(message in others for others in found.values()):
                found[room if room in ROOMS else ""][message] = None
    lines = [_HEAD]
    for room, kept in found.items():
        if not kept:
            continue
        lines += [f"## {ROOMS.get(room, 'General')}", "", "| About | Message |", "| --- | --- |"]
        for message in sorted(kept, key=lambda each: (each.warning, each.argument.lower(), each.text)):
            about = "*warning*" if message.warning else f"`{message.argument}`" if message.argument else ""
            text = message.text.replace("|", r"\|")
            lines.append(f"| {about} | `` {text} `` |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
