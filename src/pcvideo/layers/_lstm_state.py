# SPDX-License-Identifier: Apache-2.0
"""What the LSTM cells carry from step to step."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["LSTMState", "zero_state"]


class LSTMState(NamedTuple):
    """What an LSTM cell carries: hidden in the inputs' dtype, cell in float32 at least; both (B, hidden, *space)."""

    hidden: Tensor
    cell: Tensor


def zero_state(like: Tensor, shape: tuple[int, ...]) -> LSTMState:
    """Zeros of the given shape, in the dtype and on the device of `like`."""
    # A 16-bit cell would lose what a long sequence adds up.
    dtype = torch.promote_types(like.dtype, torch.float32)
    return LSTMState(like.new_zeros(shape), like.new_zeros(shape, dtype=dtype))
