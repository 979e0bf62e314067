# SPDX-License-Identifier: Apache-2.0
"""Pixel losses: the pyramid loss of MSPN in its variants, and losses on plain frames.

Each class states what it sums and what it averages. 16-bit input is computed in float32: the sums leave half precision
at the first frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pcvideo._checks import check_choice, check_number, describe
from pcvideo.metrics._pairs import working_pair
from pcvideo.metrics.functional import mse_mean, ssim

__all__ = ["CharbonnierLoss", "GradientDifferenceLoss", "L1Loss", "PyramidLoss", "SSIMLoss"]

_REDUCTIONS = ("mean", "sum", "none")


class PyramidLoss(nn.Module):
    """Prediction errors of all levels and steps (Eq. 5 of arXiv 2212.11642, MSPN).

    With d the difference of prediction and target at one level and step, weighted by level and by step:

    - `"sum_of_squares"`: d**2 summed over samples, channels, pixels, levels and steps, as the published code trains.
      It grows with the batch, the frame and the clip, and the best learning rate with them.
    - `"euclidean"`: sqrt(sum of d**2 over channels and pixels + eps) for each sample, summed over samples, levels and
      steps, as the paper writes it.
    - `"mean"`: d**2 averaged over samples, channels and pixels, summed over levels by weight, and averaged over steps
      (the weighted sum over steps, divided by the sum of step weights).

    Args:
        norm: one of the three.
        level_weights: `"equal"` (the code: 1), `"linear"` (the paper: (L - l) / L at level l of L, finest first), or
            one number per level.
        step_weights: None (1 each), `"skip_first"` (0 for the first step, whose prediction saw nothing; then 1, as the
            published code has it), or one number per step. A step or level of weight 0 is not looked at.
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
        level_weights: Literal["equal", "linear"] | Sequence[float] = "equal",
        step_weights: Literal["skip_first"] | Sequence[float] | None = None,
        batch_mean: bool = False,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        self.norm = check_choice("norm", norm, ("sum_of_squares", "euclidean", "mean"))
        self.level_weights = _check_weights("level_weights", level_weights, ("equal", "linear"))
        self.step_weights = (
            None if step_weights is None else _check_weights("step_weights", step_weights, ("skip_first",))
        )
        if batch_mean and norm == "mean":
            raise ValueError("batch_mean must be False with norm='mean', which averages over the batch already")
        self.batch_mean = bool(batch_mean)
        self.eps = check_number("eps", eps, minimum=0)

    def forward(self, predictions: Sequence[Sequence[Tensor]], targets: Sequence[Sequence[Tensor]]) -> Tensor:
        """The loss, a scalar.

        Args:
            predictions: for each step, for each level from the finest, (B, C_l, H_l, W_l), float.
            targets: the same lengths and shapes.

        Raises:
            TypeError: not sequences of sequences of float tensors; a level that holds None.
            ValueError: lengths or shapes differ, there is nothing to compare, or weights do not fit the lengths.
        """
        _check_nesting(predictions, targets)
        step_weights = self._weights_of_steps(len(predictions))
        totals = [
            weight * self._step_loss(step, predictions[step], targets[step])
            for step, weight in enumerate(step_weights)
            if weight
        ]
        total = torch.stack(totals).sum()
        return total / sum(step_weights) if self.norm == "mean" else total

    def extra_repr(self) -> str:
        """The options, for `print(module)`."""
        return (
            f"norm={self.norm!r}, level_weights={self.level_weights!r}, step_weights={self.step_weights!r}, "
            f"batch_mean={self.batch_mean}, eps={self.eps}"
        )

    def _step_loss(self, step: int, prediction: Sequence[Tensor], target: Sequence[Tensor]) -> Tensor:
        """The weighted sum over one step's levels."""
        weights = self._weights_of_levels(len(prediction))
        terms = []
        for level, weight in enumerate(weights):
            if weight:
                difference = _difference(step, level, prediction[level], target[level])
                terms.append(weight * self._norm_of(difference))
        return torch.stack(terms).sum()

    def _norm_of(self, difference: Tensor) -> Tensor:
        """One level's norm, a scalar, from its (B, C, H, W) difference."""
        squares = difference.square()
        if self.norm == "mean":
            return squares.mean()
        total = (squares.flatten(1).sum(1) + self.eps).sqrt().sum() if self.norm == "euclidean" else squares.sum()
        return total / difference.shape[0] if self.batch_mean else total

    def _weights_of_levels(self, levels: int) -> Sequence[float]:
        if self.level_weights == "equal":
            return [1.0] * levels
        if self.level_weights == "linear":
            return [(levels - level) / levels for level in range(levels)]
        return _fit_weights("level_weights", self.level_weights, levels, "levels")

    def _weights_of_steps(self, steps: int) -> Sequence[float]:
        if self.step_weights is None:
            return [1.0] * steps
        weights = [0.0] + [1.0] * (steps - 1) if self.step_weights == "skip_first" else self.step_weights
        return _fit_weights("step_weights", weights, steps, "steps")


