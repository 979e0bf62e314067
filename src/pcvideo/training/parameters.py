# SPDX-License-Identifier: Apache-2.0
"""Which parameters are trained, and how fast: patterns over their names, such as "cells.0.*".

A pattern fits a parameter's name as a file pattern does (`fnmatch`), or the name of a part that the parameter belongs
to: "cells.0" is all of the first cell.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from pcvideo._checks import check_number, describe

__all__ = ["Frozen", "check_patterns", "check_rates", "parameter_groups"]


def fits(name: str, pattern: str) -> bool:
    """Whether a pattern means the parameter of this name."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


def check_patterns(argument: str, patterns: Any, names: Sequence[str]) -> tuple[str, ...]:
    """The patterns, if each of them means one of the names at least.

    Raises:
        TypeError: it is a single string, or holds something else than strings.
        ValueError: a pattern means no parameter; the message shows the nearest names.
    """
    if isinstance(patterns, str) or not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"{argument} must be patterns over parameter names, such as ['cells.0.*'], got {patterns!r}")
    for pattern in patterns:
        if not any(fits(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern, _parts(names), n=4, cutoff=0.0)
            raise ValueError(f"{argument} has the pattern {pattern!r}, which no parameter fits; near it: {near}")
    return tuple(patterns)


def check_rates(rates: Any, names: Sequence[str]) -> dict[str, float]:
    """The factors by pattern, if each is a number of at least 0 whose pattern means a parameter."""
    if not isinstance(rates, Mapping):
        raise TypeError(
            f"rates must map patterns to factors of lr, such as {{'cells.0.*': 0.1}}, got {describe(rates)}"
        )
    check_patterns("rates", tuple(rates), names)
    return {pattern: check_number(f"rates[{pattern!r}]", factor, minimum=0) for pattern, factor in rates.items()}


class Frozen:
    """The parts of a model that are not trained: they take no gradient, and their running statistics stay.

    Args:
        model: its parameters that take no gradient as it comes are frozen too.
        patterns: see `check_patterns`.

    Attributes:
        names: of the frozen parameters.

    Raises:
        ValueError: then nothing would be left to train.
    """

    def __init__(self, model: nn.Module, patterns: Sequence[str]) -> None:
        self._model = model
        everything = dict(model.named_parameters())
        self.names = frozenset(
            name
            for name, parameter in everything.items()
            if not parameter.requires_grad or any(fits(name, pattern) for pattern in patterns)
        )
        if patterns and len(self.names) == len(everything):
            raise ValueError(f"freeze={list(patterns)} leaves no parameter of the model to train; freeze less")
        self._norms = [
            module
            for name, module in model.named_modules()
            if isinstance(module, _NormBase) and self._is_frozen(name, module, patterns)
        ]
        self.hold()

    def _is_frozen(self, name: str, norm: nn.Module, patterns: Sequence[str]) -> bool:
        own = [f"{name}.{parameter}" for parameter, _ in norm.named_parameters(recurse=False)]
        if own:
            return all(parameter in self.names for parameter in own)
        return any(fits(f"{name}.running_mean", pattern) for pattern in patterns)

    def hold(self) -> None:
        """Freeze again, after a strategy has set `requires_grad` or the mode of the whole."""
        # By name: parameters that are sharded over ranks are other objects than those the model came with.
        for name, parameter in self._model.named_parameters():
            if name in self.names:
                parameter.requires_grad_(False)
        for norm in self._norms:
            norm.eval()


def parameter_groups(
    named: Iterable[tuple[str, nn.Parameter]], rates: Mapping[str, float], *, apart: Callable[[nn.Parameter], bool]
) -> list[dict[str, Any]]:
    """Groups for an optimizer, one for each factor of the learning rate, which stands in it as "factor".

    Args:
        named: parameters by name.
        rates: factors by pattern; the first that fits counts, and 1 where none does.
        apart: parameters for which it is true don't share a group with others.
    """
    groups: dict[tuple[float, bool], dict[str, Any]] = {}
    for name, parameter in named:
        factor = next((factor for pattern, factor in rates.items() if fits(name, pattern)), 1.0)
        group = groups.setdefault((factor, apart(parameter)), {"params": [], "factor": factor})
        group["params"].append(parameter)
    return list(groups.values())


def _parts(names: Iterable[str]) -> list[str]:
    """The names, and those of all parts that they belong to."""
    parts: dict[str, None] = {}
    for name in names:
        words = name.split(".")
        parts.update(dict.fromkeys(".".join(words[: count + 1]) for count in range(len(words))))
    return list(parts)
