# SPDX-License-Identifier: Apache-2.0
"""Up-sample, filter, down-sample, without multiplying a zero or computing a sample that is dropped."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pcvideo._checks import check_choice, check_int, check_number, describe
from pcvideo.ops.fir.reference import extend, extension

__all__ = ["upfirdn2d"]

BORDERS = ("replicate", "reflect", "zeros", "valid")


def upfirdn2d(
    inputs: Tensor, taps: Tensor, *, up: int = 1, down: int = 1, border: str = "replicate", gain: float = 1.0
) -> Tensor:
    """Up-sample, filter and down-sample images, each channel by its own filter.

    1. Extend the image on each side by the samples that the filter reaches.
    2. Insert `up - 1` zeros after each row and each column.
    3. Correlate with the taps, centred on each sample.
    4. Keep every `down`-th row and column, from the first.
    5. Multiply by `gain`; `up**2` keeps the brightness of what was up-sampled.

    Args:
        inputs: (B, C, H, W), float.
        taps: (C, N) for a separable filter, whose kernel is the outer product of each row with itself, or (C, N, N)
            for a full one; N is odd. One filter, (1, ...), serves all channels.
        up: how many times more rows and columns.
        down: how many times fewer.
        border: what the image is extended by: "replicate" repeats the edge, "reflect" mirrors about it (it needs an
            image of more than N // 2 / up samples a side), "zeros"; with "valid" the image has these samples already:
            `N // 2 // up` before the first that counts and `(up - 1 + N // 2) // up` after the last.
        gain: a factor.

    Returns:
        (B, C, ceil(H * up / down), ceil(W * up / down)); with "valid", H and W without the samples around.

    Raises:
        TypeError, ValueError: an argument of another form; the message names it.
    """
    _check(inputs, taps, up, down, border, gain)
    before, after = extension(taps.shape[-1], up)
    extended = inputs if border == "valid" else extend(inputs, before, after, border)
    taps = taps.to(inputs.dtype) * gain if taps.ndim == 3 else taps.to(inputs.dtype)
    taps = taps.expand(inputs.shape[1], *taps.shape[1:])
    if taps.ndim == 3:
        return _full(extended, taps, up, down)
    rows = _along(extended, taps * gain if gain != 1 else taps, 2, up, down)
    return _along(rows, taps, 3, up, down)


def _full(extended: Tensor, taps: Tensor, up: int, down: int) -> Tensor:
    channels, size = taps.shape[:2]
    if up == 1:
        return F.conv2d(extended, taps[:, None], stride=down, groups=channels)
    height, width = (side - sum(extension(size, up)) for side in extended.shape[2:])
    phases = [_phase(size, up, phase) for phase in range(up)]
    images = [
        F.conv2d(
            extended[:, :, row : row + height + high - 1, column : column + width + wide - 1],
            taps[:, None, tap_row::up, tap_column::up],
            groups=channels,
        )
        for tap_row, row, high in phases
        for tap_column, column, wide in phases
    ]
    together = torch.stack(images, dim=2).flatten(1, 2)
    return F.pixel_shuffle(together, up)[:, :, ::down, ::down]


def _along(extended: Tensor, taps: Tensor, axis: int, up: int, down: int) -> Tensor:
    """Filter along one axis, whose extension is used up; the other axis keeps its own."""
    channels, size = taps.shape
    shape = (channels, 1, -1, 1) if axis == 2 else (channels, 1, 1, -1)
    if up == 1:
        return F.conv2d(extended, taps.reshape(shape), stride=(down, 1) if axis == 2 else (1, down), groups=channels)
    length = extended.shape[axis] - sum(extension(size, up))
    images = []
    for tap, start, count in (_phase(size, up, phase) for phase in range(up)):
        part = extended.narrow(axis, start, length + count - 1)
        images.append(F.conv2d(part, taps[:, tap::up].reshape(shape), groups=channels))
    together = torch.stack(images, dim=axis + 1).flatten(axis, axis + 1)
    return together if down == 1 else together[(slice(None),) * axis + (slice(None, None, down),)]


def _phase(size: int, up: int, phase: int) -> tuple[int, int, int]:
    """Of the output samples `phase` after an input sample: the first tap that meets one, the first sample it meets in
    the extended input, and how many of its taps meet one."""
    half = size // 2
    tap = (half - phase) % up
    return tap, half // up + (phase + tap - half) // up, len(range(tap, size, up))


def _check(inputs: Tensor, taps: Tensor, up: int, down: int, border: str, gain: float) -> None:
    if not isinstance(inputs, Tensor) or inputs.ndim != 4 or not inputs.is_floating_point():
        raise TypeError(f"inputs must be a float tensor (B, C, H, W), got {describe(inputs)}")
    if not isinstance(taps, Tensor) or taps.ndim not in (2, 3) or not taps.is_floating_point():
        raise TypeError(f"taps must be a float tensor (C, N) or (C, N, N), got {describe(taps)}")
    if taps.shape[-1] % 2 == 0 or (taps.ndim == 3 and taps.shape[1] != taps.shape[2]):
        raise ValueError(f"taps must be (C, N) or (C, N, N) with N odd, got {tuple(taps.shape)}")
    if taps.shape[0] not in (1, inputs.shape[1]):
        raise ValueError(
            f"taps must hold one filter for each of the {inputs.shape[1]} channels, or one for all, got {taps.shape[0]}"
        )
    check_int("up", up)
    check_int("down", down)
    check_choice("border", border, BORDERS)
    check_number("gain", gain)
    before, after = extension(taps.shape[-1], up)
    smallest = before + after + 1 if border == "valid" else max(before, after) + 1 if border == "reflect" else 1
    if min(inputs.shape[2:]) < smallest:
        raise ValueError(
            f"inputs must have at least {smallest} rows and columns for {taps.shape[-1]} taps with border={border!r}, "
            f"got {tuple(inputs.shape[2:])}; border='replicate' takes any size"
        )