class L1Loss(nn.Module):
    """Absolute error.

    Args:
        reduction: `"mean"` over all elements, `"sum"` over all elements, or `"none"`, one value per element.

    Raises:
        ValueError: an unknown reduction.
    """

    def __init__(self, *, reduction: Literal["mean", "sum", "none"] = "mean") -> None:
        super().__init__()
        self.reduction = check_choice("reduction", reduction, _REDUCTIONS)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of frames (..., C, H, W), float, of equal shape.

        Raises:
            TypeError, ValueError: as `metrics.mse`.
        """
        prediction, target = working_pair(prediction, target)
        return _reduce((prediction - target).abs(), self.reduction)


class CharbonnierLoss(nn.Module):
    """sqrt(d**2 + eps**2): absolute error, smooth at 0 (Charbonnier et al., ICIP 1994).

    Args:
        eps: where it turns from quadratic to linear, in units of the frame's values; identical frames score `eps`.
        reduction: `"mean"` over all elements, `"sum"` over all elements, or `"none"`, one value per element.

    Raises:
        ValueError: an unknown reduction, or `eps` is not above zero.
    """

    def __init__(self, *, eps: float = 1e-3, reduction: Literal["mean", "sum", "none"] = "mean") -> None:
        super().__init__()
        if check_number("eps", eps, minimum=0) == 0:
            raise ValueError("eps must be above zero, got 0; L1Loss is the limit")
        self.eps = float(eps)
        self.reduction = check_choice("reduction", reduction, _REDUCTIONS)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of frames (..., C, H, W), float, of equal shape.

        Raises:
            TypeError, ValueError: as `metrics.mse`.
        """
        prediction, target = working_pair(prediction, target)
        return _reduce(((prediction - target).square() + self.eps**2).sqrt(), self.reduction)


