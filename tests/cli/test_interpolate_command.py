# SPDX-License-Identifier: Apache-2.0
"""`pcvideo interpolate`: the video that it writes, the figures that it prints, and what it refuses."""

from __future__ import annotations

import json

import pytest
import torch

from pcvideo.cli.main import main
from pcvideo.models import FrameDoubler, WaveletVFI
from pcvideo.video_io import probe, read_clip, write_frames, write_video

pytest.importorskip("av")


def moving(count, *, size=(36, 44), level=0.2):
    frames = torch.full((count, 3, *size), level)
    for number in range(count):
        frames[number, :, 8:20, 3 * number : 3 * number + 8] = level + 0.3
    return frames


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights") / "tiny"
    WaveletVFI(width=0.1).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def clip(tmp_path):
    write_video(tmp_path / "clip.mp4", moving(5), 12)
    return str(tmp_path / "clip.mp4")


def interpolate(capsys, *arguments):
    status = main(["interpolate", *map(str, arguments), "--json", "--device", "cpu"])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return json.loads(captured.out)


@pytest.mark.parametrize("factor", [2, 4])
def test_the_video_plays_at_the_new_rate_and_lasts_as_long(capsys, tmp_path, clip, weights, factor):
    out = tmp_path / "smooth.mp4"
    result = interpolate(capsys, clip, "--model", weights, "--factor", factor, "--out", out)
    assert result["frames"] == [5, 4 * factor + 1]
    assert result["rate"] == [12, 12 * factor]
    info = probe(out)
    assert info.frames == 4 * factor + 1
    assert info.rate == pytest.approx(12 * factor)
    assert (info.height, info.width) == (36, 44)
    given, frames = read_clip(clip).frames, read_clip(out).frames
    assert (frames[::factor] - given).abs().mean() < 0.02


def test_a_change_of_scene_is_not_blended(capsys, tmp_path, weights):
    write_video(tmp_path / "cut.mp4", torch.cat((moving(3, level=0.05), moving(3, level=0.65))), 10)
    result = interpolate(capsys, tmp_path / "cut.mp4", "--model", weights, "--out", tmp_path / "out.mp4")
    frames = read_clip(result["out"]).frames
    # Frames 4 and 6 are the last and the first of the scenes.
    assert (frames[5] - frames[4]).abs().mean() < 0.02


def test_folders_of_pictures_arrays_and_parts_of_a_clip_are_taken(capsys, tmp_path, clip, weights):
    write_frames(tmp_path / "pictures", moving(3))
    torch.save(moving(4), tmp_path / "clip.pt")
    for source, count, rate in ((tmp_path / "pictures", 3, 50), (tmp_path / "clip.pt", 4, 50)):
        result = interpolate(capsys, source, "--model", weights, "--out", tmp_path / "out.mkv")
        assert (result["frames"], result["rate"][1]) == ([count, 2 * count - 1], rate)
    part = interpolate(capsys, clip, "--model", weights, "--start", 1, "--stop", 4, "--out", tmp_path / "part.mp4")
    assert part["frames"] == [3, 5]


def test_check_compares_every_second_frame_with_what_was_found(capsys, clip, weights):
    result = interpolate(capsys, clip, "--model", weights, "--check", "--threshold", "0.01")
    assert result["samples"] == 2
    frames = read_clip(clip).frames
    truth, before, after = frames[1:4:2], frames[0:3:2], frames[2:5:2]
    for name, guess in (("average_frames", (before + after) / 2), ("copy_before", before)):
        error = (guess - truth).square().mean((1, 2, 3))
        assert result["middles"][name]["psnr"] == pytest.approx((-10 * error.log10()).mean().item(), rel=1e-4)
    assert result["middles"]["model"]["psnr"] > 0


