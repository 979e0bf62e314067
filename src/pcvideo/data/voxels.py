# SPDX-License-Identifier: Apache-2.0
"""Scenes of voxels over time: the published formats, and augmentation that is exact for them.

The published scenes (github.com/Marchine85/4D-Predictive-GAN-ConvLSTM) are cavities in a cube, 128 frames of 16**3. A
format T/step takes every step-th of the T frames in the middle, 20 frames in all: "20/1", "40/2" and "80/4".
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from torch import Tensor

from pcvideo._checks import check_choice, check_int, check_number, describe
from pcvideo.data.clips import ClipDataset, Transform, Window
from pcvideo.video_io import Scenes, read_scenes

__all__ = ["VOXEL_FORMATS", "CubeSymmetry", "RandomTimes", "VoxelScenes", "reduce_volumes"]

VOXEL_FORMATS: Mapping[str, tuple[int, int]] = MappingProxyType({"20/1": (20, 1), "40/2": (40, 2), "80/4": (80, 4)})
"""The published formats: how many frames in the middle of a scene, and the step through them."""


class VoxelScenes(ClipDataset):
    """Scenes as clips of volumes (T, 1, D, H, W), float32, 0 and 1.

    Args:
        source: path of a packed .npz file, a TFRecord file or a folder of these (see `pcvideo.video_io.read_scenes`);
            or an array (N, T, D, H, W) of 0 and 1.
        format: "20/1", "40/2" or "80/4"; None takes all frames.
        transform: `transform(clip, generator)`; it is handed uint8, which is made float afterwards.
        seed: of the transform's random draws.

    Attributes:
        scenes: the packed scenes and their labels.

    Raises:
        FileNotFoundError, VideoError: as `read_scenes`.
        TypeError, ValueError: an array of another form, or scenes too short for the format.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | np.ndarray | Scenes,
        *,
        format: str | None = "80/4",
        transform: Transform | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(transform=transform, seed=seed)
        self.scenes = _scenes(source)
        self.format = format
        frames = self.scenes.shape[0]
        length, step = (
            (frames, 1) if format is None else VOXEL_FORMATS[check_choice("format", format, (*VOXEL_FORMATS,))]
        )
        if length > frames:
            raise ValueError(f"format {format} takes {length} frames, the scenes have {frames}")
        start = (frames - length) // 2
        self.windows = [
            Window(index, start, len(range(0, length, step)), step) for index in range(len(self.scenes.packed))
        ]

    def load(self, window: Window) -> Tensor:
        """One scene's frames, (T, 1, D, H, W) uint8."""
        frames = self.scenes.unpack(int(window.path))[:, None]
        stop = window.start + window.length * window.interval
        return torch.from_numpy(frames[window.start : stop : window.interval])

    def __getitem__(self, index: int) -> Tensor:
        return super().__getitem__(index).to(torch.float32)


@dataclass(frozen=True)
class RandomTimes:
    """Keep `length` frames at a time drawn once per clip, each step of `steps` as likely as another.

    A scene is as good a sequence wherever it begins; the margins, where the published scenes are empty, can be left out.
    """

    length: int
    steps: Sequence[int] = (1,)
    margin: int = 0

    def __post_init__(self) -> None:
        check_int("length", self.length)
        check_int("margin", self.margin, minimum=0)
        for step in self.steps:
            check_int("steps", step)

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the frames that were drawn."""
        step = self.steps[int(torch.randint(len(self.steps), (), generator=generator))]
        spare = len(clip) - 2 * self.margin - (self.length - 1) * step
        if spare < 1:
            raise ValueError(
                f"{self.length} frames in steps of {step} with a margin of {self.margin} do not fit into {len(clip)} frames"
            )
        start = self.margin + int(torch.randint(spare, (), generator=generator))
        return clip[start : start + (self.length - 1) * step + 1 : step]


@dataclass(frozen=True)
class CubeSymmetry:
    """One of the 48 symmetries of the cube, drawn once per clip (..., D, H, W): axes exchanged, and mirrored.

    Axes of unlike length are not exchanged with one another.
    """

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the clip turned or mirrored."""
        order = torch.randperm(3, generator=generator).tolist()
        sides = clip.shape[-3:]
        if tuple(sides[axis] for axis in order) == tuple(sides):
            clip = clip.permute(*range(clip.ndim - 3), *(clip.ndim - 3 + axis for axis in order))
        mirrored = torch.rand(3, generator=generator) < 0.5
        return clip.flip([axis - 3 for axis in range(3) if mirrored[axis]])


def reduce_volumes(volumes: Tensor, factor: int = 8, *, threshold: float = 0.5) -> Tensor:
    """Binary volumes (..., D, H, W) made `factor` times smaller: the mean over each block, then a threshold.

    The published scenes were made at 128**3 and reduced to 16**3 by a rule that is not published; this is ours.

    Args:
        volumes: of any dtype, (..., D, H, W), with sides divisible by `factor`.
        factor: how many voxels a side become one.
        threshold: a block becomes 1 where its mean is at least this.

    Returns:
        the reduced volumes, in the dtype of `volumes`.

    Raises:
        TypeError, ValueError: no tensor of at least three axes, sides that `factor` doesn't divide, a bad threshold.
    """
    check_int("factor", factor)
    check_number("threshold", threshold, minimum=0, maximum=1)
    if not isinstance(volumes, Tensor) or volumes.ndim < 3:
        raise TypeError(f"volumes must be a tensor (..., D, H, W), got {describe(volumes)}")
    sides = volumes.shape[-3:]
    if any(side < 1 or side % factor for side in sides):
        raise ValueError(f"volumes must have sides divisible by factor={factor}, got {tuple(sides)}")
    split = [part for side in sides for part in (side // factor, factor)]
    blocks = volumes.reshape(*volumes.shape[:-3], *split).to(torch.float32)
    return (blocks.mean((-5, -3, -1)) >= threshold).to(volumes.dtype)


def _scenes(source: str | os.PathLike[str] | np.ndarray | Scenes) -> Scenes:
    if isinstance(source, Scenes):
        return source
    if isinstance(source, (str, os.PathLike)):
        return read_scenes(source)
    volumes = np.asarray(source)
    if volumes.ndim != 5 or not volumes.size or ((volumes != 0) & (volumes != 1)).any():
        raise ValueError(f"source must be an array (N, T, D, H, W) of 0 and 1 alone, got {describe(volumes)}")
    packed = np.packbits(volumes.astype(np.uint8).reshape(len(volumes), -1), axis=1)
    return Scenes(packed, volumes.shape[1:], {})