class GradientDifferenceLoss(nn.Module):
    """Difference of the gradients' magnitudes, against blur (Mathieu et al., ICLR 2016, arXiv 1511.05440, Eq. 6).

    | |t[i, j] - t[i-1, j]| - |p[i, j] - p[i-1, j]| | ** alpha, and the same along the width.

    Args:
        alpha: the exponent, at least 1.
        reduction: `"mean"`, the mean over all vertical differences plus the mean over all horizontal ones; or `"sum"`,
            the paper's sum over both, over the whole batch.

    Raises:
        ValueError: an unknown reduction, or `alpha` is below 1.
    """

    def __init__(self, *, alpha: float = 1.0, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        self.alpha = check_number("alpha", alpha, minimum=1)
        self.reduction = check_choice("reduction", reduction, ("mean", "sum"))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of frames (..., C, H, W), float, of equal shape and at least 2x2 pixels.

        Raises:
            TypeError, ValueError: as `metrics.mse`; frames of a single row or column.
        """
        prediction, target = working_pair(prediction, target)
        if min(prediction.shape[-2:]) < 2:
            raise ValueError(f"GradientDifferenceLoss needs frames of at least 2x2 pixels, got {describe(prediction)}")
        loss = prediction.new_zeros(())
        for axis in (-2, -1):
            gap = (target.diff(dim=axis).abs() - prediction.diff(dim=axis).abs()).abs()
            loss = loss + _reduce(gap.pow(self.alpha), self.reduction)
        return loss


class SSIMLoss(nn.Module):
    """(1 - weight) * MSE + weight * (1 - SSIM), each per frame: MSE the mean over the frame, SSIM that of Wang 2004.

    Args:
        weight: share of the SSIM term, in [0, 1].
        data_range: highest minus lowest possible value; 1.0 for frames in [0, 1].
        reduction: `"mean"` over frames, or `"none"`, one value per frame (...).

    Raises:
        ValueError: an option out of range.
    """

    def __init__(
        self, *, weight: float = 0.1, data_range: float = 1.0, reduction: Literal["mean", "none"] = "mean"
    ) -> None:
        super().__init__()
        self.weight = check_number("weight", weight, minimum=0, maximum=1)
        self.data_range = check_number("data_range", data_range, minimum=0)
        self.reduction = check_choice("reduction", reduction, ("mean", "none"))

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of frames (..., C, H, W), float, of equal shape and at least 11x11 pixels.

        Raises:
            TypeError, ValueError: as `metrics.ssim`.
        """
        dissimilarity = 1 - ssim(prediction, target, data_range=self.data_range)
        loss = (1 - self.weight) * mse_mean(prediction, target) + self.weight * dissimilarity
        return _reduce(loss, self.reduction)


def _reduce(values: Tensor, reduction: str) -> Tensor:
    if reduction == "mean":
        return values.mean()
    return values.sum() if reduction == "sum" else values


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


def _check_nesting(predictions: Sequence[Sequence[Tensor]], targets: Sequence[Sequence[Tensor]]) -> None:
    """Refuse anything but two equally long sequences over time of equally long sequences over levels."""
    for name, pyramids in (("predictions", predictions), ("targets", targets)):
        if isinstance(pyramids, Tensor) or not isinstance(pyramids, Sequence):
            raise TypeError(f"{name} must be a sequence over time of sequences over levels, got {describe(pyramids)}")
        for step, pyramid in enumerate(pyramids):
            if isinstance(pyramid, Tensor) or not isinstance(pyramid, Sequence):
                raise TypeError(
                    f"{name}[{step}] must be a sequence over levels, got {describe(pyramid)}; "
                    f"a single level is written [frame]"
                )
    if len(predictions) != len(targets) or not predictions:
        raise ValueError(
            f"predictions and targets must have the same number of steps, at least one, got {len(predictions)} "
            f"and {len(targets)}"
        )
    for step, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        if len(prediction) != len(target) or not prediction:
            raise ValueError(
                f"predictions and targets must have the same number of levels, at least one, got {len(prediction)} "
                f"and {len(target)} at step {step}; cut the longer one"
            )


def _check_weights(name: str, weights: str | Sequence[float], words: tuple[str, ...]) -> str | tuple[float, ...]:
    """One of `words`, or the numbers as a tuple."""
    if isinstance(weights, str):
        return check_choice(name, weights, words)
    if not isinstance(weights, Sequence):
        raise TypeError(
            f"{name} must be {' or '.join(map(repr, words))} or a sequence of numbers, got {describe(weights)}"
        )
    return tuple(check_number(f"{name}[{index}]", weight, minimum=0) for index, weight in enumerate(weights))


def _fit_weights(name: str, weights: Sequence[float] | str, count: int, what: str) -> Sequence[float]:
    """`weights` if there are `count`, and not all of them 0."""
    if isinstance(weights, str) or len(weights) != count:
        raise ValueError(f"{name} must hold one number for each of the {count} {what}, got {len(weights)}")
    if not any(weights):
        raise ValueError(f"{name} must not all be 0 for {count} {what}; nothing would be compared")
    return weights
