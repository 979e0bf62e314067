# SPDX-License-Identifier: Apache-2.0
"""`pcvideo train --init`: weights as they are, with other numbers, in part; and what is held out of the videos."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from small_clips import moving_square

import pcvideo
from pcvideo import hub
from pcvideo.cli.main import main
from pcvideo.video_io import write_video

SHORT = ["--context", "2", "--horizon", "2", "--batch", "2", "--steps", "2", "--threads", "1", "--pictures", "0"]


def train(*arguments: Any) -> int:
    with mock.patch("pcvideo.cli.train.loss_curve"):
        return main(["train", *map(str, arguments)])


def figures(run: Path) -> dict[str, Any]:
    return json.loads((run / "metrics.json").read_text())["protocols"]["standard"]


def tensors(folder: str | Path) -> dict[str, torch.Tensor]:
    return dict(hub.from_pretrained(folder).state_dict())


def test_one_command_fine_tunes_built_in_grey_weights_on_a_folder_of_colour_videos(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, videos: Path
) -> None:
    run = tmp_path / "run"
    assert train("--init", "mspn-moving-mnist", "--data", videos, *SHORT, "--run-dir", run) == 0
    said = capsys.readouterr()
    assert "resized to 64x64, which mspn-moving-mnist learnt at" in said.err
    assert "colour videos are made grey" in said.err
    # One of three videos is held out, and twelve windows of the others are left.
    assert "validated on thanks, which nothing is trained on" in said.err
    assert "12 clips to train on" in said.err
    assert all(word in said.out for word in ("trained", "start", "copy-last"))
    standard = figures(run)
    assert standard["metrics"]["mse"] != standard["start"]["mse"]
    assert json.loads((run / "config-resolved.json").read_text())["size"] == [64, 64]


def test_grey_weights_are_made_colour_and_what_was_carried_over_is_told_by_name(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, grey_model: str, videos: Path
) -> None:
    run = tmp_path / "run"
    call = ["--init", grey_model, "--in-channels", 3, "--data", videos, *SHORT, "--lr", 0, "--run-dir", run]
    assert train(*call) == 0
    said = capsys.readouterr().err
    assert "in_channels 1 -> 3" in said
    assert "adapted (6): cells.0.codec.stem.weight" in said
    expected = pcvideo.adapt(hub.from_pretrained(grey_model), {"in_channels": 3}).model.state_dict()
    trained = tensors(run / "best")
    # Nothing is learnt at a learning rate of 0, and the start is scored as it was.
    assert all(torch.equal(trained[name], expected[name]) for name in expected)
    assert figures(run)["metrics"]["mse"] == figures(run)["start"]["mse"]


def test_fresh_parts_of_the_start_are_the_same_when_it_is_scored(
    tmp_path: Path, colour_model: str, videos: Path
) -> None:
    run = tmp_path / "run"
    call = ["--init", colour_model, "--patch", 2, "--data", videos, *SHORT, "--lr", 0, "--seed", 3, "--run-dir", run]
    assert train(*call) == 0
    assert figures(run)["metrics"]["mse"] == figures(run)["start"]["mse"]


def test_frozen_parts_stay_and_rates_apply_to_parts(tmp_path: Path, colour_model: str, videos: Path) -> None:
    run = tmp_path / "run"
    parts = ["--freeze", "cells.1", "*.bias", "--rate", "cells.0.codec.encoders=0", "cells.0=0.5"]
    assert train("--init", colour_model, "--data", videos, *SHORT, *parts, "--run-dir", run) == 0
    before, after = tensors(colour_model), tensors(run / "best")
    still = {name for name in before if torch.equal(before[name], after[name])}
    expected = {
        name
        for name in before
        if name.startswith(("cells.1.", "cells.0.codec.encoders.")) or name.endswith(".bias")
    }  # fmt: skip
    assert still == expected
    saved = json.loads((run / "config-resolved.json").read_text())
    assert saved["rate"] == {"cells.0.codec.encoders": 0.0, "cells.0": 0.5}


def test_a_pattern_that_fits_nothing_is_refused_with_the_nearest_names(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, colour_model: str, videos: Path
) -> None:
    call = ["--init", colour_model, "--data", videos, *SHORT, "--run-dir", tmp_path / "run"]
    assert train(*call, "--freeze", "cell.0") == 2
    assert "cells.0" in capsys.readouterr().err
    assert train(*call, "--rate", "cells.0") == 2
    assert "rate must be PATTERN=FACTOR" in capsys.readouterr().err
    assert train(*call, "--rate", "cells.0=fast") == 2
    assert "got 'cells.0=fast'" in capsys.readouterr().err
    settings = tmp_path / "settings.toml"
    settings.write_text('[rate]\n"cells.0" = -1\n')
    assert train(*call, "--config", settings) == 2
    assert "rate['cells.0'] must be a finite number" in capsys.readouterr().err


def test_of_a_single_video_the_last_windows_are_held_out_and_share_no_frame_with_the_others(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, colour_model: str
) -> None:
    write_video(tmp_path / "one.mp4", moving_square(0, 24, 32, 48), 12)
    run = tmp_path / "run"
    assert train("--init", colour_model, "--data", tmp_path / "one.mp4", "--stride", 1, *SHORT, "--run-dir", run) == 0
    said = capsys.readouterr().err
    # 21 windows of four frames; the last two begin at 19, so that those up to 15 end before.
    assert "validated on the last 2 windows" in said
    assert "16 clips to train on" in said
    assert figures(run)["start"]["mse"] > 0
