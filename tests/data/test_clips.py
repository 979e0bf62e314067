# SPDX-License-Identifier: Apache-2.0
"""Clips out of arrays; windows, seeds and pickling, against slices of the arrays themselves."""

import os
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pcvideo.data import Compose, HorizontalFlip, RandomCrop, TensorClips, cut_windows
from pcvideo.video_io import VideoError


@pytest.fixture
def arrays():
    return np.random.default_rng(0).integers(0, 256, (6, 8, 1, 10, 12), dtype=np.uint8)


def floats(array):
    return torch.from_numpy(array.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("frames", [1, 7, 20, 47, 109])
@pytest.mark.parametrize("interval", [1, 2, 3])
def test_windows_without_a_stride_number_what_the_published_protocol_gives_and_share_no_frame(frames, interval):
    length = 5
    starts = cut_windows(frames, length=length, interval=interval)
    # MSPN: residue i of N frames holds ceil((N - i) / s) frames, and so floor of that over the length windows.
    assert len(starts) == sum(-(-(frames - i) // interval) // length for i in range(interval) if i < frames)
    used = [start + k * interval for start in starts for k in range(length)]
    assert len(set(used)) == len(used)
    assert all(index < frames for index in used)


def test_windows_with_a_stride_start_that_far_apart_and_end_in_the_clip():
    assert cut_windows(20, length=5, stride=4) == [0, 4, 8, 12]
    assert cut_windows(20, length=5, stride=1, interval=4) == [0, 1, 2, 3]
    assert cut_windows(4, length=5, stride=1) == []


@pytest.mark.parametrize("kind", ["array", "tensor", ".npy", ".npz", ".pt"])
def test_each_clip_of_a_batch_is_one_item(arrays, tmp_path, kind):
    path = tmp_path / f"clips{kind}"
    if kind == ".npy":
        np.save(path, arrays)
    elif kind == ".npz":
        np.savez_compressed(path, clips=arrays)
    elif kind == ".pt":
        torch.save(torch.from_numpy(arrays), path)
    source = {"array": arrays, "tensor": torch.from_numpy(arrays)}.get(kind, path)
    clips = TensorClips(source)
    assert len(clips) == 6
    for index in range(6):
        assert torch.equal(clips[index], floats(arrays[index]))
    assert torch.equal(clips[-1], clips[5])
    with pytest.raises(IndexError, match="index 6 is out of range for 6 clips"):
        clips[6]


def test_one_long_clip_is_cut_into_windows(arrays):
    long = arrays.reshape(48, 1, 10, 12)
    clips = TensorClips(long, length=10, interval=2)
    assert [window.start for window in clips.windows] == [0, 1, 20, 21]
    assert torch.equal(clips[3], floats(long[21:41:2]))
    assert len(TensorClips(long, length=10, stride=3)) == 13


def test_the_layout_of_the_standard_moving_mnist_file_can_be_declared(arrays):
    frames_first = np.ascontiguousarray(arrays[:, :, 0].transpose(1, 0, 2, 3))
    clips = TensorClips(frames_first, layout="TBHW")
    assert len(clips) == 6
    assert torch.equal(clips[4], floats(arrays[4]))


def test_size_and_channels_are_those_asked_for(arrays):
    assert TensorClips(arrays, size=(5, 6), channels=3)[0].shape == (8, 3, 5, 6)
    colour = np.repeat(arrays, 3, axis=2)
    assert torch.equal(TensorClips(colour, channels=1)[0], floats(arrays[0]))


def test_a_npy_file_is_mapped_and_not_carried_along_when_pickled(tmp_path):
    path = tmp_path / "long.npy"
    np.save(path, np.zeros((2000, 1, 32, 32), np.uint8))
    clips = TensorClips(path, length=10)
    copy = pickle.dumps(clips)
    assert len(copy) < 100_000 < path.stat().st_size
    assert torch.equal(pickle.loads(copy)[3], clips[3])


def test_a_clip_may_be_changed_without_harm_to_the_source(arrays):
    source = torch.from_numpy(arrays).float() / 255
    clips = TensorClips(source)
    clips[0].zero_()
    assert torch.equal(clips[0], source[0])
    assert float(source[0].max()) > 0


def test_draws_depend_on_seed_epoch_and_index_alone(arrays):
    augment = Compose([RandomCrop((4, 4)), HorizontalFlip()])
    clips = TensorClips(arrays, transform=augment, seed=3)
    first = [clips[index] for index in range(6)]
    backwards = [clips[index] for index in reversed(range(6))][::-1]
    in_workers = [clip[0] for clip in DataLoader(clips, num_workers=2)]
    for a, b, c in zip(first, backwards, in_workers, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    clips.set_epoch(1)
    assert not all(torch.equal(clips[index], first[index]) for index in range(6))
    clips.set_epoch(0)
    assert torch.equal(clips[2], first[2])
    other = TensorClips(arrays, transform=augment, seed=4)
    assert not all(torch.equal(other[index], first[index]) for index in range(6))


def test_a_new_epoch_reaches_workers_that_live_on(arrays):
    clips = TensorClips(arrays, transform=RandomCrop((4, 4)), seed=3)
    loader = DataLoader(clips, num_workers=1, persistent_workers=True)
    list(loader)
    clips.set_epoch(5)
    seen = [clip[0] for clip in loader]
    assert all(torch.equal(clip, clips[index]) for index, clip in enumerate(seen))


def test_bad_sources_are_refused_with_the_mend(arrays, tmp_path):
    with pytest.raises(ValueError, match=r'layout="BTHWC" or layout="BTCHW"'):
        TensorClips(np.zeros((2, 5, 8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match="6 clips of 8 frames; a window needs 9"):
        TensorClips(arrays, length=9)
    with pytest.raises(ValueError, match=r"clip 0, window from frame 0.*value_range"):
        TensorClips(arrays.astype(np.float32))
    holed = arrays.astype(np.float32) / 255
    holed[4, 5] = np.nan
    with pytest.raises(ValueError, match=r"clip 4.*frame 5 holds NaN"):
        TensorClips(holed)[4]
    with pytest.raises(FileNotFoundError, match=r"none.npy"):
        TensorClips(tmp_path / "none.npy")
    with pytest.raises(TypeError, match="transform must be callable"):
        TensorClips(arrays, transform="flip")
    with pytest.raises(TypeError, match="array or a tensor"):
        TensorClips([1, 2])


def test_a_pt_file_with_pickled_code_is_refused_and_never_run(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "sprung"),)

    torch.save(Trap(), tmp_path / "trap.pt")
    with pytest.raises(VideoError, match=r"trap.pt is no plain tensor file.*not run"):
        TensorClips(tmp_path / "trap.pt")
    assert not (tmp_path / "sprung").exists()
