# SPDX-License-Identifier: Apache-2.0
"""WaveletVFI's synthesis: the frame's wavelet coefficients, coarse to fine, with details only where they are needed.

At each level a detail is wanted where the coarser level's bands stand out: beyond a share (the threshold) of the range
of the coarse frame so far. Two facts save time without changing a number. What is wanted lies within what was wanted at
the level before, and features are computed a pixel beyond it: so within its masks the sparse network computes what the
dense one does, and training can decode for all thresholds from one dense pass. And a band is zero where it is not
wanted, so that the inverse transform needs no mask.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pcvideo.layers.masked_level import MaskedLevel
from pcvideo.models.wavelet_vfi.motion import SLOPE, convolution
from pcvideo.ops import haar_dwt, haar_idwt

__all__ = ["Bands", "Synthesis", "WaveletSynthesis", "analyse"]


class Bands(NamedTuple):
    """The predicted coefficients of a 4-level Haar transform.

    Attributes:
        low: (B, 3, H/16, W/16), the coarse frame; in [0, 16] for frames in [0, 1].
        high: for each scale, fine to coarse, (B, 3, 3, H / 2**k, W / 2**k): colours, then bands in `haar_dwt`'s order.
    """

    low: Tensor
    high: tuple[Tensor, ...]


class Synthesis(NamedTuple):
    """A frame put together from bands under a threshold.

    Attributes:
        frame: (B, 3, H, W), not clamped.
        bands: the coefficients that went in, zero where no detail was wanted.
        masks: for each scale but the coarsest, fine to coarse, (B, 1, H / 2**k, W / 2**k) of zeros and ones.
        cost: (B,), the decoder's multiplications by the paper's count, as a share of those of a dense one.
    """

    frame: Tensor
    bands: Bands
    masks: tuple[Tensor, ...]
    cost: Tensor


class WaveletSynthesis(nn.Module):
    """From the contexts of each scale to a frame.

    Args:
        context_channels: of the contexts, fine to coarse.
        channels: of the features, fine to coarse.
    """

    levels: Any

    def __init__(self, *, context_channels: Sequence[int], channels: Sequence[int]) -> None:
        super().__init__()
        self.coarsest = convolution(context_channels[-1], channels[-1])
        self.to_low = nn.Conv2d(channels[-1], 3, 3, padding=1)
        self.to_high = nn.Conv2d(channels[-1], 9, 3, padding=1)
        self.levels = nn.ModuleList(
            MaskedLevel(skip_channels=skip, parent_channels=parent, channels=inner, out_channels=9, slope=SLOPE)
            for skip, parent, inner in zip(context_channels[:-1], channels[1:], channels[:-1], strict=True)
        )

    def forward(self, contexts: Sequence[Tensor], threshold: Tensor, base: Bands | None = None) -> Synthesis:
        """The frame from contexts, fine to coarse, and a threshold for each sample, (B,), at least 0.

        With `base`, the coefficients are added to these, also where no detail is wanted.
        """
        features, bands = self.coarsest_bands(contexts)

        def details(level: int, mask: Tensor) -> Tensor:
            nonlocal features
            features, outputs = self.levels[level](contexts[level], features, mask, keep_features=level > 0)
            return _as_bands(outputs, 2**level)

        return self._compose(bands, threshold, details, base)

    def dense(self, contexts: Sequence[Tensor]) -> Bands:
        """All coefficients, wanted or not."""
        features, bands = self.coarsest_bands(contexts)
        high = [*bands.high]
        for level in reversed(range(len(self.levels))):
            features, outputs = self.levels[level].dense(contexts[level], features)
            high.insert(0, _as_bands(outputs, 2**level))
        return Bands(bands.low, tuple(high))

    def compose(self, bands: Bands, threshold: Tensor, base: Bands | None = None) -> Synthesis:
        """What `forward` gives, from all coefficients; they can be used for any number of thresholds (B,)."""
        return self._compose(bands, threshold, lambda level, mask: bands.high[level] * mask[:, :, None], base)

    def coarsest_bands(self, contexts: Sequence[Tensor]) -> tuple[Tensor, Bands]:
        """The coarsest features, and the bands that are always computed."""
        features = self.coarsest(contexts[-1])
        scale = 2 ** len(self.levels)
        # A coarse frame is 2**k times the mean of a block, and details are as large at the most.
        return features, Bands(2 * scale * self.to_low(features), (_as_bands(self.to_high(features), scale),))

    def _compose(
        self, bands: Bands, threshold: Tensor, details: Callable[[int, Tensor], Tensor], base: Bands | None
    ) -> Synthesis:
        coarsest = bands.low if base is None else bands.low + base.low
        high = [bands.high[-1] if base is None else bands.high[-1] + base.high[-1]]
        masks: list[Tensor] = []
        low = haar_idwt(coarsest, high[0])
        for level in reversed(range(len(self.levels))):
            mask = _wanted(low, high[0], threshold)
            if base is not None and masks:
                # Bands beyond the mask are not zero here, so that masks are not nested by themselves.
                mask = mask * _doubled(masks[0])
            masks.insert(0, mask)
            found = details(level, mask)
            high.insert(0, found if base is None else found + base.high[level])
            low = haar_idwt(low, high[0])
        return Synthesis(low, Bands(coarsest, tuple(high)), tuple(masks), self._cost(masks))

    def _cost(self, masks: Sequence[Tensor]) -> Tensor:
        pixels = [4.0**-index for index in range(len(masks))]
        costs = [share * level.cost(mask) for share, level, mask in zip(pixels, self.levels, masks, strict=True)]
        most = sum(
            share * (level.features_cost + level.outputs_cost) for share, level in zip(pixels, self.levels, strict=True)
        )
        return torch.stack(costs).sum(0) / most


def analyse(frames: Tensor, levels: int) -> Bands:
    """The coefficients of frames (B, 3, H, W), H and W divisible by 2**levels."""
    high = []
    for _ in range(levels):
        frames, details = haar_dwt(frames)
        high.append(details)
    return Bands(frames, tuple(high))


def _as_bands(outputs: Tensor, scale: int) -> Tensor:
    """Channels (B, 9, H, W) as (B, colours, bands, H, W), scaled."""
    return scale * outputs.unflatten(1, (3, 3))


def _wanted(low: Tensor, high: Tensor, threshold: Tensor) -> Tensor:
    """Where the next details are wanted, (B, 1, H, W), from the coarse frame at that size and the bands at half of it.

    Strictly beyond the threshold, in any colour, as the published code has it: with a threshold of 0, an exact zero
    has no finer details.
    """
    low, high = low.detach(), high.detach()
    extent = low.amax((2, 3), keepdim=True) - low.amin((2, 3), keepdim=True)
    stands_out = high.abs().amax(2) > threshold.view(-1, 1, 1, 1) * extent
    return _doubled(stands_out.any(1, keepdim=True).to(low.dtype))


def _doubled(mask: Tensor) -> Tensor:
    return mask.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
