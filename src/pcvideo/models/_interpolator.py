# SPDX-License-Identifier: Apache-2.0
"""What every interpolator has: the frame between two, clips of any size in constant memory, saving and loading."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from pcvideo._checks import check_choice, check_number, check_size, check_values, describe
from pcvideo.models._frames import FrameNetwork

__all__ = ["FACTORS", "Interpolator"]

logger = logging.getLogger(__name__)

FACTORS = (2, 4, 8, 16)


class Interpolator(FrameNetwork):
    """A network that gives the frame in the middle between two; subclass it and give `forward(before, after)`.

    A subclass that keeps every constructor argument as an attribute of the same name has a `config`, and so saves and
    loads like the models here.

    Attributes:
        size_multiple: what divides a frame's height and width.
        in_channels: channels C of a frame.
    """

    in_channels: int = 3

    def forward(self, before: Tensor, after: Tensor) -> Tensor:
        """The frame in the middle of the time between two frames.

        Args:
            before, after: (B, C, H, W) float in [0, 1], of one size that `size_multiple` divides.

        Returns:
            (B, C, H, W) in the dtype of `before`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def middle(self, before: Tensor, after: Tensor) -> Tensor:
        """The frame in the middle of two; `forward`, unless that takes whole clips. Arguments and result as there."""
        return self(before, after)

    @torch.no_grad()
    def interpolate(
        self,
        clip: Any,
        factor: int = 2,
        *,
        cut: float | None = 0.15,
        layout: str | None = None,
        value_range: tuple[float, float] | None = None,
        nan: str = "error",
    ) -> Tensor:
        """A clip with `factor` times as many frames a second, each frame of it unchanged; see `stream`.

        Args:
            clip: a path (video file, GIF, folder of images, .npy, .npz, .pt), an array or tensor (T, C, H, W) or
                (B, T, C, H, W), float in [0, 1] or uint8, or a list of pictures; any size, two frames at least.
            factor, cut: as in `stream`.
            layout: the axes of an array where they are not (T, C, H, W), such as "THWC".
            value_range: (low, high) of float values outside [0, 1].
            nan: "error", or "repair" to take a NaN's value from the frame before.

        Returns:
            ((T - 1) * factor + 1, C, H, W) float32 in [0, 1] on the model's device, with the batch axis in front if
            the clip had it. A clip that is too long for the memory goes through `stream`.

        Raises:
            TypeError, ValueError: the clip can't be read as frames, or has fewer than two; the message names the frame
                and the mend.
        """
        return self._interpolate(clip, factor, self, cut=cut, layout=layout, value_range=value_range, nan=nan)

    def stream(self, frames: Iterable[Tensor], factor: int = 2, *, cut: float | None = 0.15) -> Iterator[Tensor]:
        """Frames as they come, and the ones between them, in constant memory.

        The middle of each pair, then the middles of the halves, and so on: every frame stands where its time is. Where
        the scene changes nothing lies between: the frames of the first half of the gap repeat the one before, the
        others the one after.

        Args:
            frames: (C, H, W) float in [0, 1], of one size; such as `pcvideo.video_io.iter_frames` gives them.
            factor: 2, 4, 8 or 16 times as many frames a second.
            cut: how different two frames must be for a change of scene, see `video_io.frame_change`; None looks for
                none.

        Yields:
            (C, H, W) float32 in [0, 1], clamped, on the model's device; (T - 1) * factor + 1 of them for T frames.

        Raises:
            TypeError, ValueError: frames of different sizes, out of range or with NaN, or fewer than two.
        """
        return self._stream(frames, factor, self, cut=cut)

    def _interpolate(
        self,
        clip: Any,
        factor: int,
        middle: Callable[[Tensor, Tensor], Tensor],
        *,
        cut: float | None,
        layout: str | None,
        value_range: tuple[float, float] | None,
        nan: str,
        to_grey: bool = False,
    ) -> Tensor:
        from pcvideo.video_io import read_clip, to_clip_tensor  # noqa: PLC0415
        from pcvideo.video_io.convert import fit_channels  # noqa: PLC0415

        _check_factor(factor)
        axes = getattr(clip, "ndim", 0)
        if axes == 5 or (axes > 0 and "B" in str(layout or "").upper()):
            batch = to_clip_tensor(clip, layout=layout, value_range=value_range, nan=nan)
            batch = fit_channels(batch, self.in_channels, grey=to_grey, notes=[])
            return torch.stack([torch.stack(list(self._stream(frames, factor, middle, cut=cut))) for frames in batch])
        read = read_clip(
            clip, channels=self.in_channels, layout=layout, value_range=value_range, nan=nan, to_grey=to_grey
        )
        return torch.stack(list(self._stream(read.frames, factor, middle, cut=cut)))

    def _stream(
        self,
        frames: Iterable[Tensor],
        factor: int,
        middle: Callable[[Tensor, Tensor], Tensor],
        *,
        cut: float | None,
    ) -> Iterator[Tensor]:
        _check_factor(factor)
        if cut is not None:
            check_number("cut", cut, minimum=0)
        return self._between_all(frames, factor, middle, cut)

    def _between_all(
        self, frames: Iterable[Tensor], factor: int, middle: Callable[[Tensor, Tensor], Tensor], cut: float | None
    ) -> Iterator[Tensor]:
        count, last = 0, None
        for count, (before, after) in enumerate(pairwise(self._checked(frames)), start=1):  # noqa: B007
            yield before
            yield from self._between(before, after, factor, middle, cut)
            last = after
        if last is None:
            raise ValueError("clip must have at least two frames, for something to lie between them; got fewer")
        yield last

    def _checked(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        shape = None
        for index, frame in enumerate(frames):
            if not isinstance(frame, Tensor) or frame.ndim != 3 or not frame.is_floating_point():
                raise TypeError(f"frame {index} must be a float tensor (C, H, W), got {describe(frame)}")
            shape = shape or frame.shape
            if frame.shape != shape or frame.shape[0] != self.in_channels or not frame.numel():
                raise ValueError(
                    f"frame {index} must be ({self.in_channels}, H, W) and of the size of the first, {tuple(shape)}, "
                    f"got {describe(frame)}; read_clip(..., channels={self.in_channels}, size=...) brings them together"
                )
            check_values("clip", frame[None], time_axis=0, first=index, door="interpolate")
            yield frame.to(self.device, torch.float32)

    def _between(
        self,
        before: Tensor,
        after: Tensor,
        factor: int,
        middle: Callable[[Tensor, Tensor], Tensor],
        cut: float | None,
    ) -> Iterator[Tensor]:
        """The `factor - 1` frames between two, in order; at most one for each halving is held at a time."""
        from pcvideo.video_io import frame_change  # noqa: PLC0415

        if cut is not None and frame_change(before, after) > cut:
            for step in range(1, factor):
                yield before if 2 * step <= factor else after
            return
        height, width = before.shape[-2:]
        with torch.no_grad(), self._evaluating():
            padded = (self.pad(frame[None]) for frame in (before, after))
            between = middle(*padded)[0, :, :height, :width].clamp(0, 1)
        if factor > 2:
            yield from self._between(before, between, factor // 2, middle, None)
        yield between
        if factor > 2:
            yield from self._between(between, after, factor // 2, middle, None)

    def _check_pair(self, before: Tensor, after: Tensor) -> None:
        """Refuse anything but two float batches (B, C, H, W) of one size that fits, with values in [0, 1]."""
        for name, frames in (("before", before), ("after", after)):
            if not isinstance(frames, Tensor) or not frames.is_floating_point():
                raise TypeError(f"{name} must be a float tensor (B, C, H, W), got {describe(frames)}")
            if frames.ndim != 4 or frames.shape[1] != self.in_channels or not frames.shape[0]:
                raise ValueError(f"{name} must be (B, {self.in_channels}, H, W), got {describe(frames)}")
        if before.shape != after.shape:
            raise ValueError(
                f"before and after must have one shape, got {tuple(before.shape)} and {tuple(after.shape)}"
            )
        height, width = before.shape[2:]
        check_size("before and after", height, width, self.size_multiple, door="interpolate")
        for name, frames in (("before", before), ("after", after)):
            check_values(name, frames, time_axis=0, unit="sample", door="interpolate")


def _check_factor(factor: int) -> int:
    return int(check_choice("factor", factor, FACTORS))
