# SPDX-License-Identifier: Apache-2.0
"""What the kernels share. Only they import this file, which needs Triton; see `_dispatch.py` for runs and tiles."""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["places", "read", "tanh", "write"]


@triton.jit
def tanh(x, DOUBLE: tl.constexpr):
    """The hyperbolic tangent of finite and infinite values, without overflow."""
    decay = tl.exp(-2 * tl.abs(x))
    size = (1 - decay) / (1 + decay)
    result = tl.where(x < 0, -size, size)
    # The quotient loses digits near zero, where a float32 takes the series (error 1e-8 of the value).
    if not DOUBLE:
        y = x * x
        series = x + x * y * (-1 / 3 + y * (2 / 15 + y * (-17 / 315 + y * (62 / 2835))))
        result = tl.where(tl.abs(x) < 0.25, series, result)
    return result


@triton.jit
def places(outer, run, PARTS: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, WIDE: tl.constexpr):
    """Where this program's values lie in a tensor of one run, where in the first run of PARTS, and which exist."""
    program = tl.program_id(0)
    if WIDE:
        program = program.to(tl.int64)
    across = (run - 1) // COLUMNS + 1
    rows = (program // across) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = (program % across) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    return rows * run + columns, PARTS * rows * run + columns, (rows < outer) & (columns < run)


@triton.jit
def read(pointer, place, mask, DOUBLE: tl.constexpr):
    """The values there, in the precision of the computation; zero where there are none."""
    return tl.load(pointer + place, mask=mask, other=0.0).to(tl.float64 if DOUBLE else tl.float32)


@triton.jit
def write(pointer, place, value, mask):
    """Store values in the tensor's own precision."""
    tl.store(pointer + place, value.to(pointer.dtype.element_ty), mask=mask)
