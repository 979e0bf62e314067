# SPDX-License-Identifier: Apache-2.0
"""The LSTM update (Hochreiter and Schmidhuber 1997; gates in the order i, f, o, g) in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["lstm_gates", "lstm_gates_backward"]


def lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One LSTM update without peepholes.

    The cell is a sum over time, so it keeps its own dtype: in float32 it stays float32 where the gates are of 16 bit.

    Args:
        gates: (B, 4 * hidden, *space), the pre-activations of input, forget and output gate and of the candidate.
        cell: (B, hidden, *space).

    Returns:
        hidden (B, hidden, *space) in the dtype of `gates`, and the next cell in the wider dtype of the two.
    """
    dtype = torch.promote_types(gates.dtype, cell.dtype)
    input_gate, forget_gate, output_gate, candidate = gates.to(dtype).chunk(4, dim=1)
    cell = torch.sigmoid(forget_gate) * cell + torch.sigmoid(input_gate) * torch.tanh(candidate)
    hidden = torch.sigmoid(output_gate) * torch.tanh(cell)
    return hidden.to(gates.dtype), cell


def lstm_gates_backward(
    grad_hidden: Tensor, grad_following: Tensor, gates: Tensor, cell: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of `lstm_gates`; itself differentiable.

    Args:
        grad_hidden: (B, hidden, *space), of the hidden.
        grad_following: (B, hidden, *space), of the next cell.
        gates: (B, 4 * hidden, *space), as given forward.
        cell: (B, hidden, *space), as given forward.

    Returns:
        The gradients of `gates` and `cell`, in their dtypes.
    """
    dtype = torch.promote_types(gates.dtype, cell.dtype)
    input_gate, forget_gate, output_gate, candidate = gates.to(dtype).chunk(4, dim=1)
    input_gate, forget_gate, output_gate = (torch.sigmoid(gate) for gate in (input_gate, forget_gate, output_gate))
    candidate = torch.tanh(candidate)
    bounded = torch.tanh(forget_gate * cell + input_gate * candidate)
    grad_following = grad_following + grad_hidden * output_gate * (1 - bounded * bounded)
    grad_gates = [
        grad_following * candidate * input_gate * (1 - input_gate),
        grad_following * cell * forget_gate * (1 - forget_gate),
        grad_hidden * bounded * output_gate * (1 - output_gate),
        grad_following * input_gate * (1 - candidate * candidate),
    ]
    return torch.cat(grad_gates, dim=1).to(gates.dtype), (grad_following * forget_gate).to(cell.dtype)
