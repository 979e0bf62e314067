# SPDX-License-Identifier: Apache-2.0
"""Blocks that models are built from, to use in any network."""

from pcvideo.layers.blocks import EncoderDecoder, ResidualBlock
from pcvideo.layers.conv_lstm import ConvLSTMCell
from pcvideo.layers.doubled_conv import conv2d_of_doubled
from pcvideo.layers.ed_lstm import EDLSTMCell, EncoderLSTMDecoderCell, LSTMState
from pcvideo.layers.fir import FIRDownsample, FIRUpsample, LearnableFIR
from pcvideo.layers.fourier_conv import FourierConv3d, use_fourier
from pcvideo.layers.masked_level import MaskedLevel
from pcvideo.layers.modulated_conv import ModulatedConv
from pcvideo.layers.patches import from_patches, to_patches
from pcvideo.layers.resample import Downsample, Upsample
from pcvideo.layers.tiles import active_tiles, gather_tiles, scatter_tiles
from pcvideo.layers.volume_networks import VolumeCritic, VolumeEncoder, VolumeGenerator

__all__ = [
    "ConvLSTMCell",
    "Downsample",
    "EDLSTMCell",
    "EncoderDecoder",
    "EncoderLSTMDecoderCell",
    "FIRDownsample",
    "FIRUpsample",
    "FourierConv3d",
    "LSTMState",
    "LearnableFIR",
    "MaskedLevel",
    "ModulatedConv",
    "ResidualBlock",
    "Upsample",
    "VolumeCritic",
    "VolumeEncoder",
    "VolumeGenerator",
    "active_tiles",
    "conv2d_of_doubled",
    "from_patches",
    "gather_tiles",
    "scatter_tiles",
    "to_patches",
    "use_fourier",
]
