# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage

from pcvideo.data import VOXEL_FORMATS, Compose, CubeSymmetry, RandomTimes, TimeReverse, VoxelScenes, reduce_volumes


def numbered(frames: int = 128) -> np.ndarray:
    """A scene whose frames hold their own number, in binary along the width."""
    volumes = np.zeros((1, frames, 1, 1, 8), np.uint8)
    for bit in range(8):
        volumes[0, :, 0, 0, bit] = np.arange(frames) >> bit & 1
    return volumes


def numbers(clip: torch.Tensor) -> list[int]:
    return (clip[:, 0, 0, 0] * 2 ** torch.arange(8)).sum(1).int().tolist()


@pytest.mark.parametrize(
    ("name", "first", "last", "step"), [("20/1", 54, 73, 1), ("40/2", 44, 82, 2), ("80/4", 24, 100, 4)]
)
def test_a_format_takes_the_published_frames(name: str, first: int, last: int, step: int) -> None:
    clip = VoxelScenes(numbered(), format=name)[0]
    assert numbers(clip) == list(range(first, last + 1, step))
    assert len(clip) == 20
    assert clip.dtype == torch.float32
    assert name in VOXEL_FORMATS


def test_without_a_format_all_frames_are_there_and_too_few_are_refused() -> None:
    assert numbers(VoxelScenes(numbered(), format=None)[0]) == list(range(128))
    with pytest.raises(ValueError, match="takes 80 frames"):
        VoxelScenes(numbered(50))
    with pytest.raises(ValueError, match="80/4"):
        VoxelScenes(numbered(), format="80/5")
    with pytest.raises(ValueError, match="0 and 1 alone"):
        VoxelScenes(np.full((1, 128, 1, 1, 8), 2))


def test_times_are_drawn_from_the_whole_scene_but_for_the_margin() -> None:
    scenes = VoxelScenes(numbered(), format=None, transform=RandomTimes(5, (1, 3), margin=50))
    seen, steps = set(), set()
    for epoch in range(300):
        scenes.set_epoch(epoch)
        found = numbers(scenes[0])
        steps.add(found[1] - found[0])
        assert {after - before for before, after in itertools.pairwise(found)} == {found[1] - found[0]}
        seen.update(found)
    assert steps == {1, 3}
    assert (min(seen), max(seen)) == (50, 77)
    with pytest.raises(ValueError, match="do not fit"):
        RandomTimes(20, (8,))(torch.zeros(128, 1, 2, 2, 2))


def test_the_symmetries_of_the_cube_are_all_48_and_no_other() -> None:
    cube = torch.arange(27.0).view(1, 1, 3, 3, 3)
    expected = set()
    for order in itertools.permutations(range(3)):
        for flips in itertools.product((1, -1), repeat=3):
            turned = np.transpose(cube[0, 0].numpy(), order)[:: flips[0], :: flips[1], :: flips[2]]
            expected.add(turned.tobytes())
    draw = torch.Generator().manual_seed(0)
    found = {CubeSymmetry()(cube, draw).contiguous().numpy().tobytes() for _ in range(1000)}
    assert len(expected) == 48
    assert found == expected


def test_axes_of_unlike_length_stay_in_their_place() -> None:
    draw = torch.Generator().manual_seed(0)
    shapes = {tuple(CubeSymmetry()(torch.zeros(2, 1, 3, 4, 4), draw).shape) for _ in range(50)}
    assert shapes == {(2, 1, 3, 4, 4)}


def test_augmentation_is_one_for_all_frames_and_the_same_again_for_the_same_epoch() -> None:
    volumes = np.random.default_rng(0).integers(0, 2, (1, 6, 3, 3, 3))
    scenes = VoxelScenes(volumes, format=None, transform=Compose([TimeReverse(), CubeSymmetry()]))
    clip = scenes[0]
    assert torch.equal(clip, scenes[0])
    whole = torch.from_numpy(volumes[0]).float()[:, None]
    images = [
        (turned, (time, order, flips))
        for time in (1, -1)
        for order in itertools.permutations(range(3))
        for flips in itertools.product((1, -1), repeat=3)
        for turned in [
            np.transpose(whole.numpy()[::time], (0, 1, *(2 + axis for axis in order)))[
                :, :, :: flips[0], :: flips[1], :: flips[2]
            ]
        ]
    ]
    assert any(np.array_equal(clip.numpy(), image) for image, _ in images)


def test_reducing_is_the_mean_over_blocks_with_a_threshold() -> None:
    volumes = (torch.rand(2, 3, 8, 16, 24, generator=torch.Generator().manual_seed(0)) > 0.5).to(torch.uint8)
    found = reduce_volumes(volumes, 4)
    means = ndimage.uniform_filter(volumes.numpy().astype(float), size=(1, 1, 4, 4, 4), origin=(0, 0, -2, -2, -2))
    assert np.array_equal(found.numpy(), (means[:, :, ::4, ::4, ::4] >= 0.5 - 1e-9).astype(np.uint8))
    assert reduce_volumes(torch.ones(128, 128, 128), 8).shape == (16, 16, 16)
    with pytest.raises(ValueError, match="divisible by factor=8"):
        reduce_volumes(torch.zeros(12, 16, 16))
    with pytest.raises(TypeError, match="tensor"):
        reduce_volumes(np.zeros((8, 8, 8)))
