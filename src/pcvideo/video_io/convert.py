# SPDX-License-Identifier: Apache-2.0
"""Arrays and tensors to clips: axes, value ranges, NaN, channels and sizes, each with an error that says the mend."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pcvideo._checks import check_choice, check_int, check_number, check_values, describe

__all__ = [
    "VideoError",
    "add_note",
    "arrange",
    "as_tensor",
    "check_frame_size",
    "fit_channels",
    "guess_layout",
    "in_spans",
    "repair_frames",
    "resize_frames",
    "scale_values",
    "to_clip_tensor",
    "to_grey",
]

_AXES = "BTCHW"
_DEFAULT_LAYOUT = {3: "THW", 4: "TCHW", 5: "BTCHW"}
# ITU-R BT.601: the luma that video itself is coded with.
_RED, _BLUE = 0.299, 0.114


class VideoError(ValueError):
    """A video, a picture or an array file can't be read as frames; the message names the path and the mend."""


def to_clip_tensor(
    array: np.ndarray | Tensor,
    *,
    layout: str | None = None,
    value_range: tuple[float, float] | None = None,
    nan: str = "error",
) -> Tensor:
    """An array or tensor as a clip (T, C, H, W), or as a batch (B, T, C, H, W) where it has a batch axis.

    Args:
        array: uint8 (scaled by 255), uint16 (by 65535), bool, or float in [0, 1]; (T, H, W), (T, C, H, W) or
            (B, T, C, H, W) where C is 1 or 3, other axes with `layout`.
        layout: its axes, letters out of "BTCHW", such as "THWC"; T and C may be missing.
        value_range: (low, high) that become 0 and 1; needed for floats outside [0, 1] and for other whole numbers.
        nan: "error", or "repair" to take a NaN's or an infinity's value from that pixel in the frame before, and from
            the next frame that has one at the start.

    Returns:
        float32 in [0, 1] (float64 stays float64), on the tensor's own device.

    Raises:
        TypeError: neither array nor tensor, or a dtype without a known range.
        ValueError: axes that are not clear, values outside the range, or NaN; names the first such frame.
    """
    return convert(array, layout=layout, value_range=value_range, nan=nan, channels=None)[0]


def convert(
    array: Any, *, layout: str | None, value_range: tuple[float, float] | None, nan: str, channels: int | None
) -> tuple[Tensor, list[str]]:
    """`to_clip_tensor`, with notes of what was repaired; `channels` helps to guess the axes."""
    check_choice("nan", nan, ("error", "repair"))
    frames = as_tensor(array)
    frames = arrange(frames, guess_layout(tuple(frames.shape), layout, channels))
    if frames.numel() == 0:
        raise ValueError(f"frames must hold at least one frame and one pixel, got {describe(array)}")
    frames = scale_values(frames, value_range)
    notes: list[str] = []
    time_axis = frames.ndim - 4
    if nan == "repair":
        frames, repaired = repair_frames(frames, time_axis)
        if repaired:
            notes.append(f"NaN or infinity replaced by a neighbouring frame's value in frames {in_spans(repaired)}")
    check_values("frames", frames, time_axis=time_axis)
    return frames.clamp(0, 1), notes


def as_tensor(array: Any) -> Tensor:
    """A numpy array or tensor as a tensor, without gradients; the memory is shared where that is safe."""
    if isinstance(array, Tensor):
        return array.detach()
    if not isinstance(array, np.ndarray):
        raise TypeError(f"frames must be an array or a tensor, got {describe(array)}")
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(f"frames must be uint8, uint16, bool or float, got {describe(array)}")
    # torch takes no negative strides, no foreign byte order and warns of arrays that can't be written to.
    if any(stride < 0 for stride in array.strides) or not array.flags.writeable or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    return torch.from_numpy(array)


