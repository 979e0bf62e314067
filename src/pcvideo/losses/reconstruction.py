# SPDX-License-Identifier: Apache-2.0
"""Pixel losses on plain frames.

Each class states what it sums and what it averages. 16-bit input is computed in float32: the sums leave half precision
at the first frame.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from pcvideo._checks import check_choice, check_number, describe
from pcvideo.metrics._pairs import working_pair
from pcvideo.metrics.functional import mse_mean, ssim

__all__ = ["CharbonnierLoss", "GradientDifferenceLoss", "L1Loss", "SSIMLoss"]

_REDUCTIONS = ("mean", "sum", "none")


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
