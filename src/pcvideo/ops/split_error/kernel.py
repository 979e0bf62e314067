# SPDX-License-Identifier: Apache-2.0
"""The split error in one pass over memory, forward and backward.

Forward reads two values and writes two; backward reads four and writes two. All is computed in float32, or in float64
where a tensor is of it. See `_dispatch.py` for runs and tiles.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pcvideo.ops._dispatch import empty, launch, memory_order
from pcvideo.ops._triton import places, read, write

__all__ = ["backward", "forward"]


@triton.jit
def forward_kernel(
    target, prediction, error, outer, run,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """Both halves of the error, one tile a program."""
    here, at_little, mask = places(outer, run, 2, ROWS, COLUMNS, WIDE)
    difference = read(target, here, mask, DOUBLE) - read(prediction, here, mask, DOUBLE)
    # A NaN stays one, which a maximum with zero would hide.
    write(error, at_little, tl.where(difference <= 0, 0.0, difference), mask)
    write(error, at_little + run, tl.where(difference >= 0, 0.0, -difference), mask)


@triton.jit
def backward_kernel(
    grad_error, error, grad_target, grad_prediction, outer, run,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """The gradients of target and prediction, one tile a program."""
    here, at_little, mask = places(outer, run, 2, ROWS, COLUMNS, WIDE)
    at_much = at_little + run
    little = read(grad_error, at_little, mask, DOUBLE)
    much = read(grad_error, at_much, mask, DOUBLE)
    little = tl.where(read(error, at_little, mask, DOUBLE) <= 0, 0.0, little)
    much = tl.where(read(error, at_much, mask, DOUBLE) <= 0, 0.0, much)
    write(grad_target, here, little - much, mask)
    write(grad_prediction, here, much - little, mask)


def forward(target: Tensor, prediction: Tensor) -> Tensor:
    """`reference.split_error` by kernel."""
    order = memory_order(prediction)
    target, prediction = (tensor.contiguous(memory_format=order) for tensor in (target, prediction))
    dtype = torch.promote_types(target.dtype, prediction.dtype)
    error = empty(prediction, 2 * prediction.shape[1], dtype, order)
    launch(forward_kernel, target, prediction, error, shape=prediction.shape, order=order)
    return error


def backward(grad_error: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """`reference.split_error_backward` by kernel."""
    order = memory_order(error)
    given = [tensor.contiguous(memory_format=order) for tensor in (grad_error, error)]
    grad_target, grad_prediction = (empty(error, error.shape[1] // 2, error.dtype, order) for _ in range(2))
    launch(backward_kernel, *given, grad_target, grad_prediction, shape=grad_target.shape, order=order)
    return grad_target, grad_prediction
