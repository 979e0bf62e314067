# SPDX-License-Identifier: Apache-2.0
"""The split error of PredNet (Lotter et al. 2017) and MSPN (arXiv 2212.11642) in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["split_error", "split_error_backward"]


def split_error(target: Tensor, prediction: Tensor) -> Tensor:
    """`cat[relu(target - prediction), relu(prediction - target)]` over the channels.

    Args:
        target: (B, C, *space), what came.
        prediction: (B, C, *space), what was anticipated.

    Returns:
        (B, 2C, *space), non-negative; first where too little was predicted, then where too much.
    """
    difference = target - prediction
    return torch.cat([torch.relu(difference), torch.relu(-difference)], dim=1)


def split_error_backward(grad_error: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of `split_error`; itself differentiable. Where there is no error there is no gradient.

    Args:
        grad_error: (B, 2C, *space), of the split error.
        error: (B, 2C, *space), the split error.

    Returns:
        The gradients of `target` and `prediction`, (B, C, *space) each, in the dtype of the error.
    """
    # Not `error > 0`: a NaN lets its gradient through, as torch's own relu does.
    little, much = grad_error.masked_fill(error <= 0, 0).chunk(2, dim=1)
    return little - much, much - little
