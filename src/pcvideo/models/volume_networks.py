# SPDX-License-Identifier: Apache-2.0
"""AEncGAN3D's encoder, generator and critic, pre-residual and classic.

With the published width of 256 and volumes of 16**3 they have the published numbers of parameters. Volumes are flattened
with their channels last, as Keras does it. The critic's normalisation is over the channels of each voxel by itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from pcvideo._checks import check_choice, check_int, describe
from pcvideo.layers.volume_blocks import SLOPE, DownBlock, SameConv3d, UpBlock, initialise_glorot, make_norm

__all__ = ["ARCHITECTURES", "VolumeCritic", "VolumeEncoder", "VolumeGenerator", "check_volume_size"]

ARCHITECTURES = ("preres", "classic")
# Two halvings, so a volume of 16**3 becomes 4**3.
_SHRINK = 4


class VolumeEncoder(nn.Module):
    """A volume to the numbers of its code.

    Args:
        in_channels: channels C of a volume.
        code_channels: numbers that come out.
        architecture: "preres" or "classic".
        size: (depth, height, width), each divisible by 4.
        width: channels of the widest layer.
        norm: "batch", or "channel" as the critic has it.
        dropout: in training.

    Shape: (B, in_channels, D, H, W) -> (B, code_channels).
    """

    def __init__(
        self,
        in_channels: int,
        code_channels: int,
        *,
        architecture: str = "preres",
        size: Sequence[int] = (16, 16, 16),
        width: int = 256,
        norm: str = "batch",
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        check_choice("architecture", architecture, ARCHITECTURES)
        size = check_volume_size(size)
        layers = _preres_encoder if architecture == "preres" else _classic_encoder
        self.features = layers(check_int("in_channels", in_channels), _widths(width), norm, dropout)
        self.to_code = nn.Linear(width * math.prod(side // _SHRINK for side in size), code_channels)
        initialise_glorot(self)

    def forward(self, volumes: Tensor) -> Tensor:
        """The codes (B, code_channels) of volumes (B, in_channels, D, H, W)."""
        return self.to_code(self.features(volumes).movedim(1, -1).flatten(1))


class VolumeGenerator(nn.Module):
    """A code to the logits of a volume.

    Args:
        code_channels: numbers that go in.
        out_channels: channels C of a volume.
        architecture: "preres" or "classic".
        size: (depth, height, width), each divisible by 4.
        width: channels of the widest layer.

    Shape: (B, code_channels) -> (B, out_channels, D, H, W).
    """

    def __init__(
        self,
        code_channels: int,
        out_channels: int,
        *,
        architecture: str = "preres",
        size: Sequence[int] = (16, 16, 16),
        width: int = 256,
    ) -> None:
        super().__init__()
        check_choice("architecture", architecture, ARCHITECTURES)
        self._grid = tuple(side // _SHRINK for side in check_volume_size(size))
        self.from_code = nn.Linear(check_int("code_channels", code_channels), width * math.prod(self._grid))
        layers = _preres_generator if architecture == "preres" else _classic_generator
        self.layers = layers(_widths(width), check_int("out_channels", out_channels))
        initialise_glorot(self)

    def forward(self, codes: Tensor) -> Tensor:
        """The logits (B, out_channels, D, H, W) of codes (B, code_channels)."""
        return self.layers(self.from_code(codes).view(len(codes), *self._grid, -1).movedim(-1, 1))


class VolumeCritic(VolumeEncoder):
    """A score for each volume with its condition, without bounds: the higher, the more it looks like a true next one.

    Args:
        in_channels: of a candidate and its condition together: 2 for one volume, 4 for three.
        architecture, size, width, dropout: as in `VolumeEncoder`.

    Shape: (B, in_channels, D, H, W) -> (B,).
    """

    def __init__(
        self,
        in_channels: int = 2,
        *,
        architecture: str = "preres",
        size: Sequence[int] = (16, 16, 16),
        width: int = 256,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(
            in_channels, 1, architecture=architecture, size=size, width=width, norm="channel", dropout=dropout
        )

    def forward(self, volumes: Tensor) -> Tensor:
        """The scores (B,) of volumes (B, in_channels, D, H, W)."""
        return super().forward(volumes).squeeze(1)


def check_volume_size(size: Sequence[int]) -> tuple[int, ...]:
    """`size` as (depth, height, width), each divisible by 4.

    Raises:
        TypeError, ValueError: it is something else.
    """
    if isinstance(size, str) or not isinstance(size, Sequence) or len(size) != 3:
        raise TypeError(f"size must be (depth, height, width), got {describe(size)}")
    sides = tuple(check_int(f"size[{index}]", side) for index, side in enumerate(size))
    if any(side % _SHRINK for side in sides):
        raise ValueError(f"size must have sides divisible by {_SHRINK}, got {sides}")
    return sides


def _widths(width: int) -> list[int]:
    """The width, its half, quarter and eighth."""
    if check_int("width", width) % 8:
        raise ValueError(f"width must be divisible by 8, got {width}")
    return [width // 2**halvings for halvings in range(4)]


def _preres_encoder(in_channels: int, widths: Sequence[int], norm: str, dropout: float) -> nn.Sequential:
    wide, half, quarter, eighth = widths
    return nn.Sequential(
        SameConv3d(in_channels, eighth),
        DownBlock(eighth, quarter, stride=2, norm=norm, dropout=dropout),
        DownBlock(quarter, half, stride=2, norm=norm, dropout=dropout),
        DownBlock(half, wide, norm=norm, dropout=dropout),
        make_norm(norm, wide),
        nn.LeakyReLU(SLOPE),
        nn.Dropout(dropout),
    )


def _classic_encoder(in_channels: int, widths: Sequence[int], norm: str, dropout: float) -> nn.Sequential:
    wide, half, quarter, _ = widths
    layers: list[nn.Module] = []
    for before, after in pairwise((in_channels, quarter, half)):
        layers += [
            SameConv3d(before, after, stride=2),
            make_norm(norm, after),
            nn.LeakyReLU(SLOPE),
            nn.Dropout(dropout),
        ]
    return nn.Sequential(*layers, SameConv3d(half, wide))


def _preres_generator(widths: Sequence[int], out_channels: int) -> nn.Sequential:
    wide, half, quarter, eighth = widths
    return nn.Sequential(
        UpBlock(wide, half),
        UpBlock(half, quarter, scale=2),
        UpBlock(quarter, eighth, scale=2),
        make_norm("batch", eighth),
        nn.ReLU(),
        nn.ConvTranspose3d(eighth, out_channels, 5, padding=2),
    )


def _classic_generator(widths: Sequence[int], out_channels: int) -> nn.Sequential:
    wide, half, quarter, _ = widths
    layers: list[nn.Module] = [make_norm("batch", wide), nn.ReLU()]
    for index, (before, after) in enumerate(pairwise((wide, wide, half, quarter))):
        layers += [nn.Upsample(scale_factor=2, mode="nearest")] if index else []
        layers += [nn.ConvTranspose3d(before, after, 5, padding=2), make_norm("batch", after), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose3d(quarter, out_channels, 5, padding=2))
