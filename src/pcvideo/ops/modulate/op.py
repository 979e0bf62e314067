# SPDX-License-Identifier: Apache-2.0
"""The modulation's public door: the definition in plain torch, on a GPU one kernel forward and one backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pcvideo.ops._dispatch import can_build_kernels, empty, memory_order, use_kernel
from pcvideo.ops.modulate import reference

__all__ = ["modulate"]


def modulate(inputs: Tensor, scale_shift: Tensor, gain: Tensor) -> Tensor:
    """`inputs * (gain * sigmoid(scale)) + tanh(shift)`, where `scale` and `shift` are the halves of `scale_shift`.

    The modulation of PPNV2 (Ling et al., arXiv 2301.05421). On an NVIDIA GPU (compute capability 8.0 and up) with
    Triton, outside `torch.compile`, one kernel does it, computes in float32 or wider and keeps nothing for the gradient
    but its inputs; elsewhere plain torch. The kernel has no forward-mode derivative.

    Args:
        inputs: (B, C, *space), what is modulated.
        scale_shift: (B, 2C, *space), pre-activations of the scale (first half of the channels) and of the shift.
        gain: a tensor of one number, which multiplies the scale.

    Returns:
        (B, C, *space) in the wider dtype of `inputs` and `scale_shift`.

    Raises:
        ValueError: `scale_shift` is not twice as wide as `inputs` or of another size, or `gain` has several numbers.
    """
    if inputs.ndim < 2 or scale_shift.shape != (inputs.shape[0], 2 * inputs.shape[1], *inputs.shape[2:]):
        raise ValueError(
            f"scale_shift must be (B, 2C, *space) for inputs of (B, C, *space), got scale_shift "
            f"{tuple(scale_shift.shape)} and inputs {tuple(inputs.shape)}; let the convolution before have 2C channels"
        )
    if gain.numel() != 1:
        raise ValueError(f"gain must be a tensor of one number, got shape {tuple(gain.shape)}; take its mean or one")
    # Without axes a gain in float32 leaves the result in 16 bit.
    gain = gain.reshape(())
    if use_kernel(inputs, scale_shift, gain):
        return fused_modulate(inputs, scale_shift, gain)
    return reference.modulate(inputs, scale_shift, gain)


@torch.library.custom_op("pcvideo::modulate", mutates_args=())
def fused_modulate(inputs: Tensor, scale_shift: Tensor, gain: Tensor) -> Tensor:
    """`modulate` as one operation to autograd; `gain` has no axes, the output is in the memory order of `inputs`."""
    return reference.modulate(inputs, scale_shift, gain).contiguous(memory_format=memory_order(inputs))


@torch.library.custom_op("pcvideo::modulate_backward", mutates_args=())
def fused_backward(
    grad_output: Tensor, inputs: Tensor, scale_shift: Tensor, gain: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `inputs`, `scale_shift` and `gain` as one operation."""
    grad_inputs, grad_scale_shift, grad_gain = reference.modulate_backward(grad_output, inputs, scale_shift, gain)
    order = memory_order(inputs)
    return grad_inputs.contiguous(memory_format=order), grad_scale_shift.contiguous(memory_format=order), grad_gain


@fused_modulate.register_fake
def _(inputs: Tensor, scale_shift: Tensor, gain: Tensor) -> Tensor:
    dtype = torch.promote_types(inputs.dtype, scale_shift.dtype)
    return empty(inputs, inputs.shape[1], dtype, memory_order(inputs))


@fused_backward.register_fake
def _(grad_output: Tensor, inputs: Tensor, scale_shift: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    order = memory_order(inputs)
    grad_scale_shift = empty(inputs, scale_shift.shape[1], scale_shift.dtype, order)
    return empty(inputs, inputs.shape[1], inputs.dtype, order), grad_scale_shift, torch.empty_like(gain)


if can_build_kernels():

    @fused_modulate.register_kernel("cuda")
    def _(inputs: Tensor, scale_shift: Tensor, gain: Tensor) -> Tensor:
        from pcvideo.ops.modulate import kernel  # noqa: PLC0415

        return kernel.forward(inputs, scale_shift, gain)

    @fused_backward.register_kernel("cuda")
    def _(grad_output: Tensor, inputs: Tensor, scale_shift: Tensor, gain: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        from pcvideo.ops.modulate import kernel  # noqa: PLC0415

        return kernel.backward(grad_output, inputs, scale_shift, gain)


def _save(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # With create_graph=True the gradient must be differentiable itself, which the plain formula is.
    formula = reference.modulate_backward if torch.is_grad_enabled() else fused_backward
    return formula(grad_output, *ctx.saved_tensors)


fused_modulate.register_autograd(_backward, setup_context=_save)
