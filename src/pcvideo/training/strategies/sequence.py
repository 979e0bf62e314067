# SPDX-License-Identifier: Apache-2.0
"""Training on clips: with true frames throughout, or with the model's own predictions past the context.

Both are Section III.B of the MSPN paper (arXiv 2212.11642): the one it starts from, and its long-term strategy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pcvideo._checks import check_clip
from pcvideo.losses import PyramidLoss
from pcvideo.rollout import feed_frames, rollout
from pcvideo.training.strategies.base import Strategy

__all__ = ["SelfFeeding", "TeacherForced"]


class _Sequence(Strategy):
    """Roll a clip out, and compare every prediction from the second frame on with the true frame at every level."""

    def __init__(self, *, context: int, horizon: int, loss: nn.Module | None = None, checkpoint: bool = False) -> None:
        super().__init__(context=context, horizon=horizon)
        self.loss = PyramidLoss(batch_mean=True) if loss is None else loss
        self.checkpoint = checkpoint

    def feed(self, time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
        """What the model is corrected with; see `pcvideo.rollout.Feed`."""
        raise NotImplementedError

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch (B, T, C, H, W) with T of at least context + horizon; longer clips are cut."""
        check_clip("batch", batch, channels=self.model.in_channels, multiple=self.model.size_multiple)
        if batch.shape[1] < self.length:
            raise ValueError(
                f"training needs clips of context + horizon = {self.length} frames, got {batch.shape[1]}; "
                f"cut longer clips or turn one of the two down"
            )
        batch = batch[:, : self.length]
        pyramids = rollout(self.model, batch[:, :-1], feed=self.feed, checkpoint=self.checkpoint).pyramids
        # Compared in float32 at least, also where autocast computes in 16 bit.
        predictions = [[_widened(level) for level in pyramid] for pyramid in pyramids]
        targets = [self.model.targets(frame) for frame in batch[:, 1:].unbind(1)]
        return self.loss(predictions, targets), {}


class TeacherForced(_Sequence):
    """Every step is corrected with the true frame; the forecast is one frame at a time.

    Args:
        context: frames before the forecast that validation makes; training uses all `context + horizon` alike.
        horizon: frames of that forecast.
        loss: called with the predictions and the targets, each a sequence over time of sequences over levels; None is
            `PyramidLoss(batch_mean=True)`, the published sum of squares divided by the batch size.
        checkpoint: recompute each step's activations in the backward pass instead of keeping them.
    """

    def feed(self, time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
        """The true frame."""
        return feed_frames(time, frame, prediction)


class SelfFeeding(_Sequence):
    """The paper's long-term strategy: past the context the model is fed its own predictions, compared with the truth.

    Args:
        context: true frames that are fed.
        horizon: steps that follow, fed with predictions.
        loss: as in `TeacherForced`.
        checkpoint: as in `TeacherForced`.
        detach: pass no gradient through the frames that are fed back.
    """

    def __init__(
        self,
        *,
        context: int,
        horizon: int,
        loss: nn.Module | None = None,
        checkpoint: bool = False,
        detach: bool = False,
    ) -> None:
        super().__init__(context=context, horizon=horizon, loss=loss, checkpoint=checkpoint)
        self.detach = detach

    def feed(self, time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
        """The true frame within the context, then the prediction."""
        if time < self.context:
            return frame
        return prediction.detach() if self.detach and prediction is not None else None


def _widened(frame: Tensor) -> Tensor:
    return frame.to(torch.promote_types(frame.dtype, torch.float32))
