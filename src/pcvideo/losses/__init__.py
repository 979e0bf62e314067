# SPDX-License-Identifier: Apache-2.0
"""Losses as objects: each states what it sums and what it averages."""

from __future__ import annotations

from pcvideo.losses.adversarial import (
    HingeScoreLoss,
    LeastSquaresScoreLoss,
    ScoreLoss,
    WassersteinScoreLoss,
    gradient_penalty,
)
from pcvideo.losses.combined import PPNV2Loss, SumLoss
from pcvideo.losses.interpolation import CensusLoss, MiddleFrameLoss, MotionLoss, WaveletLoss
from pcvideo.losses.perceptual import FramePerceptualLoss, LPIPSLoss
from pcvideo.losses.pyramid import EncodingLoss, PyramidLoss
from pcvideo.losses.reconstruction import CharbonnierLoss, GradientDifferenceLoss, L1Loss, SSIMLoss
from pcvideo.losses.regularisers import MaximumEntropy, RegularisedLoss, SoftmaxEntropy, TotalVariation
from pcvideo.losses.volumes import BinaryCrossEntropyLoss, DiceLoss, JaccardLoss, VolumeLoss

__all__ = [
    "BinaryCrossEntropyLoss",
    "CensusLoss",
    "CharbonnierLoss",
    "DiceLoss",
    "EncodingLoss",
    "FramePerceptualLoss",
    "GradientDifferenceLoss",
    "HingeScoreLoss",
    "JaccardLoss",
    "L1Loss",
    "LPIPSLoss",
    "LeastSquaresScoreLoss",
    "MaximumEntropy",
    "MiddleFrameLoss",
    "MotionLoss",
    "PPNV2Loss",
    "PyramidLoss",
    "RegularisedLoss",
    "SSIMLoss",
    "ScoreLoss",
    "SoftmaxEntropy",
    "SumLoss",
    "TotalVariation",
    "VolumeLoss",
    "WassersteinScoreLoss",
    "WaveletLoss",
    "gradient_penalty",
]
