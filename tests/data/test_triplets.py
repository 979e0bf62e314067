# SPDX-License-Identifier: Apache-2.0
"""Triplets from videos without changes of scene, from the layouts of the field, and generated with known flows."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from pcvideo.data import MovingPhotographs, TripletFolder, UnknownFlows, VideoTriplets
from pcvideo.ops import backward_warp
from pcvideo.video_io import VideoError, frame_change, write_frames, write_video

pytest.importorskip("av")


def moving(count, level, *, size=(32, 48), step=2):
    """Frames of one brightness with a bar that moves by `step` pixels."""
    frames = torch.full((count, 3, *size), level)
    for number in range(count):
        frames[number, :, :, step * number : step * number + 6] = level + 0.2
    return frames


@pytest.fixture
def videos(tmp_path):
    write_video(tmp_path / "cut.mp4", torch.cat((moving(6, 0.1), moving(5, 0.7))), 25)
    write_video(tmp_path / "still.mp4", torch.full((5, 3, 32, 48), 0.5), 25)
    return tmp_path


@pytest.mark.parametrize("cache", [False, True])
def test_triplets_across_a_change_of_scene_are_left_out(videos, cache):
    triplets = VideoTriplets(videos, include=["cut"], cache=cache)
    assert [window.start for window in triplets.windows] == [0, 1, 2, 3, 6, 7, 8]
    assert triplets[0].shape == (3, 3, 32, 48)
    wide = VideoTriplets(videos, include=["cut"], interval=2, cache=cache)
    assert [window.start for window in wide.windows] == [0, 1, 6]
    with_cuts = VideoTriplets(videos, include=["cut"], cut=1.0, cache=cache)
    assert len(with_cuts) == 9


def test_triplets_in_which_nothing_moves_are_left_out_on_request(videos):
    assert {window.path.stem for window in VideoTriplets(videos).windows} == {"cut", "still"}
    assert {window.path.stem for window in VideoTriplets(videos, least_motion=0.005).windows} == {"cut"}
    with pytest.raises(VideoError, match="none of the 3 triplets is left"):
        VideoTriplets(videos, include=["still"], least_motion=0.005)


def test_the_change_of_a_frame_is_the_mean_difference_of_its_thumbnails():
    before, after = torch.zeros(3, 36, 64), torch.zeros(3, 36, 64)
    after[:, :18] = 0.5
    assert frame_change(before, after) == pytest.approx(0.25, abs=0.03)
    # A thing of a hundredth of the picture, however bright, moves it by a hundredth.
    after = before.clone()
    after[:, :4, :5] = 1
    assert frame_change(before, after) < 0.02
    with pytest.raises(ValueError, match="of one shape"):
        frame_change(before, after[..., 1:])


def pictures_in(folder, names, levels, *, size=(8, 12)):
    """Pictures of one brightness each, under these names."""
    write_frames(folder, torch.tensor(levels).view(-1, 1, 1, 1).expand(-1, 3, *size) / 255)
    for number, name in enumerate(names):
        (folder / f"{number:05d}.png").rename(folder / name)


def levels_of(dataset):
    return [[round(float(frame.mean()) * 255) for frame in triplet] for triplet in dataset]


def test_the_layouts_of_the_field_are_read_in_their_order(tmp_path):
    vimeo = tmp_path / "vimeo"
    for number, name in enumerate(["00001/0001", "00001/0002", "00002/0001"]):
        base = 10 * number
        pictures_in(vimeo / "sequences" / name, ["im1.png", "im2.png", "im3.png"], [base, base + 1, base + 2])
    (vimeo / "tri_trainlist.txt").write_text("00001/0002\n\n")
    (vimeo / "tri_testlist.txt").write_text("00002/0001\n00001/0001\n")
    assert levels_of(TripletFolder(vimeo, layout="vimeo90k", split="train")) == [[10, 11, 12]]
    assert levels_of(TripletFolder(vimeo, layout="vimeo90k", split="test")) == [[20, 21, 22], [0, 1, 2]]
    assert len(TripletFolder(vimeo, layout="vimeo90k")) == 3
    ucf = tmp_path / "ucf"
    for number in (2, 10, 1):
        pictures_in(ucf / str(number), ["frame_00.png", "frame_01_gt.png", "frame_02.png"], [number, 50, 60])
    assert levels_of(TripletFolder(ucf, layout="ucf101")) == [[1, 50, 60], [2, 50, 60], [10, 50, 60]]
    atd = tmp_path / "atd" / "test_2k_540p"
    pictures_in(atd / "Disney_v4", ["frame1.png", "frame2.png", "frame3.png"], [7, 8, 9])
    assert levels_of(TripletFolder(atd.parent, layout="atd12k")) == [[7, 8, 9]]
    middlebury = tmp_path / "middlebury"
    pictures_in(middlebury / "other-data" / "Walking", ["frame10.png", "frame11.png"], [3, 5])
    pictures_in(middlebury / "other-gt-interp" / "Walking", ["frame10i11.png"], [4])
    assert levels_of(TripletFolder(middlebury, layout="middlebury")) == [[3, 4, 5]]
    xiph = tmp_path / "xiph"
    pictures_in(xiph / "BoxingPractice", [f"{number}.png" for number in range(1, 7)], [1, 2, 3, 4, 5, 6])
    assert levels_of(TripletFolder(xiph, layout="xiph")) == [[1, 2, 3], [3, 4, 5]]
    assert len(TripletFolder(xiph, layout="xiph").first(1)) == 1


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tri_testlist\.txt is missing"):
        TripletFolder(tmp_path, layout="vimeo90k", split="test")
    with pytest.raises(VideoError, match="no triplets in the layout of 'ucf101'"):
        TripletFolder(tmp_path, layout="ucf101")
    with pytest.raises(ValueError, match="did you mean 'vimeo90k'"):
        TripletFolder(tmp_path, layout="vimeo90")
    with pytest.raises(ValueError, match="split must be None"):
        TripletFolder(tmp_path, layout="xiph", split="test")


def smooth_picture(seed, size=(96, 96)):
    """Waves of long wavelengths, so that sampling them twice hardly changes them."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = [
        0.5 + 0.25 * np.sin(rows / a + b) + 0.25 * np.sin(columns / c) for a, b, c in generator.uniform(6, 12, (3, 3))
    ]
    return torch.from_numpy(np.stack(waves)).float()


