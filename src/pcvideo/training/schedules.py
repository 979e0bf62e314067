# SPDX-License-Identifier: Apache-2.0
"""Schedules: functions of the step alone, with nothing to save.

Of the learning rate, as a factor of the peak rate; and of other numbers of a regime, such as the probability of
scheduled sampling (Bengio et al. 2015, arXiv 1506.03099, section 2.4).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pcvideo._checks import check_choice, check_int, check_number

__all__ = ["SCHEDULES", "Exponential", "InverseSigmoid", "Linear", "Schedule", "learning_rate_factor"]

Schedule = Callable[[int], float]
"""A number for each step from 0; any function will do."""

SCHEDULES = ("constant", "cosine", "one_cycle")
_ONE_CYCLE_RISE = 0.3
_ONE_CYCLE_START = 1 / 25
_FLOOR = 1e-4


def learning_rate_factor(schedule: str, step: int, *, steps: int, warmup: int = 0) -> float:
    """What the peak learning rate is multiplied by at `step` (from 0) of `steps`.

    Args:
        schedule: "constant"; "cosine" falls to nearly 0 along half a cosine (Loshchilov and Hutter 2017);
            "one_cycle" rises over the first 30 % from 1/25 and falls (Smith and Topin 2018), both along a cosine.
        step: the step about to be made.
        steps: steps of the whole run.
        warmup: steps of linear rise before "constant" and "cosine"; "one_cycle" has its own rise and ignores it.

    Raises:
        ValueError: an unknown schedule.
    """
    check_choice("schedule", schedule, SCHEDULES)
    if schedule == "one_cycle":
        done = step / max(1, steps - 1)
        if done < _ONE_CYCLE_RISE:
            return _between(_ONE_CYCLE_START, 1.0, done / _ONE_CYCLE_RISE)
        return _between(1.0, _FLOOR, (done - _ONE_CYCLE_RISE) / (1 - _ONE_CYCLE_RISE))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    return _between(1.0, _FLOOR, (step - warmup) / max(1, steps - 1 - warmup))


def _between(start: float, end: float, done: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


@dataclass(frozen=True)
class Linear:
    """From `start` to `end` in equal parts over `steps` steps, and `end` from then on.

    Args:
        start: at `after` and before.
        end: at `after + steps` and later.
        steps: at least 1.
        after: the step at which it begins.
    """

    start: float
    end: float
    steps: int
    after: int = 0

    def __post_init__(self) -> None:
        check_number("start", self.start)
        check_number("end", self.end)
        check_int("steps", self.steps)
        check_int("after", self.after, minimum=0)

    def __call__(self, step: int) -> float:
        """The number at `step`."""
        done = min(max(step - self.after, 0), self.steps) / self.steps
        return self.start * (1 - done) + self.end * done


@dataclass(frozen=True)
class Exponential:
    """base**step: from 1, falling to 0 (Bengio et al.: k**i).

    Args:
        base: in (0, 1); it falls to a half in log(2) / -log(base) steps.
    """

    base: float

    def __post_init__(self) -> None:
        if not 0 < check_number("base", self.base, minimum=0, maximum=1) < 1:
            raise ValueError(f"base must be above 0 and below 1, got {self.base}")

    def __call__(self, step: int) -> float:
        """The number at `step`."""
        return self.base**step


@dataclass(frozen=True)
class InverseSigmoid:
    """scale / (scale + exp(step / scale)): from nearly 1 to 0 along an S (Bengio et al.: k / (k + exp(i / k))).

    Args:
        scale: at least 1; it is a half at step scale * log(scale).
    """

    scale: float

    def __post_init__(self) -> None:
        check_number("scale", self.scale, minimum=1)

    def __call__(self, step: int) -> float:
        """The number at `step`."""
        # Divided through by the scale, and cut off where the exponential would overflow.
        return 1 / (1 + math.exp(min(step / self.scale - math.log(self.scale), 700.0)))
