# SPDX-License-Identifier: Apache-2.0
"""What the ops with kernels share: when a kernel runs, the order of values in memory, and the tiles it is cut into.

A tensor (B, C, *space) is a sequence of runs of consecutive values, and one with k * C channels holds k runs for each
of them: a run is a sample's C * space values in the usual order, and a pixel's C values with the channels last. So one
kernel serves both orders. This file imports no Triton.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import os
import shutil
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["can_build_kernels", "empty", "launch", "memory_order", "programs", "tile", "use_kernel"]

DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# The kernels are compiled ahead for this architecture and Hopper in the tests; older ones take the plain definition.
OLDEST_ARCHITECTURE = (8, 0)
TILE = 1024
# Places beyond this need 64 bits; lanes past the end compute places too, a little beyond the last value.
NARROW = 2**31 - 2**20
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


@functools.cache
def can_build_kernels() -> bool:
    """Whether Triton is there with what it builds a kernel's launcher with: a C compiler and Python's headers."""
    headers = sysconfig.get_config_var("INCLUDEPY")
    return (
        torch.version.cuda is not None
        and importlib.util.find_spec("triton") is not None
        and bool(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang"))
        and headers is not None
        and Path(headers, "Python.h").exists()
    )


@functools.cache
def _is_new_enough(device: int) -> bool:
    return torch.cuda.get_device_capability(device) >= OLDEST_ARCHITECTURE


def use_kernel(*tensors: Tensor) -> bool:
    """Whether the kernel serves these tensors: floats on one CUDA device, outside `torch.compile` and export.

    A compiled graph gets the plain definition, which the compiler fuses with its neighbours.
    """
    first = tensors[0]
    return (
        first.is_cuda
        and not torch.compiler.is_compiling()
        and can_build_kernels()
        and all(tensor.device == first.device and tensor.dtype in DTYPES for tensor in tensors)
        and _is_new_enough(first.get_device())
    )


def memory_order(tensor: Tensor) -> torch.memory_format:
    """Channels last if the tensor is laid out so, else the usual order, which other layouts are copied to."""
    last = CHANNELS_LAST.get(tensor.ndim)
    # With one channel both orders hold; the stride tells them apart.
    if last is not None and tensor.stride(1) == 1 and tensor.is_contiguous(memory_format=last):
        return last
    return torch.contiguous_format


def empty(like: Tensor, channels: int, dtype: torch.dtype, order: torch.memory_format) -> Tensor:
    """An empty tensor (B, channels, *space), the rest as in `like`."""
    shape = (like.shape[0], channels, *like.shape[2:])
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=order)


def tile(shape: Sequence[int], order: torch.memory_format) -> tuple[int, int, dict[str, int]]:
    """How many runs a tensor of `shape` (B, C, *space) has, how long each is, and the tile of one program."""
    run = math.prod(shape[1:]) if order == torch.contiguous_format else shape[1]
    columns = min(TILE, 1 << max(run - 1, 0).bit_length())
    return math.prod(shape) // max(run, 1), run, {"ROWS": TILE // columns, "COLUMNS": columns}


def programs(outer: int, run: int, constants: dict[str, int]) -> int:
    """How many tiles cover `outer` runs of `run` values."""
    return -(-outer // constants["ROWS"]) * -(-run // constants["COLUMNS"])


def launch(kernel: Any, *tensors: Tensor, shape: Sequence[int], order: torch.memory_format) -> None:
    """Run a Triton kernel over all tiles of `shape`, on the device of its tensors.

    The kernel takes the tensors, the number of runs and their length, and the constants ROWS and COLUMNS (the tile),
    WIDE (whether places need 64 bits) and DOUBLE (whether it computes in float64 rather than float32).
    """
    outer, run, constants = tile(shape, order)
    count = programs(outer, run, constants)
    if count == 0:
        return
    wide = max(tensor.numel() for tensor in tensors) > NARROW
    double = any(tensor.dtype == torch.float64 for tensor in tensors)
    with torch.cuda.device_of(tensors[0]):
        # Said outright, since its default differs between releases of Triton, which warn of it.
        kernel[(count,)](*tensors, outer, run, **constants, WIDE=wide, DOUBLE=double, enable_fp_fusion=True)
