# SPDX-License-Identifier: Apache-2.0
"""Weights that partly fit: another number of channels, levels or widths, with the matching parts kept.

A tensor of the same name and shape is kept. One whose shape follows from the frame's channels can be carried over where
the model says, by a method `frame_axes`, what its entries stand for (`MSPN` does). All else is fresh, and is told by
name. The resolution needs none of this: the predictors here take frames of any size that `size_multiple` divides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pcvideo._checks import check_keys, describe
from pcvideo._memory_format import channels_last
from pcvideo.models._base import Predictor
from pcvideo.models._frame_axes import FrameAxis

__all__ = ["Adaptation", "adapt"]

# ITU-R BT.601, as colour is made grey everywhere here.
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Adaptation:
    """A model of other numbers, and what became of each tensor of it.

    Attributes:
        model: the new model, on the device, in the dtype and in the mode of the one it was made from.
        changes: the arguments that differ, as (before, now).
        kept: names of tensors that were copied.
        adapted: names of tensors that were carried over to other channels, in part or as a whole.
        fresh: names of tensors that begin anew.
        dropped: names of tensors that the new model has no place for.
    """

    model: Predictor
    changes: dict[str, tuple[Any, Any]]
    kept: tuple[str, ...]
    adapted: tuple[str, ...]
    fresh: tuple[str, ...]
    dropped: tuple[str, ...]

    def __str__(self) -> str:
        changes = ", ".join(f"{name} {before} -> {now}" for name, (before, now) in self.changes.items()) or "nothing"
        lines = [f"{type(self.model).__name__} with changed {changes}: {len(self.kept)} tensors kept"]
        for what in ("adapted", "fresh", "dropped"):
            names = getattr(self, what)
            if names:
                lines.append(f"{what} ({len(names)}): {', '.join(names)}")
        return "\n".join(lines)


@torch.no_grad()
def adapt(model: Predictor, changes: Mapping[str, Any]) -> Adaptation:
    """A new model of the same class with some arguments changed, and with all of the weights that fit.

    From one channel to several, `MSPN` is carried over so that a clip whose channels are all alike is predicted as the
    grey model predicts it, in every channel; from several to one, a grey clip is taken in as it was, and what was
    predicted in colours is weighted as colour is made grey (ITU-R BT.601; other numbers of channels are averaged). With
    more or fewer levels, the levels of the same number are kept, and of their first convolution the part that takes in
    what was there before. Another `patch`, and other widths, leave no counterpart.

    Args:
        model: with a config; it is not changed.
        changes: constructor arguments by name, such as `{"in_channels": 3}`. What they don't name stays.

    Raises:
        TypeError: the model has no config, or an argument is of the wrong type.
        ValueError: an unknown argument, with the nearest one; or one out of its range.
    """
    if not isinstance(model, Predictor):
        raise TypeError(f"model must be a Predictor, got {describe(model)}; from_pretrained loads one")
    before = model.config
    check_keys("changes", changes, list(before))
    new = type(model).from_config({**before, **changes}).to(model.dtype)
    old_tensors, new_tensors = model.state_dict(), new.state_dict()
    old_axes, new_axes = _frame_axes(model), _frame_axes(new)
    kept, adapted = [], []
    for name, tensor in new_tensors.items():
        old = old_tensors.get(name)
        if old is None:
            continue
        old = old.to(tensor.device, tensor.dtype)
        same_axis = old_axes.get(name) == new_axes.get(name)
        if old.shape == tensor.shape and same_axis:
            tensor.copy_(old)
            kept.append(name)
        elif not same_axis and _carry_over(old, old_axes.get(name), tensor, new_axes.get(name)):
            adapted.append(name)
    after = new.config
    return Adaptation(
        model=channels_last(new.to(model.device)).train(model.training),
        changes={name: (value, after[name]) for name, value in before.items() if value != after[name]},
        kept=tuple(kept),
        adapted=tuple(adapted),
        fresh=tuple(name for name in new_tensors if name not in kept and name not in adapted),
        dropped=tuple(name for name in old_tensors if name not in new_tensors),
    )


def _frame_axes(model: Predictor) -> Mapping[str, FrameAxis]:
    return getattr(model, "frame_axes", dict)()


def _carry_over(old: Tensor, old_axis: FrameAxis | None, new: Tensor, new_axis: FrameAxis | None) -> bool:
    """Fill `new` from `old` as far as both say what their entries stand for; whether that was possible."""
    if old_axis is None or new_axis is None or old_axis.places != new_axis.places:
        return False
    axis = new_axis.axis
    if _without(old.shape, axis) != _without(new.shape, axis) or old_axis.axis != axis:
        return False
    old_groups, old_rest = _split(old.movedim(axis, 0), old_axis)
    new_groups, new_rest = _split(new.movedim(axis, 0), new_axis)
    values = {
        name: _to_channels(old_groups[name], group.shape[0], reads=new_axis.reads)
        for name, group in new_groups.items()
        if name in old_groups
    }
    if old_rest.shape != new_rest.shape or not values or any(value is None for value in values.values()):
        return False
    for name, value in values.items():
        if value is not None:
            new_groups[name].copy_(value)
    new_rest.copy_(old_rest)
    return True


def _split(tensor: Tensor, axis: FrameAxis) -> tuple[dict[str, Tensor], Tensor]:
    """Views of each group (channels, places, ...) along the first axis, and of what follows them."""
    size = axis.channels * axis.places
    groups = {
        name: tensor[index * size : (index + 1) * size].unflatten(0, (axis.channels, axis.places))
        for index, name in enumerate(axis.groups)
    }
    return groups, tensor[len(axis.groups) * size :]


def _to_channels(group: Tensor, channels: int, *, reads: bool) -> Tensor | None:
    """A group (C, places, ...) for another number of channels; None where nothing says what they would be.

    What reads a frame adds its channels up: for channels that are all alike, a repeated weight counts that many times.
    """
    have = group.shape[0]
    if have == channels:
        return group
    if have == 1:
        return (group / channels if reads else group).expand(channels, *group.shape[1:])
    if channels == 1:
        return group.sum(0, keepdim=True) if reads else _mix(group)
    return None


def _mix(group: Tensor) -> Tensor:
    """The channels (C, ...) as one, weighted as colour is made grey."""
    count = group.shape[0]
    weights = group.new_tensor(_LUMA if count == len(_LUMA) else [1 / count] * count)
    return torch.tensordot(weights, group, dims=1)[None]


def _without(shape: Sequence[int], axis: int) -> list[int]:
    return [size for index, size in enumerate(shape) if index != axis]
