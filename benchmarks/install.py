"""What an installation brings: packages and MiB of the base, and what each extra adds, of what is installed here.

    python benchmarks/install.py

Follows the declared requirements from package to package, as pip would; an extra that is not installed here in full is
marked. torch and the libraries that its wheels ask for are counted on their own.
"""

from __future__ import annotations

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from tomllib import loads

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]


def closure(requirements: list[str]) -> tuple[dict[str, Distribution], set[str]]:
    """The distributions that requirements lead to, and the names of those that are not installed."""
    found: dict[str, Distribution] = {}
    absent: set[str] = set()
    seen: set[tuple[str, str]] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        for extra in ("", *asked.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            if name == "maed":
                waiting += map(Requirement, PROJECT["optional-dependencies"].get(extra, []))
                continue
            try:
                found[name] = distribution(name)
            except PackageNotFoundError:
                absent.add(name)
                continue
            for text in found[name].requires or []:
                further = Requirement(text)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    waiting.append(further)
    return found, absent


def mebibytes(packages: dict[str, Distribution]) -> float:
    """What their files take."""
    sizes = (file.size or 0 for package in packages.values() for file in package.files or [])
    return sum(sizes) / 2**20


def main() -> None:
    """Print the table."""
    torch, _ = closure(["torch"])
    base, absent = closure(PROJECT["dependencies"])
    print(f"torch: {len(torch)} packages, {mebibytes(torch):.0f} MiB")
    own = {name: package for name, package in base.items() if name not in torch}
    print(f"base without torch: {len(own)} packages, {mebibytes(own):.0f} MiB {sorted(absent) or ''}")
    for extra, requirements in PROJECT["optional-dependencies"].items():
        found, absent = closure(requirements)
        added = {name: package for name, package in found.items() if name not in base}
        print(f"{extra}: {len(added)} more, {mebibytes(added):.0f} MiB {sorted(absent) or ''}")


if __name__ == "__main__":
    main()
