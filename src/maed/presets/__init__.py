"""Presets: settings in YAML files, of the package or of a user, and what may stand in them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cache
from pathlib import Path
from reprlib import repr as short
from types import NoneType
from typing import Any, get_args, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from maed.errors import MaedError, nearest
from maed.records import RENAMED, RENAMED_VALUES
from maed.settings import Settings

COMPARED = ("positions", "seeds", "task", "labels", "pretrain")
"""Keys of a preset that are no settings but what a comparison compares; only `run` and `compare` have them."""


def preset_path(name: str) -> Path:
    """The YAML file of a preset: a name of `maed/presets`, or a path."""
    folder = Path(__file__).parent
    for path in (folder / f"{name}.yaml", Path(name)):
        if path.is_file():
            return path
    names = sorted(path.stem for path in folder.glob("*.yaml"))
    raise MaedError(
        f"config: {name!r} is neither a preset nor a file{nearest(name, names)} (presets: {', '.join(names)})"
    )


def read_preset(name: str) -> dict[str, Any]:
    """Read the settings of a preset by group; values are not checked yet.

    Returns:
        The settings by group.

    Raises:
        MaedError: No such preset, no YAML, or something in it that is no setting.
    """
    path = preset_path(name)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MaedError(f"config: {path} is not YAML ({str(error).splitlines()[0]})") from None
    except RecursionError:
        raise MaedError(f"config: {path} is nested too deeply; it must hold groups of settings") from None
    if not isinstance(content, dict):
        raise MaedError(f"config: {path} holds no settings; it must hold groups such as `data:` and `train:`")
    _check_keys(content)
    return content


def load(name: str, changes: Mapping[str, Mapping[str, Any]] | None = None) -> Settings:
    """Load the settings of a preset, as `--config` reads them.

    Args:
        name: Name of a preset of the package, such as `cifar10-cpu`, or a YAML file.
        changes: Other settings: `{"train": {"steps": 100}}` is `--train.steps 100`.

    Returns:
        The settings.

    Raises:
        MaedError: No such preset, or something that is no setting or cannot have that value.
    """
    changes = changes or {}
    content = {group: members for group, members in read_preset(name).items() if group not in COMPARED}
    _check_keys(changes)
    for group, members in changes.items():
        content[group] = {**content.get(group, {}), **members}
    parser = _parser()
    try:
        given = parser.instantiate_classes(parser.parse_object(content))
    except ArgumentError as error:
        raise MaedError(plainly(str(error))) from None
    return Settings(**{group: getattr(given, group) for group in Settings.__dataclass_fields__})


@cache
def _parser() -> ArgumentParser:
    """The parser of all settings, built once because that takes longer than reading a preset."""
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Settings, as_group=False)
    return parser


def plainly(message: str) -> str:
    """Rewrite a message of jsonargparse as one plain line."""
    text = " ".join(message.split())
    for pattern, wording in _WORDINGS:
        text = re.sub(pattern, wording, text)
    return text


def _optional(match: re.Match[str]) -> str:
    name, type_, value = match.groups()
    shown = {"list[str]": "a list such as [a,b]", "list[float]": "a list such as [1e-3,3e-3]"}.get(
        type_, "of type " + re.sub(r"<class '(\w+)'>", r"\1", type_)
    )
    return f"{name} must be {shown}, or null, got {value or 'nothing'}"


def _unknown(name: str, choices: str, value: str) -> str:
    """The message of `one_of`; `choices` is a list of quoted names."""
    if (new := RENAMED_VALUES.get((name, value))) is not None:
        return f"{name}: {value!r} is now called {new!r}"
    names = re.findall(r"'([^']*)'", choices)
    kind = "verb" if name == "verb" else "value"
    return f"{name}: unknown {kind} {value!r}{nearest(value, names)} (choose {', '.join(names)})"


_WORDINGS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r'Parser key "([^"]*)": Expected an? typing\.Literal\[(.*?)\]\. Got value: (.*)', lambda m: _unknown(*m.groups())),
    (r'Parser key "([^"]*)": Does not validate .* \[(.*), <class \'NoneType\'>\] .* Given value: ?(.*)', _optional),
    (
        r'Parser key "([^"]*)": Expected a <class \'(\w+)\'>\. Got value: ?(.*)',
        lambda m: f"{m[1]} must be of type {m[2]}, got {m[3] or 'nothing'}",
    ),
    (r'Parser key "([^"]*)":', r"\1:"),
    (r"argument (VERB): invalid choice: '([^']*)' \(choose from (.*)\)", lambda m: _unknown("verb", m[3], m[2])),
    (r"the following arguments are required: \w+\.(\w+)", r"\1 must be given; see --help"),
)
"""Messages of jsonargparse, and ours in their place."""


def _check_keys(content: Mapping[Any, Any]) -> None:
    """Refuse what is no setting, with the nearest name, and null where it is no value: jsonargparse lets it through."""
    defaults = Settings()
    groups = asdict(defaults)
    for group, members in content.items():
        if group in COMPARED:
            continue
        if group not in groups:
            raise MaedError(f"config: unknown setting {group!r}{nearest(str(group), [*groups, *COMPARED])}")
        names = list(groups[group])
        if not isinstance(members, Mapping):
            raise MaedError(f"config: {group} must hold settings such as {names[0]}, got {short(members)}")
        types = get_type_hints(type(getattr(defaults, group)))
        for name, value in members.items():
            if (new := RENAMED.get(f"{group}.{name}")) is not None:
                raise MaedError(f"{group}.{name}: this setting is now called {new}")
            if name not in names:
                raise MaedError(
                    f"config: unknown setting '{group}.{name}'{nearest(str(name), names)} (--help lists all)"
                )
            if value is None and NoneType not in get_args(types[name]):
                raise MaedError(f"{group}.{name} must have a value; the default is {groups[group][name]!r}")
