# SPDX-License-Identifier: Apache-2.0
"""One level of a coarse-to-fine decoder that computes only where a mask says so, and saves the time of the rest.

The sparse convolutions of WaveletVFI (Kong et al., TIP 2023, arXiv 2309.03508). The published code convolves everywhere
and multiplies by the mask, which saves nothing. Here a sparse mask is cut into tiles, and the tiles in which anything
is wanted are one batch of dense convolutions; the numbers are the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo.layers.doubled_conv import conv2d_of_doubled
from pcvideo.layers.tiles import active_tiles, gather_tiles, scatter_tiles

__all__ = ["MaskedLevel", "dilate"]

# Measured on a CPU (benchmarks/bench_wavelet_vfi.py): smaller tiles follow a mask more closely, larger ones lose less
# to their halos.
SMALL_MAP, SMALL_TILE, TILE = 64, 8, 16
# Beyond this share of active tiles the halos cost more than what is left out.
FULLEST = 0.75
# A map whose features would take more than this is computed in large tiles, even where all are wanted.
MOST_BYTES, LARGE_TILE = 2**28, 64


class MaskedLevel(nn.Module):
    """Features from a skip and from the features of the coarser level, and outputs from these, within a mask.

        features = leaky_relu(dilate(mask) * conv3x3(cat(skip, double(parent))))
        outputs = mask * conv3x3(features)

    The dilation by one pixel makes the outputs those of dense convolutions. So are the features where `dilate(mask)` is
    one; elsewhere they are zero, or, where everything was computed anyway, what a dense convolution gives. Nobody looks
    at them there as long as the finer level's mask lies within this one's, doubled.

    Args:
        skip_channels: of the skip.
        parent_channels: of the coarser level's features.
        channels: of the features.
        out_channels: of the outputs.
        slope: of the leaky ReLU.
    """

    def __init__(
        self, *, skip_channels: int, parent_channels: int, channels: int, out_channels: int, slope: float = 0.1
    ) -> None:
        super().__init__()
        self.skip_channels, self.slope = skip_channels, slope
        self.to_features = nn.Conv2d(skip_channels + parent_channels, channels, 3, padding=1)
        self.to_outputs = nn.Conv2d(channels, out_channels, 3, padding=1)

    def forward(
        self, skip: Tensor, parent: Tensor, mask: Tensor, *, keep_features: bool = True
    ) -> tuple[Tensor | None, Tensor]:
        """Features and outputs, by tiles where that is faster: without gradients, outside `torch.compile`.

        Args:
            skip: (B, skip_channels, H, W), with even H and W.
            parent: (B, parent_channels, H/2, W/2).
            mask: (B, 1, H, W) of zeros and ones, in the dtype of `skip`.
            keep_features: False gives None for the features, which saves their memory.

        Returns:
            features (B, channels, H, W), and outputs (B, out_channels, H, W).
        """
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling():
            size = self.tile(skip)
            tiles = active_tiles(mask, size)
            count = mask.shape[0] * (-(-mask.shape[2] // size)) * (-(-mask.shape[3] // size))
            if len(tiles) <= FULLEST * count or size == LARGE_TILE:
                return self.tiled(skip, parent, mask, tiles, size, keep_features=keep_features)
        features, outputs = self.dense(skip, parent)
        return (features if keep_features else None), outputs * mask

    def dense(self, skip: Tensor, parent: Tensor) -> tuple[Tensor, Tensor]:
        """Features and outputs everywhere, as with a mask of ones."""
        weight = self.to_features.weight
        hidden = F.conv2d(skip, weight[:, : self.skip_channels], self.to_features.bias, padding=1)
        hidden = hidden + conv2d_of_doubled(parent, weight[:, self.skip_channels :])
        features = F.leaky_relu(hidden, self.slope)
        return features, self.to_outputs(features)

    def tile(self, skip: Tensor) -> int:
        """The side of a tile for a map of this size."""
        samples, _, height, width = skip.shape
        if samples * height * width * self.to_features.out_channels * skip.element_size() > MOST_BYTES:
            return LARGE_TILE
        return SMALL_TILE if min(height, width) < SMALL_MAP else TILE

    def tiled(
        self, skip: Tensor, parent: Tensor, mask: Tensor, tiles: Tensor, size: int, *, keep_features: bool = True
    ) -> tuple[Tensor | None, Tensor]:
        """Features and outputs of these tiles (see `active_tiles`) of an even size; zeros elsewhere."""
        samples, _, height, width = mask.shape
        padded = (-(-height // size) * size, -(-width // size) * size)
        outputs = _zeros(skip, (samples, self.to_outputs.out_channels, *padded))
        features = None
        if keep_features:
            features = _zeros(skip, (samples, self.to_features.out_channels, padded[0] + 2, padded[1] + 2))
        weight = self.to_features.weight
        skip_weight, parent_weight = weight[:, : self.skip_channels], weight[:, self.skip_channels :]
        dilated = dilate(mask)
        for chunk in tiles.split(self._tiles_at_once(size, skip.element_size())):
            hidden = F.conv2d(gather_tiles(skip, chunk, size, 2), skip_weight, self.to_features.bias)
            hidden += conv2d_of_doubled(gather_tiles(parent, chunk, size // 2, 1), parent_weight, padding=0)
            hidden = F.leaky_relu(hidden * gather_tiles(dilated, chunk, size, 1), self.slope)
            values = F.conv2d(hidden, self.to_outputs.weight, self.to_outputs.bias) * gather_tiles(mask, chunk, size)
            scatter_tiles(outputs, values, chunk, size)
            if features is not None:
                scatter_tiles(features, hidden, chunk, size, 1)
        if features is not None:
            features = features[..., 1 : height + 1, 1 : width + 1]
        return features, outputs[..., :height, :width]

    def cost(self, mask: Tensor) -> Tensor:
        """The paper's count for each sample, (B,): multiplications per pixel and filter tap, within the mask."""
        wide, share = (part.float().mean((1, 2, 3)) for part in (dilate(mask), mask))
        return wide * self.features_cost + share * self.outputs_cost

    @property
    def features_cost(self) -> int:
        """Multiplications per pixel and filter tap for the features."""
        return self.to_features.in_channels * self.to_features.out_channels

    @property
    def outputs_cost(self) -> int:
        """Multiplications per pixel and filter tap for the outputs."""
        return self.to_outputs.in_channels * self.to_outputs.out_channels

    def _tiles_at_once(self, size: int, item_bytes: int) -> int:
        """How many tiles may be in work at a time."""
        pixels = (size + 4) ** 2 * self.skip_channels + 2 * (size + 2) ** 2 * self.to_features.out_channels
        return max(1, MOST_BYTES // (pixels * item_bytes))


def dilate(mask: Tensor) -> Tensor:
    """A mask of zeros and ones, grown by one pixel in all eight directions."""
    return F.max_pool2d(mask, 3, stride=1, padding=1)


def _zeros(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    samples, channels, height, width = shape
    return like.new_zeros(samples, height, width, channels).permute(0, 3, 1, 2)
