# SPDX-License-Identifier: Apache-2.0
"""The split error's public door: the definition in plain torch, on a GPU one kernel forward and one backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcvideo.ops._dispatch import can_build_kernels, empty, memory_order, use_kernel
from pcvideo.ops.split_error import reference

__all__ = ["split_error"]


def split_error(target: Tensor, prediction: Tensor) -> Tensor:
    """`cat[relu(target - prediction), relu(prediction - target)]` over the channels.

    The error units of PredNet (Lotter et al. 2017) and MSPN (arXiv 2212.11642). On an NVIDIA GPU (compute capability
    8.0 and up) with Triton, outside `torch.compile`, one kernel does it and keeps nothing for the gradient but its
    output, which must then not be changed in place; elsewhere plain torch. The kernel has no forward-mode derivative.

    Args:
        target: (B, C, *space), what came.
        prediction: (B, C, *space), what was anticipated.

    Returns:
        (B, 2C, *space), non-negative, in the wider dtype of the two; first where too little was predicted, then where
        too much.

    Raises:
        ValueError: the two are not of one shape.
    """
    if target.shape != prediction.shape or target.ndim < 2:
        raise ValueError(
            f"target and prediction must both be (B, C, *space), got {tuple(target.shape)} and "
            f"{tuple(prediction.shape)}; resize or expand the one to the other"
        )
    if use_kernel(target, prediction):
        return fused_split_error(target, prediction)
    return reference.split_error(target, prediction)


@torch.library.custom_op("pcvideo::split_error", mutates_args=())
def fused_split_error(target: Tensor, prediction: Tensor) -> Tensor:
    """`split_error` as one operation to autograd; the output is in the memory order of `prediction`."""
    return reference.split_error(target, prediction).contiguous(memory_format=memory_order(prediction))


@torch.library.custom_op("pcvideo::split_error_backward", mutates_args=())
def fused_backward(grad_error: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `target` and `prediction` as one operation."""
    grad_target, grad_prediction = reference.split_error_backward(grad_error, error)
    order = memory_order(error)
    return grad_target.contiguous(memory_format=order), grad_prediction.contiguous(memory_format=order)


@fused_split_error.register_fake
def _(target: Tensor, prediction: Tensor) -> Tensor:
    dtype = torch.promote_types(target.dtype, prediction.dtype)
    return empty(prediction, 2 * prediction.shape[1], dtype, memory_order(prediction))


@fused_backward.register_fake
def _(grad_error: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    order, channels = memory_order(error), error.shape[1] // 2
    return empty(error, channels, error.dtype, order), empty(error, channels, error.dtype, order)


if can_build_kernels():

    @fused_split_error.register_kernel("cuda")
    def _(target: Tensor, prediction: Tensor) -> Tensor:
        from pcvideo.ops.split_error import kernel  # noqa: PLC0415

        return kernel.forward(target, prediction)

    @fused_backward.register_kernel("cuda")
    def _(grad_error: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
        from pcvideo.ops.split_error import kernel  # noqa: PLC0415

        return kernel.backward(grad_error, error)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    # Its signs are all that is needed, and the convolution that follows keeps it anyway.
    ctx.save_for_backward(output)
    ctx.dtypes = [tensor.dtype for tensor in inputs]


def _backward(ctx: Any, grad_error: Tensor) -> tuple[Tensor, Tensor]:
    # With create_graph=True the gradient must be differentiable itself, which the plain formula is.
    formula = reference.split_error_backward if torch.is_grad_enabled() else fused_backward
    grad_target, grad_prediction = formula(grad_error, *ctx.saved_tensors)
    return grad_target.to(ctx.dtypes[0]), grad_prediction.to(ctx.dtypes[1])


fused_split_error.register_autograd(_backward, setup_context=_save)
