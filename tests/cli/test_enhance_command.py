# SPDX-License-Identifier: Apache-2.0
"""`pcvideo enhance`: the files that it writes, what it prints, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from pcvideo.cli.main import main
from pcvideo.models import FrameDoubler, Grey2RGB, WaveletVFI
from pcvideo.video_io import open_frames, probe, read_clip, to_grey, write_frames, write_picture, write_video

pytest.importorskip("av")


def moving(count, *, channels=1):
    frames = torch.full((count, channels, 24, 32), 0.2)
    for number in range(count):
        frames[number, :, 6:16, 2 * number : 2 * number + 8] = 0.7
    return frames


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Flags that name small weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    FrameDoubler(hidden_channels=(4,)).save_pretrained(folder / "doubler")
    Grey2RGB(channels=(4,), keep_luminance=True).save_pretrained(folder / "colouriser")
    WaveletVFI(width=0.1).save_pretrained(folder / "pairs")
    return ("--doubler", folder / "doubler", "--colouriser", folder / "colouriser")


@pytest.fixture
def clip(tmp_path):
    write_video(tmp_path / "clip.mkv", moving(5), 12)
    return tmp_path / "clip.mkv"


def enhance(capsys, *arguments):
    status = main(["enhance", *map(str, arguments), "--json", "--device", "cpu"])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    return json.loads(captured.out)


def test_a_grey_video_becomes_one_in_colour_at_twice_the_rate(capsys, tmp_path, clip, weights):
    out = tmp_path / "out.mp4"
    result = enhance(capsys, clip, out, *weights)
    assert (result["frames"], result["written"], result["rate"]) == (5, 9, 24)
    assert (probe(out).frames, probe(out).rate) == (9, 24)
    assert result["notes"] == []


def test_with_no_weights_named_it_takes_those_that_come_with_the_package(capsys, tmp_path, clip):
    result = enhance(capsys, clip, tmp_path / "out")
    assert (result["doubler"], result["colouriser"], result["written"]) == ("frame-doubler", "grey2rgb", 9)
    # Frames that were there keep their luma; three colours of 8 bits hold it to less than one step.
    kept = to_grey(read_clip(tmp_path / "out").frames)[::2]
    assert (kept - read_clip(clip).frames).abs().max() < 1 / 255


def test_each_half_is_left_out_on_its_own(capsys, tmp_path, clip, weights):
    assert enhance(capsys, clip, tmp_path / "doubled", *weights, "--no-colour")["written"] == 9
    assert enhance(capsys, clip, tmp_path / "coloured", *weights, "--no-double")["written"] == 5
    assert enhance(capsys, clip, tmp_path / "longer", *weights, "--extrapolate")["written"] == 10
    joined = enhance(capsys, tmp_path / "doubled", tmp_path / "a.mp4", "--no-double", "--no-colour", "--fps", 24)
    assert (joined["written"], joined["rate"], joined["doubler"], joined["colouriser"]) == (9, 24, None, None)
    pairs = enhance(capsys, clip, tmp_path / "b.mp4", "--no-colour", "--doubler", weights[1].parent / "pairs")
    assert pairs["written"] == 9


def test_16_bits_the_size_and_the_kind_of_pictures_are_chosen(capsys, tmp_path, clip, weights):
    enhance(capsys, clip, tmp_path / "out", *weights, "--bit-depth", 16, "--format", "tif", "--size", 12, 16)
    opened = open_frames(tmp_path / "out")
    assert (opened.bit_depth, opened.size, opened.count) == (16, (12, 16), 9)
    assert (tmp_path / "out" / "00008.tif").is_file()


def test_parts_by_flag_and_by_the_ranks_of_torchrun_fill_one_folder(capsys, tmp_path, clip, weights, monkeypatch):
    whole = tmp_path / "whole"
    enhance(capsys, clip, whole, *weights)
    for number in (2, 1):
        result = enhance(capsys, clip, tmp_path / "parts", *weights, "--part", f"{number}/2")
    assert (result["part"], result["missing"]) == ([1, 2], 0)
    monkeypatch.setenv("WORLD_SIZE", "3")
    for rank in (0, 1, 2):
        monkeypatch.setenv("RANK", str(rank))
        assert enhance(capsys, clip, tmp_path / "ranks", *weights)["part"] == [rank + 1, 3]
    for folder in (tmp_path / "parts", tmp_path / "ranks"):
        assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in whole.iterdir())
        assert torch.equal(read_clip(folder).frames, read_clip(whole).frames)


def test_a_killed_run_is_gone_on_with(capsys, tmp_path, weights):
    write_frames(tmp_path / "in", moving(12).repeat(3, 1, 1, 1))
    arguments = ["enhance", tmp_path / "in", tmp_path / "out", *weights, "--device", "cpu", "--cut", "1"]
    process = subprocess.Popen([sys.executable, "-m", "pcvideo", *map(str, arguments)], env={**os.environ})
    deadline = time.monotonic() + 60
    while not (tmp_path / "out" / "00003.png").exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    held = len(list((tmp_path / "out").glob("*.png")))
    assert held >= 4
    result = enhance(capsys, *arguments[1:-4], "--cut", 1, "--resume")
    assert (result["kept"], result["written"], result["missing"]) == (held, 71 - held, 0)
    assert len(read_clip(tmp_path / "out").frames) == 71
    assert not list((tmp_path / "out").glob(".writing-*"))


def test_for_people_it_prints_lines(capsys, tmp_path, weights):
    write_video(tmp_path / "colour.mp4", moving(3, channels=3) * torch.tensor([1.0, 0.5, 0.2]).view(3, 1, 1), 10)
    arguments = [tmp_path / "colour.mp4", tmp_path / "out", *weights, "--part", "1/2"]
    assert main(["enhance", *map(str, arguments)]) == 0
    told = capsys.readouterr().out
    for words in ("of 3 frames", "2 were written, part 1 of 2", "20 a second", "its grey was taken", "3 of the whole"):
        assert words in told
    assert f"written: {tmp_path / 'out'}" in told


def test_what_can_not_be_done_is_told_in_one_line_in_the_words_of_the_flags(capsys, tmp_path, clip, weights):
    write_video(tmp_path / "one.mp4", moving(1), 10)
    (tmp_path / "empty").mkdir()
    (tmp_path / "cut.mkv").write_bytes(clip.read_bytes()[:300])
    write_frames(tmp_path / "mixed", moving(3))
    write_picture(tmp_path / "mixed" / "00001.png", torch.zeros(1, 8, 8))
    write_frames(tmp_path / "broken", moving(3))
    (tmp_path / "broken" / "00001.png").write_bytes(b"no picture")
    enhance(capsys, clip, tmp_path / "begun", *weights)
    out, pairs = tmp_path / "out", weights[1].parent / "pairs"
    for arguments, words in [
        ((tmp_path / "one.mp4", out, *weights), "doubling needs two, or --extrapolate"),
        ((tmp_path / "empty", out, *weights), "holds no pictures"),
        ((tmp_path / "none.mp4", out, *weights), "does not exist"),
        ((tmp_path / "cut.mkv", out, *weights), "cut.mkv"),
        ((tmp_path / "mixed", tmp_path / "out2", *weights), "00001.png is 8x8, 00000.png is 24x32"),
        ((tmp_path / "broken", tmp_path / "out3", *weights), "frame 1 is broken (00001.png"),
        ((clip, clip, *weights), "is the source itself"),
        ((clip, tmp_path / "begun", *weights), "--resume makes those that are missing"),
        ((clip, tmp_path / "begun", *weights, "--resume", "--bit-depth", "16"), "was begun with"),
        ((clip, tmp_path / "out.mp4", *weights, "--part", "1/2"), "--part is for a folder"),
        ((clip, tmp_path / "out.mp4", *weights, "--resume"), "--resume is for a folder"),
        ((clip, tmp_path / "out.mp4", *weights, "--bit-depth", "16"), "--bit-depth must be 8 for a video"),
        ((clip, tmp_path / "out.jpg", *weights), "OUT"),
        ((clip, out, *weights, "--doubler", weights[3]), "which colours grey frames; take pcvideo enhance"),
        ((clip, out, *weights, "--colouriser", weights[1]), "which finds frames between frames"),
        ((clip, out, *weights, "--doubler", pairs, "--extrapolate"), "--extrapolate needs a FrameDoubler"),
        ((clip, out, *weights, "--extrapolate", "--no-double"), "--extrapolate goes with --double"),
        ((clip, out, *weights, "--cut", "2"), "--cut must be"),
    ]:
        assert main(["enhance", *map(str, arguments)]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1
        assert words in captured.err
        assert not out.exists()
    with pytest.raises(SystemExit):
        main(["enhance", str(clip), str(out), "--part", "3/2"])
    assert "expected K/N" in capsys.readouterr().err


def test_other_commands_say_what_a_colouriser_is_for(capsys, clip, weights):
    for command in (["predict", clip], ["interpolate", clip]):
        assert main([*map(str, command), "--model", str(weights[3])]) == 2
        assert "take pcvideo enhance" in capsys.readouterr().err
