# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules as a factor of the peak rate: functions of the step alone, with nothing to save."""

from __future__ import annotations

import math

from pcvideo._checks import check_choice

__all__ = ["SCHEDULES", "learning_rate_factor"]

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
