# SPDX-License-Identifier: Apache-2.0
"""The order in memory that convolutions are fastest in."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

__all__ = ["channels_last"]

Module = TypeVar("Module", bound=nn.Module)


def channels_last(model: Module) -> Module:
    """The model itself, with the channels of its image filters last in memory: faster on CPU and GPU alike.

    The numbers differ by rounding only, since sums are taken in another order.
    """
    for parameter in model.parameters():
        # Filters of volumes have five axes, and no use for it.
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model
