# SPDX-License-Identifier: Apache-2.0
"""What all losses on pyramids share: the check of the nesting, and weights by word or by number."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from pcvideo._checks import check_choice, check_int, check_number, describe

__all__ = ["FIRST_STEP", "check_pyramids", "check_weights", "fit_weights", "step_weights_for"]

FIRST_STEP = {"skip_first": 0.0, "damp_first": 0.2}
"""Words for `step_weights`, and the weight of the first step; every later one weighs 1."""


def check_pyramids(predictions: Sequence[Sequence[Tensor]], targets: Sequence[Sequence[Tensor]]) -> None:
    """Refuse anything but two equally long sequences over time of sequences over levels, the targets' no shorter.

    Raises:
        TypeError: not sequences of sequences.
        ValueError: the numbers of steps differ, or a prediction has no level or more of them than its target.
    """
    for name, pyramids in (("predictions", predictions), ("targets", targets)):
        if isinstance(pyramids, Tensor) or not isinstance(pyramids, Sequence):
            raise TypeError(f"{name} must be a sequence over time of sequences over levels, got {describe(pyramids)}")
        for step, pyramid in enumerate(pyramids):
            if isinstance(pyramid, Tensor) or not isinstance(pyramid, Sequence):
                raise TypeError(
                    f"{name}[{step}] must be a sequence over levels, got {describe(pyramid)}; "
                    f"a single level is written [frame]"
                )
    if len(predictions) != len(targets) or not predictions:
        raise ValueError(
            f"predictions and targets must have the same number of steps, at least one, got {len(predictions)} "
            f"and {len(targets)}"
        )
    for step, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        if not 1 <= len(prediction) <= len(target):
            raise ValueError(
                f"predictions must have at least one level at each step, and no more than targets, got "
                f"{len(prediction)} and {len(target)} at step {step}; cut the prediction"
            )


def check_weights(name: str, weights: str | Sequence[float], words: Sequence[str]) -> str | tuple[float, ...]:
    """One of `words`, or the numbers as a tuple.

    Raises:
        TypeError: neither a word nor a sequence of numbers.
        ValueError: another word, or a number below 0.
    """
    if isinstance(weights, str):
        return check_choice(name, weights, tuple(words))
    if not isinstance(weights, Sequence):
        raise TypeError(
            f"{name} must be {' or '.join(map(repr, words))} or a sequence of numbers, got {describe(weights)}"
        )
    return tuple(check_number(f"{name}[{index}]", weight, minimum=0) for index, weight in enumerate(weights))


def fit_weights(name: str, weights: Sequence[float], count: int, what: str) -> Sequence[float]:
    """`weights` if there are `count`, and not all of them 0.

    Raises:
        ValueError: another number of them, or all are 0.
    """
    if len(weights) != count:
        raise ValueError(f"{name} must hold one number for each of the {count} {what}, got {len(weights)}")
    if not any(weights):
        raise ValueError(f"{name} must not all be 0 for {count} {what}; nothing would be compared")
    return weights


def step_weights_for(
    weights: str | Sequence[float] | None, count: int, *, first: int = 0, steps: int | None = None
) -> tuple[Sequence[float], float]:
    """One weight for each of `count` steps, from a word, from numbers, or 1 each; and the sum over the whole clip.

    They are steps `first` and following of the clip's `steps`; None are all that there are.

    Raises:
        TypeError: `first` or `steps` is no whole number.
        ValueError: as `fit_weights`, or there are fewer `steps` than these.
    """
    total = check_int("first", first, minimum=0) + count if steps is None else check_int("steps", steps)
    if first + count > total:
        raise ValueError(f"steps must count all of the clip, at least first + {count} = {first + count}, got {steps}")
    if weights is None:
        weights = [1.0] * total
    elif isinstance(weights, str):
        weights = [FIRST_STEP[weights]] + [1.0] * (total - 1)
    weights = fit_weights("step_weights", weights, total, "steps")
    return weights[first : first + count], sum(weights)
