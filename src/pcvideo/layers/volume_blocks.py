# SPDX-License-Identifier: Apache-2.0
"""Blocks of AEncGAN3D's networks (github.com/Marchine85/4D-Predictive-GAN-ConvLSTM), as Keras builds them.

Convolutions are 5x5x5. "Same" padding of one with stride 2 is one voxel before and two after, where torch has two on both
sides. LeakyReLU has the slope 0.3, normalisations an eps of 1e-3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo._checks import check_choice, check_int, check_number

__all__ = ["ChannelNorm", "DownBlock", "SameConv3d", "UpBlock", "initialise_glorot", "make_norm"]

SLOPE, EPS, MOMENTUM = 0.3, 1e-3, 0.01
_SIDE = 5


class ChannelNorm(nn.Module):
    """Layer normalisation over the channels alone, each voxel by itself: (B, C, D, H, W) to the same.

    Args:
        channels: C.
        eps: added to the variance.
    """

    def __init__(self, channels: int, *, eps: float = EPS) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(check_int("channels", channels), eps=check_number("eps", eps, minimum=0))

    def forward(self, features: Tensor) -> Tensor:
        """The normalised features."""
        return self.norm(features.movedim(1, -1)).movedim(-1, 1)


def make_norm(kind: str, channels: int) -> nn.Module:
    """Batch normalisation ("batch") with Keras' numbers, or `ChannelNorm` ("channel").

    Raises:
        ValueError: another kind.
    """
    if check_choice("norm", kind, ("batch", "channel")) == "channel":
        return ChannelNorm(channels)
    return nn.BatchNorm3d(channels, eps=EPS, momentum=MOMENTUM)


class SameConv3d(nn.Conv3d):
    """A 5x5x5 convolution that gives `side / stride` voxels a side, padded as Keras' "same".

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: 1 or 2.

    Shape: (B, in_channels, D, H, W) -> (B, out_channels, D / stride, H / stride, W / stride).
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__(in_channels, out_channels, _SIDE, stride=check_choice("stride", stride, (1, 2)))
        self._pad = (2, 2) * 3 if stride == 1 else (1, 2) * 3

    def forward(self, input: Tensor) -> Tensor:
        """The convolved volume."""
        return super().forward(F.pad(input, self._pad))


class DownBlock(nn.Module):
    """A pre-activated residual block: norm, LeakyReLU, dropout, convolution; beside it a 1x1x1 one after a mean over 2**3.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: 1, or 2 to halve the sides.
        norm: "batch" or "channel".
        dropout: the share of features that is left out in training.

    Shape: (B, in_channels, D, H, W) -> (B, out_channels, D / stride, H / stride, W / stride).
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, stride: int = 1, norm: str = "batch", dropout: float = 0.2
    ) -> None:
        super().__init__()
        shrink = nn.AvgPool3d(2) if stride == 2 else nn.Identity()
        project = nn.Conv3d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.shortcut = nn.Sequential(shrink, project)
        self.main = nn.Sequential(
            make_norm(norm, in_channels),
            nn.LeakyReLU(SLOPE),
            nn.Dropout(dropout),
            SameConv3d(in_channels, out_channels, stride=stride),
        )

    def forward(self, features: Tensor) -> Tensor:
        """The sum of both branches."""
        return self.shortcut(features) + self.main(features)


class UpBlock(nn.Module):
    """A pre-activated residual block: batch norm, ReLU, nearest upsampling, transposed convolution; and a 1x1x1 shortcut.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        scale: 1, or 2 to double the sides.

    Shape: (B, in_channels, D, H, W) -> (B, out_channels, D * scale, H * scale, W * scale).
    """

    def __init__(self, in_channels: int, out_channels: int, *, scale: int = 1) -> None:
        super().__init__()
        check_choice("scale", scale, (1, 2))
        grow = nn.Upsample(scale_factor=scale, mode="nearest") if scale == 2 else nn.Identity()
        project = nn.Conv3d(in_channels, out_channels, 1) if in_channels != out_channels else nn.Identity()
        self.shortcut = nn.Sequential(grow, project)
        self.main = nn.Sequential(
            make_norm("batch", in_channels),
            nn.ReLU(),
            grow,
            nn.ConvTranspose3d(in_channels, out_channels, _SIDE, padding=_SIDE // 2),
        )

    def forward(self, features: Tensor) -> Tensor:
        """The sum of both branches."""
        return self.shortcut(features) + self.main(features)


@torch.no_grad()
def initialise_glorot(network: nn.Module) -> None:
    """Every convolution and linear layer as Keras: Glorot-uniform weights, no bias."""
    for module in network.modules():
        if isinstance(module, (nn.Conv3d, nn.ConvTranspose3d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
