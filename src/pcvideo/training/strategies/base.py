# SPDX-License-Identifier: Apache-2.0
"""What a strategy is: an `nn.Module` that holds the model and turns a batch into a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from pcvideo._checks import check_int

__all__ = ["Strategy", "name_within"]


class Strategy(nn.Module, ABC):
    """A regime of training; a subclass gives `forward(batch) -> loss, logs`.

    It is a module, so that what is wrapped for many devices is what is really called, and so that further networks
    (a discriminator) and what a regime remembers (buffers) are saved with it. In each step the trainer calls `begin`;
    then `forward`, and backward, for each of the batch's `pieces`; then, the optimizer having moved the parameters that
    a gradient reached, `update`. So a regime that trains networks in turn lets the others `rest`, in `begin`.

    A strategy may be made of others, as submodules: these use the model that the outermost one owns and saves.

    Args:
        context: true frames that are seen before the forecast.
        horizon: frames that are forecast.
    """

    model: Any

    # How the losses of a batch's parts (micro-batches, shares of ranks) make up that of the whole: averaged, or added.
    reduction: Literal["mean", "sum"] = "mean"
    # Learning rates of parts as factors of the trainer's `lr`, by a pattern over the strategy's own parameter names,
    # such as "discriminator.*"; the first that fits counts.
    rates: Mapping[str, float] = {}
    # Channels of a clip's frames, where they are not those that the model takes.
    clip_channels: int | None = None

    def __init__(self, *, context: int, horizon: int) -> None:
        super().__init__()
        self.context, self.horizon = check_int("context", context), check_int("horizon", horizon)
        self._resting: list[tuple[nn.Module, str]] = []

    @property
    def length(self) -> int:
        """Frames that a training clip must have."""
        return self.context + self.horizon

    def attach(self, model: nn.Module) -> Self:
        """Take the model to train; the trainer calls it."""
        self.model = model
        for part in self.modules():
            if isinstance(part, Strategy) and part is not self:
                # No submodule of the part: its weights would be saved twice, and have two names.
                part._modules.pop("model", None)
                object.__setattr__(part, "model", model)
        return self

    def rest(self, *networks: nn.Module) -> None:
        """Keep gradients from the parameters of these networks until the next call; those that rested wake first.

        Parameters that were frozen by anyone else stay as they are.
        """
        # By name: parameters that are sharded over ranks are other objects in a step than between steps.
        for module, name in self._resting:
            getattr(module, name).requires_grad_(True)
        modules = {module for network in networks for module in network.modules()}
        named = [(module, *each) for module in modules for each in module.named_parameters(recurse=False)]
        self._resting = [(module, name) for module, name, parameter in named if parameter.requires_grad]
        for module, name in self._resting:
            getattr(module, name).requires_grad_(False)

    def begin(self, step: int) -> None:
        """Told before each step, from 0, which one it is: for schedules, which follow from the step alone."""

    def pieces(self, batch: Tensor) -> Iterable[Any]:
        """What `forward` is called with one after another, each with a backward pass of its own; the losses add up.

        The batch itself, unless a regime cuts it in time.
        """
        return (batch,)

    @abstractmethod
    def forward(self, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch (B, T, C, H, W) or a piece, and what else to log, as tensors of one number."""

    def update(self, logs: Mapping[str, float]) -> None:
        """Told after each step what it logged, over all ranks and pieces: for balances, which are kept in buffers."""

    @torch.no_grad()
    def forecast(self, batch: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
        """For validation: the model's forecast (B, horizon, C, H, W) from the context, and the true frames."""
        truth = batch[:, self.context : self.length]
        return model(batch[:, : self.context], truth.shape[1]), truth

    def seen(self, batch: Tensor) -> Tensor:
        """For validation: what `forecast` began from; to repeat its last frame is what costs nothing."""
        return batch[:, : self.context]


def name_within(part: str, pattern: str) -> str:
    """What a pattern over a strategy's parameter names is in the one that has it as `part`: the model's stay."""
    return pattern if pattern.startswith("model.") else f"{part}.{pattern}"
