# SPDX-License-Identifier: Apache-2.0
"""The predictors, and what judges them in training; each is one file, and none imports another."""

from pcvideo.models._base import Predictor
from pcvideo.models._interpolator import Interpolator
from pcvideo.models._stream import Stream
from pcvideo.models.adaptation import Adaptation, adapt
from pcvideo.models.aenc_gan3d import AEncGAN3D, AEncGAN3DState
from pcvideo.models.conv_lstm import ConvLSTMPredictor, ConvLSTMPredictorState
from pcvideo.models.discriminators import FrameDiscriminator
from pcvideo.models.frame_doubler import FrameDoubler, FrameDoublerState
from pcvideo.models.grey2rgb import Grey2RGB
from pcvideo.models.mspn import MSPN, MultiScalePredictor, MultiScaleState, ResamplerTaps
from pcvideo.models.ppnv2 import PPNV2, PPNV2State
from pcvideo.models.volumes import forecast_windows, next_frames
from pcvideo.models.wavelet_vfi import WaveletVFI

__all__ = [
    "MSPN",
    "PPNV2",
    "AEncGAN3D",
    "AEncGAN3DState",
    "Adaptation",
    "ConvLSTMPredictor",
    "ConvLSTMPredictorState",
    "FrameDiscriminator",
    "FrameDoubler",
    "FrameDoublerState",
    "Grey2RGB",
    "Interpolator",
    "MultiScalePredictor",
    "MultiScaleState",
    "PPNV2State",
    "Predictor",
    "ResamplerTaps",
    "Stream",
    "WaveletVFI",
    "adapt",
    "forecast_windows",
    "next_frames",
]
