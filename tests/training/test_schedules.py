# SPDX-License-Identifier: Apache-2.0
"""The learning rate's factor against closed forms and PyTorch's own schedules."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from pcvideo.training import learning_rate_factor

STEPS = 41


def factors(schedule: str, steps: int = STEPS, warmup: int = 0) -> list[float]:
    return [learning_rate_factor(schedule, step, steps=steps, warmup=warmup) for step in range(steps)]


def annealed(length: int, start: float, end: float) -> list[float]:
    """PyTorch's cosine from `start` to `end` in `length` steps."""
    parameter = torch.nn.Parameter(torch.zeros(()))
    optimizer = torch.optim.SGD([parameter], lr=start)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=length, eta_min=end)
    rates = []
    for _ in range(length + 1):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_half_a_cosine_from_1_to_nearly_0() -> None:
    assert factors("cosine") == pytest.approx(annealed(STEPS - 1, 1.0, 1e-4), rel=1e-6, abs=1e-9)
    middle = learning_rate_factor("cosine", 20, steps=41)
    assert middle == pytest.approx((1 + 1e-4) / 2)


def test_constant_is_1_throughout() -> None:
    assert factors("constant") == [1.0] * STEPS


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warm_up_rises_linearly_to_the_peak_and_never_from_0(schedule: str) -> None:
    warm = factors(schedule, warmup=4)
    assert warm[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    # What follows is the schedule over the steps that are left.
    assert warm[4:] == pytest.approx(factors(schedule, steps=STEPS - 4))


def test_one_cycle_rises_from_a_25th_over_30_percent_and_falls_to_nearly_0() -> None:
    cycle = factors("one_cycle")
    # 30 % of the 40 intervals are 12.
    assert cycle[:13] == pytest.approx([1.04 - rate for rate in annealed(12, 1.0, 0.04)], rel=1e-6)
    assert cycle[12:] == pytest.approx(annealed(28, 1.0, 1e-4), rel=1e-6, abs=1e-9)
    assert factors("one_cycle", warmup=7) == cycle


@pytest.mark.parametrize("steps", [2, 3, 10, 97])
@pytest.mark.parametrize(("schedule", "warmup"), [("cosine", 0), ("cosine", 2), ("one_cycle", 0)])
def test_it_rises_to_one_peak_falls_from_there_and_stays_in_its_range(schedule: str, warmup: int, steps: int) -> None:
    values = factors(schedule, steps=steps, warmup=warmup)
    peak = values.index(max(values))
    assert all(low < high for low, high in pairwise(values[: peak + 1]))
    assert all(high > low for high, low in pairwise(values[peak:]))
    assert 0 < min(values) <= max(values) <= 1
    if schedule == "one_cycle" or steps > warmup + 1:
        assert values[-1] == pytest.approx(1e-4)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_a_run_of_one_step_and_a_run_all_of_warm_up_learn_something(schedule: str) -> None:
    for value in [*factors(schedule, steps=1), *factors(schedule, steps=5, warmup=5)]:
        assert math.isfinite(value)
        assert 0 < value <= 1


def test_a_misspelt_schedule_is_told_the_nearest() -> None:
    with pytest.raises(ValueError, match="did you mean 'cosine'"):
        learning_rate_factor("cosin", 0, steps=2)
