# SPDX-License-Identifier: Apache-2.0
"""A change of any public name or signature shows here, before a user meets it."""

from __future__ import annotations

import difflib
from types import ModuleType
from typing import Any, NamedTuple

import pytest
from update_api_surface import COMMAND, SURFACE, as_text, describe_modules, describe_package

import pcvideo


def test_the_public_surface_is_the_recorded_one() -> None:
    recorded, built = SURFACE.read_text(encoding="utf-8"), as_text(describe_package())
    diff = "\n".join(difflib.unified_diff(recorded.splitlines(), built.splitlines(), "recorded", "built", lineterm=""))
    assert not diff, f"The public surface changed. If it is meant to, run `{COMMAND}` and commit the file.\n{diff}"


def test_every_public_module_names_what_it_has() -> None:
    for module, names in describe_package().items():
        if module.startswith("pcvideo.") or module == "pcvideo":
            assert names, module


def test_the_two_names_that_users_meet_first_are_recorded_whole() -> None:
    surface = describe_package()
    assert surface["pcvideo"]["MSPN"] == "= pcvideo.models.MSPN"
    assert surface["pcvideo.models"]["MSPN"]["constructor"].startswith("(*, in_channels: int, levels: int, channels:")
    assert "horizon: int" in surface["pcvideo.models"]["Predictor"]["members"]["predict"]
    assert set(pcvideo.__all__) == surface["pcvideo"].keys()


def module_with(**names: Any) -> ModuleType:
    module = ModuleType("planted")
    module.__all__ = list(names)  # type: ignore[attr-defined]
    for name, value in names.items():
        setattr(module, name, value)
    return module


def with_default(value: int, *, wide: bool = True) -> int:
    return value


def with_another_default(value: int, *, wide: bool = False) -> int:
    return value


def with_a_new_argument(value: int, *, wide: bool = True, deep: bool = True) -> int:
    return value


def with_an_object(value: object = object()) -> None: ...


class Public:
    size = 1

    def __init__(self, *, width: int) -> None: ...

    def grow(self) -> int:
        return 1

    @property
    def area(self) -> float:
        return 1.0

    def _hidden(self) -> None: ...


class Grown(Public):
    def shrink(self) -> None: ...


class Pair(NamedTuple):
    left: int
    right: str = "x"


@pytest.mark.parametrize("changed", [with_another_default, with_a_new_argument])
def test_a_changed_default_and_a_new_argument_are_seen(changed: Any) -> None:
    before, after = (describe_modules([module_with(function=function)]) for function in (with_default, changed))
    assert before["planted"]["function"] == "def (value: int, *, wide: bool = True) -> int"
    assert after != before


def test_a_class_is_described_by_its_own_public_members_and_its_public_bases() -> None:
    surface = describe_modules([module_with(Public=Public, Grown=Grown, Pair=Pair)])["planted"]
    assert surface["Public"]["members"] == {
        "size": "attribute = 1",
        "grow": "def (self) -> int",
        "area": "property -> float",
    }
    assert surface["Grown"] == {
        "class": "(planted.Public)",
        "constructor": "(*, width: int)",
        "members": {"shrink": "def (self) -> None"},
    }
    assert surface["Pair"]["constructor"] == "(left: int, right: str = 'x')"
    assert surface["Pair"]["members"] == {}


def test_members_of_a_private_base_stand_in_the_public_class() -> None:
    assert "grow" in describe_modules([module_with(Grown=Grown)])["planted"]["Grown"]["members"]


def test_the_text_is_the_same_in_every_run() -> None:
    text = describe_modules([module_with(function=with_an_object)])["planted"]["function"]
    assert text == "def (value: object = <object>) -> None"
