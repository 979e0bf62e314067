# SPDX-License-Identifier: Apache-2.0
"""What is public, as text: every name in an `__all__` with its signature. `python tests/update_api_surface.py` rewrites
`tests/api_surface.json`, whose diff is then the review of the change.

Public are also the keys of a config (the constructor's arguments), of a state dict, and the command line's flags.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pcvideo

SURFACE = Path(__file__).with_name("api_surface.json")
COMMAND = "python tests/update_api_surface.py"
_SPECIAL = ("__call__", "__getitem__", "__iter__", "__len__")


def describe_package() -> dict[str, Any]:
    """The whole surface: module -> name -> description."""
    modules = [importlib.import_module(f"pcvideo.{name}") for name in _public_modules()]
    surface = describe_modules([*modules, pcvideo])
    surface["state dict of MSPN(in_channels=1, levels=2, channels=(2, 3, 4), hidden_channels=5)"] = _tensor_names()
    surface["pcvideo on the command line"] = dict(_flags())
    return surface


def describe_modules(modules: list[ModuleType]) -> dict[str, Any]:
    """Module -> name -> description; what a module hands on from an earlier one is `= place of its description`."""
    homes: dict[int, str] = {}
    for module in modules:
        for name in module.__all__:
            if inspect.isclass(value := getattr(module, name)) or inspect.isroutine(value):
                homes.setdefault(id(value), f"{module.__name__}.{name}")
    surface: dict[str, Any] = {}
    for module in modules:
        surface[module.__name__] = {}
        for name in sorted(module.__all__):
            value, here = getattr(module, name), f"{module.__name__}.{name}"
            home = homes.get(id(value), here)
            surface[module.__name__][name] = describe(value, homes) if home == here else f"= {home}"
    return surface


def describe(value: Any, homes: Mapping[int, str]) -> Any:
    """A name's description: a line, or for a class its constructor, bases, methods, properties and attributes."""
    if inspect.isclass(value):
        return _describe_class(value, homes)
    if inspect.isroutine(value):
        return f"def {_signature(value)}"
    if isinstance(value, Mapping | frozenset | set):
        return f"{type(value).__name__} of {', '.join(sorted(map(str, value)))}"
    # A module has its own description; the version is public, and meant to change.
    return type(value).__name__ if inspect.ismodule(value) or isinstance(value, str | int | float) else _stable(value)


def _describe_class(kind: type, homes: Mapping[int, str]) -> dict[str, Any]:
    members: dict[str, str] = {}
    # What a public base class has stands in that class's own description.
    own = [base for base in _our_bases(kind) if base is kind or id(base) not in homes]
    for base in reversed(own):
        for name, value in vars(base).items():
            line = _describe_member(base, name, value)
            if line is not None:
                members[name] = line
    bases = [homes.get(id(base), base.__name__) for base in kind.__bases__ if base is not object]
    return {"class": f"({', '.join(bases)})", "constructor": _constructor(kind), "members": members}


def _describe_member(kind: type, name: str, value: Any) -> str | None:
    """One line on a public member, or None for what is private or told elsewhere."""
    fields = getattr(kind, "_fields", ()) or [field.name for field in _dataclass_fields(kind)]
    if name in fields or (name.startswith("_") and name not in _SPECIAL):
        return None
    if isinstance(value, property):
        return f"property -> {_annotation(inspect.get_annotations(value.fget).get('return', '?'))}"  # type: ignore[arg-type]
    if isinstance(value, classmethod | staticmethod):
        return f"{type(value).__name__} {_signature(value.__func__)}"
    if inspect.isroutine(value):
        return f"def {_signature(value)}"
    return f"attribute = {_stable(value)}"


def _constructor(kind: type) -> str:
    """The constructor's signature, where one of our classes wrote it."""
    ours = [base for base in _our_bases(kind) if not getattr(base, "_is_protocol", False)]
    if not any({"__init__", "__new__"} & vars(base).keys() for base in ours):
        return "inherited"
    # Python's versions differ in what they say a constructor returns.
    return _signature(kind).removesuffix(" -> None")


def _signature(function: Any) -> str:
    """`(name: annotation = default, *, ...) -> annotation`, the same in every version of Python."""
    signature = inspect.signature(function)
    parts, separated = [], False
    for parameter in signature.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not separated:
            parts.append("*")
        separated |= parameter.kind in {parameter.KEYWORD_ONLY, parameter.VAR_POSITIONAL}
        stars = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        text = stars + parameter.name
        text += "" if parameter.annotation is parameter.empty else f": {_annotation(parameter.annotation)}"
        text += "" if parameter.default is parameter.empty else f" = {_stable(parameter.default)}"
        parts.append(text)
    result = signature.return_annotation
    return f"({', '.join(parts)})" + ("" if result is signature.empty else f" -> {_annotation(result)}")


def _annotation(annotation: Any) -> str:
    if isinstance(annotation, str):
        return annotation
    if isinstance(annotation, typing.ForwardRef):
        return annotation.__forward_arg__
    return annotation.__qualname__ if isinstance(annotation, type) else _stable(annotation)


def _stable(value: Any) -> str:
    """`repr` without memory addresses and without what changes from one run to the next."""
    if inspect.isroutine(value) or inspect.isclass(value):
        return value.__qualname__
    if isinstance(value, frozenset | set):
        return f"{type(value).__name__}({sorted(map(repr, value))})"
    if isinstance(value, Path):
        return f"Path({value.as_posix()!r})"
    return re.sub(r" (object )?at 0x[0-9a-fA-F]+", "", repr(value))


def _dataclass_fields(kind: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()


def _our_bases(kind: type) -> list[type]:
    """The class and those of its bases that come from the same package."""
    package = kind.__module__.split(".")[0]
    return [base for base in kind.__mro__ if base.__module__.split(".")[0] == package]


def _public_modules() -> list[str]:
    names = [module.name for module in pkgutil.iter_modules(pcvideo.__path__) if not module.name.startswith("_")]
    return sorted(set(names) - {"cli"})


def _tensor_names() -> list[str]:
    model = pcvideo.MSPN(in_channels=1, levels=2, channels=(2, 3, 4), hidden_channels=5)
    return [f"{name} {tuple(tensor.shape)}" for name, tensor in model.state_dict().items()]


def _flags() -> Iterator[tuple[str, Any]]:
    """Every command with its flags and their defaults, where there is a command line."""
    if not any(module.name == "cli" for module in pkgutil.iter_modules(pcvideo.__path__)):
        return
    parser = importlib.import_module("pcvideo.cli.main").build_parser()
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    for name, command in sorted(commands.choices.items()):
        actions = [action for action in command._actions if not isinstance(action, argparse._HelpAction)]
        yield name, {", ".join(action.option_strings) or action.dest: _flag(action) for action in actions}


def _flag(action: argparse.Action) -> str:
    values = {None: "one value", 0: "no value"}.get(action.nargs, f"values: {action.nargs}")  # type: ignore[call-overload]
    choices = f" of {', '.join(map(str, action.choices))}" if action.choices is not None else ""
    return f"{values}{choices}, default {_stable(action.default)}"


def as_text(surface: Mapping[str, Any]) -> str:
    """The surface as it stands in the file."""
    return json.dumps(surface, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    SURFACE.write_text(as_text(describe_package()), encoding="utf-8")
