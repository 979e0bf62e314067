# SPDX-License-Identifier: Apache-2.0
"""The LSTM update (Hochreiter and Schmidhuber 1997; gates in the order i, f, o, g) in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["lstm_gates"]


def lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One LSTM update without peepholes.

    The cell is a sum over time, so it keeps its own dtype: in float32 it stays float32 where the gates are of 16 bit.

    Args:
        gates: (B, 4 * hidden, *space), the pre-activations of input, forget and output gate and of the candidate.
        cell: (B, hidden, *space).

    Returns:
        hidden (B, hidden, *space) in the dtype of `gates`, and the next cell in the dtype of `cell`.
    """
    dtype = torch.promote_types(gates.dtype, cell.dtype)
    input_gate, forget_gate, output_gate, candidate = gates.to(dtype).chunk(4, dim=1)
    cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(input_gate) * torch.tanh(candidate)
    hidden = torch.sigmoid(output_gate) * torch.tanh(cell)
    return hidden.to(gates.dtype), cell