def guess_layout(shape: tuple[int, ...], layout: str | None, channels: int | None = None) -> str:
    """The axes of `shape`, as declared or as far as they are clear.

    Raises:
        ValueError: the declared layout does not fit, or two readings are possible; the message gives both.
    """
    if layout is not None:
        return _declared(shape, layout)
    guess = _DEFAULT_LAYOUT.get(len(shape))
    if guess is None:
        raise ValueError(
            f"frames must be (T, H, W), (T, C, H, W) or (B, T, C, H, W), got shape {shape}; "
            f'for a single picture say layout="HW", "CHW" or "HWC"'
        )
    axis = guess.find("C")
    if axis >= 0 and shape[axis] in {1, 3, channels}:
        return guess
    last = "HWC" if axis < 0 else guess[:axis] + "HWC"
    if shape[-1] in {1, 3, 4}:
        raise ValueError(
            f"frames of shape {shape} can be read as ({', '.join(last)}) or as ({', '.join(guess)}): "
            f'say layout="{last}" or layout="{guess}"'
        )
    if axis < 0:
        return guess
    raise ValueError(
        f"frames must be ({', '.join(guess)}) with 1 or 3 channels at axis {axis}, got shape {shape}; "
        f'other axes need layout=, such as layout="{last}" or, without a channel axis, layout="BTHW"'
    )


def _declared(shape: tuple[int, ...], layout: str) -> str:
    letters = layout.upper() if isinstance(layout, str) else ""
    repeated = len(set(letters)) != len(letters)
    if not letters or repeated or set(letters) - set(_AXES) or not {"H", "W"} <= set(letters):
        raise ValueError(
            f'layout must name each axis once by a letter of "{_AXES}", with H and W among them, '
            f'such as "THWC"; got {layout!r}'
        )
    if len(letters) != len(shape):
        raise ValueError(f"layout {layout!r} names {len(letters)} axes, the frames have {len(shape)}: {shape}")
    return letters


def arrange(frames: Tensor, layout: str) -> Tensor:
    """A view of `frames` as (T, C, H, W), or (B, T, C, H, W) where `layout` has a B; missing T and C become 1."""
    frames = frames.permute([layout.index(axis) for axis in _AXES if axis in layout])
    if "C" not in layout:
        frames = frames.unsqueeze(-3)
    if "T" not in layout:
        frames = frames.unsqueeze(-4)
    return frames


def scale_values(frames: Tensor, value_range: tuple[float, float] | None) -> Tensor:
    """Floats in [0, 1] from any dtype with a known range, or from the range that is declared."""
    wide = frames.to(torch.float64 if frames.dtype == torch.float64 else torch.float32)
    if value_range is not None:
        if not isinstance(value_range, (tuple, list)) or len(value_range) != 2:
            raise TypeError(f"value_range must be (low, high), got {describe(value_range)}")
        low, high = (check_number("value_range", bound) for bound in value_range)
        if not low < high:
            raise ValueError(f"value_range must be (low, high) with low below high, got {tuple(value_range)}")
        return (wide - low) / (high - low)
    if frames.dtype == torch.uint8:
        return wide / 255
    if frames.dtype == torch.uint16:
        return wide / 65535
    if frames.is_floating_point() or frames.dtype == torch.bool:
        return wide
    raise TypeError(
        f"frames of dtype {frames.dtype} have no known range: say value_range=(low, high), "
        f"or convert them to uint8 or to float in [0, 1]"
    )


def repair_frames(frames: Tensor, time_axis: int) -> tuple[Tensor, list[int]]:
    """NaN and infinity replaced by the place's value in the frame before, or after; and which frames held one."""
    missing = ~torch.isfinite(frames)
    others = [axis for axis in range(frames.ndim) if axis != time_axis]
    bad = [int(index) for index in missing.sum(others).nonzero().flatten()]
    if not bad:
        return frames, bad
    if bool(missing.all(time_axis).any()):
        raise ValueError("frames: some pixel is NaN or infinite in every frame, there is nothing to repair it from")
    pictures, holes = list(frames.unbind(time_axis)), list(missing.unbind(time_axis))
    # Forward in time first; what is still open lies before the first valid value and is filled from behind.
    for order in (range(1, len(pictures)), range(len(pictures) - 2, -1, -1)):
        step = 1 if order.step > 0 else -1
        for index in order:
            before = index - step
            filled = holes[index] & ~holes[before]
            pictures[index] = torch.where(filled, pictures[before], pictures[index])
            holes[index] = holes[index] & ~filled
    return torch.stack(pictures, time_axis), bad


