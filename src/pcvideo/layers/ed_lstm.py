# SPDX-License-Identifier: Apache-2.0
"""The recurrent cells of MSPN (arXiv 2212.11642, Section III.A): a U-Net that is an LSTM, and its ablation.

A cell for `MultiScalePredictor` has `init_state(like)` and
`forward(inputs, state, latent) -> (image, latent, state)`, the attributes `stride` (what divides its height and width)
and `image_channels`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pcvideo._checks import check_choice
from pcvideo.layers._lstm_state import LSTMState, zero_state
from pcvideo.layers.blocks import EncoderDecoder
from pcvideo.ops import lstm_gates

__all__ = ["EDLSTMCell", "EncoderLSTMDecoderCell", "LSTMState"]


class EDLSTMCell(nn.Module):
    """Encoder-decoder LSTM: the U-Net's output is the four gates' pre-activations.

    Args:
        in_channels: channels of the inputs, the hidden state not counted.
        hidden_channels: channels of the hidden state.
        image_channels: channels of the image that the cell predicts.
        channels: widths of the U-Net, finest first.
        latent_channels: channels of the coarser level's latent; 0 where there is none.
        norm: None or "batch".
        align_corners: of the U-Net's up-sampling.
        fusion: how the U-Net takes in skip features and latent; see `EncoderDecoder`.
        activation: of the predicted image: "leaky_relu" as published, or None.

    Shape: inputs (B, in_channels, H, W), latent (B, latent_channels, H / stride, W / stride) or None ->
    image (B, image_channels, H, W), latent (B, channels[-1], H / stride, W / stride), state.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        hidden_channels: int,
        image_channels: int,
        channels: Sequence[int],
        latent_channels: int = 0,
        norm: str | None = None,
        align_corners: bool = True,
        fusion: str = "concat",
        activation: str | None = "leaky_relu",
    ) -> None:
        super().__init__()
        self.hidden_channels, self.image_channels = hidden_channels, image_channels
        self.codec = EncoderDecoder(
            in_channels=in_channels + hidden_channels,
            out_channels=4 * hidden_channels,
            channels=channels,
            latent_channels=latent_channels,
            norm=norm,
            align_corners=align_corners,
            fusion=fusion,
        )
        self.stride = self.codec.stride
        self.to_image = nn.Conv2d(hidden_channels, image_channels, 5, padding=2)
        self.activation = _image_activation(activation)

    def init_state(self, like: Tensor) -> LSTMState:
        """Zeros for inputs of the size, dtype and device of `like` (B, any, H, W)."""
        batch, _, height, width = like.shape
        return zero_state(like, (batch, self.hidden_channels, height, width))

    def update(self, gates: Tensor, state: LSTMState) -> LSTMState:
        """The recurrence alone, from the four pre-activations; the place to override for another kind of gate."""
        return LSTMState(*lstm_gates(gates, state.cell))

    def forward(
        self, inputs: Tensor, state: LSTMState, latent: Tensor | None = None
    ) -> tuple[Tensor, Tensor, LSTMState]:
        """One time step."""
        gates, latent = self.codec(torch.cat([inputs, state.hidden], dim=1), latent)
        state = self.update(gates, state)
        return self.activation(self.to_image(state.hidden)), latent, state


class EncoderLSTMDecoderCell(nn.Module):
    """The ablation: a plain ConvLSTM at the bottleneck of a U-Net that predicts the image; shares no latent.

    Args:
        in_channels: channels of the inputs.
        image_channels: channels of the image that the cell predicts.
        channels: widths of the U-Net, finest first; the last one is the LSTM's width too.
        norm: None or "batch".
        align_corners: of the U-Net's up-sampling.
        fusion: how the U-Net takes in skip features; see `EncoderDecoder`.

    Shape: as `EDLSTMCell`; the state lives at the bottleneck's size. The returned latent is for the eye alone.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        image_channels: int,
        channels: Sequence[int],
        norm: str | None = None,
        align_corners: bool = True,
        fusion: str = "concat",
    ) -> None:
        super().__init__()
        width = channels[-1]
        self.hidden_channels, self.image_channels = width, image_channels
        self.codec = EncoderDecoder(
            in_channels=in_channels,
            out_channels=image_channels,
            channels=channels,
            norm=norm,
            align_corners=align_corners,
            fusion=fusion,
        )
        self.stride = self.codec.stride
        self.to_gates = nn.Conv2d(2 * width, 4 * width, 3, padding=1)
        self.from_hidden = nn.Conv2d(width, width, 3, padding=1)
        self.activation = nn.LeakyReLU(0.01, inplace=True)

    def init_state(self, like: Tensor) -> LSTMState:
        """Zeros for inputs of the size, dtype and device of `like` (B, any, H, W)."""
        batch, _, height, width = like.shape
        return zero_state(like, (batch, self.hidden_channels, height // self.stride, width // self.stride))

    def forward(
        self, inputs: Tensor, state: LSTMState, latent: Tensor | None = None
    ) -> tuple[Tensor, Tensor, LSTMState]:
        """One time step; `latent` is not used."""
        encoded, skips = self.codec.encode(inputs)
        gates = self.activation(self.to_gates(torch.cat([encoded, state.hidden], dim=1)))
        state = LSTMState(*lstm_gates(gates, state.cell))
        image = self.codec.decode(self.activation(self.from_hidden(state.hidden)), skips)
        return image, encoded, state


def _image_activation(activation: str | None) -> nn.Module:
    check_choice("activation", activation, ("leaky_relu", None))
    return nn.LeakyReLU(0.01) if activation == "leaky_relu" else nn.Identity()
