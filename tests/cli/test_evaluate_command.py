# SPDX-License-Identifier: Apache-2.0
"""`pcvideo evaluate`: its figures against a plain loop, and which clips it takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_clips import moving_square

from pcvideo import hub
from pcvideo.cli.main import main
from pcvideo.data import MovingMNIST
from pcvideo.video_io import write_video


def evaluate(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    assert main(["evaluate", *map(str, arguments), "--lpips", "off", "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    assert main(["evaluate", *map(str, arguments)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    return said.err


def test_the_curve_is_drawn_where_it_is_asked_for(
    capsys: pytest.CaptureFixture[str], grey_model: str, idx_folder: Path, tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib", reason="curves need the train extra")
    call = ("--model", grey_model, "--dataset", "moving-mnist", "--data", idx_folder, "--clips", 2, "--horizon", 3)
    evaluate(capsys, *call, "--curve", tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text()
    for word in ("model", "copy-last", "black", "standard"):
        assert word in drawn


def test_moving_digits_score_as_in_a_plain_loop_whatever_the_batch(
    capsys: pytest.CaptureFixture[str], grey_model: str, idx_folder: Path
) -> None:
    call = ("--model", grey_model, "--dataset", "moving-mnist", "--data", idx_folder, "--clips", 5, "--seed", 7)
    call += ("--context", 4, "--horizon", 3)
    result = evaluate(capsys, *call, "--batch", 2)
    model = hub.from_pretrained(grey_model)
    clips = MovingMNIST(idx_folder, clips=5, seed=7, split="test", frames=7)
    errors: dict[str, list[np.ndarray]] = {"metrics": [], "copy_last": [], "black": []}
    for clip in clips:
        truth = clip[4:].double().numpy()
        with torch.no_grad():
            raw = model(clip[None, :4], 3)[0].double().numpy()
        for name, guess in (("metrics", raw), ("copy_last", clip[3].numpy()), ("black", 0.0)):
            errors[name].append(((guess - truth) ** 2).sum((1, 2, 3)))
    # Of the four protocols, mspn takes the prediction as it is.
    for name, values in errors.items():
        assert result["protocols"]["mspn"][name]["mse"] == pytest.approx(np.mean(values), rel=1e-5)
        per_step = result["protocols"]["mspn"]["per_step"][name]["mse"]
        assert per_step == pytest.approx(np.mean(values, axis=0).tolist(), rel=1e-5)
    assert list(result["protocols"]) == ["standard", "mspn", "ppnv2", "openstl"]
    assert (result["clips"], result["seed"], result["split"]) == (5, 7, "test")
    whole = evaluate(capsys, *call, "--batch", 5)
    for name in ("mse", "mae", "psnr", "ssim"):
        figures = [report["protocols"]["standard"]["metrics"][name] for report in (whole, result)]
        assert figures[0] == pytest.approx(figures[1], rel=1e-5)


def test_json_with_a_name_writes_the_file_and_prints_the_table(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, grey_model: str, idx_folder: Path
) -> None:
    out = tmp_path / "results" / "out.json"
    call = ["evaluate", "--model", grey_model, "--data", str(idx_folder), "--clips", "2", "--lpips", "off"]
    assert main([*call, "--horizon", "2", "--json", str(out)]) == 0
    said = capsys.readouterr().out
    result = json.loads(out.read_text())
    assert result["dataset"] == "moving-mnist"
    assert result["horizon"] == 2
    for word in ("standard", "mspn", "ppnv2", "openstl", "copy-last", "black", "ssim", "t10k", str(out)):
        assert word in said


def test_windows_of_videos_are_scored_and_names_choose_the_videos(
    capsys: pytest.CaptureFixture[str], colour_model: str, videos: Path
) -> None:
    call = ("--model", colour_model, "--data", videos, "--context", 4, "--horizon", 4, "--protocol", "standard")
    assert evaluate(capsys, *call)["clips"] == 9
    assert evaluate(capsys, *call, "--include", "walk")["clips"] == 3
    assert evaluate(capsys, *call, "--exclude", "walk", "th*")["clips"] == 3
    assert evaluate(capsys, *call, "--include", "walk", "--stride", 2)["clips"] == 9
    few = evaluate(capsys, *call, "--clips", 3)
    assert (few["clips"], few["dataset"]) == (3, "videos")
    assert "--data FOLDER" in refused(capsys, "--model", colour_model, "--dataset", "videos")


def test_videos_of_different_sizes_are_each_scored_at_their_own(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, colour_model: str
) -> None:
    write_video(tmp_path / "mixed" / "a.mp4", moving_square(0, 8, 32, 48), 12)
    write_video(tmp_path / "mixed" / "b.mp4", moving_square(1, 8, 24, 32), 12)
    call = ("--model", colour_model, "--context", 4, "--horizon", 4, "--protocol", "standard", "--data")
    both = evaluate(capsys, *call, tmp_path / "mixed")
    alone = [evaluate(capsys, *call, tmp_path / "mixed" / name) for name in ("a.mp4", "b.mp4")]
    for name in ("metrics", "copy_last"):
        figures = [one["protocols"]["standard"][name]["mse"] for one in alone]
        assert figures[0] != pytest.approx(figures[1], rel=1e-3)
        assert both["protocols"]["standard"][name]["mse"] == pytest.approx(np.mean(figures), rel=1e-6)


def test_flags_of_the_other_kind_of_data_are_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, grey_model: str, idx_folder: Path
) -> None:
    assert "--dataset videos" in refused(capsys, "--model", grey_model, "--data", idx_folder, "--include", "walk")
    np.save(tmp_path / "clips.npy", np.zeros((3, 20, 1, 16, 16), np.uint8))
    assert "--include" in refused(capsys, "--model", grey_model, "--data", tmp_path / "clips.npy", "--include", "walk")
    (tmp_path / "empty").mkdir()
    assert "t10k" in refused(capsys, "--model", grey_model, "--dataset", "moving-mnist", "--data", tmp_path / "empty")
