# SPDX-License-Identifier: Apache-2.0
"""The split error of PredNet (Lotter et al. 2017) and MSPN (arXiv 2212.11642) in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["split_error"]


def split_error(target: Tensor, prediction: Tensor) -> Tensor:
    """`cat[relu(target - prediction), relu(prediction - target)]` over the channels.

    Args:
        target: (B, C, H, W), what came.
        prediction: (B, C, H, W), what was anticipated.

    Returns:
        (B, 2C, H, W), non-negative; first where too little was predicted, then where too much.
    """
    difference = target - prediction
    return torch.cat([torch.relu(difference), torch.relu(-difference)], dim=1)
