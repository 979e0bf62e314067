# SPDX-License-Identifier: Apache-2.0
"""A cell of the user's own in a predictor of the user's own: the example runs, and keeps every promise."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from model_contract import PredictorContract

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "own_cell.py"


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE), run_name="own_cell")


class TestOwnCell(PredictorContract):
    channels = 1
    multiple = 4
    backend = None

    def make(self):
        return runpy.run_path(str(EXAMPLE), run_name="own_cell")["OpenForgetPredictor"](widths=(3, 4, 5))


def test_the_cell_updates_with_its_forget_gate_shifted(example):
    cell = example["OpenForgetCell"](
        forget_bias=1.5, in_channels=2, hidden_channels=1, image_channels=1, channels=(2, 3)
    )
    gates, before = np.array([0.3, -0.7, 0.2, 0.9]), 0.8
    state = cell.init_state(torch.zeros(1, 2, 1, 1, dtype=torch.float64))
    state = cell.update(
        torch.from_numpy(gates).view(1, 4, 1, 1), state._replace(cell=torch.full_like(state.cell, before))
    )
    i, f, o = 1 / (1 + np.exp(-np.array([gates[0], gates[1] + 1.5, gates[2]])))
    expected = f * before + i * np.tanh(gates[3])
    assert state.cell.item() == pytest.approx(expected, rel=1e-12)
    assert state.hidden.item() == pytest.approx(o * np.tanh(expected), rel=1e-12)


def test_the_example_trains_saves_loads_and_predicts(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--steps", "11", "--out", str(tmp_path / "own")])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    losses = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines() if line.startswith("step")]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    config = json.loads((tmp_path / "own" / "config.json").read_text())
    assert config["model"] == "OpenForgetPredictor"
    assert config["config"] == {"in_channels": 1, "widths": [8, 16, 32], "forget_bias": 1.0}
    # Loaded in another interpreter, as far as it knows: the class is defined anew.
    model = example["OpenForgetPredictor"].from_pretrained(tmp_path / "own")
    fresh = example["OpenForgetPredictor"]()
    assert model.widths == (8, 16, 32)
    assert not torch.equal(model.cells[0].to_image.weight, fresh.cells[0].to_image.weight)
