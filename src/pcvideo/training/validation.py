# SPDX-License-Identifier: Apache-2.0
"""What a forecast is worth in the middle of a training: the standard metrics beside those of copying the last frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pcvideo.metrics import Metric, PerStep, copy_last, get_protocol, jaccard_distance, voxel_error

__all__ = ["Scores", "Validation", "score_forecasts"]

# LPIPS is left out: it takes longer than the forecast.
_METRICS = ("mse", "mse_mean", "mae", "psnr", "ssim")
_OF_VOLUMES: Mapping[str, Metric] = {
    "mse": lambda prediction, target: voxel_error(prediction, target) * prediction[0, 0].numel(),
    "mse_mean": voxel_error,
    "jaccard": jaccard_distance,
}


@dataclass(frozen=True)
class Validation:
    """What a callback is handed after each validation.

    Attributes:
        run_dir: the run folder, to leave pictures in.
        step: steps trained so far.
        metrics: the means by name, with copy-last's as `copy_last/...`.
        context: (B, T, C, H, W), the frames that the first batch's forecasts began from.
        prediction: (B, horizon, C, H, W), these forecasts.
        truth: (B, horizon, C, H, W), the frames that came.
    """

    run_dir: Path
    step: int
    metrics: Mapping[str, float]
    context: Tensor
    prediction: Tensor
    truth: Tensor


@dataclass(frozen=True)
class Scores:
    """The metrics over all batches, and the first batch's frames (context, prediction, truth)."""

    metrics: dict[str, float]
    shown: tuple[Tensor, Tensor, Tensor]


@torch.no_grad()
def score_forecasts(
    batches: Iterable[Tensor], forecast: Callable[[Tensor], tuple[Tensor, Tensor]], *, context: int
) -> Scores:
    """Forecast every batch (B, T, C, H, W), of which there is at least one.

    Of volumes (B, T, C, D, H, W) the metrics are `mse`, `mse_mean` and `jaccard`.

    Args:
        batches: of clips.
        forecast: gives the forecast of a batch and the true frames, both (B, horizon, C, H, W).
        context: frames before the forecast.
    """
    standard = get_protocol("standard").metrics
    scores: tuple[PerStep, PerStep] | None = None
    shown: list[tuple[Tensor, Tensor, Tensor]] = []
    for batch in batches:
        if scores is None:
            metrics = _OF_VOLUMES if batch.ndim == 6 else {name: standard[name] for name in _METRICS}
            scores = PerStep(metrics), PerStep(metrics)
        model_scores, copy_scores = scores
        prediction, truth = forecast(batch)
        prediction, seen = prediction.float(), batch[:, :context]
        model_scores.update(prediction, truth)
        copy_scores.update(copy_last(seen, truth.shape[1]), truth)
        shown = shown or [(seen, prediction, truth)]
    baseline = {f"copy_last/{name}": value for name, value in _means(copy_scores).items()}
    return Scores(_means(model_scores) | baseline, shown[0])


def _means(scores: PerStep) -> dict[str, float]:
    """Means by name; infinity where a mean isn't finite, and nothing for a metric that can't be computed here."""
    means = {name: figures["mean"] for name, figures in scores.compute().items() if figures is not None}
    return {name: float("inf") if mean is None else float(mean) for name, mean in means.items()}
