# SPDX-License-Identifier: Apache-2.0
"""One step of a predictor as a graph that runs without this package, and mostly without Python."""

from pcvideo.export.step import ExportedStep, check_target, export_step

__all__ = ["ExportedStep", "check_target", "export_step"]
