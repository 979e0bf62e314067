# SPDX-License-Identifier: Apache-2.0
"""Space to depth and back, for images and volumes: fewer places, more channels, and nothing is lost."""

from __future__ import annotations

from torch import Tensor

from pcvideo._checks import check_int, describe

__all__ = ["from_patches", "to_patches"]


def to_patches(frames: Tensor, patch: int) -> Tensor:
    """Every patch of side `patch` as one place: (B, C, *space) to (B, C * patch**n, *(side / patch)) in n dimensions.

    The order of the channels is that of `torch.nn.functional.pixel_unshuffle`: C first, then the place in the patch.

    Raises:
        TypeError, ValueError: `patch` is no whole number of at least 1, or does not divide a side.
    """
    check_int("patch", patch)
    if patch == 1:
        return frames
    sides = frames.shape[2:]
    if any(side % patch for side in sides):
        raise ValueError(f"frames must have sides divisible by patch={patch}, got {describe(frames)}")
    split = [part for side in sides for part in (side // patch, patch)]
    count = len(sides)
    apart = frames.reshape(*frames.shape[:2], *split)
    places, within = range(2, 2 + 2 * count, 2), range(3, 3 + 2 * count, 2)
    together = apart.permute(0, 1, *within, *places)
    return together.reshape(frames.shape[0], frames.shape[1] * patch**count, *(side // patch for side in sides))


def from_patches(frames: Tensor, patch: int) -> Tensor:
    """What `to_patches` was given: (B, C * patch**n, *space) to (B, C, *(side * patch)).

    Raises:
        TypeError, ValueError: `patch` is no whole number of at least 1, or its power does not divide the channels.
    """
    check_int("patch", patch)
    if patch == 1:
        return frames
    sides = frames.shape[2:]
    count = len(sides)
    if frames.shape[1] % patch**count:
        raise ValueError(f"frames must have channels divisible by {patch}**{count}, got {describe(frames)}")
    channels = frames.shape[1] // patch**count
    apart = frames.reshape(frames.shape[0], channels, *(patch,) * count, *sides)
    order = [axis for index in range(count) for axis in (2 + count + index, 2 + index)]
    return apart.permute(0, 1, *order).reshape(frames.shape[0], channels, *(side * patch for side in sides))
