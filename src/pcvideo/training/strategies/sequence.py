# SPDX-License-Identifier: Apache-2.0
"""Training on clips: with true frames throughout, or with the model's own predictions past the context.

Both are Section III.B of the MSPN paper (arXiv 2212.11642): the one it starts from, and its long-term strategy, which
PPNV2 (arXiv 2301.05421) is trained by too, with a second loss on the features of what is fed back.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from pcvideo._checks import check_clip, check_int, check_number
from pcvideo.losses import PyramidLoss
from pcvideo.rollout import feed_frames, map_state, unroll
from pcvideo.training.schedules import Schedule
from pcvideo.training.strategies.base import Strategy

__all__ = ["Pass", "Piece", "SelfFeeding", "SequenceStrategy", "TeacherForced"]

logger = logging.getLogger(__name__)


class Piece(NamedTuple):
    """Some steps of a batch of clips: from `first` on, of `total` that are made on the whole clip.

    `frames` (B, steps + 1, C, H, W): the last one is only compared with.
    """

    frames: Tensor
    first: int
    total: int


class Pass(NamedTuple):
    """A clip, or a piece of it, rolled out.

    Entry t of each list is step `first + t` of the `total` of the whole clip; `targets[t]` belongs to the frame after.
    `start` (B, C, H, W) is the true frame at step `first`.
    """

    start: Tensor

    predictions: list[list[Tensor]]
    targets: list[list[Tensor]]
    seen: list[list[Tensor] | None]
    was_true: list[bool]
    first: int
    total: int

    @property
    def is_whole(self) -> bool:
        """Whether all steps of the clip are there."""
        return len(self.predictions) == self.total


class _Carried(NamedTuple):
    """What the next piece goes on from, cut off from the graph."""

    state: Any
    prediction: Tensor


class SequenceStrategy(Strategy):
    """Roll a clip out, and compare every prediction from the second frame on with the true frame at every level.

    A subclass gives `feed`. The arguments are those of `TeacherForced`.
    """

    def __init__(
        self,
        *,
        context: int,
        horizon: int,
        loss: nn.Module | None = None,
        checkpoint: bool = False,
        detach_targets: bool = False,
        truncate: int | None = None,
    ) -> None:
        super().__init__(context=context, horizon=horizon)
        self.loss = PyramidLoss(batch_mean=True) if loss is None else loss
        self.checkpoint = checkpoint
        self.detach_targets = detach_targets
        self.truncate = None if truncate is None else check_int("truncate", truncate)
        self.reduction = _reduction_of(self.loss)
        if truncate is not None:
            _check_takes_pieces("loss", self.loss)
        self._carried: _Carried | None = None

    def feed(self, time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
        """What the model is corrected with; see `pcvideo.rollout.Feed`."""
        raise NotImplementedError(f"{type(self).__name__} has no feed")

    @property
    def trained_length(self) -> int:
        """Frames of a clip that are looked at; what is longer is cut."""
        return self.length

    def pieces(self, batch: Tensor) -> Iterable[Tensor | Piece]:
        """The batch itself; with `truncate`, its steps cut up, to be called and differentiated in this order."""
        if self.truncate is None:
            return (batch,)
        clip = self._cut(batch)
        total = clip.shape[1] - 1
        return [
            Piece(clip[:, first : first + self.truncate + 1], first, total) for first in range(0, total, self.truncate)
        ]

    def forward(self, batch: Tensor | Piece) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch (B, T, C, H, W) with T of at least context + horizon, longer ones are cut; or of a piece.

        A whole batch is never truncated here.
        """
        return self.loss_of(self.roll_out(batch))

    def roll_out(self, batch: Tensor | Piece) -> Pass:
        """All steps of a batch (B, T, C, H, W), or those of a piece, which goes on where the one before ended."""
        piece = self._whole(batch) if isinstance(batch, Tensor) else batch
        carried = self._carried if piece.first else None
        steps = Pass(piece.frames[:, 0], [], [], [], [], piece.first, piece.total)

        def feed(time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
            before = carried.prediction if prediction is None and carried is not None else prediction
            fed = self.feed(piece.first + time, frame, before)
            steps.was_true.append(fed is frame)
            return fed

        inputs, state = piece.frames[:, :-1], None if carried is None else carried.state
        for pyramid, after in unroll(self.model, inputs, feed=feed, state=state, checkpoint=self.checkpoint):
            steps.predictions.append(_widened(pyramid))
            steps.seen.append(self.model.seen(after))
            state, prediction = after, pyramid[0]
        is_last = piece.first + inputs.shape[1] == piece.total
        self._carried = None if is_last else _Carried(map_state(Tensor.detach, state), prediction.detach())
        for time, frame in enumerate(piece.frames[:, 1:].unbind(1), start=1):
            steps.targets.append(self._as_target(self._target(time, frame, steps)))
        return steps

    def loss_of(self, steps: Pass) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of what was rolled out, and what else to log."""
        if steps.is_whole:
            return self.loss(steps.predictions, steps.targets), {}
        return self.loss(steps.predictions, steps.targets, first=steps.first, steps=steps.total), {}

    def _cut(self, batch: Tensor) -> Tensor:
        model = self.model
        dims = getattr(model, "spatial_dims", 2)
        check_clip("batch", batch, channels=model.in_channels, multiple=model.size_multiple, spatial_dims=dims)
        if batch.shape[1] < self.length:
            raise ValueError(
                f"training needs clips of context + horizon = {self.length} frames, got {batch.shape[1]}; "
                f"cut longer clips or turn one of the two down"
            )
        return batch[:, : self.trained_length]

    def _whole(self, batch: Tensor) -> Piece:
        clip = self._cut(batch)
        return Piece(clip, 0, clip.shape[1] - 1)

    def _target(self, time: int, frame: Tensor, steps: Pass) -> Sequence[Tensor]:
        """What the pyramid should have been whose frame came at `time`, counted within the piece."""
        # A true frame that was fed has been encoded already: gradients add up the same, at half the cost.
        seen = steps.seen[time] if time < len(steps.seen) and steps.was_true[time] else None
        if seen is not None and len(seen) >= len(steps.predictions[time - 1]):
            return seen
        targets: Sequence[Tensor] = self.model.targets(frame)
        return targets

    def _as_target(self, pyramid: Sequence[Tensor]) -> list[Tensor]:
        target = _widened(pyramid)
        return [level.detach() for level in target] if self.detach_targets else target


class TeacherForced(SequenceStrategy):
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
        truncate: steps between two places in a clip where no gradient passes: truncated back-propagation through time.
            The trainer goes back through so many steps at a time, and memory holds the activations of these alone; all
            steps' gradients add up to one step of the optimizer. None passes gradients through the whole clip.

    Attributes:
        reduction: "sum" where the loss says so by an attribute of this name (as `PyramidLoss(batch_mean=False)`, a sum
            over the batch, does), else "mean".

    Raises:
        TypeError: `truncate` with a loss that takes no pieces of a clip, which is to say no `first` and `steps`.
    """

    def feed(self, time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
        """The true frame."""
        return feed_frames(time, frame, prediction)


class SelfFeeding(SequenceStrategy):
    """The paper's long-term strategy: past the context the model is fed its own predictions, compared with the truth.

    PPNV2 is published as `SelfFeeding(context=10, horizon=10, loss=PPNV2Loss(), encoding_loss=EncodingLoss())`. With
    `true_frames` it is scheduled sampling (Bengio et al. 2015, arXiv 1506.03099).

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
        truncate: as in `TeacherForced`; for `encoding_loss` too.
        true_frames: the probability with which a step past the context is fed the true frame all the same; a number, or
            a schedule such as `Linear(1, 0, steps=1000)`. It is drawn for each step and each sample by itself, as the
            paper does: so a batch holds many mixtures, and does not change from one to the other as a whole. 0 draws
            nothing; 1 is teacher forcing.
        growth: a schedule of the frames past the context that are trained on, rounded down, from 1 to `horizon`: such
            as `Linear(1, 10, steps=1000)`. None trains on all. Training clips have all of them in any case.

    Raises:
        TypeError, ValueError: an argument out of its range or of another type; the message names it.
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
        truncate: int | None = None,
        true_frames: float | Schedule = 0.0,
        growth: Schedule | None = None,
    ) -> None:
        super().__init__(
            context=context,
            horizon=horizon,
            loss=loss,
            checkpoint=checkpoint,
            detach_targets=detach_targets,
            truncate=truncate,
        )
        self.detach = detach
        self.encoding_loss = encoding_loss
        if encoding_loss is not None and truncate is not None:
            _check_takes_pieces("encoding_loss", encoding_loss)
        if encoding_loss is not None and _reduction_of(encoding_loss) != self.reduction:
            _warn_of_mixture("loss and encoding_loss")
        self.true_frames, self.growth = true_frames, growth
        self._look_up(0)

    def begin(self, step: int) -> None:
        """Look up what the schedules say for this step."""
        self._look_up(step)

    def _look_up(self, step: int) -> None:
        share = self.true_frames(step) if callable(self.true_frames) else self.true_frames
        self._true_share = check_number("true_frames", share, minimum=0, maximum=1)
        frames = self.horizon if self.growth is None else int(check_number("growth", self.growth(step)))
        self._trained_horizon = min(max(frames, 1), self.horizon)

    @property
    def trained_length(self) -> int:
        """Frames of a clip that are looked at in this step."""
        return self.context + self._trained_horizon

    def feed(self, time: int, frame: Tensor | None, prediction: Tensor | None) -> Tensor | None:
        """The true frame within the context, then the prediction, or by a draw the true frame."""
        if time < self.context or frame is None:
            return frame
        if self._true_share == 1:
            return frame
        own = prediction.detach() if self.detach and prediction is not None else prediction
        if self._true_share == 0 or own is None:
            return own if self.detach else None
        # Drawn on the CPU, so that the draws don't depend on the device.
        is_true = torch.rand(len(frame)) < self._true_share
        if is_true.all():
            return frame
        return torch.where(is_true.to(frame.device).view(-1, *[1] * (frame.ndim - 1)), frame, own)

    def loss_of(self, steps: Pass) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of what was rolled out, and its two terms where there is an `encoding_loss`."""
        prediction, logs = super().loss_of(steps)
        # In one piece only, as what pieces log is added up.
        logs |= self._scheduled(prediction) if steps.first == 0 else {}
        if self.encoding_loss is None:
            return prediction, logs
        encoding = self._encoding_of(self.encoding_loss, steps, like=prediction)
        return prediction + encoding, {"prediction": prediction.detach(), "encoding": encoding.detach(), **logs}

    def _scheduled(self, like: Tensor) -> dict[str, Tensor]:
        values = {}
        if callable(self.true_frames):
            values["true_frames"] = self._true_share
        if self.growth is not None:
            values["trained_horizon"] = float(self._trained_horizon)
        return {name: like.new_tensor(value) for name, value in values.items()}

    def _encoding_of(self, loss: nn.Module, steps: Pass, *, like: Tensor) -> Tensor:
        fed_back, truth = [], []
        for time, seen in enumerate(steps.seen):
            if seen is None:
                raise ValueError(
                    f"encoding_loss compares the features of frames that were fed back, but "
                    f"{type(self.model).__name__}.seen(state) gives none; leave encoding_loss out, or give the model "
                    f"a seen(state) that returns them"
                )
            if steps.first + time < self.context:
                continue
            fed_back.append(_widened(seen))
            # The frame with which a piece begins is no target of its own steps.
            truth.append(steps.targets[time - 1] if time else self._as_target(self.model.targets(steps.start)))
        # A horizon of one frame feeds nothing back, and a piece within the context neither.
        if not fed_back:
            return torch.zeros_like(like)
        if steps.is_whole:
            return loss(fed_back, truth)
        return loss(fed_back, truth, first=max(steps.first - self.context, 0), steps=steps.total - self.context)


def _widened(pyramid: Sequence[Tensor]) -> list[Tensor]:
    """Compared in float32 at least, also where autocast computes in 16 bit."""
    return [level.to(torch.promote_types(level.dtype, torch.float32)) for level in pyramid]


def _reduction_of(loss: nn.Module) -> Literal["mean", "sum"]:
    """What a loss does with its batch, as far as it says."""
    reduction = getattr(loss, "reduction", "mean")
    if reduction == "mixed":
        _warn_of_mixture(type(loss).__name__)
    return "sum" if reduction == "sum" else "mean"


def _warn_of_mixture(what: str) -> None:
    logger.warning(
        "%s add up one term that is a sum over the batch and one that is a mean over it: parts of a batch, as on many "
        "devices or with accumulated gradients, then weigh otherwise than the batch as a whole; take batch_mean=True",
        what,
    )


def _check_takes_pieces(name: str, loss: nn.Module) -> None:
    parameters = inspect.signature(loss.forward).parameters
    if not {"first", "steps"} <= parameters.keys():
        raise TypeError(
            f"truncate needs a {name} that takes pieces of a clip, by the keyword arguments first (the step that a "
            f"piece begins with) and steps (of the whole clip), as PyramidLoss does; {type(loss).__name__} has them "
            f"not: add them, or leave truncate out"
        )
