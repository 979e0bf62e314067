# SPDX-License-Identifier: Apache-2.0
"""Training on triplets, whose middle frame is to be found from the outer two: WaveletVFI's two stages, and one before.

Kong et al., arXiv 2309.03508. First everything is computed (`StaticInterpolation`); then, from these weights, a
classifier learns how much each picture needs (`DynamicInterpolation`). The published code meant to lower the
temperature of its draws from 1 to 0.4, but set it on a wrapper of the model, so that it stayed at 1; here it falls.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo._checks import check_bool, check_clip, check_int, check_number
from pcvideo.losses import MiddleFrameLoss, MotionLoss, WaveletLoss
from pcvideo.training.strategies.base import Strategy

__all__ = ["DynamicInterpolation", "MotionInterpolation", "StaticInterpolation"]


class _Interpolation(Strategy):
    """What both stages share. For validation, context is the frame before, so that copying it is the baseline."""

    def __init__(self, *, reconstruction: nn.Module | None, wavelet_weight: float) -> None:
        super().__init__(context=1, horizon=2)
        self.reconstruction = MiddleFrameLoss() if reconstruction is None else reconstruction
        self.wavelet = WaveletLoss()
        self.wavelet_weight = check_number("wavelet_weight", wavelet_weight, minimum=0)

    def _triplet(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The frames before, between and after of a batch (B, 3, C, H, W)."""
        check_clip("batch", batch, channels=self.model.in_channels, multiple=self.model.size_multiple)
        if batch.shape[1] != self.length:
            raise ValueError(
                f"batch must hold triplets (B, 3, C, H, W), got {tuple(batch.shape)}; cut windows of three"
            )
        before, between, after = batch.unbind(1)
        return before, between, after

    def _terms(self, middle: Any, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Reconstruction and wavelet terms of each sample."""
        bands = middle.synthesis.bands
        return self.reconstruction(middle.frame, truth), self.wavelet(bands.low, bands.high, truth)

    @torch.no_grad()
    def forecast(self, batch: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
        """For validation: the middle frame (B, 1, C, H, W), by the threshold chosen for it, and the true one."""
        before, between, after = batch[:, : self.length].unbind(1)
        return model(before, after)[:, None], between[:, None]


class MotionInterpolation(_Interpolation):
    """A stage before the first, not in the paper: the motion network alone, by `MotionLoss`.

    It is a small part of the network and of a step's time, but most of a middle frame's quality hangs on it. Clips are
    triplets (3, C, H, W), or (5, C, H, W) where two flows follow as frames of x, y, and 1 where they are known: that
    to the frame before, and that to the one after.

    Args:
        flow_weight: as in `MotionLoss`.
    """

    def __init__(self, *, flow_weight: float = 0.1) -> None:
        super().__init__(reconstruction=None, wavelet_weight=0.0)
        self.motion = MotionLoss(flow_weight=flow_weight)

    def begin(self, step: int) -> None:
        """Let all rest but what finds flows."""
        self.rest(self.model.context, self.model.synthesis, self.model.motion.classifier)

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of triplets (B, 3, C, H, W), or (B, 5, C, H, W) with flows."""
        before, truth, after = self._triplet(batch[:, : self.length])
        flows = batch[:, self.length :] if batch.shape[1] > self.length else None
        scales, _ = self.model.motion.scales(before, after)
        loss, colours, distance = self.motion(scales, before, truth, after, flows)
        return loss, {"reconstruction": colours.detach(), "flow": distance.detach()}


class StaticInterpolation(_Interpolation):
    """The first stage: with a threshold of 0, so that every detail is computed.

    The loss is the mean over samples of the reconstruction, plus `wavelet_weight` times the distance of the wavelet
    coefficients. The published code adds the cost of computation here too; it has no gradient, and is left out.

    Args:
        reconstruction: called with the frame and the truth, (B, C, H, W), gives (B,); None is `MiddleFrameLoss()`.
        wavelet_weight: of the coefficients' distance.
    """

    def __init__(self, *, reconstruction: nn.Module | None = None, wavelet_weight: float = 0.01) -> None:
        super().__init__(reconstruction=reconstruction, wavelet_weight=wavelet_weight)

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of triplets (B, 3, C, H, W)."""
        before, truth, after = self._triplet(batch)
        (middle,) = self.model.explain_each(before, after, (0.0,))
        reconstruction, wavelet = (term.mean() for term in self._terms(middle, truth))
        # The classifier has no part in this stage; engines for many devices want a gradient for every parameter.
        loss = reconstruction + self.wavelet_weight * wavelet + 0 * middle.motion.logits.sum()
        return loss, {"reconstruction": reconstruction.detach(), "wavelet": wavelet.detach()}


class DynamicInterpolation(_Interpolation):
    """The second stage: the classifier's choice among the model's thresholds is learnt, by quality against cost.

    The shares p of the thresholds are drawn from the logits by Gumbel's softmax (Jang et al., ICLR 2017). Each term is
    the sum over thresholds of p times the term under that threshold: the reconstruction, `wavelet_weight` times the
    coefficients' distance, and `cost_weight` times the reconstruction, without its gradient, times the relative cost of
    the decoder. The four decodings share one dense pass.

    Args:
        steps: of the whole run: the temperature falls in a line, as if to reach 0 after half of them.
        lowest_temperature: where it stops falling; 1 keeps it at 1, as the published code comes to do.
        straight_through: compute with the chosen threshold alone, but let the gradient pass as if all took part.
        reconstruction, wavelet_weight: as in `StaticInterpolation`.
        cost_weight: of the cost term.
    """

    def __init__(
        self,
        *,
        steps: int,
        lowest_temperature: float = 0.4,
        straight_through: bool = False,
        reconstruction: nn.Module | None = None,
        wavelet_weight: float = 0.01,
        cost_weight: float = 3.0,
    ) -> None:
        super().__init__(reconstruction=reconstruction, wavelet_weight=wavelet_weight)
        self.steps = check_int("steps", steps)
        self.lowest_temperature = check_number("lowest_temperature", lowest_temperature, minimum=1e-3, maximum=1)
        self.straight_through = check_bool("straight_through", straight_through)
        self.cost_weight = check_number("cost_weight", cost_weight, minimum=0)
        self.temperature = 1.0

    def begin(self, step: int) -> None:
        """Set the temperature of this step."""
        self.temperature = max(1 - step / (self.steps / 2), self.lowest_temperature)

    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of triplets (B, 3, C, H, W)."""
        before, truth, after = self._triplet(batch)
        middles = self.model.explain_each(before, after, self.model.thresholds)
        logits = middles[0].motion.logits.float()
        shares = F.gumbel_softmax(logits, tau=self.temperature, hard=self.straight_through)
        terms = [self._terms(middle, truth) for middle in middles]
        reconstructions, wavelets = (torch.stack(term, dim=1) for term in zip(*terms, strict=True))
        costs = torch.stack([middle.synthesis.cost for middle in middles], dim=1)
        reconstruction, wavelet, cost = (
            (shares * term).sum(1).mean() for term in (reconstructions, wavelets, reconstructions.detach() * costs)
        )
        loss = reconstruction + self.wavelet_weight * wavelet + self.cost_weight * cost
        logs = {"reconstruction": reconstruction, "wavelet": wavelet, "cost": (shares * costs).sum(1).mean()}
        return loss, {name: value.detach() for name, value in logs.items()}
