# SPDX-License-Identifier: Apache-2.0
"""The affine modulation of PPNV2 (Ling et al., arXiv 2301.05421) in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["modulate", "modulate_backward"]


def modulate(inputs: Tensor, scale_shift: Tensor, gain: Tensor) -> Tensor:
    """`inputs * (gain * sigmoid(scale)) + tanh(shift)`, where `scale` and `shift` are the halves of `scale_shift`.

    Args:
        inputs: (B, C, *space), what is modulated.
        scale_shift: (B, 2C, *space), pre-activations of the scale (first half of the channels) and of the shift.
        gain: a tensor of one number, which multiplies the scale.

    Returns:
        (B, C, *space) in the wider dtype of `inputs` and `scale_shift`.
    """
    scale, shift = scale_shift.chunk(2, dim=1)
    return inputs * (torch.sigmoid(scale) * gain) + torch.tanh(shift)


def modulate_backward(
    grad_output: Tensor, inputs: Tensor, scale_shift: Tensor, gain: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of `modulate`; itself differentiable.

    Args:
        grad_output: (B, C, *space), of the output.
        inputs: (B, C, *space), as given forward.
        scale_shift: (B, 2C, *space), as given forward.
        gain: as given forward, of no axes.

    Returns:
        The gradients of `inputs`, `scale_shift` and `gain`, in their dtypes.
    """
    scale, shift = scale_shift.chunk(2, dim=1)
    scale, shift = torch.sigmoid(scale), torch.tanh(shift)
    grad_inputs = grad_output * (scale * gain)
    grad_scale_shift = torch.cat([grad_inputs * inputs * (1 - scale), grad_output * (1 - shift * shift)], dim=1)
    # A sum over the whole tensor, for which 16 bit are too few.
    wide = torch.promote_types(grad_output.dtype, torch.float32)
    grad_gain = (grad_output * inputs * scale).sum(dtype=wide)
    return grad_inputs.to(inputs.dtype), grad_scale_shift.to(scale_shift.dtype), grad_gain.to(gain.dtype)
