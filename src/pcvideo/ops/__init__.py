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
from pcvideo.ops.lstm_gates import lstm_gates
from pcvideo.ops.modulate import modulate
from pcvideo.ops.split_error import split_error

__all__ = [
    "FilterReport",
    "describe_filter",
    "frequency_response",
    "lowpass_taps",
    "lstm_gates",
    "modulate",
    "reshaped_taps",
    "split_error",
    "upfirdn2d",
]
