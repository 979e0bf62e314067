# SPDX-License-Identifier: Apache-2.0
"""`run.json`: what each start of a run was made of."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from training_helpers import Clips, tiny_trainer

from pcvideo.training.run_facts import starts_of_run


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=Nobody", "-c", "user.email=nobody@example.com"]
    done = subprocess.run(
        ["git", "-C", str(folder), *identity, *arguments], capture_output=True, text=True, check=True
    )  # fmt: skip
    return done.stdout.strip()


def start(run_dir: Path, step: int = 0) -> list[dict[str, Any]]:
    return starts_of_run(run_dir, torch.device("cpu"), step=step)


def test_a_run_tells_its_command_versions_machine_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "pcvideo", "train", "--data", "my clips"])
    before = datetime.now(UTC).replace(microsecond=0)
    tiny_trainer(tmp_path, steps=1, seed=7).fit(Clips())
    facts = json.loads((tmp_path / "run.json").read_text())
    [first] = facts["starts"]
    assert facts["settings"]["seed"] == 7
    assert first["versions"]["torch"] == torch.__version__
    assert first["versions"]["python"] == platform.python_version()
    assert first["machine"]["processor"]
    assert first["command"].endswith(" -m pcvideo train --data 'my clips'")
    assert before <= datetime.fromisoformat(first["time"]) <= datetime.now(UTC)


def test_a_run_that_goes_on_adds_its_start_to_those_before(tmp_path: Path) -> None:
    tiny_trainer(tmp_path, steps=2).fit(Clips())
    tiny_trainer(tmp_path, steps=3).fit(Clips(), resume="auto")
    starts = json.loads((tmp_path / "run.json").read_text())["starts"]
    assert [each["step"] for each in starts] == [0, 2]


def test_the_revision_of_the_directory_says_whether_files_were_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "train.py").write_text("one")
    git(tmp_path, "add", "train.py")
    git(tmp_path, "commit", "-qm", "Begin")
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path / "runs")
    commit = git(tmp_path, "rev-parse", "HEAD")
    # A new file, such as the run's own, is no change of the code.
    (tmp_path / "runs" / "log.csv").write_text("step")
    assert start(tmp_path)[-1]["git"]["directory"] == {"commit": commit, "dirty": False}
    (tmp_path / "train.py").write_text("two")
    assert start(tmp_path)[-1]["git"]["directory"] == {"commit": commit, "dirty": True}


def test_without_git_or_a_checkout_there_is_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert start(tmp_path)[-1]["git"]["directory"] is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert start(tmp_path)[-1]["git"] == {"pcvideo": None, "directory": None}


@pytest.mark.parametrize("content", ["", "{", "[]", '{"starts": 3}', "{}"])
def test_a_broken_record_of_earlier_starts_keeps_no_run_from_going_on(content: str, tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(content)
    assert [each["step"] for each in start(tmp_path, step=4)] == [4]
