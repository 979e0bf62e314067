# SPDX-License-Identifier: Apache-2.0
"""Training the two networks of spatio-temporal fusion on any colour video, which is its own teacher.

The published code trains them by four methods, which differ in their losses: squared error for both; a regularised one
for colours; SSIM for frames; and both of these. A loss is handed in here, so that the methods are four choices.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcvideo._checks import check_bool, check_clip, check_int
from pcvideo.training.strategies.base import Strategy

__all__ = ["Colourisation", "FrameDoubling"]


class Colourisation(Strategy):
    """A colouriser is shown the grey of colour frames, and learns their colours.

    Batches are (B, T, 3, H, W); every frame of a clip counts alike. For validation, the baseline that is called
    `copy_last` is the grey picture.

    Args:
        loss: called with prediction and truth, (N, 3, H, W), gives a mean; None is the mean squared error. Published
            are this one (methods 1 and 3) and `losses.RegularisedLoss(losses.TotalVariation())` (2 and 4).
    """

    clip_channels = 3

    def __init__(self, *, loss: nn.Module | None = None) -> None:
        super().__init__(context=1, horizon=1)
        self.loss = nn.MSELoss() if loss is None else loss

    @property
    def length(self) -> int:
        """A clip may be a single frame."""
        return 1

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of colour clips (B, T, 3, H, W)."""
        check_clip("batch", batch, channels=3)
        frames = batch.flatten(0, 1)
        return self.loss(self.model(self.model.to_grey(frames)), frames), {}

    @torch.no_grad()
    def forecast(self, batch: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
        """For validation: every frame in colour, (B * T, 1, 3, H, W), and the true one."""
        frames = batch.flatten(0, 1)
        return model(self.model.to_grey(frames))[:, None], frames[:, None]

    def seen(self, batch: Tensor) -> Tensor:
        """For validation: the grey pictures, in three equal channels."""
        frames = batch.flatten(0, 1)
        return self.model.to_grey(frames).expand_as(frames)[:, None]


class FrameDoubling(Strategy):
    """A frame doubler is given every second frame of clips, from the first on, and learns those between.

    For validation only frames between two count, and the baseline that is called `copy_last` repeats the one before.

    Args:
        frames: how many frames of a clip are given.
        last: the frame after the last one that is given, which is extrapolated, counts too, as published; a clip then
            has 2 * frames frames, else 2 * frames - 1.
        loss: called with predictions and truth, (B, N, C, H, W), gives a mean; None is the mean squared error.
            Published are this one (methods 1 and 2) and `losses.SSIMLoss(weight=0.1)` (3 and 4).
    """

    def __init__(self, *, frames: int = 12, last: bool = True, loss: nn.Module | None = None) -> None:
        frames, self.last = check_int("frames", frames, minimum=2), check_bool("last", last)
        super().__init__(context=frames, horizon=frames if last else frames - 1)
        self.loss = nn.MSELoss() if loss is None else loss

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of clips (B, T, C, H, W), T at least `length`."""
        if batch.ndim == 5 and batch.shape[1] < self.length:
            raise ValueError(f"batch must hold clips of {self.length} frames at least, got {tuple(batch.shape)}")
        clip = batch[:, : self.length]
        return self.loss(self.model(clip[:, ::2], last=self.last), clip[:, 1::2]), {}

    @torch.no_grad()
    def forecast(self, batch: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
        """For validation: every frame between two, (B * N, 1, C, H, W), and the true one."""
        clip = batch[:, : 2 * self.context - 1]
        found = model(clip[:, ::2], last=False)
        return found.flatten(0, 1)[:, None], clip[:, 1::2].flatten(0, 1)[:, None]

    def seen(self, batch: Tensor) -> Tensor:
        """For validation: the frame before each."""
        return batch[:, : 2 * self.context - 2 : 2].flatten(0, 1)[:, None]
