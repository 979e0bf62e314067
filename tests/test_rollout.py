# SPDX-License-Identifier: Apache-2.0
"""The time loop, seen with a model of pure arithmetic whose answers are known."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch

from pcvideo.rollout import (
    Rollout,
    feed_context,
    feed_frames,
    flatten_state,
    map_state,
    rollout,
    unflatten_state,
    unroll,
)


class Counter:
    """Predicts ten times what it was corrected with, plus one; its state is what it was corrected with, in order."""

    def __init__(self):
        self.started = 0

    def init_state(self, like):
        self.started += 1
        return ((), like.new_zeros(()))

    def step(self, frame, state):
        seen, prediction = state
        frame = prediction if frame is None else frame
        prediction = 10 * frame + 1
        return (prediction,), ((*seen, frame.flatten()[0].item()), prediction)


def clip(*values):
    return torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1, 1)


def values(result):
    return [pyramid[0].flatten()[0].item() for pyramid in result.pyramids]


def test_true_frames_are_fed_while_there_are_any_and_then_predictions():
    result = rollout(Counter(), clip(1, 2, 3), 3)
    assert result.state[0] == (1, 2, 3, 31, 311)
    assert values(result) == [11, 21, 31, 311, 3111]
    assert isinstance(result, Rollout)


def test_the_context_alone_is_fed_on_request():
    result = rollout(Counter(), clip(1, 2, 3, 4), 2, feed=feed_context(2))
    assert result.state[0] == (1, 2, 21, 211, 2111)


def test_a_feed_is_told_the_time_the_true_frame_and_the_prediction_of_it():
    told = []

    def feed(time, frame, prediction):
        told.append((time, *(None if image is None else image.item() for image in (frame, prediction))))
        return frame if time % 2 == 0 else torch.full((1, 1, 1, 1), 5.0, dtype=torch.float64)

    result = rollout(Counter(), clip(1, 2, 3), 2, feed=feed)
    assert told == [(0, 1, None), (1, 2, 11), (2, 3, 51), (3, None, 31)]
    assert result.state[0] == (1, 5, 3, 5)


def test_a_given_state_is_gone_on_from_and_none_starts_afresh():
    model = Counter()
    state = rollout(model, clip(1, 2)).state
    result = rollout(model, clip(3), 2, state=state)
    assert model.started == 1
    assert result.state[0] == (1, 2, 3, 31)


def test_unroll_makes_one_step_at_a_time():
    model = Counter()
    steps = unroll(model, clip(1, 2, 3), 1000)
    assert model.started == 0
    assert next(steps)[1][0] == (1,)
    assert next(steps)[1][0] == (1, 2)


def test_feed_frames_is_the_true_frame_and_nothing_past_the_end():
    assert feed_frames(0, None, torch.ones(1)) is None


@pytest.mark.parametrize("number", [0, -1, 2.5, True, None], ids=repr)
def test_horizons_and_contexts_are_positive_whole_numbers(number):
    with pytest.raises((TypeError, ValueError), match="horizon must be a whole number of at least 1"):
        rollout(Counter(), clip(1), number)
    with pytest.raises((TypeError, ValueError), match="context must be a whole number of at least 1"):
        feed_context(number)


# States


class Cell(NamedTuple):
    hidden: torch.Tensor
    cell: torch.Tensor | None


def state_of(offset=0.0, dtype=torch.float32):
    first, second, third = (torch.arange(3, dtype=dtype) + offset + number for number in range(3))
    return (Cell(first, second.double()), [third, None], Cell(first + 7, None))


NAMES = ["state.0.hidden", "state.0.cell", "state.1.0", "state.2.hidden"]


def test_a_state_is_flattened_by_the_names_of_its_fields():
    flat = flatten_state(state_of())
    assert list(flat) == NAMES
    assert flat["state.0.cell"].tolist() == [1, 2, 3]
    assert flatten_state(None) == {}


def test_a_state_comes_back_in_its_form_with_the_templates_dtypes_as_copies():
    flat = flatten_state(state_of(offset=10))
    back = unflatten_state(state_of(dtype=torch.bfloat16), dict(reversed(flat.items())))
    assert isinstance(back, tuple)
    assert isinstance(back[0], Cell)
    assert isinstance(back[1], list)
    assert (back[1][1], back[2].cell) == (None, None)
    again = flatten_state(back)
    assert {name: tensor.tolist() for name, tensor in again.items()} == {
        name: tensor.tolist() for name, tensor in flat.items()
    }
    assert [tensor.dtype for tensor in again.values()] == [
        torch.bfloat16,
        torch.float64,
        torch.bfloat16,
        torch.bfloat16,
    ]
    flat["state.0.cell"].zero_()
    assert back[0].cell.tolist() == [11, 12, 13]


def test_states_of_another_form_are_refused_by_name():
    flat = flatten_state(state_of())
    with pytest.raises(ValueError, match=r"missing \['state.1.0'\], unexpected nothing"):
        unflatten_state(state_of(), {name: flat[name] for name in NAMES if name != "state.1.0"})
    with pytest.raises(ValueError, match=r"missing nothing, unexpected \['state.9'\]"):
        unflatten_state(state_of(), flat | {"state.9": torch.ones(1)})
    with pytest.raises(ValueError, match=r"state.1.0 is \(2,\), expected \(3,\)"):
        unflatten_state(state_of(), flat | {"state.1.0": torch.ones(2)})


def test_map_state_changes_every_tensor_and_keeps_the_form():
    doubled = map_state(lambda tensor: tensor * 2, state_of())
    assert doubled[0].cell.tolist() == [2, 4, 6]
    assert isinstance(doubled[2], Cell)
    assert doubled[1][1] is None
