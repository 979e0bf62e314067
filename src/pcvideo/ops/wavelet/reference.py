# SPDX-License-Identifier: Apache-2.0
"""The Haar transform (Haar 1910), orthonormal: of each block of 2x2 pixels its mean, doubled, and three differences."""

from __future__ import annotations

import torch
from torch import Tensor

from pcvideo._checks import describe

__all__ = ["check_bands", "check_even", "haar_dwt", "haar_idwt"]


def haar_dwt(frames: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the Haar transform.

    A block [[a, b], [c, d]] becomes (a + b + c + d) / 2 and, in this order, (a + b - c - d) / 2, which sees horizontal
    edges, (a - b + c - d) / 2, which sees vertical ones, and (a - b - c + d) / 2.

    Args:
        frames: (..., H, W), float, with even H and W.

    Returns:
        the coarse frame (..., H/2, W/2), in [0, 2] for frames in [0, 1], and the details (..., 3, H/2, W/2).

    Raises:
        TypeError: not a float tensor.
        ValueError: an odd height or width.
    """
    check_even("frames", frames)
    a, b = frames[..., 0::2, 0::2], frames[..., 0::2, 1::2]
    c, d = frames[..., 1::2, 0::2], frames[..., 1::2, 1::2]
    above, below, above_across, below_across = a + b, c + d, a - b, c - d
    low = (above + below) / 2
    details = (above - below, above_across + below_across, above_across - below_across)
    return low, torch.stack(details, dim=-3) / 2


def haar_idwt(low: Tensor, high: Tensor) -> Tensor:
    """The frames whose `haar_dwt` is (low, high); it is the transposed matrix, too.

    Args:
        low: (..., H, W), float.
        high: (..., 3, H, W).

    Returns:
        (..., 2H, 2W).

    Raises:
        TypeError: not float tensors.
        ValueError: shapes that don't fit.
    """
    check_bands(low, high)
    across, down, both = high.unbind(-3)
    left, right = (low + down) / 2, (low - down) / 2
    left_down, right_down = (across + both) / 2, (across - both) / 2
    above = torch.stack((left + left_down, right + right_down), dim=-1).flatten(-2)
    below = torch.stack((left - left_down, right - right_down), dim=-1).flatten(-2)
    return torch.stack((above, below), dim=-2).flatten(-3, -2)


def check_even(name: str, frames: Tensor) -> None:
    """Refuse anything but a float tensor (..., H, W) of even sides."""
    if not isinstance(frames, Tensor) or not frames.is_floating_point():
        raise TypeError(f"{name} must be a float tensor (..., H, W), got {describe(frames)}")
    if frames.ndim < 2 or frames.shape[-2] % 2 or frames.shape[-1] % 2 or 0 in frames.shape[-2:]:
        raise ValueError(
            f"{name} must be (..., H, W) with an even height and width, got {describe(frames)}; repeat the last row or "
            f"column, and crop after the way back"
        )


def check_bands(low: Tensor, high: Tensor) -> None:
    """Refuse anything but float tensors (..., H, W) and (..., 3, H, W)."""
    for name, bands in (("low", low), ("high", high)):
        if not isinstance(bands, Tensor) or not bands.is_floating_point():
            raise TypeError(f"{name} must be a float tensor, got {describe(bands)}")
    if low.ndim < 2 or high.shape != (*low.shape[:-2], 3, *low.shape[-2:]):
        raise ValueError(
            f"low must be (..., H, W) and high (..., 3, H, W), got {tuple(low.shape)} and {tuple(high.shape)}"
        )
