"""Draws docs/images/rooms.svg: the rooms of the package by their layers, and which imports which, read from the code.

    python docs/rooms.py

Layers are those of the contract `Arrows go down` in pyproject.toml. An arrow that others imply is left out: where A
imports B, and B imports C, that A imports C too is not drawn.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "rooms.svg"
WIDTH, ROW, BOX, HEIGHT = 860, 62, 118, 30


def layers() -> list[list[str]]:
    """The rooms of each layer, the highest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(c for c in settings["tool"]["importlinter"]["contracts"] if c["type"] == "layers")
    rows = [[room.strip() for room in layer.split("|")] for layer in contract["layers"]]
    return [[room for room in row if not room.startswith("_")] for row in rows]


def imports(rooms: list[str]) -> set[tuple[str, str]]:
    """Which room imports which, as it runs and not for types alone; without those that others imply."""
    graph = grimp.build_graph("maed", exclude_type_checking_imports=True)
    found = {room: {other for other in rooms if other != room and imported(graph, room, other)} for room in rooms}
    below: dict[str, set[str]] = {}
    for room in reversed(rooms):  # those below first
        below[room] = found[room].union(*(below.get(other, set()) for other in found[room]))
    return {
        (room, other)
        for room, others in found.items()
        for other in others
        if not any(other in below[between] for between in others if between != other)
    }


def imported(graph: grimp.ImportGraph, room: str, other: str) -> bool:
    """Whether a module of one room imports a module of the other."""
    modules = {f"maed.{other}", *graph.find_descendants(f"maed.{other}")}
    importers = {importer for module in modules for importer in graph.find_modules_that_directly_import(module)}
    return any(importer == f"maed.{room}" or importer.startswith(f"maed.{room}.") for importer in importers)


def picture() -> str:
    """The SVG, in one gray that reads on light and dark."""
    rows = layers()
    place = {
        room: (WIDTH * (index + 0.5) / len(row) + (80 * (-1) ** number if len(row) == 1 else 0), ROW * (number + 0.5))
        for number, row in enumerate(rows)
        for index, room in enumerate(row)
    }
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {ROW * len(rows)}" font-family="sans-serif" '
        'font-size="13" role="img" aria-label="The rooms of maed and what they import">',
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
        'orient="auto"><path d="M0 0 8 4 0 8z" fill="#7a7a7a"/></marker></defs>',
    ]
    for room, other in sorted(imports([room for row in rows for room in row])):
        (x0, y0), (x1, y1) = place[room], place[other]
        y0, y1 = y0 + HEIGHT / 2, y1 - HEIGHT / 2
        bend = min(90.0, (y1 - y0) / 2)
        aside = 0 if y1 - y0 < ROW else (110 if x0 >= WIDTH / 2 else -110)  # past the boxes between
        lines.append(
            f'<path d="M{x0:.0f} {y0:.0f}C{x0 + aside:.0f} {y0 + bend:.0f} {x1 + aside:.0f} {y1 - bend:.0f} '
            f'{x1:.0f} {y1:.0f}" fill="none" stroke="#7a7a7a" stroke-opacity=".7" marker-end="url(#head)"/>'
        )
    for room, (x, y) in place.items():
        lines.append(
            f'<rect x="{x - BOX / 2:.0f}" y="{y - HEIGHT / 2:.0f}" width="{BOX}" height="{HEIGHT}" rx="6" '
            'fill="#0072B2"/>'
            f'<text x="{x:.0f}" y="{y + 4.5:.0f}" text-anchor="middle" fill="#fff">{room}</text>'
        )
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
    sys.stdout.write(f"wrote {PICTURE}\n")
