# SPDX-License-Identifier: Apache-2.0
"""Losses for binary scenes: cross-entropy, and the overlap measures of Jaccard and Dice made differentiable.

Each takes probabilities, or with `logits=True` what a sigmoid would be taken of. 16-bit input is computed in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo._checks import check_bool, check_int, check_number, describe
from pcvideo.losses._pyramids import check_pyramids
from pcvideo.metrics._pairs import working_pair

__all__ = ["BinaryCrossEntropyLoss", "DiceLoss", "JaccardLoss", "VolumeLoss"]

# Keras' clip of probabilities, with which the published networks were trained.
_LEAST = 1e-7


class BinaryCrossEntropyLoss(nn.Module):
    """-(w y log p + (1 - y) log(1 - p)), mean over all elements.

    Args:
        set_weight: w, the weight of what is set; 1 as published. A threshold of 0.5 on a network trained with w is one of
            1 / (1 + w) on the probabilities.
        logits: the prediction is logits; exact for any size of them. Probabilities are held within [1e-7, 1 - 1e-7].

    Raises:
        TypeError, ValueError: an option out of its range.
    """

    def __init__(self, *, set_weight: float = 1.0, logits: bool = False) -> None:
        super().__init__()
        self.set_weight = check_number("set_weight", set_weight, minimum=0)
        self.logits = check_bool("logits", logits)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of frames (..., C, *space) of equal shape; targets in [0, 1].

        Raises:
            TypeError, ValueError: as `metrics.mse`.
        """
        prediction, target = working_pair(prediction, target)
        if self.logits:
            weight = prediction.new_tensor(self.set_weight)
            return F.binary_cross_entropy_with_logits(prediction, target, pos_weight=weight)
        inside = prediction.clamp(_LEAST, 1 - _LEAST)
        return -(self.set_weight * target * inside.log() + (1 - target) * (-inside).log1p()).mean()


class _Overlap(nn.Module):
    """1 minus a ratio of overlap in each frame, mean over frames.

    Args:
        logits: the prediction is logits.
        spatial_dims: 2 for images, 3 for volumes: which axes are a frame's, besides its channels.
        smooth: voxels added above and below the ratio's bar, so that an empty frame has a gradient, and no loss if it
            is predicted to be empty.

    Raises:
        TypeError, ValueError: an option out of its range.
    """

    def __init__(self, *, logits: bool = False, spatial_dims: int = 3, smooth: float = 1.0) -> None:
        super().__init__()
        self.logits = check_bool("logits", logits)
        self.spatial_dims = check_int("spatial_dims", spatial_dims)
        self.smooth = check_number("smooth", smooth, minimum=0)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """The loss of frames (..., C, *space) of equal shape; targets in [0, 1].

        Raises:
            TypeError, ValueError: as `metrics.mse`.
        """
        prediction, target = working_pair(prediction, target)
        prediction = torch.sigmoid(prediction) if self.logits else prediction
        axes = tuple(range(-self.spatial_dims - 1, 0))
        both, sums = (prediction * target).sum(axes), (prediction + target).sum(axes)
        return (1 - self._ratio(both, sums)).mean()

    def _ratio(self, both: Tensor, sums: Tensor) -> Tensor:
        raise NotImplementedError


class JaccardLoss(_Overlap):
    """1 - (sum p y + s) / (sum (p + y - p y) + s) in each frame, mean over frames; binary frames have their distance."""

    def _ratio(self, both: Tensor, sums: Tensor) -> Tensor:
        return (both + self.smooth) / (sums - both + self.smooth)


class DiceLoss(_Overlap):
    """1 - (2 sum p y + s) / (sum (p + y) + s) in each frame, mean over frames (Milletari et al., arXiv 1606.04797)."""

    def _ratio(self, both: Tensor, sums: Tensor) -> Tensor:
        return (2 * both + self.smooth) / (sums + self.smooth)


class VolumeLoss(nn.Module):
    """What the training strategies call for binary scenes: cross-entropy and soft Jaccard of the frame, at every step.

    With `jaccard=0` and `set_weight=1` it is the loss that ConvLSTM3D was published with.

    Args:
        cross_entropy: weight of the cross-entropy, mean over voxels and steps.
        jaccard: weight of the soft Jaccard distance, mean over frames and steps.
        dice: weight of the soft Dice loss, the same.
        set_weight: as in `BinaryCrossEntropyLoss`.
        spatial_dims: 2 for images, 3 for volumes.

    Raises:
        TypeError, ValueError: an option out of its range.
    """

    def __init__(
        self,
        *,
        cross_entropy: float = 1.0,
        jaccard: float = 0.0,
        dice: float = 0.0,
        set_weight: float = 1.0,
        spatial_dims: int = 3,
    ) -> None:
        super().__init__()
        self.weights = {
            "cross_entropy": check_number("cross_entropy", cross_entropy, minimum=0),
            "jaccard": check_number("jaccard", jaccard, minimum=0),
            "dice": check_number("dice", dice, minimum=0),
        }
        if not any(self.weights.values()):
            raise ValueError("one of cross_entropy, jaccard and dice must be above 0")
        self.terms = nn.ModuleDict(
            {
                "cross_entropy": BinaryCrossEntropyLoss(set_weight=set_weight),
                "jaccard": JaccardLoss(spatial_dims=spatial_dims),
                "dice": DiceLoss(spatial_dims=spatial_dims),
            }
        )

    def forward(self, predictions: Sequence[Sequence[Tensor]], targets: Sequence[Sequence[Tensor]]) -> Tensor:
        """The loss, a scalar.

        Args:
            predictions: for each step a sequence whose entry 0 is the frame's probabilities (B, C, *space).
            targets: the same, of the frames that came.

        Raises:
            TypeError, ValueError: not sequences of sequences of equal length, or frames of other shapes.
        """
        check_pyramids(predictions, targets)
        prediction, target = (torch.stack([step[0] for step in steps], dim=1) for steps in (predictions, targets))
        if prediction.shape != target.shape:
            raise ValueError(f"predictions are {describe(prediction)}, targets {describe(target)}; they must be alike")
        terms = [weight * self.terms[name](prediction, target) for name, weight in self.weights.items() if weight]
        return torch.stack(terms).sum()
