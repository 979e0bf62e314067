# SPDX-License-Identifier: Apache-2.0
"""Operations without parameters; each folder holds the definition in plain torch, which is the CPU path."""

from pcvideo.ops.lstm_gates import lstm_gates
from pcvideo.ops.modulate import modulate
from pcvideo.ops.split_error import split_error

__all__ = ["lstm_gates", "modulate", "split_error"]
