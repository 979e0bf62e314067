# SPDX-License-Identifier: Apache-2.0
"""Small models with weights that do something, and sequences in which something moves."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from pcvideo.models import FrameDoubler, Grey2RGB, WaveletVFI

HEIGHT, WIDTH = 19, 22


def frame_doubler(*, legacy: bool = False) -> FrameDoubler:
    """One whose state counts: fresh, it gives the blend and no more."""
    torch.manual_seed(0)
    if legacy:
        return FrameDoubler(legacy=True).eval()
    doubler = FrameDoubler(hidden_channels=(4, 6)).eval()
    with torch.no_grad():
        doubler.head.weight.normal_(std=0.3)
        for cell in doubler.cells:
            for parameter in cell.parameters():
                parameter.mul_(3)
    return doubler


def colouriser() -> Grey2RGB:
    torch.manual_seed(1)
    return Grey2RGB(channels=(4,), keep_luminance=True).eval()


def pair_interpolator() -> WaveletVFI:
    torch.manual_seed(2)
    return WaveletVFI(width=0.1).eval()


def moving(count: int, *, level: float = 0.2, channels: int = 1) -> Tensor:
    """A bright block that moves over a slope, (T, C, H, W)."""
    slope = torch.linspace(0, 0.2, WIDTH).expand(count, channels, HEIGHT, WIDTH) + level
    frames = slope.clone()
    for number in range(count):
        left = (2 * number) % (WIDTH - 6)
        frames[number, :, 4:12, left : left + 6] += 0.3
        frames[number, 0, 13:, left : left + 6] -= 0.1
    return frames


def two_scenes(first: int, second: int, *, channels: int = 1) -> Tensor:
    return torch.cat((moving(first, channels=channels), moving(second, level=0.65, channels=channels).clamp(0, 1)))


def contents(folder: Path) -> dict[str, bytes]:
    """The pictures of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".json"}
