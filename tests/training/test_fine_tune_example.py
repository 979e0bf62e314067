# SPDX-License-Identifier: Apache-2.0
"""`examples/fine_tune.py` does what it says: other channels, frozen parts, rates by part, and a run that goes on."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest
from training_helpers import read_log

import pcvideo

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "fine_tune.py"


@pytest.mark.slow
def test_the_example_fine_tunes_built_in_weights_on_colour_tensors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main = runpy.run_path(str(EXAMPLE), run_name="fine_tune")["main"]
    run = tmp_path / "run"
    future = main(None, (32, 32), 2, str(run))
    assert future.shape == (10, 3, 32, 32)
    assert "in_channels 1 -> 3" in capsys.readouterr().out
    assert {step for step, name, _ in read_log(run) if name == "loss"} == {1, 2}
    before = pcvideo.from_pretrained("mspn-moving-mnist").state_dict()
    after = pcvideo.from_pretrained(run / "best").state_dict()
    moved = {name for name in before if before[name].shape == after[name].shape and not before[name].equal(after[name])}
    frozen = {name for name in before if name.startswith("cells.1.codec.encoders")}
    assert frozen
    assert not moved & frozen
    change = {
        part: max(float((after[name] - before[name]).abs().max()) for name in moved if name.startswith(part))
        for part in ("cells.0.codec.encoders", "cells.0.codec.decoders")
    }
    # Adam's first steps are of the size of the learning rate, whatever the gradient.
    assert change["cells.0.codec.encoders"] < 0.2 * change["cells.0.codec.decoders"]
    assert list((run / "pictures").glob("*.gif"))
    # Called again with more steps, it goes on.
    main(None, (32, 32), 3, str(run))
    assert {step for step, name, _ in read_log(run) if name == "loss"} == {1, 2, 3}
