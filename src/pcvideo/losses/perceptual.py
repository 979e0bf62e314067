# SPDX-License-Identifier: Apache-2.0
"""LPIPS as a loss (Zhang et al., arXiv 1801.03924): frozen, and invisible to whoever saves or optimises its owner."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from pcvideo._checks import check_choice
from pcvideo.metrics.lpips import LPIPS, Backbone, Network

__all__ = ["LPIPSLoss"]


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
