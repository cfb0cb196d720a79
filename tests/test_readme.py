"""The README keeps its promises: its commands parse, its library lines run, its tables are the recorded results."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch

import attention
import bench
import many
import sensors
import torture
import worth
from gallery import ENTRIES, PAGE, page
from geometry_tables import EMPTY, render
from maed import PositionEmbedding
from maed.cli import build_parser
from maed.files import read_json
from maed.records import Results
from maed.report import markdown
from study import read_study

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for block in blocks("sh") for line in block.splitlines() if "maed " in line])
def test_every_command_parses(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    if "--help" in words:
        with pytest.raises(SystemExit) as exit_code:
            build_parser(words[:1]).parse_args(words)
        assert exit_code.value.code == 0
    else:
        assert build_parser(words[:1]).parse_args(words).verb == words[0]


@pytest.mark.slow
@pytest.mark.usefixtures("short_learning")
def test_the_library_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}

    exec(blocks("python")[0], scope)

    saved = PositionEmbedding.from_pretrained("my-positions")
    assert torch.equal(scope["embedding"].vectors, saved.vectors)
    assert (saved.n, saved.dim) == (256, 32)
    assert scope["tokens"].shape == (8, 256, 64)


@pytest.mark.parametrize("path", sorted((ROOT / "results").glob("*.json")), ids=lambda path: path.stem)
def test_the_tables_are_those_of_the_recorded_results(path: Path) -> None:
    if (study := read_study(path)) is not None:
        page = (ROOT / "docs" / f"{path.stem}.md").read_text(encoding="utf-8")
        assert page == render(page, study), f"python benchmarks/{path.stem}.py tables"
    else:
        assert markdown(Results.read(path)).strip() in (ROOT / "docs" / "measured.md").read_text(encoding="utf-8")


def test_the_tables_of_real_sensors_are_the_recorded_ones() -> None:
    text = sensors.PAGE.read_text(encoding="utf-8")
    assert text == sensors.render(text), "python benchmarks/sensors.py docs"


def test_the_table_of_what_runs_survived_is_the_recorded_one() -> None:
    text = torture.PAGE.read_text(encoding="utf-8")
    assert text == torture.render(text), "python benchmarks/torture.py docs"


def test_the_tables_of_what_takes_time_are_the_recorded_ones() -> None:
    text = bench.PAGE.read_text(encoding="utf-8")
    assert text == bench.render(text), "python benchmarks/bench.py docs"


def test_the_tables_of_many_positions_are_the_recorded_ones() -> None:
    text = many.PAGE.read_text(encoding="utf-8")
    assert text == many.render(text), "python benchmarks/many.py docs"


def test_the_tables_of_ways_into_attention_are_the_recorded_ones() -> None:
    text = attention.PAGE.read_text(encoding="utf-8")
    assert text == attention.render(text), "python benchmarks/attention.py docs"


def test_the_tables_of_what_positions_are_worth_are_the_recorded_ones() -> None:
    text = worth.PAGE.read_text(encoding="utf-8")
    assert text == worth.render(text), "python benchmarks/worth.py docs"


def test_each_recorded_set_of_sensors_has_its_map_on_the_page() -> None:
    recorded = {cell["set"] for cell in read_json(sensors.RESULTS)["cells"]} & set(sensors.SETS)
    drawn = {path.stem.removeprefix("sensors-") for path in (sensors.PAGE.parent / "images").glob("sensors-*.png")}
    shown = re.findall(r"\(images/sensors-(\w+)\.png\)", sensors.PAGE.read_text(encoding="utf-8"))
    assert drawn == recorded
    assert sorted(shown) == sorted(recorded)


def test_the_figures_of_the_readme_are_recorded_ones() -> None:
    def rows(text: str) -> dict[tuple[str, str], dict[str, str]]:
        lines = [
            [cell.strip() for cell in line[1:-1].split("|")] for line in text.splitlines() if line.startswith("| ")
        ]
        head = next(index for index, cells in enumerate(lines) if cells[0] == "Study")
        return {(cells[0], cells[1]): dict(zip(lines[head], cells, strict=True)) for cells in lines[head + 2 :]}

    recorded = rows(worth.render(worth.PAGE.read_text(encoding="utf-8")).split("<!-- end curves -->")[0])
    shown = rows(README)
    assert shown
    for key, cells in shown.items():
        found = {column: re.sub(r" \(.*", "", recorded[key][column]) for column in cells}
        assert cells == found


def test_a_reader_is_through_in_two_minutes() -> None:
    assert len(README.splitlines()) < 120
    assert README.count("![") == 1


def test_the_page_of_the_study_says_what_was_not_run() -> None:
    if not (ROOT / "results" / "geometry.json").exists():
        page = (ROOT / "docs" / "geometry.md").read_text(encoding="utf-8")
        assert page == render(page, EMPTY)


def test_the_gallery_is_made_of_its_records() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python benchmarks/gallery.py page"
    assert all(f"maed run {entry.source}" in page() for entry in ENTRIES.values())
