# SPDX-License-Identifier: Apache-2.0
"""The two ways in which next-volume predictors are tested: one step ahead, and a window computed anew for each step."""

from __future__ import annotations

import torch
from torch import Tensor

from pcvideo._checks import check_bool, check_int
from pcvideo.models._base import Predictor
from pcvideo.rollout import unroll

__all__ = ["forecast_windows", "next_frames"]


@torch.no_grad()
def next_frames(model: Predictor, frames: Tensor) -> Tensor:
    """For each frame but the last, the prediction of the next one from the true frames so far.

    Args:
        model: in evaluation mode.
        frames: (B, T, C, *space), T at least 2.

    Returns:
        (B, T - 1, C, *space); entry t predicts frame t + 1.
    """
    return torch.stack([model.to_frames(pyramid[0]) for pyramid, _ in unroll(model, frames[:, :-1])], dim=1)


@torch.no_grad()
def forecast_windows(
    model: Predictor, frames: Tensor, horizon: int, *, window: int = 5, binarize: bool = False, carry: bool = False
) -> Tensor:
    """A long-term forecast as it was published for ConvLSTM3D: each step computes a window of frames from a fresh state.

    The window slides: the prediction is appended, the oldest frame dropped. `model(frames, horizon)`, which carries its
    state, takes horizon + T - 1 steps for what takes horizon * window here.

    Args:
        model: in evaluation mode.
        frames: (B, T, C, *space), of which the last `window` are looked at.
        horizon: how many frames to predict, at least 1.
        window: frames of a window; where T is less, the first ones are shorter.
        binarize: what is fed back is 1 where the prediction is above 0.5, and 0 elsewhere, as in the published export
            of meshes. What is returned stays as it is.
        carry: carry the state instead of computing windows anew; for `binarize` with it.

    Returns:
        (B, horizon, C, *space).

    Raises:
        TypeError, ValueError: an argument out of its range.
    """
    check_int("horizon", horizon)
    check_bool("binarize", binarize)
    shown = frames[:, -check_int("window", window) :]
    predictions, state = [], None
    for _ in range(horizon):
        *_, (pyramid, after) = unroll(model, shown, state=state)
        prediction = model.to_frames(pyramid[0])
        predictions.append(prediction)
        fed = (prediction > 0.5).to(prediction.dtype) if binarize else prediction
        state = after if carry else None
        shown = fed[:, None] if carry else torch.cat([shown, fed[:, None]], dim=1)[:, -window:]
    return torch.stack(predictions, dim=1)
