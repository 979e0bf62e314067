# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: help, version, errors, the list of weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import pcvideo
from pcvideo.cli._common import in_flags
from pcvideo.cli.main import build_parser, main

COMMANDS = ("predict", "train", "evaluate", "models", "filter")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_examples_that_parse(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    text = capsys.readouterr().out
    examples = [line.strip() for line in text.partition("examples:")[2].splitlines() if line.strip()]
    assert examples
    for line in examples:
        words = line.replace("'", "").split()
        assert words[:2] == ["pcvideo", command]
        build_parser().parse_args(words[1:])


def test_an_unknown_flag_is_one_line_with_the_nearest_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["predict", "clip.mp4", "--horizn", "3"])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert "did you mean '--horizon'?" in said
    assert said.count("\n") == 1


def test_flags_are_not_abbreviated(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["predict", "--hor", "3"])
    assert "--hor" in capsys.readouterr().err


def test_an_error_is_one_line_and_its_place_is_shown_on_request(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    call = ["predict", "--model", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(call) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        main([*call, "--traceback"])
    monkeypatch.setenv("PCVIDEO_TRACEBACK", "1")
    with pytest.raises(FileNotFoundError, match="holds no weights"):
        main(call)


def test_the_mends_of_python_are_told_as_flags() -> None:
    assert in_flags("expected C=1; predict(..., to_grey=True) converts").endswith("--to-grey) converts")
    assert in_flags('on_error="skip" leaves out') == "--on-error skip leaves out"
    assert in_flags("use predict(..., nan='repair')") == "use --nan repair)"
    assert in_flags("batch_size=8 is more than") == "--batch 8 is more than"


def test_python_m_pcvideo_is_the_command_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pcvideo", "--version"], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"pcvideo {pcvideo.__version__}\n", "")
