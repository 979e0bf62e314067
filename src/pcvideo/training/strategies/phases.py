# SPDX-License-Identifier: Apache-2.0
"""One strategy after another on the same model: a pixel loss first and then an adversarial one, or a curriculum."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from pcvideo._checks import check_int, describe
from pcvideo.training.strategies.base import Strategy, name_within

__all__ = ["InPhases"]


class InPhases(Strategy):
    """Strategies one after another, each for so many steps.

    `InPhases([(20_000, SelfFeeding(context=10, horizon=10)), (None, Adversarial(...))])` trains by pixels first. The
    model is one and the same; each strategy counts its own steps from 0, and its further networks are saved from the
    beginning. Which strategy is at work follows from the step.

    The last strategy's context and horizon are those of the validation; clips are as long as the longest one needs.

    Args:
        phases: pairs of a number of steps and a strategy; the last number is None: to the end of the run.

    Raises:
        TypeError, ValueError: no such pairs, or strategies whose losses are averaged over the batch beside ones whose
            losses are added up.
    """

    def __init__(self, phases: Sequence[tuple[int | None, Strategy]]) -> None:
        _check_phases(phases)
        last = phases[-1][1]
        super().__init__(context=last.context, horizon=last.horizon)
        self.strategies = nn.ModuleList(strategy for _, strategy in phases)
        self.steps = tuple(steps for steps, _ in phases[:-1])
        self.reduction, self.clip_channels = last.reduction, last.clip_channels
        self.rates = _rates_of([strategy for _, strategy in phases])
        self._at_work = 0

    @property
    def length(self) -> int:
        """Frames that a training clip must have."""
        return max(strategy.length for strategy in self._strategies)

    def begin(self, step: int) -> None:
        """Look up whose step it is, and begin it there."""
        self._at_work, own_step = 0, step
        for steps in self.steps:
            if own_step < (steps or 0):
                break
            self._at_work, own_step = self._at_work + 1, own_step - (steps or 0)
        for strategy in self._strategies:
            # What the one before let rest is awake again.
            strategy.rest()
        self._strategy.begin(own_step)

    def pieces(self, batch: Tensor) -> Iterable[Any]:
        """The pieces of the strategy at work."""
        return self._strategy.pieces(batch)

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of the strategy at work."""
        loss, logs = self._strategy(batch)
        return loss, logs

    def update(self, logs: Mapping[str, float]) -> None:
        """Tell the strategy at work."""
        self._strategy.update(logs)

    def forecast(self, batch: Tensor, model: nn.Module) -> tuple[Tensor, Tensor]:
        """The last strategy's, in every phase, so that validations can be compared."""
        last: Strategy = self._strategies[-1]
        return last.forecast(batch, model)

    def seen(self, batch: Tensor) -> Tensor:
        """For validation: what the last strategy's forecast began from."""
        return self._strategies[-1].seen(batch)

    @property
    def _strategies(self) -> list[Any]:
        return list(self.strategies)

    @property
    def _strategy(self) -> Any:
        return self.strategies[self._at_work]


def _rates_of(strategies: Sequence[Strategy]) -> dict[str, float]:
    """Each strategy's own, under the names that its networks have here; the model's are the same for all."""
    rates: dict[str, float] = {}
    for index, strategy in enumerate(strategies):
        for pattern, factor in strategy.rates.items():
            rates.setdefault(name_within(f"strategies.{index}", pattern), factor)
    return rates


def _check_phases(phases: Any) -> None:
    wanted = "phases must be a sequence of pairs (steps, strategy), the last of them (None, strategy)"
    if isinstance(phases, str) or not isinstance(phases, Sequence) or not phases:
        raise TypeError(f"{wanted}, got {describe(phases)}")
    for index, phase in enumerate(phases):
        if not isinstance(phase, Sequence) or len(phase) != 2 or not isinstance(phase[1], Strategy):
            raise TypeError(f"{wanted}, got {describe(phase)} as phases[{index}]")
        if index < len(phases) - 1:
            check_int(f"phases[{index}][0]", phase[0])
    if phases[-1][0] is not None:
        raise ValueError(f"{wanted}, as the run's own steps say when it ends; got {phases[-1][0]} steps")
    kinds = {strategy.reduction for _, strategy in phases}
    if len(kinds) > 1:
        raise ValueError(
            "phases must all have losses that are means over the batch, or all sums over it; a PyramidLoss takes "
            "batch_mean=True"
        )
