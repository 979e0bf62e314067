# SPDX-License-Identifier: Apache-2.0
"""LPIPS as a loss (Zhang et al., arXiv 1801.03924): frozen, and invisible to whoever saves or optimises its owner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from pcvideo._checks import check_choice
from pcvideo.losses._pyramids import FIRST_STEP, check_pyramids, check_weights, step_weights_for
from pcvideo.metrics.lpips import LPIPS, Backbone, Network

__all__ = ["FramePerceptualLoss", "LPIPSLoss"]


class LPIPSLoss(nn.Module):
    """LPIPS between frames, differentiable in the prediction.

    The network is no submodule: it is frozen, stays in eval mode whatever `train()` says, and adds nothing to
    `parameters()` or `state_dict()`. It is loaded at the first call.

    Args:
        backbone: `"vgg"` (usual for training), `"alex"` or `"squeeze"`.
        squared: square each frame's distance before reducing, as PPNV2 trains.
        reduction: `"mean"` over frames, or `"none"`, one value per frame (...).
        network: in place of the packaged one; see `metrics.LPIPS`.

    Raises:
        TypeError, ValueError: an option that `metrics.LPIPS` refuses, or an unknown reduction.
    """

    def __init__(
        self,
        backbone: Backbone = "vgg",
        *,
        squared: bool = False,
        reduction: Literal["mean", "none"] = "mean",
        network: Network | None = None,
    ) -> None:
        super().__init__()
        self.squared = bool(squared)
        self.reduction = check_choice("reduction", reduction, ("mean", "none"))
        # A plain object: nn.Module does not register it.
        self._distance = LPIPS(backbone, network=network)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of frames (..., C, H, W), C of 1 or 3 (RGB), in [0, 1], of equal shape.

        Raises:
            TypeError, ValueError, MetricUnavailable, ImportError: as `metrics.LPIPS`.
        """
        distance = self._distance(prediction, target)
        if self.squared:
            distance = distance.square()
        return distance.mean() if self.reduction == "mean" else distance


class FramePerceptualLoss(nn.Module):
    """Squared LPIPS of the predicted frames, scaled to stand beside sums of squares, as PPNV2 is trained.

    C * H * W times the mean over samples of LPIPS**2, summed over steps by weight. It is called as `PyramidLoss` is,
    and looks at level 0 alone, the frame.

    Args:
        backbone: `"vgg"` (PPNV2's), `"alex"` or `"squeeze"`.
        step_weights: None (1 each), `"skip_first"` (0 for the first step, then 1), `"damp_first"` (0.2 for the first
            step, then 1: PPNV2), or one number per step. A step of weight 0 is not looked at.
        network: in place of the packaged one; see `metrics.LPIPS`.

    Raises:
        TypeError, ValueError: an option that `LPIPSLoss` or `PyramidLoss` refuses.
    """

    def __init__(
        self,
        backbone: Backbone = "vgg",
        *,
        step_weights: Literal["skip_first", "damp_first"] | Sequence[float] | None = None,
        network: Network | None = None,
    ) -> None:
        super().__init__()
        self.distance = LPIPSLoss(backbone, squared=True, network=network)
        self.step_weights = (
            None if step_weights is None else check_weights("step_weights", step_weights, tuple(FIRST_STEP))
        )

    @property
    def reduction(self) -> Literal["mean"]:
        """What is done over the batch."""
        return "mean"

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
            predictions: for each step, for each level from the frame; level 0 (B, C, H, W), C of 1 or 3 (RGB), float,
                in [0, 1] (not clamped).
            targets: as many steps, at each step as many levels or more, level 0 of the same shape.
            first, steps: as in `PyramidLoss`, for a piece of a clip.

        Raises:
            TypeError, ValueError: as `PyramidLoss`.
            TypeError, ValueError, MetricUnavailable, ImportError: as `metrics.LPIPS`.
        """
        check_pyramids(predictions, targets)
        terms = []
        step_weights, _ = step_weights_for(self.step_weights, len(predictions), first=first, steps=steps)
        for step, weight in enumerate(step_weights):
            if weight:
                prediction, target = predictions[step][0], targets[step][0]
                distance = self.distance(prediction, target)
                terms.append(weight * math.prod(prediction.shape[-3:]) * distance)
        return torch.stack(terms).sum() if terms else 0 * predictions[0][0].sum()

    def extra_repr(self) -> str:
        """The options, for `print(module)`."""
        return f"step_weights={self.step_weights!r}"
