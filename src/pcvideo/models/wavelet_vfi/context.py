# SPDX-License-Identifier: Apache-2.0
"""WaveletVFI's context network: what both frames, moved to the middle, and their merge look like at each scale."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo.models.wavelet_vfi.motion import Motion, convolution
from pcvideo.ops import backward_warp

__all__ = ["ContextNetwork", "merge"]

# Flows come in pixels; the network sees them on the scale of colours.
_FLOW_SCALE = 20


class ContextNetwork(nn.Module):
    """Two chains of halving convolutions: one for each frame, whose features are warped; one for the merge.

    Args:
        channels: of either chain at 1/2, 1/4, ... of the frame.
    """

    def __init__(self, *, channels: Sequence[int]) -> None:
        super().__init__()
        self.frame_chain = _chain(3, channels)
        self.merge_chain = _chain(8, channels)

    def forward(self, before: Tensor, after: Tensor, motion: Motion) -> list[Tensor]:
        """The contexts (B, 3 channels, H / 2**k, W / 2**k) for k = 1, 2, ..., fine to coarse."""
        flows = torch.cat((motion.to_before, motion.to_after), dim=1)
        seen = torch.cat((merge(before, after, motion), (flows / _FLOW_SCALE).to(before.dtype)), dim=1)
        merged = torch.cat((seen, motion.share.to(before.dtype)), dim=1)
        contexts = []
        for of_frame, of_merge in zip(self.frame_chain, self.merge_chain, strict=True):
            before, after, merged = of_frame(before), of_frame(after), of_merge(merged)
            flows = F.interpolate(flows, scale_factor=0.5, mode="bilinear", align_corners=False) / 2
            moved = backward_warp(before, flows[:, :2]), backward_warp(after, flows[:, 2:])
            contexts.append(torch.cat((*moved, merged), dim=1))
        return contexts


def merge(before: Tensor, after: Tensor, motion: Motion) -> Tensor:
    """Both frames moved to the middle and mixed, (B, 3, H, W)."""
    share = motion.share.to(before.dtype)
    return share * backward_warp(before, motion.to_before) + (1 - share) * backward_warp(after, motion.to_after)


def _chain(in_channels: int, channels: Sequence[int]) -> nn.ModuleList:
    sizes = [in_channels, *channels]
    return nn.ModuleList(convolution(a, b, stride=2) for a, b in pairwise(sizes))
