# SPDX-License-Identifier: Apache-2.0
"""Halving and doubling between the levels of a pyramid.

MSPN's paper (arXiv 2212.11642) allows interval sampling or pooling; its code takes every second pixel, which aliases.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo._checks import check_choice

__all__ = ["Downsample", "Upsample"]


class Downsample(nn.Module):
    """Half the height and the width.

    Args:
        kind: "nearest" takes the even rows and columns (the published code); "average" pools 2x2 blocks; "binomial"
            filters with (1, 4, 6, 4, 1) / 16 along each axis, edges repeated, and then takes the even ones.

    Shape: (B, C, H, W) -> (B, C, H / 2, W / 2).
    """

    def __init__(self, kind: str = "nearest") -> None:
        super().__init__()
        self.kind = check_choice("kind", kind, ("nearest", "average", "binomial"))

    def forward(self, inputs: Tensor) -> Tensor:
        """Downsample the inputs."""
        if self.kind == "nearest":
            return inputs[..., ::2, ::2]
        if self.kind == "average":
            return F.avg_pool2d(inputs, 2)
        channels = inputs.shape[1]
        taps = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], dtype=inputs.dtype, device=inputs.device) / 16
        padded = F.pad(inputs, (2, 2, 2, 2), mode="replicate")
        rows = F.conv2d(padded, taps.view(1, 1, 5, 1).expand(channels, 1, 5, 1), stride=(2, 1), groups=channels)
        return F.conv2d(rows, taps.view(1, 1, 1, 5).expand(channels, 1, 1, 5), stride=(1, 2), groups=channels)

    def extra_repr(self) -> str:
        """The kind."""
        return repr(self.kind)


class Upsample(nn.Module):
    """Upsample the height and the width by bilinear interpolation.

    Args:
        align_corners: True as published, which shifts the levels' grids by up to half a pixel; False keeps them.

    Shape: (B, C, H, W) -> (B, C, 2H, 2W).
    """

    def __init__(self, *, align_corners: bool = True) -> None:
        super().__init__()
        self.align_corners = align_corners

    def forward(self, inputs: Tensor) -> Tensor:
        """Upsample the inputs."""
        return F.interpolate(inputs, scale_factor=2, mode="bilinear", align_corners=self.align_corners)

    def extra_repr(self) -> str:
        """The alignment."""
        return f"align_corners={self.align_corners}"