def test_each_threshold_is_scored_with_its_cost(capsys, clip, weights, monkeypatch):
    monkeypatch.setenv("PCVIDEO_OFFLINE", "1")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: "nowhere")
    result = interpolate(capsys, clip, "--model", weights, "--check", "--each-threshold", "--cost", "--lpips")
    names = ["model", *(f"threshold {value}" for value in (0, 0.005, 0.01, 0.015))]
    assert list(result["middles"]) == [*names, "average_frames", "copy_before"]
    assert list(result["costs"]) == names
    model, frames = WaveletVFI.from_pretrained(weights), read_clip(clip).frames
    pair = [model.pad(frame[None]) for frame in (frames[0], frames[2])]
    dense = model.paper_macs(pair[0], [1, 1, 1]) / 1e9
    for name in names:
        assert 0 < result["costs"][name]["gmac_paper"] <= dense * (1 + 1e-9)
        assert result["costs"][name]["gmac"] > 0
        assert result["costs"][name]["milliseconds"] > 0
    assert result["costs"]["threshold 0"]["gmac_paper"] == pytest.approx(dense)
    assert result["middles"]["model"]["lpips"] is None
    assert "PCVIDEO_OFFLINE forbids the network" in result["unavailable"]["lpips"]
    assert main(["interpolate", clip, "--model", weights, "--check", "--cost"]) == 0
    told = capsys.readouterr().out
    assert "GMAC, paper's" in told
    assert "ms" in told


def test_folders_of_triplets_are_scored_by_their_layout(capsys, tmp_path, weights):
    for name in "123":
        write_frames(tmp_path / "set" / name, moving(3))
        for number, new in enumerate(["frame_00.png", "frame_01_gt.png", "frame_02.png"]):
            (tmp_path / "set" / name / f"{number:05d}.png").rename(tmp_path / "set" / name / new)
    call = (tmp_path / "set", "--model", weights, "--triplets", "ucf101", "--protocol", "wavelet_vfi")
    assert interpolate(capsys, *call)["samples"] == 3
    assert interpolate(capsys, *call, "--clips", 2)["samples"] == 2


def test_for_people_it_prints_lines_and_a_table(capsys, tmp_path, clip, weights):
    out = tmp_path / "smooth.mp4"
    assert main(["interpolate", clip, "--model", weights, "--out", str(out)]) == 0
    told = capsys.readouterr().out
    for word in ("5 frames", "became 9", "12 a second became 24", f"written: {out}"):
        assert word in told
    assert main(["interpolate", clip, "--model", weights, "--check"]) == 0
    told = capsys.readouterr().out
    for word in ("2 middle frames", "protocol standard", "average frames", "copy before", "psnr"):
        assert word in told


def test_what_can_not_be_done_is_told_in_one_line(capsys, tmp_path, clip, weights):
    write_video(tmp_path / "one.mp4", moving(1), 10)
    for arguments, words in [
        ((tmp_path / "one.mp4", "--model", weights, "--out", tmp_path / "o.mp4"), "at least two frames"),
        ((tmp_path / "one.mp4", "--model", weights, "--check"), "three frames at least"),
        ((clip, "--model", weights, "--out", clip), "is CLIP itself"),
        ((clip, "--model", "mspn-moving-mnist"), "take pcvideo predict"),
        ((clip, "--model", weights, "--threshold", "-1"), "--threshold must be"),
        ((clip, "--model", weights, "--cut", "2"), "--cut must be"),
        ((tmp_path / "none.mp4", "--model", weights), "does not exist"),
        ((clip, "--model", "wavelet-vif"), "no weights called"),
    ]:
        assert main(["interpolate", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert words in captured.err
    assert not (tmp_path / "o.mp4").exists()


def test_predict_says_that_an_interpolator_is_none(capsys, weights):
    assert main(["predict", "--model", weights]) == 2
    assert "take pcvideo interpolate" in capsys.readouterr().err


def test_train_says_where_an_interpolator_is_trained(capsys, tmp_path, weights):
    where = ["--data", "moving-mnist", "--run-dir", str(tmp_path / "run")]
    for named, hint in ((["--model", "waveletvfi"], "see examples/training"), (["--init", weights], "interpolate")):
        assert main(["train", *named, *where]) == 2
        assert hint in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_frame_doubler_is_an_interpolator_like_any_other(capsys, tmp_path, clip):
    weights = tmp_path / "doubler"
    FrameDoubler(in_channels=3, hidden_channels=(4, 4)).save_pretrained(weights)
    result = interpolate(capsys, clip, "--model", weights, "--out", tmp_path / "smooth.mp4")
    assert result["frames"] == [5, 9]
    checked = interpolate(capsys, clip, "--model", weights, "--check")["middles"]
    # A fresh one gives the mean of both.
    assert checked["model"]["psnr"] == pytest.approx(checked["average_frames"]["psnr"], abs=1e-3)
