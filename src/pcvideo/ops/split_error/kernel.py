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

__all__ = ["backward", "forward"]


@triton.jit
def _place(outer, run, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr):
    # Where this program's values lie in a tensor of one run, and in one of two; and which of them exist.
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    across = (run - 1) // COLUMNS + 1
    rows = (program // across) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = (program % across) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return rows * run + columns, 2 * rows * run + columns, (rows < outer) & (columns < run)


@triton.jit
def _read(pointer, place, mask, DOUBLE: tl.constexpr):
    return tl.load(pointer + place, mask=mask, other=0.0).to(tl.float64 if DOUBLE else tl.float32)


@triton.jit
def _write(pointer, place, value, mask):
    tl.store(pointer + place, value.to(pointer.dtype.element_ty), mask=mask)


@triton.jit
def forward_kernel(
    target, prediction, error, outer, run,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """Both halves of the error, one tile a program."""
    here, at_little, mask = _place(outer, run, ROWS, COLUMNS, WIDE)
    difference = _read(target, here, mask, DOUBLE) - _read(prediction, here, mask, DOUBLE)
    # A NaN stays one, which a maximum with zero would hide.
    _write(error, at_little, tl.where(difference <= 0, 0.0, difference), mask)
    _write(error, at_little + run, tl.where(difference >= 0, 0.0, -difference), mask)


@triton.jit
def backward_kernel(
    grad_error, error, grad_target, grad_prediction, outer, run,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """The gradients of target and prediction, one tile a program."""
    here, at_little, mask = _place(outer, run, ROWS, COLUMNS, WIDE)
    at_much = at_little + run
    little = _read(grad_error, at_little, mask, DOUBLE)
    much = _read(grad_error, at_much, mask, DOUBLE)
    little = tl.where(_read(error, at_little, mask, DOUBLE) <= 0, 0.0, little)
    much = tl.where(_read(error, at_much, mask, DOUBLE) <= 0, 0.0, much)
    _write(grad_target, here, little - much, mask)
    _write(grad_prediction, here, much - little, mask)


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
