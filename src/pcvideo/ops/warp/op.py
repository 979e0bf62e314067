# SPDX-License-Identifier: Apache-2.0
"""The backward warp's public door: torch's sampler, or the definition where GPU runs must agree bit for bit."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pcvideo._checks import describe
from pcvideo.ops.warp import reference

__all__ = ["backward_warp"]


def backward_warp(frames: Tensor, flow: Tensor) -> Tensor:
    """What each pixel sees at the place its flow points to: bilinear, places outside held at the border.

    Output (x, y) is `frames` at (x + flow_x, y + flow_y). Places are computed in float32 at least: in 16 bit, columns
    beyond 2048 could not be told apart. Torch's sampler does it, whose gradient on a GPU adds up in any order; after
    `torch.use_deterministic_algorithms(True)` the definition in plain torch does it there, which is slower and needs
    more memory. Second derivatives: `pcvideo.ops.warp.reference.backward_warp`; the sampler has none.

    Args:
        frames: (B, C, H, W), float.
        flow: (B, 2, H, W), float: how far to look, in pixels, as (x, y).

    Returns:
        (B, C, H, W) in the dtype of `frames`.

    Raises:
        TypeError: not float tensors.
        ValueError: shapes that don't fit.
    """
    for name, value in (("frames", frames), ("flow", flow)):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise TypeError(f"{name} must be a float tensor, got {describe(value)}")
    if frames.ndim != 4 or flow.shape != (frames.shape[0], 2, *frames.shape[2:]):
        raise ValueError(
            f"frames must be (B, C, H, W) and flow (B, 2, H, W), got {tuple(frames.shape)} and {tuple(flow.shape)}; "
            f"resize the flow to the frames, and its values with it"
        )
    dtype = torch.promote_types(torch.promote_types(frames.dtype, flow.dtype), torch.float32)
    wide, flow = frames.to(dtype), flow.to(dtype)
    if frames.is_cuda and torch.are_deterministic_algorithms_enabled():
        return reference.backward_warp(wide, flow).to(frames.dtype)
    places = _places(flow)
    warped = F.grid_sample(wide, places, mode="bilinear", padding_mode="border", align_corners=True)
    return warped.to(frames.dtype)


def _places(flow: Tensor) -> Tensor:
    """Where the flow points, (B, H, W, 2), with -1 and 1 for the centres of the first and last pixels of an axis."""
    steps = []
    for axis, length in enumerate((flow.shape[3], flow.shape[2])):
        shape = (1, -1) if axis == 0 else (-1, 1)
        pixels = torch.arange(length, dtype=flow.dtype, device=flow.device).view(shape)
        # An axis of one pixel has one place.
        steps.append((pixels + flow[:, axis]) * (2 / max(length - 1, 1)) - 1)
    return torch.stack(steps, dim=-1)
