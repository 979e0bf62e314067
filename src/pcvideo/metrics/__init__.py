# SPDX-License-Identifier: Apache-2.0
"""Frame metrics, protocols that fix every choice in them, and exact accumulation per step of the horizon.

`lpips` here is the function; the `LPIPS` class keeps a network of its own.
"""

from __future__ import annotations

from pcvideo.metrics._errors import FrameTooSmall, MetricUnavailable
from pcvideo.metrics.baselines import BASELINES, black, copy_last
from pcvideo.metrics.colour import ciede2000, score_colours
from pcvideo.metrics.functional import mae, mae_mean, mse, mse_mean, psnr, ssim, ssim_columns, ssim_volume
from pcvideo.metrics.lpips import LPIPS, lpips
from pcvideo.metrics.middles import average_frames, copy_before, score_doubling, score_middles
from pcvideo.metrics.per_step import PerStep, evaluate_frames
from pcvideo.metrics.protocols import PROTOCOLS, Metric, Protocol, get_protocol
from pcvideo.metrics.volumes import VolumeScores, jaccard_distance, jaccard_distance_pooled, voxel_error

__all__ = [
    "BASELINES",
    "LPIPS",
    "PROTOCOLS",
    "FrameTooSmall",
    "Metric",
    "MetricUnavailable",
    "PerStep",
    "Protocol",
    "VolumeScores",
    "average_frames",
    "black",
    "ciede2000",
    "copy_before",
    "copy_last",
    "evaluate_frames",
    "get_protocol",
    "jaccard_distance",
    "jaccard_distance_pooled",
    "lpips",
    "mae",
    "mae_mean",
    "mse",
    "mse_mean",
    "psnr",
    "score_colours",
    "score_doubling",
    "score_middles",
    "ssim",
    "ssim_columns",
    "ssim_volume",
    "voxel_error",
]
