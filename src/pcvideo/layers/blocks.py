# SPDX-License-Identifier: Apache-2.0
"""The residual block and the U-Net of MSPN (arXiv 2212.11642, Fig. 3), as the published code has them.

The published U-Net also creates a scalar and a last merge convolution that no forward pass uses; both are left out. It
takes in skip features and latents by concatenation; the other kinds of fusion are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from pcvideo._checks import check_choice
from pcvideo.layers.modulated_conv import ModulatedConv

__all__ = ["FUSIONS", "AddConv", "ConcatConv", "EncoderDecoder", "ResidualBlock"]

FUSIONS = ("concat", "modulate", "add")


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


class ConcatConv(nn.Conv2d):
    """A 3x3 convolution of features and others side by side.

    Args:
        channels: channels of the features.
        other_channels: channels of the others; None is `channels`.
        out_channels: channels of the output; None is `channels`.
        bias: the convolution has one.

    Shape: features (B, channels, H, W), other (B, other_channels, H, W) -> (B, out_channels, H, W).
    """

    # Itself the convolution, so that its weights have the names that the published ones have.
    def __init__(
        self, channels: int, *, other_channels: int | None = None, out_channels: int | None = None, bias: bool = True
    ) -> None:
        other_channels = channels if other_channels is None else other_channels
        out_channels = channels if out_channels is None else out_channels
        super().__init__(channels + other_channels, out_channels, 3, padding=1, bias=bias)

    def forward(self, features: Tensor, other: Tensor) -> Tensor:  # type: ignore[override]
        """Fuse the features with the others."""
        return super().forward(torch.cat([features, other], dim=1))


class AddConv(nn.Module):
    """A 3x3 convolution of the sum of features and others; a 1x1 convolution first widens or narrows the others to fit.

    Args, shape: as `ConcatConv`. Where the widths are equal, there is no 1x1 convolution.
    """

    def __init__(
        self, channels: int, *, other_channels: int | None = None, out_channels: int | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        other_channels = channels if other_channels is None else other_channels
        self.match = nn.Conv2d(other_channels, channels, 1, bias=False) if other_channels != channels else nn.Identity()
        self.conv = nn.Conv2d(channels, channels if out_channels is None else out_channels, 3, padding=1, bias=bias)

    def forward(self, features: Tensor, other: Tensor) -> Tensor:
        """Fuse the features with the others."""
        return self.conv(features + self.match(other))


class EncoderDecoder(nn.Module):
    """The U-Net inside a predictive cell; its bottleneck (the latent) can take in that of the coarser level.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        channels: widths from the finest to the coarsest stage; one halving between each two.
        latent_channels: channels of the coarser level's latent; 0 where there is none.
        norm: as in `ResidualBlock`.
        align_corners: of the bilinear up-sampling; the published network aligns corners.
        fusion: how its own features take in the skip features and the coarser level's latent: "concat" as published
            (`ConcatConv`), "modulate" (these modulate its own, `ModulatedConv`) or "add" (`AddConv`). The skip features
            of the finest stage are taken in by the head.

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
        fusion: str = "concat",
    ) -> None:
        super().__init__()
        check_choice("fusion", fusion, FUSIONS)
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
            _fusion(fusion, channels[-1], other_channels=latent_channels, bias=False) if latent_channels else None
        )
        self.decoders = nn.ModuleList(
            nn.Sequential(
                ResidualBlock(coarse, fine, norm=norm),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=align_corners),
                ResidualBlock(fine, fine, norm=norm),
            )
            for coarse, fine in up
        )
        self.merge_skips = nn.ModuleList(_fusion(fusion, fine) for _, fine in up[:-1])
        self.head = _fusion(fusion, channels[0], out_channels=out_channels)
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
            features = self.activation(self.merge_latent(features, latent))
        return features, skips

    def decode(self, latent: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """The output from the latent and the skip features."""
        finest, *coarser = skips
        *decoders, last = self.decoders
        features = latent
        for decoder, merge, skip in zip(decoders, self.merge_skips, reversed(coarser), strict=True):
            features = torch.relu(merge(decoder(features), skip))
        return self.head(last(features), finest)

    def forward(self, inputs: Tensor, latent: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Encode, merge, decode; returns the output and the latent."""
        merged, skips = self.encode(inputs, latent)
        return self.decode(merged, skips), merged


def _fusion(
    fusion: str,
    channels: int,
    *,
    other_channels: int | None = None,
    out_channels: int | None = None,
    bias: bool = True,
) -> nn.Module:
    """A module of features and others, with no activation, as the places it stands at have their own."""
    if fusion == "modulate":
        return ModulatedConv(channels, modulator_channels=other_channels, out_channels=out_channels, activation=None)
    kind = ConcatConv if fusion == "concat" else AddConv
    return kind(channels, other_channels=other_channels, out_channels=out_channels, bias=bias)


def _norm(norm: str | None, channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels)] if norm == "batch" else []
