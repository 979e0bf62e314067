# SPDX-License-Identifier: Apache-2.0
"""`pcvideo predict`: what it writes, what it compares with, and what it refuses."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pcvideo import hub
from pcvideo.cli.main import main
from pcvideo.data import MovingMNIST, procedural_digits
from pcvideo.video_io import probe, read_clip, write_frames


def predict(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    """The JSON object that the command prints, where it succeeds."""
    assert main(["predict", *map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: Any) -> str:
    """The one line that the command prints, where it refuses."""
    assert main(["predict", *map(str, arguments)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("pcvideo predict: error: ")
    assert said.err.count("\n") == 1
    return said.err


def random_clip(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def summed(prediction: np.ndarray, truth: np.ndarray) -> list[float]:
    """Squared error, summed over each frame."""
    return [float(((a - b) ** 2).sum()) for a, b in zip(prediction.astype(float), truth.astype(float), strict=True)]


def test_without_a_clip_moving_digits_are_predicted_and_compared(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, grey_model: str
) -> None:
    out = tmp_path / "new" / "folder"
    result = predict(capsys, "--model", grey_model, "--out", out)
    clip = MovingMNIST(procedural_digits(20, seed=1), clips=1, seed=9, split="test")[0].numpy()
    standard = result["protocols"]["standard"]
    last = np.repeat(clip[9:10], 10, axis=0)
    assert standard["per_step"]["copy_last"]["mse"] == pytest.approx(summed(last, clip[10:]), rel=1e-5)
    assert standard["copy_last"]["mse"] == pytest.approx(np.mean(summed(last, clip[10:])), rel=1e-5)
    assert standard["black"]["mse"] == pytest.approx(np.mean((clip[10:].astype(float) ** 2).sum((1, 2, 3))), rel=1e-5)
    assert standard["metrics"]["mse_mean"] == pytest.approx(standard["metrics"]["mse"] / 64**2)
    assert (result["model"], result["horizon"], result["context"], result["held_out"]) == (grey_model, 10, 10, True)
    for name in ("prediction.gif", "strip.png", "metrics.json"):
        assert (out / name).stat().st_size > 0
    assert probe(out / "prediction.gif").frames >= 20


def test_the_figures_are_those_of_what_the_model_predicts_in_python(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, colour_model: str
) -> None:
    clip = random_clip(12, 3, 19, 21)
    np.save(tmp_path / "clip.npy", clip)
    result = predict(
        capsys,
        tmp_path / "clip.npy",
        "--model",
        colour_model,
        "--horizon",
        3,
        "--context",
        4,
        "--out",
        tmp_path / "out",
    )
    prediction = hub.from_pretrained(colour_model).predict(clip[:9], 3, context=4).numpy()
    expected = summed(prediction, clip[9:] / 255)
    assert result["protocols"]["standard"]["per_step"]["metrics"]["mse"] == pytest.approx(expected, rel=1e-5)


def test_only_the_json_stands_on_standard_output_and_the_file_holds_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, grey_model: str
) -> None:
    result = predict(capsys, "--model", grey_model, "--out", tmp_path, "--verbose")
    assert json.loads((tmp_path / "metrics.json").read_text()) == result


def test_the_summary_shows_the_model_beside_copy_last_and_black(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, grey_model: str
) -> None:
    assert main(["predict", "--model", grey_model, "--out", str(tmp_path), "--horizon", "2"]) == 0
    said = capsys.readouterr().out
    figures = json.loads((tmp_path / "metrics.json").read_text())["protocols"]["standard"]
    line = next(line for line in said.splitlines() if line.split()[:1] == ["mse"])
    shown = [float(number) for number in line.split()[1:]]
    assert shown == pytest.approx([figures[name]["mse"] for name in ("metrics", "copy_last", "black")], rel=1e-3)
    assert str(tmp_path / "prediction.gif") in said


def test_a_clip_too_short_to_hold_frames_out_is_continued_beyond_its_end(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, grey_model: str
) -> None:
    np.save(tmp_path / "clip.npy", random_clip(6, 16, 16))
    call = (tmp_path / "clip.npy", "--model", grey_model, "--out", tmp_path / "out", "--horizon")
    result = predict(capsys, *call, 5)
    standard = result["protocols"]["standard"]
    assert (result["held_out"], result["context"]) == (False, 6)
    assert standard["metrics"] is standard["copy_last"] is standard["black"] is None
    assert "6 frames; 7 are needed" in standard["unavailable"]["metrics"]
    # Two frames before the held-out ones are enough.
    assert predict(capsys, *call, 4)["held_out"] is True
    # One is, where no more are asked for.
    assert predict(capsys, *call, 5, "--context", 1)["context"] == 1
    assert predict(capsys, *call, 5, "--context", 1)["held_out"] is True


def test_start_stop_and_step_choose_the_frames_and_only_the_last_ones_are_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, colour_model: str
) -> None:
    clip = random_clip(30, 3, 16, 16)
    write_frames(tmp_path / "frames", torch.from_numpy(clip))
    # Outside of what is needed, so that nobody looks at it.
    (tmp_path / "frames" / "00003.png").write_bytes(b"broken")
    result = predict(
        capsys, tmp_path / "frames", "--model", colour_model, "--out", tmp_path / "out",
        "--start", 1, "--stop", 28, "--step", 2, "--horizon", 3, "--context", 2,
    )  # fmt: skip
    chosen = clip[1:28:2] / 255
    expected = summed(np.repeat(chosen[-4:-3], 3, axis=0), chosen[-3:])
    assert result["protocols"]["standard"]["per_step"]["copy_last"]["mse"] == pytest.approx(expected, rel=1e-5)
    assert result["context"] == 2


def test_a_broken_frame_is_an_error_and_on_error_repeat_shows_the_one_before(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, colour_model: str
) -> None:
    write_frames(tmp_path / "frames", torch.from_numpy(random_clip(12, 3, 16, 16)))
    (tmp_path / "frames" / "00006.png").write_bytes(b"broken")
    call = (tmp_path / "frames", "--model", colour_model, "--out", tmp_path / "out", "--horizon", 2)
    said = refused(capsys, *call)
    assert "--on-error repeat" in said
    assert "6" in said
    assert "replaced by the frame before" in " ".join(predict(capsys, *call, "--on-error", "repeat")["notes"])


def test_a_grey_model_takes_a_colour_clip_with_to_grey_alone(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, grey_model: str, videos: Path
) -> None:
    call = (videos / "walk.mp4", "--model", grey_model, "--out", tmp_path / "out", "--horizon", 2)
    assert "--to-grey" in refused(capsys, *call)
    assert predict(capsys, *call, "--to-grey")["size"] == [32, 48]


def test_odd_sizes_are_predicted_as_they_are_and_size_resizes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, colour_model: str
) -> None:
    np.save(tmp_path / "clip.npy", random_clip(6, 3, 59, 59))
    call = (tmp_path / "clip.npy", "--model", colour_model, "--out", tmp_path / "out", "--horizon", 2, "--frames")
    assert predict(capsys, *call)["size"] == [59, 59]
    frames = read_clip(tmp_path / "out" / "frames").frames
    expected = hub.from_pretrained(colour_model).predict(np.load(tmp_path / "clip.npy")[:4], 2)
    assert frames.shape == (2, 3, 59, 59)
    assert torch.allclose(frames, expected, atol=0.51 / 255)
    assert predict(capsys, *call[:-1], "--size", 20, 24)["size"] == [20, 24]
    # They would mix with those of the earlier call.
    assert "frames holds pictures already" in refused(capsys, *call)


def test_a_video_of_the_comparison_plays_context_and_future(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, colour_model: str, videos: Path
) -> None:
    call = (videos / "walk.mp4", "--model", colour_model, "--horizon", 3, "--context", 4)
    predict(capsys, *call, "--out", tmp_path, "--video")
    made = probe(tmp_path / "prediction.mp4")
    assert made.frames == 7
    assert made.rate == pytest.approx(12)


def test_floats_out_of_range_and_nan_are_refused_with_the_flag_that_mends_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, grey_model: str
) -> None:
    bright = random_clip(6, 16, 16).astype(np.float32)
    holed = bright / 255
    holed[2, 0, 0] = np.nan
    np.save(tmp_path / "bright.npy", bright)
    np.save(tmp_path / "holed.npy", holed)
    call = ("--model", grey_model, "--out", tmp_path / "out", "--horizon", 2)
    assert "--value-range LOW HIGH" in refused(capsys, tmp_path / "bright.npy", *call)
    assert predict(capsys, tmp_path / "bright.npy", *call, "--value-range", 0, 255)["held_out"] is True
    said = refused(capsys, tmp_path / "holed.npy", *call)
    assert "frame 2" in said
    assert "--nan repair" in said
    assert predict(capsys, tmp_path / "holed.npy", *call, "--nan", "repair")["held_out"] is True


def test_nothing_reaches_for_the_network_and_lpips_is_null_with_the_reason(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, grey_model: str
) -> None:
    def connect(*arguments: Any) -> None:
        raise AssertionError(f"connects to {arguments}")

    monkeypatch.setattr(socket.socket, "connect", connect)
    monkeypatch.setattr(socket, "getaddrinfo", connect)
    standard = predict(capsys, "--model", grey_model, "--out", tmp_path, "--horizon", 2)["protocols"]["standard"]
    assert standard["metrics"]["lpips"] is standard["copy_last"]["lpips"] is None
    assert standard["unavailable"].keys() == {"lpips"}


def test_protocols_stand_side_by_side_and_a_perfect_baseline_is_null_with_the_reason(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, grey_model: str
) -> None:
    np.save(tmp_path / "still.npy", np.repeat(random_clip(1, 16, 16), 8, axis=0))
    call = ("--model", grey_model, "--out", tmp_path, "--horizon", 2, "--lpips", "off")
    protocols = predict(capsys, tmp_path / "still.npy", *call, "--protocol", "mspn", "--protocol", "openstl")[
        "protocols"
    ]
    assert list(protocols) == ["mspn", "openstl"]
    assert protocols["mspn"]["copy_last"]["mse"] == 0
    assert protocols["mspn"]["copy_last"]["psnr"] is None
    assert "infinity" in protocols["mspn"]["unavailable"]["copy_last/psnr"]
    assert protocols["openstl"]["unavailable"]["lpips"] == "left out by --lpips off"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--horizon", "0"], "--horizon must be a whole number of at least 1, got 0"),
        (["--horizon", "-1"], "--horizon must be a whole number of at least 1, got -1"),
        (["--context", "0"], "--context must be a whole number of at least 1, got 0"),
        (["--device", "gpu"], "--device must be"),
        (["--gif-rate", "0"], "--gif-rate"),
        (["--threads", "0"], "--threads must be at least 1"),
        (["nothing.mp4"], "nothing.mp4 does not exist"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, grey_model: str, arguments: list[str], words: str
) -> None:
    assert words in refused(capsys, *arguments, "--model", grey_model, "--out", tmp_path / "out")


def test_weights_that_are_not_there_are_refused_with_where_was_looked(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert "no weights called 'mspn-moving-minst'" in refused(
        capsys, "--model", "mspn-moving-minst", "--out", tmp_path / "out"
    )


def test_a_clip_of_ones_own_needs_no_flag_and_is_told_what_size_the_weights_learned_at(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    np.save(tmp_path / "clip.npy", random_clip(5, 3, 48, 64))
    call = [tmp_path / "clip.npy", "--horizon", 2, "--context", 3]
    result = predict(capsys, *call, "--out", tmp_path / "own")
    assert result["model"] == "mspn-natural"
    assert any("--size 64 80" in note for note in result["notes"])
    fitting = predict(capsys, *call, "--size", 64, 80, "--out", tmp_path / "fitting")
    assert fitting["notes"] == []
