# SPDX-License-Identifier: Apache-2.0
"""The affine modulation of PPNV2 (Ling et al., arXiv 2301.05421) in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["modulate"]


def modulate(inputs: Tensor, scale_shift: Tensor, gain: Tensor) -> Tensor:
    """`inputs * (gain * sigmoid(scale)) + tanh(shift)`, where `scale` and `shift` are the halves of `scale_shift`.

    Args:
        inputs: (B, C, *space), what is modulated.
        scale_shift: (B, 2C, *space), pre-activations of the scale (first half of the channels) and of the shift.
        gain: a tensor of one number, which multiplies the scale.

    Returns:
        (B, C, *space) in the dtype of `inputs`.
    """
    scale, shift = scale_shift.chunk(2, dim=1)
    return inputs * (torch.sigmoid(scale) * gain) + torch.tanh(shift)
