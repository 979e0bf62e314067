# SPDX-License-Identifier: Apache-2.0
"""What networks of frames share, whether they say what comes next or what came between: where they are, what fits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from pcvideo.models._pretrained import Pretrained

__all__ = ["FrameNetwork"]


class FrameNetwork(Pretrained):
    """A network that takes frames whose sides `size_multiple` divides; `Predictor` and `Interpolator` say the rest."""

    size_multiple: int = 1
    spatial_dims: int = 2

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return next(self.parameters()).device

    def pad(self, frames: Tensor) -> Tensor:
        """Repeat the last row and column (and slice of a volume) of (..., C, *space) up to the next size that fits."""
        sides = frames.shape[-self.spatial_dims :]
        # In the order of torch's padding: from the last axis to the first, before and after.
        pad = [amount for side in reversed(sides) for amount in (0, -side % self.size_multiple)]
        if not any(pad):
            return frames
        lead = frames.shape[: -self.spatial_dims - 1]
        padded = F.pad(frames.flatten(0, len(lead) - 1) if lead else frames[None], pad, mode="replicate")
        return padded.reshape(*lead, *padded.shape[1:])

    @contextlib.contextmanager
    def _evaluating(self) -> Iterator[None]:
        """Evaluation mode inside a `with`; afterwards every part is in the mode that it was in (some may be frozen)."""
        training = [module for module in self.modules() if module.training]
        self.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True
