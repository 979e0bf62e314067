# SPDX-License-Identifier: Apache-2.0
"""Blocks that models are built from, to use in any network."""

from pcvideo.layers.blocks import EncoderDecoder, ResidualBlock
from pcvideo.layers.conv_lstm import ConvLSTMCell
from pcvideo.layers.ed_lstm import EDLSTMCell, EncoderLSTMDecoderCell, LSTMState
from pcvideo.layers.fir import FIRDownsample, FIRUpsample, LearnableFIR
from pcvideo.layers.modulated_conv import ModulatedConv
from pcvideo.layers.patches import from_patches, to_patches
from pcvideo.layers.resample import Downsample, Upsample

__all__ = [
    "ConvLSTMCell",
    "Downsample",
    "EDLSTMCell",
    "EncoderDecoder",
    "EncoderLSTMDecoderCell",
    "FIRDownsample",
    "FIRUpsample",
    "LSTMState",
    "LearnableFIR",
    "ModulatedConv",
    "ResidualBlock",
    "Upsample",
    "from_patches",
    "to_patches",
]
