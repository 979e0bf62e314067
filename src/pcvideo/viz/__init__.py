# SPDX-License-Identifier: Apache-2.0
"""Pictures of predictions: strips, comparison GIFs, and curves over the horizon and over training."""

from __future__ import annotations

from pcvideo.viz.animate import comparison_frames, save_comparison_gif
from pcvideo.viz.curves import horizon_curve, loss_curve
from pcvideo.viz.strips import save_strip, strip

__all__ = ["comparison_frames", "horizon_curve", "loss_curve", "save_comparison_gif", "save_strip", "strip"]
