# SPDX-License-Identifier: Apache-2.0
"""One table of settings gives the flags of a command, the keys of its configuration file, the checks and the defaults.

A value comes from the first of these that has it: the flag, the configuration file, what an earlier run left, the
default.
"""

from __future__ import annotations

import argparse
import inspect
import json
import tomllib
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcvideo._checks import check_choice, check_int, check_keys, check_number, describe

__all__ = ["Setting", "add_settings", "constructor_settings", "read_config_file", "resolve"]


@dataclass(frozen=True)
class Setting:
    """A flag and a key of the configuration file.

    Args:
        name: the key; the flag has dashes for its underscores.
        kind: one of "int", "float", "text", "flag" (--x and --no-x), "ints", "int_or_ints", "texts", "size" (H W),
            "weights" (words, or numbers), "schedule" (a number; numbers; or a word and a number) or "rates"
            (PATTERN=FACTOR; in a file an object).
        default: where nothing is said; None stands for "not given", and is then allowed in a file as null.
        help: for the flag.
        choices: the only values there are.
        group: title in the help text.
    """

    name: str
    kind: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    group: str = ""

    @property
    def flag(self) -> str:
        """The flag."""
        return "--" + self.name.replace("_", "-")

    def check(self, value: Any) -> Any:
        """The value in its own type.

        Raises:
            TypeError, ValueError: it is of another kind; the message names the setting.
        """
        if value is None:
            if self.default is not None:
                raise TypeError(f"{self.name} must be given a value, got null; leave it out for {self.default!r}")
            return None
        value = _CHECKS[self.kind](self.name, value)
        return check_choice(self.name, value, self.choices) if self.choices else value


