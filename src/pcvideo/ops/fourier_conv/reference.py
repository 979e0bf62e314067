# SPDX-License-Identifier: Apache-2.0
"""What the convolution is: PyTorch's own, with zeros around the volume so that it keeps its size."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["fourier_conv3d_reference"]


def fourier_conv3d_reference(inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The convolution as defined; arguments and shapes as in `fourier_conv3d`."""
    return F.conv3d(inputs, weight, bias, padding=[side // 2 for side in weight.shape[2:]])
