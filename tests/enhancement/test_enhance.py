# SPDX-License-Identifier: Apache-2.0
"""From files to files: what is written, by how many processes and in how many goes, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from small_sequences import HEIGHT, WIDTH, colouriser, contents, frame_doubler, moving, pair_interpolator, two_scenes

import pcvideo
from pcvideo.enhancement import Enhancer, double_frames
from pcvideo.video_io import (
    VideoError,
    open_frames,
    probe,
    read_clip,
    to_grey,
    write_frames,
    write_picture,
    write_video,
)

pytest.importorskip("av")
pytest.importorskip("PIL.Image")
tifffile = pytest.importorskip("tifffile")


def save(folder, frames, *, bit_depth=8, suffix=".png"):
    """Pictures whose names count as people do: 9 before 10."""
    for number, frame in enumerate(frames):
        write_picture(folder / f"{number}{suffix}", frame, bit_depth=bit_depth)
    return folder


@pytest.fixture
def pictures(tmp_path):
    """A folder of 11 grey pictures of two scenes."""
    return save(tmp_path / "in", two_scenes(5, 6))


def enhanced(source, out, **options):
    return pcvideo.enhance(source, out, **options)


def test_a_folder_gets_every_frame_and_every_middle_by_its_number(tmp_path, pictures):
    doubler = frame_doubler()
    result = enhanced(pictures, tmp_path / "out", doubler=doubler)
    assert sorted(contents(tmp_path / "out")) == [f"{number:05d}.png" for number in range(21)]
    assert (result.frames, result.written, result.kept, result.missing, result.rate) == (11, 21, 0, 0, 50)
    given, out = read_clip(pictures).frames, read_clip(tmp_path / "out").frames
    assert torch.equal(out[::2], given)
    expected = torch.stack(list(double_frames(given, doubler)))
    assert (out - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_extrapolation_makes_it_twice_the_frames(tmp_path, pictures):
    result = enhanced(pictures, tmp_path / "out", doubler=frame_doubler(), extrapolate=True)
    assert result.written == 22
    assert (tmp_path / "out" / "00021.png").is_file()


def test_colour_alone_keeps_the_number_of_frames_and_their_luma(tmp_path, pictures):
    result = enhanced(pictures, tmp_path / "out", colouriser=colouriser())
    assert (result.written, result.rate) == (11, 25)
    out = read_clip(tmp_path / "out").frames
    assert out.shape[1] == 3
    # Rounding of three colours to 8 bits moves the luma by less than one step.
    assert (to_grey(out) - read_clip(pictures).frames).abs().max() < 1 / 255


@pytest.mark.parametrize("kind", ["stack", "folder"])
def test_16_bits_stay_16_bits_exactly(tmp_path, kind):
    values = np.random.default_rng(0).integers(0, 65536, (4, HEIGHT, WIDTH), dtype=np.uint16)
    if kind == "stack":
        source = tmp_path / "in.tif"
        tifffile.imwrite(source, values, photometric="minisblack")
    else:
        source = tmp_path / "in"
        source.mkdir()
        for number, picture in enumerate(values, start=8):
            tifffile.imwrite(source / f"scan{number}.tif", picture)
    enhanced(source, tmp_path / "out", doubler=frame_doubler(), picture=".tif", cut=None)
    for number, picture in enumerate(values):
        found = tifffile.imread(tmp_path / "out" / f"{2 * number:05d}.tif")
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, picture)
    enhanced(source, tmp_path / "eight", doubler=frame_doubler(), bit_depth=8, cut=None)
    np.testing.assert_array_equal(
        read_clip(tmp_path / "eight").frames[::2, 0].mul(255).round(), np.round(values / 65535 * 255)
    )


@pytest.mark.parametrize("rate", [12, 24000 / 1001])
def test_a_video_has_twice_the_rate_and_the_frames_their_times(tmp_path, rate):
    write_video(tmp_path / "in.mkv", moving(9), rate)
    result = enhanced(tmp_path / "in.mkv", tmp_path / "out.mp4", doubler=frame_doubler(), colouriser=colouriser())
    info = probe(tmp_path / "out.mp4")
    assert (info.frames, info.height, info.width) == (17, HEIGHT + 1, WIDTH)
    assert info.rate == pytest.approx(2 * rate, rel=1e-3)
    assert result.rate == pytest.approx(2 * rate, rel=1e-3)
    given, out = read_clip(tmp_path / "in.mkv").frames, read_clip(tmp_path / "out.mp4").frames
    assert (to_grey(out[::2]) - to_grey(given)).abs().mean() < 0.02


def test_a_folder_that_several_filled_becomes_a_video(tmp_path, pictures):
    for number in (1, 2):
        enhanced(pictures, tmp_path / "out", doubler=frame_doubler(), part=(number, 2), rate=15)
    result = enhanced(tmp_path / "out", tmp_path / "out.mkv")
    assert (result.written, probe(tmp_path / "out.mkv").rate) == (21, 30)
    assert enhanced(tmp_path / "out", tmp_path / "slow.mkv", rate=10).rate == 10


@pytest.mark.parametrize("extrapolate", [False, True])
@pytest.mark.parametrize("parts", [2, 3, 5, 11, 13])
def test_parts_together_are_what_one_process_makes_bit_for_bit(tmp_path, pictures, parts, extrapolate):
    options = {"doubler": frame_doubler(), "colouriser": colouriser(), "extrapolate": extrapolate, "bit_depth": 16}
    enhanced(pictures, tmp_path / "one", **options)
    # The last begins, so that no part leans on what another wrote.
    results = [enhanced(pictures, tmp_path / "all", part=(number, parts), **options) for number in range(parts, 0, -1)]
    assert contents(tmp_path / "all") == contents(tmp_path / "one")
    assert sum(result.written for result in results) == 21 + extrapolate
    assert results[-1].missing == 0
    assert results[0].missing == 21 + extrapolate - results[0].written


def test_parts_of_a_pair_interpolator_and_of_one_long_scene_agree_too(tmp_path):
    pictures = save(tmp_path / "in", moving(7))
    for name, options in (
        ("pairs", {"doubler": pair_interpolator()}),
        ("scene", {"doubler": frame_doubler()}),
        ("uncut", {"doubler": frame_doubler(), "cut": None}),
        ("plain", {"colouriser": colouriser()}),
    ):
        enhanced(pictures, tmp_path / f"{name}-one", **options)
        for number in (1, 2, 3):
            enhanced(pictures, tmp_path / f"{name}-all", part=(number, 3), **options)
        assert contents(tmp_path / f"{name}-all") == contents(tmp_path / f"{name}-one")


def test_a_part_reads_no_more_than_it_needs(tmp_path, pictures):
    read = []
    opened = open_frames(pictures)
    original = opened._read

    def watched(first):
        for number, frame in enumerate(original(first), start=first):
            read.append(number)
            yield frame

    object.__setattr__(opened, "_read", watched)
    enhanced(opened, tmp_path / "out", doubler=pair_interpolator(), part=(2, 3))
    # Frame 0 tells this source from others; 3 to 6 are its own, and the last middle needs the one after.
    assert read == [0, 3, 4, 5, 6, 7]


class Stopped(KeyboardInterrupt):
    pass


@pytest.mark.parametrize("stateful", [True, False])
def test_what_was_written_stays_and_the_rest_is_made_as_if_nothing_had_happened(tmp_path, pictures, stateful):
    options = {"doubler": frame_doubler() if stateful else pair_interpolator(), "colouriser": colouriser()}
    enhanced(pictures, tmp_path / "whole", **options)

    def stop(done, total):
        assert total == 21
        if done == 8:
            raise Stopped

    with pytest.raises(Stopped):
        enhanced(pictures, tmp_path / "out", on_frame=stop, **options)
    assert len(contents(tmp_path / "out")) == 8
    # A picture in the middle is lost too, and a killed process left a half-written one.
    (tmp_path / "out" / "00003.png").unlink()
    orphan = tmp_path / "out" / ".writing-00008.png-abc"
    orphan.mkdir()
    (orphan / "00008.png").write_bytes(b"half")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    with pytest.raises(ValueError, match=r"holds 7 of these frames already; resume=True"):
        enhanced(pictures, tmp_path / "out", **options)
    result = enhanced(pictures, tmp_path / "out", resume=True, **options)
    assert (result.written, result.kept, result.missing) == (14, 7, 0)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
    assert all(path.stat().st_mtime_ns == then for path, then in before.items())
    assert not orphan.exists()
    assert enhanced(pictures, tmp_path / "out", resume=True, **options).written == 0


def test_another_part_that_is_being_written_is_left_alone(tmp_path, pictures):
    other = tmp_path / "out" / ".writing-00020.png-abc"
    other.mkdir(parents=True)
    enhanced(pictures, tmp_path / "out", doubler=pair_interpolator(), part=(1, 2))
    assert other.exists()


def test_a_folder_is_not_gone_on_with_by_other_means(tmp_path, pictures):
    enhanced(pictures, tmp_path / "out", doubler=frame_doubler(), part=(1, 2))
    other = frame_doubler()
    with torch.no_grad():
        other.head.bias.add_(0.1)
    for options, words in [
        ({"doubler": other}, r"was begun with doubler \"FrameDoubler \w+\", now it is \"FrameDoubler \w+\""),
        ({"doubler": frame_doubler(), "colouriser": colouriser()}, "begun with colouriser null, now"),
        ({"doubler": frame_doubler(), "cut": None}, "begun with cut 0.15, now it is null"),
        ({"doubler": frame_doubler(), "bit_depth": 16}, "begun with bit_depth 8, now it is 16"),
    ]:
        with pytest.raises(ValueError, match=words):
            enhanced(pictures, tmp_path / "out", part=(2, 2), resume=True, **options)
    other_place = save(tmp_path / "elsewhere" / "in", two_scenes(6, 5))
    for source, words in [
        (open_frames(pictures, size=(8, 8)), "begun with first_frame"),
        (save(tmp_path / "more" / "in", two_scenes(5, 7)), "begun with frames 11, now it is 12"),
        (open_frames(other_place, start=1), "begun with (first_frame|start)"),
    ]:
        with pytest.raises(ValueError, match=words):
            enhanced(source, tmp_path / "out", doubler=frame_doubler(), part=(2, 2), resume=True)
    record = json.loads((tmp_path / "out" / "enhance.json").read_text())
    assert (record["frames"], record["pictures"], record["size"], record["rate"]) == (11, 21, [HEIGHT, WIDTH], 50)


def test_a_full_disk_leaves_the_pictures_that_were_written_and_no_half_one(tmp_path):
    frames = torch.full((5, 1, 64, 64), 0.5)
    frames[3] = torch.rand(64, 64, generator=torch.Generator().manual_seed(0))
    source = save(tmp_path / "in", frames)
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # No file may grow beyond this: what a full disk is for a writer. Noise does not pack, and is too large.
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            enhanced(source, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "00000.png", "00001.png", "00002.png", "enhance.json",
    ]  # fmt: skip
    assert enhanced(source, tmp_path / "out", resume=True).written == 2


def test_a_broken_picture_is_named_and_what_came_before_it_stays(tmp_path, pictures):
    (pictures / "7.png").write_bytes((pictures / "7.png").read_bytes()[:60])
    with pytest.raises(VideoError, match=r"in: frame 7 is broken \(7\.png"):
        enhanced(pictures, tmp_path / "out", doubler=pair_interpolator())
    assert len(contents(tmp_path / "out")) == 13
    repeated = open_frames(pictures, on_error="repeat")
    assert enhanced(repeated, tmp_path / "out", doubler=pair_interpolator(), resume=True).missing == 0
    out = read_clip(tmp_path / "out").frames
    assert torch.equal(out[14], out[12])


def test_broken_frames_can_be_left_out_of_the_whole_but_not_of_a_part(tmp_path, pictures):
    (pictures / "7.png").write_bytes(b"no picture")
    skipped = open_frames(pictures, on_error="skip")
    result = enhanced(skipped, tmp_path / "out", doubler=pair_interpolator())
    assert (result.written, result.missing) == (19, None)
    with pytest.raises(ValueError, match='name a file or folder, with on_error="repeat"'):
        enhanced(skipped, tmp_path / "other", doubler=pair_interpolator(), part=(1, 2))


def test_frames_from_a_generator_and_from_arrays_are_taken(tmp_path):
    clip, doubler = moving(4), frame_doubler()
    enhanced((frame for frame in clip), tmp_path / "generated", doubler=doubler)
    assert sorted(contents(tmp_path / "generated"))[-1] == "00000006.png"
    enhanced(clip, tmp_path / "tensor", doubler=doubler)
    enhanced((clip * 65535).round().numpy().astype(np.uint16), tmp_path / "array", doubler=doubler)
    assert torch.equal(read_clip(tmp_path / "tensor").frames, read_clip(tmp_path / "generated").frames)
    assert open_frames(tmp_path / "array").bit_depth == 16
    assert (read_clip(tmp_path / "array").frames - read_clip(tmp_path / "tensor").frames).abs().max() < 0.6 / 255


def test_what_can_not_be_done_is_refused_before_anything_is_written(tmp_path, pictures):
    doubler = frame_doubler()
    write_frames(tmp_path / "full", moving(2))
    (tmp_path / "file").write_text("")
    one = save(tmp_path / "single", moving(1))
    (tmp_path / "empty").mkdir()
    cases = [
        (pictures, pictures, {}, "is the source itself"),
        (pictures, tmp_path / "full", {}, "holds pictures already"),
        (pictures, tmp_path / "file", {}, "is a file; name a folder"),
        (pictures, tmp_path / "o.png", {}, "is the name of a picture"),
        (pictures, tmp_path / "o.mp4", {"part": (1, 2)}, "one process alone can write a video"),
        (pictures, tmp_path / "o.mp4", {"resume": True}, "resume is for a folder"),
        (pictures, tmp_path / "o.mp4", {"bit_depth": 16}, "must be 8 for a video"),
        (pictures, tmp_path / "o", {"bit_depth": 12}, "bit_depth must be one of"),
        (pictures, tmp_path / "o", {"picture": ".jpg"}, "picture must be one of"),
        (pictures, tmp_path / "o", {"part": (3, 2)}, "counted from 1"),
        (pictures, tmp_path / "o", {"part": 2}, "part must be"),
        (pictures, tmp_path / "o", {"rate": -1}, "rate must be"),
        (pictures, tmp_path / "o", {"rate": 0}, "rate must be"),
        (one, tmp_path / "o", {}, "nothing lies between"),
        (tmp_path / "empty", tmp_path / "o", {}, "holds no pictures"),
        (tmp_path / "missing", tmp_path / "o", {}, "does not exist"),
        (open_frames(pictures, start=20), tmp_path / "o", {}, "no frame is left"),
        (open_frames(pictures, on_error="skip"), tmp_path / "o", {"resume": True}, "numbers are sure"),
        (iter(moving(3)), tmp_path / "o", {"part": (1, 2)}, "numbers are sure"),
    ]
    for source, out, options, words in cases:
        with pytest.raises((ValueError, TypeError, OSError), match=words):
            enhanced(source, out, doubler=doubler, **options)
        assert not any((tmp_path / name).exists() for name in ("o", "o.mp4", "o.png"))


def test_pictures_of_two_sizes_are_an_error_that_names_both(tmp_path, pictures):
    write_picture(pictures / "4.png", torch.zeros(1, 8, 8))
    with pytest.raises(VideoError, match=r"4\.png is 8x8, 0\.png is 19x22"):
        enhanced(pictures, tmp_path / "out", doubler=frame_doubler())


def test_a_colour_sequence_without_a_colouriser_keeps_its_colours(tmp_path):
    clip = moving(3, channels=3)
    source = save(tmp_path / "in", clip, bit_depth=16)
    result = enhanced(source, tmp_path / "out", doubler=frame_doubler())
    assert result.notes == ()
    assert torch.equal(read_clip(tmp_path / "out").frames[::2], read_clip(source).frames)
    assert Path(result.out) == tmp_path / "out"


def test_total_says_how_many_come():
    assert [Enhancer(frame_doubler()).total(5), Enhancer(frame_doubler(), extrapolate=True).total(5)] == [9, 10]
    assert Enhancer(colouriser=colouriser()).total(5) == 5
