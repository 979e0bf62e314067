# SPDX-License-Identifier: Apache-2.0
"""A convolution over features that are doubled in size, without doubling them first."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pcvideo._checks import describe

__all__ = ["conv2d_of_doubled"]

# With fewer pixels than this, making the 4x4 filter takes longer than it saves (measured on a CPU).
_FEW_PIXELS = 256


def conv2d_of_doubled(features: Tensor, weight: Tensor, bias: Tensor | None = None, *, padding: int = 1) -> Tensor:
    """`conv2d(interpolate(features, scale_factor=2, mode="nearest"), weight, bias, padding=padding)`, for less.

    Copies of a value lie side by side under the taps of the 3x3 filter, so that one filter of 4x4 taps in the form of a
    transposed convolution does the same: 4 multiplications per channel and pixel where there were 9, and the doubled
    features never stand in memory. The numbers agree but for rounding. Small maps are doubled after all.

    Args:
        features: (B, C, H, W).
        weight: (D, C, 3, 3).
        bias: (D,).
        padding: 1, or 0 to leave out the outermost pixels, which lack neighbours.

    Returns:
        (B, D, 2H, 2W), without padding (B, D, 2H - 2, 2W - 2).

    Raises:
        ValueError: shapes that don't fit, or another padding.
    """
    if features.ndim != 4 or weight.ndim != 4 or weight.shape[1:] != (features.shape[1], 3, 3) or padding not in (0, 1):
        raise ValueError(
            f"features must be (B, C, H, W), weight (D, C, 3, 3) and padding 0 or 1, got {describe(features)}, "
            f"{describe(weight)} and {padding!r}"
        )
    if features.shape[0] * features.shape[2] * features.shape[3] < _FEW_PIXELS:
        return F.conv2d(F.interpolate(features, scale_factor=2, mode="nearest"), weight, bias, padding=padding)
    return F.conv_transpose2d(features, _kernel(weight), bias, stride=2, padding=2 - padding)


def _kernel(weight: Tensor) -> Tensor:
    """The transposed convolution's kernel (C, D, 4, 4) of a filter (D, C, 3, 3), with D last in memory.

    It is the filter, turned by half a circle, convolved with a block of 2x2 ones: first along rows, then columns.
    """
    first, second, third = weight.permute(1, 2, 3, 0).contiguous().unbind(1)
    rows = torch.stack((third, second + third, first + second, first), dim=1)
    first, second, third = rows.unbind(2)
    return torch.stack((third, second + third, first + second, first), dim=2).permute(0, 3, 1, 2)
