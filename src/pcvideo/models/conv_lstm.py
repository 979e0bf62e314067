# SPDX-License-Identifier: Apache-2.0
"""Stacked convolutional LSTMs that predict the next image or volume of a binary scene.

The three-dimensional one is ConvLSTM3D of the 4-D cavities (github.com/Marchine85/4D-Predictive-GAN-ConvLSTM, data of
arXiv 2306.14442): three Keras ConvLSTM layers with batch normalisation between, and a convolution with a sigmoid.

Published, with `legacy=True`: hard sigmoid gates, and ReLU for tanh, under which the cell can grow with every step.
Ours, without: sigmoid and tanh; and `patch`, `residual` and `batch_norm`, which make it cheaper and start it at
copying the last frame. There and here the state is carried; the published long-term forecast computes a window of five
frames anew for each step instead, which is [`forecast_windows`][pcvideo.models.forecast_windows].
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pcvideo._checks import check_bool, check_choice, check_int, describe
from pcvideo.layers import ConvLSTMCell, LSTMState
from pcvideo.layers.patches import from_patches, to_patches
from pcvideo.models._base import Predictor

__all__ = ["ConvLSTMPredictor", "ConvLSTMPredictorState"]

# Keras' defaults, in torch's words.
_MOMENTUM, _EPS = 0.01, 1e-3
# How sure a residual network is at first that a voxel stays as it is: 98 %.
_STAYS = 4.0


class ConvLSTMPredictorState(NamedTuple):
    """What is carried: the anticipation of the frame to come and the frames before it, (B, C, *space); the layers' states."""

    prediction: Tensor
    past: tuple[Tensor, ...]
    cells: tuple[LSTMState, ...]


