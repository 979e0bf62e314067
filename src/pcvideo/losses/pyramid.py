# SPDX-License-Identifier: Apache-2.0
"""Losses on pyramids, over all levels and steps: of predictions (MSPN, PPNV2), and of fed-back features (PPNV2).

A pyramid is a sequence over levels from the finest, whose entry 0 is the frame. 16-bit input is computed in float32:
the sums leave half precision at the first frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pcvideo._checks import check_choice, check_number, describe
from pcvideo.losses._pyramids import FIRST_STEP, check_pyramids, check_weights, fit_weights, step_weights_for
from pcvideo.metrics._pairs import working_pair

__all__ = ["EncodingLoss", "PyramidLoss"]


class PyramidLoss(nn.Module):
    """Prediction errors of all levels and steps (Eq. 5 of arXiv 2212.11642, MSPN).

    With d the difference of prediction and target at one level and step, weighted by level and by step:

    - `"sum_of_squares"`: d**2 summed over samples, channels, pixels, levels and steps, as the published code trains.
      It grows with the batch, the frame and the clip, and the best learning rate with them.
    - `"euclidean"`: sqrt(sum of d**2 over channels and pixels + eps) for each sample, summed over samples, levels and
      steps, as the paper writes it.
    - `"mean"`: d**2 averaged over samples, channels and pixels, summed over levels by weight, and averaged over steps
      (the weighted sum over steps, divided by the sum of step weights).

    A prediction may have fewer levels than its target, as PPNV2's have in the first steps: what it lacks is not
    compared, and the others weigh what they always do.

    Args:
        norm: one of the three.
        level_weights: `"equal"` (MSPN's code: 1), `"linear"` (MSPN's paper: (L - l) / L at level l of L, finest first),
            `"shared_above"` (PPNV2: 1 for the frame, 1 / L for each level above it), or one number per level. L is the
            number of levels of the longest target.
        step_weights: None (1 each), `"skip_first"` (0 for the first step, whose prediction saw nothing; then 1, as
            MSPN's code has it), `"damp_first"` (0.2 for the first step, then 1: PPNV2), or one number per step. A step
            or level of weight 0 is not looked at.
        batch_mean: divide by the batch size; for `"mean"`, which does so already, it must stay False.
        eps: keeps the gradient of the Euclidean norm finite at 0; the others do not use it.

    Raises:
        TypeError: an option of the wrong kind.
        ValueError: an unknown or impossible option.
    """

    def __init__(
        self,
        *,
        norm: Literal["sum_of_squares", "euclidean", "mean"] = "sum_of_squares",
        level_weights: Literal["equal", "linear", "shared_above"] | Sequence[float] = "equal",
        step_weights: Literal["skip_first", "damp_first"] | Sequence[float] | None = None,
        batch_mean: bool = False,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        self.norm = check_choice("norm", norm, ("sum_of_squares", "euclidean", "mean"))
        self.level_weights = check_weights("level_weights", level_weights, ("equal", "linear", "shared_above"))
        self.step_weights = (
            None if step_weights is None else check_weights("step_weights", step_weights, tuple(FIRST_STEP))
        )
        if batch_mean and norm == "mean":
            raise ValueError("batch_mean must be False with norm='mean', which averages over the batch already")
        self.batch_mean = bool(batch_mean)
        self.eps = check_number("eps", eps, minimum=0)

    @property
    def reduction(self) -> Literal["mean", "sum"]:
        """What is done over the batch."""
        return "mean" if self.batch_mean or self.norm == "mean" else "sum"

    def forward(
        self,
        predictions: Sequence[Sequence[Tensor]],
        targets: Sequence[Sequence[Tensor]],
        *,
        first: int = 0,
        steps: int | None = None,
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            predictions: for each step, for each level from the finest, (B, C_l, H_l, W_l), float.
            targets: as many steps, at each step as many levels or more, the same shapes.
            first: where these are a piece of a clip, its first step in the clip.
            steps: and how many the clip has; the losses of all its pieces add up to that of the whole. None: these are
                the last ones.

        Raises:
            TypeError: not sequences of sequences of float tensors; a level that holds None.
            ValueError: lengths or shapes do not fit, there is nothing to compare, or weights do not fit the lengths.
        """
        check_pyramids(predictions, targets)
        step_weights, weight_of_all = step_weights_for(self.step_weights, len(predictions), first=first, steps=steps)
        level_weights = self._weights_of_levels(max(len(target) for target in targets))
        totals = []
        for step, weight in enumerate(step_weights):
            terms = self._terms(step, level_weights, predictions[step], targets[step]) if weight else []
            if terms:
                totals.append(weight * torch.stack(terms).sum())
        if not totals and any(step_weights):
            raise ValueError(
                f"{type(self).__name__} has nothing to compare: no level that predictions hold has a weight above 0"
            )
        # Of a piece whose steps all weigh 0, such as the first step alone: a loss still, to differentiate.
        total = torch.stack(totals).sum() if totals else 0 * predictions[0][0].sum()
        return total / weight_of_all if self.norm == "mean" else total

    def extra_repr(self) -> str:
        """The options, for `print(module)`."""
        return (
            f"norm={self.norm!r}, level_weights={self.level_weights!r}, step_weights={self.step_weights!r}, "
            f"batch_mean={self.batch_mean}, eps={self.eps}"
        )

    def _terms(
        self, step: int, weights: Sequence[float], prediction: Sequence[Tensor], target: Sequence[Tensor]
    ) -> list[Tensor]:
        """The weighted norms of one step's levels."""
        return [
            weights[level] * self._norm_of(_difference(step, level, prediction[level], target[level]))
            for level in range(len(prediction))
            if weights[level]
        ]

    def _norm_of(self, difference: Tensor) -> Tensor:
        """One level's norm, a scalar, from its (B, C, H, W) difference."""
        squares = difference.square()
        if self.norm == "mean":
            return squares.mean()
        total = (squares.flatten(1).sum(1) + self.eps).sqrt().sum() if self.norm == "euclidean" else squares.sum()
        return total / difference.shape[0] if self.batch_mean else total

    def _weights_of_levels(self, levels: int) -> Sequence[float]:
        """One weight for each of the network's levels."""
        if not isinstance(self.level_weights, str):
            return fit_weights("level_weights", self.level_weights, levels, "levels")
        if self.level_weights == "linear":
            return [(levels - level) / levels for level in range(levels)]
        return [1.0] + [1.0 if self.level_weights == "equal" else 1 / levels] * (levels - 1)


class EncodingLoss(PyramidLoss):
    """Features of fed-back predictions against features of the true frames: PPNV2's "encode" loss.

    What the encoder makes of a prediction that was fed back should be what it makes of the frame that came. It is
    `PyramidLoss` on the levels above the frame, with PPNV2's choices as defaults: sums of squares divided by the batch
    size. [`SelfFeeding`][pcvideo.training.SelfFeeding] calls it, with the steps that were fed back.

    Args:
        norm: as in `PyramidLoss`.
        level_weights: as in `PyramidLoss`, L counting the frame too; of one number per level the first is not used.
        step_weights: None (1 each), or one number per step that was fed back. There is no word for the first step of a
            clip here: it is never fed back.
        batch_mean: as in `PyramidLoss`; `norm="mean"` needs False.
        eps: as in `PyramidLoss`.

    Raises:
        TypeError: an option of the wrong kind.
        ValueError: an unknown or impossible option.
    """

    def __init__(
        self,
        *,
        norm: Literal["sum_of_squares", "euclidean", "mean"] = "sum_of_squares",
        level_weights: Literal["equal", "linear", "shared_above"] | Sequence[float] = "shared_above",
        step_weights: Sequence[float] | None = None,
        batch_mean: bool = True,
        eps: float = 1e-8,
    ) -> None:
        if isinstance(step_weights, str):
            raise TypeError(
                f"step_weights must be None or one number per step that is fed back, got {describe(step_weights)}; "
                f"the first step of a clip is never one of them"
            )
        super().__init__(
            norm=norm, level_weights=level_weights, step_weights=step_weights, batch_mean=batch_mean, eps=eps
        )

    def forward(
        self,
        predictions: Sequence[Sequence[Tensor]],
        targets: Sequence[Sequence[Tensor]],
        *,
        first: int = 0,
        steps: int | None = None,
    ) -> Tensor:
        """The loss, a scalar.

        Args:
            predictions: features of the frames that were fed back: for each such step, for each level from the frame,
                (B, C_l, H_l, W_l), float. The frame itself is not looked at.
            targets: features of the true frames: as many steps, at each as many levels or more, the same shapes.
            first: as in `PyramidLoss`, counted from the first step that is fed back.
            steps: as in `PyramidLoss`, those that are fed back.

        Raises:
            TypeError, ValueError: as `PyramidLoss`.
        """
        return super().forward(predictions, targets, first=first, steps=steps)

    def _weights_of_levels(self, levels: int) -> Sequence[float]:
        return [0.0, *super()._weights_of_levels(levels)[1:]]


def _difference(step: int, level: int, prediction: Tensor, target: Tensor) -> Tensor:
    """prediction - target of one level, checked, in at least float32."""
    where = f"at step {step}, level {level}"
    for name, frame in (("predictions", prediction), ("targets", target)):
        if not isinstance(frame, Tensor) or not frame.is_floating_point():
            raise TypeError(f"{name} must hold a float tensor (B, C, H, W) {where}, got {describe(frame)}")
    if prediction.shape != target.shape or prediction.ndim != 4:
        raise ValueError(
            f"predictions and targets must both be (B, C, H, W) {where}, got {tuple(prediction.shape)} "
            f"and {tuple(target.shape)}"
        )
    prediction, target = working_pair(prediction, target)
    return prediction - target
