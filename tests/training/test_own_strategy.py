# SPDX-License-Identifier: Apache-2.0
"""A regime of the user's own: the example runs, says what it logs, and resumes."""

from __future__ import annotations

import inspect
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from training_helpers import read_log, tiny_model

import pcvideo

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_strategy.py"


def test_it_is_one_class_with_one_method_whose_loss_is_its_formula() -> None:
    kind = runpy.run_path(str(EXAMPLE), run_name="own_strategy")["FarFramesCount"]
    assert [name for name, _ in inspect.getmembers(kind, inspect.isfunction) if name in vars(kind)] == ["forward"]
    model, batch = tiny_model().double(), torch.rand(3, 6, 1, 8, 8, dtype=torch.float64)
    loss, logs = kind(context=2, horizon=3).attach(model)(batch)
    errors = ((model(batch[:, :2], 3) - batch[:, 2:5]).detach().numpy() ** 2).mean((0, 2, 3, 4))
    assert loss.item() == pytest.approx(np.average(errors, weights=[1, 2, 3]), rel=1e-12)
    assert logs["last_frame"].item() == pytest.approx(errors[2], rel=1e-12)


def test_the_example_trains_logs_and_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for steps in ("3", "5"):
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--steps", steps, "--out", str(tmp_path / "own")])
        runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert capsys.readouterr().out.count("of copying the last frame") == 2
    rows = read_log(tmp_path / "own")
    assert [step for step, name, _ in rows if name == "last_frame"] == [1, 2, 3, 4, 5]
    assert isinstance(pcvideo.MSPN.from_pretrained(tmp_path / "own" / "best"), pcvideo.MSPN)
