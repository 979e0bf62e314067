# SPDX-License-Identifier: Apache-2.0
"""What costs nothing to predict: the baselines that stand beside every reported metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import Tensor

from pcvideo._checks import check_int, describe

__all__ = ["BASELINES", "black", "copy_last"]


def copy_last(context: Tensor, horizon: int) -> Tensor:
    """Predict that nothing moves: the last context frame, `horizon` times.

    Args:
        context: (B, T, C, H, W), or volumes (B, T, C, D, H, W).
        horizon: number of frames to predict, at least 1.

    Returns:
        (B, horizon, C, *space), a view that shares one frame's memory.

    Raises:
        TypeError: `context` is not a tensor, or `horizon` not a whole number.
        ValueError: `context` has neither five nor six axes, or no frame; `horizon` is below 1.
    """
    horizon = _check(context, horizon)
    return context[:, -1:].expand(-1, horizon, *(-1,) * (context.ndim - 2))


def black(context: Tensor, horizon: int) -> Tensor:
    """Predict nothing: `horizon` frames of zeros. Arguments, shape and errors as for `copy_last`.

    On Moving MNIST it has a lower MSE than copying the last frame.
    """
    horizon = _check(context, horizon)
    return context.new_zeros(()).expand(context.shape[0], horizon, *context.shape[2:])


def _check(context: Tensor, horizon: int) -> int:
    if not isinstance(context, Tensor):
        raise TypeError(f"context must be a tensor (B, T, C, H, W), got {describe(context)}")
    if context.ndim not in (5, 6) or context.shape[1] == 0:
        raise ValueError(
            f"context must be (B, T, C, H, W) or (B, T, C, D, H, W) with at least one frame, got {describe(context)}"
        )
    return check_int("horizon", horizon)


BASELINES: Mapping[str, Callable[[Tensor, int], Tensor]] = MappingProxyType({"copy_last": copy_last, "black": black})
"""The baselines by name, each `(context, horizon) -> prediction`."""
