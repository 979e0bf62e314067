# SPDX-License-Identifier: Apache-2.0
"""The modulation in one pass over memory, forward and backward.

Forward reads three values and writes one; backward reads four and writes three, and one sum a program for the gradient
of the gain: added up afterwards in a fixed order, it is the same every time. All is computed in float32, or in float64
where a tensor is of it. See `_dispatch.py` for runs and tiles.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from pcvideo.ops._dispatch import empty, launch, memory_order, programs, tile
from pcvideo.ops._triton import places, read, tanh, write

__all__ = ["backward", "forward"]


@triton.jit
def forward_kernel(
    inputs, scale_shift, gain, output, outer, run,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """The modulated values, one tile a program."""
    here, at_scale, mask = places(outer, run, 2, ROWS, COLUMNS, WIDE)
    factor = tl.load(gain).to(tl.float64 if DOUBLE else tl.float32)
    scale = tl.sigmoid(read(scale_shift, at_scale, mask, DOUBLE))
    shift = tanh(read(scale_shift, at_scale + run, mask, DOUBLE), DOUBLE)
    write(output, here, read(inputs, here, mask, DOUBLE) * (scale * factor) + shift, mask)


@triton.jit
def backward_kernel(
    grad_output, inputs, scale_shift, gain, grad_inputs, grad_scale_shift, sums, outer, run,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr, DOUBLE: tl.constexpr,
):  # fmt: skip
    """The gradients of inputs and scale_shift, one tile a program, and its share of the gain's."""
    here, at_scale, mask = places(outer, run, 2, ROWS, COLUMNS, WIDE)
    at_shift = at_scale + run
    factor = tl.load(gain).to(tl.float64 if DOUBLE else tl.float32)
    scale = tl.sigmoid(read(scale_shift, at_scale, mask, DOUBLE))
    shift = tanh(read(scale_shift, at_shift, mask, DOUBLE), DOUBLE)
    slope = read(grad_output, here, mask, DOUBLE)
    # Lanes past the end read zeros, so they add nothing.
    share = slope * read(inputs, here, mask, DOUBLE) * scale
    write(grad_inputs, here, slope * (scale * factor), mask)
    write(grad_scale_shift, at_scale, share * factor * (1 - scale), mask)
    write(grad_scale_shift, at_shift, slope * (1 - shift * shift), mask)
    tl.store(sums + tl.program_id(0), tl.sum(tl.sum(share, axis=1), axis=0))


def forward(inputs: Tensor, scale_shift: Tensor, gain: Tensor) -> Tensor:
    """`reference.modulate` by kernel."""
    order = memory_order(inputs)
    inputs, scale_shift = (tensor.contiguous(memory_format=order) for tensor in (inputs, scale_shift))
    output = empty(inputs, inputs.shape[1], torch.promote_types(inputs.dtype, scale_shift.dtype), order)
    launch(forward_kernel, inputs, scale_shift, gain, output, shape=inputs.shape, order=order)
    return output


def backward(grad_output: Tensor, inputs: Tensor, scale_shift: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`reference.modulate_backward` by kernel."""
    order = memory_order(inputs)
    given = [tensor.contiguous(memory_format=order) for tensor in (grad_output, inputs, scale_shift)]
    grad_inputs = empty(inputs, inputs.shape[1], inputs.dtype, order)
    grad_scale_shift = empty(inputs, scale_shift.shape[1], scale_shift.dtype, order)
    wide = torch.float64 if torch.float64 in {tensor.dtype for tensor in given} else torch.float32
    sums = inputs.new_empty(programs(*tile(inputs.shape, order)), dtype=wide)
    launch(backward_kernel, *given, gain, grad_inputs, grad_scale_shift, sums, shape=inputs.shape, order=order)
    return grad_inputs, grad_scale_shift, sums.sum().to(gain.dtype)
