# SPDX-License-Identifier: Apache-2.0
"""Where a frame's channels stand in a model's tensors, so that weights can be carried over to other channels."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["FrameAxis"]


class FrameAxis(NamedTuple):
    """What the entries of a tensor along one axis stand for.

    They are, for each group, for each channel of the frame, for each place of a patch, one entry; then whatever does
    not depend on the frame's channels.
    """

    axis: int
    groups: tuple[str, ...]
    """Images that are taken in or given, in order, such as the errors and the coarser level's prediction."""
    channels: int
    """Channels of the frame."""
    places: int = 1
    """Pixels of a patch."""
    reads: bool = False
    """The tensor takes a sum over these entries, as a convolution's weights do over its inputs."""
