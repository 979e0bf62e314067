# SPDX-License-Identifier: Apache-2.0
"""Up-sample, filter, down-sample, step by step: the definition, which multiplies every inserted zero."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["extend", "extension", "upfirdn2d_reference"]


def upfirdn2d_reference(
    inputs: Tensor, taps: Tensor, *, up: int = 1, down: int = 1, border: str = "replicate", gain: float = 1.0
) -> Tensor:
    """What `upfirdn2d` does, in the order in which its docstring tells it."""
    height, width = (
        side - before - after for side, (before, after) in zip(*_sides(inputs, taps, up, border), strict=True)
    )
    before, after = extension(taps.shape[-1], up)
    extended = inputs if border == "valid" else extend(inputs, before, after, border)
    spaced = extended.new_zeros(*extended.shape[:2], extended.shape[2] * up, extended.shape[3] * up)
    spaced[:, :, ::up, ::up] = extended
    kernel = taps if taps.ndim == 3 else taps[:, :, None] * taps[:, None, :]
    # Where the first sample is no multiple of `up` away from the filter's first tap, an inserted zero stands there.
    lead = taps.shape[-1] // 2 - before * up
    spaced = F.pad(spaced, (lead, 0, lead, 0))
    channels = inputs.shape[1]
    filtered = F.conv2d(spaced, kernel.expand(channels, -1, -1)[:, None], groups=channels)
    return gain * filtered[:, :, : height * up : down, : width * up : down]


def extension(taps: int, up: int) -> tuple[int, int]:
    """How many samples a centred filter of `taps` taps needs before the first and after the last one."""
    half = taps // 2
    return half // up, (up - 1 + half) // up


def extend(inputs: Tensor, before: int, after: int, border: str) -> Tensor:
    """The inputs (B, C, H, W) with so many samples more on each side of both axes."""
    if border == "zeros":
        return F.pad(inputs, (before, after, before, after))
    return F.pad(inputs, (before, after, before, after), mode=border)


def _sides(inputs: Tensor, taps: Tensor, up: int, border: str) -> tuple[torch.Size, list[tuple[int, int]]]:
    around = extension(taps.shape[-1], up) if border == "valid" else (0, 0)
    return inputs.shape[2:], [around, around]
