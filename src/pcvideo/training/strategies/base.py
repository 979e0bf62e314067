# SPDX-License-Identifier: Apache-2.0
"""What a strategy is: an `nn.Module` that holds the model and turns a batch into a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

import torch
from torch import Tensor, nn

from pcvideo._checks import check_int

__all__ = ["Strategy"]


class Strategy(nn.Module, ABC):
    """A regime of training; a subclass gives `forward(batch) -> loss, logs`.

    It is a module, so that what is wrapped for many devices is what is really called, and so that further networks
    (a discriminator) are saved with it.

    Args:
        context: true frames that are seen before the forecast.
        horizon: frames that are forecast.
    """

    model: Any

    def __init__(self, *, context: int, horizon: int) -> None:
        super().__init__()
        self.context, self.horizon = check_int("context", context), check_int("horizon", horizon)

    @property
    def length(self) -> int:
        """Frames that a training clip must have."""
        return self.context + self.horizon

    def attach(self, model: nn.Module) -> Self:
        """Take the model to train; the trainer calls it."""
        self.model = model
        return self

    @abstractmethod
    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch (B, T, C, H, W), and what else to log, as tensors of one number."""

    @torch.no_grad()
    def forecast(self, batch: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
        """For validation: the model's forecast (B, horizon, C, H, W) from the context, and the true frames."""
        truth = batch[:, self.context : self.length]
        return model(batch[:, : self.context], truth.shape[1]), truth
