# SPDX-License-Identifier: Apache-2.0
"""The definition of the backward warp: four pixels looked up and weighed."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["backward_warp"]


def backward_warp(frames: Tensor, flow: Tensor) -> Tensor:
    """`pcvideo.ops.backward_warp` by its definition, in the wider dtype of the two.

    1. The place of pixel (x, y) is (x + flow_x, y + flow_y), each held within the frame: [0, W - 1] and [0, H - 1].
    2. The four pixels around it are weighed by its distance from the ones across.

    It has derivatives of every order, and is deterministic wherever indexing is.
    """
    height, width = frames.shape[-2:]
    columns = torch.arange(width, dtype=flow.dtype, device=flow.device)
    rows = torch.arange(height, dtype=flow.dtype, device=flow.device)[:, None]
    left, right, x = _neighbours(columns + flow[:, 0], width)
    top, bottom, y = _neighbours(rows + flow[:, 1], height)
    above = (1 - x) * _pixels(frames, top, left) + x * _pixels(frames, top, right)
    below = (1 - x) * _pixels(frames, bottom, left) + x * _pixels(frames, bottom, right)
    return (1 - y) * above + y * below


def _neighbours(place: Tensor, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """The whole numbers below and above a place along an axis, and how far it is past the lower one, (B, 1, H, W)."""
    # A place that is no number would point nowhere.
    place = place.nan_to_num(nan=0.0).clamp(0, length - 1)
    lower = place.detach().floor()
    first = lower.long()
    return first, (first + 1).clamp(max=length - 1), (place - lower)[:, None]


def _pixels(frames: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    places = (rows * frames.shape[-1] + columns).flatten(1)[:, None]
    return frames.flatten(2).gather(2, places.expand(-1, frames.shape[1], -1)).view_as(frames)
