# SPDX-License-Identifier: Apache-2.0
"""Up-sample, filter, down-sample, without multiplying a zero or computing a sample that is dropped.

Where `up` and `down` both exceed 1, which no layer asks for, all up-sampled ones are computed.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

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
        border: what the image is extended by: "replicate" repeats the edge, "reflect" mirrors about it (it needs more
            samples a side than it adds on one), "zeros"; with "valid" the image has these samples already:
            `N // 2 // up` before the first that counts and `(up - 1 + N // 2) // up` after the last.
        gain: a factor.

    Returns:
        (B, C, ceil(H * up / down), ceil(W * up / down)); with "valid", H and W without the samples around.

    Raises:
        TypeError, ValueError: an argument of another form; the message names it.
    """
    _check(inputs, taps, up, down, border, gain)
    device, dtype = inputs.device.type, inputs.dtype
    if dtype.itemsize == 2 and device == "cpu":
        # In float32, whose depthwise convolution is several times faster there, backward above all.
        return upfirdn2d(inputs.float(), taps, up=up, down=down, border=border, gain=gain).to(dtype)
    taps = taps if taps.dtype == dtype else taps.to(dtype)
    # Where autocast would narrow it, a filter keeps the dtype of its inputs.
    with _without_autocast(device):
        return _filter(inputs, taps, up, down, border, gain)


def _without_autocast(device: str) -> AbstractContextManager[None]:
    # Not every device has it: tensors on "meta", which have a shape alone, don't.
    narrowing = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.autocast(device, enabled=False) if narrowing else nullcontext()


def _filter(inputs: Tensor, taps: Tensor, up: int, down: int, border: str, gain: float) -> Tensor:
    if inputs.device.type == "cpu" and (up > 1 or taps.ndim == 2):
        # Transposed depthwise convolutions, and those along one axis, are several times faster there with the channels
        # last in memory, the conversion included; the others are not.
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    before, after = extension(taps.shape[-1], up)
    extended = inputs if border == "valid" else extend(inputs, before, after, border)
    if taps.shape[0] != inputs.shape[1]:
        taps = taps.expand(inputs.shape[1], *taps.shape[1:])
    kernel = taps.unsqueeze(1) if gain == 1 else gain * taps.unsqueeze(1)
    if taps.ndim == 3:
        return _convolve(extended, kernel, (up, up), (down, down))
    rows = _convolve(extended, kernel.unsqueeze(3), (up, 1), (down, 1))
    return _convolve(rows, taps[:, None, None], (1, up), (1, down))


def _convolve(extended: Tensor, kernel: Tensor, up: tuple[int, int], down: tuple[int, int]) -> Tensor:
    """Filter (B, C, H, W) by (C, 1, rows, columns); the extension is used up along each axis that has several taps."""
    channels = extended.shape[1]
    if up == down == (1, 1) and _in_channels_last_kernel(extended):
        # The same sums as those of a transposed convolution, which is the faster one of the two there.
        margins = (kernel.shape[2] - 1, kernel.shape[3] - 1)
        return F.conv_transpose2d(extended, kernel.flip(2, 3), padding=margins, groups=channels)
    if up == (1, 1):
        return F.conv2d(extended, kernel, stride=down, groups=channels)
    # A transposed convolution lays each input sample's share down where it belongs, so no zero is ever inserted.
    plan = [_plan(side, *each) for side, *each in zip(extended.shape[2:], kernel.shape[2:], up, strict=True)]
    (length, cut, missing), (width, cut_columns, missing_columns) = plan
    spread = F.conv_transpose2d(
        extended,
        kernel.flip(2, 3),
        stride=up,
        padding=(cut, cut_columns),
        output_padding=(missing, missing_columns),
        groups=channels,
    )
    return spread[:, :, : length : down[0], : width : down[1]]


def _in_channels_last_kernel(images: Tensor) -> bool:
    """Whether a depthwise convolution of these runs in oneDNN's kernels for channels last."""
    on_cpu = images.device.type == "cpu" and images.dtype == torch.float32
    return on_cpu and images.is_contiguous(memory_format=torch.channels_last)


def _plan(side: int, taps: int, up: int) -> tuple[int, int, int]:
    """Of one axis: the output's length before decimation, the samples to cut before it, and those to add after it."""
    before, after = extension(taps, up)
    length = (side - before - after) * up
    return length, taps // 2 + up * before, max(0, up * (before + 1 - after) - 1)


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
