# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is, against the published rule written out as the loops that it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import pytest
import torch

from pcvideo.training import Alternating, Balanced, Turns

Scores = Callable[[str], tuple[float, float]]


def published_turns(scores: Scores, count: int, window: int = 3, enter: int = 50, leave: int = 100) -> str:
    """The rule as nested loops, as MSPN has it: "D" or "G" for each of `count` batches; `scores` gives (R, F)."""
    fakes, reals, turns = [0.0], [0.0], []

    def mean(values: list[float]) -> float:
        return sum(values) / len(values)

    def train(who: str) -> None:
        if len(turns) == count:
            raise StopIteration
        turns.append(who)
        for stored, score in zip((reals, fakes), scores(who), strict=True):
            stored.append(score)
            if len(stored) > window:
                stored.pop(0)

    try:
        while True:
            while mean(fakes) >= mean(reals) - abs(mean(reals)) / enter:
                train("D")
                if len(fakes) == window and mean(fakes) < mean(reals) - abs(mean(reals)) / leave:
                    break
            while True:
                train("G")
                if len(fakes) == window and mean(fakes) >= mean(reals) - abs(mean(reals)) / enter:
                    break
    except StopIteration:
        return "".join(turns)


def turns_of(balanced: Balanced, scores: Scores, count: int) -> str:
    turns = ""
    for step in range(count):
        turns += "D" if balanced.is_discriminators(step) else "G"
        balanced.update(*scores(turns[-1]))
    return turns


def noise(seed: int) -> Scores:
    """Scores that don't care who was trained; 64ths, so that float32 holds them."""
    draw = random.Random(seed)
    return lambda who: (draw.randrange(-64, 65) / 64, draw.randrange(-64, 65) / 64)


def contest(seed: int, level: int) -> Scores:
    """The discriminator's training widens the gap around `level`, the generator's narrows it."""
    draw, gap = random.Random(seed), [0]

    def scores(who: str) -> tuple[float, float]:
        gap[0] += draw.randrange(0, 4) if who == "D" else -draw.randrange(0, 3)
        return level / 64, (level - gap[0]) / 64

    return scores


SCRIPTS: dict[str, Callable[[], Scores]] = {
    **{f"noise {seed}": lambda seed=seed: noise(seed) for seed in range(20)},
    **{f"contest about {level}": lambda level=level: contest(level, level) for level in (-150, -3, 0, 2, 60, 640)},
    "the discriminator wins": lambda: lambda who: (1.0, -1.0),
    "the generator wins": lambda: lambda who: (-1.0, 1.0),
    "a tie": lambda: lambda who: (0.5, 0.5),
    "all scores 0": lambda: lambda who: (0.0, 0.0),
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(("window", "enter", "leave"), [(3, 50, 100), (1, 50, 100), (5, 8, 16), (3, 16, 4)])
def test_the_balance_is_the_published_one(script: str, window: int, enter: int, leave: int) -> None:
    balanced = Balanced(window=window, tolerance_enter=1 / enter, tolerance_leave=1 / leave, max_phase_steps=None)
    expected = published_turns(SCRIPTS[script](), 200, window, enter, leave)
    assert turns_of(balanced, SCRIPTS[script](), 200) == expected


def test_the_scripts_have_phases_of_every_kind() -> None:
    turns = [published_turns(make(), 200) for make in SCRIPTS.values()]
    lengths = [{len(list(group)) for _, group in groupby(each)} for each in turns]
    assert sum(len(each) > 2 for each in lengths) > 10
    assert "D" * 200 in turns


def test_the_discriminator_stops_where_it_is_a_little_stronger_and_the_generator_where_it_no_longer_is() -> None:
    balanced = Balanced(window=1, max_phase_steps=None)
    phases = []
    # A hundredth of 100 below it is the border for the discriminator, two of them for the generator.
    for fake in (100, 99.5, 98.9, 97.9, 98.1, 98.9):
        balanced.update(100, fake)
        phases.append("D" if balanced.is_discriminators(0) else "G")
    assert phases == ["D", "D", "G", "G", "D", "G"]


@pytest.mark.parametrize("cap", [1, 2, 7])
def test_no_phase_is_longer_than_its_cap_and_both_get_their_turn(cap: int) -> None:
    for winner in (1.0, -1.0):
        turns = turns_of(Balanced(max_phase_steps=cap), lambda who, winner=winner: (winner, -winner), 100)
        lengths = [len(list(group)) for _, group in groupby(turns)]
        assert max(lengths) == cap
        assert len(lengths) > 100 / (cap + 3)


@pytest.mark.parametrize("cap", [5, None])
def test_a_phase_is_counted_from_its_first_step(cap: int | None) -> None:
    balanced, scores, before, count = Balanced(max_phase_steps=cap), contest(3, 60), "", 0
    for step in range(150):
        turn = "D" if balanced.is_discriminators(step) else "G"
        count = count + 1 if turn == before else 1
        assert balanced.phase_steps + 1 == count
        balanced.update(*scores(turn))
        before = turn


def test_a_balance_that_is_saved_and_loaded_goes_on_as_it_would_have() -> None:
    scores = [noise(5)("") for _ in range(90)]

    def scripted(start: int) -> Scores:
        rest: Iterator[Any] = iter(scores[start:])
        return lambda who: next(rest)

    for stop in (1, 2, 17, 40):
        first = Balanced(max_phase_steps=6)
        turns = turns_of(first, scripted(0), stop)
        second = Balanced(max_phase_steps=6)
        second.load_state_dict(first.state_dict())
        assert turns + turns_of(second, scripted(stop), 90 - stop) == turns_of(
            Balanced(max_phase_steps=6), scripted(0), 90
        )


@pytest.mark.parametrize(("steps", "expected"), [(5, "DDDDDGDDDDDGDDD"), (1, "DGDGDGDGDGDGDGD")])
def test_alternating_gives_the_generator_every_last_step(steps: int, expected: str) -> None:
    turns: Turns = Alternating(discriminator_steps=steps)
    assert "".join("D" if turns.is_discriminators(step) else "G" for step in range(15)) == expected
    assert dict(turns.state_dict()) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 0}, "window"),
        ({"tolerance_enter": -0.1}, "tolerance_enter"),
        ({"tolerance_leave": float("nan")}, "tolerance_leave"),
        ({"max_phase_steps": 0}, "max_phase_steps"),
    ],
)
def test_options_out_of_range_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Balanced(**options)
    with pytest.raises(ValueError, match="discriminator_steps"):
        Alternating(discriminator_steps=0)


def test_scores_are_kept_to_the_precision_of_float32() -> None:
    balanced = Balanced(window=2)
    balanced.update(1 / 3, -1 / 3)
    kept = balanced.state_dict()["_scores"]
    assert torch.equal(kept[:, -1], torch.tensor([1 / 3, -1 / 3]))
