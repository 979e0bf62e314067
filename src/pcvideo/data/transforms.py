# SPDX-License-Identifier: Apache-2.0
"""Transforms of whole clips: each draws once per clip, so that all frames of a clip are treated alike.

A transform is called as `transform(clip, generator)` with a clip (T, C, H, W), float in [0, 1]; all its random draws
come from the generator, which the data set seeds for each clip. Without one they come from torch's default generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pcvideo._checks import check_int, check_number, describe
from pcvideo.video_io import resize_frames, to_grey
from pcvideo.video_io.convert import check_frame_size

__all__ = [
    "CenterCrop",
    "Compose",
    "Enlarge",
    "HorizontalFlip",
    "LivelyCrop",
    "MovingCrop",
    "RandomCrop",
    "Resize",
    "ReverseChannels",
    "TimeReverse",
    "ToGrey",
    "Transpose",
    "VerticalFlip",
]


# Side of the squares of pixels in which motion is looked for.
_BLOCK = 8


@dataclass(frozen=True)
class Resize:
    """Resize to (height, width): bilinear, low-passed where it shrinks; the aspect ratio is not kept."""

    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_given_size(self.size)

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the resized clip."""
        return resize_frames(clip, self.size)


@dataclass(frozen=True)
class CenterCrop:
    """Keep the middle (height, width); a clip smaller than that is an error."""

    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_given_size(self.size)

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the cropped clip."""
        spare_height, spare_width = _spare(clip, self.size)
        return _crop(clip, spare_height // 2, spare_width // 2, self.size)


@dataclass(frozen=True)
class RandomCrop:
    """Keep (height, width) at a place drawn once per clip; a clip smaller than that is an error."""

    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_given_size(self.size)

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the cropped clip."""
        top, left = (int(torch.randint(spare + 1, (), generator=generator)) for spare in _spare(clip, self.size))
        return _crop(clip, top, left, self.size)


