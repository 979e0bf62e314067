# SPDX-License-Identifier: Apache-2.0
"""Losses as objects: each states what it sums and what it averages."""

from __future__ import annotations

from pcvideo.losses.perceptual import LPIPSLoss
from pcvideo.losses.reconstruction import (
    CharbonnierLoss,
    GradientDifferenceLoss,
    L1Loss,
    PyramidLoss,
    SSIMLoss,
)

__all__ = ["CharbonnierLoss", "GradientDifferenceLoss", "L1Loss", "LPIPSLoss", "PyramidLoss", "SSIMLoss"]
