# SPDX-License-Identifier: Apache-2.0
"""The fill rule and the input of the golden numbers: weights that any implementation can be given, without a file."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

FILLED = (nn.modules.conv._ConvNd, nn.Linear)


@torch.no_grad()
def fill_golden(model: nn.Module) -> nn.Module:
    """Fill every convolution and linear layer, flat index i of n elements: sin(0.9 i + 0.5), scaled.

    Tensors of two or more axes are divided by sqrt(n / shape[0]), vectors multiplied by 0.1; norm layers and other
    parameters keep their initial values.
    """
    for module in model.modules():
        if isinstance(module, FILLED):
            for parameter in module.parameters(recurse=False):
                count = parameter.numel()
                wave = torch.sin(0.9 * torch.arange(count, dtype=torch.float64) + 0.5)
                scaled = wave / math.sqrt(count / parameter.shape[0]) if parameter.ndim >= 2 else 0.1 * wave
                parameter.copy_(scaled.view_as(parameter))
    return model


def golden_input(*shape: int) -> Tensor:
    """0.5 + 0.5 sin(0.05 i + 0.2) over the flat index i, float64."""
    flat = torch.arange(math.prod(shape), dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(0.05 * flat + 0.2)).view(shape)