@dataclass(frozen=True)
class LivelyCrop:
    """Of several places drawn for a crop of (height, width), keep the one where most happens from first to last frame.

    In most places of a clip from a fixed camera nothing moves, and there is little to learn there.

    Args:
        size: (height, width); a clip smaller than that is an error.
        tries: places that are drawn.
    """

    size: tuple[int, int]
    tries: int = 4

    def __post_init__(self) -> None:
        _check_given_size(self.size)
        check_int("tries", self.tries)

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the cropped clip."""
        crop = RandomCrop(self.size)
        crops = [crop(clip, generator) for _ in range(self.tries)]
        return max(crops, key=lambda each: float((each[-1] - each[0]).abs().mean()))


@dataclass(frozen=True)
class MovingCrop:
    """Keep (height, width) about a place where something moves; a clip smaller than that is an error.

    The place is drawn with a probability in proportion to how much the first frame and the last one differ there, and
    lies anywhere in the crop. What does not move is drawn rarely, but is drawn; where nothing moves, any place is.
    """

    size: tuple[int, int]

    def __post_init__(self) -> None:
        _check_given_size(self.size)

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the cropped clip."""
        spare = _spare(clip, self.size)
        change = (clip[-1] - clip[0]).abs().mean(0)
        # Blocks, since single pixels are many and noisy.
        blocks = F.avg_pool2d(change[None], _BLOCK, ceil_mode=True)[0]
        place = int(torch.multinomial((blocks + 1e-4).flatten(), 1, generator=generator))
        corners = []
        for number, room, side in zip(divmod(place, blocks.shape[1]), spare, self.size, strict=True):
            before = int(torch.randint(side, (), generator=generator))
            corners.append(min(max(_BLOCK * number + _BLOCK // 2 - before, 0), room))
        return _crop(clip, corners[0], corners[1], self.size)


@dataclass(frozen=True)
class HorizontalFlip:
    """Mirror left to right, with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check_number("p", self.p, minimum=0, maximum=1)

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the clip or its mirror image."""
        return clip.flip(-1) if _drawn(self.p, generator) else clip


@dataclass(frozen=True)
class VerticalFlip:
    """Turn top to bottom, with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check_number("p", self.p, minimum=0, maximum=1)

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the clip or its mirror image."""
        return clip.flip(-2) if _drawn(self.p, generator) else clip


@dataclass(frozen=True)
class Transpose:
    """Swap rows and columns, with probability `p`; the sides of a frame change places, so that a square stays one."""

    p: float = 0.05

    def __post_init__(self) -> None:
        check_number("p", self.p, minimum=0, maximum=1)

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the clip or its mirror image."""
        return clip.transpose(-1, -2) if _drawn(self.p, generator) else clip


@dataclass(frozen=True)
class ReverseChannels:
    """Take the colours in the other order, blue for red, with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check_number("p", self.p, minimum=0, maximum=1)

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the clip or the clip in other colours."""
        return clip.flip(-3) if _drawn(self.p, generator) else clip


@dataclass(frozen=True)
class Enlarge:
    """Enlarge by one of `factors`, each with probability `p`, and else not at all; bilinear.

    Before a crop: motion that is as many times larger, and blurred as if the lens were.
    """

    factors: Sequence[int] = (2, 4)
    p: float = 0.15

    def __post_init__(self) -> None:
        for factor in self.factors:
            check_int("factors", factor, minimum=2)
        if not self.factors:
            raise ValueError("factors must hold at least one number, got none")
        check_number("p", self.p, minimum=0, maximum=1 / len(self.factors))

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the clip (T, C, H, W), or the clip (T, C, factor * H, factor * W)."""
        draw = float(torch.rand((), generator=generator, dtype=torch.float64))
        for number, factor in enumerate(self.factors, start=1):
            if draw < number * self.p:
                return resize_frames(clip, (factor * clip.shape[-2], factor * clip.shape[-1]))
        return clip


@dataclass(frozen=True)
class TimeReverse:
    """Play backwards, with probability `p`."""

    p: float = 0.5

    def __post_init__(self) -> None:
        check_number("p", self.p, minimum=0, maximum=1)

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the clip or the clip played backwards."""
        return clip.flip(-4) if _drawn(self.p, generator) else clip


@dataclass(frozen=True)
class ToGrey:
    """Colour to one grey channel by ITU-R BT.601; grey stays as it is."""

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the clip with one channel."""
        return to_grey(clip)


class Compose:
    """One transform after the other, all drawing from the same generator.

    Args:
        transforms: callables `transform(clip, generator)`.

    Raises:
        TypeError: one of them is not callable.
    """

    def __init__(self, transforms: Sequence[Callable[..., Tensor]]) -> None:
        for index, transform in enumerate(transforms):
            if not callable(transform):
                raise TypeError(f"transforms[{index}] must be callable, got {describe(transform)}")
        self.transforms = tuple(transforms)

    def __call__(self, clip: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return the clip after the last transform."""
        for transform in self.transforms:
            clip = transform(clip, generator)
        return clip

    def __repr__(self) -> str:
        return f"Compose({list(self.transforms)})"


def _drawn(p: float, generator: torch.Generator | None) -> bool:
    return bool(torch.rand((), generator=generator) < p)


def _check_given_size(size: tuple[int, int]) -> None:
    if check_frame_size("size", size) is None:
        raise TypeError("size must be (height, width), got None")


def _spare(clip: Tensor, size: tuple[int, int]) -> tuple[int, int]:
    height, width = clip.shape[-2] - size[0], clip.shape[-1] - size[1]
    if height < 0 or width < 0:
        raise ValueError(
            f"a crop of {size[0]}x{size[1]} does not fit into frames of {clip.shape[-2]}x{clip.shape[-1]}; "
            f"use a smaller crop, or Resize before it"
        )
    return height, width


def _crop(clip: Tensor, top: int, left: int, size: tuple[int, int]) -> Tensor:
    return clip[..., top : top + size[0], left : left + size[1]]
