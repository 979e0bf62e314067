# SPDX-License-Identifier: Apache-2.0
"""Training on clips: with true frames throughout, or with the model's own predictions past the context.

Both are Section III.B of the MSPN paper (arXiv 2212.11642): the one it starts from, and its long-term strategy, which
PPNV2 (arXiv 2301.05421) is trained by too, with a second loss on the features of what is fed back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pcvideo._checks import check_clip
from pcvideo.losses import PyramidLoss
from pcvideo.rollout import feed_frames, unroll
from pcvideo.training.strategies.base import Strategy

__all__ = ["SelfFeeding", "TeacherForced"]


class _Pass(NamedTuple):
    """A clip rolled out; entry t of each list is step t, `targets[t]` belongs to frame t + 1."""

    predictions: list[list[Tensor]]
    targets: list[list[Tensor]]
    seen: list[list[Tensor] | None]
    was_true: list[bool]


class _Sequence(Strategy):
    """Roll a clip out, and compare every prediction from the second frame on with the true frame at every level."""

    def __init__(
        self,
        *,
        context: int,
        horizon: int,
        loss: nn.Module | None = None,
        checkpoint: bool = False,
        detach_targets: bool = False,
    ) -> None:
        super().__init__(context=context, horizon=horizon)
        self.loss = PyramidLoss(batch_mean=True) if loss is None else loss
        self.checkpoint = checkpoint
        self.detach_targets = detach_targets

    def feed(self, time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
        """What the model is corrected with; see `pcvideo.rollout.Feed`."""
        raise NotImplementedError

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch (B, T, C, H, W) with T of at least context + horizon; longer clips are cut."""
        model = self.model
        dims = getattr(model, "spatial_dims", 2)
        check_clip("batch", batch, channels=model.in_channels, multiple=model.size_multiple, spatial_dims=dims)
        if batch.shape[1] < self.length:
            raise ValueError(
                f"training needs clips of context + horizon = {self.length} frames, got {batch.shape[1]}; "
                f"cut longer clips or turn one of the two down"
            )
        return self._loss_of(self._roll_out(batch[:, : self.length]))

    def _loss_of(self, steps: _Pass) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a clip, and what else to log."""
        return self.loss(steps.predictions, steps.targets), {}

    def _roll_out(self, batch: Tensor) -> _Pass:
        """All steps of a batch (B, T, C, H, W), of which the last frame is only compared with."""
        steps = _Pass([], [], [], [])

        def feed(time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
            fed = self.feed(time, frame, prediction)
            steps.was_true.append(fed is frame)
            return fed

        for pyramid, state in unroll(self.model, batch[:, :-1], feed=feed, checkpoint=self.checkpoint):
            steps.predictions.append(_widened(pyramid))
            steps.seen.append(self.model.seen(state))
        for time, frame in enumerate(batch[:, 1:].unbind(1), start=1):
            target = _widened(self._target(time, frame, steps))
            steps.targets.append([level.detach() for level in target] if self.detach_targets else target)
        return steps

    def _target(self, time: int, frame: Tensor, steps: _Pass) -> Sequence[Tensor]:
        """What the pyramid should have been whose frame came at `time`."""
        # A true frame that was fed has been encoded already: gradients add up the same, at half the cost.
        seen = steps.seen[time] if time < len(steps.seen) and steps.was_true[time] else None
        if seen is not None and len(seen) >= len(steps.predictions[time - 1]):
            return seen
        targets: Sequence[Tensor] = self.model.targets(frame)
        return targets


class TeacherForced(_Sequence):
    """Every step is corrected with the true frame; the forecast is one frame at a time.

    Args:
        context: frames before the forecast that validation makes; training uses all `context + horizon` alike.
        horizon: frames of that forecast.
        loss: called with the predictions and the targets, each a sequence over time of sequences over levels; None is
            `PyramidLoss(batch_mean=True)`, MSPN's published sum of squares divided by the batch size. Where a model
            predicts fewer levels in its first steps (PPNV2), the targets of a step may be more than its predictions.
        checkpoint: recompute each step's activations in the backward pass instead of keeping them.
        detach_targets: pass no gradient through the targets. Where they are learned features (PPNV2), features that
            are merely easy to predict are then not rewarded, but nothing keeps them small either: with sums of squares
            they may outgrow the loss of the frames. Where targets are frames (MSPN) nothing changes.
    """

    def feed(self, time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
        """The true frame."""
        return feed_frames(time, frame, prediction)


class SelfFeeding(_Sequence):
    """The paper's long-term strategy: past the context the model is fed its own predictions, compared with the truth.

    PPNV2 is published as `SelfFeeding(context=10, horizon=10, loss=PPNV2Loss(), encoding_loss=EncodingLoss())`.

    Args:
        context: true frames that are fed.
        horizon: steps that follow, fed with predictions.
        loss: as in `TeacherForced`.
        checkpoint: as in `TeacherForced`.
        detach: pass no gradient through the frames that are fed back.
        detach_targets: as in `TeacherForced`; the true frames' features in `encoding_loss` too.
        encoding_loss: called with the features of the frames that were fed back and with those of the true frames, for
            each step past the context, and added to `loss`; both terms are logged. For models that keep what they have
            seen (PPNV2). None leaves it out.
    """

    def __init__(
        self,
        *,
        context: int,
        horizon: int,
        loss: nn.Module | None = None,
        checkpoint: bool = False,
        detach: bool = False,
        detach_targets: bool = False,
        encoding_loss: nn.Module | None = None,
    ) -> None:
        super().__init__(
            context=context, horizon=horizon, loss=loss, checkpoint=checkpoint, detach_targets=detach_targets
        )
        self.detach = detach
        self.encoding_loss = encoding_loss

    def feed(self, time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
        """The true frame within the context, then the prediction."""
        if time < self.context:
            return frame
        return prediction.detach() if self.detach and prediction is not None else None

    def _loss_of(self, steps: _Pass) -> tuple[Tensor, dict[str, Tensor]]:
        prediction, logs = super()._loss_of(steps)
        if self.encoding_loss is None:
            return prediction, logs
        fed_back, truth = [], []
        for time, seen in enumerate(steps.seen):
            if seen is None:
                raise ValueError(
                    f"encoding_loss compares the features of frames that were fed back, but "
                    f"{type(self.model).__name__}.seen(state) gives none; leave encoding_loss out, or give the model "
                    f"a seen(state) that returns them"
                )
            if not steps.was_true[time]:
                fed_back.append(_widened(seen))
                truth.append(steps.targets[time - 1])
        # A horizon of one frame feeds nothing back.
        encoding = self.encoding_loss(fed_back, truth) if fed_back else torch.zeros_like(prediction)
        return prediction + encoding, {"prediction": prediction.detach(), "encoding": encoding.detach()}


def _widened(pyramid: Sequence[Tensor]) -> list[Tensor]:
    """Compared in float32 at least, also where autocast computes in 16 bit."""
    return [level.to(torch.promote_types(level.dtype, torch.float32)) for level in pyramid]
