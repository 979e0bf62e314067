# SPDX-License-Identifier: Apache-2.0
"""PPNV2 with a state of one form: a graph has one, and its levels begin one after another.

All levels are computed in every step, and what those that have not begun yet give is not taken.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pcvideo.layers import LSTMState
from pcvideo.models import PPNV2, PPNV2State, Predictor

__all__ = ["OneForm", "OneFormState", "in_one_form"]


class OneFormState(NamedTuple):
    """What is carried from step to step; all zeros before the first frame, but for the taps."""

    predictions: tuple[Tensor, ...]
    """What each level anticipates; zeros where it has not begun."""
    cells: tuple[LSTMState, ...]
    """The state of every level's cell."""
    age: Tensor
    """How many levels have begun, (1,); a float, as some runtimes have no other number at hand."""
    taps: tuple[tuple[Tensor, ...], ...]
    """The filters, which depend on the weights alone."""


class _Age:
    """Hands the age of a step to the merges within it."""

    tensor: Tensor


class _LateMerge(nn.Module):
    """A merge with the prediction of a coarser level, once that level has begun."""

    def __init__(self, merge: nn.Module, coarser_level: int, age: _Age) -> None:
        super().__init__()
        self.merge, self.coarser_level, self.age = merge, coarser_level, age

    def forward(self, coarser: Tensor, prediction: Tensor) -> Tensor:
        return torch.where(self.age.tensor >= self.coarser_level, self.merge(coarser, prediction), prediction)


class OneForm(nn.Module):
    """A PPNV2 whose `init_state` and `step` have states of one form; the predictions are the same.

    It takes the model over, whose own `step` can't be used any more.
    """

    def __init__(self, model: PPNV2) -> None:
        super().__init__()
        self.model, self.age, merges = model, _Age(), list(model.merge_predictions)
        model.merge_predictions = nn.ModuleList(
            _LateMerge(merge, level + 1, self.age) for level, merge in enumerate(merges)
        )
        self.to_frames = model.to_frames

    def init_state(self, like: Tensor) -> OneFormState:
        """Zeros for frames of the form of `like` (B, C, H, W)."""
        empty = self.model.init_state(like)
        coarser = (
            like.new_zeros(len(like), width, like.shape[2] // side, like.shape[3] // side)
            for level, width in enumerate(self.model.channels)
            if level > 0 and (side := self.model.patch * 2**level)
        )
        return OneFormState((torch.zeros_like(like), *coarser), empty.cells, like.new_zeros(1), empty.taps)

    def step(self, frame: Tensor, state: OneFormState) -> tuple[tuple[Tensor, ...], OneFormState]:
        """As the model's `step`, with every level in the pyramid; zeros for those that have not begun."""
        model, age = self.model, state.age
        self.age.tensor = age
        inner = PPNV2State(state.predictions, (), state.cells, state.taps)
        features, errors = model._correct(model._as_frame(frame), inner)
        errors = [_where(age > level, error) for level, error in enumerate(errors)]
        predictions, cells = model._anticipate(features, errors, inner)
        if model.patch > 1:
            predictions[0] = F.pixel_shuffle(predictions[0], model.patch)
        for level, cell in enumerate(cells):
            # The finest level begins with the first frame.
            if level > 0:
                begun = age >= level
                predictions[level] = _where(begun, predictions[level])
                cells[level] = LSTMState(_where(begun, cell.hidden), _where(begun, cell.cell))
        older = (age + 1).clamp(max=model.levels)
        return tuple(predictions), OneFormState(tuple(predictions), tuple(cells), older, state.taps)


def in_one_form(model: Predictor) -> Any:
    """The model, or what it becomes with a state that keeps its form and the same predictions."""
    return OneForm(model) if isinstance(model, PPNV2) else model


def _where(condition: Tensor, tensor: Tensor) -> Tensor:
    return torch.where(condition, tensor, torch.zeros_like(tensor))
