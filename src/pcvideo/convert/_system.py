# SPDX-License-Identifier: Apache-2.0
"""What it takes to convert a system's checkpoints: how to know it, how to read its numbers, one table of names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pcvideo._checks import check_keys
from pcvideo.models import Interpolator, Predictor

__all__ = ["Entry", "Fitted", "Rules", "Shapes", "System", "build", "fit", "rename", "same", "unfit"]

Rules = Sequence[tuple[str, str]]
"""Regular expressions for parts of our names, and what stands there in the original's, in the order to apply them."""

# A message that lists every tensor of a large network helps nobody.
_LISTED = 12


class Shapes(dict[str, tuple[int, ...]]):
    """The shapes of a checkpoint's tensors by name."""

    def of(self, name: str, axes: int) -> tuple[int, ...]:
        """The shape of a tensor that the configuration is read from.

        Raises:
            ValueError: the checkpoint lacks it, or it has another number of axes.
        """
        if name not in self:
            raise ValueError(f"the tensor {name} is missing, by whose shape the configuration is known")
        if len(self[name]) != axes:
            raise ValueError(f"the tensor {name} must have {axes} axes, got the shape {self[name]}")
        return self[name]

    def count(self, pattern: str) -> int:
        """How many numbers `pattern`, which has one group, finds in the names, counted from 0 without a gap."""
        found = {int(match[1]) for name in self if (match := re.match(pattern, name))}
        return next(number for number in range(len(found) + 1) if number not in found)


def _whole(tensor: Tensor) -> Tensor:
    return tensor


def _alone(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor,)


class Entry(NamedTuple):
    """Where one of our tensors stands in the original, which may keep it in several."""

    names: tuple[str, ...]
    """The original's names."""
    join: Callable[..., Tensor] = _whole
    """The original's tensors to ours."""
    split: Callable[[Tensor], tuple[Tensor, ...]] = _alone
    """Ours to the original's."""


def same(name: str) -> Entry:
    """The tensor as it is, under another name."""
    return Entry((name,))


@dataclass(frozen=True)
class System:
    """One published code, whose checkpoints become models here.

    Attributes:
        name: what `--system` takes.
        model: the class that they become.
        mark: a regular expression for the beginning of a name that no other system has.
        infer: the model's arguments from the shapes; raises ValueError where they give none.
        entry: where a tensor of ours, by its name, stands; given the model's arguments and the shapes.
        dead: a regular expression for the names of tensors that the published code makes and never uses, given the
            model's arguments.
        only: arguments and the values that alone the published code knows, for the way back.
    """

    name: str
    model: type[nn.Module]
    mark: str
    infer: Callable[[Shapes], dict[str, Any]]
    entry: Callable[[str, Mapping[str, Any], Shapes], Entry]
    dead: Callable[[Mapping[str, Any]], str]
    only: Mapping[str, Any] = field(default_factory=dict)


class Fitted(NamedTuple):
    """A model with a checkpoint's tensors, and the names of those that it has no use for."""

    model: nn.Module
    config: dict[str, Any]
    dropped: tuple[str, ...]


def rename(name: str, rules: Rules) -> str:
    """A name of ours with every rule applied in turn."""
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def build(kind: type[nn.Module], config: Mapping[str, Any]) -> nn.Module:
    """A module with fresh weights; an unknown argument is refused with the nearest name."""
    if issubclass(kind, (Predictor, Interpolator)):
        return kind.from_config(config)
    # The arguments of a module that has no config have no other place than its signature.
    arguments = list(kind.__init__.__kwdefaults__ or {})
    check_keys(f"the config of {kind.__name__}", config, arguments)
    return kind(**config)


def fit(system: System, tensors: Mapping[str, Tensor], config: Mapping[str, Any], source: str) -> Fitted:
    """The model of these arguments with these tensors, in their dtype and in evaluation mode.

    Nothing is allocated before all names and shapes are known to be right.

    Raises:
        ValueError: tensors are missing, unexpected, or of another shape; the message has the original's names.
    """
    with torch.device("meta"):
        wanted = build(system.model, config).state_dict()
    shapes = Shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()})
    entries = {name: system.entry(name, config, shapes) for name in wanted}
    expected = {
        theirs: part
        for name, entry in entries.items()
        for theirs, part in zip(entry.names, entry.split(wanted[name]), strict=True)
    }
    dead = re.compile(system.dead(config))
    dropped = tuple(name for name in tensors if name not in expected and dead.fullmatch(name))
    kept = {name: tensor for name, tensor in tensors.items() if name not in dropped}
    if faults := _compare(kept, expected):
        raise ValueError(
            f"{source} does not fit {system.model.__name__}({_arguments(config)}): {faults}; --config or config= sets "
            f"an argument that was not seen rightly"
        )
    ours = {name: entry.join(*(tensors[theirs] for theirs in entry.names)) for name, entry in entries.items()}
    model = build(system.model, config).to(_float_dtype(ours.values()))
    model.load_state_dict(ours)
    return Fitted(model.eval(), dict(config), dropped)


def _compare(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """What differs between the tensors and those that are expected; empty where nothing does."""
    both = [(name, tensors[name], expected[name]) for name in expected if name in tensors]
    faults = {
        "missing": [name for name in expected if name not in tensors],
        "unexpected": [name for name in tensors if name not in expected],
        "wrong shapes": [
            f"{name}: the file has {tuple(found.shape)}, the model {tuple(wanted.shape)}"
            for name, found, wanted in both
            if found.shape != wanted.shape
        ],
        # Whole numbers in the place of weights would be another network; between floats there is no fault.
        "wrong dtypes": [
            f"{name}: the file has {found.dtype}, the model {wanted.dtype}"
            for name, found, wanted in both
            if found.is_floating_point() != wanted.is_floating_point()
        ],
    }
    return ". ".join(f"{fault}: {_list(names)}" for fault, names in faults.items() if names)


def unfit(system: System, model: nn.Module) -> dict[str, Tensor]:
    """The model's tensors under the original's names, without those that the published code never uses.

    Raises:
        ValueError: the model has an option that the published code lacks.
    """
    config = model.config if isinstance(model, (Predictor, Interpolator)) else {}
    for argument, value in system.only.items():
        if config[argument] != value:
            raise ValueError(
                f"the published code knows {argument}={value!r} alone, and this {type(model).__name__} has "
                f"{config[argument]!r}"
            )
    theirs: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        entry = system.entry(name, config, Shapes())
        theirs |= {other: part.clone() for other, part in zip(entry.names, entry.split(tensor), strict=True)}
    return theirs


def _float_dtype(tensors: Any) -> torch.dtype:
    """The narrowest dtype that holds all floats of these tensors."""
    dtypes = {tensor.dtype for tensor in tensors if tensor.is_floating_point()}
    widest = dtypes.pop()
    for dtype in dtypes:
        widest = torch.promote_types(widest, dtype)
    return widest


def _list(names: Sequence[str]) -> str:
    more = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {more} more" if more > 0 else "")


def _arguments(config: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in config.items())
