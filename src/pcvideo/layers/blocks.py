# SPDX-License-Identifier: Apache-2.0
"""The residual block and the U-Net of MSPN (arXiv 2212.11642, Fig. 3), as the published code has them.

The published U-Net also creates a scalar and a last merge convolution that no forward pass uses; both are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pcvideo._checks import check_choice

__all__ = ["EncoderDecoder", "ResidualBlock"]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 shortcut, which is there even where the widths are equal.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        norm: None, or "batch" for the published variant with batch normalisation after each convolution.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W).
    """

    def __init__(self, in_channels: int, out_channels: int, *, norm: str | None = None) -> None:
        super().__init__()
        check_choice("norm", norm, (None, "batch"))
        self.main = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            *_norm(norm, out_channels),
            nn.LeakyReLU(0.01, inplace=True),
            nn.Conv2d(out_channels, out_channels, 3, padding=1),
            *_norm(norm, out_channels),
        )
        self.shortcut = nn.Sequential(nn.Conv2d(in_channels, out_channels, 1), *_norm(norm, out_channels))
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the block."""
        return self.activation(self.main(inputs) + self.shortcut(inputs))


class EncoderDecoder(nn.Module):
    """The U-Net inside a predictive cell; its bottleneck (the latent) can take in that of the coarser level.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        channels: widths from the finest to the coarsest stage; one halving between each two.
        latent_channels: channels of the coarser level's latent; 0 where there is none.
        norm: as in `ResidualBlock`.
        align_corners: of the bilinear up-sampling; the published network aligns corners.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H, W) and the latent (B, channels[-1], H / stride, W / stride),
    with `stride = 2 ** (len(channels) - 1)`.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        latent_channels: int = 0,
        norm: str | None = None,
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        down = list(pairwise(channels))
        up = [(coarse, fine) for fine, coarse in reversed(down)]
        self.stride = 2 ** len(down)
        self.stem = nn.Conv2d(in_channels, channels[0], 5, padding=2)
        self.encoders = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(fine, coarse, norm=norm), nn.MaxPool2d(2), ResidualBlock(coarse, coarse, norm=norm)
            )
            for fine, coarse in down
        )
        self.merge_latent = (
            nn.Conv2d(channels[-1] + latent_channels, channels[-1], 3, padding=1, bias=False)
            if latent_channels
            else None
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(coarse, fine, norm=norm),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners),
                ResidualBlock(fine, fine, norm=norm),
            )
            for coarse, fine in up
        )
        self.merge_skips = nn.ModuleList(nn.Conv2d(2 * fine, fine, 3, padding=1) for _, fine in up[:-1])
        self.head = nn.Conv2d(2 * channels[0], out_channels, 3, padding=1)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def encode(self, inputs: Tensor, latent: Tensor | None = None) -> tuple[Tensor, list[Tensor]]:
        """The latent, merged with the coarser level's where there is one, and the skip features, finest first."""
        features = self.activation(self.stem(inputs))
        skips = []
        for encoder in self.encoders:
            skips.append(features)
            features = encoder(features)
        if self.merge_latent is not None:
            if latent is None:
                raise ValueError("this level merges the coarser level's latent, got latent=None")
            features = self.activation(self.merge_latent(torch.cat([features, latent], dim=1)))
        return features, skips

    def decode(self, latent: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """The output from the latent and the skip features."""
        features = latent
        for stage, (decoder, skip) in enumerate(zip(self.decoders, reversed(skips), strict=True)):
            features = torch.cat([decoder(features), skip], dim=1)
            if stage < len(self.merge_skips):
                features = torch.relu(self.merge_skips[stage](features))
        return self.head(features)

    def forward(self, inputs: Tensor, latent: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode, merge, decode; returns the output and the latent."""
        merged, skips = self.encode(inputs, latent)
        return self.decode(merged, skips), merged


def _norm(norm: str | None, channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels)] if norm == "batch" else []