class ConvLSTMPredictor(Predictor):
    """ConvLSTM layers one upon the other, then a convolution whose sigmoid is each pixel's or voxel's probability.

    Args:
        in_channels: channels C of a frame.
        spatial_dims: 2 for images (B, C, H, W), 3 for volumes (B, C, D, H, W).
        hidden_channels: of each layer.
        kernel_sizes: of each layer, odd.
        encoder_channels: of a convolution with ReLU before the first layer, which then need not see the frame through four
            gates; None has none, as published.
        encoder_kernel_size: of that convolution, odd.
        head_kernel_size: of the convolution that makes the prediction, odd.
        history: how many frames the first layer is shown at a time, the newest and those before it; zeros stand before the
            first. What lies further back is for the layers to remember.
        patch: the layers see the frame in patches of this side, so that `patch ** spatial_dims` times the channels stand
            at as many times fewer places; the sides of a frame must be divisible by it.
        residual: the prediction's logits are added to those of the newest frame, weighted by a number that is learnt.
        batch_norm: batch normalisation between the layers (not after the last), as published. In training its statistics
            are those of one step, where Keras takes all steps together.
        legacy: the published activations: hard sigmoid for the gates, ReLU for the cell.
        clamp: as in every predictor; probabilities are in [0, 1] anyway.

    Shape: `model(frames, horizon)` takes (B, T, C, *space) to (B, horizon, C, *space).

    Raises:
        TypeError, ValueError: an argument out of its range or of another type; the message names it.
    """

    def __init__(
        self,
        *,
        in_channels: int = 1,
        spatial_dims: int = 3,
        hidden_channels: Sequence[int] = (32, 32, 32),
        kernel_sizes: Sequence[int] = (5, 3, 1),
        encoder_channels: int | None = None,
        encoder_kernel_size: int = 3,
        head_kernel_size: int = 5,
        history: int = 1,
        patch: int = 1,
        residual: bool = False,
        batch_norm: bool = True,
        legacy: bool = False,
        clamp: bool = False,
    ) -> None:
        super().__init__(in_channels=in_channels, clamp=clamp)
        self.spatial_dims = check_choice("spatial_dims", spatial_dims, (2, 3))
        self.hidden_channels = _numbers("hidden_channels", hidden_channels)
        self.kernel_sizes = _numbers("kernel_sizes", kernel_sizes)
        if len(self.hidden_channels) != len(self.kernel_sizes):
            raise ValueError(
                f"hidden_channels and kernel_sizes must have one number per layer, got {self.hidden_channels} and "
                f"{self.kernel_sizes}"
            )
        self.encoder_channels = None if encoder_channels is None else check_int("encoder_channels", encoder_channels)
        self.encoder_kernel_size = _odd("encoder_kernel_size", encoder_kernel_size)
        self.head_kernel_size = _odd("head_kernel_size", head_kernel_size)
        self.history = check_int("history", history)
        self.patch = self.size_multiple = check_int("patch", patch)
        self.residual = check_bool("residual", residual)
        self.batch_norm = check_bool("batch_norm", batch_norm)
        self.legacy = check_bool("legacy", legacy)
        seen = self.in_channels * patch**spatial_dims
        convolution = nn.Conv2d if spatial_dims == 2 else nn.Conv3d
        shown = seen * history
        if encoder_channels is not None:
            side = encoder_kernel_size
            self.encoder = convolution(shown, encoder_channels, side, padding=side // 2)
            shown = encoder_channels
        self.cells = nn.ModuleList(
            ConvLSTMCell(
                inputs,
                hidden,
                kernel_size=kernel_size,
                spatial_dims=spatial_dims,
                gate_activation="hard_sigmoid" if legacy else "sigmoid",
                activation="relu" if legacy else "tanh",
            )
            for inputs, hidden, kernel_size in zip(
                (shown, *self.hidden_channels), self.hidden_channels, self.kernel_sizes, strict=False
            )
        )
        normalisation = nn.BatchNorm2d if spatial_dims == 2 else nn.BatchNorm3d
        between = self.hidden_channels[:-1] if batch_norm else ()
        self.norms = nn.ModuleList(normalisation(hidden, eps=_EPS, momentum=_MOMENTUM) for hidden in between)
        self.head = convolution(self.hidden_channels[-1], seen, head_kernel_size, padding=head_kernel_size // 2)
        if residual:
            self.stay = nn.Parameter(torch.tensor(_STAYS))
        self._initialise()

    def init_state(self, like: Tensor) -> ConvLSTMPredictorState:
        """Zeros for frames of the size, dtype and device of `like` (B, C, *space)."""
        grid = like[(..., *(slice(None, None, self.patch),) * self.spatial_dims)]
        cells = tuple(cell.init_state(grid) for cell in self.cells)
        nothing = torch.zeros_like(like)
        return ConvLSTMPredictorState(nothing, (nothing,) * (self.history - 1), cells)

    def step(self, frame: Tensor | None, state: ConvLSTMPredictorState) -> tuple[list[Tensor], ConvLSTMPredictorState]:
        """Take in a frame (B, C, *space), or the prediction itself if None, and predict the next one."""
        frame = state.prediction if frame is None else frame
        seen = (frame, *state.past)
        features = to_patches(torch.cat(seen, dim=1), self.patch)
        if self.encoder_channels is not None:
            features = torch.relu(self.encoder(features))
        cells = []
        for layer, (cell, carried) in enumerate(zip(self.cells, state.cells, strict=True)):
            features, new = cell(features, carried)
            cells.append(new)
            if layer < len(self.norms):
                features = self.norms[layer](features)
        logits = from_patches(self.head(features), self.patch)
        # In 16 bit a probability near 1 would lose what the cross-entropy sees.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if self.residual:
            logits = logits + self.stay * (2 * frame - 1)
        prediction = torch.sigmoid(logits).to(frame.dtype)
        return [prediction], ConvLSTMPredictorState(prediction, seen[: self.history - 1], tuple(cells))

    @torch.no_grad()
    def _initialise(self) -> None:
        """As Keras: Glorot for what comes in, orthogonal for what recurs, and a forget gate that is open at first."""
        for cell in self.cells:
            inputs, hidden, weight = cell.in_channels, cell.hidden_channels, cell.to_gates.weight
            bound = math.sqrt(6 / (math.prod(weight.shape[2:]) * (inputs + 4 * hidden)))
            nn.init.uniform_(weight[:, :inputs], -bound, bound)
            recurrent = weight[:, inputs:]
            recurrent.copy_(nn.init.orthogonal_(torch.empty(recurrent[0].numel(), 4 * hidden)).T.view_as(recurrent))
            nn.init.zeros_(cell.to_gates.bias)
            cell.to_gates.bias[hidden : 2 * hidden] = 1
        nn.init.xavier_uniform_(self.head.weight)
        nn.init.zeros_(self.head.bias)


def _numbers(name: str, values: Sequence[int]) -> tuple[int, ...]:
    if isinstance(values, str) or not isinstance(values, Sequence) or not values:
        raise TypeError(f"{name} must be a sequence of whole numbers, one per layer, got {describe(values)}")
    return tuple(check_int(f"{name}[{index}]", value) for index, value in enumerate(values))


def _odd(name: str, size: int) -> int:
    if check_int(name, size) % 2 == 0:
        raise ValueError(f"{name} must be odd, so that the frame keeps its size, got {size}; take {size + 1}")
    return size
