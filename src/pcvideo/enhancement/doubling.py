# SPDX-License-Identifier: Apache-2.0
"""Frames and the ones between them, one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from pcvideo._checks import check_bool, check_number, check_values, describe
from pcvideo.models import Interpolator
from pcvideo.video_io import CUT, frame_change, to_grey

__all__ = ["carries_state", "check_doubler", "double_frames", "new_scene"]


def double_frames(
    frames: Iterable[Tensor], doubler: Interpolator, *, extrapolate: bool = False, cut: float | None = CUT
) -> Iterator[Tensor]:
    """Every frame as it is, and after it the one halfway to the next, in constant memory.

    Where the scene changes nothing lies between: the frame before is shown again, and the doubler begins anew.

    A doubler of another number of channels serves too: a grey one doubles colour frames plane by plane, one for colour
    doubles grey frames as colour, of which the luma is taken.

    Args:
        frames: (C, H, W) float in [0, 1], C 1 or 3, of one size; two at least.
        doubler: a `FrameDoubler`, which carries a state through a scene, or an interpolator of pairs (`WaveletVFI`).
        extrapolate: also give the frame half a step after the last one, which a `FrameDoubler` alone can.
        cut: how different two frames must be for a change of scene, see `video_io.frame_change`; None looks for none.

    Yields:
        (C, H, W) float32 in [0, 1], on the doubler's device: 2T - 1 of them for T frames, or 2T with `extrapolate`.

    Raises:
        TypeError, ValueError: frames other than that; the message says which.
    """
    check_doubler(doubler, extrapolate)
    check_cut(cut)
    return _doubled(frames, doubler, extrapolate, cut)


def check_doubler(doubler: Any, extrapolate: bool) -> None:
    """Refuse what can't double, and what can't go beyond the last frame if that is wanted."""
    if not isinstance(doubler, Interpolator) or doubler.in_channels not in {1, 3}:
        raise TypeError(
            f"doubler must be an interpolator of 1 or 3 channels, such as a FrameDoubler or a WaveletVFI, got "
            f"{type(doubler).__name__}"
        )
    if check_bool("extrapolate", extrapolate) and not carries_state(doubler):
        raise ValueError(
            f"extrapolate=True needs a FrameDoubler, as a {type(doubler).__name__} looks at both neighbours of a frame"
        )


def check_cut(cut: float | None) -> None:
    """Refuse a cut that is no number of at least 0, or None."""
    if cut is not None:
        check_number("cut", cut, minimum=0)


def carries_state(doubler: Interpolator) -> bool:
    """Whether a frame that is found depends on more than its two neighbours."""
    return hasattr(doubler, "init_state")


def new_scene(before: Tensor, after: Tensor, cut: float | None) -> bool:
    """Whether a scene ends between two frames."""
    return cut is not None and frame_change(before, after) > cut


def _doubled(frames: Iterable[Tensor], doubler: Interpolator, extrapolate: bool, cut: float | None) -> Iterator[Tensor]:
    pending, state, count = _checked(frames, doubler.device), None, 0
    before = next(pending, None)
    while before is not None:
        count += 1
        # Before the next one is read: it may be long in coming, or broken.
        yield before
        after = next(pending, None)
        if after is None and not extrapolate:
            break
        if after is not None and new_scene(before, after, cut):
            state = None
            yield before
        else:
            middle, state = _between(doubler, before, after, state)
            yield middle
        before = after
    if count + extrapolate < 2:
        raise ValueError(f"frames must be two at least, for something to lie between them, got {count}")


def _between(doubler: Interpolator, before: Tensor, after: Tensor | None, state: Any) -> tuple[Tensor, Any]:
    """The frame between two, (C, H, W), and what the doubler carries on."""
    channels, height, width = before.shape
    with torch.no_grad(), doubler._evaluating():
        pair = [None if frame is None else doubler.pad(_for(doubler, frame)) for frame in (before, after)]
        if carries_state(doubler):
            doubling: Any = doubler
            state = doubling.init_state(pair[0]) if state is None else state
            middle, state = doubling.step(*pair, state)
        else:
            middle = doubler(*pair)
    middle = middle[..., :height, :width].float().clamp(0, 1)
    if middle.shape[1] == channels:
        return middle[0], state
    return (middle[:, 0] if channels == 3 else to_grey(middle[0])), state


def _for(doubler: Interpolator, frame: Tensor) -> Tensor:
    """A frame as a batch that the doubler takes: colour planes one by one, or grey as colour."""
    frame = frame.to(doubler.device, doubler.dtype)
    if len(frame) == doubler.in_channels:
        return frame[None]
    return frame[:, None] if doubler.in_channels == 1 else frame[None].expand(1, 3, -1, -1)


def _checked(frames: Iterable[Tensor], device: torch.device) -> Iterator[Tensor]:
    shape = None
    for index, frame in enumerate(frames):
        if not isinstance(frame, Tensor) or not frame.is_floating_point():
            raise TypeError(f"frame {index} must be a float tensor (C, H, W), got {describe(frame)}")
        shape = shape or frame.shape
        if frame.ndim != 3 or frame.shape[0] not in {1, 3} or frame.shape != shape or not frame.numel():
            raise ValueError(
                f"frame {index} must be (1 or 3, H, W), and as the first, which is {tuple(shape)}; got "
                f"{describe(frame)}"
            )
        check_values("frames", frame[None], time_axis=0, first=index, door="read_clip")
        yield frame.to(device, torch.float32)
