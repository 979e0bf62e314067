# SPDX-License-Identifier: Apache-2.0
"""The LSTM update in one pass over memory, forward and backward.

Forward reads four gates and a cell and writes hidden and cell; backward reads these five and two gradients and writes
five. All is computed in float32, or in float64 where a tensor is of it. See `_dispatch.py` for runs and tiles.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pcvideo.ops._dispatch import empty, launch, memory_order
from pcvideo.ops._triton import places, read, tanh, write

__all__ = ["backward", "forward"]


@triton.jit
def forward_kernel(
    gates, cell, hidden, following, outer, run,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """Hidden and the next cell, one tile a program."""
    here, at_input, mask = places(outer, run, 4, ROWS, COLUMNS, WIDE)
    # One run further at a time, since `3 * run` may not fit into 32 bits.
    at_forget = at_input + run
    at_output = at_forget + run
    input_gate = tl.sigmoid(read(gates, at_input, mask, DOUBLE))
    forget_gate = tl.sigmoid(read(gates, at_forget, mask, DOUBLE))
    output_gate = tl.sigmoid(read(gates, at_output, mask, DOUBLE))
    candidate = tanh(read(gates, at_output + run, mask, DOUBLE), DOUBLE)
    result = forget_gate * read(cell, here, mask, DOUBLE) + input_gate * candidate
    write(following, here, result, mask)
    write(hidden, here, output_gate * tanh(result, DOUBLE), mask)


@triton.jit
def backward_kernel(
    grad_hidden, grad_following, gates, cell, grad_gates, grad_cell, outer, run,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """The gradients of gates and cell, one tile a program; the activations are computed again."""
    here, at_input, mask = places(outer, run, 4, ROWS, COLUMNS, WIDE)
    at_forget = at_input + run
    at_output = at_forget + run
    at_candidate = at_output + run
    input_gate = tl.sigmoid(read(gates, at_input, mask, DOUBLE))
    forget_gate = tl.sigmoid(read(gates, at_forget, mask, DOUBLE))
    output_gate = tl.sigmoid(read(gates, at_output, mask, DOUBLE))
    candidate = tanh(read(gates, at_candidate, mask, DOUBLE), DOUBLE)
    before = read(cell, here, mask, DOUBLE)
    bounded = tanh(forget_gate * before + input_gate * candidate, DOUBLE)
    from_hidden = read(grad_hidden, here, mask, DOUBLE)
    through = read(grad_following, here, mask, DOUBLE) + from_hidden * output_gate * (1 - bounded * bounded)
    write(grad_gates, at_input, through * candidate * input_gate * (1 - input_gate), mask)
    write(grad_gates, at_forget, through * before * forget_gate * (1 - forget_gate), mask)
    write(grad_gates, at_output, from_hidden * bounded * output_gate * (1 - output_gate), mask)
    write(grad_gates, at_candidate, through * input_gate * (1 - candidate * candidate), mask)
    write(grad_cell, here, through * forget_gate, mask)


def forward(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """`reference.lstm_gates` by kernel."""
    order = memory_order(gates)
    gates, cell = (tensor.contiguous(memory_format=order) for tensor in (gates, cell))
    hidden = empty(cell, cell.shape[1], gates.dtype, order)
    following = empty(cell, cell.shape[1], torch.promote_types(gates.dtype, cell.dtype), order)
    launch(forward_kernel, gates, cell, hidden, following, shape=cell.shape, order=order)
    return hidden, following


def backward(grad_hidden: Tensor, grad_following: Tensor, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """`reference.lstm_gates_backward` by kernel."""
    order = memory_order(gates)
    given = [tensor.contiguous(memory_format=order) for tensor in (grad_hidden, grad_following, gates, cell)]
    grad_gates = empty(cell, gates.shape[1], gates.dtype, order)
    grad_cell = empty(cell, cell.shape[1], cell.dtype, order)
    launch(backward_kernel, *given, grad_gates, grad_cell, shape=cell.shape, order=order)
    return grad_gates, grad_cell
