# SPDX-License-Identifier: Apache-2.0
"""Pictures of predictions: strips, comparison GIFs, curves; filters; middle frames."""

from __future__ import annotations

from pcvideo.viz.animate import comparison_frames, save_comparison_gif
from pcvideo.viz.curves import horizon_curve, loss_curve
from pcvideo.viz.filters import plot_response
from pcvideo.viz.meshes import Surface, surface, write_mesh
from pcvideo.viz.middles import middles, save_middles
from pcvideo.viz.strips import save_strip, strip
from pcvideo.viz.validation_pictures import ValidationPictures
from pcvideo.viz.volumes import save_surface_gif, save_surface_strip, slice_frames

__all__ = [
    "Surface",
    "ValidationPictures",
    "comparison_frames",
    "horizon_curve",
    "loss_curve",
    "middles",
    "plot_response",
    "save_comparison_gif",
    "save_middles",
    "save_strip",
    "save_surface_gif",
    "save_surface_strip",
    "slice_frames",
    "strip",
    "surface",
    "write_mesh",
]
