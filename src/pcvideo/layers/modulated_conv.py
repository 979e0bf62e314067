# SPDX-License-Identifier: Apache-2.0
"""Fusion by affine modulation, as PPNV2 merges features (Ling et al., arXiv 2301.05421)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcvideo._checks import check_choice, check_int
from pcvideo.ops import modulate

__all__ = ["ModulatedConv"]


class ModulatedConv(nn.Module):
    """Features are scaled and shifted by what a convolution makes of a modulator, and convolved.

    `conv(inputs * gain * sigmoid(scale) + tanh(shift))` with scale and shift the halves of `to_scale_shift(modulator)`;
    `gain` is a learnable number that starts at 1. Both convolutions are 3x3.

    Args:
        channels: channels of the inputs.
        modulator_channels: channels of the modulator; None is `channels`.
        out_channels: channels of the output; None is `channels`.
        activation: of the output: "leaky_relu" with slope 0.01 as published, "relu", or None.

    Shape: inputs (B, channels, H, W), modulator (B, modulator_channels, H, W) -> (B, out_channels, H, W).

    Raises:
        TypeError, ValueError: an argument out of its range or of another type; the message names it.
    """

    def __init__(
        self,
        channels: int,
        *,
        modulator_channels: int | None = None,
        out_channels: int | None = None,
        activation: str | None = "leaky_relu",
    ) -> None:
        super().__init__()
        check_choice("activation", activation, ("leaky_relu", "relu", None))
        check_int("channels", channels)
        modulator_channels = (
            channels if modulator_channels is None else check_int("modulator_channels", modulator_channels)
        )
        out_channels = channels if out_channels is None else check_int("out_channels", out_channels)
        self.to_scale_shift = nn.Conv2d(modulator_channels, 2 * channels, 3, padding=1)
        self.gain = nn.Parameter(torch.ones(()))
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        activations = {"leaky_relu": nn.LeakyReLU(0.01), "relu": nn.ReLU(), None: nn.Identity()}
        self.activation = activations[activation]

    def forward(self, inputs: Tensor, modulator: Tensor) -> Tensor:
        """Modulate the inputs by the modulator."""
        return self.activation(self.conv(modulate(inputs, self.to_scale_shift(modulator), self.gain)))
