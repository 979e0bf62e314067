# SPDX-License-Identifier: Apache-2.0
"""A step as a module of tensors alone, what its axes stand for, and how its state starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from pcvideo.models import Predictor
from pcvideo.rollout import flatten_state, map_state

__all__ = ["Step"]

_FORMAT = 1
_FRAME, _PREDICTION, _NEXT = "frame", "prediction", "next."
_SIDES = {2: ("height", "width"), 3: ("depth", "height", "width")}
# The exporter asks for largest sizes: of the batch, and of a side in units of what a model's sizes are a multiple of.
_LARGEST_BATCH, _LARGEST = 2**16, 4096

Axis = tuple[str, int]
"""What an axis stands for, "batch" or a side of the frame, and the share of it: (side, 4) is a quarter."""


class Step(nn.Module):
    """A frame and a flat list of the state's tensors to the prediction and the next ones.

    Args:
        predictor: has `init_state`, `step` and `to_frames`.
        model: the one that it stands for.

    Raises:
        TypeError: the state changes its form, or does not hold the prediction.
        ValueError: it can't be started from zeros.
    """

    def __init__(self, predictor: Any, model: Predictor) -> None:
        super().__init__()
        self.predictor, self.multiple, self.channels = predictor, model.size_multiple, model.in_channels
        self.kind, self.sides = type(model).__name__, _SIDES[getattr(model, "spatial_dims", 2)]
        # Of sides no two of which are alike, in units of what sizes are a multiple of.
        self.units = (3, 5, 7)[: len(self.sides)]
        black = self._black(2, self.units)
        state = predictor.init_state(black)
        pyramid, following = predictor.step(black, state)
        before, after = _leaves(state), _leaves(following)
        if _shapes(before) != _shapes(after):
            raise TypeError(f"the state of {self.kind} changes its form in its first step, and a graph's can't")
        # What a step hands on as it is depends on the weights alone.
        self.fixed = [name for name in before if after[name] is before[name]]
        self.carried = [name for name in before if name not in self.fixed]
        for name in self.fixed:
            self.register_buffer(_buffer(name), before[name].contiguous())
        self.fill = _filler(state, self.fixed + self.carried)
        self.feed_back = next((name for name in self.carried if after[name] is pyramid[0]), "")
        if not self.feed_back:
            raise TypeError(f"the state of {self.kind} does not hold its prediction, which is fed back for a frame")
        self.axes = self._find_axes()
        self.black_frames = self._count_black_frames(black, before)

    def forward(self, frame: Tensor, carried: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """One step from the tensors of the state that are carried."""
        pyramid, state = self.predictor.step(frame, self.fill([*self._fixed(), *carried]))
        following = _leaves(state)
        prediction = self.predictor.to_frames(pyramid[0])
        # Two outputs of a graph are two tensors.
        prediction = prediction.clone() if prediction is pyramid[0] else prediction
        return (prediction, *(following[name] for name in self.carried))

    def example(self) -> tuple[Tensor, list[Tensor]]:
        """A frame and a state to trace the graph with."""
        black = self._black(2, self.units)
        state = _leaves(self.predictor.init_state(black))
        return black + 0.5, [state[name] for name in self.carried]

    def dynamic_shapes(self) -> tuple[dict[int, Any], list[dict[int, Any]]]:
        """Which axes of the frame and the state are open, for `torch.export`."""
        batch = Dim("batch", min=1, max=_LARGEST_BATCH)
        of = {side: Dim(f"{side}_units", min=1, max=_LARGEST) for side in self.sides}

        def open_axes(name: str) -> dict[int, Any]:
            found: dict[int, Any] = {}
            for axis, (what, share) in self.axes[name].items():
                units = self.multiple // share
                found[axis] = batch if what == "batch" else of[what] if units == 1 else units * of[what]
            return found

        return open_axes(_FRAME), [open_axes(name) for name in self.carried]

    def describe(self) -> dict[str, Any]:
        """How to run the graph, as JSON holds it."""
        frame, carried = self.example()
        state = dict(zip(self.carried, carried, strict=True))
        shapes = {name: self._shape(name, tensor) for name, tensor in {_FRAME: frame, **state}.items()}
        dtypes = {name: str(tensor.dtype).removeprefix("torch.") for name, tensor in {_FRAME: frame, **state}.items()}
        return {
            "format": _FORMAT,
            "model": self.kind,
            "size_multiple": self.multiple,
            "frame": {"input": _FRAME, "shape": shapes[_FRAME], "dtype": dtypes[_FRAME]},
            "prediction": {"output": _PREDICTION, "shape": shapes[_FRAME], "dtype": dtypes[_FRAME]},
            "state": [
                {"input": name, "output": _NEXT + name, "shape": shapes[name], "dtype": dtypes[name]}
                for name in self.carried
            ],
            "black_frames": self.black_frames,
            "feed_back": _NEXT + self.feed_back,
        }

    def _black(self, batch: int, units: Sequence[int]) -> Tensor:
        return torch.zeros(batch, self.channels, *(unit * self.multiple for unit in units))

    def _fixed(self) -> list[Tensor]:
        return [self.get_buffer(_buffer(name)) for name in self.fixed]

    def _find_axes(self) -> dict[str, dict[int, Axis]]:
        """What each axis of the frame and of the state stands for, by what changes with it."""
        axes: dict[str, dict[int, Axis]] = {}
        base = self._forms(2, self.units)
        for what, place in [("batch", -1), *((side, place) for place, side in enumerate(self.sides))]:
            units = [unit + (index == place) for index, unit in enumerate(self.units)]
            for name, shape in self._forms(3 if what == "batch" else 2, units).items():
                known = axes.setdefault(name, {})
                for axis, (size, wider) in enumerate(zip(base[name], shape, strict=True)):
                    grown = wider - size
                    if grown:
                        whole = 1 if what == "batch" else self.multiple
                        share = whole // grown
                        per_unit = 2 if what == "batch" else self.units[place]
                        if axis in known or name in self.fixed or share * grown != whole or size != grown * per_unit:
                            raise TypeError(f"axis {axis} of {name} in the state of {self.kind} is no share of {what}")
                        known[axis] = (what, share)
        return axes

    def _forms(self, batch: int, units: Sequence[int]) -> dict[str, torch.Size]:
        black = self._black(batch, units)
        return {_FRAME: black.shape} | _shapes(_leaves(self.predictor.init_state(black)))

    def _count_black_frames(self, black: Tensor, start: Mapping[str, Tensor]) -> int:
        """How many black frames take a state of zeros to that before the first frame: none, or one."""
        if not any(start[name].any() for name in self.carried):
            return 0
        zeros = [torch.zeros_like(start[name]) for name in self.carried]
        _, *shown = self(black, zeros)
        for name, found in zip(self.carried, shown, strict=True):
            if not torch.allclose(found, start[name], rtol=1e-5, atol=1e-6):
                raise ValueError(f"neither zeros nor one black frame give {name} as {self.kind} starts with it")
        return 1

    def _shape(self, name: str, tensor: Tensor) -> list[int | str]:
        shape: list[int | str] = list(tensor.shape)
        for axis, (what, share) in self.axes[name].items():
            shape[axis] = what if share == 1 else f"{what} / {share}"
        return shape


def _leaves(state: Any) -> dict[str, Tensor]:
    """The tensors of a state by name, such as `cells.0.hidden`."""
    return {name.removeprefix("state."): tensor for name, tensor in flatten_state(state).items()}


def _shapes(leaves: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    return {name: leaf.shape for name, leaf in leaves.items()}


def _buffer(name: str) -> str:
    """A name without dots, which a buffer's can't have."""
    return "fixed_" + name.replace(".", "_")


def _filler(state: Any, order: Sequence[str]) -> Callable[[Sequence[Tensor]], Any]:
    """A function that makes a state of this form from tensors in this order."""
    places = [order.index(name) for name in _leaves(state)]

    def fill(tensors: Sequence[Tensor]) -> Any:
        sorted_ = iter([tensors[place] for place in places])
        return map_state(lambda _: next(sorted_), state)

    return fill
