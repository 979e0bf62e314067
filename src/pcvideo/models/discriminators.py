# SPDX-License-Identifier: Apache-2.0
"""The frame discriminator of MSPN's adversarial training (Ling et al., arXiv 2212.11642), as the published code has it.

It judges one frame at a time and knows nothing of time. The published one is bound to a frame size, since its last
convolution is as large as what is left of the frame there. The form for any size is ours: that convolution becomes a
1x1 one with an activation, whose features are averaged over all places. Ours, too, are each frame normalised by itself
and the form without batch normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from pcvideo._checks import check_choice, check_int, describe
from pcvideo.layers import ResidualBlock

__all__ = ["FrameDiscriminator"]

# The widths between the last feature map and the score; the published code has no choice of them.
_FEATURES, _HIDDEN = 1024, 256

# A quarter of one of 256 grey levels: a frame of less contrast is plain, and what is left of it is rounding.
_LEAST_STD = 1e-3


class FrameDiscriminator(nn.Module):
    """A score for each frame, without bounds: the higher, the more it looks like a real one.

    A 7x7 convolution with no activation; for each pair of neighbouring widths a `ResidualBlock` and a 2x2 max-pooling,
    which leaves out the last row or column of an odd size; `gather`, to 1024 features; two linear layers with a
    LeakyReLU between them.

    The published one is `FrameDiscriminator(size=(height, width), normalize="batch")`, at 128x128 with 14,812,609
    parameters. By default it takes any size from `smallest_size` on, with 6,948,289.

    Args:
        channels: widths, finest first; one halving between each two, so there are at least two.
        in_channels: channels C of a frame.
        size: (height, width) of all frames, as published: `gather` is one convolution over all that is left of the
            frame. None, any size: `gather` is a 1x1 convolution, a LeakyReLU and the mean over all places.
        normalize: by which mean and standard deviation (unbiased, over all channels; at least 0.001) frames are
            normalised: "frame" by each frame's own, so that brightness and contrast don't count; "batch" by those of
            the whole batch, as published, so that a score depends on the batch-mates; None leaves frames as they are.
        norm: of the residual blocks: "batch" as published, by which scores depend on the batch-mates in training mode;
            or None, as a penalty on the gradient of single scores wants it.

    Attributes:
        smallest_size: the least height, and the least width, that the halvings leave something of.

    Shape: (B, C, H, W), float, usually in [0, 1] -> (B,), in the dtype of the weights.

    Raises:
        TypeError, ValueError: an argument out of its range or of another type, or frames that don't fit it; the message
            names it.
    """

    def __init__(
        self,
        *,
        channels: Sequence[int] = (64, 64, 128, 256, 256, 512),
        in_channels: int = 3,
        size: Sequence[int] | None = None,
        normalize: str | None = "frame",
        norm: str | None = "batch",
    ) -> None:
        super().__init__()
        self.channels = _check_widths(channels)
        self.in_channels = check_int("in_channels", in_channels)
        self.smallest_size = 2 ** (len(self.channels) - 1)
        self.size = _check_size(size, self.smallest_size)
        self.normalize = check_choice("normalize", normalize, ("frame", "batch", None))
        self.norm = check_choice("norm", norm, ("batch", None))
        self.stem = nn.Conv2d(in_channels, self.channels[0], 7, padding=3)
        self.stages = nn.Sequential()
        for fine, coarse in pairwise(self.channels):
            self.stages.extend([ResidualBlock(fine, coarse, norm=norm), nn.MaxPool2d(2)])
        self.gather = self._make_gather()
        self.head = nn.Sequential(nn.Linear(_FEATURES, _HIDDEN), nn.LeakyReLU(0.01), nn.Linear(_HIDDEN, 1))

    def forward(self, frames: Tensor) -> Tensor:
        """The scores (B,) of frames (B, C, H, W)."""
        self._check_frames(frames)
        features = self.gather(self.stages(self.stem(self._normalized(frames))))
        return self.head(features.flatten(1)).squeeze(1)

    def _make_gather(self) -> nn.Module:
        if self.size is not None:
            left = (self.size[0] // self.smallest_size, self.size[1] // self.smallest_size)
            return nn.Conv2d(self.channels[-1], _FEATURES, left)
        # The activation comes before the mean, so that each place is judged; after it, or with none, it would be the
        # mean place, and the 1x1 convolution and the next linear layer would be one linear map.
        return nn.Sequential(
            nn.Conv2d(self.channels[-1], _FEATURES, 1), nn.LeakyReLU(0.01, inplace=True), nn.AdaptiveAvgPool2d(1)
        )

    def _normalized(self, frames: Tensor) -> Tensor:
        if self.normalize is None:
            return frames
        axes = (1, 2, 3) if self.normalize == "frame" else (0, 1, 2, 3)
        mean = frames.mean(axes, keepdim=True)
        # Bounded before the root, whose derivative at zero is infinite.
        std = frames.var(axes, keepdim=True).clamp(min=_LEAST_STD**2).sqrt()
        return (frames - mean) / std

    def _check_frames(self, frames: Any) -> None:
        if not isinstance(frames, Tensor):
            raise TypeError(f"frames must be a tensor (B, C, H, W), got {describe(frames)}")
        if frames.ndim != 4:
            hint = {3: "; add the batch axis with frames[None]", 5: "; make clips frames with clips.flatten(0, 1)"}
            raise ValueError(f"frames must be (B, C, H, W), got {describe(frames)}{hint.get(frames.ndim, '')}")
        if not frames.is_floating_point():
            raise TypeError(f"frames must be float, got {describe(frames)}; divide uint8 by 255")
        batch, channels, *size = frames.shape
        if batch == 0:
            raise ValueError(f"frames must hold at least one frame, got {describe(frames)}")
        if channels != self.in_channels:
            raise ValueError(
                f"frames must have C={self.in_channels} channels, got {channels}; or build the discriminator with "
                f"in_channels={channels}"
            )
        if self.size is not None and tuple(size) != self.size:
            raise ValueError(
                f"frames must be {self.size[0]}x{self.size[1]}, the size that this discriminator was built for, got "
                f"{size[0]}x{size[1]}; one built with size=None takes any size"
            )
        if min(size) < self.smallest_size:
            raise ValueError(
                f"frames must be at least {self.smallest_size}x{self.smallest_size}, got {size[0]}x{size[1]}; fewer "
                f"channels than {self.channels} halve them less often"
            )


def _check_widths(channels: Any) -> tuple[int, ...]:
    if isinstance(channels, str) or not isinstance(channels, Sequence):
        raise TypeError(f"channels must be a sequence of whole numbers, got {describe(channels)}")
    widths = tuple(check_int(f"channels[{index}]", width) for index, width in enumerate(channels))
    if len(widths) < 2:
        raise ValueError(f"channels must hold at least two widths, with a halving between them, got {widths}")
    return widths


def _check_size(size: Any, smallest: int) -> tuple[int, int] | None:
    if size is None:
        return None
    if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 2:
        raise TypeError(f"size must be None or (height, width), got {describe(size)}")
    height, width = (check_int(f"size[{index}]", side) for index, side in enumerate(size))
    if min(height, width) < smallest:
        raise ValueError(
            f"size must be at least {smallest}x{smallest}, got {height}x{width}; fewer channels halve it less often"
        )
    return height, width