@pytest.mark.parametrize("index", range(4))
def test_the_frames_before_and_after_seen_along_the_flows_are_the_middle_frame(index):
    data = MovingPhotographs([smooth_picture(0)], size=(48, 64), pieces=0, clips=4, speed=6)
    before, between, after = data[index]
    inner = (slice(None), slice(12, -12), slice(12, -12))
    for outer, flow in zip((before, after), data.flows(index), strict=True):
        warped = backward_warp(outer[None], flow[None].float())[0]
        assert (warped - between)[inner].abs().max() < 0.02
    assert (before - after)[inner].abs().mean() > 0.02


def test_a_steady_motion_has_opposite_flows_where_nothing_turns_or_grows():
    data = MovingPhotographs([smooth_picture(0)], size=(32, 32), pieces=0, turn=0, zoom=0, speed=5, clips=3)
    for index in range(3):
        before, after = data.flows(index)
        torch.testing.assert_close(before, -after)
        assert float(after.norm(dim=0).max()) <= 5
        assert float(after.flatten(1).std(1).max()) < 1e-9


def test_flows_can_follow_a_triplet_as_two_frames_and_unknown_ones_are_zeros():
    options = {"size": (32, 48), "speed": 5, "clips": 2}
    clip, plain = (MovingPhotographs([smooth_picture(0)], with_flows=known, **options) for known in (True, False))
    assert clip[1].shape == (5, 3, 32, 48)
    assert torch.equal(clip[1][:3], plain[1])
    for frame, flow in zip(clip[1][3:], plain.flows(1), strict=True):
        torch.testing.assert_close(frame[:2], flow.float())
        assert (frame[2] == 1).all()
    unknown = UnknownFlows()(plain[1])
    assert torch.equal(unknown[:3], plain[1])
    assert unknown[3:].shape == (2, 3, 32, 48)
    assert not unknown[3:].any()
    with pytest.raises(ValueError, match="transform must be None with with_flows"):
        MovingPhotographs([smooth_picture(0)], with_flows=True, transform=UnknownFlows())


def test_a_piece_moves_over_the_background_with_its_own_flow():
    dark, light = torch.zeros(3, 32, 32), torch.ones(3, 32, 32)
    data = MovingPhotographs([dark, light], size=(64, 64), turn=0, zoom=0, speed=6, clips=40, pieces=1)
    mixed = 0
    for index in range(40):
        triplet, (_, after) = data[index], data.flows(index)
        flows = {tuple(flow) for flow in after.flatten(1).T.round(decimals=6).tolist()}
        shades = triplet[1].round().flatten().unique()
        assert len(flows) <= 2
        if len(shades) == 2:
            mixed += 1
            # Each shade is one layer, and has one flow.
            assert len(flows) == 2
            bright = triplet[1][0] > 0.99
            assert float(after[:, bright].std(1).max()) < 1e-9
    assert mixed > 3


def test_triplets_depend_on_seed_epoch_and_index_alone():
    def make(**options):
        return MovingPhotographs([smooth_picture(0)], size=(16, 24), **options)

    assert torch.equal(make(clips=5)[3], make(clips=9)[3])
    assert not torch.equal(make(seed=1)[3], make()[3])
    later = make()
    later.set_epoch(1)
    assert not torch.equal(later[3], make()[3])
    assert make()[0].shape == (3, 3, 16, 24)


def test_scikit_image_s_photographs_are_colour_and_need_no_network():
    data = MovingPhotographs(size=(32, 32), clips=2)
    assert len(data.pictures) == 8
    assert all(picture.shape[0] == 3 and picture.min() >= 0 and picture.max() <= 1 for picture in data.pictures)
    assert torch.isfinite(data[1]).all()


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        MovingPhotographs([])
    with pytest.raises(TypeError, match="pictures must be"):
        MovingPhotographs([torch.zeros(3)])
    with pytest.raises(ValueError, match="at least 16x16"):
        MovingPhotographs([torch.zeros(3, 8, 20)])
    with pytest.raises(ValueError, match="speed"):
        MovingPhotographs([smooth_picture(0)], speed=math.nan)
    with pytest.raises(IndexError):
        MovingPhotographs([smooth_picture(0)], clips=2)[2]
