# SPDX-License-Identifier: Apache-2.0
"""The one check at the door of every frame metric and frame loss."""

from __future__ import annotations

import torch
from torch import Tensor

from pcvideo._checks import describe

__all__ = ["working_pair"]


def working_pair(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The pair, checked, in the precision to compute in: at least float32.

    Raises:
        TypeError: not tensors, or not floating point.
        ValueError: the shapes differ, have fewer than three axes, or hold no pixels.
    """
    for name, frames in (("prediction", prediction), ("target", target)):
        if not isinstance(frames, Tensor):
            raise TypeError(f"{name} must be a tensor (..., C, H, W), got {describe(frames)}; torch.as_tensor converts")
        if not frames.is_floating_point():
            raise TypeError(f"{name} must be float, got {describe(frames)}; for uint8 divide by 255 first")
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction and target must have the same shape (..., C, H, W), got {tuple(prediction.shape)} "
            f"and {tuple(target.shape)}"
        )
    if prediction.ndim < 3:
        raise ValueError(
            f"prediction and target must be (..., C, H, W), got {describe(prediction)}; "
            f"a single grey picture takes a channel axis with frame[None]"
        )
    if 0 in prediction.shape[-3:]:
        raise ValueError(f"prediction and target must hold at least one pixel per frame, got {describe(prediction)}")
    dtype = torch.promote_types(torch.promote_types(prediction.dtype, target.dtype), torch.float32)
    return prediction.to(dtype), target.to(dtype)