def to_grey(frames: Tensor) -> Tensor:
    """The luma of RGB frames by ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.

    Args:
        frames: (..., 3, H, W) float; grey frames (..., 1, H, W) come back as they are.

    Returns:
        (..., 1, H, W).

    Raises:
        ValueError: neither 1 nor 3 channels.
    """
    if frames.shape[-3] == 1:
        return frames
    if frames.shape[-3] != 3:
        raise ValueError(f"frames must have 3 channels to be made grey, got {describe(frames)}")
    red, green, blue = frames.unbind(-3)
    # The weights add up to one, so green's is what the others leave; in this form grey stays exactly as it is.
    luma = green + _RED * (red - green) + _BLUE * (blue - green)
    return luma.clamp(0, 1).unsqueeze(-3)


def fit_channels(frames: Tensor, channels: int | None, *, grey: bool, notes: list[str]) -> Tensor:
    """`frames` (..., C, H, W) with the channels asked for: alpha dropped, grey repeated, colour made grey if `grey`.

    Raises:
        ValueError: the channels don't fit, with the mend.
    """
    if channels is not None:
        check_int("channels", channels)
    got = frames.shape[-3]
    if got == channels:
        return frames
    if got == 4:
        add_note(notes, "the alpha channel was dropped")
        frames, got = frames[..., :3, :, :], 3
    if grey and got == 3 and channels in {1, None}:
        add_note(notes, "colour was made grey (ITU-R BT.601)")
        return to_grey(frames)
    if channels in {None, got}:
        return frames
    if channels == 3 and got == 1:
        add_note(notes, "the grey channel was repeated for red, green and blue")
        return frames.expand(*frames.shape[:-3], 3, *frames.shape[-2:])
    hint = "; to_grey=True?" if (channels, got) == (1, 3) else ""
    raise ValueError(f"frames: expects C={channels}, got {got}{hint}")


def check_frame_size(name: str, size: Any) -> tuple[int, int] | None:
    """`size` as (height, width) of whole numbers, or None."""
    if size is None:
        return None
    if not isinstance(size, (tuple, list)) or len(size) != 2:
        raise TypeError(f"{name} must be (height, width), got {describe(size)}")
    return check_int(f"{name}[0]", size[0]), check_int(f"{name}[1]", size[1])


def resize_frames(frames: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Bilinear resize of float frames (..., C, H, W) to (height, width), low-passed where it shrinks (antialias).

    The aspect ratio is not kept; values are held in [0, 1]. None leaves the frames as they are.
    """
    size = check_frame_size("size", size)
    if size is None or tuple(frames.shape[-2:]) == size:
        return frames
    flat = frames.reshape(-1, *frames.shape[-3:])
    resized = F.interpolate(flat, size=size, mode="bilinear", antialias=True, align_corners=False)
    # The weights add up to one only up to rounding.
    return resized.clamp(0, 1).reshape(*frames.shape[:-2], *size)


def add_note(notes: list[str], text: str) -> None:
    """Append a note unless it stands there already."""
    if text not in notes:
        notes.append(text)


def in_spans(indices: list[int]) -> str:
    """Ascending numbers in words: "3, 7-9"."""
    spans: list[list[int]] = []
    for index in indices:
        if spans and index == spans[-1][1] + 1:
            spans[-1][1] = index
        else:
            spans.append([index, index])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
