# SPDX-License-Identifier: Apache-2.0
"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch

from pcvideo.cli.main import build_parser

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def test_the_python_code_runs_from_top_to_bottom_and_gives_what_it_says():
    names: dict = {}
    for block in blocks("python"):
        exec(block, names)
    assert names["future"].shape == (10, 1, 64, 64)
    assert float(names["future"].min()) >= 0
    assert float(names["future"].max()) <= 1
    assert names["upcoming"].shape == (1, 64, 64)
    assert names["further"].shape == (5, 1, 64, 64)
    # The stream has seen what `predict` was given.
    torch.testing.assert_close(names["upcoming"], names["future"][0], rtol=0, atol=1e-5)


def commands() -> list[str]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [line.split("&&")[-1].strip() for line in lines if "pcvideo " in line.split("&&")[-1]]


@pytest.mark.parametrize("command", commands())
def test_every_command_is_one_that_the_command_line_knows(command):
    build_parser().parse_args(shlex.split(command)[1:])
