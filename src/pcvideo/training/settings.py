# SPDX-License-Identifier: Apache-2.0
"""The settings of a run that decide its numbers: their checks, and what is told when a resumed run has others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pcvideo._checks import check_bool, check_choice, check_int, check_number
from pcvideo.training.engine import ENGINES
from pcvideo.training.schedules import SCHEDULES
from pcvideo.training.stepper import OPTIMIZERS, PRECISIONS

__all__ = ["check_parts", "check_settings", "tell_changes"]

logger = logging.getLogger(__name__)


def _one_of(choices: tuple[str, ...]) -> Callable[[str, Any], Any]:
    return partial(check_choice, choices=choices)


def _or_none(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    return lambda name, value: None if value is None else check(name, value)


_natural, _positive = partial(check_int, minimum=0), partial(check_number, minimum=0)
_CHECKS: Mapping[str, Callable[[str, Any], Any]] = {
    "steps": check_int,
    "batch_size": check_int,
    "accumulate": check_int,
    "lr": _positive,
    "optimizer": _one_of(tuple(OPTIMIZERS)),
    "weight_decay": _positive,
    "schedule": _one_of(SCHEDULES),
    "warmup": _natural,
    "clip_norm": _or_none(partial(check_number, minimum=1e-8)),
    "ema": _or_none(partial(check_number, minimum=0, maximum=0.999999)),
    "precision": _one_of(tuple(PRECISIONS)),
    "compile": check_bool,
    "engine": _one_of(ENGINES),
    "seed": _natural,
    "validate_every": _natural,
    "checkpoint_every": _natural,
    "validation_clips": check_int,
    # These name parts of the model, and are held to its names where they are used.
    "rates": lambda _, value: {} if value is None else value,
    "freeze": lambda _, value: value if isinstance(value, str) else list(value),
}


def check_settings(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings among the arguments that are given, each within its range.

    Raises:
        TypeError, ValueError: one is not; the message names it.
    """
    return {name: check(name, given[name]) for name, check in _CHECKS.items()}


def check_parts(settings: Mapping[str, Any], processes: int) -> None:
    """Refuse a batch of which not every part, in every process, gets a clip."""
    size, parts = settings["batch_size"], settings["accumulate"] * processes
    if size < parts:
        raise ValueError(
            f"batch_size={size} is too small for {processes} processes times accumulate={settings['accumulate']}: each "
            f"part needs a clip; take batch_size={parts} at least, or turn accumulate or the processes down"
        )


def tell_changes(before: Mapping[str, Any], now: Mapping[str, Mapping[str, Any]]) -> None:
    """Warn of all that a resumed run has otherwise than when it was saved, with both values."""
    for about, values in now.items():
        saved = before.get(about, values)
        changes = [
            f"{name} {saved[name]} -> {value}"
            for name, value in values.items()
            if name in saved and saved[name] != value
        ]
        if changes:
            logger.warning("resumed with other %s than saved: %s", about, ", ".join(changes))