class _Given(argparse.Action):
    """Store the value, and remember that the flag was given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values)
        namespace.given = namespace.given | {self.dest}


class _GivenFlag(argparse.BooleanOptionalAction):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        super().__call__(parser, namespace, values, option_string)
        namespace.given = namespace.given | {self.dest}


def add_settings(parser: argparse.ArgumentParser, settings: Iterable[Setting]) -> None:
    """Add a flag for each setting, in groups."""
    groups: dict[str, Any] = {}
    parser.set_defaults(given=frozenset())
    for setting in settings:
        if setting.group not in groups:
            groups[setting.group] = parser.add_argument_group(setting.group) if setting.group else parser
        text = setting.help.replace("%", "%%")
        if setting.default not in (None, False, ()):
            shown = setting.default if not isinstance(setting.default, tuple) else " ".join(map(str, setting.default))
            text += f" (default: {shown})"
        options: dict[str, Any] = {"dest": setting.name, "default": setting.default, "help": text}
        if setting.kind == "flag":
            options["action"] = _GivenFlag
        else:
            options |= {"action": _Given, "type": _PARSERS[setting.kind], "metavar": _METAVARS[setting.kind]}
            options |= {"nargs": _NARGS[setting.kind]} if setting.kind in _NARGS else {}
            options |= {"choices": setting.choices, "metavar": None} if setting.choices else {}
        groups[setting.group].add_argument(setting.flag, **options)


def constructor_settings(
    kind: type, defaults: Mapping[str, Any], help_texts: Mapping[str, str], *, group: str
) -> list[Setting]:
    """Settings for the arguments of a constructor; a default of None means that of the constructor."""
    hints = typing.get_type_hints(kind.__init__)  # type: ignore[misc]
    names = list(inspect.signature(kind.__init__).parameters)[1:]  # type: ignore[misc]
    kinds = {int: "int", bool: "flag", float: "float", Sequence[int]: "ints", Sequence[int] | None: "ints"}
    return [
        Setting(name, kinds.get(hints[name], "text"), defaults.get(name), help_texts.get(name, ""), group=group)
        for name in names
    ]


def read_config_file(path: str | Path) -> dict[str, Any]:
    """The keys of a JSON or TOML file, with underscores for dashes.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is neither JSON nor TOML, by its suffix, or is broken.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file (looked for it in {path.absolute().parent})")
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix.lower() == ".toml":
            values: Any = tomllib.loads(text)
        elif path.suffix.lower() == ".json":
            values = json.loads(text)
        else:
            raise ValueError("its name must end in .json or .toml")
    except (ValueError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{path} can't be read as a configuration: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold one object of settings, got {describe(values)}")
    return {name.replace("-", "_"): value for name, value in values.items()}


def resolve(
    settings: Sequence[Setting], arguments: argparse.Namespace, files: Iterable[tuple[str, Mapping[str, Any]]]
) -> dict[str, Any]:
    """The value of every setting.

    Args:
        settings: the table.
        arguments: the parsed flags.
        files: (what it is, its values), the one that counts more last.

    Raises:
        ValueError, TypeError: an unknown key, with the nearest known one, or a value of another kind.
    """
    known = {setting.name: setting for setting in settings}
    values = {name: setting.default for name, setting in known.items()}
    for what, content in files:
        check_keys(what, content, list(known))
        values |= content
    values |= {name: getattr(arguments, name) for name in arguments.given}
    return {name: known[name].check(value) for name, value in values.items()}


def _check_text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a text, got {describe(value)}")
    return value


def _check_flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be true or false, got {describe(value)}")
    return value


def _check_ints(name: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a list of whole numbers, got {describe(value)}")
    return tuple(check_int(f"{name}[{index}]", item) for index, item in enumerate(value))


def _check_int_or_ints(name: str, value: Any) -> int | tuple[int, ...]:
    """One number, or several; a flag gives both as a list."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return check_int(name, value, minimum=0)
    return value[0] if len(value) == 1 else _check_ints(name, value)


def _check_texts(name: str, value: Any) -> tuple[str, ...]:
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, Sequence):
        raise TypeError(f"{name} must be a list of texts, got {describe(value)}")
    return tuple(_check_text(f"{name}[{index}]", item) for index, item in enumerate(items))


def _check_size(name: str, value: Any) -> tuple[int, ...]:
    size = _check_ints(name, value)
    if len(size) != 2:
        raise ValueError(f"{name} must be a height and a width, got {describe(value)}")
    return size


def _check_weights(name: str, value: Any) -> str | tuple[float, ...]:
    """A word, or numbers; a flag gives both as a list of texts."""
    if isinstance(value, str):
        return value
    if not isinstance(value, Sequence):
        raise TypeError(f"{name} must be a word or a list of numbers, got {describe(value)}")
    if len(value) == 1 and isinstance(value[0], str):
        return value[0]
    return tuple(check_number(f"{name}[{index}]", item) for index, item in enumerate(value))


def _check_schedule(name: str, value: Any) -> float | tuple[float | str, ...]:
    """A number, or a list of numbers whose first one may be a word."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        return check_number(name, value)
    items = tuple(
        item if isinstance(item, str) and index == 0 else check_number(f"{name}[{index}]", item)
        for index, item in enumerate(value)
    )
    return items[0] if len(items) == 1 and isinstance(items[0], float) else items


def _check_rates(name: str, value: Any) -> dict[str, float]:
    """Factors by pattern; a flag gives them as a list of PATTERN=FACTOR."""
    if isinstance(value, Mapping):
        return {pattern: check_number(f"{name}[{pattern!r}]", factor, minimum=0) for pattern, factor in value.items()}
    rates = {}
    for item in _check_texts(name, value):
        pattern, equals, factor = item.rpartition("=")
        try:
            rates[pattern] = check_number(f"{name}[{pattern!r}]", float(factor), minimum=0)
        except ValueError as error:
            raise ValueError(f"{name} must be PATTERN=FACTOR, such as 'cells.0=0.1', got {item!r} ({error})") from error
        if not pattern or not equals:
            raise ValueError(f"{name} must be PATTERN=FACTOR, such as 'cells.0=0.1', got {item!r}")
    return rates


def _number_or_word(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _optional_float(text: str) -> float | None:
    # "none" takes back what a configuration file says.
    return None if text.lower() == "none" else float(text)


_optional_float.__name__ = "float"

_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "int": lambda name, value: check_int(name, value, minimum=0),
    "float": check_number,
    "text": _check_text,
    "flag": _check_flag,
    "ints": _check_ints,
    "int_or_ints": _check_int_or_ints,
    "texts": _check_texts,
    "size": _check_size,
    "weights": _check_weights,
    "schedule": _check_schedule,
    "rates": _check_rates,
}
_PARSERS: Mapping[str, Callable[[str], Any]] = {
    "int": int,
    "float": _optional_float,
    "text": str,
    "ints": int,
    "int_or_ints": int,
    "texts": str,
    "size": int,
    "weights": _number_or_word,
    "schedule": _number_or_word,
    "rates": str,
}
_NARGS: Mapping[str, Any] = {
    "ints": "+",
    "int_or_ints": "+",
    "texts": "+",
    "size": 2,
    "weights": "+",
    "schedule": "+",
    "rates": "+",
}
_METAVARS: Mapping[str, Any] = {
    "int": "N",
    "float": "X",
    "text": "TEXT",
    "ints": "N",
    "int_or_ints": "N",
    "texts": "GLOB",
    "size": ("H", "W"),
    "weights": "X",
    "schedule": "X",
    "rates": "PATTERN=FACTOR",
}
