# SPDX-License-Identifier: Apache-2.0
"""`open_frames`: files, arrays and generators as one kind of stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pcvideo.video_io import open_frames, write_frames, write_video

pytest.importorskip("av")
Image = pytest.importorskip("PIL.Image")


def eighths(count=6):
    """Whole numbers of 8 bits in colour, (T, 3, 4, 6)."""
    return np.random.default_rng(0).integers(0, 256, (count, 3, 4, 6), dtype=np.uint8)


def stacked(opened, first=0):
    return torch.stack(list(opened.frames(first)))


def test_pictures_arrays_and_generators_give_the_same_frames_from_any_number_on(tmp_path):
    values = eighths()
    truth = torch.from_numpy(values.astype(np.float32)) / 255
    write_frames(tmp_path / "pictures", torch.from_numpy(values))
    np.save(tmp_path / "clip.npy", values)
    sources = [
        tmp_path / "pictures",
        sorted((tmp_path / "pictures").iterdir()),
        tmp_path / "clip.npy",
        values,
        truth,
        [Image.fromarray(picture.transpose(1, 2, 0)) for picture in values],
    ]
    for source in sources:
        opened = open_frames(source)
        assert (opened.count, opened.size, opened.bit_depth, opened.repeatable) == (6, (4, 6), 8, True)
        for first in (0, 4, 0):
            torch.testing.assert_close(stacked(opened, first), truth[first:], atol=1e-7, rtol=0)
        part = open_frames(source, start=1, stop=4)
        assert part.count == 3
        torch.testing.assert_close(stacked(part, 1), truth[2:4], atol=1e-7, rtol=0)
    once = open_frames((frame for frame in values), start=1, stop=4)
    assert (once.count, once.size, once.repeatable) == (None, None, False)
    torch.testing.assert_close(stacked(once), truth[1:4], atol=1e-7, rtol=0)


def test_a_generator_is_asked_for_no_frame_before_its_turn():
    asked = []

    def source():
        for number in range(1000):
            asked.append(number)
            yield torch.zeros(1, 2, 2)

    frames = open_frames(source()).frames()
    assert asked == []
    next(frames)
    assert asked == [0]


def test_size_and_channels_hold_for_every_kind(tmp_path):
    values = eighths(2)
    write_video(tmp_path / "clip.mkv", torch.from_numpy(values), 10)
    for source in (tmp_path / "clip.mkv", values, iter(values)):
        opened = open_frames(source, size=(2, 3), channels=1, to_grey=True)
        assert stacked(opened).shape == (2, 1, 2, 3)
    assert open_frames(tmp_path / "clip.mkv").rate == 10


def test_what_is_no_frame_is_named_by_its_number():
    good = torch.zeros(1, 2, 2)
    for source, kind, words in [
        (iter([good, good + 2]), ValueError, "frame 1 ranges over"),
        (iter([good, good[0]]), ValueError, "frame 1 must be"),
        (iter([good, good.int()]), TypeError, "no known range"),
        (5, TypeError, "source must be a path"),
    ]:
        with pytest.raises(kind, match=words):
            list(open_frames(source).frames())
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_frames("none.npy")
