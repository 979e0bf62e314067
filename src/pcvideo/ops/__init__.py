# SPDX-License-Identifier: Apache-2.0
"""Operations without parameters; each folder holds the definition in plain torch, which is the CPU path."""

from pcvideo.ops.fir import (
    FilterReport,
    describe_filter,
    frequency_response,
    lowpass_taps,
    reshaped_taps,
    upfirdn2d,
)
from pcvideo.ops.fourier_conv import fourier_conv3d, fourier_fits, fourier_spectrum
from pcvideo.ops.lstm_gates import lstm_gates
from pcvideo.ops.modulate import modulate
from pcvideo.ops.split_error import split_error
from pcvideo.ops.warp import backward_warp
from pcvideo.ops.wavelet import haar_dwt, haar_idwt, orthogonal_dwt, orthogonal_idwt

__all__ = [
    "FilterReport",
    "backward_warp",
    "describe_filter",
    "fourier_conv3d",
    "fourier_fits",
    "fourier_spectrum",
    "frequency_response",
    "haar_dwt",
    "haar_idwt",
    "lowpass_taps",
    "lstm_gates",
    "modulate",
    "orthogonal_dwt",
    "orthogonal_idwt",
    "reshaped_taps",
    "split_error",
    "upfirdn2d",
]
