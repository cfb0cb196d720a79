"""The registry of verbs, their parser, and the arguments that several of them share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

from maed.errors import MaedError, nearest
from maed.presets import COMPARED, plainly, read_preset
from maed.records import RENAMED
from maed.settings import CHOSEN_BY_NAME, Settings

Do = Callable[[Namespace, str], None]
"""A verb's function, called with its arguments and the command line that results.json records."""


class Parser(ArgumentParser):
    """Errors are one line that names what was wrong, and the nearest name."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise a one-line `MaedError`."""
        raise MaedError(one_line(message, self))

    def format_help(self) -> str:
        """The help, without the line of jsonargparse that only says that verbs follow."""
        return re.sub(r"\n *Available subcommands:\n *\(required\)", "", super().format_help())


class Preset(ActionConfigFile):
    """`--config NAME|FILE`: settings from a preset of the package or from a YAML file; flags win over it."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Apply the preset, without the keys that this verb does not have."""
        content = read_preset(str(values))
        compares = set(COMPARED) <= {action.dest for action in parser._actions}
        kept = {key: value for key, value in content.items() if compares or key not in COMPARED}
        ActionConfigFile.apply_config(parser, namespace, self.dest, yaml.safe_dump(kept))


@dataclass(frozen=True)
class Verb:
    """One verb of the command line.

    Args:
        text: One sentence on what the verb does, for --help.
        add: The function that adds its arguments to its parser.
        do: The function that does it.
        extras: Extras of the package that the verb needs.
    """

    text: str
    add: Callable[[Parser], None]
    do: Do
    extras: tuple[str, ...] = ()


VERBS: dict[str, Verb] = {}
"""Verbs by name, in the order of --help."""


def verb(name: str, text: str, add: Callable[[Parser], None], *extras: str) -> Callable[[Do], Do]:
    """Register a function as what a verb does, and the extras that it needs."""

    def register(do: Do) -> Do:
        VERBS[name] = Verb(text, add, do, extras)
        return do

    return register


def usage(parser: Parser) -> str:
    """The verb, what it must be given and its own options; the settings are listed below, not here."""
    words = [parser.prog]
    for action in parser._actions:
        if not action.option_strings:
            words.append(f"[{action.metavar}]" if action.nargs in ("?", "*") else str(action.metavar))
        elif "." not in action.dest and action.dest != "help":
            shown = " ".join(filter(None, (action.option_strings[0], action.metavar)))
            words.append(shown if getattr(action, "required", False) else f"[{shown}]")
    if any("." in action.dest for action in parser._actions):
        words.append("[--GROUP.SETTING VALUE ...]")
    return " ".join(words)


def one_line(message: str, parser: ArgumentParser) -> str:
    """Jsonargparse's message as one line, with the nearest option or verb where a name was not known."""
    text = plainly(message)
    found = re.search(r"nrecognized arguments: (\S+)", text)
    if found is None:
        return text
    unknown = found[1].split("=")[0]
    if (new := RENAMED.get(unknown.removeprefix("--"))) is not None:
        return f"{unknown}: is now called --{new}"
    if not unknown.startswith("-"):
        return f"{unknown!r}: unexpected argument; `--help` lists those that the verb takes"
    return f"{unknown}: unknown option{nearest(unknown, parser._option_string_actions)} (`--help` lists all)"


def settings_arguments(parser: Parser, *, source: bool | str = True, run: bool = True) -> None:
    """The arguments that the verbs of the walk share."""
    if source:
        from maed.data.source import listed

        optional: dict[str, Any] = {} if source is True else {"nargs": "?", "default": source}
        parser.add_argument("source", type=str, metavar="SOURCE", help=listed(), **optional)
    parser.add_argument("--out", type=str | None, metavar="DIR", help="output folder", default=None)
    if run:
        parser.add_argument(
            "--run", type=str | None, metavar="DIR", help="folder with the earlier stages; default: --out", default=None
        )
    parser.add_argument(
        "--config", action=Preset, metavar="NAME|FILE", help="preset, or YAML file of settings; flags override it"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace stages made with other settings")
    parser.add_class_arguments(Settings, as_group=False)
    for name, registry in CHOSEN_BY_NAME.items():
        parser._option_string_actions[f"--{name}"].metavar = f"{{{','.join(registry.names)}}}"
    for group in Settings.__dataclass_fields__:
        _remove_bare(parser, group)


def settings_group(parser: Parser, settings: type, group: str, names: set[str] | None = None) -> None:
    """The arguments of a group of settings; of those with these `names`, if given."""
    skip = set() if names is None else set(settings.__dataclass_fields__) - names  # type: ignore[attr-defined]
    parser.add_class_arguments(settings, group, skip=skip)
    _remove_bare(parser, group)


def _remove_bare(parser: Parser, group: str) -> None:
    """A group is set by its members: `--data FILE` would be one more way to say `--config`."""
    action = parser._option_string_actions.pop(f"--{group}")
    parser._actions.remove(action)
    for shown in parser._action_groups:
        if action in shown._group_actions:
            shown._group_actions.remove(action)
