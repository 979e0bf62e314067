# SPDX-License-Identifier: Apache-2.0
"""What WaveletVFI is trained with (arXiv 2309.03508): distances of census transforms and of wavelet coefficients.

Both give one value per sample, since the network's cost, which they are weighed against, is one per sample.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo._checks import check_int, check_number
from pcvideo.losses.reconstruction import CharbonnierLoss
from pcvideo.metrics._pairs import working_pair
from pcvideo.ops import backward_warp, haar_dwt

__all__ = ["CensusLoss", "MiddleFrameLoss", "MotionLoss", "WaveletLoss"]


class CensusLoss(nn.Module):
    """Distance of soft census transforms (Meister et al., AAAI 2018): which neighbours are brighter, not by how much.

    1. Grey is the mean of the channels. Of each pixel, the differences of its neighbours in a window to itself, zero
       beyond the border; each q becomes q / sqrt(0.81 + q**2).
    2. With e the difference of both frames' values, e**2 / (0.1 + e**2), averaged over the window.
    3. A border of half a window is set to zero; the mean goes over all pixels, the border's zeros included.

    The constants were made for grey values up to 255; the published code has them with frames in [0, 1]. `scale=255`
    gives them their first meaning. No gradient reaches the target.

    Args:
        window: side of the window, odd.
        scale: what values are multiplied by first.

    Raises:
        TypeError, ValueError: an option out of range.
    """

    def __init__(self, *, window: int = 7, scale: float = 1.0) -> None:
        super().__init__()
        self.window, self.scale = check_int("window", window), check_number("scale", scale, minimum=0)
        if self.window % 2 == 0:
            raise ValueError(f"window must be odd, got {window}; take {window - 1} or {window + 1}")

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """One value for each sample, (B,), of frames (B, C, H, W), float, of equal shape.

        Raises:
            TypeError, ValueError: as `metrics.mse`.
        """
        prediction, target = working_pair(prediction, target)
        difference = self._transform(prediction) - self._transform(target).detach()
        distance = (difference.square() / (0.1 + difference.square())).mean(1)
        border = self.window // 2
        inner = distance[:, border : distance.shape[1] - border, border : distance.shape[2] - border]
        return inner.sum((1, 2)) / distance[0].numel()

    def _transform(self, frames: Tensor) -> Tensor:
        """(B, window**2, H, W)."""
        grey = self.scale * frames.mean(1, keepdim=True)
        padded = F.pad(grey, (self.window // 2,) * 4)
        height, width = grey.shape[-2:]
        offsets = [(y, x) for y in range(self.window) for x in range(self.window)]
        differences = torch.cat([padded[..., y : y + height, x : x + width] for y, x in offsets], dim=1) - grey
        return differences / (0.81 + differences.square()).sqrt()


class WaveletLoss(nn.Module):
    """Charbonnier distance of predicted Haar coefficients to the true frame's, at every scale.

    Args:
        eps: as in `CharbonnierLoss`.
    """

    def __init__(self, *, eps: float = 1e-3) -> None:
        super().__init__()
        self.distance = CharbonnierLoss(eps=eps, reduction="none")

    def forward(self, low: Tensor, high: Sequence[Tensor], target: Tensor) -> Tensor:
        """The means over each set of coefficients, summed: one value for each sample, (B,).

        Args:
            low: (B, C, H / 2**k, W / 2**k), the coarsest frame.
            high: the details, fine to coarse: (B, C, 3, H/2, W/2), (B, C, 3, H/4, W/4) and so on, k of them.
            target: (B, C, H, W), H and W divisible by 2**k.

        Raises:
            TypeError, ValueError: shapes that don't fit, or no float tensors.
        """
        total, coarse = torch.zeros((), device=target.device), target
        for bands in high:
            coarse, details = haar_dwt(coarse)
            total = total + self.distance(bands, details).flatten(1).mean(1)
        return total + self.distance(low, coarse).flatten(1).mean(1)


class MiddleFrameLoss(nn.Module):
    """Charbonnier plus census distance of frames, the reconstruction term of WaveletVFI.

    Args:
        eps: as in `CharbonnierLoss`.
        census_scale: the `scale` of `CensusLoss`.
    """

    def __init__(self, *, eps: float = 1e-3, census_scale: float = 1.0) -> None:
        super().__init__()
        self.distance = CharbonnierLoss(eps=eps, reduction="none")
        self.census = CensusLoss(scale=census_scale)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """One value for each sample, (B,), of frames (B, C, H, W), float, of equal shape.

        Raises:
            TypeError, ValueError: as `metrics.mse`.
        """
        return self.distance(prediction, target).flatten(1).mean(1) + self.census(prediction, target)


class MotionLoss(nn.Module):
    """What flows are worth, at every scale at which they were found: by what they bring together, and by true ones.

    1. At each scale both frames, made small by averaging, are moved by its flows and mixed; their Charbonnier distance
       to the middle frame counts, at the coarser scales by half.
    2. Where the flows are known, `flow_weight` times the distance to them is added, in pixels of the whole frame,
       averaged over scales: from colours alone, matching is slow to be learnt.

    Args:
        flow_weight: of the distance to known flows; 0 leaves it out.
        eps: as in `CharbonnierLoss`.

    Raises:
        TypeError, ValueError: an option out of range.
    """

    def __init__(self, *, flow_weight: float = 0.1, eps: float = 1e-3) -> None:
        super().__init__()
        self.flow_weight = check_number("flow_weight", flow_weight, minimum=0)
        self.distance = CharbonnierLoss(eps=eps)

    def forward(
        self, scales: Sequence[Tensor], before: Tensor, truth: Tensor, after: Tensor, flows: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, the colours' distance at the finest scale, and the mean distance of flows.

        Args:
            scales: coarse to fine, (B, 5, H / s, W / s): the flows from the middle to the frames before and after,
                in pixels of that scale, as (x, y), and the logit of the former's share.
            before, truth, after: (B, C, H, W).
            flows: (B, 2, 3, H, W), to the frame before and to the one after: x, y, and 1 where they are known, else 0;
                None where none are.
        """
        colours, distances = [], [before.new_zeros(())]
        for found in scales:
            side = truth.shape[-1] // found.shape[-1]
            small = [F.avg_pool2d(frames, side) for frames in (before, truth, after)]
            share = found[:, 4:].sigmoid()
            mixed = share * backward_warp(small[0], found[:, :2]) + (1 - share) * backward_warp(small[2], found[:, 2:4])
            colours.append(self.distance(mixed, small[1]))
            if flows is not None and self.flow_weight:
                distances.append(_flow_distance(side * found[:, :4], flows, side))
        distance = torch.stack(distances).sum() / len(scales)
        return colours[-1] + 0.5 * sum(colours[:-1]) + self.flow_weight * distance, colours[-1], distance


def _flow_distance(found: Tensor, flows: Tensor, side: int) -> Tensor:
    """The mean distance of flows (B, 4, h, w) to known ones (B, 2, 3, h * side, w * side), over where these are."""
    small = F.avg_pool2d(flows.flatten(0, 1), side).unflatten(0, flows.shape[:2])
    difference = found.unflatten(1, (2, 2)) - small[:, :, :2]
    # Where it is zero, a distance has no gradient; a hundredth of a pixel is as good as that.
    distance = (difference.square().sum(2) + 1e-4).sqrt()
    known = small[:, :, 2]
    return (distance * known).sum() / known.sum().clamp(min=1)
