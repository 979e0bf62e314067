# SPDX-License-Identifier: Apache-2.0
"""Checkpoints of the published code to models of this package; a system is one small file with one table of names."""

from pcvideo.convert.checkpoints import read_checkpoint
from pcvideo.convert.keras_3d import conv_lstm_from_keras, read_keras_weights
from pcvideo.convert.keras_gan_3d import aenc_gan_from_keras
from pcvideo.convert.originals import SYSTEMS, Original, load_original, read_original, save_original, to_original

__all__ = [
    "SYSTEMS",
    "Original",
    "aenc_gan_from_keras",
    "conv_lstm_from_keras",
    "load_original",
    "read_checkpoint",
    "read_keras_weights",
    "read_original",
    "save_original",
    "to_original",
]
