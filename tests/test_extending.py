"""What people who extend the package are told: the examples as an installed plug-in, the picture of the rooms."""

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from plug_ins import fresh, install

DOCS = Path(__file__).parents[1] / "docs"
PAGE = (DOCS / "extending.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_examples_are_a_plug_in_that_works(tmp_path: Path) -> None:
    *parts, use = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    (table,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    points = tomllib.loads(table)["project"]["entry-points"]
    kinds = {
        group.removeprefix("maed."): {name: found.replace("my_package:", "theirs:") for name, found in names.items()}
        for group, names in points.items()
    }
    site = install(tmp_path / "site", "\n".join(parts), kinds)
    program = f"import os; os.chdir({str(tmp_path)!r})\n{use}"
    done = fresh(["-W", "ignore", "-c", program], site)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "spiral" / "models" / "brier-binary-0" / "metrics.json").is_file()


def test_the_picture_of_the_rooms_is_that_of_the_code() -> None:
    pytest.importorskip("grimp")
    place = importlib.util.spec_from_file_location("rooms", DOCS / "rooms.py")
    assert place is not None
    assert place.loader is not None
    rooms = importlib.util.module_from_spec(place)
    place.loader.exec_module(rooms)
    assert rooms.PICTURE.read_text(encoding="utf-8") == rooms.picture(), "python docs/rooms.py"
