# SPDX-License-Identifier: Apache-2.0
"""Clips out of folders of pictures, against the numbers that the pictures were made from."""

import numpy as np
import pytest
import torch

from pcvideo.data import FrameFolder
from pcvideo.video_io import VideoError

Image = pytest.importorskip("PIL.Image")


def make_clip(folder, count, *, first=0):
    """`count` pictures whose pixels all hold the picture's number."""
    folder.mkdir(parents=True)
    for number in range(first, first + count):
        Image.fromarray(np.full((6, 8), number, np.uint8)).save(folder / f"{number}.png")


def numbers(clip):
    return [round(float(frame.mean()) * 255) for frame in clip]


@pytest.fixture
def root(tmp_path):
    make_clip(tmp_path / "clip10", 7, first=100)
    make_clip(tmp_path / "clip2", 12)
    make_clip(tmp_path / "more" / "clip1", 6, first=50)
    make_clip(tmp_path / ".hidden", 9)
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_every_folder_is_a_clip_cut_into_windows_in_natural_order(root):
    clips = FrameFolder(root, length=5)
    assert [numbers(clip) for clip in clips] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8, 9],
        [100, 101, 102, 103, 104],
        [50, 51, 52, 53, 54],
    ]
    assert [(window.path.name, window.start) for window in clips.windows][:3] == [
        ("clip2", 0),
        ("clip2", 5),
        ("clip10", 0),
    ]


def test_pictures_directly_in_the_root_are_one_clip(root):
    clips = FrameFolder(root / "clip2", length=3, stride=4, interval=2)
    assert [numbers(clip) for clip in clips] == [[0, 2, 4], [4, 6, 8]]


@pytest.mark.parametrize("cache", [False, True])
def test_size_channels_and_cache_give_the_same_numbers(root, cache):
    clips = FrameFolder(root, length=6, size=(3, 4), channels=3, cache=cache)
    assert clips[0].shape == (6, 3, 3, 4)
    assert numbers(clips[0]) == [0, 1, 2, 3, 4, 5]


def test_what_is_too_short_is_listed_and_nothing_at_all_is_an_error(root, tmp_path):
    clips = FrameFolder(root, length=7)
    assert len(clips) == 2
    assert "6 frames, a window needs 7" in clips.skipped[0][1]
    with pytest.raises(VideoError, match=r"no clip of 13 frames.*the longest has 12"):
        FrameFolder(root, length=13)
    with pytest.raises(VideoError, match="holds no pictures"):
        FrameFolder(root / "empty", length=2)
    with pytest.raises(FileNotFoundError):
        FrameFolder(root / "missing", length=2)


def test_a_broken_picture_is_an_error_that_names_it_or_is_left_out_and_listed(root):
    (root / "clip2" / "7.png").write_bytes(b"no picture")
    clips = FrameFolder(root, length=5)
    with pytest.raises(VideoError, match=r"clip2: frame 7 is broken \(7.png"):
        clips[1]
    lenient = FrameFolder(root, length=5, on_error="skip")
    assert numbers(lenient[1]) == [100, 101, 102, 103, 104]
    assert [path.name for path, _ in lenient.skipped] == ["clip2"]
    with pytest.raises(VideoError, match="max_errors=0"):
        FrameFolder(root, length=5, on_error="skip", max_errors=0)[1]
    with pytest.raises(VideoError, match="frame 7 is broken"):
        FrameFolder(root, length=5, cache=True)


def test_a_picture_of_another_size_is_an_error(root):
    Image.fromarray(np.zeros((6, 9), np.uint8)).save(root / "clip2" / "3.png")
    with pytest.raises(VideoError, match=r"3.png is 6x9, 0.png is 6x8"):
        FrameFolder(root, length=5)[0]


def test_items_are_float_clips_in_zero_to_one(root):
    clip = FrameFolder(root, length=5, channels=None)[0]
    assert clip.dtype == torch.float32
    assert clip.shape == (5, 1, 6, 8)
