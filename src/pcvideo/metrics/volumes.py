# SPDX-License-Identifier: Apache-2.0
"""Metrics of binary scenes, and the report of the published test on them.

The Jaccard distance of two sets of voxels is 1 - |both| / |either|. A voxel is set where its value is above a
threshold; two empty frames are alike: their distance is 0. A frame is all that follows the time axis, so images work
as volumes do.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcvideo._checks import check_int, check_number, describe
from pcvideo.metrics._pairs import working_pair

__all__ = ["VolumeScores", "jaccard_distance", "jaccard_distance_pooled", "voxel_error"]


def jaccard_distance(prediction: Tensor, target: Tensor, *, threshold: float = 0.5) -> Tensor:
    """The Jaccard distance of each frame.

    Args:
        prediction: (B, T, C, *space), float; probabilities or binary.
        target: the same shape.
        threshold: voxels above it are set, in both.

    Returns:
        (B, T), in [0, 1]; 0 where both frames are empty, NaN where a frame holds NaN.

    Raises:
        TypeError: not tensors, or not floating point.
        ValueError: the shapes differ or have fewer than four axes.
    """
    return _distance(prediction, target, threshold, first=2)


def jaccard_distance_pooled(prediction: Tensor, target: Tensor, *, threshold: float = 0.5) -> Tensor:
    """The Jaccard distance of whole sequences, voxels of all frames taken together: (B,).

    As the published single-step test of ConvLSTM3D counts. Large frames weigh more in it than small ones, and its
    values can't be compared with those of `jaccard_distance`. Arguments and errors are the same.
    """
    return _distance(prediction, target, threshold, first=1)


def voxel_error(prediction: Tensor, target: Tensor) -> Tensor:
    """The squared error averaged over each frame's voxels and channels: (B, T, C, *space) to (B, T).

    Raises:
        TypeError, ValueError: as `jaccard_distance`.
    """
    prediction, target = _pair(prediction, target)
    return (prediction - target).square().flatten(2).mean(2)


class VolumeScores:
    """The published test of next-volume predictors, accumulated over batches: one step, and a long-term forecast.

    The metrics are those of the protocol `voxels`, and the pooled distance of the one-step test beside them.

    Each figure is a mean over frames and scenes. Beside the prediction stand NULL, the last true frame as prediction of
    the next one; INPUT, how far the prediction is from that frame; and, for the long term, COPY, the last frame of the
    context. (In the published long-term test NULL and INPUT take the true frame of the step before, which a forecast of
    several steps has not seen; COPY is what it competes with.)

    Args:
        context: true frames before the long-term forecast.
        horizon: steps of that forecast.

    Raises:
        TypeError, ValueError: they are no whole numbers of at least 1.
    """

    def __init__(self, *, context: int = 5, horizon: int = 5) -> None:
        self.context, self.horizon = check_int("context", context), check_int("horizon", horizon)
        self.samples = 0
        self._sums: dict[str, Tensor] = {}

    @torch.no_grad()
    def update(self, frames: Tensor, one_step: Tensor, long_term: Tensor) -> None:
        """Add a batch.

        Args:
            frames: (B, T, C, *space), the true ones, at least context + horizon of them.
            one_step: (B, T - 1, C, *space); entry t predicts frame t + 1 from the true frames up to t.
            long_term: (B, horizon, C, *space), the forecast from the first `context` frames.

        Raises:
            TypeError, ValueError: shapes that don't fit.
        """
        if frames.shape[1] < self.context + self.horizon:
            raise ValueError(
                f"frames must be at least context + horizon = {self.context + self.horizon}, got {describe(frames)}"
            )
        before, after = frames[:, :-1], frames[:, 1:]
        end = self.context + self.horizon
        truth, last = frames[:, self.context : end], frames[:, self.context - 1 : end - 1]
        copied = last[:, :1].expand_as(truth)
        pairs = {
            "one_step": (one_step, after),
            "one_step/null": (before, after),
            "one_step/input": (one_step, before),
            "long_term": (long_term, truth),
            "long_term/null": (last, truth),
            "long_term/input": (long_term, last),
            "long_term/copy": (copied, truth),
        }
        values = {
            f"{name}/{metric}": measure(*pair).double().sum(0).cpu()
            for name, pair in pairs.items()
            for metric, measure in (("jaccard", jaccard_distance), ("mse_mean", voxel_error))
        }
        values["one_step/jaccard_pooled"] = jaccard_distance_pooled(one_step, after).double().sum()[None].cpu()
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0) + value
        self.samples += len(frames)

    def report(self) -> dict[str, Any]:
        """The figures, JSON-able: by test, by `prediction`, `null`, `input` and `copy`, by metric, mean and per step.

        Raises:
            ValueError: nothing was added yet.
        """
        if not self.samples:
            raise ValueError("there is nothing to report: update() was not called")
        report: dict[str, Any] = {
            "protocol": "voxels",
            "samples": self.samples,
            "context": self.context,
            "horizon": self.horizon,
        }
        for name, total in self._sums.items():
            test, *kind, metric = name.split("/")
            steps = (total / self.samples).tolist()
            entry = report.setdefault(test, {}).setdefault(kind[0] if kind else "prediction", {})
            entry[metric] = {"mean": sum(steps) / len(steps), "per_step": steps}
        return report


def _distance(prediction: Tensor, target: Tensor, threshold: float, *, first: int) -> Tensor:
    """Over all axes from `first` on."""
    check_number("threshold", threshold)
    prediction, target = (frames.flatten(first) for frames in _pair(prediction, target))
    one, other = prediction > threshold, target > threshold
    both, either = (one & other).sum(-1), (one | other).sum(-1)
    # 0 / 0, two empty frames, counts as no distance.
    distance = torch.where(either > 0, 1 - both.double() / either.clamp(min=1), 0.0).float()
    return distance.masked_fill((prediction.isnan() | target.isnan()).any(-1), torch.nan)


def _pair(prediction: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    prediction, target = working_pair(prediction, target)
    if prediction.ndim < 4:
        raise ValueError(f"prediction and target must be (B, T, C, *space), got {describe(prediction)}")
    return prediction, target
