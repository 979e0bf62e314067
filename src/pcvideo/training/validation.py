# SPDX-License-Identifier: Apache-2.0
"""What a forecast is worth in the middle of a training: the standard metrics beside those of copying the last frame."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pcvideo.metrics import Metric, PerStep, copy_last, get_protocol, jaccard_distance, voxel_error
from pcvideo.training.loggers import Logger
from pcvideo.training.ranks import Ranks

__all__ = ["Scores", "Validation", "split_validation"]

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
        loggers: of the run; `log_picture` tells them.
    """

    run_dir: Path
    step: int
    metrics: Mapping[str, float]
    context: Tensor
    prediction: Tensor
    truth: Tensor
    loggers: Sequence[Logger] = ()

    def log_picture(self, name: str, path: Path) -> None:
        """Hand a PNG or a GIF that was written to all loggers."""
        for logger in self.loggers:
            logger.picture(self.step, name, path)


class Scores:
    """The metrics of forecasts, summed up batch by batch, beside those of copying the last frame.

    Of volumes (B, T, C, D, H, W) the metrics are `mse`, `mse_mean` and `jaccard`.

    Args:
        seen: of a batch, the frames before the forecast.
        volumes: the frames are volumes.
    """

    def __init__(self, *, seen: Callable[[Tensor], Tensor], volumes: bool = False) -> None:
        standard = get_protocol("standard").metrics
        metrics = _OF_VOLUMES if volumes else {name: standard[name] for name in _METRICS}
        self._model, self._copy = PerStep(metrics), PerStep(metrics)
        self._seen = seen
        self._shown: tuple[Tensor, ...] = ()

    @torch.no_grad()
    def add(self, batches: Iterable[Tensor], forecast: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        """Forecast batches (B, T, C, H, W); `forecast` gives forecast and truth, both (B, horizon, C, H, W)."""
        for batch in batches:
            prediction, truth = forecast(batch)
            prediction, seen = prediction.float(), self._seen(batch)
            self._model.update(prediction, truth)
            self._copy.update(copy_last(seen, truth.shape[1]), truth)
            self._shown = self._shown or (seen, prediction, truth)

    def frames(self) -> tuple[Tensor, Tensor, Tensor]:
        """The first batch's context, prediction and truth."""
        context, prediction, truth = self._shown
        return context, prediction, truth

    def metrics(self) -> dict[str, float]:
        """The means over the batches of all ranks, each of which has to call it, once."""
        baseline = {f"copy_last/{name}": value for name, value in _means(self._copy.all_reduce()).items()}
        return _means(self._model.all_reduce()) | baseline


def split_validation(count: int, size: int, ranks: Ranks) -> list[list[int]]:
    """The batches, of `size` clips at most, in which this rank goes through its share of the first `count` clips."""
    batches = [list(range(start, min(start + size, count))) for start in range(0, count, size)]
    return batches[ranks.number :: ranks.count]


def _means(scores: PerStep) -> dict[str, float]:
    """Means by name; infinity where a mean isn't finite, and nothing for a metric that can't be computed here."""
    means = {name: figures["mean"] for name, figures in scores.compute().items() if figures is not None}
    return {name: float("inf") if mean is None else float(mean) for name, mean in means.items()}
