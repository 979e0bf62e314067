# SPDX-License-Identifier: Apache-2.0
"""WaveletVFI's motion perception network: two flows from the middle, what to take from which frame, which threshold."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo.ops import backward_warp

__all__ = ["SLOPE", "Motion", "MotionNetwork", "convolution"]

SLOPE = 0.1
# What a decoder gives: two flows of two components, and the logit of the merge mask.
_OUTPUTS = 5


class Motion(NamedTuple):
    """What moved, seen from the middle.

    Attributes:
        to_before: (B, 2, H, W), flow from the middle to the frame before, in pixels, as (x, y); float32 at least.
        to_after: (B, 2, H, W), to the frame after.
        share: (B, 1, H, W), how much of a pixel comes from the frame before, in [0, 1].
        logits: (B, thresholds), what the classifier says for each threshold.
    """

    to_before: Tensor
    to_after: Tensor
    share: Tensor
    logits: Tensor


class MotionNetwork(nn.Module):
    """Flows from coarse to fine: at each scale the features are warped by the flows so far, and these are refined.

    Args:
        channels: of the features at 1/2, 1/4, ... of the frame.
        decoder_channels: of the decoders that work on them.
        thresholds: how many the classifier chooses among.
    """

    def __init__(self, *, channels: Sequence[int], decoder_channels: Sequence[int], thresholds: int) -> None:
        super().__init__()
        before = [3, *channels[:-1]]
        self.encoders = nn.ModuleList(
            nn.Sequential(convolution(fewer, more, stride=2), convolution(more, more))
            for fewer, more in zip(before, channels, strict=True)
        )
        extra = [_OUTPUTS] * (len(channels) - 1) + [0]
        self.decoders = nn.ModuleList(
            FlowDecoder(2 * features + flows, inner)
            for features, flows, inner in zip(channels, extra, decoder_channels, strict=True)
        )
        self.classifier = ThresholdClassifier(decoder_channels[-1], thresholds)
        self.apply(_initialise)

    def forward(self, before: Tensor, after: Tensor) -> Motion:
        """Flows, mask and logits for frames (B, 3, H, W) in [0, 1], H and W divisible by 2 for each scale."""
        scales, logits = self.scales(before, after)
        finest = scales[-1]
        return Motion(finest[:, :2], finest[:, 2:4], finest[:, 4:].sigmoid(), logits)

    def scales(self, before: Tensor, after: Tensor) -> tuple[list[Tensor], Tensor]:
        """What each scale has found, for training; arguments as in `forward`.

        Returns:
            for each decoder, coarse to fine, (B, 5, H / s, W / s), s falling to 1: the flows to the frames before and
            after, in pixels of that scale, and the logit of the mask; and the thresholds' logits.
        """
        # One number for both frames and all colours, so that brightness does not matter.
        mean = torch.cat((before, after), dim=1).mean((1, 2, 3), keepdim=True)
        features_before, features_after = self._features(before - mean), self._features(after - mean)
        coarsest = torch.cat((features_before[-1], features_after[-1]), dim=1)
        inner, outputs = self.decoders[-1](coarsest)
        logits = self.classifier(inner)
        # Sums over scales; 16 bits would lose fractions of pixels.
        scales = [outputs.to(torch.promote_types(outputs.dtype, torch.float32))]
        for level in reversed(range(len(self.decoders) - 1)):
            flow = scales[-1]
            warped = [
                backward_warp(features[level], flow[:, part])
                for features, part in ((features_before, slice(0, 2)), (features_after, slice(2, 4)))
            ]
            _, outputs = self.decoders[level](torch.cat((*warped, flow.to(before.dtype)), dim=1))
            scales.append(outputs + _doubled(flow))
        return scales, logits

    def _features(self, frames: Tensor) -> list[Tensor]:
        """Features from 1/2 of the frame on, fine to coarse."""
        features = []
        for encoder in self.encoders:
            frames = encoder(frames)
            features.append(frames)
        return features


class FlowDecoder(nn.Module):
    """Five convolutions, and one that doubles the size and gives the flows and the logit."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        sizes = [in_channels, *[channels] * 5]
        self.body = nn.Sequential(*(convolution(fewer, more) for fewer, more in pairwise(sizes)))
        self.head = nn.ConvTranspose2d(channels, _OUTPUTS, 4, stride=2, padding=1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The inner features (B, channels, H, W), and the outputs (B, 5, 2H, 2W)."""
        inner = self.body(features)
        return inner, self.head(inner)


class ThresholdClassifier(nn.Module):
    """Says from the coarsest features how much detail a frame needs."""

    def __init__(self, channels: int, thresholds: int) -> None:
        super().__init__()
        self.convolution = convolution(channels, channels, stride=2)
        self.inner = nn.Linear(channels, channels)
        self.logits = nn.Linear(channels, thresholds)

    def forward(self, features: Tensor) -> Tensor:
        """The logits (B, thresholds) of features (B, channels, H, W)."""
        pooled = self.convolution(features).mean((2, 3))
        return self.logits(F.leaky_relu(self.inner(pooled), SLOPE))


def convolution(in_channels: int, out_channels: int, *, stride: int = 1) -> nn.Sequential:
    """The 3x3 convolution and leaky ReLU that the network is made of."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, stride, 1), nn.LeakyReLU(SLOPE))


def _doubled(flow: Tensor) -> Tensor:
    """Flows and the logit at twice the size; flows are in pixels, so they double too."""
    larger = F.interpolate(flow, scale_factor=2, mode="bilinear", align_corners=False)
    return larger * larger.new_tensor([2, 2, 2, 2, 1]).view(1, -1, 1, 1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.kaiming_normal_(module.weight)
        nn.init.zeros_(module.bias)  # type: ignore[arg-type]
