# SPDX-License-Identifier: Apache-2.0
"""The LSTM update's public door: the definition in plain torch, on a GPU one kernel forward and one backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcvideo.ops._dispatch import can_build_kernels, empty, memory_order, use_kernel
from pcvideo.ops.lstm_gates import reference

__all__ = ["lstm_gates"]


def lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """One LSTM update without peepholes (Hochreiter and Schmidhuber 1997).

    `cell' = sigmoid(f) * cell + sigmoid(i) * tanh(g)` and `hidden = sigmoid(o) * tanh(cell')`. The cell is a sum over
    time, so it keeps its own dtype: in float32 it stays float32 where the gates are of 16 bit.

    On an NVIDIA GPU (compute capability 8.0 and up) with Triton, outside `torch.compile`, one kernel does it, computes
    in float32 or wider and keeps nothing for the gradient but its inputs; elsewhere plain torch. The kernel has no
    forward-mode derivative.

    Args:
        gates: (B, 4 * hidden, *space), the pre-activations of input, forget and output gate and of the candidate, in
            the order i, f, o, g.
        cell: (B, hidden, *space).

    Returns:
        hidden (B, hidden, *space) in the dtype of `gates`, and the next cell in the wider dtype of the two.

    Raises:
        ValueError: `gates` is not four times as wide as `cell`, or of another size.
    """
    if cell.ndim < 2 or gates.shape != (cell.shape[0], 4 * cell.shape[1], *cell.shape[2:]):
        raise ValueError(
            f"gates must be (B, 4 * hidden, *space) for a cell of (B, hidden, *space), got gates "
            f"{tuple(gates.shape)} and cell {tuple(cell.shape)}; let the convolution before have 4 * hidden channels"
        )
    return fused_lstm_gates(gates, cell) if use_kernel(gates, cell) else reference.lstm_gates(gates, cell)


@torch.library.custom_op("pcvideo::lstm_gates", mutates_args=())
def fused_lstm_gates(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """`lstm_gates` as one operation to autograd; the outputs are in the memory order of `gates`."""
    hidden, following = reference.lstm_gates(gates, cell)
    order = memory_order(gates)
    return hidden.contiguous(memory_format=order), following.contiguous(memory_format=order)


@torch.library.custom_op("pcvideo::lstm_gates_backward", mutates_args=())
def fused_backward(grad_hidden: Tensor, grad_following: Tensor, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `gates` and `cell` as one operation."""
    grad_gates, grad_cell = reference.lstm_gates_backward(grad_hidden, grad_following, gates, cell)
    order = memory_order(gates)
    return grad_gates.contiguous(memory_format=order), grad_cell.contiguous(memory_format=order)


@fused_lstm_gates.register_fake
def _(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    order, hidden = memory_order(gates), cell.shape[1]
    wide = torch.promote_types(gates.dtype, cell.dtype)
    return empty(cell, hidden, gates.dtype, order), empty(cell, hidden, wide, order)


@fused_backward.register_fake
def _(grad_hidden: Tensor, grad_following: Tensor, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    order = memory_order(gates)
    return empty(cell, gates.shape[1], gates.dtype, order), empty(cell, cell.shape[1], cell.dtype, order)


if can_build_kernels():

    @fused_lstm_gates.register_kernel("cuda")
    def _(gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        from pcvideo.ops.lstm_gates import kernel  # noqa: PLC0415

        return kernel.forward(gates, cell)

    @fused_backward.register_kernel("cuda")
    def _(grad_hidden: Tensor, grad_following: Tensor, gates: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        from pcvideo.ops.lstm_gates import kernel  # noqa: PLC0415

        return kernel.backward(grad_hidden, grad_following, gates, cell)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: tuple[Tensor, Tensor]) -> None:
    # The activations are cheaper to compute again than to keep.
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_hidden: Tensor, grad_following: Tensor) -> tuple[Tensor, Tensor]:
    # With create_graph=True the gradient must be differentiable itself, which the plain formula is.
    formula = reference.lstm_gates_backward if torch.is_grad_enabled() else fused_backward
    return formula(grad_hidden, grad_following, *ctx.saved_tensors)


fused_lstm_gates.register_autograd(_backward, setup_context=_save)
