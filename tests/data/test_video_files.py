# SPDX-License-Identifier: Apache-2.0
"""Clips out of video files. Each frame of the files made here shows its own number as its brightness."""

import os
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pcvideo.data import FrameFolder, HorizontalFlip, RandomCrop, TensorClips, VideoFolder, open_clips
from pcvideo.video_io import VideoError, read_clip, write_frames, write_gif

av = pytest.importorskip("av")

SHARED = Path(os.environ.get("PCVIDEO_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data")) / "video"


def make_video(path, count, *, first=0):
    """Lossless grey video (FFV1), so that the numbers come back exactly."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 16, 24, "gray"
        stream.codec_context.gop_size = 1
        for number in range(count):
            frame = av.VideoFrame.from_ndarray(np.full((16, 24), first + number, np.uint8), format="gray")
            frame.pts, frame.time_base = number, Fraction(1, 25)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))


def numbers(clip):
    return [round(float(frame.mean()) * 255) for frame in clip]


@pytest.fixture
def root(tmp_path):
    make_video(tmp_path / "clip10.mkv", 9, first=100)
    make_video(tmp_path / "clip2.mkv", 12)
    make_video(tmp_path / "more" / "walk.mkv", 8, first=50)
    (tmp_path / ".trash.mkv").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("not a video")
    return tmp_path


def test_windows_are_cut_from_all_videos_in_natural_order(root):
    clips = VideoFolder(root, length=4)
    assert [numbers(clip) for clip in clips] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
        [8, 9, 10, 11],
        [100, 101, 102, 103],
        [104, 105, 106, 107],
        [50, 51, 52, 53],
        [54, 55, 56, 57],
    ]
    assert clips[0].shape == (4, 3, 16, 24)
    assert clips[0].dtype == torch.float32
    with pytest.raises(IndexError):
        clips[7]


def test_with_an_interval_every_residue_gives_its_windows(root):
    clips = VideoFolder(root / "clip2.mkv", length=3, interval=2)
    assert [numbers(clip) for clip in clips] == [[0, 2, 4], [1, 3, 5], [6, 8, 10], [7, 9, 11]]
    assert [window.start for window in VideoFolder(root / "clip2.mkv", length=3, interval=2, stride=5).windows] == [
        0,
        5,
    ]


def test_files_can_be_listed_included_and_excluded(root, caplog):
    listed = VideoFolder([root / "clip10.mkv", root / "clip2.mkv"], length=8)
    assert [window.path.name for window in listed.windows] == ["clip10.mkv", "clip2.mkv"]
    for chosen in ({"exclude": "walk"}, {"exclude": ["more/*"]}, {"include": ("clip*",)}, {"exclude": ("walk.mkv",)}):
        names = {window.path.name for window in VideoFolder(root, length=8, **chosen).windows}
        assert names == {"clip2.mkv", "clip10.mkv"}, chosen
    assert not caplog.records
    VideoFolder(root, length=8, exclude="wlak")
    assert "'wlak' matches none" in caplog.text
    with pytest.raises(VideoError, match="leave none"):
        VideoFolder(root, length=8, include="nothing")


def test_the_cache_gives_what_decoding_gives_to_half_a_grey_level(root):
    options = {"length": 4, "size": (5, 7), "channels": 1}
    lazy, cached = VideoFolder(root, **options), VideoFolder(root, cache=True, **options)
    assert lazy.windows == cached.windows
    for a, b in zip(lazy, cached, strict=True):
        assert float((a - b).abs().max()) <= 0.5 / 255 + 1e-6
    (root / "clip2.mkv").unlink()
    assert numbers(cached[0]) == [0, 1, 2, 3]


@pytest.mark.parametrize("cache", [False, True])
def test_workers_give_the_clips_that_one_process_gives(root, cache):
    clips = VideoFolder(root, length=4, transform=RandomCrop((5, 5)), seed=1, cache=cache)
    here = [clips[index] for index in range(len(clips))]
    there = [batch[0] for batch in DataLoader(clips, num_workers=2)]
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    assert torch.equal(pickle.loads(pickle.dumps(clips))[5], here[5])


def test_an_unreadable_file_is_an_error_or_left_out_and_listed_up_to_a_bound(root):
    (root / "broken.mkv").write_bytes(np.random.default_rng(0).bytes(2000))
    (root / "empty.mp4").touch()
    with pytest.raises(VideoError, match=r"broken.mkv is no video file"):
        VideoFolder(root, length=4)
    clips = VideoFolder(root, length=4, on_error="skip")
    assert len(clips) == 7
    assert [path.name for path, _ in clips.skipped] == ["broken.mkv", "empty.mp4"]
    with pytest.raises(VideoError, match=r"more than max_errors=1.*empty.mp4"):
        VideoFolder(root, length=4, on_error="skip", max_errors=1)


def test_a_video_that_breaks_in_the_middle_is_an_error_or_its_window_is_left_out(root):
    path = root / "clip2.mkv"
    with av.open(str(path)) as file:
        payload = [bytes(packet) for packet in file.demux(video=0) if packet.size][5]
    path.write_bytes(path.read_bytes().replace(payload, b"\xff" * len(payload)))
    with pytest.raises(VideoError, match=r"clip2.mkv: frame 5 is broken"):
        VideoFolder(root, length=4)[1]
    clips = VideoFolder(root, length=4, on_error="skip")
    assert numbers(clips[1]) == [8, 9, 10, 11]
    assert len(clips.skipped) == 1
    assert numbers(clips[0]) == [0, 1, 2, 3]


def test_nothing_to_read_is_an_error_at_construction(root, tmp_path):
    (tmp_path / "only").mkdir()
    with pytest.raises(VideoError, match="holds no video files"):
        VideoFolder(tmp_path / "only", length=4)
    with pytest.raises(VideoError, match=r"no clip of 40 frames.*the longest has 12"):
        VideoFolder(root, length=40)
    for name in ("a.mkv", "b.mkv"):
        (tmp_path / "only" / name).write_bytes(b"no video")
    with pytest.raises(VideoError, match=r"no clip of 4 frames"):
        VideoFolder(tmp_path / "only", length=4, on_error="skip")
    with pytest.raises(FileNotFoundError, match=r"gone.mkv"):
        VideoFolder([root / "gone.mkv"], length=4)
    with pytest.raises(ValueError, match="length"):
        VideoFolder(root, length=0)


def test_a_file_that_vanishes_later_is_named(root):
    clips = VideoFolder(root, length=4)
    (root / "clip2.mkv").unlink()
    with pytest.raises(VideoError, match=r"clip2.mkv"):
        clips[0]


def test_a_transform_is_drawn_once_per_clip_and_again_for_each_epoch(root):
    class Recorder:
        def __call__(self, clip, generator):
            return clip * 0 + torch.rand((), generator=generator)

    clips = VideoFolder(root, length=4, transform=Recorder(), seed=2)
    drawn = [float(clip.mean()) for clip in clips]
    assert all(float(clip.std()) < 1e-6 for clip in clips)
    assert len(set(drawn)) == len(clips)
    clips.set_epoch(1)
    assert not set(drawn) & {float(clip.mean()) for clip in clips}


def test_open_clips_picks_by_what_lies_at_the_path(root, tmp_path):
    frames = torch.rand(6, 3, 16, 16)
    write_frames(tmp_path / "pictures" / "clip", frames)
    write_gif(tmp_path / "gifs" / "clip.gif", frames, 10)
    np.save(tmp_path / "array.npy", frames.numpy())
    options = {"length": 3, "transform": HorizontalFlip(0), "seed": 1}
    for path, kind, count in (
        (root / "more", VideoFolder, 2),
        (root / "clip2.mkv", VideoFolder, 4),
        (tmp_path / "gifs", VideoFolder, 2),
        (tmp_path / "pictures", FrameFolder, 2),
        (tmp_path / "array.npy", TensorClips, 2),
    ):
        clips = open_clips(path, **options)
        assert type(clips) is kind
        assert len(clips) == count
    assert len(open_clips(root / "more", cache=True, exclude=(), **options)) == 2
    with pytest.raises(VideoError, match="both videos and pictures"):
        open_clips(tmp_path, **options)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(VideoError, match="neither videos nor pictures"):
        open_clips(tmp_path / "nothing", **options)
    with pytest.raises(FileNotFoundError):
        open_clips(tmp_path / "missing", **options)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared video clips are not here (PCVIDEO_SHARED_DATA)")
def test_real_clips_read_alike_through_windows_and_whole():
    clips = VideoFolder(SHARED, length=10, interval=2, size=(48, 64), include=("walk", "brother"))
    assert {window.path.stem for window in clips.windows} == {"brother", "walk"}
    whole = read_clip(SHARED / "walk.mkv", size=(48, 64)).frames
    last = clips.windows[-1]
    assert torch.equal(clips[len(clips) - 1], whole[last.start :: 2][:10])
